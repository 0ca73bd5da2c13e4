/* SPDX-License-Identifier: BSD-3-Clause */
#include "world.h"

#include <stdarg.h>
#include <stdio.h>

static char story[1 << 20];
static size_t story_len;

void world_say_so(const char *format, ...)
{
	va_list args;
	int n;

	if (story_len > sizeof(story) - 512)
		story_len = snprintf(story, sizeof(story), "…\n");
	n = snprintf(story + story_len, sizeof(story) - story_len, "%8.3f ",
		     (double)(world.rig.now_ns - world.options.now_ns) / 1e9);
	va_start(args, format);
	n += vsnprintf(story + story_len + n, sizeof(story) - story_len - n, format, args);
	va_end(args);
	story_len += n;
	story[story_len++] = '\n';
}

void world_forget(void)
{
	story_len = 0;
}

void world_print(void)
{
	fwrite(story, 1, story_len, stderr);
	fflush(stderr);
}

void world_fail(const char *format, ...)
{
	va_list args;

	world_print();
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n");
	story_len = 0;
	__builtin_trap();
}
