/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Against a real DNS server on loopback (tests/lab/dns_server.py). The clock that names sees is the monotonic one plus
 * an offset that the tests move.
 */
#include "names.h"

#include <event2/event.h>
#include <jansson.h>

#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define MSEC        1000000ULL
#define SEC         (1000 * MSEC)

#define PATIENCE_NS (20 * SEC)
#define HEARD_MAX   2048

struct server {
	pid_t pid;
	int control_fd;
	char control_path[64];
	char address[64]; /* "127.0.0.1:5353" */
};

/* The last that was heard of a (name, family). */
struct heard {
	char name[64];
	uint8_t family;
	enum name_state state;
	size_t n_addresses;
	struct name_address addresses[128];
	uint64_t ttl_ns, next_query_ns, queries, failures;
	uint64_t refused;
	size_t n_refused;
	char last_error[64];
	unsigned n_calls;
};

static struct server server;
static struct event_base *base;
static struct event *tick; /* so that waiting loops look at their condition */
static struct names *names;
static struct heard heard[HEARD_MAX];
static size_t n_heard;
static uint64_t clock_offset_ns;

static uint64_t real_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * SEC + (uint64_t)ts.tv_nsec;
}

static uint64_t test_now_ns(void *arg)
{
	return real_ns() + clock_offset_ns;
}

static double test_uniform(void *arg)
{
	return 0.5;
}

/* --- the server --- */

static bool server_start(struct server *s, const char *listen)
{
	char ready[128] = "";
	int out[2];
	FILE *f;

	snprintf(s->control_path, sizeof(s->control_path), "/tmp/spillway-test-names-%d-%s", getpid(),
		 s == &server ? "a" : "b");
	unlink(s->control_path);
	if (pipe2(out, O_CLOEXEC) < 0)
		return false;
	s->pid = fork();
	if (s->pid == 0) {
		dup2(out[1], STDOUT_FILENO);
		execl("/usr/bin/python3", "python3", SOURCE_ROOT "/tests/lab/dns_server.py", "--die-with-parent",
		      "--control", s->control_path, "--listen", listen, NULL);
		_exit(127);
	}
	close(out[1]);
	f = fdopen(out[0], "r");
	if (!fgets(ready, sizeof(ready), f) || sscanf(ready, "ready %63s", s->address) != 1)
		s->address[0] = '\0';
	fclose(f);
	return s->address[0] != '\0';
}

static void server_connect(struct server *s)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};

	memcpy(sun.sun_path, s->control_path, sizeof(s->control_path));
	s->control_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_return_code(connect(s->control_fd, (struct sockaddr *)&sun, sizeof(sun)), errno);
}

static void server_stop(struct server *s)
{
	if (s->pid <= 0)
		return;
	if (s->control_fd > 0)
		close(s->control_fd);
	kill(s->pid, SIGTERM);
	waitpid(s->pid, NULL, 0);
	unlink(s->control_path);
	*s = (struct server){0};
}

/* Sends one JSON object; returns the answer, which the caller frees. */
__attribute__((format(printf, 2, 3))) static json_t *ask(struct server *s, const char *format, ...)
{
	char line[8192];
	json_t *answer;
	va_list ap;
	FILE *f;

	va_start(ap, format);
	vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	assert_true(dprintf(s->control_fd, "%s\n", line) > 0);
	f = fdopen(dup(s->control_fd), "r");
	answer = json_loadf(f, JSON_DISABLE_EOF_CHECK, NULL);
	fclose(f);
	assert_non_null(answer);
	if (!json_is_true(json_object_get(answer, "ok")))
		fail_msg("%s: %s", line, json_string_value(json_object_get(answer, "error")));
	return answer;
}

#define tell(s, ...) json_decref(ask(s, __VA_ARGS__))

static void set_a(const char *name, unsigned ttl_s, const char *quoted_addresses)
{
	tell(&server, "{\"op\":\"set\",\"name\":\"%s\",\"type\":\"A\",\"ttl\":%u,\"data\":[%s]}", name, ttl_s,
	     quoted_addresses);
}

static void set_mode(struct server *s, const char *name, const char *mode)
{
	tell(s, "{\"op\":\"mode\",\"name\":\"%s\",\"mode\":\"%s\"}", name, mode);
}

/* Queries for `name`; the times of the last ones in `times_s`, if given. */
static size_t count_queries(const char *name, const char *via, double *times_s, size_t max)
{
	json_t *answer = ask(&server, "{\"op\":\"log\"}"), *entry;
	size_t i, n = 0;

	json_array_foreach(json_object_get(answer, "log"), i, entry)
	{
		if (strcmp(json_string_value(json_object_get(entry, "name")), name) != 0)
			continue;
		if (via && strcmp(json_string_value(json_object_get(entry, "via")), via) != 0)
			continue;
		if (n < max)
			times_s[n] = json_number_value(json_object_get(entry, "t"));
		n++;
	}
	json_decref(answer);
	return n;
}

