/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Clients that do not wait for each other: requests come when a timetable says, however long those before them take
 * (open loop). Each has a deadline; what has no answer by then, or fails before, is tried again on a new connection, N
 * times, at once or after a backoff with full jitter. With --pool so many connections are kept and shared; one whose
 * request runs into its deadline is closed and made again, as pools do.
 *
 * Every attempt is a line of the log: request, attempt, when it began, was connected, got the first byte and ended (us
 * since the begin, empty: it never was), and what became of it. Results and tables are made from that alone.
 *
 * The first line on stdout says when it began, on the monotonic clock; the last one what says whether the run is worth
 * anything: how many requests began late, and the CPU time that it took.
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
#include <sys/queue.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_US     1000ULL
#define NS_PER_MS     1000000ULL
#define NS_PER_S      1000000000ULL
#define MAX_SOURCES   1024
#define MAX_REQUESTS  16384 /* under way at once */
#define LATE_NS       (50 * NS_PER_MS)
#define REQUEST_BYTES 100
#define BACKOFF_S     0.1 /* the first one lasts up to twice that */
#define BACKOFF_MAX_S 5.0
#define BACKOFF_SLOTS 8192 /* of a millisecond; more than BACKOFF_MAX_S */
#define NO_CONNECTION UINT32_MAX

enum result { RESULT_OK, RESULT_REFUSED, RESULT_RESET, RESULT_TIMEOUT, RESULT_CLOSED, RESULT_ERROR, RESULT_COUNT };

static const char *const result_name[RESULT_COUNT] = {"ok", "refused", "reset", "timeout", "closed", "error"};

struct request {
	TAILQ_ENTRY(request) entry; /* of one of the lists of struct load */
	uint32_t connection;        /* NO_CONNECTION: it waits for one, or for its next attempt */
	uint64_t number;
	unsigned attempt;
	uint64_t began_ns, connected_ns, first_ns; /* of this attempt; 0: not yet */
	bool waits;                                /* --pool: for a connection */
};

TAILQ_HEAD(requests, request);

struct connection {
	int fd; /* -1: none */
	bool connected, sent;
	struct request *request; /* NULL: idle */
	size_t received;
};

struct timetable {
	double rate;                                 /* requests a second */
	double surge_at_s, surge_for_s, surge_times; /* during the surge there come so many times as many */
	double seconds;
	unsigned herd; /* all of them at once instead */
};

struct load {
	struct timetable table;
	uint64_t timeout_ns;
	unsigned retries, n_pool;
	bool backoff;
	struct sockaddr_storage to, sources[MAX_SOURCES];
	socklen_t address_len;
	unsigned n_sources, next_source;
	unsigned short random[3];
	char payload[REQUEST_BYTES + 1];
	FILE *log;
	int epoll;
	uint64_t begin_ns;
	double due_s; /* the next request's time */
	struct request requests[MAX_REQUESTS];
	struct connection connections[MAX_REQUESTS];
	struct requests idle,
		running; /* `running`: under way or waiting for a connection, in order of their deadlines */
	struct requests later[BACKOFF_SLOTS];
	uint64_t later_ms; /* slots before it are empty */
	unsigned n_later, n_waiting, next_connection;
	uint64_t started, finished, overrun, late, max_late_ns;
};

