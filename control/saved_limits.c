/* SPDX-License-Identifier: BSD-3-Clause */
#include "saved_limits.h"
#include "events.h"
#include "limiters.h"
#include "saved_file.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT         "spillway-limits"
#define VERSION        1
#define MSEC           1000000ULL
#define WRITE_EVERY_NS 5000000000ULL
#define REFRESH_NS     60000000000ULL
#define BASE_MAX_US    60000000 /* nobody waits for longer */
#define RATE_MAX       10000000 /* answers a second: more than any backend has */

struct saved_limits {
	struct events *events;
	struct saved_file file;
	uint64_t written_ns;    /* the last try; 0: none */
	size_t n_written;       /* backends that the file has */
	bool failing, too_many; /* said already */
};

struct saved_limits *saved_limits_create(const char *dir, struct events *events)
{
	struct saved_limits *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->events = events;
	saved_file_init(&s->file, dir, "limits.json", FORMAT, VERSION);
	return s;
}

void saved_limits_destroy(struct saved_limits *s)
{
	free(s);
}

/* --- loading --- */

static bool read_known(const json_t *object, uint64_t rate_age_ns, uint64_t now_ms, struct limiter_known *out)
{
	const char *address = json_string_value(json_object_get(object, "address"));
	uint64_t port, base_us, seen_ms, rate;

	*out = (struct limiter_known){.who.proto = IPPROTO_TCP, .from = LIMITER_BASE_RESTART};
	if (!address || ipaddr_parse(address, &out->who.addr) || !saved_read_number(object, "port", &port) || !port ||
	    port > UINT16_MAX || !saved_read_number(object, "base_us", &base_us) || !base_us || base_us > BASE_MAX_US ||
	    !saved_read_number(object, "seen_ms", &seen_ms) || !saved_read_number(object, "rate", &rate) ||
	    rate > RATE_MAX)
		return false;
	out->who.port_be = htons(port);
	out->past = (struct limiter_past){
		.base_ns = base_us * 1000,
		.base_age_ns = saved_age_ns(seen_ms, now_ms),
		.rate = rate,
		.rate_age_ns = rate_age_ns,
	};
	return true;
}

/* All of it, or nothing. */
static bool is_right(const json_t *doc, uint64_t now_ms, char *why, size_t size)
{
	const json_t *list = json_object_get(doc, "backends"), *item;
	struct limiter_known known;
	uint64_t written_ms;
	size_t i;

	if (!saved_read_number(doc, "written_ms", &written_ms) || json_array_size(list) > LIMITER_MEMORY_MAX) {
		snprintf(why, size, "damaged: no written_ms, or more than %d backends", LIMITER_MEMORY_MAX);
		return false;
	}
	json_array_foreach(list, i, item)
	{
		if (!read_known(item, 0, now_ms, &known)) {
			snprintf(why, size, "damaged: backend %zu of the list", i);
			return false;
		}
	}
	return true;
}

static unsigned remember_all(const json_t *doc, uint64_t now_ms, struct limiters *limiters, uint64_t now_ns)
{
	const json_t *item;
	uint64_t written_ms;
	unsigned n = 0;
	size_t i;

	saved_read_number(doc, "written_ms", &written_ms);
	json_array_foreach(json_object_get(doc, "backends"), i, item)
	{
		struct limiter_known known;

		if (read_known(item, saved_age_ns(written_ms, now_ms), now_ms, &known))
			n += limiters_remember(limiters, &known, now_ns);
	}
	return n;
}

unsigned saved_limits_load(struct saved_limits *s, struct limiters *limiters, uint64_t now_ns)
{
	uint64_t now_ms = saved_wall_ms();
	char why[256];
	json_t *doc = saved_file_read(&s->file, "backends", why, sizeof(why));
	unsigned n = 0;

	if (doc && is_right(doc, now_ms, why, sizeof(why)))
		n = remember_all(doc, now_ms, limiters, now_ns);
	if (why[0])
		events_add(s->events, EVENT_WARNING, "saved_limits_refused", "storm", s->file.path,
			   "%s; the gateway starts without knowing what is usual of its backends", why);
	json_decref(doc);
	return n;
}

/* --- writing --- */

struct listing {
	json_t *list;
	uint64_t now_ms;
	bool too_many;
};

static uint64_t clamp(uint64_t n, uint64_t min, uint64_t max)
{
	return n < min ? min : n > max ? max : n;
}

static void add_known(void *arg, const struct limiter_known *known)
{
	struct listing *l = arg;
	uint64_t age_ms = known->past.base_age_ns / MSEC, base_us = clamp(known->past.base_ns / 1000, 1, BASE_MAX_US);
	uint64_t rate = known->past.rate_age_ns < LIMITER_RATE_WORTH_NS ? clamp(known->past.rate, 0, RATE_MAX) : 0;
	char text[IPADDR_STRLEN];

	if (json_array_size(l->list) == LIMITER_MEMORY_MAX) {
		l->too_many = true;
		return;
	}
	json_array_append_new(l->list,
			      json_pack("{s:s,s:i,s:I,s:I,s:I}", "address", ipaddr_format(&known->who.addr, text),
					"port", ntohs(known->who.port_be), "base_us", (json_int_t)base_us, "seen_ms",
					(json_int_t)(age_ms < l->now_ms ? l->now_ms - age_ms : 0), "rate",
					(json_int_t)rate));
}

static void say_written(struct saved_limits *s, int err, bool too_many)
{
	if (err && !s->failing)
		events_add(s->events, EVENT_WARNING, "limits_not_saved", "storm", s->file.path,
			   "%s; a restart in a storm would have to learn first what is usual", strerror(-err));
	if (too_many && !s->too_many)
		events_add(s->events, EVENT_WARNING, "limits_not_saved", "storm", s->file.path,
			   "more than %d backends: the rest is not in it", LIMITER_MEMORY_MAX);
	s->failing = err != 0;
	s->too_many = too_many;
}

void saved_limits_write(struct saved_limits *s, struct limiters *limiters, uint64_t now_ns)
{
	struct listing l = {.list = json_array(), .now_ms = saved_wall_ms()};
	json_t *doc;

	limiters_known(limiters, now_ns, add_known, &l);
	s->n_written = json_array_size(l.list);
	doc = json_pack("{s:I,s:o}", "written_ms", (json_int_t)l.now_ms, "backends", l.list);
	say_written(s, doc ? saved_file_write(&s->file, doc) : -ENOMEM, l.too_many);
	json_decref(doc);
	limiters_saved(limiters, now_ns);
}

void saved_limits_tick(struct saved_limits *s, struct limiters *limiters, uint64_t now_ns)
{
	uint64_t since_ns = now_ns - s->written_ns;
	bool changed = since_ns >= WRITE_EVERY_NS && limiters_unsaved(limiters, now_ns);

	if (!changed && (since_ns < REFRESH_NS || !s->n_written))
		return;
	s->written_ns = now_ns;
	saved_limits_write(s, limiters, now_ns);
}