/* --- what names says --- */

static struct heard *find(const char *name, uint8_t family)
{
	for (size_t i = 0; i < n_heard; i++)
		if (strcmp(heard[i].name, name) == 0 && heard[i].family == family)
			return &heard[i];
	return NULL;
}

static void take_view(struct heard *h, const struct name_view *view)
{
	h->state = view->state;
	h->n_addresses = view->n_addresses;
	for (size_t i = 0; i < view->n_addresses && i < 128; i++)
		h->addresses[i] = view->addresses[i];
	h->ttl_ns = view->ttl_ns;
	h->next_query_ns = view->next_query_ns;
	h->queries = view->queries;
	h->failures = view->failures;
	h->refused = view->refused;
	h->n_refused = view->n_refused;
	snprintf(h->last_error, sizeof(h->last_error), "%s", view->last_error);
}

static void on_changed(void *arg, const struct name_view *view)
{
	struct heard *h = find(view->name, view->family);

	if (!h) {
		assert_true(n_heard < HEARD_MAX);
		h = &heard[n_heard++];
		*h = (struct heard){.family = view->family};
		snprintf(h->name, sizeof(h->name), "%s", view->name);
	}
	h->n_calls++;
	take_view(h, view);
}

static void on_each(void *arg, const struct name_view *view)
{
	struct heard *h = find(view->name, view->family);

	if (h)
		take_view(h, view);
}

/* What names_foreach() says now: failures are not announced. */
static const struct heard *look(const char *name, uint8_t family)
{
	names_foreach(names, on_each, NULL);
	return find(name, family);
}

