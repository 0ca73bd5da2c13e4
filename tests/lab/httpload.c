/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * HTTP load: each request is a connection of its own, made from the given source addresses in turn; with --retries, a
 * request whose connection failed is made again at once, as many applications do. The first line of a 200 answer's body
 * names the backend that gave it. One JSON object on stdout at the end; SIGINT and SIGTERM let what is under way finish
 * first. SIGUSR1 begins a new phase: requests are counted in the phase in which they started.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <math.h>
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
#define MAX_PHASES      8
#define MAX_RETRIES     1000
#define LATE_NS         (50 * NS_PER_MS)
#define HANGING_NS      NS_PER_S
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

/* Where requests go to and come from, per address family. */
struct end {
	struct sockaddr_storage to;
	socklen_t len; /* 0: there is none of this family */
	struct sockaddr_storage sources[MAX_SOURCES];
	unsigned n_sources;
	uint64_t started;
	uint64_t source_ok[MAX_SOURCES];
};

struct options {
	uint64_t requests; /* 0: until `deadline_ns` or a signal */
	uint64_t deadline_ns;
	uint64_t timeout_ns; /* of one attempt, from its start to the end of the answer */
	uint64_t rate;       /* starts per second; 0: as fast as `concurrency` lets */
	uint64_t report_ns;  /* 0: no progress lines */
	unsigned retries;
	unsigned concurrency;
	uint16_t port;
	const char *path;
	bool poisson; /* starts at `rate` in the mean, rather than evenly */
};

/* A request. It keeps its slot over its attempts. */
struct conn {
	int fd; /* -1: free */
	bool sent;
	struct end *end;
	unsigned source_idx;
	unsigned phase;
	unsigned attempts;
	uint64_t request_ns, attempt_ns; /* their starts */
	uint64_t received;               /* bytes of the present attempt's answer */
	size_t len;
	char answer[1024]; /* what came first; the rest is read and thrown away */
};

struct backend {
	char name[64];
	uint64_t last_start_ns; /* monotonic; start of the latest connection that it answered */
};

struct phase {
	uint64_t started, attempts;
	uint64_t unconnected; /* attempts that failed before there was a connection */
	uint64_t outcomes[OUTCOME_COUNT];
	uint64_t answers[MAX_BACKENDS];
	uint64_t max_ns, sum_ns; /* of answered requests, over all their attempts */
	uint64_t connect_max_ns; /* of the connections that were made, answered or not */
	uint64_t first_failure_ns, last_failure_ns;
	uint64_t last_failed_start_ns; /* start of the latest request that failed */
};

struct load {
	struct options opt;
	struct end ends[2]; /* IPv4, IPv6; with both, requests alternate */
	struct conn *conns;
	struct backend backends[MAX_BACKENDS];
	unsigned n_backends;
	struct phase phases[MAX_PHASES];
	unsigned active;
	unsigned next_free;
	int epoll_fd;
	char request[512];
	size_t request_len;
	uint64_t begin_ns;
	double next_start_ns; /* when the next request is due, with a rate */
	uint64_t started, finished, ok;
	uint64_t late; /* started more than LATE_NS after they were due */
};

static volatile sig_atomic_t stop_wanted, phase_now;

static void on_signal(int signo)
{
	if (signo != SIGUSR1)
		stop_wanted = 1;
	else if (phase_now < MAX_PHASES - 1)
		phase_now++;
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

static void count_backend(struct load *load, const struct conn *c, const char *name, size_t len)
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
	load->phases[c->phase].answers[i]++;
	if (c->attempt_ns > b->last_start_ns)
		b->last_start_ns = c->attempt_ns;
}

