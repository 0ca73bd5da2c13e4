/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The real API on a socket in a directory of its own and on a loopback port, over a dataplane of fixed numbers: this
 * file's .c is the whole of observe.h, and of outcome.h's readers. A thread stands for decide.
 */
#pragma once

#include "api.h"
#include "observe.h"
#include "view.h"

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>

#define FAKE_WORKERS    2
#define FAKE_FLOWS_W0   70 /* more than two batches, and no multiple of one */
#define FAKE_FLOWS_W1   5
#define FAKE_PATHS      3
#define FAKE_PROBLEMS   100 /* of a refused reload: more than any fixed buffer would hold */

/*
 * The outcomes: FAKE_VICTIM was refused 3 times by service 1 (no backend), connected 2 times to service 0 (worker 0)
 * and once more (worker 1, the latest), which also knows of an attempt that backend 1 did not answer, and of places
 * that were taken. 198.18.5.N, N < FAKE_CLIENTS, connected N times. Within two minutes 7 of FAKE_VICTIM's network and 7
 * of an IPv6 one were refused by service 1, and 4 of nobody knows which. One flow uses FAKE_LIVE_PORT of 198.18.101.10,
 * one of FAKE_VICTIM's that ended used FAKE_ENDED_PORT.
 */
#define FAKE_VICTIM     "198.18.2.7"
#define FAKE_CLIENTS    20
#define FAKE_LIVE_PORT  34567
#define FAKE_ENDED_PORT 34568

struct dataplane {
	unsigned n_workers;
	struct ledger ledgers[FAKE_WORKERS];
	unsigned n_flows[FAKE_WORKERS];
	_Atomic int mute_worker; /* does not answer queries; -1: none */
};

enum decide_mode {
	DECIDE_ANSWER, /* 200, with the uid and the query */
	DECIDE_REFUSE, /* 422, with FAKE_PROBLEMS problems */
	DECIDE_DEAF,   /* never takes */
	DECIDE_SLOW,   /* takes, and answers when the waiter is long gone: at the next change of mode */
};

struct api_fixture {
	struct dataplane dp;
	struct api *api;
	struct events *events;
	struct owners *owners;
	char dir[64], socket_path[96];
	const char *accept; /* header of requests; NULL: libcurl's */
	int notify_fd, wake_fd;
	pthread_t decide;
	_Atomic int mode;
	_Atomic bool stop;
	_Atomic unsigned taken;
};

/* 0 or -1; what was made is removed by api_fixture_stop() also after a failure. */
int api_fixture_start(struct api_fixture *f);
void api_fixture_stop(struct api_fixture *f);
/* Of a test of its own: *state is a fixture that shows a gateway that is ready. */
int api_fixture_setup(void **state);
int api_fixture_teardown(void **state);
#define API_TEST(name) cmocka_unit_test_setup_teardown(name, api_fixture_setup, api_fixture_teardown)
void api_fixture_mode(struct api_fixture *f, enum decide_mode mode);

/* Two services, three backends (one pinned), two names. The caller's until view_publish(). */
struct view *api_fixture_view(enum gateway_state state);
/* The same with that many backends, in every other slot from `first_slot` on. */
struct view *api_fixture_many_backends(size_t n, uint32_t first_slot);

struct reply {
	long status;
	char *body;
	size_t len;
	char type[128], allow[64];
};

/* One request by libcurl. `host`: instead of the right one, or NULL. `body`: or NULL. Returns 0, or a CURLcode. */
int api_fixture_request(struct api_fixture *f, bool tcp, const char *method, const char *path, const char *host,
			const char *body, struct reply *out);
void reply_free(struct reply *r);