#define wait_until(condition)                                                                                          \
	do {                                                                                                           \
		uint64_t give_up_ns = real_ns() + PATIENCE_NS;                                                         \
		while (!(condition)) {                                                                                 \
			if (real_ns() > give_up_ns)                                                                    \
				fail_msg("waited in vain for %s", #condition);                                         \
			event_base_loop(base, EVLOOP_ONCE);                                                            \
		}                                                                                                      \
	} while (0)

static bool in_state(const char *name, uint8_t family, enum name_state wanted)
{
	const struct heard *h = look(name, family);

	return h && h->state == wanted;
}

static bool has_failed(const char *name, uint8_t family, uint64_t n)
{
	return look(name, family)->failures >= n;
}

static bool has_answers(const char *name, uint8_t family, unsigned n_calls)
{
	return find(name, family)->n_calls >= n_calls;
}

static void advance(uint64_t by_ns)
{
	clock_offset_ns += by_ns;
	names_poll(names);
}

static void advance_to(uint64_t at_ns)
{
	uint64_t now = test_now_ns(NULL);

	advance(at_ns > now ? at_ns - now : 0);
}

static void start_names(const char *servers_csv, uint64_t timeout_ns)
{
	struct names_config config = {
		.servers_csv = servers_csv,
		.min_ttl_ns = SEC,
		.max_ttl_ns = 300 * SEC,
		.stale_ns = 86400 * SEC,
		.timeout_ns = timeout_ns,
		.now_ns = test_now_ns,
		.uniform = test_uniform,
	};

	names = names_create(base, &config, on_changed, NULL);
	assert_non_null(names);
}

/* Watches and waits for the first good answer. */
static void watch_fresh(const char *name, uint8_t family)
{
	assert_int_equal(names_watch(names, name, family), 0);
	wait_until(in_state(name, family, NAME_FRESH));
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
}

static int setup(void **state)
{
	static const struct timeval tick_tv = {.tv_usec = 10000};

	n_heard = 0;
	clock_offset_ns = 0;
	base = event_base_new();
	tick = event_new(base, -1, EV_PERSIST, on_tick, NULL);
	event_add(tick, &tick_tv);
	if (!server_start(&server, "127.0.0.1:0"))
		return -1;
	server_connect(&server);
	start_names(server.address, 3 * SEC);
	return 0;
}

static int teardown(void **state)
{
	names_destroy(names);
	event_free(tick);
	event_base_free(base);
	server_stop(&server);
	return 0;
}

static void restart_names(const char *servers_csv, uint64_t timeout_ns)
{
	names_destroy(names);
	start_names(servers_csv, timeout_ns);
}

/* --- tests --- */

static void test_a_and_aaaa(void **state)
{
	struct ipaddr v4, v6;

	ipaddr_parse("198.18.3.21", &v4);
	ipaddr_parse("2001:db8:3::15", &v6);
	set_a("shop.test", 60, "\"198.18.3.22\",\"198.18.3.21\"");
	tell(&server,
	     "{\"op\":\"set\",\"name\":\"shop.test\",\"type\":\"AAAA\",\"ttl\":5,\"data\":[\"2001:db8:3::15\"]}");
	assert_int_equal(names_watch(names, "shop.test", 4), 0);
	wait_until(find("shop.test", 4));
	assert_int_equal(find("shop.test", 4)->state, NAME_INIT);
	watch_fresh("shop.test", 6);
	wait_until(in_state("shop.test", 4, NAME_FRESH));
	assert_int_equal(find("shop.test", 4)->n_addresses, 2);
	assert_true(ipaddr_equal(&find("shop.test", 4)->addresses[0].addr, &v4));
	assert_int_equal(find("shop.test", 4)->ttl_ns, 60 * SEC);
	assert_int_equal(find("shop.test", 6)->n_addresses, 1);
	assert_true(ipaddr_equal(&find("shop.test", 6)->addresses[0].addr, &v6));
	assert_int_equal(find("shop.test", 6)->ttl_ns, 5 * SEC);
}

/* On the real clock: no faster than once a second, no slower than 1.2 s and what a loaded machine adds. */
static void test_ttl_zero(void **state)
{
	double times_s[5];

	set_a("zero.test", 0, "\"198.18.3.21\"");
	assert_int_equal(names_watch(names, "zero.test", 4), 0);
	wait_until(find("zero.test", 4) && has_answers("zero.test", 4, 5));
	assert_true(count_queries("zero.test", NULL, times_s, 5) >= 4);
	for (int i = 1; i < 4; i++) {
		assert_true(times_s[i] - times_s[i - 1] >= 1.0);
		assert_true(times_s[i] - times_s[i - 1] <= 1.5);
	}
}

static void test_cname_chain(void **state)
{
	uint64_t answered_ns;

	tell(&server, "{\"op\":\"set\",\"name\":\"www.test\",\"type\":\"CNAME\",\"ttl\":300,\"data\":[\"b.test\"]}");
	tell(&server, "{\"op\":\"set\",\"name\":\"b.test\",\"type\":\"CNAME\",\"ttl\":10,\"data\":[\"c.test\"]}");
	set_a("c.test", 60, "\"198.18.3.21\"");
	watch_fresh("www.test", 4);
	for (unsigned round = 1; round < 6; round++) {
		answered_ns = look("www.test", 4)->addresses[0].expires_ns - 10 * SEC;
		assert_int_equal(find("www.test", 4)->ttl_ns, 10 * SEC);
		assert_in_range(find("www.test", 4)->next_query_ns - answered_ns, 7500 * MSEC, 9000 * MSEC);
		advance_to(answered_ns + 7400 * MSEC);
		assert_int_equal(look("www.test", 4)->queries, round);
		advance_to(answered_ns + 9000 * MSEC);
		assert_int_equal(look("www.test", 4)->queries, round + 1);
		wait_until(has_answers("www.test", 4, round + 2));
	}
	assert_int_equal(count_queries("www.test", NULL, NULL, 0), 6);
}

static void test_half_chain(void **state)
{
	tell(&server, "{\"op\":\"set\",\"name\":\"www.test\",\"type\":\"CNAME\",\"ttl\":20,\"data\":[\"b.test\"]}");
	set_a("b.test", 60, "\"198.18.3.21\"");
	set_mode(&server, "www.test", "half_chain");
	watch_fresh("www.test", 4);
	assert_int_equal(find("www.test", 4)->ttl_ns, 20 * SEC);
	assert_int_equal(count_queries("b.test", NULL, NULL, 0), 1);
}

static void test_cname_loop(void **state)
{
	tell(&server, "{\"op\":\"set\",\"name\":\"a.test\",\"type\":\"CNAME\",\"ttl\":20,\"data\":[\"b.test\"]}");
	tell(&server, "{\"op\":\"set\",\"name\":\"b.test\",\"type\":\"CNAME\",\"ttl\":20,\"data\":[\"a.test\"]}");
	set_mode(&server, "*", "half_chain");
	assert_int_equal(names_watch(names, "a.test", 4), 0);
	wait_until(find("a.test", 4) && has_failed("a.test", 4, 1));
	assert_int_equal(find("a.test", 4)->state, NAME_INIT);
	assert_string_equal(find("a.test", 4)->last_error, "CNAME chain too long or a loop");
}

static void test_servfail_ten_minutes(void **state)
{
	static const uint64_t base_s[] = {1, 2, 4, 8, 16, 30};
	uint64_t begin_ns, asked_ns, step_ns;
	size_t n = 0;

	set_a("shop.test", 60, "\"198.18.3.21\"");
	watch_fresh("shop.test", 4);
	set_mode(&server, "shop.test", "servfail");
	begin_ns = look("shop.test", 4)->next_query_ns;
	while (find("shop.test", 4)->next_query_ns < begin_ns + 600 * SEC) {
		advance_to(find("shop.test", 4)->next_query_ns);
		asked_ns = test_now_ns(NULL);
		n++;
		wait_until(has_failed("shop.test", 4, n));
		/* chance is 0.5: no deviation. The step begins when the answer comes: between the question and now. */
		step_ns = base_s[n < 6 ? n - 1 : 5] * SEC;
		assert_in_range(find("shop.test", 4)->next_query_ns, asked_ns + step_ns, test_now_ns(NULL) + step_ns);
		assert_int_equal(find("shop.test", 4)->n_addresses, 1);
	}
	assert_int_equal(find("shop.test", 4)->state, NAME_STALE);
	assert_string_equal(find("shop.test", 4)->last_error, "SERVFAIL");
	assert_int_equal(count_queries("shop.test", NULL, NULL, 0), n + 1);
	assert_in_range(n, 22, 26);
	set_mode(&server, "shop.test", "ok");
	advance_to(find("shop.test", 4)->next_query_ns);
	wait_until(in_state("shop.test", 4, NAME_FRESH));
}

static void test_nxdomain(void **state)
{
	uint64_t first_ns;

	set_a("shop.test", 60, "\"198.18.3.21\"");
	watch_fresh("shop.test", 4);
	tell(&server, "{\"op\":\"delete\",\"name\":\"shop.test\"}");
	advance_to(find("shop.test", 4)->next_query_ns);
	first_ns = test_now_ns(NULL);
	wait_until(in_state("shop.test", 4, NAME_DOUBT));
	while (look("shop.test", 4)->state == NAME_DOUBT) {
		uint64_t queries = find("shop.test", 4)->queries;

		assert_int_equal(find("shop.test", 4)->n_addresses, 1);
		advance_to(find("shop.test", 4)->next_query_ns);
		wait_until(look("shop.test", 4)->queries > queries &&
			   find("shop.test", 4)->next_query_ns > test_now_ns(NULL));
	}
	assert_int_equal(find("shop.test", 4)->state, NAME_GONE);
	assert_true(test_now_ns(NULL) - first_ns >= 30 * SEC);
	assert_int_equal(find("shop.test", 4)->n_addresses, 1);
	assert_int_equal(find("shop.test", 4)->failures, 0);
	assert_string_equal(find("shop.test", 4)->last_error, "no such name");
	set_a("shop.test", 60, "\"198.18.3.22\"");
	advance_to(find("shop.test", 4)->next_query_ns);
	wait_until(in_state("shop.test", 4, NAME_FRESH));
}

static void test_no_data(void **state)
{
	set_a("shop.test", 60, "\"198.18.3.21\"");
	assert_int_equal(names_watch(names, "shop.test", 6), 0);
	wait_until(find("shop.test", 6) && look("shop.test", 6)->last_error[0]);
	assert_string_equal(find("shop.test", 6)->last_error, "name without an address of this family");
	assert_int_equal(find("shop.test", 6)->state, NAME_INIT);
	assert_int_equal(find("shop.test", 6)->failures, 0);
}

static void test_truncated(void **state)
{
	char list[4096];
	size_t len = 0;

	for (unsigned i = 1; i <= 100; i++)
		len += (size_t)snprintf(list + len, sizeof(list) - len, "%s\"198.18.3.%u\"", i > 1 ? "," : "", i);
	set_a("many.test", 60, list);
	watch_fresh("many.test", 4);
	assert_int_equal(find("many.test", 4)->n_addresses, 100);
	assert_int_equal(count_queries("many.test", "udp", NULL, 0), 1);
	assert_int_equal(count_queries("many.test", "tcp", NULL, 0), 1);
	set_a("few.test", 60, "\"198.18.3.21\"");
	set_mode(&server, "few.test", "trunc");
	watch_fresh("few.test", 4);
	assert_int_equal(count_queries("few.test", "tcp", NULL, 0), 1);
}

static void test_malformed(void **state)
{
	set_a("shop.test", 60, "\"198.18.3.21\"");
	watch_fresh("shop.test", 4);
	set_mode(&server, "shop.test", "malformed");
	advance_to(find("shop.test", 4)->next_query_ns);
	wait_until(has_failed("shop.test", 4, 1));
	assert_string_equal(find("shop.test", 4)->last_error, "malformed answer");
	assert_int_equal(find("shop.test", 4)->n_addresses, 1);
	set_mode(&server, "shop.test", "refused");
	advance_to(find("shop.test", 4)->next_query_ns);
	wait_until(has_failed("shop.test", 4, 2));
	assert_string_equal(find("shop.test", 4)->last_error, "REFUSED");
}

/* Answers to something else are not heard: 3 tries, then a timeout. */
static void test_forged(void **state)
{
	static const char *const modes[] = {"wrong_id", "wrong_question", "drop"};
	char name[32];

	restart_names(server.address, 200 * MSEC);
	for (unsigned i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "x%u.test", i);
		set_a(name, 60, "\"198.18.3.21\"");
		set_mode(&server, name, modes[i]);
		assert_int_equal(names_watch(names, name, 4), 0);
		wait_until(find(name, 4) && has_failed(name, 4, 1));
		assert_string_equal(find(name, 4)->last_error, "timeout");
		assert_int_equal(find(name, 4)->state, NAME_INIT);
		assert_int_equal(count_queries(name, NULL, NULL, 0), 3);
	}
}