static void request_finish(struct load *load, struct conn *c, enum outcome outcome)
{
	uint64_t now = now_ns(), took_ns = now - c->request_ns;
	struct phase *phase = &load->phases[c->phase];

	load->active--;
	load->finished++;
	phase->outcomes[outcome]++;
	if (outcome == OUTCOME_OK) {
		load->ok++;
		c->end->source_ok[c->source_idx]++;
		phase->sum_ns += took_ns;
		if (took_ns > phase->max_ns)
			phase->max_ns = took_ns;
	} else {
		if (!phase->first_failure_ns)
			phase->first_failure_ns = now;
		phase->last_failure_ns = now;
		if (c->request_ns > phase->last_failed_start_ns)
			phase->last_failed_start_ns = c->request_ns;
	}
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

/* Returns OUTCOME_OK if it is under way. */
static enum outcome attempt_open(struct load *load, struct conn *c)
{
	const struct end *end = c->end;
	const int on = 1;

	c->sent = false;
	c->len = 0;
	c->received = 0;
	c->attempts++;
	c->attempt_ns = now_ns();
	load->phases[c->phase].attempts++;
	c->fd = socket(end->to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0) {
		perror("httpload: socket");
		exit(1);
	}
	/* The port is chosen at connect(), so that each source has all ports towards this destination. */
	setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
	if ((end->n_sources && bind(c->fd, (const struct sockaddr *)&end->sources[c->source_idx], end->len)) ||
	    (connect(c->fd, (const struct sockaddr *)&end->to, end->len) && errno != EINPROGRESS))
		return outcome_of(errno);
	epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, c->fd,
		  &(struct epoll_event){.events = EPOLLIN | EPOLLOUT, .data.u32 = (uint32_t)(c - load->conns)});
	return OUTCOME_OK;
}

/* What became of the present attempt. After a failure the next one begins, until one is under way or none is left. */
static void attempt_end(struct load *load, struct conn *c, enum outcome outcome)
{
	for (;;) {
		close(c->fd);
		c->fd = -1;
		/* Before there is a connection it is refused; only a connection is reset. */
		load->phases[c->phase].unconnected += outcome != OUTCOME_OK && outcome != OUTCOME_RESET && !c->sent;
		if (outcome == OUTCOME_OK || c->attempts > load->opt.retries)
			break;
		outcome = attempt_open(load, c);
		if (outcome == OUTCOME_OK)
			return;
	}
	request_finish(load, c, outcome);
}

static struct end *next_end(struct load *load)
{
	struct end *end = &load->ends[load->started % 2];

	return end->len ? end : &load->ends[(load->started + 1) % 2];
}

static void request_start(struct load *load)
{
	enum outcome outcome;
	struct conn *c;

	while (load->conns[load->next_free].fd >= 0)
		load->next_free = (load->next_free + 1) % load->opt.concurrency;
	c = &load->conns[load->next_free];
	c->end = next_end(load);
	c->source_idx = c->end->n_sources ? c->end->started % c->end->n_sources : 0;
	c->phase = (unsigned)phase_now;
	c->attempts = 0;
	c->request_ns = now_ns();
	c->end->started++;
	load->phases[c->phase].started++;
	load->started++;
	load->active++;
	outcome = attempt_open(load, c);
	if (outcome != OUTCOME_OK)
		attempt_end(load, c, outcome);
}

/* A body that is shorter than it was said to be was cut. */
static bool body_is_whole(const struct conn *c, const char *body)
{
	const char *length = strcasestr(c->answer, "\r\nContent-Length:");

	if (!length || length > body)
		return true;
	return c->received - (uint64_t)(body - c->answer) == strtoull(length + 17, NULL, 10);
}

