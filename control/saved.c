/* SPDX-License-Identifier: BSD-3-Clause */
#include "saved.h"
#include "events.h"
#include "nameset.h"
#include "saved_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT         "spillway-state"
#define VERSION        1
#define SEC            1000000000ULL
#define MSEC           1000000ULL
#define WRITE_EVERY_NS SEC
#define REFRESH_MAX_NS (60 * SEC)
#define STALE_SHARE    10         /* the times of answers may be off by so much of `stale` */
#define ADDRESSES_MAX  (1u << 18) /* in all: as many as there can be backends */

struct saved {
	struct events *events;
	struct saved_file file;
	uint64_t refresh_ns;
	uint64_t written_ns;    /* the last try */
	uint64_t n_changes;     /* that the file has */
	bool failing, too_many; /* said already */
};

static uint64_t clamp_ns(uint64_t v, uint64_t min, uint64_t max)
{
	return v < min ? min : v > max ? max : v;
}

struct saved *saved_create(const char *dir, uint64_t stale_ns, struct events *events)
{
	struct saved *saved = calloc(1, sizeof(*saved));

	if (!saved)
		return NULL;
	saved->events = events;
	saved_file_init(&saved->file, dir, "names.json", FORMAT, VERSION);
	saved->refresh_ns = clamp_ns(stale_ns / STALE_SHARE, WRITE_EVERY_NS, REFRESH_MAX_NS);
	return saved;
}

void saved_destroy(struct saved *saved)
{
	free(saved);
}

/* --- loading --- */

struct saved_name {
	const char *name;
	uint8_t family;
	uint64_t ttl_ns, age_ns;
	struct ipaddr addresses[NAMESET_MAX_ADDRESSES];
	size_t n;
};

static bool read_addresses(const json_t *list, struct saved_name *out)
{
	const json_t *item;
	size_t i;

	if (!json_is_array(list) || json_array_size(list) == 0 || json_array_size(list) > NAMESET_MAX_ADDRESSES)
		return false;
	json_array_foreach(list, i, item)
	{
		if (!json_is_string(item) || ipaddr_parse(json_string_value(item), &out->addresses[i]) ||
		    ipaddr_is_v4(&out->addresses[i]) != (out->family == 4))
			return false;
	}
	out->n = json_array_size(list);
	return true;
}

static bool read_name(const json_t *object, uint64_t now_ms, struct saved_name *out)
{
	json_int_t family = json_integer_value(json_object_get(object, "family"));
	uint64_t ttl_ms, answered_ms;

	out->name = json_string_value(json_object_get(object, "name"));
	if (!out->name || (family != 4 && family != 6) || !saved_read_number(object, "ttl_ms", &ttl_ms) ||
	    !saved_read_number(object, "answered_ms", &answered_ms))
		return false;
	out->family = family;
	out->ttl_ns = ttl_ms < UINT64_MAX / MSEC ? ttl_ms * MSEC : UINT64_MAX;
	out->age_ns = saved_age_ns(answered_ms, now_ms);
	return read_addresses(json_object_get(object, "addresses"), out);
}

static bool all_right(const json_t *list, uint64_t now_ms, struct saved_name *scratch, char *why, size_t size)
{
	const json_t *item;
	size_t i;

	json_array_foreach(list, i, item)
	{
		if (!read_name(item, now_ms, scratch)) {
			snprintf(why, size, "damaged: name %zu of the list", i);
			return false;
		}
	}
	return true;
}

static unsigned restore_all(const json_t *list, uint64_t now_ms, struct saved_name *scratch, struct names *names)
{
	unsigned n = 0;
	const json_t *item;
	size_t i;

	json_array_foreach(list, i, item)
	{
		if (read_name(item, now_ms, scratch))
			n += names_restore(names, scratch->name, scratch->family, scratch->addresses, scratch->n,
					   scratch->ttl_ns, scratch->age_ns) == 0;
	}
	return n;
}

unsigned saved_load(struct saved *saved, struct names *names)
{
	struct saved_name *scratch = malloc(sizeof(*scratch));
	uint64_t now_ms = saved_wall_ms();
	char why[256] = "out of memory";
	json_t *doc = scratch ? saved_file_read(&saved->file, "names", why, sizeof(why)) : NULL;
	const json_t *list = json_object_get(doc, "names");
	unsigned n = 0;

	if (list && all_right(list, now_ms, scratch, why, sizeof(why)))
		n = restore_all(list, now_ms, scratch, names);
	if (why[0])
		events_add(saved->events, EVENT_WARNING, "saved_sets_refused", "names", saved->file.path,
			   "%s; the gateway starts without what it knew of names", why);
	json_decref(doc);
	free(scratch);
	return n;
}

/* --- writing --- */

struct listing {
	json_t *list;
	uint64_t now_ms;
	size_t n_addresses;
	bool too_many;
};

static json_t *address_list(const struct name_view *view)
{
	json_t *list = json_array();

	for (size_t i = 0; list && i < view->n_addresses; i++) {
		char text[IPADDR_STRLEN];

		json_array_append_new(list, json_string(ipaddr_format(&view->addresses[i].addr, text)));
	}
	return list;
}

static void add_name(void *arg, const struct name_view *view)
{
	struct listing *l = arg;
	uint64_t age_ms = view->age_ns / MSEC;

	if (!view->n_addresses)
		return;
	if (l->n_addresses + view->n_addresses > ADDRESSES_MAX) {
		l->too_many = true;
		return;
	}
	l->n_addresses += view->n_addresses;
	json_array_append_new(l->list,
			      json_pack("{s:s,s:i,s:o,s:I,s:I}", "name", view->name, "family", view->family,
					"addresses", address_list(view), "ttl_ms", (json_int_t)(view->ttl_ns / MSEC),
					"answered_ms", (json_int_t)(age_ms < l->now_ms ? l->now_ms - age_ms : 0)));
}

static void say_written(struct saved *saved, int err, bool too_many)
{
	if (err && !saved->failing)
		events_add(saved->events, EVENT_WARNING, "sets_not_saved", "names", saved->file.path,
			   "%s; a restart while DNS is down would find nothing, or what is there now", strerror(-err));
	if (too_many && !saved->too_many)
		events_add(saved->events, EVENT_WARNING, "sets_not_saved", "names", saved->file.path,
			   "more than %u addresses: the rest is not in it", ADDRESSES_MAX);
	saved->failing = err != 0;
	saved->too_many = too_many;
}

void saved_write(struct saved *saved, struct names *names)
{
	struct listing l = {.list = json_array(), .now_ms = saved_wall_ms()};
	json_t *doc;

	names_foreach(names, add_name, &l);
	doc = json_pack("{s:o}", "names", l.list);
	say_written(saved, doc ? saved_file_write(&saved->file, doc) : -ENOMEM, l.too_many);
	json_decref(doc);
}

void saved_tick(struct saved *saved, struct names *names, uint64_t n_changes, uint64_t now_ns)
{
	uint64_t since_ns = now_ns - saved->written_ns;

	if (since_ns < (n_changes != saved->n_changes ? WRITE_EVERY_NS : saved->refresh_ns))
		return;
	saved->n_changes = n_changes;
	saved->written_ns = now_ns;
	saved_write(saved, names);
}
