/* SPDX-License-Identifier: BSD-3-Clause */
/* What of a segment's TCP options the middle has to know. */
#pragma once

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <rte_tcp.h>

struct tcp_options {
	bool timestamps; /* RFC 7323 3 */
	bool scaling;    /* RFC 7323 2 */
	uint8_t scale;   /* at most 14, as its receiver takes it */
	uint32_t tsval, tsecr;
};

enum {
	TCP_OPTION_END = 0,
	TCP_OPTION_NOP = 1,
	TCP_OPTION_SCALE = 3,
	TCP_OPTION_SACK = 5, /* RFC 2018 3 */
	TCP_OPTION_TIMESTAMPS = 8,
};

#define TCP_OPTION_TIMESTAMPS_LEN 10

/*
 * The first option with a length at or after options[at], whole; `len` or more if there is none, or if what comes is
 * malformed. The next one begins options[at + 1] further.
 */
static inline unsigned tcp_option_at(const uint8_t *options, unsigned len, unsigned at)
{
	while (at < len && options[at] == TCP_OPTION_NOP)
		at++;
	if (at >= len || options[at] == TCP_OPTION_END || len - at < 2 || options[at + 1] < 2 ||
	    options[at + 1] > len - at)
		return len;
	return at;
}

/* What stands before a malformed option counts, what comes after it does not. */
struct tcp_options tcp_options_read(const uint8_t *options, unsigned len);

/* Of a header whose length was checked: every parsed packet's. */
static inline unsigned tcp_options_len(const struct rte_tcp_hdr *tcp)
{
	return (tcp->data_off >> 4 << 2) - sizeof(*tcp);
}

/* Timestamps as nearly all stacks send them (RFC 7323 A): two NOPs before them, in front of everything else. */
#define TCP_TIMESTAMP_LAYOUT 0x0101080au
#define TCP_TIMESTAMP_LEN    12

/* False: it has none. */
bool tcp_timestamp_search(const struct rte_tcp_hdr *tcp, uint32_t *tsval);

static inline bool tcp_timestamp(const struct rte_tcp_hdr *tcp, uint32_t *tsval)
{
	uint32_t words_be[2];

	/* Its length stands in the upper half of data_off, in words. */
	if (__builtin_expect(tcp->data_off >= (sizeof(*tcp) + TCP_TIMESTAMP_LEN) / 4 << 4, 1)) {
		memcpy(words_be, tcp + 1, sizeof(words_be));
		*tsval = ntohl(words_be[1]);
		if (__builtin_expect(words_be[0] == htonl(TCP_TIMESTAMP_LAYOUT), 1))
			return true;
	}
	return tcp_timestamp_search(tcp, tsval);
}
