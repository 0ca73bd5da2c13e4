/* SPDX-License-Identifier: BSD-3-Clause */
#include "check_http.h"
#include "clock.h"

#include <curl/curl.h>
#include <errno.h>
#include <event2/event.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define URL_LEN      (IPADDR_PORT_STRLEN + 256)
#define BUFFER_BYTES 4096
#define LATE_NS      250000000ull /* if the loop was later than this, what looks like silence may be its own */

struct place {
	CURL *easy;
	bool busy;
	struct slot_ref backend;
	uint64_t started_ns;
	uint32_t timeout_ms;
	size_t body_bytes;
};

struct check_http {
	struct event_base *base;
	check_http_done_fn *done;
	void *arg;
	CURLM *multi;
	struct event *timer;
	struct place places[CHECK_HTTP_MAX];
	unsigned n_busy;
};

/* --- what came of one --- */

/* Nothing came of it, or only half: a kernel that is silent says nothing of the application. */
static enum check_result judge_failure(const struct place *p, CURLcode code, char why[static CHECK_WHY_LEN])
{
	curl_off_t connected_us = 0;
	long os_error = 0;

	curl_easy_getinfo(p->easy, CURLINFO_CONNECT_TIME_T, &connected_us);
	curl_easy_getinfo(p->easy, CURLINFO_OS_ERRNO, &os_error);
	if (code == CURLE_OPERATION_TIMEDOUT) {
		snprintf(why, CHECK_WHY_LEN, "no %s within %u ms", connected_us ? "whole answer" : "connection",
			 p->timeout_ms);
		return connected_us ? CHECK_FAILED : CHECK_SILENT;
	}
	snprintf(why, CHECK_WHY_LEN, "%s",
		 code == CURLE_COULDNT_CONNECT && os_error ? strerror(os_error) : curl_easy_strerror(code));
	return code == CURLE_COULDNT_CONNECT && os_error != ECONNREFUSED ? CHECK_SILENT : CHECK_FAILED;
}

static enum check_result judge(const struct place *p, CURLcode code, char why[static CHECK_WHY_LEN])
{
	long status = 0;

	curl_easy_getinfo(p->easy, CURLINFO_RESPONSE_CODE, &status);
	why[0] = '\0';
	/* Of an answer that is too long only the rest is missing. */
	if (code != CURLE_OK && code != CURLE_WRITE_ERROR)
		return judge_failure(p, code, why);
	if (status < 500)
		return CHECK_PASSED;
	snprintf(why, CHECK_WHY_LEN, "%ld", status);
	return CHECK_FAILED;
}

static bool loop_was_late(const struct place *p)
{
	return clock_monotonic_ns() - p->started_ns > p->timeout_ms * 1000000ull + LATE_NS;
}

static void finish(struct check_http *h, struct place *p, CURLcode code)
{
	char why[CHECK_WHY_LEN];
	enum check_result result = judge(p, code, why);

	curl_multi_remove_handle(h->multi, p->easy);
	p->busy = false;
	h->n_busy--;
	if (code != CURLE_OPERATION_TIMEDOUT || !loop_was_late(p))
		h->done(h->arg, p->backend, result, why);
}

static void finish_all(struct check_http *h)
{
	CURLMsg *message;
	int left;

	while ((message = curl_multi_info_read(h->multi, &left))) {
		struct place *p = NULL;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&p);
		finish(h, p, message->data.result);
	}
}

/* --- libcurl on libevent --- */

static void on_socket_event(evutil_socket_t fd, short what, void *arg)
{
	struct check_http *h = arg;
	int running, action = (what & EV_READ ? CURL_CSELECT_IN : 0) | (what & EV_WRITE ? CURL_CSELECT_OUT : 0);

	curl_multi_socket_action(h->multi, fd, action, &running);
	finish_all(h);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct check_http *h = arg;
	int running;

	curl_multi_socket_action(h->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	finish_all(h);
}

static int set_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket)
{
	struct check_http *h = arg;
	struct event *event = socket;
	short wanted = EV_PERSIST | (what & CURL_POLL_IN ? EV_READ : 0) | (what & CURL_POLL_OUT ? EV_WRITE : 0);

	if (event)
		event_free(event);
	event = what == CURL_POLL_REMOVE ? NULL : event_new(h->base, fd, wanted, on_socket_event, h);
	curl_multi_assign(h->multi, fd, event);
	if (event)
		event_add(event, NULL);
	return 0;
}

