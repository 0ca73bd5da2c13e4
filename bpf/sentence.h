/* SPDX-License-Identifier: BSD-3-Clause */
#pragma once

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

/* Writes why something was refused, for the operator, and returns -errno_value. */
__attribute__((format(printf, 4, 5))) static inline int sentence(char *err, size_t err_len, int errno_value,
								 const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(err, err_len, format, args);
	va_end(args);
	return -errno_value;
}
