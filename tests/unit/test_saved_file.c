/* SPDX-License-Identifier: BSD-3-Clause */
/* How a saved file is read and written, over a kernel that takes what it likes: write() is the test's. */
#include "saved_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define N_ROWS 1000

static char dir[64];
static struct saved_file file;

static bool ours;   /* what is written now is the file */
static size_t most; /* that a write takes */
static unsigned n_writes;
static int fails_with; /* each second write; 0: none does */

ssize_t write(int fd, const void *data, size_t len)
{
	if (!ours)
		return syscall(SYS_write, fd, data, len);
	if (n_writes++ % 2 && fails_with) {
		errno = fails_with;
		return -1;
	}
	return syscall(SYS_write, fd, data, len < most ? len : most);
}

static int setup(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/spillway-file-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	saved_file_init(&file, dir, "rows.json", "rows", 1);
	n_writes = fails_with = 0;
	most = SIZE_MAX;
	return 0;
}

static int teardown(void **state)
{
	char command[96];

	snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	return system(command);
}

static int write_rows(int n)
{
	json_t *rows = json_array(), *doc = json_pack("{s:o}", "rows", rows);
	int err;

	for (int i = 0; i < n; i++)
		json_array_append_new(rows, json_pack("{s:i,s:s}", "number", i, "name", "a row"));
	ours = true;
	err = saved_file_write(&file, doc);
	ours = false;
	json_decref(doc);
	return err;
}

static size_t rows_there(void)
{
	char why[128];
	json_t *doc = saved_file_read(&file, "rows", why, sizeof(why));
	size_t n = json_array_size(json_object_get(doc, "rows"));

	assert_string_equal(why, "");
	json_decref(doc);
	return n;
}

/* Decide has other things to do. */
static void test_written_at_once(void **state)
{
	assert_int_equal(write_rows(N_ROWS), 0);
	assert_int_equal(n_writes, 1);
	assert_int_equal(rows_there(), N_ROWS);
}

static void test_written_in_parts(void **state)
{
	most = 1000;
	fails_with = EINTR;
	assert_int_equal(write_rows(N_ROWS), 0);
	assert_true(n_writes > 10);
	assert_int_equal(rows_there(), N_ROWS);
}

/* What was there stays, and why is said. */
static void test_not_written(void **state)
{
	assert_int_equal(write_rows(2), 0);
	most = 1000;
	fails_with = ENOSPC;
	assert_int_equal(write_rows(N_ROWS), -ENOSPC);
	assert_int_equal(rows_there(), 2);
	most = 0;
	fails_with = 0;
	assert_int_equal(write_rows(N_ROWS), -EIO);
	assert_int_equal(rows_there(), 2);
}

/* Nobody writes into the one, or reads from the other: nobody waits for that. */
static void test_fifo(void **state)
{
	char why[128];

	assert_int_equal(mkfifo(file.path, 0600), 0);
	assert_int_equal(mkfifo(file.temporary, 0600), 0);
	alarm(10);
	assert_null(saved_file_read(&file, "rows", why, sizeof(why)));
	assert_string_equal(why, "no regular file of at most 64 MiB");
	assert_int_equal(write_rows(1), -ENXIO);
	alarm(0);
	assert_int_equal(unlink(file.temporary), 0);
	assert_int_equal(write_rows(1), 0);
	assert_int_equal(rows_there(), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_written_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_written_in_parts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_written, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fifo, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
