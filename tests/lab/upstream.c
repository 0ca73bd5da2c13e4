/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An upstream of limited capacity, as simple servers are: each of its W workers accepts, reads the request, works for
 * an exponential time, answers and closes. None looks whether the client is still there: what a client has abandoned
 * is done like all the rest, and only counted apart. One thread with a timer per worker does what W threads would, so
 * that the capacity is a matter of time alone, not of CPU.
 *
 * With --keep-alive all connections are accepted at once and stay, and their requests wait in one line for a worker.
 *
 * It is told what to do by lines on stdin, and answers each with what was done so far, as a line of JSON:
 *
 *   capacity F   so much of its workers take up work from now on (0: it stalls)
 *   latency MS   each request takes so much longer
 *   refuse       closes its listener; what waits in the backlog is reset
 *   reset        accepts, and resets each new connection
 *   serve        the end of either
 *   report       nothing else
 *
 * It ends with its stdin.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define MAX_WORKERS     1024
#define MAX_CONNECTIONS 16384
#define BODY_BYTES      100
#define REQUEST_LIMIT   1024
#define READ_TIMEOUT_S  5

/* What of the others a descriptor's event is about stands in the upper half of its epoll datum. */
enum source { SOURCE_STDIN, SOURCE_LISTENER, SOURCE_WORKER, SOURCE_CONNECTION };

struct connection {
	int fd; /* -1: free */
	bool left, waiting;
	size_t len;
	char request[REQUEST_LIMIT];
};

enum worker_state { WORKER_FREE, WORKER_READS, WORKER_WORKS };

struct worker {
	enum worker_state state;
	int timer;
	uint32_t connection;
};

struct upstream {
	int epoll, listener;
	struct sockaddr_in6 address;
	int backlog;
	bool keep_alive, resets, listening;
	double mean_work_s, latency_s;
	unsigned n_workers, n_allowed, n_busy;
	unsigned short random[3];
	char answer[512];
	size_t answer_len;
	struct worker workers[MAX_WORKERS];
	struct connection connections[MAX_CONNECTIONS];
	uint32_t free[MAX_CONNECTIONS]; /* stack */
	unsigned n_free;
	uint32_t line[MAX_CONNECTIONS]; /* ring: whose request waits for a worker */
	unsigned line_first, line_len;
	uint64_t accepted, answered;
	uint64_t abandoned; /* of `answered`: the client had left before */
	uint64_t no_request;
};

