/* SPDX-License-Identifier: BSD-3-Clause */
/* HTTP checks against a server of our own on the loopback, which says what a test wants. */
#include "check_http.h"
#include "clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static struct event_base *base;
static struct check_http *http;
static unsigned n_done;
static enum check_result last_result;
static uint32_t last_slot;
static char last_why[CHECK_WHY_LEN];

/* The server: one connection after the other. */
static int listener = -1;
static uint16_t port_be;
static pthread_t thread;
/* What the two threads tell each other: what to answer (NULL: nothing) with how long a body, and what was asked. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *answer;
static size_t body_bytes;
static char request[1024];

static void answer_with(const char *head, size_t bytes)
{
	pthread_mutex_lock(&lock);
	answer = head;
	body_bytes = bytes;
	pthread_mutex_unlock(&lock);
}

static void assert_asked(const char *line)
{
	pthread_mutex_lock(&lock);
	assert_non_null(strstr(request, line));
	pthread_mutex_unlock(&lock);
}

static void on_done(void *arg, struct slot_ref backend, enum check_result result, const char *why)
{
	n_done++;
	last_slot = backend.slot;
	last_result = result;
	snprintf(last_why, sizeof(last_why), "%s", why);
}

static void send_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

		if (n <= 0)
			return;
		data += n;
		len -= n;
	}
}

static void *serve(void *arg)
{
	static char body[4096];

	for (int fd; (fd = accept(listener, NULL, NULL)) >= 0; close(fd)) {
		ssize_t n = recv(fd, body, sizeof(request) - 1, 0);
		const char *head;
		size_t bytes;

		pthread_mutex_lock(&lock);
		memcpy(request, body, n > 0 ? n : 0);
		request[n > 0 ? n : 0] = '\0';
		head = answer;
		bytes = body_bytes;
		pthread_mutex_unlock(&lock);
		if (!head) {
			/* Until the other end has had enough. */
			while (recv(fd, body, sizeof(body), 0) > 0)
				;
			continue;
		}
		send_all(fd, head, strlen(head));
		for (size_t at = 0; at < bytes; at += sizeof(body))
			send_all(fd, body, sizeof(body));
	}
	return NULL;
}

static int start(bool v6, bool serves)
{
	struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	struct sockaddr *addr = v6 ? (struct sockaddr *)&a6 : (struct sockaddr *)&a4;
	socklen_t len = v6 ? sizeof(a6) : sizeof(a4);

	base = event_base_new();
	http = check_http_create(base, on_done, NULL);
	assert_true(base && http);
	n_done = 0;
	answer_with("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0);
	listener = socket(addr->sa_family, SOCK_STREAM, 0);
	assert_int_equal(bind(listener, addr, len), 0);
	assert_int_equal(getsockname(listener, addr, &len), 0);
	port_be = v6 ? a6.sin6_port : a4.sin_port;
	if (!serves)
		return 0;
	assert_int_equal(listen(listener, 128), 0);
	assert_int_equal(pthread_create(&thread, NULL, serve, NULL), 0);
	return 0;
}

static void stop(bool serves)
{
	check_http_destroy(http);
	shutdown(listener, SHUT_RDWR);
	if (serves)
		pthread_join(thread, NULL);
	close(listener);
	event_base_free(base);
}

static int begin(bool v6, uint32_t slot, uint32_t timeout_ms)
{
	struct check_http_order order = {
		.backend = {slot, 1}, .port_be = port_be, .path = "/healthz?deep=1", .timeout_ms = timeout_ms};

	if (ipaddr_parse(v6 ? "::1" : "127.0.0.1", &order.addr))
		fail();
	return check_http_start(http, &order);
}

static void wait_for(unsigned n)
{
	uint64_t end_ns = clock_monotonic_ns() + 10000000000;
	struct timeval tick = {.tv_usec = 5000};

	while (n_done < n && clock_monotonic_ns() < end_ns) {
		event_base_loopexit(base, &tick);
		event_base_dispatch(base);
	}
	assert_int_equal(n_done, n);
}

static void expect(bool v6, enum check_result result, const char *why)
{
	unsigned n = n_done;

	assert_int_equal(begin(v6, 7, 1000), 0);
	wait_for(n + 1);
	assert_int_equal(last_slot, 7);
	assert_string_equal(last_why, why);
	assert_int_equal(last_result, result);
	assert_int_equal(check_http_under_way(http), 0);
}

static void test_answers(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		start(v6, true);
		expect(v6, CHECK_PASSED, "");
		assert_asked("GET /healthz?deep=1 HTTP/1.1\r\n");
		assert_asked(v6 ? "Host: [::1]:" : "Host: 127.0.0.1:");
		answer_with("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 0);
		expect(v6, CHECK_PASSED, "");
		/* It is the answer, wherever it points. */
		answer_with("HTTP/1.1 302 Found\r\nLocation: http://198.18.0.1/\r\nContent-Length: 0\r\n\r\n", 0);
		expect(v6, CHECK_PASSED, "");
		answer_with("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", 0);
		expect(v6, CHECK_FAILED, "503");
		answer_with("", 0);
		expect(v6, CHECK_FAILED, "Server returned nothing (no headers, no data)");
		/* Longer than anybody wants to hear. */
		answer_with("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n", 100000000);
		expect(v6, CHECK_PASSED, "");
		stop(true);
	}
}

static void test_no_answer(void **state)
{
	start(false, true);
	answer_with(NULL, 0);
	assert_int_equal(begin(false, 7, 100), 0);
	wait_for(1);
	assert_int_equal(last_result, CHECK_FAILED);
	assert_string_equal(last_why, "no whole answer within 100 ms");
	/* The loop itself was away: that is no silence. */
	assert_int_equal(begin(false, 7, 100), 0);
	usleep(500000);
	assert_int_equal(event_base_loop(base, EVLOOP_ONCE), 0);
	assert_int_equal(event_base_loop(base, EVLOOP_NONBLOCK), 0);
	for (unsigned i = 0; i < 100 && check_http_under_way(http); i++) {
		event_base_loop(base, EVLOOP_NONBLOCK);
		usleep(1000);
	}
	assert_int_equal(check_http_under_way(http), 0);
	assert_int_equal(n_done, 1);
	stop(true);
}

static void test_refused(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		start(v6, false);
		expect(v6, CHECK_FAILED, "Connection refused");
		stop(false);
	}
}

/* One more than there are places is told so; what is under way can be ended. */
static void test_bounded(void **state)
{
	start(false, true);
	answer_with(NULL, 0);
	for (unsigned i = 0; i < CHECK_HTTP_MAX; i++)
		assert_int_equal(begin(false, i, 60000), 0);
	assert_int_equal(begin(false, 99, 60000), -EBUSY);
	assert_int_equal(check_http_under_way(http), CHECK_HTTP_MAX);
	event_base_loop(base, EVLOOP_NONBLOCK);
	assert_int_equal(n_done, 0);
	stop(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_no_answer),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_bounded),
	};

	/* No test may go by it. */
	setenv("http_proxy", "http://198.18.0.1:1", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
