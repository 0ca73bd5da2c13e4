/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Feeds a fuzz target whose inputs are programs (steps of four bytes) with random ones that keep to few connections for
 * a while, so that these get somewhere. The same seed gives the same programs.
 *
 *   random_NAME [--iterations N] [--seed S] [--only I] [--write DIR (programs 0 to N-1)] [FILE…]
 *
 * A FILE is played once, as what libFuzzer found. What fails is printed as steps.
 */
#include "driver.h"

#include "frames.h"
#include "world.h"

#include <getopt.h>
#include <signal.h>
#include <unistd.h>

#define PROGRAM_MAX (2 + 4 * 256)

static uint64_t current, seed = 1;

static void print_current(int number)
{
	fprintf(stderr, "program %" PRIu64 " (--seed %" PRIu64 " --only %" PRIu64 ")\n", current, seed, current);
	world_print();
	signal(number, SIG_DFL);
	raise(number);
}

static size_t make(uint64_t number, uint8_t *program)
{
	uint64_t random = seed * UINT64_C(0x9e3779b97f4a7c15) ^ number * UINT64_C(0xd1342543de82ef95);
	uint64_t r = frame_random(&random);
	unsigned n_steps = 8 + (r >> 32) % 120, n_who = 1 + (r >> 16 & 3);
	uint8_t who[4];

	memcpy(program, &r, 2);
	r = frame_random(&random);
	memcpy(who, &r, sizeof(who));
	for (unsigned i = 0; i < n_steps; i++) {
		r = frame_random(&random);
		memcpy(program + 2 + 4 * i, &r, 4);
		if (r >> 40 & 7)
			program[2 + 4 * i + 1] = who[(r >> 48) % n_who];
	}
	return 2 + 4 * (size_t)n_steps;
}

static void play_number(uint64_t number)
{
	uint8_t program[PROGRAM_MAX];

	current = number;
	driver_play(program, make(number, program));
}

static int play_file(const char *path)
{
	uint8_t program[PROGRAM_MAX];
	FILE *f = fopen(path, "rb");
	size_t len;

	if (!f) {
		perror(path);
		return 1;
	}
	len = fread(program, 1, sizeof(program), f);
	fclose(f);
	driver_play(program, len);
	if (getenv("TELL"))
		world_print();
	return 0;
}

static int write_programs(const char *dir, uint64_t n)
{
	int status = 0;

	for (uint64_t i = 0; i < n && !status; i++) {
		uint8_t program[PROGRAM_MAX];

		status = driver_write(dir, "program", i, program, make(i, program));
	}
	return status;
}

/* Of a sanitizer that is about to end the process. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"iterations", required_argument, NULL, 'i'},
		{"seed", required_argument, NULL, 's'},
		{"only", required_argument, NULL, 'o'},
		{"write", required_argument, NULL, 'w'},
		{},
	};
	uint64_t iterations = 1000, only = UINT64_MAX;
	const char *dir = NULL;
	int c, status = 0;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'i')
			iterations = strtoull(optarg, NULL, 10);
		else if (c == 's')
			seed = strtoull(optarg, NULL, 10);
		else if (c == 'o')
			only = strtoull(optarg, NULL, 10);
		else if (c == 'w')
			dir = optarg;
		else
			return 2;
	}
	if (dir)
		return write_programs(dir, iterations);
	signal(SIGILL, print_current);
	signal(SIGABRT, print_current);
	signal(SIGSEGV, print_current);
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(world_print);
	LLVMFuzzerInitialize(&argc, &argv);
	for (int i = optind; i < argc && !status; i++)
		status = play_file(argv[i]);
	if (optind < argc)
		return status;
	if (only != UINT64_MAX) {
		play_number(only);
		if (getenv("TELL"))
			world_print();
		return 0;
	}
	for (uint64_t i = 0; i < iterations; i++)
		play_number(i);
	printf("%" PRIu64 " programs, seed %" PRIu64 "\n", iterations, seed);
	return 0;
}