static void conn_check_answer(struct load *load, struct conn *c)
{
	char *body, *end;

	c->answer[c->len] = '\0';
	body = strstr(c->answer, "\r\n\r\n");
	if (strncmp(c->answer, "HTTP/1.1 200 ", 13) || !body) {
		attempt_end(load, c, OUTCOME_BAD_ANSWER);
		return;
	}
	body += 4;
	end = body + strcspn(body, "\r\n");
	if (end == body || (size_t)(end - body) >= sizeof(load->backends[0].name) || !body_is_whole(c, body)) {
		attempt_end(load, c, OUTCOME_BAD_ANSWER);
		return;
	}
	count_backend(load, c, body, (size_t)(end - body));
	attempt_end(load, c, OUTCOME_OK);
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
		c->received += (uint64_t)n;
		if (room)
			c->len += (size_t)n;
	}
	if (n == 0)
		conn_check_answer(load, c);
	else if (errno != EAGAIN)
		attempt_end(load, c, outcome_of(errno));
}

static void note_connected(struct load *load, const struct conn *c)
{
	struct phase *phase = &load->phases[c->phase];
	uint64_t took_ns = now_ns() - c->attempt_ns;

	if (took_ns > phase->connect_max_ns)
		phase->connect_max_ns = took_ns;
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
		attempt_end(load, c, outcome_of(error));
		return;
	}
	if (!c->sent && (events & EPOLLOUT)) {
		if (send(c->fd, load->request, load->request_len, MSG_NOSIGNAL) != (ssize_t)load->request_len) {
			attempt_end(load, c, outcome_of(errno));
			return;
		}
		c->sent = true;
		note_connected(load, c);
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
	return !opt->rate || (double)now >= load->next_start_ns;
}

static void schedule_next(struct load *load, uint64_t now)
{
	const struct options *opt = &load->opt;
	double mean_ns;

	if (!opt->rate)
		return;
	mean_ns = (double)NS_PER_S / (double)opt->rate;
	load->late += (double)now > load->next_start_ns + LATE_NS;
	load->next_start_ns += opt->poisson ? -log(1 - drand48()) * mean_ns : mean_ns;
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

		if (c->fd >= 0 && now > c->attempt_ns && now - c->attempt_ns > load->opt.timeout_ns)
			attempt_end(load, c, OUTCOME_TIMEOUT);
	}
}

static uint64_t answers_of(const struct load *load, unsigned backend)
{
	uint64_t n = 0;

	for (unsigned i = 0; i <= (unsigned)phase_now; i++)
		n += load->phases[i].answers[backend];
	return n;
}

/* Milliseconds since the begin; requests started, answered, failed, and unanswered for long; answers per backend. */
static void report_progress(const struct load *load, uint64_t now)
{
	unsigned hanging = 0;

	for (unsigned i = 0; i < load->opt.concurrency; i++) {
		const struct conn *c = &load->conns[i];

		hanging += c->fd >= 0 && now > c->request_ns && now - c->request_ns > HANGING_NS;
	}
	fprintf(stderr, "%llu %llu %llu %llu %u", (unsigned long long)((now - load->begin_ns) / NS_PER_MS),
		(unsigned long long)load->started, (unsigned long long)load->ok,
		(unsigned long long)(load->finished - load->ok), hanging);
	for (unsigned i = 0; i < load->n_backends; i++)
		fprintf(stderr, " %s=%llu", load->backends[i].name, (unsigned long long)answers_of(load, i));
	fputc('\n', stderr);
}

static void run(struct load *load)
{
	uint64_t now = now_ns(), next_scan_ns = now, next_report_ns = now + load->opt.report_ns;
	struct epoll_event events[64];

	load->begin_ns = now;
	load->next_start_ns = (double)now;
	while (load->active || !all_started(load, now)) {
		for (unsigned i = 0; i < 64 && may_start(load, now); i++) {
			schedule_next(load, now);
			request_start(load);
		}
		int n = epoll_wait(load->epoll_fd, events, 64, load->opt.rate ? 1 : 20);

		for (int i = 0; i < n; i++)
			conn_event(load, events[i].data.u32, events[i].events);
		now = now_ns();
		if (now >= next_scan_ns) {
			time_out(load, now);
			next_scan_ns = now + 20 * NS_PER_MS;
		}
		if (load->opt.report_ns && now >= next_report_ns) {
			report_progress(load, now);
			next_report_ns += load->opt.report_ns;
		}
	}
	if (load->opt.report_ns)
		report_progress(load, now_ns());
}

