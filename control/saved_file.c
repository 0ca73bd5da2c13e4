/* SPDX-License-Identifier: BSD-3-Clause */
#include "saved_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FILE_BYTES_MAX (64 << 20)
#define NUMBER_MAX     (INT64_C(1) << 53)
#define MSEC           1000000ULL

void saved_file_init(struct saved_file *f, const char *dir, const char *name, const char *format, int version)
{
	*f = (struct saved_file){.format = format, .version = version};
	snprintf(f->dir, sizeof(f->dir), "%s", dir);
	snprintf(f->path, sizeof(f->path), "%s/%s", dir, name);
	snprintf(f->temporary, sizeof(f->temporary), "%s/%s.new", dir, name);
}

static bool is_ours(const struct saved_file *f, const json_t *doc, const char *list)
{
	const json_t *format = json_object_get(doc, "format");

	return json_string_length(format) == strlen(f->format) && strcmp(json_string_value(format), f->format) == 0 &&
	       json_integer_value(json_object_get(doc, "version")) == f->version &&
	       json_is_array(json_object_get(doc, list));
}

/* Whatever has its name, the start does not wait for it: a FIFO would have it wait for a writer. */
static FILE *open_to_read(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "r");

	if (fd >= 0 && !file)
		close(fd);
	return file;
}

json_t *saved_file_read(const struct saved_file *f, const char *list, char *why, size_t size)
{
	FILE *file = open_to_read(f->path);
	json_error_t error;
	struct stat st;
	json_t *doc;

	why[0] = '\0';
	if (!file) {
		if (errno != ENOENT)
			snprintf(why, size, "cannot be read: %s", strerror(errno));
		return NULL;
	}
	if (fstat(fileno(file), &st) || !S_ISREG(st.st_mode) || st.st_size > FILE_BYTES_MAX) {
		snprintf(why, size, "no regular file of at most %d MiB", FILE_BYTES_MAX >> 20);
		fclose(file);
		return NULL;
	}
	doc = json_loadf(file, JSON_REJECT_DUPLICATES, &error);
	fclose(file);
	if (!doc) {
		snprintf(why, size, "damaged: line %d: %s", error.line, error.text);
		return NULL;
	}
	if (is_ours(f, doc, list))
		return doc;
	snprintf(why, size, "not a file of this program's version %d", f->version);
	json_decref(doc);
	return NULL;
}

static int write_all(int fd, const char *text, size_t len)
{
	while (len) {
		ssize_t n = write(fd, text, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		text += n;
		len -= n;
	}
	return 0;
}

static int replace(const struct saved_file *f, const char *text)
{
	int fd, err;

	if (mkdir(f->dir, 0755) && errno != EEXIST)
		return -errno;
	fd = open(f->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0644);
	if (fd < 0)
		return -errno;
	err = write_all(fd, text, strlen(text));
	if (close(fd) && !err)
		err = -errno;
	if (!err && rename(f->temporary, f->path))
		err = -errno;
	return err;
}

/* Made in memory first: json_dumpfd() would write token by token. */
int saved_file_write(const struct saved_file *f, json_t *doc)
{
	char *text;
	int err;

	if (json_object_set_new(doc, "format", json_string(f->format)) ||
	    json_object_set_new(doc, "version", json_integer(f->version)))
		return -ENOMEM;
	text = json_dumps(doc, JSON_INDENT(1));
	if (!text)
		return -ENOMEM;
	err = replace(f, text);
	free(text);
	return err;
}

bool saved_read_number(const json_t *object, const char *key, uint64_t *out)
{
	const json_t *value = json_object_get(object, key);

	if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > NUMBER_MAX)
		return false;
	*out = (uint64_t)json_integer_value(value);
	return true;
}

uint64_t saved_wall_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

uint64_t saved_age_ns(uint64_t then_ms, uint64_t now_ms)
{
	return then_ms < now_ms ? (now_ms - then_ms) * MSEC : 0;
}