static void test_aaaa_silent(void **state)
{
	restart_names(server.address, 500 * MSEC);
	set_a("shop.test", 2, "\"198.18.3.21\"");
	tell(&server, "{\"op\":\"mode\",\"name\":\"shop.test\",\"mode\":\"drop\",\"type\":\"AAAA\"}");
	assert_int_equal(names_watch(names, "shop.test", 6), 0);
	watch_fresh("shop.test", 4);
	assert_int_equal(look("shop.test", 6)->failures, 0);
	wait_until(has_failed("shop.test", 6, 1));
	assert_int_equal(find("shop.test", 6)->state, NAME_INIT);
	assert_int_equal(look("shop.test", 4)->state, NAME_FRESH);
	assert_int_equal(find("shop.test", 4)->failures, 0);
}

static void test_addresses_change(void **state)
{
	struct ipaddr b;

	ipaddr_parse("198.18.3.22", &b);
	set_a("shop.test", 5, "\"198.18.3.21\",\"198.18.3.22\"");
	watch_fresh("shop.test", 4);
	assert_int_equal(find("shop.test", 4)->n_addresses, 2);
	set_a("shop.test", 5, "\"198.18.3.22\"");
	advance_to(find("shop.test", 4)->next_query_ns);
	wait_until(find("shop.test", 4)->n_addresses == 1);
	assert_true(ipaddr_equal(&find("shop.test", 4)->addresses[0].addr, &b));
	set_a("shop.test", 5, "\"198.18.3.22\",\"198.18.3.23\",\"198.18.3.24\"");
	advance_to(find("shop.test", 4)->next_query_ns);
	wait_until(find("shop.test", 4)->n_addresses == 3);
}

