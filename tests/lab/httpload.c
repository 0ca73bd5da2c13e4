/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * HTTP load: each request is a connection of its own, made from the given source addresses in turn. The first line of
 * a 200 answer's body names the backend that gave it. One JSON object on stdout at the end; SIGINT and SIGTERM let what
 * is under way finish first.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_SOURCES     256
#define MAX_BACKENDS    32
#define MAX_CONCURRENCY 4096
#define NS_PER_MS       1000000ULL
#define NS_PER_S        1000000000ULL

enum outcome {
	OUTCOME_OK,
	OUTCOME_REFUSED,
	OUTCOME_RESET,
	OUTCOME_TIMEOUT,
	OUTCOME_BAD_ANSWER,
	OUTCOME_OTHER,
	OUTCOME_COUNT,
};

static const char *const outcome_name[OUTCOME_COUNT] = {"ok", "refused", "reset", "timeout", "bad_answer", "other"};

struct options {
	struct sockaddr_storage to;
	socklen_t to_len;
	struct sockaddr_storage sources[MAX_SOURCES];
	unsigned n_sources;
	uint64_t requests; /* 0: until `deadline_ns` or a signal */
	uint64_t deadline_ns;
	uint64_t timeout_ns;
	uint64_t rate; /* starts per second; 0: as fast as `concurrency` lets */
	unsigned concurrency;
	uint16_t port;
	const char *path;
	bool progress;
};

struct conn {
	int fd; /* -1: free */
	bool sent;
	unsigned source_idx;
	uint64_t start_ns;
	size_t len;
	char answer[1024]; /* what came first; the rest is read and thrown away */
};

struct backend {
	char name[64];
	uint64_t answers;
	uint64_t last_start_ns; /* monotonic; start of the latest connection that it answered */
};

struct load {
	struct options opt;
	struct conn *conns;
	struct backend backends[MAX_BACKENDS];
	unsigned n_backends;
	unsigned active;
	unsigned next_free;
	int epoll_fd;
	char request[512];
	size_t request_len;
	uint64_t begin_ns;
	uint64_t started, finished;
	uint64_t outcomes[OUTCOME_COUNT];
	uint64_t source_ok[MAX_SOURCES];
	uint64_t max_ns, sum_ns;
	uint64_t connect_max_ns; /* of those that were made, answered or not */
	uint64_t first_failure_ns, last_failure_ns;
	uint64_t last_failed_start_ns; /* start of the latest connection that failed */
};

static volatile sig_atomic_t stop_wanted;

static void on_signal(int signo)
{
	stop_wanted = 1;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static int parse_address(const char *text, uint16_t port, struct sockaddr_storage *out, socklen_t *len)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)out;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;

	memset(out, 0, sizeof(*out));
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		*len = sizeof(*v4);
		return 0;
	}
	if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		*len = sizeof(*v6);
		return 0;
	}
	return -EINVAL;
}

static void count_backend(struct load *load, const char *name, size_t len, uint64_t start_ns)
{
	struct backend *b;
	unsigned i;

	for (i = 0; i < load->n_backends; i++)
		if (strlen(load->backends[i].name) == len && !memcmp(load->backends[i].name, name, len))
			break;
	if (i == MAX_BACKENDS)
		return;
	b = &load->backends[i];
	if (i == load->n_backends) {
		load->n_backends++;
		memcpy(b->name, name, len);
	}
	b->answers++;
	if (start_ns > b->last_start_ns)
		b->last_start_ns = start_ns;
}

