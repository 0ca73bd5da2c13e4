/* SPDX-License-Identifier: BSD-3-Clause */
#include "api_assert.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

json_t *get_json(struct api_fixture *f, const char *path, long status)
{
	struct reply r;
	json_t *doc;

	assert_int_equal(api_fixture_request(f, false, "GET", path, NULL, NULL, &r), 0);
	if (r.status != status)
		print_error("%s: %s\n", path, r.body);
	assert_int_equal(r.status, status);
	assert_string_equal(r.type, "application/json");
	doc = json_loads(r.body, 0, NULL);
	assert_non_null(doc);
	reply_free(&r);
	return doc;
}

void assert_error(struct api_fixture *f, bool tcp, const char *method, const char *path, const char *host, long status,
		  const char *says)
{
	struct reply r;
	json_t *doc;

	assert_int_equal(api_fixture_request(f, tcp, method, path, host, NULL, &r), 0);
	assert_int_equal(r.status, status);
	doc = json_loads(r.body, 0, NULL);
	if (!strstr(json_string_value(json_object_get(doc, "error")), says))
		fail_msg("%s %s: '%s' does not say '%s'", method, path, r.body, says);
	json_decref(doc);
	reply_free(&r);
}

json_int_t get_int(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	if (!json_is_integer(value))
		fail_msg("'%s' is no integer", key);
	return json_integer_value(value);
}

const char *get_text(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	if (!text)
		fail_msg("'%s' is no text", key);
	return text;
}

/* Not time(): that may be a tick behind, which is the second before. */
double seconds_ago(const json_t *object, const char *key)
{
	struct timespec now;

	assert_true(json_is_number(json_object_get(object, key)));
	clock_gettime(CLOCK_REALTIME, &now);
	return (double)now.tv_sec + now.tv_nsec / 1e9 - json_number_value(json_object_get(object, key));
}

void assert_null_value(const json_t *object, const char *key)
{
	if (!json_is_null(json_object_get(object, key)))
		fail_msg("'%s' is not null", key);
}

const json_t *find_row(const json_t *rows, const char *key, const char *text)
{
	json_t *row;
	size_t i;

	json_array_foreach(rows, i, row)
	{
		if (strcmp(json_string_value(json_object_get(row, key)), text) == 0)
			return row;
	}
	fail_msg("no row with '%s' of '%s'", text, key);
	return NULL;
}

bool has_text(const json_t *list, const char *text)
{
	json_t *value;
	size_t i;

	json_array_foreach(list, i, value)
	{
		if (strcmp(json_string_value(value), text) == 0)
			return true;
	}
	return false;
}

int raw_connect(struct api_fixture *f, bool tcp)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(api_http_port(f->api))};
	int fd = socket(tcp ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int err;

	strcpy(un.sun_path, f->socket_path);
	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	err = tcp ? connect(fd, (struct sockaddr *)&in, sizeof(in)) : connect(fd, (struct sockaddr *)&un, sizeof(un));
	assert_int_equal(err, 0);
	return fd;
}

/* Reads until the other side closes; fails if that takes longer than the API's timeouts allow. */
size_t read_to_end(int fd, char *out, size_t size)
{
	struct pollfd p = {fd, POLLIN, 0};
	size_t len = 0;

	for (;;) {
		ssize_t n;

		assert_int_equal(poll(&p, 1, 8000), 1);
		n = read(fd, out + len, size - 1 - len);
		if (n <= 0)
			break;
		len += (size_t)n;
		assert_true(len < size - 1);
	}
	out[len] = '\0';
	close(fd);
	return len;
}

void send_text(int fd, const char *text, size_t len)
{
	/* The other side may have closed already: that is for read_to_end() to judge. */
	while (len > 0) {
		ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

		if (n <= 0)
			return;
		text += n;
		len -= (size_t)n;
	}
}
