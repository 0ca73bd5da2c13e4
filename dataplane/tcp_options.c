/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp_options.h"

#define SCALE_LEN 3
#define SCALE_MAX 14 /* RFC 7323 2.3: more counts as this */

static uint32_t load32(const uint8_t *at)
{
	uint32_t value_be;

	memcpy(&value_be, at, sizeof(value_be));
	return ntohl(value_be);
}

static void take(struct tcp_options *o, const uint8_t *option, uint8_t len)
{
	if (option[0] == TCP_OPTION_SCALE && len == SCALE_LEN) {
		o->scaling = true;
		o->scale = option[2] < SCALE_MAX ? option[2] : SCALE_MAX;
	} else if (option[0] == TCP_OPTION_TIMESTAMPS && len == TCP_OPTION_TIMESTAMPS_LEN) {
		o->timestamps = true;
		o->tsval = load32(option + 2);
		o->tsecr = load32(option + 6);
	}
}

struct tcp_options tcp_options_read(const uint8_t *options, unsigned len)
{
	struct tcp_options o = {0};

	for (unsigned at = 0; (at = tcp_option_at(options, len, at)) < len; at += options[at + 1])
		take(&o, &options[at], options[at + 1]);
	return o;
}

bool tcp_timestamp_search(const struct rte_tcp_hdr *tcp, uint32_t *tsval)
{
	struct tcp_options o = tcp_options_read((const uint8_t *)(tcp + 1), tcp_options_len(tcp));

	if (o.timestamps)
		*tsval = o.tsval;
	return o.timestamps;
}
