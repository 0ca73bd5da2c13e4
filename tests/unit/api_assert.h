/* SPDX-License-Identifier: BSD-3-Clause */
/* What tests of the API ask and expect. Failures end the test (cmocka). */
#pragma once

#include "api_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* A GET on the Unix socket; the answer must be JSON and of that status. */
json_t *get_json(struct api_fixture *f, const char *path, long status);
void assert_error(struct api_fixture *f, bool tcp, const char *method, const char *path, const char *host, long status,
		  const char *says);

json_int_t get_int(const json_t *object, const char *key);
const char *get_text(const json_t *object, const char *key);
/* Since a time that is given in Unix seconds. */
double seconds_ago(const json_t *object, const char *key);
void assert_null_value(const json_t *object, const char *key);
/* The first row whose `key` is that text: there is one. */
const json_t *find_row(const json_t *rows, const char *key, const char *text);
bool has_text(const json_t *list, const char *text);

/* A connection without HTTP. */
int raw_connect(struct api_fixture *f, bool tcp);
/* Reads until the other side closes; fails if that takes longer than the API's timeouts allow. */
size_t read_to_end(int fd, char *out, size_t size);
void send_text(int fd, const char *text, size_t len);