static int set_timer(CURLM *multi, long timeout_ms, void *arg)
{
	struct check_http *h = arg;
	struct timeval tv = {.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};

	if (timeout_ms < 0)
		event_del(h->timer);
	else
		event_add(h->timer, &tv);
	return 0;
}

/* --- life --- */

struct check_http *check_http_create(struct event_base *base, check_http_done_fn *done, void *arg)
{
	struct check_http *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->base = base;
	h->done = done;
	h->arg = arg;
	h->multi = curl_multi_init();
	h->timer = evtimer_new(base, on_timer, h);
	if (!h->multi || !h->timer) {
		check_http_destroy(h);
		errno = ENOMEM;
		return NULL;
	}
	curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, set_socket);
	curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
	curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
	curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, 0L);
	return h;
}

void check_http_destroy(struct check_http *h)
{
	if (!h)
		return;
	for (unsigned i = 0; i < CHECK_HTTP_MAX; i++) {
		if (h->places[i].busy)
			curl_multi_remove_handle(h->multi, h->places[i].easy);
		curl_easy_cleanup(h->places[i].easy);
	}
	curl_multi_cleanup(h->multi);
	if (h->timer)
		event_free(h->timer);
	free(h);
}

/* --- one check --- */

static size_t swallow(char *data, size_t size, size_t n, void *arg)
{
	struct place *p = arg;

	p->body_bytes += size * n;
	return p->body_bytes > CHECK_HTTP_BODY_MAX ? 0 : size * n;
}

/* To that address alone, whatever the environment or the answer says, on a connection of its own. */
static bool set_options(struct place *p, const char *url)
{
	CURL *easy = p->easy;

	curl_easy_reset(easy);
	return !curl_easy_setopt(easy, CURLOPT_URL, url) && !curl_easy_setopt(easy, CURLOPT_PRIVATE, p) &&
	       !curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http") && !curl_easy_setopt(easy, CURLOPT_PROXY, "") &&
	       !curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L) &&
	       !curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L) &&
	       !curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)p->timeout_ms) &&
	       !curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) &&
	       !curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)BUFFER_BYTES) &&
	       !curl_easy_setopt(easy, CURLOPT_USERAGENT, "spillway-check") &&
	       !curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, swallow) && !curl_easy_setopt(easy, CURLOPT_WRITEDATA, p);
}

static struct place *free_place(struct check_http *h)
{
	for (unsigned i = 0; i < CHECK_HTTP_MAX; i++)
		if (!h->places[i].busy)
			return &h->places[i];
	return NULL;
}

int check_http_start(struct check_http *h, const struct check_http_order *order)
{
	struct place *p = free_place(h);
	char at[IPADDR_PORT_STRLEN], url[URL_LEN];

	if (!p)
		return -EBUSY;
	if (!p->easy)
		p->easy = curl_easy_init();
	p->backend = order->backend;
	p->timeout_ms = order->timeout_ms;
	p->started_ns = clock_monotonic_ns();
	p->body_bytes = 0;
	snprintf(url, sizeof(url), "http://%s%s", ipaddr_port_format(&order->addr, order->port_be, at), order->path);
	if (!p->easy || !set_options(p, url) || curl_multi_add_handle(h->multi, p->easy) != CURLM_OK)
		return -ENOMEM;
	p->busy = true;
	h->n_busy++;
	return 0;
}

unsigned check_http_under_way(const struct check_http *h)
{
	return h->n_busy;
}