static void conn_finish(struct load *load, struct conn *c, enum outcome outcome)
{
	uint64_t now = now_ns(), took_ns = now - c->start_ns;

	close(c->fd);
	c->fd = -1;
	load->active--;
	load->finished++;
	load->outcomes[outcome]++;
	if (outcome == OUTCOME_OK) {
		load->source_ok[c->source_idx]++;
		load->sum_ns += took_ns;
		if (took_ns > load->max_ns)
			load->max_ns = took_ns;
	} else {
		if (!load->first_failure_ns)
			load->first_failure_ns = now;
		load->last_failure_ns = now;
		if (c->start_ns > load->last_failed_start_ns)
			load->last_failed_start_ns = c->start_ns;
	}
	if (load->opt.progress && load->finished % 1000 == 0)
		fprintf(stderr, "%llu %llu\n", (unsigned long long)load->finished,
			(unsigned long long)load->outcomes[OUTCOME_OK]);
}

static enum outcome outcome_of(int error)
{
	switch (error) {
	case ECONNREFUSED:
		return OUTCOME_REFUSED;
	case ECONNRESET:
	case EPIPE:
		return OUTCOME_RESET;
	case ETIMEDOUT:
		return OUTCOME_TIMEOUT;
	default:
		return OUTCOME_OTHER;
	}
}

static void conn_start(struct load *load)
{
	struct options *opt = &load->opt;
	const int on = 1;
	struct conn *c;
	unsigned slot;

	while (load->conns[load->next_free].fd >= 0)
		load->next_free = (load->next_free + 1) % opt->concurrency;
	slot = load->next_free;
	c = &load->conns[slot];
	c->sent = false;
	c->len = 0;
	c->start_ns = now_ns();
	c->source_idx = opt->n_sources ? load->started % opt->n_sources : 0;
	load->started++;
	load->active++;
	c->fd = socket(opt->to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0) {
		perror("httpload: socket");
		exit(1);
	}
	/* The port is chosen at connect(), so that each source has all ports towards this destination. */
	setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
	if (opt->n_sources && bind(c->fd, (struct sockaddr *)&opt->sources[c->source_idx], opt->to_len))
		conn_finish(load, c, outcome_of(errno));
	else if (connect(c->fd, (struct sockaddr *)&opt->to, opt->to_len) && errno != EINPROGRESS)
		conn_finish(load, c, outcome_of(errno));
	else
		epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, c->fd,
			  &(struct epoll_event){.events = EPOLLIN | EPOLLOUT, .data.u32 = slot});
}

static void conn_check_answer(struct load *load, struct conn *c)
{
	char *body, *end;

	c->answer[c->len] = '\0';
	body = strstr(c->answer, "\r\n\r\n");
	if (strncmp(c->answer, "HTTP/1.1 200 ", 13) || !body) {
		conn_finish(load, c, OUTCOME_BAD_ANSWER);
		return;
	}
	body += 4;
	end = body + strcspn(body, "\r\n");
	if (end == body || (size_t)(end - body) >= sizeof(load->backends[0].name)) {
		conn_finish(load, c, OUTCOME_BAD_ANSWER);
		return;
	}
	count_backend(load, body, (size_t)(end - body), c->start_ns);
	conn_finish(load, c, OUTCOME_OK);
}

static void conn_read(struct load *load, struct conn *c)
{
	char rest[4096];
	ssize_t n;

	for (;;) {
		size_t room = sizeof(c->answer) - 1 - c->len;

		n = room ? recv(c->fd, c->answer + c->len, room, 0) : recv(c->fd, rest, sizeof(rest), 0);
		if (n <= 0)
			break;
		if (room)
			c->len += (size_t)n;
	}
	if (n == 0)
		conn_check_answer(load, c);
	else if (errno != EAGAIN)
		conn_finish(load, c, outcome_of(errno));
}

