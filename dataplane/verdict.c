/* SPDX-License-Identifier: BSD-3-Clause */
#include "verdict.h"

const struct verdict_info verdict_info[VERDICT_COUNT] = {
#define V(name_, class_, cause_, help_) {#name_, help_, CLASS_##class_, CAUSE_##cause_},
	VERDICT_LIST(V)
#undef V
};

const char *cause_name(enum cause cause)
{
	static const char *const names[] = {
		[CAUSE_NONE] = "none",   [CAUSE_GATEWAY] = "gateway", [CAUSE_WALL] = "wall",
		[CAUSE_NAMES] = "names", [CAUSE_SILENCE] = "silence", [CAUSE_PATH] = "path",
		[CAUSE_STORM] = "storm",
	};
	return names[cause];
}

const char *verdict_class_name(enum verdict_class class)
{
	static const char *const names[] = {
		[CLASS_FORWARDED] = "forwarded",     [CLASS_ANSWERED] = "answered", [CLASS_SHED] = "shed",
		[CLASS_ABSORBED] = "absorbed",       [CLASS_PUNTED] = "punted",     [CLASS_DROPPED] = "dropped",
		[CLASS_HANDED_OVER] = "handed_over",
	};
	return names[class];
}
