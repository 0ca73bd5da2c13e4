/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * spillwayctl as it is run, against the real API: output and exit codes. The program's path is the only argument.
 */
#include "api_fixture.h"
#include "events.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <curl/curl.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *program;
static char output[512 * 1024];

/* Runs "spillwayctl ARGS" by the shell, stderr with stdout into `output`; returns its exit code. */
static int run(const char *prefix, const char *socket_path, const char *args)
{
	char command[1024];
	size_t len;
	FILE *pipe;
	int status;

	snprintf(command, sizeof(command), "%s '%s' --socket '%s' %s 2>&1", prefix, program, socket_path, args);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	len = fread(output, 1, sizeof(output) - 1, pipe);
	output[len] = '\0';
	status = pclose(pipe);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int ctl(struct api_fixture *f, const char *args)
{
	return run("", f->socket_path, args);
}

static void assert_says(const char *text)
{
	if (!strstr(output, text))
		fail_msg("no '%s' in:\n%s", text, output);
}

static void test_status(void **state)
{
	struct view *view;

	assert_int_equal(ctl(*state, "status"), 0);
	assert_says("state    ready\n");
	assert_says("policy   7, published ");
	assert_says("ticks    1.500 ms late at p99, 22.500 ms at most\n");
	assert_says("clients  21 remembered of at most 200, 17 forgotten\n");
	assert_says("wan   eth1        0  no         150 ");
	assert_says("GATE         wan  lan\nknown         11   12\n");
	view_publish(api_fixture_view(GATEWAY_DRAINING));
	assert_int_equal(ctl(*state, "status"), 3);
	assert_says("state    draining\n");
	view = api_fixture_view(GATEWAY_READY);
	snprintf(view->trouble, sizeof(view->trouble), "port wan is gone");
	view_publish(view);
	assert_int_equal(ctl(*state, "status"), 3);
	assert_says("NOT READY: port wan is gone\n");
}

static void test_lists(void **state)
{
	assert_int_equal(ctl(*state, "services"), 0);
	assert_says("BACKENDS  FLOWS  ATTEMPTS  NEW  REFUSED  SILENT  BY STORM  EARLY  HELD  HOLDING  RETRIES  DOWN\n"
		    "shop  198.18.100.1:80/tcp,[2001:db8:100::1]:80/tcp");
	/* Of those that have something to say alone. */
	assert_says("\n\nIN SHADOW  WOULD HOLD  WOULD REFUSE  WOULD SILENCE\n"
		    "blog                0             0              6\n");
	assert_int_equal(ctl(*state, "backends"), 0);
	assert_says(
		"tcp:198.18.3.21:8080       shop,blog  active  closed        1     10        90         0         30"
		"       0    12        5       -        -       -      -      -    -       8          13      -      -        -"
		"          -\n");
	assert_says("  WORK  ZOMBIES  SYN MS  BYTE MS     P99  USUAL  LIMIT  MAX  RESETS  SENT AGAIN  DRAIN ");
	assert_says("    13        5   0.223   20.479  20.479      -      -    -       8          13      -  2");
	assert_says(
		"tcp:[2001:db8:3::15]:8080  blog       gone    closed        1     12        90         2         32"
		"      12    14        5   0.223   20.479  20.479      -      -    -       8          13  1"); /* of 19
											       seconds less than ten
											       have passed */
	assert_says("      -    1m48s      3m03s\n");
	/* Of those that have something to say alone. */
	assert_says("\n\nBREAKER OF            IS  ");
	assert_says("\ntcp:198.18.3.22:8080  open  ");
	assert_says("s  5 SYNs in a row failed: 2 unanswered, 3 refused\n");
	assert_int_equal(ctl(*state, "names"), 0);
	assert_says("shop.lab.test    4  fresh          2  5.0s  ");
}

/* One that is limited has a row of its own, and so has its service. */
static void test_limited(void **state)
{
	struct view *view = api_fixture_view(GATEWAY_READY);

	view->backends[1].hard_max = 200;
	view->backends[1].limiter = (struct view_limiter){
		.limiting = true,
		.limit = 56,
		.wip = 55,
		.usual_ns = 20000000,
		.from = LIMITER_BASE_RESTART,
		.first_byte_ns = 480500000,
		.calm_ns = 90000000,
		.rate = 412,
	};
	view_publish(view);
	assert_int_equal(ctl(*state, "backends"), 0);
	assert_says("  20.479  20.479  20.000     56  200       8 ");
	assert_says("\n\nLIMITED               SINCE  LIMIT  WORK  USUAL MS  FROM     BYTE MS  UNTIL BELOW  ANSWERS/S\n"
		    "tcp:198.18.3.22:8080      -     56    13    20.000  restart  480.500       90.000        412\n");
	assert_int_equal(ctl(*state, "services"), 0);
	assert_says("\n\nLIMITED  BACKENDS ");
	assert_says("\nshop            1 ");
	view_publish(api_fixture_view(GATEWAY_READY));
}

static void test_limiter_command(void **state)
{
	assert_int_equal(ctl(*state, "limiter tcp:198.18.3.21:8080"), 1);
	assert_says("expected limiter BACKEND reset");
	assert_int_equal(ctl(*state, "limiter tcp:198.18.3.21:8080 auto"), 3);
	assert_says("bad value 'auto' of 'set': expected reset");
}

static void test_ledger(void **state)
{
	const char *most, *least;

	assert_int_equal(ctl(*state, "ledger"), 0);
	assert_says("ALL  WORKER 0  WORKER 1\n");
	assert_says("rx           150       100        50\n");
	assert_says("      6  drop_truncated  dropped      gateway  shorter than its headers");
	most = strstr(output, "  138  forwarded");
	least = strstr(output, "    1  drop_no_route");
	assert_true(most && least && most < least);
	assert_null(strstr(output, "drop_not_ip"));
	assert_says("     89  gate_shed_client");
	assert_says("new_ring\n");
	assert_says("\nbalance 0\n");
}

static unsigned count_lines(const char *needle)
{
	unsigned n = 0;

	for (const char *at = strstr(output, needle); at; at = strstr(at + 1, needle))
		n++;
	return n;
}

/* All pages, or as many rows as asked for. */
static void test_many_backends(void **state)
{
	view_publish(api_fixture_many_backends(1500, 0));
	assert_int_equal(ctl(*state, "backends"), 0);
	assert_int_equal(count_lines("\ntcp:"), 1500);
	assert_int_equal(ctl(*state, "backends limit=1200"), 0);
	assert_int_equal(count_lines("\ntcp:"), 1200);
	assert_says("go on with cursor=0.2400.0\n");
	assert_int_equal(ctl(*state, "backends colour=red"), 1);
}

static void test_flows(void **state)
{
	assert_int_equal(ctl(*state, "flows"), 0);
	assert_int_equal(count_lines("\ntcp "), FAKE_FLOWS_W0 + FAKE_FLOWS_W1);
	assert_says("established  1m01s  ");
	assert_int_equal(ctl(*state, "flows 198.18.2.7:20003"), 0);
	assert_int_equal(count_lines("\ntcp "), 1);
	assert_int_equal(ctl(*state, "flows [2001:db8:2::7]:20010"), 0);
	assert_int_equal(count_lines("\ntcp "), 1);
	assert_int_equal(ctl(*state, "flows 2001:db8:2::7"), 0);
	assert_int_equal(count_lines("\ntcp "), 8);
	assert_int_equal(ctl(*state, "flows service=shop backend=tcp:198.18.3.22:8080 limit=40"), 0);
	assert_int_equal(count_lines("\ntcp "), 37);
	assert_int_equal(ctl(*state, "flows limit=40"), 0);
	assert_int_equal(count_lines("\ntcp "), 40);
	assert_says("go on with cursor=0.32.8\n");
	assert_int_equal(ctl(*state, "flows cursor=0.32.8"), 0);
	assert_int_equal(count_lines("\ntcp "), 35);
}

static void test_paths(void **state)
{
	assert_int_equal(ctl(*state, "paths"), 0);
	assert_says("ADDRESS          MTU  SIDE      SOURCE     AGE  EXPIRES\n"
		    "198.18.2.7      1400  client    ptb       1.5s    9m58s\n");
	assert_says("\n2001:db8:3::15  1280  upstream  ptb      1m01s    8m59s\n");
	assert_int_equal(ctl(*state, "paths 198.18.2.8"), 0);
	assert_says("198.18.2.0/24  1400  client  members");
	assert_null(strstr(output, "198.18.2.7"));
	assert_int_equal(ctl(*state, "paths limit=2"), 0);
	assert_says("go on with cursor=0.11.0\n");
	assert_int_equal(ctl(*state, "paths 198.18.2"), 3);
	assert_says("bad value '198.18.2' of 'address'");
}

static void test_json_passes_the_answer(void **state)
{
	struct reply r;

	assert_int_equal(ctl(*state, "--json names"), 0);
	assert_int_equal(api_fixture_request(*state, false, "GET", "/v1/services", NULL, NULL, &r), 0);
	assert_int_equal(ctl(*state, "services --json"), 0);
	assert_memory_equal(output, r.body, r.len);
	assert_string_equal(output + r.len, "\n");
	reply_free(&r);
}

static void test_reload(void **state)
{
	assert_int_equal(ctl(*state, "reload"), 0);
	assert_says("reloaded\n");
	assert_says("policy_number  8\n");
	api_fixture_mode(*state, DECIDE_REFUSE);
	assert_int_equal(ctl(*state, "reload"), 3);
	assert_says("refused by the gateway: the file is refused (HTTP 422)\ngw.yaml:1:1: unknown key 'flow'\n");
	assert_says("gw.yaml:100:1: unknown key 'flow'\n");
}

static void test_drain(void **state)
{
	assert_int_equal(ctl(*state, "drain tcp:198.18.3.21:8080 service=shop deadline=30s"), 0);
	assert_says("done\n");
	assert_says("path  /v1/drain\n");
	assert_int_equal(ctl(*state, "drain 'tcp:[2001:db8:3::15]:8080' set=auto"), 0);
	assert_int_equal(ctl(*state, "drain tcp:198.18.3.21:8080 deadline=30"), 3);
	assert_says("bad value '30' of 'deadline': expected a duration such as 30s, from 1s to 7d");
}

static void test_cure(void **state)
{
	struct api_fixture *f = *state;

	assert_int_equal(ctl(f, "cure wall shadow"), 0);
	assert_says("set\n");
	assert_says("path  /v1/cure\n");
	assert_says("query  cure=wall&mode=shadow\n");
	assert_int_equal(ctl(f, "cure 'a&b' off"), 3);
	assert_says("bad value 'a&b' of 'cure': expected wall, names, silence, path or storm");
	assert_int_equal(ctl(f, "cure wall on"), 3);
	assert_says("'mode': expected enforce, shadow or off");
	assert_int_equal(ctl(f, "cure wall"), 1);
	assert_int_equal(ctl(f, "cure"), 1);
	assert_int_equal(ctl(f, "--watch 1 cure wall off"), 1);
	assert_int_equal(f->taken, 1);
	api_fixture_mode(f, DECIDE_REFUSE);
	assert_int_equal(ctl(f, "cure wall off"), 3);
	assert_says("refused by the gateway");
}

static void test_clients(void **state)
{
	assert_int_equal(ctl(*state, "clients"), 0);
	assert_int_equal(count_lines("\n198.18."), FAKE_CLIENTS + 1);
	assert_says("CLIENT       CONNECTED  REFUSED  SILENT  RESTEERED  RESET");
	assert_says("\n" FAKE_VICTIM "           3        3       1          0      0  ");
	assert_says("  connected  shop     tcp:198.18.3.22:8080\n");
	assert_int_equal(ctl(*state, "clients 198.18.5.4"), 0);
	assert_int_equal(count_lines("\n198.18."), 1);
	assert_int_equal(ctl(*state, "clients limit=4"), 0);
	assert_int_equal(count_lines("\n198.18."), 4);
	assert_says("go on with cursor=0.15.0\n");
	assert_int_equal(ctl(*state, "clients cursor=0.15.0"), 0);
	assert_int_equal(count_lines("\n198.18."), FAKE_CLIENTS + 1 - 4);
	assert_int_equal(ctl(*state, "clients service=shop"), 1);
	assert_int_equal(ctl(*state, "clients 198.18.5.4:80"), 3);
}

static void test_explain(void **state)
{
	struct api_fixture *f = *state;

	events_add(f->events, EVENT_CRITICAL, "name_gone", "names", "shop.lab.test", "NXDOMAIN twice");
	assert_int_equal(ctl(f, "explain " FAKE_VICTIM), 0);
	assert_says(FAKE_VICTIM " is: client\nclient " FAKE_VICTIM ", known since ");
	assert_says(": connected 3 refused 3 silent 1 resteered 0 reset 0 other 0\n");
	assert_says("3 times: SYN to a service without a usable backend, answered with RST; blog now: no usable");
	assert_says("7 times to its network within two minutes: SYN to a service");
	assert_says("once: no answer from the backend until the attempt timed out; tcp:198.18.3.22:8080 now: breaker");
	assert_says("name_gone  shop.lab.test  NXDOMAIN twice\n");
	assert_says("SERVICE NOW");
	assert_says("outcomes of this client may have been forgotten");
	assert_says("4 outcomes of the last two minutes were counted, but not by network\n");
	assert_says("there may be more flows");
	assert_int_equal(ctl(f, "explain 198.18.101.10:34568"), 0);
	assert_says("198.18.101.10 is: snat\nclient " FAKE_VICTIM ", known since");
	assert_says(FAKE_VICTIM ":40000  tcp    shop     tcp:198.18.3.22:8080  time_wait  ");
	assert_int_equal(ctl(f, "explain 198.18.101.10:5"), 0);
	assert_says("no flow uses that port, and none that ended lately did\n");
	assert_int_equal(ctl(f, "explain 198.18.101.10"), 0);
	assert_says("which client stands behind it, the port tells");
	assert_int_equal(ctl(f, "explain 203.0.113.7"), 0);
	assert_says("nothing is remembered of it as a client\n");
	assert_int_equal(ctl(f, "explain [2001:db8:3::15]:8080"), 0);
	assert_says("2001:db8:3::15 is: backend\n");
	assert_says("12 flows stay although DNS, the configuration or a command took it out");
	assert_int_equal(ctl(f, "explain 198.18.100.1:80"), 0);
	assert_says("of 209 attempts 200 were let in, 2 refused aloud, 3 in silence, 4 wait now\n");
	assert_says("70 new connections beyond a cap, or what the backends bore, were held until their turn: 65");
	assert_int_equal(ctl(f, "explain nobody"), 3);
	assert_int_equal(ctl(f, "explain"), 1);
	assert_int_equal(ctl(f, "explain 1.2.3.4 5.6.7.8"), 1);
}

static void *end_events(void *arg)
{
	struct api_fixture *f = arg;

	usleep(300000);
	events_add(f->events, EVENT_WARNING, "late", "storm", "shop", "later");
	usleep(100000);
	events_wake(f->events);
	return NULL;
}

static void test_events(void **state)
{
	struct api_fixture *f = *state;
	pthread_t thread;

	for (unsigned i = 0; i < 200; i++)
		events_add(f->events, EVENT_INFO, "link_up", "gateway", "wan", "MTU %u", 1000 + i);
	assert_int_equal(ctl(f, "events"), 0);
	assert_says("SEVERITY  CURE     EVENT    SUBJECT  WHAT\n");
	assert_int_equal(count_lines("  info      gateway  link_up  wan      MTU 1"), 100);
	assert_says("MTU 1199\n");
	assert_int_equal(ctl(f, "events since=195"), 0);
	assert_int_equal(count_lines("link_up"), 5);
	assert_int_equal(ctl(f, "events limit=3"), 0);
	assert_int_equal(count_lines("link_up"), 3);
	assert_int_equal(ctl(f, "events 198.18.1.1"), 1);
	assert_int_equal(ctl(f, "events cursor=1.2.3"), 1);
	assert_int_equal(ctl(f, "status --follow"), 1);
	assert_int_equal(ctl(f, "--watch 1 events --follow"), 1);
	/* Ten of the past, what comes, and the end with the gateway's. */
	assert_int_equal(pthread_create(&thread, NULL, end_events, f), 0);
	assert_int_equal(ctl(f, "events --follow"), 0);
	pthread_join(thread, NULL);
	assert_int_equal(count_lines("link_up"), 10);
	assert_says("  warning  storm  late  shop  later\n");
	/* A stream that is over at once is no failure. */
	assert_int_equal(ctl(f, "events --follow --json limit=1"), 0);
	assert_says("{\"number\":201,");
	assert_int_equal(run("", "/nonexistent/api.sock", "events --follow"), 2);
}

static void test_usage(void **state)
{
	static const char *const bad[] = {"",
					  "nonsense",
					  "status now",
					  "flows limit=0",
					  "flows [::1",
					  "flows colour=red",
					  "paths side=client",
					  "paths limit=x",
					  "--watch 0 status",
					  "--watch 1 reload",
					  "--watch x status",
					  "check",
					  "drain",
					  "drain tcp:198.18.3.21:8080 now",
					  "--nonsense status"};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (ctl(*state, bad[i]) != 1)
			fail_msg("'%s' is no usage error: %s", bad[i], output);
	assert_int_equal(ctl(*state, "--help"), 0);
	assert_says("Exit codes:");
	assert_int_equal(ctl(*state, "flows 198.18.2"), 3);
	assert_says("bad value '198.18.2' of 'address'");
}

static void test_unreachable(void **state)
{
	struct api_fixture *f = *state;
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd;

	assert_int_equal(run("", "/nonexistent/api.sock", "status"), 2);
	assert_says("start the gateway, or name its socket");
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/dead.sock", f->dir);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	close(fd);
	assert_int_equal(run("", addr.sun_path, "status"), 2);
	unlink(addr.sun_path);
	assert_says("nobody listens");
	/* A bad proxy in the environment is none of its business. */
	assert_int_equal(run("http_proxy=http://127.0.0.1:1", f->socket_path, "status"), 0);
}

/* A copy of the program in a directory where nothing else is, and a `spillway` beside it or in PATH alone. */
static void test_check(void **state)
{
	struct api_fixture *f = *state;
	const char *real = program;
	char copy[128], command[512], path[160];
	int set_up, beside, in_path, nowhere;

	snprintf(copy, sizeof(copy), "%s/spillwayctl", f->dir);
	snprintf(path, sizeof(path), "PATH='%s/bin':$PATH", f->dir);
	snprintf(
		command, sizeof(command),
		"cd '%s' && cp '%s' . && mkdir bin && printf '#!/bin/sh\\necho \"called with $*\"\\nexit 7\\n' >spillway "
		"&& chmod 755 spillway",
		f->dir, real);
	set_up = system(command);
	program = copy;
	beside = run("", f->socket_path, "check gw.yaml");
	snprintf(command, sizeof(command), "mv '%s/spillway' '%s/bin/spillway'", f->dir, f->dir);
	set_up |= system(command);
	in_path = run(path, f->socket_path, "check 'two words.yaml'");
	nowhere = run("PATH=/nonexistent", f->socket_path, "check gw.yaml");
	program = real;
	snprintf(command, sizeof(command), "cd '%s' && rm -r spillwayctl bin", f->dir);
	set_up |= system(command);
	assert_int_equal(set_up, 0);
	assert_int_equal(beside, 7);
	assert_int_equal(in_path, 7);
	assert_int_equal(nowhere, 2);
	assert_says("no program 'spillway'");
}

static void test_watch(void **state)
{
	struct api_fixture *f = *state;

	/* Three turns at least; the pipe's end stops it. */
	assert_int_equal(run("timeout 20 sh -c '\"$0\" \"$@\" | head -n 21 | grep -c RETRIES'", f->socket_path,
			     "--watch 0.1 services"),
			 0);
	assert_says("3\n");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		API_TEST(test_status),          API_TEST(test_lists),       API_TEST(test_limited),
		API_TEST(test_limiter_command), API_TEST(test_ledger),      API_TEST(test_many_backends),
		API_TEST(test_flows),           API_TEST(test_paths),       API_TEST(test_json_passes_the_answer),
		API_TEST(test_reload),          API_TEST(test_cure),        API_TEST(test_drain),
		API_TEST(test_clients),         API_TEST(test_explain),     API_TEST(test_events),
		API_TEST(test_usage),           API_TEST(test_unreachable), API_TEST(test_check),
		API_TEST(test_watch),
	};

	if (argc != 2) {
		fprintf(stderr, "usage: test_ctl PATH-OF-SPILLWAYCTL\n");
		return 1;
	}
	program = argv[1];
	curl_global_init(CURL_GLOBAL_DEFAULT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
