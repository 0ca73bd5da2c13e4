/* SPDX-License-Identifier: BSD-3-Clause */
#include "ctl.h"

#include <curl/curl.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Longer than the gateway waits for anything, so that its own answer comes first. */
#define REQUEST_TIMEOUT_S 15l
#define ANSWER_BYTES_MAX  (64u << 20)

struct body {
	char *text; /* NUL-terminated */
	size_t len;
};

static size_t take_body(char *data, size_t size, size_t n, void *arg)
{
	struct body *body = arg;
	char *text;

	if (body->len + n > ANSWER_BYTES_MAX)
		return 0;
	text = realloc(body->text, body->len + n + 1);
	if (!text)
		return 0;
	memcpy(text + body->len, data, n);
	body->text = text;
	body->len += n;
	text[body->len] = '\0';
	return n;
}

static const char *mending(CURLcode code, long os_error)
{
	if (code == CURLE_OPERATION_TIMEDOUT)
		return "it took the connection and does not answer: look at its log";
	switch (os_error) {
	case EACCES:
		return "not allowed: use sudo, or join the group of the socket";
	case ECONNREFUSED:
		return "nobody listens on that socket: the gateway was killed; start it again";
	case ENOENT:
		return "there is no such socket: start the gateway, or name its socket with --socket PATH";
	default:
		return curl_easy_strerror(code);
	}
}

static CURLcode perform(CURL *curl, const struct ctl *ctl, const char *method, const char *path)
{
	char url[2048];

	if ((size_t)snprintf(url, sizeof(url), "http://localhost%s", path) >= sizeof(url))
		return CURLE_URL_MALFORMAT;
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, ctl->socket_path);
	curl_easy_setopt(curl, CURLOPT_PROXY, "");
	if (strcmp(method, "POST") == 0)
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, "");
	return curl_easy_perform(curl);
}

static enum ctl_exit judge(const struct ctl *ctl, long status, const struct body *body, json_t **doc)
{
	const char *error;
	json_t *problem;
	size_t i;

	if (ctl->json && body->text)
		printf("%s\n", body->text);
	*doc = body->text ? json_loadb(body->text, body->len, 0, NULL) : NULL;
	if (status == 200 && *doc)
		return EXIT_OK;
	error = json_string_value(json_object_get(*doc, "error"));
	fprintf(stderr, "spillwayctl: refused by the gateway: %s (HTTP %ld)\n", error ? error : "no reason given",
		status);
	json_array_foreach(json_object_get(*doc, "problems"), i, problem)
		fprintf(stderr, "%s\n", json_string_value(problem));
	json_decref(*doc);
	*doc = NULL;
	return EXIT_REFUSED;
}

enum ctl_exit client_request(const struct ctl *ctl, const char *method, const char *path, json_t **doc)
{
	CURL *curl = curl_easy_init();
	struct body body = {0};
	enum ctl_exit result;
	long status = 0, os_error = 0;
	CURLcode code = CURLE_OUT_OF_MEMORY;

	*doc = NULL;
	if (curl) {
		curl_easy_setopt(curl, CURLOPT_TIMEOUT, REQUEST_TIMEOUT_S);
		curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_body);
		curl_easy_setopt(curl, CURLOPT_WRITEDATA, &body);
		code = perform(curl, ctl, method, path);
	}
	if (code == CURLE_OK) {
		curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
		result = judge(ctl, status, &body, doc);
	} else {
		if (curl)
			curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &os_error);
		fprintf(stderr, "spillwayctl: no answer from the gateway at %s: %s\n", ctl->socket_path,
			mending(code, os_error));
		result = EXIT_UNREACHABLE;
	}
	free(body.text);
	curl_easy_cleanup(curl);
	return result;
}

/* --- streams --- */

struct stream {
	CURL *curl;
	client_line_fn *line;
	void *arg;
	struct body body; /* of an answer that is no stream, or the begin of a line */
	bool stopped;
};

/* Tells whole lines, and keeps the rest for the next piece. */
static size_t take_lines(char *data, size_t size, size_t n, void *arg)
{
	struct stream *s = arg;
	char *begin, *end;
	long status = 0;

	if (take_body(data, size, n, &s->body) != n)
		return 0;
	curl_easy_getinfo(s->curl, CURLINFO_RESPONSE_CODE, &status);
	if (status != 200)
		return n;
	for (begin = s->body.text; (end = strchr(begin, '\n')) && !s->stopped; begin = end + 1) {
		*end = '\0';
		s->stopped = *begin && !s->line(s->arg, begin);
	}
	s->body.len = strlen(begin);
	memmove(s->body.text, begin, s->body.len + 1);
	return s->stopped ? 0 : n;
}

static enum ctl_exit end_stream(const struct ctl *ctl, struct stream *s, CURLcode code)
{
	long status = 0, os_error = 0;
	enum ctl_exit result;
	json_t *doc = NULL;

	curl_easy_getinfo(s->curl, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(s->curl, CURLINFO_OS_ERRNO, &os_error);
	if (s->stopped || (code == CURLE_OK && status == 200))
		return EXIT_OK;
	if (code == CURLE_OK) {
		result = judge(ctl, status, &s->body, &doc);
		json_decref(doc);
		return result;
	}
	fprintf(stderr, "spillwayctl: the stream from the gateway at %s broke: %s\n", ctl->socket_path,
		mending(code, os_error));
	return EXIT_UNREACHABLE;
}

enum ctl_exit client_stream(const struct ctl *ctl, const char *path, client_line_fn *line, void *arg)
{
	struct stream s = {.curl = curl_easy_init(), .line = line, .arg = arg};
	enum ctl_exit result;
	CURLcode code;

	if (!s.curl)
		return EXIT_UNREACHABLE;
	curl_easy_setopt(s.curl, CURLOPT_WRITEFUNCTION, take_lines);
	curl_easy_setopt(s.curl, CURLOPT_WRITEDATA, &s);
	curl_easy_setopt(s.curl, CURLOPT_TIMEOUT, 0l);
	code = perform(s.curl, ctl, "GET", path);
	result = end_stream(ctl, &s, code);
	free(s.body.text);
	curl_easy_cleanup(s.curl);
	return result;
}

char *client_escape(const char *text)
{
	char *escaped = curl_easy_escape(NULL, text, 0);
	char *copy = escaped ? strdup(escaped) : NULL;

	curl_free(escaped);
	return copy;
}