/* A good answer with the same addresses is told too: their expiry is new. */
static void test_renewal_is_told(void **state)
{
	uint64_t expires_ns;
	unsigned n_calls;

	set_a("shop.test", 60, "\"198.18.3.21\"");
	watch_fresh("shop.test", 4);
	n_calls = find("shop.test", 4)->n_calls;
	expires_ns = find("shop.test", 4)->addresses[0].expires_ns;
	advance_to(find("shop.test", 4)->next_query_ns);
	wait_until(has_answers("shop.test", 4, n_calls + 1));
	assert_true(find("shop.test", 4)->addresses[0].expires_ns > expires_ns);
}

static void test_dead_and_back(void **state)
{
	char address[64];

	set_a("shop.test", 5, "\"198.18.3.21\"");
	watch_fresh("shop.test", 4);
	memcpy(address, server.address, sizeof(address));
	server_stop(&server);
	advance_to(find("shop.test", 4)->next_query_ns);
	wait_until(has_failed("shop.test", 4, 1));
	advance(10 * SEC);
	wait_until(in_state("shop.test", 4, NAME_STALE));
	assert_int_equal(find("shop.test", 4)->n_addresses, 1);
	assert_true(server_start(&server, address));
	server_connect(&server);
	set_a("shop.test", 5, "\"198.18.3.22\"");
	wait_until(look("shop.test", 4)->next_query_ns > test_now_ns(NULL));
	advance_to(find("shop.test", 4)->next_query_ns);
	wait_until(in_state("shop.test", 4, NAME_FRESH));
	assert_int_equal(ipaddr_v4_be(&find("shop.test", 4)->addresses[0].addr), htonl(0xc6120316));
}