static void die(const char *what)
{
	fprintf(stderr, "upstream: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void watch(struct upstream *up, int op, int fd, uint32_t events, enum source source, uint32_t index)
{
	struct epoll_event event = {.events = events, .data.u64 = (uint64_t)source << 32 | index};

	if (epoll_ctl(up->epoll, op, fd, &event))
		die("epoll_ctl");
}

/* --- listening --- */

static void listen_now(struct upstream *up)
{
	const int on = 1, off = 0;

	up->listener = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (up->listener < 0)
		die("socket");
	setsockopt(up->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	setsockopt(up->listener, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(up->listener, (const struct sockaddr *)&up->address, sizeof(up->address)) ||
	    listen(up->listener, up->backlog))
		die("listen");
	up->listening = false;
	watch(up, EPOLL_CTL_ADD, up->listener, 0, SOURCE_LISTENER, 0);
}

static void refuse(struct upstream *up)
{
	if (up->listener >= 0)
		close(up->listener);
	up->listener = -1;
}

static bool may_work(const struct upstream *up)
{
	return up->n_busy < up->n_allowed;
}

/* Without --keep-alive only a worker that is free accepts: the others wait in the kernel's backlog. */
static void listen_if_wanted(struct upstream *up)
{
	bool wanted = up->n_free && (up->keep_alive || up->resets || may_work(up));

	if (up->listener < 0 || wanted == up->listening)
		return;
	up->listening = wanted;
	watch(up, EPOLL_CTL_MOD, up->listener, wanted ? EPOLLIN : 0, SOURCE_LISTENER, 0);
}

/* --- connections --- */

static void drop(struct upstream *up, uint32_t index)
{
	close(up->connections[index].fd);
	up->connections[index].fd = -1;
	up->free[up->n_free++] = index;
}

/* A client that waits has neither closed nor reset, and sends nothing after its request. */
static bool client_left(const struct connection *c)
{
	char byte;

	return c->left || recv(c->fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) >= 0 || errno != EAGAIN;
}

/* 1: a whole request is there; 0: not yet; -1: none will come. */
static int read_request(struct connection *c)
{
	ssize_t n;

	while ((n = recv(c->fd, c->request + c->len, sizeof(c->request) - 1 - c->len, 0)) > 0) {
		c->len += (size_t)n;
		c->request[c->len] = '\0';
		if (strstr(c->request, "\r\n\r\n"))
			return 1;
		if (c->len == sizeof(c->request) - 1)
			return -1;
	}
	return n < 0 && errno == EAGAIN ? 0 : -1;
}

/* --- workers --- */

static void set_timer(struct worker *w, double s)
{
	struct itimerspec spec = {.it_value = {.tv_sec = (time_t)s, .tv_nsec = (long)((s - floor(s)) * 1e9)}};

	if (s > 0 && !spec.it_value.tv_sec && !spec.it_value.tv_nsec)
		spec.it_value.tv_nsec = 1;
	timerfd_settime(w->timer, 0, &spec, NULL);
}

static struct worker *take_worker(struct upstream *up, uint32_t connection)
{
	struct worker *w = up->workers;

	while (w->state != WORKER_FREE)
		w++;
	w->connection = connection;
	up->n_busy++;
	return w;
}

static void work(struct upstream *up, struct worker *w)
{
	w->state = WORKER_WORKS;
	set_timer(w, up->latency_s - log(1 - erand48(up->random)) * up->mean_work_s);
}

static void free_worker(struct upstream *up, struct worker *w)
{
	w->state = WORKER_FREE;
	set_timer(w, 0);
	up->n_busy--;
}

static void take_from_line(struct upstream *up)
{
	while (up->line_len && may_work(up)) {
		work(up, take_worker(up, up->line[up->line_first]));
		up->line_first = (up->line_first + 1) % MAX_CONNECTIONS;
		up->line_len--;
	}
}

static void put_in_line(struct upstream *up, uint32_t index)
{
	up->connections[index].waiting = true;
	up->line[(up->line_first + up->line_len++) % MAX_CONNECTIONS] = index;
}

/* The request is done, for whom it may concern. */
static void answer(struct upstream *up, struct worker *w)
{
	uint32_t index = w->connection;
	struct connection *c = &up->connections[index];

	up->abandoned += client_left(c);
	up->answered++;
	send(c->fd, up->answer, up->answer_len, MSG_NOSIGNAL);
	free_worker(up, w);
	c->waiting = false;
	c->len = 0;
	if (!up->keep_alive || c->left)
		drop(up, index);
	else
		watch(up, EPOLL_CTL_MOD, c->fd, EPOLLIN, SOURCE_CONNECTION, index);
}

static void give_up_reading(struct upstream *up, struct worker *w)
{
	up->no_request++;
	drop(up, w->connection);
	free_worker(up, w);
}

static void on_timer(struct upstream *up, struct worker *w)
{
	uint64_t times;

	if (read(w->timer, &times, sizeof(times)) < 0)
		return;
	if (w->state == WORKER_WORKS)
		answer(up, w);
	else if (w->state == WORKER_READS)
		give_up_reading(up, w);
}

/* Its worker holds it, or (--keep-alive) nobody does. */
static struct worker *worker_of(struct upstream *up, uint32_t connection)
{
	for (unsigned i = 0; i < up->n_workers; i++)
		if (up->workers[i].state == WORKER_READS && up->workers[i].connection == connection)
			return &up->workers[i];
	return NULL;
}

static void on_readable(struct upstream *up, uint32_t index)
{
	struct connection *c = &up->connections[index];
	struct worker *w = worker_of(up, index);
	int got = read_request(c);

	if (got == 0)
		return;
	if (got > 0) {
		/* Nothing is read ahead; the end of a client is seen when its answer is there. */
		watch(up, EPOLL_CTL_MOD, c->fd, 0, SOURCE_CONNECTION, index);
		if (w)
			work(up, w);
		else
			put_in_line(up, index);
		return;
	}
	if (w)
		give_up_reading(up, w);
	else
		drop(up, index);
}

/* It is gone while its request waits or is worked on: the work is done all the same. */
static void on_gone(struct upstream *up, uint32_t index)
{
	struct connection *c = &up->connections[index];

	c->left = true;
	epoll_ctl(up->epoll, EPOLL_CTL_DEL, c->fd, NULL);
}

static bool has_work(const struct upstream *up, uint32_t index)
{
	if (up->connections[index].waiting)
		return true;
	for (unsigned i = 0; i < up->n_workers; i++)
		if (up->workers[i].state == WORKER_WORKS && up->workers[i].connection == index)
			return true;
	return false;
}

static void on_connection(struct upstream *up, uint32_t index)
{
	if (up->connections[index].fd < 0)
		return;
	if (has_work(up, index))
		on_gone(up, index);
	else
		on_readable(up, index);
}

static void reset(int fd)
{
	const struct linger at_once = {.l_onoff = 1};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(fd);
}

static void admit(struct upstream *up, int fd)
{
	uint32_t index = up->free[--up->n_free];
	struct worker *w;

	up->connections[index].fd = fd;
	up->connections[index].left = up->connections[index].waiting = false;
	up->connections[index].len = 0;
	watch(up, EPOLL_CTL_ADD, fd, EPOLLIN, SOURCE_CONNECTION, index);
	if (up->keep_alive)
		return;
	w = take_worker(up, index);
	w->state = WORKER_READS;
	set_timer(w, READ_TIMEOUT_S);
}

static void on_listener(struct upstream *up)
{
	while (up->n_free && (up->keep_alive || up->resets || may_work(up))) {
		int fd = accept4(up->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0)
			return;
		up->accepted++;
		if (up->resets)
			reset(fd);
		else
			admit(up, fd);
	}
}

/* --- orders --- */

static void report(const struct upstream *up)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	printf("{\"accepted\":%llu,\"answered\":%llu,\"abandoned\":%llu,\"no_request\":%llu,\"waiting\":%u,\"cpu_s\":%.3f}"
	       "\n",
	       (unsigned long long)up->accepted, (unsigned long long)up->answered, (unsigned long long)up->abandoned,
	       (unsigned long long)up->no_request, up->line_len,
	       (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
		       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
	fflush(stdout);
}

static bool obey(struct upstream *up, const char *order)
{
	double value;

	if (sscanf(order, "capacity %lf", &value) == 1 && value >= 0 && value <= 1) {
		up->n_allowed = (unsigned)lround(up->n_workers * value);
	} else if (sscanf(order, "latency %lf", &value) == 1 && value >= 0) {
		up->latency_s = value / 1000;
	} else if (!strcmp(order, "refuse\n")) {
		refuse(up);
	} else if (!strcmp(order, "reset\n")) {
		up->resets = true;
	} else if (!strcmp(order, "serve\n")) {
		up->resets = false;
		if (up->listener < 0)
			listen_now(up);
	} else {
		return !strcmp(order, "report\n");
	}
	return true;
}

/* False: there will be none any more. An order is one write, and so one line. */
static bool on_stdin(struct upstream *up)
{
	char order[128];
	ssize_t n = read(STDIN_FILENO, order, sizeof(order) - 1);

	if (n <= 0)
		return false;
	order[n] = '\0';
	if (!obey(up, order)) {
		fprintf(stderr, "upstream: what is \"%s\"?\n", order);
		return false;
	}
	report(up);
	return true;
}

/* --- the whole --- */

static bool dispatch(struct upstream *up, uint64_t datum)
{
	uint32_t index = (uint32_t)datum;

	switch ((enum source)(datum >> 32)) {
	case SOURCE_STDIN:
		return on_stdin(up);
	case SOURCE_LISTENER:
		if (up->listener >= 0)
			on_listener(up);
		return true;
	case SOURCE_WORKER:
		on_timer(up, &up->workers[index]);
		return true;
	case SOURCE_CONNECTION:
		on_connection(up, index);
		return true;
	}
	return true;
}

static void run(struct upstream *up)
{
	struct epoll_event events[64];
	bool go_on = true;

	while (go_on) {
		int n;

		take_from_line(up);
		listen_if_wanted(up);
		n = epoll_wait(up->epoll, events, 64, -1);
		if (n < 0 && errno != EINTR)
			die("epoll_wait");
		for (int i = 0; i < n && go_on; i++)
			go_on = dispatch(up, events[i].data.u64);
	}
	report(up);
}

static void make_answer(struct upstream *up, const char *name)
{
	up->answer_len =
		(size_t)snprintf(up->answer, sizeof(up->answer),
				 "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: %s\r\n\r\n%s\n%*s", BODY_BYTES,
				 up->keep_alive ? "keep-alive" : "close", name, BODY_BYTES - 1 - (int)strlen(name), "");
}

static void prepare(struct upstream *up, const char *name)
{
	const struct rlimit files = {MAX_CONNECTIONS + MAX_WORKERS + 16, MAX_CONNECTIONS + MAX_WORKERS + 16};

	make_answer(up, name);
	if (setrlimit(RLIMIT_NOFILE, &files))
		die("setrlimit");
	up->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (up->epoll < 0)
		die("epoll_create1");
	watch(up, EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN, SOURCE_STDIN, 0);
	for (unsigned i = 0; i < up->n_workers; i++) {
		up->workers[i].timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
		if (up->workers[i].timer < 0)
			die("timerfd_create");
		watch(up, EPOLL_CTL_ADD, up->workers[i].timer, EPOLLIN, SOURCE_WORKER, i);
	}
	for (uint32_t i = MAX_CONNECTIONS; i-- > 0;) {
		up->connections[i].fd = -1;
		up->free[up->n_free++] = i;
	}
	up->n_allowed = up->n_workers;
	listen_now(up);
}

static void usage(void)
{
	fputs("usage: upstream --name NAME --port N [--workers N] [--work-ms N] [--backlog N] [--keep-alive] [--seed N]\n",
	      stderr);
	exit(2);
}

static long parse_number(const char *text, long max)
{
	char *end;
	long n = strtol(text, &end, 10);

	if (*end || n < 1 || n > max)
		usage();
	return n;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{"name", 1, NULL, 'n'},    {"port", 1, NULL, 'p'},    {"workers", 1, NULL, 'w'},
		{"work-ms", 1, NULL, 'm'}, {"backlog", 1, NULL, 'b'}, {"keep-alive", 0, NULL, 'k'},
		{"seed", 1, NULL, 's'},    {NULL, 0, NULL, 0},
	};
	static struct upstream up;
	const char *name = NULL;
	long port = 0, seed = 1;
	int c;

	up.n_workers = 10;
	up.mean_work_s = 0.02;
	up.backlog = 4096;
	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'n':
			name = optarg;
			break;
		case 'p':
			port = parse_number(optarg, UINT16_MAX);
			break;
		case 'w':
			up.n_workers = (unsigned)parse_number(optarg, MAX_WORKERS);
			break;
		case 'm':
			up.mean_work_s = (double)parse_number(optarg, 10000) / 1000;
			break;
		case 'b':
			up.backlog = (int)parse_number(optarg, 65535);
			break;
		case 'k':
			up.keep_alive = true;
			break;
		case 's':
			seed = parse_number(optarg, INT32_MAX);
			break;
		default:
			usage();
		}
	}
	if (!name || strlen(name) >= BODY_BYTES || !port || optind != argc)
		usage();
	memcpy(up.random, &(uint64_t){(uint64_t)seed * 0x9e3779b97f4a7c15}, sizeof(up.random));
	up.address = (struct sockaddr_in6){
		.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port), .sin6_addr = IN6ADDR_ANY_INIT};
	prepare(&up, name);
	run(&up);
	return 0;
}
