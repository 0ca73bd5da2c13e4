/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An upstream of limited capacity, as simple servers are: each of its workers accepts, reads the request, works for an
 * exponential time, answers and closes. It never looks whether the client is still there: what a client has abandoned
 * is done like all the rest, and only counted apart.
 *
 * SIGUSR1 stalls all workers, SIGUSR2 lets them go on; SIGHUP changes nothing. Each prints what was done so far as a
 * line of JSON, when it has taken effect; so does the end (SIGTERM, SIGINT).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define MAX_WORKERS    256
#define BODY_BYTES     100
#define REQUEST_LIMIT  4096
#define READ_TIMEOUT_S 5

struct upstream {
	int listener;
	double mean_work_s;
	char answer[512];
	size_t answer_len;
	pthread_mutex_t lock;
	pthread_cond_t goes_on;
	bool stalled; /* under `lock` */
	atomic_uint_fast64_t answered;
	atomic_uint_fast64_t abandoned; /* of `answered`: the client had left before */
	atomic_uint_fast64_t no_request;
};

static void wait_while_stalled(struct upstream *up)
{
	pthread_mutex_lock(&up->lock);
	while (up->stalled)
		pthread_cond_wait(&up->goes_on, &up->lock);
	pthread_mutex_unlock(&up->lock);
}

static void set_stalled(struct upstream *up, bool stalled)
{
	pthread_mutex_lock(&up->lock);
	up->stalled = stalled;
	pthread_cond_broadcast(&up->goes_on);
	pthread_mutex_unlock(&up->lock);
}

/* True if a whole request came; one that never comes holds its worker for READ_TIMEOUT_S. */
static bool read_request(int fd)
{
	const struct timeval timeout = {.tv_sec = READ_TIMEOUT_S};
	char request[REQUEST_LIMIT + 1];
	size_t len = 0;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	while (len < REQUEST_LIMIT) {
		ssize_t n = recv(fd, request + len, REQUEST_LIMIT - len, 0);

		if (n <= 0)
			return false;
		len += (size_t)n;
		request[len] = '\0';
		if (strstr(request, "\r\n\r\n"))
			return true;
	}
	return false;
}

/* A client that waits has neither closed nor reset, and sends nothing after its request. */
static bool client_left(int fd)
{
	char byte;

	return recv(fd, &byte, 1, MSG_DONTWAIT) >= 0 || errno != EAGAIN;
}

static void work(double mean_s, unsigned short random[3])
{
	double s = -log(1 - erand48(random)) * mean_s;
	struct timespec left = {.tv_sec = (time_t)s, .tv_nsec = (long)((s - floor(s)) * 1e9)};

	while (nanosleep(&left, &left) && errno == EINTR)
		;
}

static void serve_one(struct upstream *up, int fd, unsigned short random[3])
{
	if (!read_request(fd)) {
		atomic_fetch_add(&up->no_request, 1);
		return;
	}
	wait_while_stalled(up);
	work(up->mean_work_s, random);
	if (client_left(fd))
		atomic_fetch_add(&up->abandoned, 1);
	send(fd, up->answer, up->answer_len, MSG_NOSIGNAL);
	atomic_fetch_add(&up->answered, 1);
}

static void *worker(void *arg)
{
	struct upstream *up = arg;
	/* Any seed does, as long as no two workers have the same. */
	uintptr_t seed = (uintptr_t)pthread_self();
	unsigned short random[3] = {(unsigned short)(seed >> 12), (unsigned short)(seed >> 24),
				    (unsigned short)getpid()};

	for (;;) {
		int fd = accept4(up->listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0)
			continue;
		serve_one(up, fd, random);
		close(fd);
	}
	return NULL;
}

static void report(struct upstream *up)
{
	printf("{\"answered\":%llu,\"abandoned\":%llu,\"no_request\":%llu}\n",
	       (unsigned long long)atomic_load(&up->answered), (unsigned long long)atomic_load(&up->abandoned),
	       (unsigned long long)atomic_load(&up->no_request));
	fflush(stdout);
}

/* On all addresses of the host, IPv4 and IPv6. */
static int listen_on(uint16_t port, int backlog)
{
	const struct sockaddr_in6 any = {
		.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_ANY_INIT};
	const int on = 1, off = 0;
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, (const struct sockaddr *)&any, sizeof(any)) || listen(fd, backlog)) {
		int error = errno;

		close(fd);
		return -error;
	}
	return fd;
}

static void make_answer(struct upstream *up, const char *name)
{
	up->answer_len = (size_t)snprintf(up->answer, sizeof(up->answer),
					  "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n%*s",
					  BODY_BYTES, name, BODY_BYTES - 1 - (int)strlen(name), "");
}

static void usage(void)
{
	fputs("usage: upstream --name NAME --port N [--workers N] [--work-ms N] [--backlog N]\n", stderr);
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
		{"work-ms", 1, NULL, 'm'}, {"backlog", 1, NULL, 'b'}, {NULL, 0, NULL, 0},
	};
	static struct upstream up = {.lock = PTHREAD_MUTEX_INITIALIZER, .goes_on = PTHREAD_COND_INITIALIZER};
	long port = 0, workers = 10, work_ms = 20, backlog = 4096;
	const char *name = NULL;
	pthread_t thread;
	sigset_t set;
	int c, signo;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'n':
			name = optarg;
			break;
		case 'p':
			port = parse_number(optarg, UINT16_MAX);
			break;
		case 'w':
			workers = parse_number(optarg, MAX_WORKERS);
			break;
		case 'm':
			work_ms = parse_number(optarg, 10000);
			break;
		case 'b':
			backlog = parse_number(optarg, 65535);
			break;
		default:
			usage();
		}
	}
	if (!name || strlen(name) >= BODY_BYTES || !port)
		usage();
	up.mean_work_s = (double)work_ms / 1000;
	make_answer(&up, name);
	sigemptyset(&set);
	for (const int *s = (const int[]){SIGUSR1, SIGUSR2, SIGHUP, SIGTERM, SIGINT, 0}; *s; s++)
		sigaddset(&set, *s);
	/* Before any thread is there: each inherits it, and sigwait() below is the only taker. */
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	up.listener = listen_on((uint16_t)port, (int)backlog);
	if (up.listener < 0) {
		fprintf(stderr, "upstream: cannot listen on port %ld: %s\n", port, strerror(-up.listener));
		return 1;
	}
	for (long i = 0; i < workers; i++)
		if (pthread_create(&thread, NULL, worker, &up)) {
			fprintf(stderr, "upstream: cannot start %ld workers\n", workers);
			return 1;
		}
	while (!sigwait(&set, &signo) && signo != SIGTERM && signo != SIGINT) {
		if (signo != SIGHUP)
			set_stalled(&up, signo == SIGUSR1);
		report(&up);
	}
	report(&up);
	return 0;
}
