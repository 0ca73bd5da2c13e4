/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A crowd of TCP connections that stay, and the server that they stay at.
 *
 *   crowd serve --port N [--pour]          sends back what it gets; --pour: sends without end instead
 *   crowd call --port N --to A[,A…] --from A[,A…] --count N [--rcvbuf BYTES]
 *
 * Each line on stdin is a command to the callers, answered by a line of JSON on stdout:
 *   open       connects; the source addresses take turns, and so do the destinations
 *   use        a word of its own there and back on each that is open
 *   watch      reads and throws away, until all have ended: who, how (errno, 0: FIN) and when
 *   close      FIN on each, until the server's FIN has come
 * `failed` are those that came to another end than they should, `late` those that were under way when time was up.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_ADDRESSES 256
#define MAX_EVENTS    256
#define AT_A_TIME     256 /* that connect, or say something: more than rings hold would only be sent again */
#define PATIENCE_MS   30000
#define POUR_BYTES    16384
#define POUR_SNDBUF   32768

struct address {
	struct sockaddr_storage sa;
	socklen_t len;
};

struct addresses {
	struct address list[MAX_ADDRESSES];
	unsigned n;
};

struct caller {
	int fd; /* -1: none */
	bool waits;
	uint32_t got;    /* bytes of its word that came back */
	int error;       /* of its end */
	double ended_at; /* seconds of the host's clock; 0: it has not */
};

struct options {
	struct addresses to, from;
	uint16_t port;
	unsigned count, rcvbuf;
	bool pour;
};

struct crowd {
	struct options opt;
	struct caller *callers;
	int epoll_fd;
	unsigned waiting; /* for what the present command is about */
	unsigned done, failed;
};

static double now_s(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void die(const char *what)
{
	fprintf(stderr, "crowd: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* --- the server --- */

static int listen_on(uint16_t port)
{
	const struct sockaddr_in6 any = {
		.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_ANY_INIT};
	const int on = 1, off = 0;
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	/* Servers beside each other share what comes: no process may have files enough for all of it. */
	setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, (const struct sockaddr *)&any, sizeof(any)) || listen(fd, 4096))
		die("listen");
	return fd;
}

static void take_callers(int epoll_fd, int listener, bool pour)
{
	const int sndbuf = POUR_SNDBUF;
	int fd;

	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		if (pour)
			setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &sndbuf, sizeof(sndbuf));
		epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd,
			  &(struct epoll_event){.events = pour ? EPOLLOUT : EPOLLIN, .data.fd = fd});
	}
	if (errno != EAGAIN && errno != ECONNABORTED)
		die("accept");
}

/* Words are so short that the socket always has room for one that goes back. False: it has ended. */
static bool send_back(int fd)
{
	char words[4096];
	ssize_t n;

	while ((n = recv(fd, words, sizeof(words), 0)) > 0)
		if (send(fd, words, (size_t)n, MSG_NOSIGNAL) != n)
			return false;
	return n < 0 && errno == EAGAIN;
}

static bool pour(int fd)
{
	static const char drops[POUR_BYTES];

	return send(fd, drops, sizeof(drops), MSG_NOSIGNAL) > 0 || errno == EAGAIN;
}

static void serve(const struct options *opt)
{
	int listener = listen_on(opt->port), epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event events[MAX_EVENTS];

	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &(struct epoll_event){.events = EPOLLIN, .data.fd = listener});
	for (;;) {
		int n = epoll_wait(epoll_fd, events, MAX_EVENTS, -1);

		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;

			if (fd == listener)
				take_callers(epoll_fd, listener, opt->pour);
			else if (!(opt->pour ? pour(fd) : send_back(fd)))
				close(fd);
		}
	}
}

/* --- callers --- */

static void watch_for(struct crowd *c, unsigned i, uint32_t events, int op)
{
	if (epoll_ctl(c->epoll_fd, op, c->callers[i].fd, &(struct epoll_event){.events = events, .data.u32 = i}))
		die("epoll_ctl");
}

