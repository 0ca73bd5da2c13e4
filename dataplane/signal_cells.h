/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a worker keeps of its backends' signals (signals.h): counters for each slot, and a record with all that is big
 * for each slot that had a flow, from a pool of fixed size. Written by the worker alone, with relaxed stores.
 */
#pragma once

#include "histogram.h"

#include <assert.h>
#include <stdint.h>

/* How the flows that a backend was assigned turned out; each has one outcome, when it is known, or none yet. */
enum signal_outcome {
	SIGNAL_SUCCESS, /* the backend sent a byte */
	SIGNAL_FAILED,  /* it refused, never answered, or reset the connection before its first byte */
	SIGNAL_NEUTRAL, /* ended without either */
	SIGNAL_OUTCOMES,
};

/* What the windows count. */
enum signal_class {
	SIGNAL_CONNECT,  /* success: a handshake */
	SIGNAL_RESPONSE, /* success: the first byte of a response */
	SIGNAL_CLASSES,
};

enum signal_failure {
	SIGNAL_SILENT,      /* no answer to a SYN, nor anything else meanwhile */
	SIGNAL_REFUSED,     /* RST to a SYN */
	SIGNAL_UNREACHABLE, /* ICMP error to a SYN */
	SIGNAL_OVERLOAD,    /* no answer to a SYN, though it was heard meanwhile */
	SIGNAL_STALLED,     /* client data sent again and again, and no word from it */
	SIGNAL_RESET,       /* RST instead of the first byte of a response */
	SIGNAL_FAILURES,
};

struct signal_counts {
	/* Levels: */
	uint32_t waiting;         /* handshakes that were not answered yet */
	uint32_t open;            /* exchanges, those that are one-way excepted */
	uint32_t zombies;         /* exchanges whose client left, or SYNs that went elsewhere: work that may go on */
	uint32_t one_way;         /* exchanges that were open for so long that they are none */
	uint32_t fresh;           /* connections that began just now, and on which nobody has said anything */
	uint32_t answered_now;    /* handshakes that were answered just now, and that no client has finished */
	uint32_t doubt;           /* how much of those never will be, of 2^16 */
	uint32_t is_doubting;     /* handshakes are remembered */
	uint32_t record;          /* number of the slot's record, from 1; 0: it has none */
	uint32_t first_byte_us16; /* EWMA of first bytes, in sixteenths; 0: none yet */
	uint64_t outcomes[SIGNAL_OUTCOMES];
	uint64_t exchanges, answered; /* begun; whose response began */
	uint64_t timed, timed_us;     /* of those, where it is known how long that took */
	uint64_t failures[SIGNAL_FAILURES];
	uint64_t resets_after; /* RSTs when a response had begun */
	uint64_t gave_up,
		gave_up_us; /* clients that left an exchange that took long; after how long: no less it takes */
	uint64_t shut;      /* flows whose client waited for five seconds for the backend to take more */
	uint64_t retransmissions[2]; /* by direction */
	uint64_t zombies_ever, unrecorded;
} __attribute__((aligned(64)));

static_assert(sizeof(struct signal_counts) == 256, "four lines");

#define SIGNAL_SECONDS  64 /* a power of two; the longest window is a minute */
#define SIGNAL_NETWORKS 4  /* client prefixes of failures that are told apart within a second */

struct signal_second {
	uint32_t number; /* second of the dataplane's clock + 1; 0: never begun */
	uint32_t success[SIGNAL_CLASSES];
	uint32_t failed[SIGNAL_FAILURES];
	uint32_t networks[SIGNAL_NETWORKS]; /* keyed hashes of prefixes; 0: none */
};

/* Time in which things end by themselves goes by these units: 268 ms. */
#define SIGNAL_UNIT_SHIFT  28
#define SIGNAL_UNITS       128 /* a power of two, which is 34 s */
#define SIGNAL_FRESH_UNITS 4   /* a power of two */
#define SIGNAL_STALL_UNITS 16  /* the same: by then a sum has faded to a hundredth */

/* Those whose freshness ends at the same time. */
struct signal_fresh {
	uint32_t n, n_answered;   /* as in signal_counts */
	uint64_t us, finished_us; /* for how long handshakes were unfinished, or may be; and those that were finished */
};

struct signal_record {
	uint32_t slot; /* whose it is, if that says so too */
	struct histogram handshake, first_byte;
	struct signal_second seconds[SIGNAL_SECONDS];
	/* By the unit with whose end they are over, modulo SIGNAL_UNITS: */
	uint32_t open_ends[SIGNAL_UNITS], zombie_ends[SIGNAL_UNITS];
	struct signal_fresh fresh[SIGNAL_FRESH_UNITS]; /* modulo these */
	uint64_t us, finished_us;                      /* of units before, the less the longer ago */
} __attribute__((aligned(64)));

struct signals {
	struct signal_counts *counts; /* by backend slot */
	struct signal_record *records;
	uint32_t n_records, n_used;
	uint32_t *free, n_free;                  /* numbers of records that were used and are not any more */
	uint32_t unit;                           /* all that was over by its end is taken off */
	uint64_t stalled_ns[SIGNAL_STALL_UNITS]; /* of the worker, until the end of a unit, modulo these */
	uint32_t searched;                       /* the unit in which records were looked for last that nobody has */
};