static void die(const char *what)
{
	fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static uint64_t since_begin_us(const struct load *load, uint64_t ns)
{
	return (ns - load->begin_ns) / NS_PER_US;
}

/* --- the log --- */

static void log_time(const struct load *load, uint64_t ns)
{
	if (ns)
		fprintf(load->log, "%llu", (unsigned long long)since_begin_us(load, ns));
	putc_unlocked(',', load->log);
}

static void log_attempt(const struct load *load, const struct request *r, enum result result, uint64_t end_ns)
{
	fprintf(load->log, "%llu,%u,", (unsigned long long)r->number, r->attempt);
	log_time(load, r->began_ns);
	log_time(load, r->connected_ns);
	log_time(load, r->first_ns);
	log_time(load, end_ns);
	fputs(result_name[result], load->log);
	putc_unlocked('\n', load->log);
}

/* --- connections --- */

static enum result result_of(int error)
{
	switch (error) {
	case ECONNREFUSED:
		return RESULT_REFUSED;
	case ECONNRESET:
	case EPIPE:
		return RESULT_RESET;
	case ETIMEDOUT:
		return RESULT_TIMEOUT;
	default:
		return RESULT_ERROR;
	}
}

static uint32_t index_of(const struct load *load, const struct connection *c)
{
	return (uint32_t)(c - load->connections);
}

/* Returns an errno. */
static int open_connection(struct load *load, struct connection *c)
{
	const int on = 1;

	*c = (struct connection){.fd = socket(load->to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
				 .request = c->request};
	if (c->fd < 0)
		die("socket");
	/* The port is chosen at connect(), so that each source has all ports towards this destination. */
	setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
	if (load->n_sources) {
		const struct sockaddr_storage *source = &load->sources[load->next_source++ % load->n_sources];

		if (bind(c->fd, (const struct sockaddr *)source, load->address_len))
			return errno;
	}
	if (connect(c->fd, (const struct sockaddr *)&load->to, load->address_len) && errno != EINPROGRESS)
		return errno;
	if (epoll_ctl(load->epoll, EPOLL_CTL_ADD, c->fd,
		      &(struct epoll_event){.events = EPOLLIN | EPOLLOUT, .data.u32 = index_of(load, c)}))
		die("epoll_ctl");
	return 0;
}

static void close_connection(struct connection *c)
{
	close(c->fd);
	*c = (struct connection){.fd = -1};
}

static struct connection *free_connection(struct load *load)
{
	while (load->connections[load->next_connection].fd >= 0 || load->connections[load->next_connection].request)
		load->next_connection = (load->next_connection + 1) % MAX_REQUESTS;
	return &load->connections[load->next_connection];
}

/* --- requests --- */

static void finish(struct load *load, struct request *r)
{
	load->finished++;
	TAILQ_INSERT_TAIL(&load->idle, r, entry);
}

static void leave_connection(struct load *load, struct request *r, bool keep)
{
	struct connection *c;

	if (r->connection == NO_CONNECTION)
		return;
	c = &load->connections[r->connection];
	r->connection = NO_CONNECTION;
	c->request = NULL;
	if (!keep)
		close_connection(c);
}

static void put_off(struct load *load, struct request *r)
{
	double s = erand48(load->random) * fmin(BACKOFF_MAX_S, BACKOFF_S * (double)(1 << r->attempt));
	uint64_t at_ms = since_begin_us(load, now_ns()) / 1000 + (uint64_t)(s * 1000) + 1;

	TAILQ_INSERT_TAIL(&load->later[at_ms % BACKOFF_SLOTS], r, entry);
	load->n_later++;
}

static void attempt(struct load *load, struct request *r);

/* It is in no list. */
static void try_again(struct load *load, struct request *r)
{
	if (r->attempt > load->retries)
		finish(load, r);
	else if (load->backoff)
		put_off(load, r);
	else
		attempt(load, r);
}

static void end_attempt(struct load *load, struct request *r, enum result result, bool keep)
{
	log_attempt(load, r, result, now_ns());
	TAILQ_REMOVE(&load->running, r, entry);
	leave_connection(load, r, keep);
	if (r->waits) {
		r->waits = false;
		load->n_waiting--;
	}
	if (result == RESULT_OK)
		finish(load, r);
	else
		try_again(load, r);
}

static void send_request(struct load *load, struct connection *c)
{
	ssize_t n = send(c->fd, load->payload, REQUEST_BYTES, MSG_NOSIGNAL);

	if (n != REQUEST_BYTES) {
		end_attempt(load, c->request, n < 0 ? result_of(errno) : RESULT_ERROR, false);
		return;
	}
	c->sent = true;
	c->received = 0;
}

static void give(struct load *load, struct request *r, struct connection *c)
{
	r->connection = index_of(load, c);
	c->request = r;
	c->sent = false;
	if (c->fd < 0) {
		int error = open_connection(load, c);

		if (error)
			end_attempt(load, r, result_of(error), false);
		return;
	}
	r->connected_ns = now_ns();
	if (c->connected)
		send_request(load, c);
}

/* One that is idle, or whose turn it is to be made again. */
static struct connection *idle_of_pool(struct load *load)
{
	for (unsigned i = 0; i < load->n_pool; i++) {
		struct connection *c = &load->connections[load->next_connection++ % load->n_pool];

		if (!c->request)
			return c;
	}
	return NULL;
}

/* All attempts last equally long at the most: the order in which they begin is that of their deadlines. */
static void attempt(struct load *load, struct request *r)
{
	struct connection *c = load->n_pool ? idle_of_pool(load) : free_connection(load);

	r->attempt++;
	r->began_ns = now_ns();
	r->connected_ns = r->first_ns = 0;
	r->connection = NO_CONNECTION;
	r->waits = !c;
	TAILQ_INSERT_TAIL(&load->running, r, entry);
	if (c)
		give(load, r, c);
	else
		load->n_waiting++;
}

static void begin_request(struct load *load)
{
	struct request *r = TAILQ_FIRST(&load->idle);

	load->started++;
	if (!r) {
		load->overrun++;
		return;
	}
	TAILQ_REMOVE(&load->idle, r, entry);
	r->number = load->started - 1;
	r->attempt = 0;
	attempt(load, r);
}

/* --- events --- */

static void on_connected(struct load *load, struct connection *c)
{
	socklen_t len = sizeof(int);
	int error = 0;

	getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
	if (error) {
		/* A RST for a SYN is ECONNREFUSED: this one was connected, and reset before anybody looked. */
		if (c->request && error == ECONNRESET && !c->request->connected_ns)
			c->request->connected_ns = now_ns();
		if (c->request)
			end_attempt(load, c->request, result_of(error), false);
		else
			close_connection(c);
		return;
	}
	c->connected = true;
	epoll_ctl(load->epoll, EPOLL_CTL_MOD, c->fd,
		  &(struct epoll_event){.events = EPOLLIN, .data.u32 = index_of(load, c)});
	if (!c->request)
		return;
	if (!c->request->connected_ns)
		c->request->connected_ns = now_ns();
	send_request(load, c);
}

/* The answer's end is that of its body, whose length the upstream and the load know; or, without --pool, FIN. */
static bool is_whole(const struct load *load, const char *bytes, size_t len)
{
	const char *body = memmem(bytes, len, "\r\n\r\n", 4);

	return load->n_pool && body && bytes + len - (body + 4) >= 100;
}

static void on_answer(struct load *load, struct connection *c)
{
	char bytes[2048];
	ssize_t n = recv(c->fd, bytes, sizeof(bytes), 0);
	struct request *r = c->request;

	if (n < 0 && errno == EAGAIN)
		return;
	if (!r) {
		/* --pool: an answer after its deadline is none; the end of the connection is noticed. */
		if (n <= 0)
			close_connection(c);
		return;
	}
	if (n > 0) {
		if (!r->first_ns)
			r->first_ns = now_ns();
		c->received += (size_t)n;
		if (is_whole(load, bytes, (size_t)n))
			end_attempt(load, r, RESULT_OK, true);
		return;
	}
	if (n < 0)
		end_attempt(load, r, result_of(errno), false);
	else
		end_attempt(load, r, c->received ? RESULT_OK : RESULT_CLOSED, false);
}

static void on_event(struct load *load, struct connection *c)
{
	if (c->fd < 0)
		return;
	if (c->connected)
		on_answer(load, c);
	else
		on_connected(load, c);
}

/* --- time --- */

static double rate_at(const struct timetable *t, double s)
{
	bool surge = s >= t->surge_at_s && s < t->surge_at_s + t->surge_for_s;

	return t->rate * (surge ? t->surge_times : 1);
}

static void begin_due(struct load *load)
{
	double now_s = (double)(now_ns() - load->begin_ns) / 1e9;

	while (load->due_s <= now_s && load->due_s < load->table.seconds) {
		uint64_t late_ns = (uint64_t)((now_s - load->due_s) * 1e9);

		load->late += late_ns > LATE_NS;
		load->max_late_ns = late_ns > load->max_late_ns ? late_ns : load->max_late_ns;
		begin_request(load);
		load->due_s += -log(1 - erand48(load->random)) / rate_at(&load->table, load->due_s);
	}
}

static void end_overdue(struct load *load)
{
	uint64_t now = now_ns();
	struct request *r;

	while ((r = TAILQ_FIRST(&load->running)) && now - r->began_ns >= load->timeout_ns)
		end_attempt(load, r, RESULT_TIMEOUT, false);
}

static void attempt_put_off(struct load *load)
{
	uint64_t now_ms = since_begin_us(load, now_ns()) / 1000;

	for (; load->later_ms <= now_ms; load->later_ms++) {
		struct requests *slot = &load->later[load->later_ms % BACKOFF_SLOTS];
		struct request *r;

		while ((r = TAILQ_FIRST(slot))) {
			TAILQ_REMOVE(slot, r, entry);
			load->n_later--;
			attempt(load, r);
		}
	}
}

/* --pool: the longest waiting first. */
static void give_free_connections(struct load *load)
{
	struct request *r = TAILQ_FIRST(&load->running), *next;

	for (; r && load->n_waiting; r = next) {
		struct connection *c;

		next = TAILQ_NEXT(r, entry);
		if (!r->waits)
			continue;
		c = idle_of_pool(load);
		if (!c)
			return;
		r->waits = false;
		load->n_waiting--;
		give(load, r, c);
	}
}

static int nap_ms(const struct load *load)
{
	uint64_t now = now_ns(), until = now + 100 * NS_PER_MS;
	const struct request *r = TAILQ_FIRST(&load->running);
	uint64_t due_ns = load->begin_ns + (uint64_t)(load->due_s * 1e9);

	if (load->due_s < load->table.seconds && due_ns < until)
		until = due_ns;
	if (r && r->began_ns + load->timeout_ns < until)
		until = r->began_ns + load->timeout_ns;
	if (load->n_later)
		until = until < now + NS_PER_MS ? until : now + NS_PER_MS;
	return until <= now ? 0 : (int)((until - now + NS_PER_MS - 1) / NS_PER_MS);
}

static bool is_over(const struct load *load)
{
	return load->due_s >= load->table.seconds && load->finished + load->overrun == load->started;
}

static void run(struct load *load)
{
	struct epoll_event events[256];

	load->begin_ns = now_ns();
	printf("{\"begin_ns\":%llu}\n", (unsigned long long)load->begin_ns);
	fflush(stdout);
	for (unsigned i = 0; i < load->table.herd; i++)
		begin_request(load);
	if (load->table.herd)
		load->due_s = load->table.seconds;
	while (!is_over(load)) {
		int n = epoll_wait(load->epoll, events, 256, nap_ms(load));

		if (n < 0 && errno != EINTR)
			die("epoll_wait");
		for (int i = 0; i < n; i++)
			on_event(load, &load->connections[events[i].data.u32]);
		end_overdue(load);
		attempt_put_off(load);
		give_free_connections(load);
		begin_due(load);
	}
}

static void report(const struct load *load)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	printf("{\"requests\":%llu,\"late\":%llu,\"max_late_ms\":%.1f,\"overrun\":%llu,\"cpu_s\":%.3f,\"seconds\":%.3f}\n",
	       (unsigned long long)load->started, (unsigned long long)load->late, (double)load->max_late_ns / 1e6,
	       (unsigned long long)load->overrun,
	       (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
		       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6,
	       (double)(now_ns() - load->begin_ns) / 1e9);
}

/* --- options --- */

static void usage(void)
{
	fputs("usage: load --to ADDRESS --port N [--from ADDRESS,...] --log FILE --timeout-ms N [--retries N] [--backoff]\n"
	      "            [--pool N] [--seed N] (--rate N --seconds N [--surge AT:FOR:TIMES] | --herd N)\n",
	      stderr);
	exit(2);
}

static double parse_number(const char *text, double max)
{
	char *end;
	double n = strtod(text, &end);

	if (*end || !(n > 0 && n <= max))
		usage();
	return n;
}

static socklen_t parse_address(const char *text, uint16_t port, struct sockaddr_storage *out)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)out;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;

	memset(out, 0, sizeof(*out));
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		return sizeof(*v4);
	}
	if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		return sizeof(*v6);
	}
	usage();
	return 0;
}

