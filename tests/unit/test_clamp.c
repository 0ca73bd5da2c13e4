/* SPDX-License-Identifier: BSD-3-Clause */
#include "clamp.h"

#include "checksum.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#define HEADER 20
#define MAX    60
#define RUNS   400000

static uint64_t random_state = 1;

static uint32_t pick(uint32_t n)
{
	random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(random_state >> 33) % n;
}

/* One's complement sum of all words but the checksum's own, worked out anew. */
static uint16_t sum_of(const uint8_t *tcp, size_t len)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < len; i += 2)
		if (i != 16)
			sum += tcp[i] << 8 | tcp[i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* By how much the checksum is off: the same before and after, whatever it was. Both zeros are one number. */
static uint32_t error_of(const uint8_t *tcp, size_t len)
{
	return (sum_of(tcp, len) + (uint32_t)(tcp[16] << 8 | tcp[17])) % 0xffff;
}

/* A TCP header with these options, at an odd address, so that no alignment is taken for granted. */
static uint8_t *header(const uint8_t *options, size_t len)
{
	static uint8_t room[MAX + 1];
	uint8_t *tcp = room + 1;

	for (size_t i = 0; i < HEADER; i++)
		tcp[i] = 17 * i + 3;
	memcpy(tcp + HEADER, options, len);
	return tcp;
}

/* --- lists that are known --- */

struct known {
	const char *what;
	uint8_t options[16];
	uint8_t len;
	bool malformed;
	uint8_t n; /* MSS options */
	uint8_t after[16];
};

/* Clamped to 1360 (0x0550). */
static const struct known known[] = {
	{"Linux", {2, 4, 5, 180, 4, 2, 1, 3, 3, 7}, 12, false, 1, {2, 4, 5, 80, 4, 2, 1, 3, 3, 7}},
	{"alone, low", {2, 4, 2, 24}, 4, false, 1, {2, 4, 2, 24}},
	{"alone, exact", {2, 4, 5, 80}, 4, false, 1, {2, 4, 5, 80}},
	{"alone, one above", {2, 4, 5, 81}, 4, false, 1, {2, 4, 5, 80}},
	{"zero", {2, 4, 0, 0}, 4, false, 1, {2, 4, 0, 0}},
	{"odd offset", {1, 2, 4, 0x23, 0x28, 1, 1, 1}, 8, false, 1, {1, 2, 4, 5, 80, 1, 1, 1}},
	{"twice", {2, 4, 5, 180, 2, 4, 35, 40}, 8, false, 2, {2, 4, 5, 80, 2, 4, 5, 80}},
	{"twice, odd and low", {1, 2, 4, 5, 180, 2, 4, 1}, 8, true, 0, {1, 2, 4, 5, 180, 2, 4, 1}},
	{"none", {1, 1, 1, 1}, 4, false, 0, {1, 1, 1, 1}},
	{"no options", {0}, 0, false, 0, {0}},
	{"behind the end", {0, 2, 4, 35, 40, 0, 0, 0}, 8, false, 0, {0, 2, 4, 35, 40, 0, 0, 0}},
	{"length 0", {3, 0, 2, 4, 35, 40, 1, 1}, 8, true, 0, {3, 0, 2, 4, 35, 40, 1, 1}},
	{"length 1", {3, 1, 2, 4, 35, 40, 1, 1}, 8, true, 0, {3, 1, 2, 4, 35, 40, 1, 1}},
	{"past the end", {2, 4, 35, 40, 8, 10, 1, 1}, 8, true, 0, {2, 4, 35, 40, 8, 10, 1, 1}},
	{"cut off", {2, 4, 35, 40, 1, 1, 1, 8}, 8, true, 0, {2, 4, 35, 40, 1, 1, 1, 8}},
	{"MSS of 3", {2, 3, 35, 1}, 4, true, 0, {2, 3, 35, 1}},
	{"MSS of 6", {2, 6, 35, 40, 0, 0, 1, 1}, 8, true, 0, {2, 6, 35, 40, 0, 0, 1, 1}},
};

static void test_known(void **state)
{
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		const struct known *k = &known[i];
		uint8_t *tcp = header(k->options, k->len);
		uint32_t error = error_of(tcp, HEADER + k->len);
		struct mss_options found;

		if (mss_find(tcp, HEADER + k->len, &found) == k->malformed)
			fail_msg("%s: taken for %s", k->what, k->malformed ? "right" : "malformed");
		if (k->malformed)
			continue;
		assert_int_equal(found.n, k->n);
		assert_int_equal(mss_exceeds(tcp, &found, 1360), memcmp(k->options, k->after, k->len) != 0);
		mss_lower(tcp, &found, 1360);
		if (memcmp(tcp + HEADER, k->after, k->len) != 0)
			fail_msg("%s: changed otherwise", k->what);
		assert_int_equal(error_of(tcp, HEADER + k->len), error);
	}
}

/* --- random lists, against a reader that is built otherwise --- */

/*
 * Marks each byte of the options with what it is: 'n' NOP, 'e' end and all behind it, 'k' kind, 'l' length, 'd' data,
 * 'h' and 'o' the two bytes of an MSS. False if a length does not fit.
 */