static void conn_event(struct load *load, unsigned slot, uint32_t events)
{
	struct conn *c = &load->conns[slot];
	socklen_t len = sizeof(int);
	int error = 0;

	if (c->fd < 0)
		return;
	if (events & EPOLLERR) {
		getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
		conn_finish(load, c, outcome_of(error));
		return;
	}
	if (!c->sent && (events & EPOLLOUT)) {
		if (send(c->fd, load->request, load->request_len, MSG_NOSIGNAL) != (ssize_t)load->request_len) {
			conn_finish(load, c, outcome_of(errno));
			return;
		}
		c->sent = true;
		if (now_ns() - c->start_ns > load->connect_max_ns)
			load->connect_max_ns = now_ns() - c->start_ns;
		epoll_ctl(load->epoll_fd, EPOLL_CTL_MOD, c->fd,
			  &(struct epoll_event){.events = EPOLLIN, .data.u32 = slot});
	}
	if (events & (EPOLLIN | EPOLLHUP))
		conn_read(load, c);
}

static bool may_start(const struct load *load, uint64_t now)
{
	const struct options *opt = &load->opt;

	if (stop_wanted || load->active >= opt->concurrency)
		return false;
	if (opt->requests && load->started >= opt->requests)
		return false;
	if (opt->deadline_ns && now >= opt->deadline_ns)
		return false;
	return !opt->rate || load->started * NS_PER_S < (now - load->begin_ns) * opt->rate;
}

static bool all_started(const struct load *load, uint64_t now)
{
	const struct options *opt = &load->opt;

	return stop_wanted || (opt->requests && load->started >= opt->requests) ||
	       (opt->deadline_ns && now >= opt->deadline_ns);
}

static void time_out(struct load *load, uint64_t now)
{
	for (unsigned i = 0; i < load->opt.concurrency; i++) {
		struct conn *c = &load->conns[i];

		if (c->fd >= 0 && now - c->start_ns > load->opt.timeout_ns)
			conn_finish(load, c, OUTCOME_TIMEOUT);
	}
}

static void run(struct load *load)
{
	uint64_t now = now_ns(), next_scan_ns = now;
	struct epoll_event events[64];

	load->begin_ns = now;
	while (load->active || !all_started(load, now)) {
		for (unsigned i = 0; i < 64 && may_start(load, now); i++)
			conn_start(load);
		int n = epoll_wait(load->epoll_fd, events, 64, load->opt.rate ? 1 : 20);

		for (int i = 0; i < n; i++)
			conn_event(load, events[i].data.u32, events[i].events);
		now = now_ns();
		if (now >= next_scan_ns) {
			time_out(load, now);
			next_scan_ns = now + 20 * NS_PER_MS;
		}
	}
}

