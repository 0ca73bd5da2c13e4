/* SPDX-License-Identifier: BSD-3-Clause */
/* What the parts of decide's breakers share: breakers.c, breakers_gone.c, breakers_judge.c, breakers_sides.c,
 * breakers_view.c. */
#pragma once

#include "breaker.h"
#include "breaker_memory.h"
#include "breakers.h"
#include "services.h"

#define BREAKERS_TRY_NS 100000000ull /* what is half-open, in the ramp, or failed lately is looked at so often */

struct backend {
	uint32_t generation;      /* of its slot */
	bool noted, fresh;        /* there is news; and it was not looked at yet */
	bool listed;              /* in `open`: its breaker is not closed */
	bool soft;                /* it was the application's fault when it opened last: that is capped */
	uint64_t again_ns;        /* what failed meanwhile is judged then; 0: it was */
	bool alone;               /* others of its side were heard since it was last: its silence is its own */
	uint32_t present;         /* the number of the last look at sides at which it was of one */
	bool sided;               /* it is of a side that is down; while sides are looked at */
	unsigned n_checks_failed; /* HTTP checks in a row */
	uint64_t doubted_ns;      /* it opened on silence then, and it is not known yet whether alone; 0: no doubt */
	bool told;                /* that it is open */
	bool greeted;             /* it is in the ramp as it is new to its set */
	bool recalled;            /* what was known of it before it had this slot */
	uint32_t n_told, n_untold;
	uint64_t told_ns; /* when the time began in which n_told openings were told */
	struct breaker breaker;
	char evidence[BREAKER_EVIDENCE_LEN]; /* of the last opening; "": there was none */
	uint64_t opened_ns;                  /* when that was */
	char check_why[80];                  /* the last HTTP check that failed */
};

enum side_state {
	SIDE_UP,
	SIDE_SILENT, /* until one of its backends answers */
	SIDE_NO_WAY, /* until there is one */
};

struct side {
	uint32_t generation; /* of its service's slot */
	enum side_state state;
	uint64_t since_ns;
	char evidence[128]; /* "IPv4: 4 of 4 backends fell silent within 10 s" */
};

struct breakers {
	struct dataplane *dp;
	struct services *services;
	struct events *events;
	struct breaker_memory *memory;
	struct breakers_config config;
	struct backend *backends; /* by slot */
	uint32_t *noted, n_noted;
	uint32_t *open, n_open;             /* slots whose breaker is not closed, in no order */
	struct side (*sides)[SET_FAMILIES]; /* by service slot */
	uint64_t try_ns;                    /* when those that are half-open or in the ramp are looked at next */
	uint32_t looks;                     /* at sides, ever */
	uint64_t look_ns;                   /* when sides are looked at next, without any news */
};

/* Changes the word by `fn`, which says what is to become of what it reads. Returns what it was before. */
struct streak breakers_change_word(struct breakers *b, uint32_t slot, struct streak (*fn)(struct streak s));
/* By decide's own judgement; what led to it stays. */
struct streak breakers_to_open(struct streak s);
/* Refusals say that it is the backend after all. */
bool breakers_is_only_silent(const struct streak *s);
/* The backend in that slot, which may have another owner by now; NULL: it has none. */
struct backend *breakers_backend_at(struct breakers *b, uint32_t slot, struct slot_info *info);
/* The word is open; here it is as well from now on. */
void breakers_open(struct breakers *b, const struct slot_info *info, struct backend *backend, enum breaker_cause cause,
		   const char *evidence, enum cure_mode mode, uint64_t now_ns);

/* What the events do not have, for the next one to say; nothing if that is nothing. */
#define BREAKERS_UNTOLD_LEN 80
void breakers_say_untold(uint32_t n, char out[static BREAKERS_UNTOLD_LEN]);
/* It is closed, as if it had never been open; the word says so already. */
void breakers_take_back(struct breakers *b, const struct slot_info *info, struct backend *backend, const char *why,
			uint64_t now_ns);
/* It is not closed: looked at until it is. */
void breakers_list(struct breakers *b, uint32_t slot);
/* It gets a share of its flows that grows; it was closed, or half-open. */
void breakers_begin_ramp(struct breakers *b, const struct slot_info *info, struct backend *backend, uint64_t now_ns);

/* breakers_gone.c */
extern const struct services_watcher breakers_watcher; /* its argument is the breakers */
void breakers_forgotten(void *arg, const struct breaker_past *past);
/* Returns 0 or -ENOENT: nothing is known of such a backend. */
int breakers_force_gone(struct breakers *b, const char *backend_id, enum breaker_force force, uint64_t now_ns);

/* breakers_judge.c: one that is closed or in the ramp failed. True: look again at again_ns, or with the next news. */
bool breakers_judge(struct breakers *b, const struct slot_info *info, struct backend *backend, enum cure_mode mode,
		    uint64_t now_ns);

/* Sets may shrink: what is out for its application's fault beyond its part of the side is taken back. */
struct breakers_spare {
	struct breakers *b;
	uint64_t now_ns;
};
void breakers_spare(void *arg, const struct services_side *side);

/* breakers_sides.c */
void breakers_look_at_sides(struct breakers *b, uint64_t now_ns);
/* The wall is off. */
void breakers_forget_sides(struct breakers *b);
