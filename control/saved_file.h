/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One JSON file in state_dir, read whole and replaced whole: {"format": "…", "version": …, …}. Times in it are
 * wall-clock milliseconds: they have to mean something to the next life.
 */
#pragma once

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct saved_file {
	const char *format; /* static */
	int version;
	char dir[256];
	char path[PATH_MAX], temporary[PATH_MAX];
};

void saved_file_init(struct saved_file *f, const char *dir, const char *name, const char *format, int version);

/*
 * The document, the caller's, in which `list` is an array; NULL with what is wrong in `why`, or "" if there is no file.
 */
json_t *saved_file_read(const struct saved_file *f, const char *list, char *why, size_t size);
/*
 * Adds format and version to `doc`, and replaces the file by it, as a whole. Returns 0 or -errno. Not waiting for the
 * disk: what a power cut leaves half written is refused at the next start, and a decision shall not wait for that long.
 */
int saved_file_write(const struct saved_file *f, json_t *doc);

/* A number of a member that cannot be negative; false: there is none. */
bool saved_read_number(const json_t *object, const char *key, uint64_t *out);
uint64_t saved_wall_ms(void);
/* What is from the future is of now: the clock was set back. */
uint64_t saved_age_ns(uint64_t then_ms, uint64_t now_ms);