static struct server second;

static int setup_two(void **state)
{
	if (setup(state) || !server_start(&second, "[::1]:0"))
		return -1;
	server_connect(&second);
	return 0;
}

static int teardown_two(void **state)
{
	teardown(state);
	server_stop(&second);
	return 0;
}

/* The first server refuses or is silent: the second one, of the other family, answers, and is asked first from then. */
static void test_next_server(void **state)
{
	static const char *const modes[] = {"servfail", "refused", "malformed", "drop"};
	char servers_csv[160], name[32];

	snprintf(servers_csv, sizeof(servers_csv), "%s,%s", server.address, second.address);
	for (unsigned i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "x%u.test", i);
		restart_names(servers_csv, 500 * MSEC);
		set_mode(&server, name, modes[i]);
		tell(&second, "{\"op\":\"set\",\"name\":\"%s\",\"type\":\"A\",\"ttl\":60,\"data\":[\"198.18.3.21\"]}",
		     name);
		watch_fresh(name, 4);
		assert_int_equal(find(name, 4)->failures, 0);
		advance_to(find(name, 4)->next_query_ns);
		wait_until(look(name, 4)->queries == 2 && find(name, 4)->next_query_ns > test_now_ns(NULL));
		assert_int_equal(count_queries(name, NULL, NULL, 0), 1);
	}
}

/* A gateway that starts while DNS is down serves what it had saved, until DNS is back. */
static void test_restore(void **state)
{
	struct ipaddr saved;

	ipaddr_parse("198.18.3.29", &saved);
	set_mode(&server, "shop.test", "servfail");
	assert_int_equal(names_restore(names, "shop.test", 4, &saved, 1, 60 * SEC, 3600 * SEC), -ENOENT);
	assert_int_equal(names_watch(names, "shop.test", 4), 0);
	assert_int_equal(names_restore(names, "shop.test", 4, &saved, 1, 60 * SEC, 3600 * SEC), 0);
	wait_until(find("shop.test", 4) && has_failed("shop.test", 4, 1));
	assert_int_equal(find("shop.test", 4)->state, NAME_STALE);
	assert_int_equal(find("shop.test", 4)->n_addresses, 1);
	assert_true(ipaddr_equal(&find("shop.test", 4)->addresses[0].addr, &saved));
	set_mode(&server, "shop.test", "ok");
	set_a("shop.test", 60, "\"198.18.3.21\"");
	advance_to(find("shop.test", 4)->next_query_ns);
	wait_until(in_state("shop.test", 4, NAME_FRESH));
	assert_int_equal(names_restore(names, "shop.test", 4, &saved, 1, 60 * SEC, 3600 * SEC), -EALREADY);
	assert_false(ipaddr_equal(&find("shop.test", 4)->addresses[0].addr, &saved));
}

static bool not_29(void *arg, const struct ipaddr *addr)
{
	return addr->b[15] != 29;
}

static void restart_choosy(void)
{
	const struct names_config config = {.servers_csv = server.address, .now_ns = test_now_ns, .usable = not_29};

	names_destroy(names);
	names = names_create(base, &config, on_changed, NULL);
	assert_non_null(names);
}

/* What no backend can have is left out of answers; an answer of nothing else is a failure, and the last good set stays.
 */
static void test_unusable(void **state)
{
	restart_choosy();
	set_a("shop.test", 60, "\"198.18.3.21\",\"198.18.3.29\",\"198.18.3.22\"");
	watch_fresh("shop.test", 4);
	assert_int_equal(find("shop.test", 4)->n_addresses, 2);
	assert_int_equal(find("shop.test", 4)->refused, 1);
	assert_int_equal(find("shop.test", 4)->n_refused, 1);
	set_a("shop.test", 60, "\"198.18.3.29\"");
	advance_to(find("shop.test", 4)->next_query_ns);
	wait_until(has_failed("shop.test", 4, 1));
	assert_int_equal(look("shop.test", 4)->n_addresses, 2);
	assert_int_equal(find("shop.test", 4)->state, NAME_FRESH);
	assert_int_equal(find("shop.test", 4)->refused, 2);
	assert_string_equal(find("shop.test", 4)->last_error, "no address that a backend can have");
	/* An IPv4 address in IPv6 clothes is none of either family. */
	tell(&server, "{\"op\":\"set\",\"name\":\"six.test\",\"type\":\"AAAA\",\"ttl\":60,\"data\":"
		      "[\"::ffff:198.18.3.21\",\"2001:db8:3::21\"]}");
	watch_fresh("six.test", 6);
	assert_int_equal(find("six.test", 6)->n_addresses, 1);
	assert_int_equal(find("six.test", 6)->refused, 1);
}