static void parse_sources(struct load *load, char *list)
{
	for (char *rest, *text = strtok_r(list, ",", &rest); text; text = strtok_r(NULL, ",", &rest)) {
		if (load->n_sources == MAX_SOURCES)
			usage();
		parse_address(text, 0, &load->sources[load->n_sources++]);
	}
}

static void parse_options(struct load *load, int argc, char **argv)
{
	static const struct option longs[] = {
		{"to", 1, NULL, 't'},      {"port", 1, NULL, 'p'},    {"from", 1, NULL, 'f'},
		{"log", 1, NULL, 'l'},     {"rate", 1, NULL, 'r'},    {"seconds", 1, NULL, 's'},
		{"surge", 1, NULL, 'g'},   {"herd", 1, NULL, 'h'},    {"timeout-ms", 1, NULL, 'm'},
		{"retries", 1, NULL, 'n'}, {"backoff", 0, NULL, 'b'}, {"pool", 1, NULL, 'c'},
		{"seed", 1, NULL, 'e'},    {NULL, 0, NULL, 0},
	};
	struct timetable *t = &load->table;
	const char *to = NULL, *log_path = NULL;
	uint64_t seed = 1;
	uint16_t port = 0;
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 't':
			to = optarg;
			break;
		case 'p':
			port = (uint16_t)parse_number(optarg, UINT16_MAX);
			break;
		case 'f':
			parse_sources(load, optarg);
			break;
		case 'l':
			log_path = optarg;
			break;
		case 'r':
			t->rate = parse_number(optarg, 1e6);
			break;
		case 's':
			t->seconds = parse_number(optarg, 86400);
			break;
		case 'g':
			if (sscanf(optarg, "%lf:%lf:%lf", &t->surge_at_s, &t->surge_for_s, &t->surge_times) != 3)
				usage();
			break;
		case 'h':
			t->herd = (unsigned)parse_number(optarg, MAX_REQUESTS);
			break;
		case 'm':
			load->timeout_ns = (uint64_t)parse_number(optarg, 3600000) * NS_PER_MS;
			break;
		case 'n':
			load->retries = (unsigned)parse_number(optarg, 1000);
			break;
		case 'b':
			load->backoff = true;
			break;
		case 'c':
			load->n_pool = (unsigned)parse_number(optarg, MAX_REQUESTS);
			break;
		case 'e':
			seed = (uint64_t)parse_number(optarg, INT32_MAX);
			break;
		default:
			usage();
		}
	}
	if (!to || !port || !log_path || !load->timeout_ns || optind != argc ||
	    !(t->herd || (t->rate > 0 && t->seconds > 0)))
		usage();
	seed *= 0x9e3779b97f4a7c15;
	memcpy(load->random, &seed, sizeof(load->random));
	load->address_len = parse_address(to, port, &load->to);
	load->log = fopen(log_path, "w");
	if (!load->log)
		die(log_path);
}