/* Each word is another one. */
static uint64_t word_of(unsigned i)
{
	return (i + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

static void settle(struct crowd *c, struct caller *caller, bool well)
{
	caller->waits = false;
	c->waiting--;
	c->done += well;
	c->failed += !well;
}

static void hang_up(struct caller *caller, int error)
{
	caller->error = error;
	caller->ended_at = now_s(CLOCK_REALTIME);
	close(caller->fd);
	caller->fd = -1;
}

static int error_of(int fd)
{
	socklen_t len = sizeof(int);
	int error = 0;

	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
	return error;
}

static void open_one(struct crowd *c, unsigned i)
{
	const struct options *opt = &c->opt;
	const struct address *to = &opt->to.list[i % opt->to.n];
	const struct address *from = &opt->from.list[i / opt->to.n % opt->from.n];
	struct caller *caller = &c->callers[i];
	const int on = 1, rcvbuf = (int)opt->rcvbuf;

	/* Of the same family as where it goes. */
	while (from->sa.ss_family != to->sa.ss_family)
		from = from + 1 < opt->from.list + opt->from.n ? from + 1 : opt->from.list;
	caller->fd = socket(to->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (caller->fd < 0)
		die("socket");
	/* The port is chosen at connect(), so that each source has all ports towards this destination. */
	setsockopt(caller->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
	if (rcvbuf)
		setsockopt(caller->fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof(rcvbuf));
	caller->waits = true;
	c->waiting++;
	if (bind(caller->fd, (const struct sockaddr *)&from->sa, from->len) ||
	    (connect(caller->fd, (const struct sockaddr *)&to->sa, to->len) && errno != EINPROGRESS)) {
		hang_up(caller, errno);
		settle(c, caller, false);
		return;
	}
	watch_for(c, i, EPOLLOUT, EPOLL_CTL_ADD);
}

static void on_open(struct crowd *c, unsigned i)
{
	struct caller *caller = &c->callers[i];
	int error = error_of(caller->fd);

	if (error)
		hang_up(caller, error);
	else
		watch_for(c, i, 0, EPOLL_CTL_MOD);
	settle(c, caller, !error);
}

static void on_word(struct crowd *c, unsigned i)
{
	struct caller *caller = &c->callers[i];
	uint64_t word = word_of(i), back;
	ssize_t n = recv(caller->fd, &back, sizeof(back) - caller->got, 0);

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0 || memcmp(&back, (const char *)&word + caller->got, (size_t)n)) {
		hang_up(caller, n < 0 ? errno : 0);
		settle(c, caller, false);
		return;
	}
	caller->got += (uint32_t)n;
	if (caller->got < sizeof(word))
		return;
	watch_for(c, i, 0, EPOLL_CTL_MOD);
	settle(c, caller, true);
}

/* Until its end, whatever that is. */
static void on_rain(struct crowd *c, unsigned i)
{
	struct caller *caller = &c->callers[i];
	char drops[POUR_BYTES];
	ssize_t n = recv(caller->fd, drops, sizeof(drops), 0);

	if (n > 0 || (n < 0 && errno == EAGAIN))
		return;
	hang_up(caller, n < 0 ? errno : 0);
	settle(c, caller, true);
}

static void on_farewell(struct crowd *c, unsigned i)
{
	struct caller *caller = &c->callers[i];
	char none;
	ssize_t n = recv(caller->fd, &none, 1, 0);

	if (n < 0 && errno == EAGAIN)
		return;
	hang_up(caller, n < 0 ? errno : 0);
	settle(c, caller, n == 0);
}

typedef void (*on_event)(struct crowd *c, unsigned i);

/* Until at most `left` wait. False: time is up. */
static bool wait_until(struct crowd *c, unsigned left, double deadline_s, on_event handler)
{
	struct epoll_event events[MAX_EVENTS];

	while (c->waiting > left) {
		double left_s = deadline_s - now_s(CLOCK_MONOTONIC);
		int n = left_s > 0 ? epoll_wait(c->epoll_fd, events, MAX_EVENTS, (int)(left_s * 1000) + 1) : 0;

		if (n <= 0 && left_s <= 0)
			return false;
		for (int i = 0; i < n; i++)
			if (c->callers[events[i].data.u32].waits)
				handler(c, events[i].data.u32);
	}
	return true;
}

static void open_all(struct crowd *c, double deadline_s)
{
	for (unsigned i = 0; i < c->opt.count; i++) {
		if (!wait_until(c, AT_A_TIME - 1, deadline_s, on_open))
			break;
		open_one(c, i);
	}
	wait_until(c, 0, deadline_s, on_open);
}

/* On each that is open, so many at a time: begins something with `first`, and waits for what `handler` makes of it. */
static void do_all(struct crowd *c, unsigned at_a_time, double deadline_s, bool (*first)(struct crowd *c, unsigned i),
		   on_event handler)
{
	for (unsigned i = 0; i < c->opt.count; i++) {
		struct caller *caller = &c->callers[i];

		if (caller->fd < 0)
			continue;
		if (!wait_until(c, at_a_time - 1, deadline_s, handler))
			return;
		caller->waits = true;
		c->waiting++;
		if (first(c, i)) {
			watch_for(c, i, EPOLLIN, EPOLL_CTL_MOD);
			continue;
		}
		hang_up(caller, errno);
		settle(c, caller, false);
	}
	wait_until(c, 0, deadline_s, handler);
}

static bool say_word(struct crowd *c, unsigned i)
{
	uint64_t word = word_of(i);

	c->callers[i].got = 0;
	return send(c->callers[i].fd, &word, sizeof(word), MSG_NOSIGNAL) == sizeof(word);
}

static bool say_nothing(struct crowd *c, unsigned i)
{
	return true;
}

static bool say_farewell(struct crowd *c, unsigned i)
{
	return shutdown(c->callers[i].fd, SHUT_WR) == 0;
}

static const char *name_of(const struct address *a, char out[INET6_ADDRSTRLEN])
{
	const void *addr = a->sa.ss_family == AF_INET ? (const void *)&((const struct sockaddr_in *)&a->sa)->sin_addr
						      : &((const struct sockaddr_in6 *)&a->sa)->sin6_addr;

	return inet_ntop(a->sa.ss_family, addr, out, INET6_ADDRSTRLEN);
}

/* Their addresses, as long as they have them. */
static json_t *locals_of(const struct crowd *c)
{
	json_t *all = json_array();

	for (unsigned i = 0; i < c->opt.count; i++) {
		struct address a = {.len = sizeof(a.sa)};
		char name[INET6_ADDRSTRLEN];

		if (c->callers[i].fd < 0 || getsockname(c->callers[i].fd, (struct sockaddr *)&a.sa, &a.len))
			json_array_append_new(all, json_null());
		else /* the port stands at the same place in both families */
			json_array_append_new(all, json_pack("[s, i]", name_of(&a, name),
							     ntohs(((const struct sockaddr_in *)&a.sa)->sin_port)));
	}
	return all;
}

static json_t *ends_of(const struct crowd *c, json_t *locals)
{
	json_t *all = json_array(), *local;
	size_t i;

	json_array_foreach(locals, i, local)
	{
		const struct caller *caller = &c->callers[i];

		if (json_is_array(local) && caller->fd < 0)
			json_array_append_new(all, json_pack("{s: O, s: O, s: i, s: f}", "address",
							     json_array_get(local, 0), "port", json_array_get(local, 1),
							     "errno", caller->error, "at", caller->ended_at));
	}
	json_decref(locals);
	return all;
}

static void answer(struct crowd *c, const char *command, double patience_s)
{
	double begin_s = now_s(CLOCK_MONOTONIC), deadline_s = begin_s + patience_s;
	json_t *o, *ends = NULL;

	c->done = c->failed = c->waiting = 0;
	if (!strcmp(command, "open")) {
		open_all(c, deadline_s);
	} else if (!strcmp(command, "use")) {
		do_all(c, AT_A_TIME, deadline_s, say_word, on_word);
	} else if (!strcmp(command, "watch")) {
		json_t *locals = locals_of(c);

		do_all(c, c->opt.count, deadline_s, say_nothing, on_rain);
		ends = ends_of(c, locals);
	} else if (!strcmp(command, "close")) {
		do_all(c, AT_A_TIME, deadline_s, say_farewell, on_farewell);
	} else {
		errno = EINVAL;
		die(command);
	}
	o = json_pack("{s: i, s: i, s: i, s: f, s: o*}", "done", (int)c->done, "failed", (int)c->failed, "late",
		      (int)c->waiting, "seconds", now_s(CLOCK_MONOTONIC) - begin_s, "ends", ends);
	json_dumpf(o, stdout, JSON_COMPACT);
	putchar('\n');
	fflush(stdout);
	json_decref(o);
}

static void call(const struct options *opt)
{
	struct crowd c = {.opt = *opt, .epoll_fd = epoll_create1(EPOLL_CLOEXEC)};
	char line[64], command[32];

	c.callers = calloc(opt->count, sizeof(*c.callers));
	if (!c.callers || c.epoll_fd < 0)
		die("start");
	for (unsigned i = 0; i < opt->count; i++)
		c.callers[i].fd = -1;
	while (fgets(line, sizeof(line), stdin)) {
		unsigned patience_ms = PATIENCE_MS;

		if (sscanf(line, "%31s %u", command, &patience_ms) >= 1)
			answer(&c, command, patience_ms / 1000.0);
	}
	free(c.callers);
}

/* --- options --- */

static void usage(void)
{
	fputs("usage: crowd serve --port N [--pour]\n"
	      "       crowd call --port N --to A[,A...] --from A[,A...] --count N [--rcvbuf BYTES]\n",
	      stderr);
	exit(2);
}

static void parse_address(const char *text, struct address *a)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)&a->sa;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&a->sa;

	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		a->len = sizeof(*v4);
	} else if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		a->len = sizeof(*v6);
	} else {
		usage();
	}
}