/* Held: resolved once, then neither asked nor aged; let go: as if nothing had been. */
static void test_hold(void **state)
{
	set_a("shop.test", 5, "\"198.18.3.21\"");
	names_hold(names, true);
	set_mode(&server, "late.test", "servfail");
	watch_fresh("shop.test", 4);
	assert_int_equal(names_watch(names, "late.test", 4), 0);
	/* Who has no answer is asked until it has one. */
	wait_until(find("late.test", 4) && has_failed("late.test", 4, 1));
	set_mode(&server, "late.test", "ok");
	set_a("late.test", 5, "\"198.18.3.22\"");
	advance(2 * SEC);
	wait_until(in_state("late.test", 4, NAME_FRESH));
	set_a("shop.test", 5, "\"198.18.3.23\"");
	for (int i = 0; i < 10; i++)
		advance(100000 * SEC);
	assert_int_equal(look("shop.test", 4)->state, NAME_FRESH);
	assert_int_equal(find("shop.test", 4)->queries, 1);
	names_hold(names, false);
	wait_until(look("shop.test", 4)->queries == 2 && in_state("shop.test", 4, NAME_FRESH));
	assert_int_equal(ntohl(ipaddr_v4_be(&find("shop.test", 4)->addresses[0].addr)) & 255, 23);
}

static unsigned n_foreach;

static void check_sorted(void *arg, const struct name_view *view)
{
	static const char *const expected[] = {"a.test", "a.test", "b.test"};

	assert_string_equal(view->name, expected[n_foreach]);
	assert_int_equal(view->family, n_foreach == 1 ? 6 : 4);
	n_foreach++;
}

static void test_watch_is_counted(void **state)
{
	set_a("a.test", 60, "\"198.18.3.21\"");
	assert_int_equal(names_watch(names, "b.test", 4), 0);
	assert_int_equal(names_watch(names, "a.test", 6), 0);
	watch_fresh("a.test", 4);
	assert_int_equal(names_watch(names, "A.test.", 4), 0);
	/* The second watch hears what is known, without a second query. */
	wait_until(has_answers("a.test", 4, 3));
	assert_int_equal(find("a.test", 4)->queries, 1);
	names_unwatch(names, "a.test", 4);
	n_foreach = 0;
	names_foreach(names, check_sorted, NULL);
	assert_int_equal(n_foreach, 3);
	names_unwatch(names, "a.test", 4);
	names_unwatch(names, "a.test", 6);
	names_unwatch(names, "b.test", 4);
	names_unwatch(names, "b.test", 4);
	names_unwatch(names, "never.test", 4);
	names_foreach(names, check_sorted, NULL);
	assert_int_equal(n_foreach, 3);
}

/* An answer that comes after nobody watches any more is for nobody; a new watch asks anew. */
static void test_unwatch_in_flight(void **state)
{
	unsigned n_calls;

	set_a("slow.test", 60, "\"198.18.3.21\"");
	tell(&server, "{\"op\":\"mode\",\"name\":\"slow.test\",\"mode\":\"ok\",\"delay_ms\":300}");
	assert_int_equal(names_watch(names, "slow.test", 4), 0);
	wait_until(count_queries("slow.test", NULL, NULL, 0) == 1);
	n_calls = find("slow.test", 4)->n_calls;
	names_unwatch(names, "slow.test", 4);
	set_a("other.test", 60, "\"198.18.3.21\"");
	tell(&server, "{\"op\":\"mode\",\"name\":\"other.test\",\"mode\":\"ok\",\"delay_ms\":600}");
	watch_fresh("other.test", 4);
	assert_int_equal(find("slow.test", 4)->n_calls, n_calls);
	watch_fresh("slow.test", 4);
	assert_int_equal(count_queries("slow.test", NULL, NULL, 0), 2);
}

static void unwatch_from_callback(void *arg, const struct name_view *view)
{
	on_changed(arg, view);
	if (view->state != NAME_FRESH)
		return;
	names_unwatch(names, view->name, view->family);
	assert_int_equal(names_watch(names, view->family == 4 ? "next.test" : "last.test", view->family == 4 ? 6 : 4),
			 0);
}

