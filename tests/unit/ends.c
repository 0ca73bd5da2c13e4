/* SPDX-License-Identifier: BSD-3-Clause */
#include "ends.h"

#include "silence.h"

#include <netinet/in.h>
#include <string.h>

#include <rte_ip.h>

struct end ends[DIRS];
struct talk talk;
bool timestamps;
struct sent made[DIRS];

/* --- two ends that talk --- */

const enum rig_port port_of[DIRS] = {[DIR_UP] = RIG_WAN, [DIR_DOWN] = RIG_LAN};

static enum rig_port port_to(enum flow_dir dir)
{
	return port_of[!dir];
}

size_t make_frame(uint8_t *frame, struct frame_spec spec, uint16_t window, const uint8_t *options, unsigned len)
{
	bool v4 = ipaddr_is_v4(&spec.src);
	uint8_t *ip = frame + ETH;
	struct rte_tcp_hdr *header = (void *)(ip + (v4 ? 20 : 40));
	size_t frame_len;

	/* What would be payload becomes options. */
	spec.payload_len += len;
	frame_len = frame_make(&spec, frame);
	if (len)
		memcpy(header + 1, options, len);
	header->data_off = (20 + len) / 4 << 4;
	header->rx_win = htons(window);
	header->cksum = 0;
	header->cksum = v4 ? rte_ipv4_udptcp_cksum((void *)ip, header) : rte_ipv6_udptcp_cksum((void *)ip, header);
	return frame_len;
}

void feed_options(enum flow_dir dir, struct frame_spec spec, const uint8_t *options, unsigned len)
{
	uint8_t frame[FRAME_MAX];

	feed_raw(port_of[dir], 0, frame, make_frame(frame, spec, ends[dir].window, options, len));
}

void put32(uint8_t *at, uint32_t value)
{
	uint32_t value_be = htonl(value);

	memcpy(at, &value_be, 4);
}

static uint32_t get32(const uint8_t *at)
{
	uint32_t value_be;

	memcpy(&value_be, at, 4);
	return ntohl(value_be);
}

struct frame_spec spec_of(enum flow_dir dir, uint8_t flags, uint32_t seq, uint32_t ack)
{
	return dir == DIR_UP ? from_client(&talk, flags, seq, ack) : from_backend(&talk, flags, seq, ack);
}

void feed_numbers(enum flow_dir dir, uint8_t flags, uint32_t seq, uint32_t ack, uint16_t len)
{
	uint8_t options[12] = {1, 1, 8, 10};

	put32(options + 4, ends[dir].tsval);
	put32(options + 8, ends[!dir].tsval);
	feed_options(dir, with_payload(spec_of(dir, flags, seq, ack), len), options, timestamps ? 12 : 0);
}

void feed_next(enum flow_dir dir, uint8_t flags, uint16_t len)
{
	feed_numbers(dir, flags, ends[dir].next, ends[!dir].next, len);
	ends[dir].next += len + !!(flags & TCP_FIN);
}

struct sent passes(enum flow_dir dir)
{
	struct sent s;

	turn();
	take_right(&s);
	take_none();
	assert_int_equal(s.port, port_to(dir));
	return s;
}

struct sent say(enum flow_dir dir, uint8_t flags, uint16_t len)
{
	feed_next(dir, flags, len);
	return passes(dir);
}

void handshake(bool v6, uint32_t isn, uint32_t peer, bool with_timestamps)
{
	uint8_t options[16] = {1, 3, 3, SCALE, 1, 1, 8, 10};
	struct sent s;

	talk = (struct talk){.v6 = v6, .proto = PROTO_TCP, .client = 5};
	ends[DIR_UP] = (struct end){.next = isn + 1, .tsval = 0xfffffff0, .window = 501};
	ends[DIR_DOWN] = (struct end){.next = peer + 1, .tsval = 7000, .window = 227};
	timestamps = with_timestamps;
	put32(options + 8, ends[DIR_UP].tsval);
	feed_options(DIR_UP, from_client(&talk, TCP_SYN, isn, 0), options, timestamps ? 16 : 4);
	s = passes(DIR_UP);
	learn(&talk, &s);
	put32(options + 8, ends[DIR_DOWN].tsval);
	put32(options + 12, ends[DIR_UP].tsval);
	feed_options(DIR_DOWN, from_backend(&talk, TCP_SYN | TCP_ACK, peer, isn + 1), options, timestamps ? 16 : 4);
	passes(DIR_DOWN);
	say(DIR_UP, TCP_ACK, 0);
}