static void prepare(struct load *load)
{
	const struct rlimit files = {MAX_REQUESTS + 16, MAX_REQUESTS + 16};
	int len = snprintf(load->payload, sizeof(load->payload), "GET / HTTP/1.1\r\nHost: storm\r\nX-Filler: ");

	memset(load->payload + len, 'x', REQUEST_BYTES - 4 - (size_t)len);
	memcpy(load->payload + REQUEST_BYTES - 4, "\r\n\r\n", 4);
	fputs("request,attempt,began_us,connected_us,first_us,ended_us,result\n", load->log);
	if (setrlimit(RLIMIT_NOFILE, &files))
		die("setrlimit");
	load->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (load->epoll < 0)
		die("epoll_create1");
	TAILQ_INIT(&load->idle);
	TAILQ_INIT(&load->running);
	for (unsigned i = 0; i < BACKOFF_SLOTS; i++)
		TAILQ_INIT(&load->later[i]);
	for (unsigned i = 0; i < MAX_REQUESTS; i++) {
		load->connections[i].fd = -1;
		TAILQ_INSERT_TAIL(&load->idle, &load->requests[i], entry);
	}
}

int main(int argc, char **argv)
{
	static struct load load;

	parse_options(&load, argc, argv);
	prepare(&load);
	run(&load);
	if (fclose(load.log))
		die("log");
	report(&load);
	return 0;
}
