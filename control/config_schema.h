/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside the configuration: what one schema table says of each key, and how its files work on it. A key is read by
 * config_value.c, a tree by config_decode.c, contradictions between keys are found by config_check.c, and all three
 * speak through the reader of config_yaml.c. Nothing outside config*.c includes this.
 */
#pragma once

#include "config.h"

#include <yaml.h>

enum config_type {
	TYPE_MAP,
	TYPE_LIST,
	/* Numbers, stored in a field of 1 to 8 bytes. */
	TYPE_NUMBER,
	TYPE_DURATION, /* ns */
	TYPE_RATE,     /* per second */
	TYPE_SHARE,    /* parts per million */
	TYPE_SIZE,     /* bytes */
	TYPE_PORT,     /* network byte order */
	/* Words. */
	TYPE_ENUM,
	TYPE_SWITCH,
	/* Texts, stored in a field of their own kind. */
	TYPE_ADDRESS,  /* struct ipaddr */
	TYPE_LISTEN,   /* struct config_listen */
	TYPE_ENDPOINT, /* char[]: address:port */
	TYPE_NAME,     /* char[] */
	TYPE_DEVICE,   /* char[] */
	TYPE_HOSTNAME, /* char[256] */
	TYPE_PATH,     /* char[] */
	TYPE_PORTS,    /* struct port_range */
	CONFIG_TYPES,
};

enum {
	KEY_REQUIRED = 1 << 0,
	KEY_ONE_OF = 1 << 1,      /* exactly one of the keys so marked stands in each map */
	KEY_NO_EFFECT = 1 << 2,   /* read and checked, but nothing acts on it yet */
	KEY_UNSUPPORTED = 1 << 3, /* known to the design, refused for now */
	KEY_FIXED = 1 << 4,       /* cannot change while the gateway runs: config_same_gateway() */
	KEY_LOOPBACK = 1 << 5,    /* TYPE_ENDPOINT: of this host only */
};

struct config_map;
struct config_list;

struct config_key {
	const char *name;
	enum config_type type;
	unsigned flags;
	size_t offset, size;        /* of the field, in the structure that the enclosing map fills */
	size_t position;            /* offset in it of `unsigned line, column`; 0: it keeps no position */
	uint64_t min, max;          /* numbers */
	const char *zero_word;      /* what stands for 0 or for an empty text: "off", "auto", "all" */
	uint16_t default_port;      /* TYPE_ENDPOINT: 0 if the port must be written */
	const char *const *choices; /* TYPE_ENUM: by value, NULL at the end */
	const char *fallback;       /* the default, as the file would say it */
	const char *derived;        /* in words, if the default depends on other things */
	/* For the example: "wan|lan" gives one value to each item of the list that the map is in; empty: left out. */
	const char *example;
	const char *help;
	const struct config_map *map;
	const struct config_list *list;
};

struct config_map {
	const struct config_key *keys;
	size_t n_keys;
};

struct config_list {
	struct config_key item;
	size_t count_offset, count_size;
	size_t min_items, max_items;
	bool dynamic;      /* the field is a pointer to an array of its own, else the array itself */
	unsigned examples; /* items in the example */
};

extern const struct config_map config_root;

/* How many items of `list` the structure at `base` has, and where its first is. */
size_t config_list_count(const struct config_list *list, const void *base);
const char *config_list_items(const struct config_key *key, const void *base);

/* --- config_value.c: one scalar --- */

#define CONFIG_TEXT_MAX 320

/*
 * Reads `text` into `field`. Returns 0, -EINVAL or -ERANGE; then `*hint` may be set to a static sentence, and the field
 * is untouched.
 */
int config_value_parse(const struct config_key *key, const char *text, void *field, const char **hint);
/* The text that parses to the same value. */
void config_value_format(const struct config_key *key, const void *field, char out[static CONFIG_TEXT_MAX]);
/* "a duration such as 30s, 2h4m or 900ms, from 1s to 24h, or off" */
void config_value_describe(const struct config_key *key, char out[static CONFIG_TEXT_MAX]);
/* "duration from 1s to 24h, or off" */
void config_value_brief(const struct config_key *key, char out[static CONFIG_TEXT_MAX]);

/* --- config_yaml.c: text to nodes, nodes to positions, and the messages --- */

struct config_reader {
	const char *file; /* its name in messages */
	yaml_document_t doc;
	bool loaded;
	config_message_fn *message;
	void *arg;
	unsigned n_errors, n_warnings; /* counted apart: a flood of warnings must not hide an error */
};

/* Reads the text as one YAML document within our bounds. Returns 0 or -errno; what is wrong was said. */
int config_reader_load(struct config_reader *r, const char *text, size_t len);
/* Says how many messages were left out, and frees the document. */
void config_reader_fini(struct config_reader *r);

/* At a position of the file that the caller knows. */
__attribute__((format(printf, 4, 5))) void config_error_at(struct config_reader *r, yaml_mark_t mark, const char *path,
							   const char *format, ...);
__attribute__((format(printf, 4, 5))) void config_warning_at(struct config_reader *r, yaml_mark_t mark,
							     const char *path, const char *format, ...);
/* Where the value of `path` ("services[3].listen[0]") or else the nearest map or list around it stands. */
yaml_mark_t config_locate(struct config_reader *r, const char *path);

/* A copy fit for a message: printable, and not longer than a line can take. */
#define CONFIG_QUOTE_MAX 72
const char *config_quote(const yaml_node_t *scalar, char out[static CONFIG_QUOTE_MAX]);

/* --- config_decode.c --- */

/* Fills in the defaults of all keys of `map` and of the maps in it, not of the lists. */
void config_defaults(const struct config_map *map, void *base);
/* Reads the document into `config`; each error is said. */
void config_decode(struct config_reader *r, struct config *config);

/* --- config_check.c --- */

/* Values that follow from others: kinds of ports and backends, defaults that the machine decides. */
void config_derive(struct config *config);
/* Says each contradiction between keys. Values that could not be read are left out of the comparison. */
void config_check(struct config_reader *r, const struct config *config);
/* True if the machine has this CPU and it is online. */
bool config_cpu_online(unsigned cpu);
