/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What tests of decide's breakers share: decide's side over whole workers, backends that answer as a test says, and
 * clients that ask them.
 */
#pragma once

#include "talk.h"

#include "breakers.h"
#include "config.h"
#include "events.h"
#include "services.h"
#include "slots.h"
#include "streak.h"

#include <event2/event.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_SLOTS 16

struct breakers_fixture {
	struct event_base *base;
	struct names *names;
	struct services *services;
	struct config *config, *before;
	struct events *events;
	struct breakers *breakers;
	enum cure_mode mode;
	uint64_t events_seen;
	void (*decided)(void); /* called whenever decide has done what was due, before workers go on */
};

extern struct breakers_fixture f;
extern uint64_t begin_ns; /* what the clock shows when all begins; 0: one second */

extern uint32_t n_flows_each; /* that each family has room for; 0: 4096 */

extern const char *more_yaml; /* of the service */

/* What backends say, by number; index 0 is not used. */
enum says {
	ANSWERS,
	REFUSES,
	SILENT,
	RESETS, /* takes the connection, and resets it instead of a response */
	SLOW,   /* takes the connection and its data, and says no more */
	STALLS, /* takes the connection, and says no more */
};

extern enum says says[9];
extern bool asks_nothing; /* clients connect, and that is all */
extern unsigned at_once;  /* new clients at a time */

struct seen {
	unsigned probes, syns[9], rsts; /* rsts: to clients */
};

/* The service has the first `n` backends of either family, TCP port 8080, and opens after `consecutive`. */
void configure(unsigned n, unsigned consecutive);
void begin_all(unsigned workers, unsigned n, enum cure_mode mode);
void end_all(void);
/* Decide hears what workers noted, and does what is due; the workers obey. */
void decide(void);
void pass(uint64_t ms);
uint32_t slot_of_backend(bool v6, unsigned backend);
enum breaker_state state_of(bool v6, unsigned backend);
bool is_marked(bool v6, unsigned backend);
const char *id_of(bool v6, unsigned backend);
/* The next event of that cause; false: there is none. What is passed over is not read again. */
bool next_event_of(const char *cause, struct event_record *e);
/* Of the wall. */
bool next_event(struct event_record *e);
/* The next event there must be, and it is that one. */
void expect(const char *kind, const char *subject, const char *words);
void expect_nothing(void);
/* All that left, and what is said to it. */
struct seen talk_back(void);
/* `ms` with a new client each `every_ms`; 0: without. */
struct seen run(bool v6, unsigned *client, uint64_t ms, unsigned every_ms);
