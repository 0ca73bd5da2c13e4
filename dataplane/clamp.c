/* SPDX-License-Identifier: BSD-3-Clause */
#include "clamp.h"
#include "checksum.h"

#include <arpa/inet.h>

enum {
	TCP_CSUM_OFF = 16,
	TCP_OPTIONS_OFF = 20,
	OPTION_END = 0,
	OPTION_NOP = 1,
	OPTION_MSS = 2,
	OPTION_MSS_LEN = 4,
};

#define MSS4_FLOOR 536 /* RFC 9293 3.7.1: what a host without the option must be taken to accept */
#define MSS6_FLOOR 1220

bool mss_find(const uint8_t *tcp, size_t header_len, struct mss_options *out)
{
	size_t at = TCP_OPTIONS_OFF;

	out->n = 0;
	while (at < header_len && tcp[at] != OPTION_END) {
		if (tcp[at] == OPTION_NOP) {
			at++;
			continue;
		}
		if (header_len - at < 2 || tcp[at + 1] < 2 || tcp[at + 1] > header_len - at)
			return false;
		if (tcp[at] == OPTION_MSS) {
			if (tcp[at + 1] != OPTION_MSS_LEN || out->n == MSS_OPTIONS_MAX)
				return false;
			out->at[out->n++] = at + 2;
		}
		at += tcp[at + 1];
	}
	return true;
}

static uint16_t read_mss(const uint8_t *tcp, uint8_t at)
{
	return tcp[at] << 8 | tcp[at + 1];
}

bool mss_exceeds(const uint8_t *tcp, const struct mss_options *options, uint16_t mss_max)
{
	for (uint8_t i = 0; i < options->n; i++)
		if (read_mss(tcp, options->at[i]) > mss_max)
			return true;
	return false;
}

void mss_lower(uint8_t *tcp, const struct mss_options *options, uint16_t mss_max)
{
	uint16_t mss_be = htons(mss_max), csum_be;
	uint32_t delta = 0;

	for (uint8_t i = 0; i < options->n; i++)
		if (read_mss(tcp, options->at[i]) > mss_max)
			csum_replace(tcp, options->at[i], &mss_be, 2, &delta);
	memcpy(&csum_be, tcp + TCP_CSUM_OFF, 2);
	csum_be = csum_apply(csum_be, csum_delta_fold(delta));
	memcpy(tcp + TCP_CSUM_OFF, &csum_be, 2);
}

uint16_t mss_of_mtu(uint8_t family, uint32_t mtu)
{
	uint32_t headers = family == 4 ? 40 : 60, floor = family == 4 ? MSS4_FLOOR : MSS6_FLOOR;
	uint32_t mss = mtu > headers + floor ? mtu - headers : floor;

	return mss < UINT16_MAX ? mss : UINT16_MAX;
}
