/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The one real flow at a time by which a half-open backend is tried, in a word that workers and decide share. Workers
 * take the place for a flow, say how far that has come, and give it back; decide empties it when a trial takes too
 * long, which the flow then finds out by its generation. Every change is one compare-and-swap.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define TRIAL_WINS        3    /* flows in a row whose response began */
#define TRIAL_GENERATIONS 8    /* that flows can tell apart */
#define TRIAL_LEFT_MS     100  /* until who should not try it, a retry, may: in a storm all are */
#define TRIAL_YIELD_MS    1000 /* whoever had the place for nothing leaves it to other networks */

enum trial_phase {
	TRIAL_FREE,
	TRIAL_SYN,   /* its SYN waits for an answer */
	TRIAL_IDLE,  /* connected, and nothing was asked */
	TRIAL_ASKED, /* its client waits for a response */
};

struct trial {
	enum trial_phase phase;
	uint8_t wins;
	uint8_t generation;
	uint8_t network;   /* a hash of its client's, or of the last one's who did not win; 0: of none */
	uint32_t since_ms; /* CLOCK_MS: in that phase, or free */
};

struct trial trial_read(uint64_t word);
uint64_t trial_word(const struct trial *t);

/* It is free, and nobody has taken it for TRIAL_LEFT_MS. */
bool trial_is_left(const uint64_t *word, uint32_t now_ms);
/* Takes the place for a flow; false: it is not free, not for that network, or nobody is to be tried any more. */
bool trial_take(uint64_t *word, uint8_t network, uint32_t now_ms, uint8_t *generation);
/* False: the trial of that generation is over. */
bool trial_move(uint64_t *word, uint8_t generation, enum trial_phase phase, uint32_t now_ms);
/* Gives the place back, won or not; returns how many were won, 0 if the trial was over before. */
unsigned trial_end(uint64_t *word, uint8_t generation, bool won, uint32_t now_ms);
/* Decide's: the trial that `seen` tells of is won, unless it is over. */
void trial_win(uint64_t *word, uint64_t seen, uint32_t now_ms);
/* Decide's: begins anew. `wins` are kept or not. */
void trial_begin(uint64_t *word, bool keep_wins, uint32_t now_ms);
