/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Feeds a fuzz target with frames that are mostly right: made frames with a few bytes changed, then (mostly) the IPv4
 * header checksum mended, so that the change is seen by more than the checksum's check. The same seed gives the same
 * frames; a crash prints the number of its frame, for --only.
 *
 *   random_NAME [--iterations N] [--seed S] [--only I] [--write DIR (the unchanged frames, as a seed corpus)]
 */
#include "driver.h"

#include "frames.h"

#include <getopt.h>
#include <netinet/in.h>
#include <signal.h>
#include <unistd.h>

#define ETH 14
#define IP6 40

static volatile uint64_t current; /* number of the frame in hand, for the message when it kills us */

__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	return 0;
}

static void print_current(int number)
{
	char text[64];
	int n = snprintf(text, sizeof(text), "frame %" PRIu64 " (--only %" PRIu64 ")\n", current, current);

	if (write(STDERR_FILENO, text, n) < 0)
		_exit(2);
	signal(number, SIG_DFL);
	raise(number);
}

/* Those of tests/rig.h: 1 a client, 100 the VIP, 101 the SNAT address, 3 the backends; and hosts beside them. */
static struct ipaddr address(bool v4, uint8_t net, uint8_t host)
{
	const uint8_t b[16] = {0x20, 0x01, 0x0d, 0xb8, net >= 100, net >= 100 ? net - 100 : net, [15] = host};

	return v4 ? ipaddr_v4(htonl(0xc6120000 | net << 8 | host)) : ipaddr_v6(b);
}

/* Kinds of frames: family x protocol x what stands around it. */
enum around { PLAIN, TAGGED, FRAGMENT_FIRST, FRAGMENT_LATER, OPTIONS, AROUND_COUNT };
#define N_KINDS (2 * 3 * AROUND_COUNT)

static void set_fragment4(uint8_t *frame, uint16_t field)
{
	field = htons(field);
	memcpy(frame + ETH + 6, &field, sizeof(field));
	frame_fix_ip4(frame + ETH);
}

static size_t insert_options4(uint8_t *frame, size_t len)
{
	static const uint8_t options[12] = {1, 7, 7, 4, 0, 0, 0, 0, 148, 4};
	uint8_t *ip = frame + ETH;
	uint16_t total_be = htons(len - ETH + sizeof(options));

	memmove(ip + 20 + sizeof(options), ip + 20, len - ETH - 20);
	memcpy(ip + 20, options, sizeof(options));
	memcpy(ip + 2, &total_be, sizeof(total_be));
	ip[0] = 0x48;
	frame_fix_ip4(ip);
	return len + sizeof(options);
}

static size_t surround(uint8_t *frame, size_t len, bool v4, enum around around, uint8_t proto)
{
	uint8_t fragment[8] = {proto, 0, 0, 1, 0xde, 0xad, 0xbe, 0xef}, options[16] = {proto, 1, 1, 12};

	switch (around) {
	case TAGGED:
		return frame_tag(frame, len, 0x8100, 0xa000);
	case FRAGMENT_FIRST:
	case FRAGMENT_LATER:
		fragment[2] = around == FRAGMENT_LATER ? 0x05 : 0;
		if (!v4)
			return frame_insert6(frame, len, IPPROTO_FRAGMENT, fragment, sizeof(fragment));
		set_fragment4(frame, around == FRAGMENT_LATER ? 0x00a0 : 0x2000);
		return len;
	case OPTIONS:
		return v4 ? insert_options4(frame, len)
			  : frame_insert6(frame, len, IPPROTO_DSTOPTS, options, sizeof(options));
	default:
		return len;
	}
}

static size_t make(unsigned kind, uint64_t *random, uint8_t *frame)
{
	static const uint8_t protos[2][3] = {{IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP},
					     {IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMPV6}};
	static const uint8_t flags[] = {0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0x14, 0x02};
	bool v4 = kind & 1;
	uint8_t proto = protos[!v4][kind / 2 % 3];
	uint64_t r = frame_random(random);
	bool down = (r >> 12 & 7) == 0, l4 = proto == IPPROTO_TCP || proto == IPPROTO_UDP;
	struct frame_spec spec = {
		.src = address(v4, down ? 3 : 1, 1 + (r & 3)),
		.dst = address(v4, down ? 101 : 100, 1 + (r >> 2 & 7) / 7),
		.sport_be = !l4 ? r >> 4 & 0xff : htons(down ? 8080 : 40000 + (r >> 4 & 15)),
		.dport_be = htons(down                   ? 1024 + (r >> 40 & 63)
				  : proto == IPPROTO_UDP ? 53
							 : 80),
		.proto = proto,
		.tcp_flags = flags[r >> 8 & 7],
		.payload_len = (r >> 16 & 31) * 8,
		.seq_be = r >> 32,
	};

	return surround(frame, frame_make(&spec, frame), v4, kind / 6, proto);
}

static size_t mutate(uint8_t *frame, size_t len, uint64_t *random)
{
	static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff, 0x40};
	uint64_t r = frame_random(random);
	unsigned n = r & 3;

	/* Headers are where it matters: three quarters of the changes lie in the first 80 bytes. */
	for (unsigned i = 0; i < n; i++) {
		uint64_t c = frame_random(random);
		size_t at = (c >> 8) % ((c & 3) && len > 80 ? 80 : len);

		if (c & 4)
			frame[at] ^= 1 << (c >> 40 & 7);
		else
			frame[at] = c & 8 ? c >> 48 : values[(c >> 48) % sizeof(values)];
	}
	if ((r >> 8 & 7) == 0)
		len = (r >> 16) % (len + 1);
	if ((r >> 11 & 3) && len >= ETH + 20 && frame[12] == 0x08)
		frame_fix_ip4(frame + ETH);
	return len;
}

static void run_one(uint64_t seed, uint64_t number)
{
	uint64_t random = seed ^ number * UINT64_C(0xd1342543de82ef95);
	static uint8_t frame[2 * FRAME_MAX];
	size_t len;

	current = number;
	len = make(number % N_KINDS, &random, frame);
	driver_play(frame, mutate(frame, len, &random));
}

static int write_corpus(const char *dir)
{
	int status = 0;

	for (unsigned kind = 0; kind < N_KINDS && !status; kind++) {
		uint8_t frame[2 * FRAME_MAX];
		uint64_t random = kind;
		size_t len = make(kind, &random, frame);

		status = driver_write(dir, "frame", kind, frame, len > 160 ? 160 : len);
	}
	return status;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"iterations", required_argument, NULL, 'i'},
		{"seed", required_argument, NULL, 's'},
		{"only", required_argument, NULL, 'o'},
		{"write", required_argument, NULL, 'w'},
		{},
	};
	uint64_t iterations = 1000000, seed = 1, only = UINT64_MAX;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'i')
			iterations = strtoull(optarg, NULL, 10);
		else if (c == 's')
			seed = strtoull(optarg, NULL, 10);
		else if (c == 'o')
			only = strtoull(optarg, NULL, 10);
		else if (c == 'w')
			return write_corpus(optarg);
		else
			return 2;
	}
	signal(SIGILL, print_current);
	signal(SIGABRT, print_current);
	LLVMFuzzerInitialize(&argc, &argv);
	if (only != UINT64_MAX) {
		run_one(seed, only);
		return 0;
	}
	for (uint64_t i = 0; i < iterations; i++)
		run_one(seed, i);
	printf("%" PRIu64 " frames, seed %" PRIu64 "\n", iterations, seed);
	return 0;
}