static bool mark(const uint8_t *options, size_t len, char marks[static MAX])
{
	size_t left = 0; /* bytes that still belong to the option at hand */
	uint8_t kind = 0;

	memset(marks, 'e', MAX);
	for (size_t i = 0; i < len; i++) {
		if (left) {
			marks[i] = kind != 2 ? 'd' : left == 2 ? 'h' : 'o';
			left--;
		} else if (options[i] == 0) {
			return true;
		} else if (options[i] == 1) {
			marks[i] = 'n';
		} else {
			kind = options[i];
			if (i + 1 == len || options[i + 1] < 2 || (kind == 2 && options[i + 1] != 4))
				return false;
			marks[i] = 'k';
			marks[i + 1] = 'l';
			left = options[++i] - 2u;
		}
	}
	return left == 0;
}

/* Mostly options that a stack would send, in any order; one list in three has a byte that does not belong there. */
static size_t make_options(uint8_t *options)
{
	static const uint8_t lens[] = {[2] = 4, [3] = 3, [4] = 2, [5] = 10, [8] = 10, [34] = 6};
	static const uint8_t kinds[] = {1, 1, 2, 2, 2, 3, 4, 5, 8, 34, 0};
	size_t len = 4 * pick(11), at = 0;

	for (size_t i = 0; i < len; i++)
		options[i] = pick(4) ? pick(256) : 2;
	while (at < len) {
		uint8_t kind = kinds[pick(sizeof(kinds) - (pick(4) != 0))];
		size_t n = kind < 2 ? 1 : lens[kind];

		if (at + n > len)
			break;
		options[at] = kind;
		if (n > 1)
			options[at + 1] = n;
		at += n;
	}
	if (at < len && pick(2))
		memset(options + at, pick(2), len - at);
	if (len && pick(3) == 0)
		options[pick(len)] = pick(2) ? pick(12) : pick(256);
	return len;
}

static unsigned check_random(bool right, const uint8_t *options, size_t len, const char *marks)
{
	uint8_t *tcp = header(options, len), expected[MAX];
	uint16_t max = pick(3) ? 500 + pick(1500) : pick(65536);
	uint32_t error = error_of(tcp, HEADER + len);
	struct mss_options found;
	unsigned lowered = 0;

	assert_int_equal(mss_find(tcp, HEADER + len, &found), right);
	assert_memory_equal(tcp + HEADER, options, len);
	if (!right)
		return 0;
	memcpy(expected, tcp, HEADER + len);
	for (size_t i = 0; i + 1 < len; i++)
		if (marks[i] == 'h' && (options[i] << 8 | options[i + 1]) > max) {
			expected[HEADER + i] = max >> 8;
			expected[HEADER + i + 1] = max;
			lowered++;
		}
	assert_int_equal(mss_exceeds(tcp, &found, max), lowered > 0);
	mss_lower(tcp, &found, max);
	assert_int_equal(error_of(tcp, HEADER + len), error);
	memcpy(expected + 16, tcp + 16, 2);
	assert_memory_equal(tcp, expected, HEADER + len);
	return lowered;
}

static void test_random(void **state)
{
	unsigned n_malformed = 0, n_lowered[MSS_OPTIONS_MAX + 1] = {0};
	uint8_t options[MAX];
	char marks[MAX];

	for (unsigned i = 0; i < RUNS; i++) {
		size_t len = make_options(options);
		bool right = mark(options, len, marks);

		n_malformed += !right;
		n_lowered[check_random(right, options, len, marks)]++;
	}
	/* All kinds of lists were among them. */
	assert_true(n_malformed > RUNS / 50 && n_lowered[1] > RUNS / 50 && n_lowered[2] > RUNS / 100);
}

/* As many as there is room for. */
static void test_full(void **state)
{
	uint8_t options[40], *tcp;
	struct mss_options found;

	for (int i = 0; i < 40; i += 4)
		memcpy(options + i, "\x02\x04\x05\xb4", 4);
	tcp = header(options, sizeof(options));
	assert_true(mss_find(tcp, MAX, &found));
	assert_int_equal(found.n, MSS_OPTIONS_MAX);
	mss_lower(tcp, &found, 1000);
	assert_false(mss_exceeds(tcp, &found, 1000));
}

static void test_of_mtu(void **state)
{
	assert_int_equal(mss_of_mtu(4, 1500), 1460);
	assert_int_equal(mss_of_mtu(6, 1500), 1440);
	assert_int_equal(mss_of_mtu(4, 577), 537);
	assert_int_equal(mss_of_mtu(4, 576), 536);
	assert_int_equal(mss_of_mtu(4, 68), 536);
	assert_int_equal(mss_of_mtu(4, 0), 536);
	assert_int_equal(mss_of_mtu(6, 1281), 1221);
	assert_int_equal(mss_of_mtu(6, 1279), 1220);
	assert_int_equal(mss_of_mtu(4, 65575), 65535);
	assert_int_equal(mss_of_mtu(6, UINT32_MAX), 65535);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_of_mtu),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
