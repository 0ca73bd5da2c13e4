/* SPDX-License-Identifier: BSD-3-Clause */
/* A configuration with very many backends: answers come in pages, and what is on its way stays within bounds. */
#include "api_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <curl/curl.h>

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SENDING_BYTES (64u << 20) /* that the API lets wait for slow readers */

static struct api_fixture fixture;

static int setup(void **state)
{
	*state = &fixture;
	return api_fixture_start(&fixture);
}

static long get(struct api_fixture *f, const char *path, struct reply *r)
{
	assert_int_equal(api_fixture_request(f, false, "GET", path, NULL, NULL, r), 0);
	return r->status;
}

/* One page; `cursor` goes on to the next, "" after the last. Returns how many rows, each with a slot beyond *slot. */
static size_t page(struct api_fixture *f, unsigned limit, char cursor[static 64], long *slot)
{
	json_t *doc, *row;
	const char *next;
	char path[128];
	struct reply r;
	size_t n, i;

	snprintf(path, sizeof(path), "/v1/backends?limit=%u%s%s", limit, *cursor ? "&cursor=" : "", cursor);
	assert_int_equal(get(f, path, &r), 200);
	doc = json_loadb(r.body, r.len, 0, NULL);
	reply_free(&r);
	n = json_array_size(json_object_get(doc, "backends"));
	json_array_foreach(json_object_get(doc, "backends"), i, row)
	{
		long at = atol(strrchr(json_string_value(json_object_get(row, "id")), ':') + 1);

		assert_true(at > *slot);
		*slot = at;
	}
	next = json_string_value(json_object_get(doc, "next"));
	snprintf(cursor, 64, "%s", next ? next : "");
	json_decref(doc);
	return n;
}

/* Each row once, in pages of any size, also if the row that a page would begin with is gone. */
static void test_pages(void **state)
{
	char cursor[64] = "";
	struct reply r;
	long slot = -1;
	size_t n = 0;

	view_publish(api_fixture_many_backends(2500, 0));
	do
		n += page(*state, 333, cursor, &slot);
	while (*cursor);
	assert_int_equal(n, 2500);
	slot = -1;
	assert_int_equal(page(*state, 1000, cursor, &slot), 1000);
	view_publish(api_fixture_many_backends(2500, 1));
	assert_int_equal(page(*state, 1000, cursor, &slot), 1000);
	assert_int_equal(page(*state, 1000, cursor, &slot), 500);
	assert_string_equal(cursor, "");
	view_publish(api_fixture_many_backends(7, 0));
	slot = -1;
	assert_int_equal(page(*state, 7, cursor, &slot), 7);
	assert_string_equal(cursor, "");
	assert_int_equal(get(*state, "/v1/backends?limit=1001", &r), 400);
	reply_free(&r);
}

/* A whole list is never made: whoever names no limit gets a page, too. */
static void test_page_by_default(void **state)
{
	struct reply r;
	json_t *doc;

	view_publish(api_fixture_many_backends(2500, 0));
	assert_int_equal(get(*state, "/v1/backends", &r), 200);
	doc = json_loadb(r.body, r.len, 0, NULL);
	assert_int_equal(json_array_size(json_object_get(doc, "backends")), 1000);
	assert_string_equal(json_string_value(json_object_get(doc, "next")), "0.2000.0");
	json_decref(doc);
	reply_free(&r);
}

/* Asks for the whole configuration, and leaves all but the first line of the answer where it is. Returns its status. */
static int ask_and_stop(const char *socket_path, int *fd)
{
	static const char request[] = "GET /v1/config HTTP/1.1\r\nHost: x\r\n\r\n";
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	char line[16] = "";

	*fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	strcpy(un.sun_path, socket_path);
	assert_int_equal(connect(*fd, (struct sockaddr *)&un, sizeof(un)), 0);
	assert_int_equal(send(*fd, request, sizeof(request) - 1, MSG_NOSIGNAL), sizeof(request) - 1);
	assert_int_equal(recv(*fd, line, 12, MSG_WAITALL), 12);
	return atoi(line + 9);
}

/* Readers that do not read keep so much waiting and no more; when they are gone there is room again. */
static void test_slow_readers(void **state)
{
	struct api_fixture *f = *state, patient = *f;
	struct api_config config = {.socket_path = patient.socket_path, .http = "", .version = "2", .timeout_s = 30};
	unsigned n_sent = 0, n_refused = 0;
	const size_t len = 10 << 20;
	char err[256], *text = malloc(len + 1);
	struct reply r;
	int fds[12];

	view_publish(api_fixture_view(GATEWAY_READY));
	assert_non_null(text);
	memset(text, '#', len);
	text[len] = '\0';
	snprintf(patient.socket_path, sizeof(patient.socket_path), "%s/patient.sock", f->dir);
	config.notify_fd = f->notify_fd;
	patient.api = api_start(&config, &f->dp, err, sizeof(err));
	assert_non_null(patient.api);
	api_set_config_text(patient.api, text);
	free(text);
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		int status = ask_and_stop(patient.socket_path, &fds[i]);

		n_sent += status == 200;
		n_refused += status == 503;
	}
	assert_int_equal(n_sent, SENDING_BYTES / len);
	assert_int_equal(n_sent + n_refused, sizeof(fds) / sizeof(fds[0]));
	/* What is small has room always. */
	assert_int_equal(get(&patient, "/v1/ready", &r), 200);
	reply_free(&r);
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		close(fds[i]);
	for (unsigned tries = 0; get(&patient, "/v1/config", &r) != 200; tries++) {
		reply_free(&r);
		assert_true(tries < 500);
		poll(NULL, 0, 10);
	}
	assert_int_equal(r.len, len);
	reply_free(&r);
	api_stop(patient.api);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_pages, setup, api_fixture_teardown),
		cmocka_unit_test_setup_teardown(test_page_by_default, setup, api_fixture_teardown),
		cmocka_unit_test_setup_teardown(test_slow_readers, setup, api_fixture_teardown),
	};

	curl_global_init(CURL_GLOBAL_DEFAULT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