static void report(const struct load *load)
{
	json_t *root = json_object(), *by_backend = json_object(), *last = json_object(), *failed = json_object();
	double seconds = (double)(now_ns() - load->begin_ns) / NS_PER_S;
	uint64_t ok = load->outcomes[OUTCOME_OK];
	unsigned n_sources_ok = 0;

	for (unsigned i = 0; i < load->n_backends; i++) {
		const struct backend *b = &load->backends[i];

		json_object_set_new(by_backend, b->name, json_integer((json_int_t)b->answers));
		json_object_set_new(last, b->name, json_integer((json_int_t)b->last_start_ns));
	}
	for (unsigned i = OUTCOME_OK + 1; i < OUTCOME_COUNT; i++)
		json_object_set_new(failed, outcome_name[i], json_integer((json_int_t)load->outcomes[i]));
	for (unsigned i = 0; i < load->opt.n_sources; i++)
		n_sources_ok += load->source_ok[i] > 0;
	json_object_set_new(root, "ok", json_integer((json_int_t)ok));
	json_object_set_new(root, "failed", json_integer((json_int_t)(load->finished - ok)));
	json_object_set_new(root, "failures", failed);
	json_object_set_new(root, "backends", by_backend);
	json_object_set_new(root, "last_start_ns", last);
	json_object_set_new(root, "sources_ok", json_integer(n_sources_ok));
	json_object_set_new(root, "seconds", json_real(seconds));
	json_object_set_new(root, "max_ms", json_real((double)load->max_ns / NS_PER_MS));
	json_object_set_new(root, "mean_ms", json_real(ok ? (double)load->sum_ns / (double)ok / NS_PER_MS : 0));
	json_object_set_new(root, "connect_max_ms", json_real((double)load->connect_max_ns / NS_PER_MS));
	json_object_set_new(root, "last_failed_start_ns", json_integer((json_int_t)load->last_failed_start_ns));
	json_object_set_new(root, "first_failure_ns", json_integer((json_int_t)load->first_failure_ns));
	json_object_set_new(root, "last_failure_ns", json_integer((json_int_t)load->last_failure_ns));
	json_dumpf(root, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
	putchar('\n');
	json_decref(root);
}

static void usage(void)
{
	fputs("usage: httpload --to ADDRESS [--port N] [--from ADDRESS,…] [--requests N] [--seconds N] [--rate PER_S]\n"
	      "                [--concurrency N] [--timeout-ms N] [--path PATH] [--progress]\n",
	      stderr);
	exit(2);
}

static int parse_sources(char *list, struct options *opt)
{
	socklen_t len;

	for (char *save, *a = strtok_r(list, ",", &save); a; a = strtok_r(NULL, ",", &save)) {
		if (opt->n_sources == MAX_SOURCES || parse_address(a, 0, &opt->sources[opt->n_sources], &len))
			return -EINVAL;
		opt->n_sources++;
	}
	return 0;
}

/* Returns false if the option is not one that takes a number. */
static bool set_number(struct options *opt, int c, unsigned long n)
{
	switch (c) {
	case 'p':
		opt->port = (uint16_t)n;
		return true;
	case 'n':
		opt->requests = n;
		return true;
	case 'r':
		opt->rate = n;
		return true;
	case 'c':
		opt->concurrency = (unsigned)n;
		return true;
	case 'T':
		opt->timeout_ns = n * NS_PER_MS;
		return true;
	case 's':
		opt->deadline_ns = now_ns() + n * NS_PER_S;
		return true;
	default:
		return false;
	}
}

static void parse_options(int argc, char **argv, struct options *opt)
{
	static const struct option longs[] = {
		{"to", 1, NULL, 't'},         {"port", 1, NULL, 'p'}, {"from", 1, NULL, 'f'},
		{"requests", 1, NULL, 'n'},   {"rate", 1, NULL, 'r'}, {"concurrency", 1, NULL, 'c'},
		{"timeout-ms", 1, NULL, 'T'}, {"path", 1, NULL, 'P'}, {"seconds", 1, NULL, 's'},
		{"progress", 0, NULL, 'v'},   {NULL, 0, NULL, 0},
	};
	const char *to = NULL;
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (c == 't')
			to = optarg;
		else if (c == 'P')
			opt->path = optarg;
		else if (c == 'v')
			opt->progress = true;
		else if (c == 'f' ? parse_sources(optarg, opt)
				  : !set_number(opt, c, strtoul(optarg ? optarg : "", NULL, 10)))
			usage();
	}
	if (!to || parse_address(to, opt->port, &opt->to, &opt->to_len) || !opt->concurrency ||
	    opt->concurrency > MAX_CONCURRENCY)
		usage();
}

int main(int argc, char **argv)
{
	struct load load = {.opt = {.concurrency = 64, .port = 80, .timeout_ns = 5 * NS_PER_S, .path = "/name"}};
	struct sigaction sa = {.sa_handler = on_signal};

	parse_options(argc, argv, &load.opt);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	load.request_len = (size_t)snprintf(load.request, sizeof(load.request),
					    "GET %s HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n", load.opt.path);
	load.conns = calloc(load.opt.concurrency, sizeof(*load.conns));
	load.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (!load.conns || load.epoll_fd < 0 || load.request_len >= sizeof(load.request)) {
		fprintf(stderr, "httpload: cannot start: %m\n");
		return 1;
	}
	for (unsigned i = 0; i < load.opt.concurrency; i++)
		load.conns[i].fd = -1;
	run(&load);
	report(&load);
	free(load.conns);
	return 0;
}
