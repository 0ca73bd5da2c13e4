/* SPDX-License-Identifier: BSD-3-Clause */
/* The lists of observe.h as tables. */
#include "observe.h"

const char *const made_name[MADE_COUNT] = {
#define M(name, help) #name,
	MADE_LIST(M)
#undef M
};

const struct action_info action_info[ACTION_COUNT] = {
#define A(name_, cure_, help_) {#name_, help_, CURE_##cure_},
	ACTION_LIST(A)
#undef A
};

const char *const ptb_name[PTB_COUNT] = {
#define P(name, help) #name,
	PTB_LIST(P)
#undef P
};