static void test_watch_from_callback(void **state)
{
	struct names_config config = {.servers_csv = server.address};

	set_a("first.test", 60, "\"198.18.3.21\"");
	tell(&server,
	     "{\"op\":\"set\",\"name\":\"next.test\",\"type\":\"AAAA\",\"ttl\":60,\"data\":[\"2001:db8::1\"]}");
	names_destroy(names);
	names = names_create(base, &config, unwatch_from_callback, NULL);
	assert_non_null(names);
	assert_int_equal(names_watch(names, "first.test", 4), 0);
	wait_until(find("last.test", 4));
	assert_int_equal(find("first.test", 4)->state, NAME_FRESH);
	assert_int_equal(find("next.test", 6)->state, NAME_FRESH);
}

static void test_bad_names(void **state)
{
	char label[80] = "", name[300] = "";
	struct names_config config = {.servers_csv = "not an address"};

	memset(label, 'a', 64);
	assert_int_equal(names_watch(names, "", 4), -EINVAL);
	assert_int_equal(names_watch(names, ".", 4), -EINVAL);
	assert_int_equal(names_watch(names, "a..b", 4), -EINVAL);
	assert_int_equal(names_watch(names, "a b", 4), -EINVAL);
	assert_int_equal(names_watch(names, "a\\.b", 4), -EINVAL);
	assert_int_equal(names_watch(names, label, 4), -EINVAL);
	assert_int_equal(names_watch(names, "a.test", 5), -EINVAL);
	for (int i = 0; i < 127; i++)
		memcpy(name + 2 * i, "a.", 3);
	assert_int_equal(names_watch(names, name, 4), 0);
	memcpy(name + 254, "a", 2);
	assert_int_equal(names_watch(names, name, 4), -EINVAL);
	assert_null(names_create(base, &config, on_changed, NULL));
	assert_int_equal(errno, EINVAL);
}

/* 500 names at once: all get their answer, and the server never has more than 64 of them at a time. */
static void test_bounded_in_flight(void **state)
{
	static double times_s[500];
	char name[32];

	tell(&server, "{\"op\":\"mode\",\"name\":\"*\",\"mode\":\"ok\",\"delay_ms\":100}");
	for (unsigned i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "n%u.test", i);
		set_a(name, 300, "\"198.18.3.21\"");
		tell(&server, "{\"op\":\"set\",\"name\":\"%s\",\"type\":\"CNAME\",\"ttl\":300,\"data\":[\"x.test\"]}",
		     name);
		assert_int_equal(names_watch(names, name, 4), 0);
	}
	for (unsigned i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "n%u.test", i);
		wait_until(in_state(name, 4, NAME_FRESH));
		assert_int_equal(count_queries(name, NULL, &times_s[i], 1), 1);
	}
	for (unsigned i = 0; i < 500; i++) {
		unsigned n_at_once = 0;

		for (unsigned j = 0; j < 500; j++)
			n_at_once += times_s[j] >= times_s[i] && times_s[j] < times_s[i] + 0.1;
		assert_true(n_at_once <= 64);
	}
}

static void test_limit(void **state)
{
	char name[32];

	/* The loop does not run: nothing is sent. */
	for (unsigned i = 0; i < 16384; i++) {
		snprintf(name, sizeof(name), "n%u.test", i / 2);
		assert_int_equal(names_watch(names, name, i & 1 ? 6 : 4), 0);
	}
	assert_int_equal(names_watch(names, "one-more.test", 4), -ENOSPC);
	assert_int_equal(names_watch(names, "n7.test", 4), 0);
	names_unwatch(names, "n8.test", 4);
	assert_int_equal(names_watch(names, "one-more.test", 4), 0);
}

#define WITH_SERVER(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_SERVER(test_a_and_aaaa),
		WITH_SERVER(test_ttl_zero),
		WITH_SERVER(test_cname_chain),
		WITH_SERVER(test_half_chain),
		WITH_SERVER(test_cname_loop),
		WITH_SERVER(test_servfail_ten_minutes),
		WITH_SERVER(test_nxdomain),
		WITH_SERVER(test_no_data),
		WITH_SERVER(test_truncated),
		WITH_SERVER(test_malformed),
		WITH_SERVER(test_forged),
		WITH_SERVER(test_aaaa_silent),
		WITH_SERVER(test_addresses_change),
		WITH_SERVER(test_renewal_is_told),
		WITH_SERVER(test_dead_and_back),
		cmocka_unit_test_setup_teardown(test_next_server, setup_two, teardown_two),
		WITH_SERVER(test_restore),
		WITH_SERVER(test_unusable),
		WITH_SERVER(test_hold),
		WITH_SERVER(test_watch_is_counted),
		WITH_SERVER(test_unwatch_in_flight),
		WITH_SERVER(test_watch_from_callback),
		WITH_SERVER(test_bad_names),
		WITH_SERVER(test_bounded_in_flight),
		WITH_SERVER(test_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