static json_t *number(uint64_t n)
{
	return json_integer((json_int_t)n);
}

static json_t *phase_json(const struct load *load, const struct phase *phase)
{
	json_t *by_backend = json_object(), *failures = json_object();
	uint64_t ok = phase->outcomes[OUTCOME_OK], failed = 0;

	for (unsigned i = 0; i < load->n_backends; i++)
		if (phase->answers[i])
			json_object_set_new(by_backend, load->backends[i].name, number(phase->answers[i]));
	for (unsigned i = OUTCOME_OK + 1; i < OUTCOME_COUNT; i++) {
		failed += phase->outcomes[i];
		json_object_set_new(failures, outcome_name[i], number(phase->outcomes[i]));
	}
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:f, s:f, s:f, s:o, s:o, s:o}", "started",
			 number(phase->started), "attempts", number(phase->attempts), "unconnected",
			 number(phase->unconnected), "ok", number(ok), "failed", number(failed), "failures", failures,
			 "backends", by_backend, "connect_max_ms", (double)phase->connect_max_ns / NS_PER_MS, "max_ms",
			 (double)phase->max_ns / NS_PER_MS, "mean_ms",
			 ok ? (double)phase->sum_ns / (double)ok / NS_PER_MS : 0, "first_failure_ns",
			 number(phase->first_failure_ns), "last_failure_ns", number(phase->last_failure_ns),
			 "last_failed_start_ns", number(phase->last_failed_start_ns));
}

static void phase_add(struct phase *sum, const struct phase *phase)
{
	sum->started += phase->started;
	sum->attempts += phase->attempts;
	sum->unconnected += phase->unconnected;
	for (unsigned i = 0; i < OUTCOME_COUNT; i++)
		sum->outcomes[i] += phase->outcomes[i];
	for (unsigned i = 0; i < MAX_BACKENDS; i++)
		sum->answers[i] += phase->answers[i];
	sum->sum_ns += phase->sum_ns;
	if (phase->max_ns > sum->max_ns)
		sum->max_ns = phase->max_ns;
	if (!sum->first_failure_ns || (phase->first_failure_ns && phase->first_failure_ns < sum->first_failure_ns))
		sum->first_failure_ns = phase->first_failure_ns;
	if (phase->last_failure_ns > sum->last_failure_ns)
		sum->last_failure_ns = phase->last_failure_ns;
	if (phase->last_failed_start_ns > sum->last_failed_start_ns)
		sum->last_failed_start_ns = phase->last_failed_start_ns;
	if (phase->connect_max_ns > sum->connect_max_ns)
		sum->connect_max_ns = phase->connect_max_ns;
}

static unsigned sources_answered(const struct end *end)
{
	unsigned n = 0;

	for (unsigned i = 0; i < end->n_sources; i++)
		n += end->source_ok[i] > 0;
	return n;
}

