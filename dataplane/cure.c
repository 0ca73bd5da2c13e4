/* SPDX-License-Identifier: BSD-3-Clause */
#include "cure.h"

const char *const cure_name[CURES] = {
	[CURE_WALL] = "wall", [CURE_NAMES] = "names", [CURE_SILENCE] = "silence",
	[CURE_PATH] = "path", [CURE_STORM] = "storm",
};

const char *const cure_mode_name[3] = {
	[CURE_OFF] = "off",
	[CURE_SHADOW] = "shadow",
	[CURE_ENFORCE] = "enforce",
};