void converse(void)
{
	say(DIR_UP, TCP_ACK | TCP_PSH, 100);
	ends[DIR_DOWN].tsval += 50;
	say(DIR_DOWN, TCP_ACK | TCP_PSH, 200);
	ends[DIR_UP].tsval += 50;
	say(DIR_UP, TCP_ACK, 0);
}

void begin_rig(struct rig_config config)
{
	config.n_backends = config.n_backends ? config.n_backends : 1;
	start(config);
	rig.service.timeouts.probe_ms = PROBE_MS;
}

void set_mode(enum cure_mode mode)
{
	rig.policy.modes.of[CURE_SILENCE] = mode;
}

void use_up_ends(void)
{
	while (answer_limits_ends(rig.worker->limits, 1, rig.now_ns + 2 * STEP_NS))
		;
}

struct backend_report backend(void)
{
	struct backend_report r;

	observe_backend(rig.dp, talk.v6 ? SET_PROTOS * RIG_BACKENDS_MAX : 0, &r);
	return r;
}

/* --- what the gateway makes --- */

uint64_t await_made(uint64_t ms)
{
	uint64_t begin_ns = rig.now_ns;
	struct sent first, second;

	while (!take(&first)) {
		assert_true(rig.now_ns - begin_ns < ms * 1000000);
		pass_ms(40);
	}
	take_right(&second);
	take_none();
	assert_int_not_equal(first.port, second.port);
	made[DIR_UP] = first.port == RIG_LAN ? first : second;
	made[DIR_DOWN] = first.port == RIG_LAN ? second : first;
	return (rig.now_ns - begin_ns) / 1000000;
}

static void check_header(const struct sent *s, enum flow_dir name)
{
	const uint8_t *ip = s->frame + ETH;

	assert_null(frame_checksum_error(s->frame));
	assert_int_equal(s->port, port_to(name));
	assert_int_equal(s->p.payload_len, 0);
	assert_int_equal(s->p.ttl, 64);
	assert_int_equal(talk.v6 ? ip[0] << 8 | ip[1] : ip[1], talk.v6 ? 0x6000 : 0); /* Not-ECT */
	assert_true(talk.v6 || s->p.flags & PACKET_DF);
}

void check_probe(const struct sent *s, enum flow_dir name)
{
	const uint8_t *options = (const uint8_t *)(tcp(s) + 1);

	check_header(s, name);
	assert_int_equal(s->p.tcp_flags, TCP_ACK);
	assert_int_equal(seq(s), ends[name].next - 1);
	assert_int_equal(ack(s), ends[!name].next);
	assert_int_equal(ntohs(tcp(s)->rx_win), ends[name].window);
	assert_int_equal(tcp(s)->data_off, (timestamps ? 8 : 5) << 4);
	if (!timestamps)
		return;
	assert_memory_equal(options, "\1\1\10\12", 4);
	assert_int_equal(get32(options + 4), ends[name].tsval);
	assert_int_equal(get32(options + 8), ends[!name].tsval);
}

void check_probes(void)
{
	check_probe(&made[DIR_UP], DIR_UP);
	check_probe(&made[DIR_DOWN], DIR_DOWN);
}

void check_reset(const struct sent *s, enum flow_dir name, uint32_t sequence)
{
	check_header(s, name);
	assert_int_equal(s->p.tcp_flags, TCP_RST | TCP_ACK);
	assert_int_equal(seq(s), sequence);
	assert_int_equal(ack(s), ends[!name].next);
	assert_int_equal(s->len, ETH + (talk.v6 ? 40 : 20) + 20);
}

void check_resets(void)
{
	check_reset(&made[DIR_UP], DIR_UP, ends[DIR_UP].next);
	check_reset(&made[DIR_DOWN], DIR_DOWN, ends[DIR_DOWN].next);
}

void answer_probe(enum flow_dir dir)
{
	uint64_t before = verdicts(VERDICT_absorb_probe_answer);

	ends[dir].tsval += 30000;
	feed_next(dir, TCP_ACK, 0);
	turn();
	take_none();
	assert_int_equal(verdicts(VERDICT_absorb_probe_answer), before + 1);
}

void await_probes(void)
{
	assert_in_range(await_made(LATE_MS), PROBE_MS - PROBE_MS / 10 - 40, LATE_MS);
	check_probes();
}

void await_one_probe(enum flow_dir name)
{
	struct sent s;

	pass_ms(PROBE_EVERY_MS - 300);
	take_none();
	for (int i = 0; !take(&s); i++) {
		assert_true(i < 15);
		pass_ms(40);
	}
	take_none();
	check_probe(&s, name);
}