/* What a phase has, of all of them in sum, and each one under "phases". */
static void report(const struct load *load)
{
	json_t *root, *phases = json_array(), *last = json_object();
	double seconds = (double)(now_ns() - load->begin_ns) / NS_PER_S;
	struct phase sum = {0};

	for (unsigned i = 0; i <= (unsigned)phase_now; i++) {
		phase_add(&sum, &load->phases[i]);
		json_array_append_new(phases, phase_json(load, &load->phases[i]));
	}
	for (unsigned i = 0; i < load->n_backends; i++)
		json_object_set_new(last, load->backends[i].name, number(load->backends[i].last_start_ns));
	root = phase_json(load, &sum);
	json_object_set_new(root, "phases", phases);
	json_object_set_new(root, "last_start_ns", last);
	json_object_set_new(root, "sources_ok",
			    number(sources_answered(&load->ends[0]) + sources_answered(&load->ends[1])));
	json_object_set_new(root, "late", number(load->late));
	json_object_set_new(root, "seconds", json_real(seconds));
	json_dumpf(root, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
	putchar('\n');
	json_decref(root);
}

static void usage(void)
{
	fputs("usage: httpload --to ADDRESS[,ADDRESS] [--port N] [--from ADDRESS,…] [--requests N] [--seconds N]\n"
	      "                [--rate PER_S [--poisson SEED]] [--retries N] [--concurrency N] [--timeout-ms N]\n"
	      "                [--path PATH] [--report-ms N]\n"
	      "An IPv4 and an IPv6 address: requests go to both in turn. --report-ms: progress lines on stderr, with\n"
	      "milliseconds, requests started, answered, failed, and unanswered for more than a second, and answers of\n"
	      "each backend.\n",
	      stderr);
	exit(2);
}

static struct end *end_of(struct load *load, const struct sockaddr_storage *address)
{
	return &load->ends[address->ss_family == AF_INET6];
}

static void add_target(struct load *load, const char *text)
{
	struct sockaddr_storage address;
	socklen_t len;

	if (parse_address(text, 0, &address, &len) || end_of(load, &address)->len)
		usage();
	end_of(load, &address)->to = address;
	end_of(load, &address)->len = len;
}

static void add_source(struct load *load, const char *text)
{
	struct sockaddr_storage address;
	struct end *end;
	socklen_t len;

	if (parse_address(text, 0, &address, &len))
		usage();
	end = end_of(load, &address);
	if (end->n_sources == MAX_SOURCES)
		usage();
	end->sources[end->n_sources++] = address;
}

static void each_of_list(struct load *load, char *list, void (*add)(struct load *load, const char *text))
{
	for (char *save, *a = strtok_r(list, ",", &save); a; a = strtok_r(NULL, ",", &save))
		add(load, a);
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
	case 'R':
		opt->retries = (unsigned)n;
		return n <= MAX_RETRIES;
	case 'v':
		opt->report_ns = n * NS_PER_MS;
		return true;
	case 'o':
		opt->poisson = true;
		srand48((long)n);
		return true;
	default:
		return false;
	}
}

static void parse_options(int argc, char **argv, struct load *load)
{
	static const struct option longs[] = {
		{"to", 1, NULL, 't'},         {"port", 1, NULL, 'p'},      {"from", 1, NULL, 'f'},
		{"requests", 1, NULL, 'n'},   {"rate", 1, NULL, 'r'},      {"concurrency", 1, NULL, 'c'},
		{"timeout-ms", 1, NULL, 'T'}, {"path", 1, NULL, 'P'},      {"seconds", 1, NULL, 's'},
		{"poisson", 1, NULL, 'o'},    {"report-ms", 1, NULL, 'v'}, {"retries", 1, NULL, 'R'},
		{NULL, 0, NULL, 0},
	};
	struct options *opt = &load->opt;
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (c == 't')
			each_of_list(load, optarg, add_target);
		else if (c == 'f')
			each_of_list(load, optarg, add_source);
		else if (c == 'P')
			opt->path = optarg;
		else if (!set_number(opt, c, strtoul(optarg ? optarg : "", NULL, 10)))
			usage();
	}
	if (optind != argc || !(load->ends[0].len || load->ends[1].len) || !opt->concurrency ||
	    opt->concurrency > MAX_CONCURRENCY)
		usage();
	((struct sockaddr_in *)&load->ends[0].to)->sin_port = htons(opt->port);
	((struct sockaddr_in6 *)&load->ends[1].to)->sin6_port = htons(opt->port);
}

int main(int argc, char **argv)
{
	static struct load load = {.opt = {.concurrency = 64, .port = 80, .timeout_ns = 5 * NS_PER_S, .path = "/name"}};
	struct sigaction sa = {.sa_handler = on_signal};

	parse_options(argc, argv, &load);
	sigaction(SIGUSR1, &sa, NULL);
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