static void parse_addresses(char *text, struct addresses *out)
{
	for (char *part = strtok(text, ","); part; part = strtok(NULL, ",")) {
		if (out->n == MAX_ADDRESSES)
			usage();
		parse_address(part, &out->list[out->n++]);
	}
}

static unsigned parse_number(const char *text, unsigned long max)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*end || n < 1 || n > max)
		usage();
	return (unsigned)n;
}

/* Every destination has a source. */
static bool is_complete(const struct options *o)
{
	for (unsigned i = 0; i < o->to.n; i++) {
		bool found = false;

		for (unsigned j = 0; j < o->from.n; j++)
			found |= o->from.list[j].sa.ss_family == o->to.list[i].sa.ss_family;
		if (!found)
			return false;
	}
	return o->to.n && o->from.n && o->count;
}

static void parse_options(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{"port", 1, NULL, 'p'},   {"to", 1, NULL, 't'},   {"from", 1, NULL, 'f'}, {"count", 1, NULL, 'c'},
		{"rcvbuf", 1, NULL, 'r'}, {"pour", 0, NULL, 'P'}, {NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'p':
			o->port = (uint16_t)parse_number(optarg, UINT16_MAX);
			break;
		case 't':
			parse_addresses(optarg, &o->to);
			break;
		case 'f':
			parse_addresses(optarg, &o->from);
			break;
		case 'c':
			o->count = parse_number(optarg, 1000000);
			break;
		case 'r':
			o->rcvbuf = parse_number(optarg, 1 << 30);
			break;
		case 'P':
			o->pour = true;
			break;
		default:
			usage();
		}
	}
	if (!o->port)
		usage();
	for (unsigned i = 0; i < o->to.n; i++)
		((struct sockaddr_in *)&o->to.list[i].sa)->sin_port = htons(o->port);
}

int main(int argc, char **argv)
{
	static struct options opt;
	const char *role = argc > 1 ? argv[1] : "";
	struct rlimit files;

	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	parse_options(argc ? argc - 1 : 0, argv + 1, &opt);
	if (!strcmp(role, "serve"))
		serve(&opt);
	else if (!strcmp(role, "call") && is_complete(&opt))
		call(&opt);
	else
		usage();
	return 0;
}
