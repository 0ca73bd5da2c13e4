/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Any bytes are refused with a message that names a place, or accepted; what is accepted prints as a file that is
 * accepted too and prints the same.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void count(void *arg, const char *message)
{
	unsigned *n_errors = arg, line, column;
	int at = 0;

	if (sscanf(message, "fuzz:%u:%u: %n", &line, &column, &at) == 2 && line && column && at)
		*n_errors += strncmp(message + at, "warning: ", 9) != 0;
	else if (strncmp(message, "fuzz: and ", 10) != 0)
		abort();
}

static char *print(const struct config *config, size_t *len)
{
	char *text = NULL;
	FILE *stream = open_memstream(&text, len);

	if (!stream)
		abort();
	config_print(config, stream);
	fclose(stream);
	return text;
}

static void check_accepted(const struct config *config)
{
	unsigned n_errors = 0;
	size_t len, again_len;
	char *text = print(config, &len), *again_text;
	struct config *again = config_parse("fuzz", text, len, count, &n_errors);
	struct dataplane_config dataplane;

	if (!again) {
		fputs(text, stderr);
		abort();
	}
	again_text = print(again, &again_len);
	if (len != again_len || memcmp(text, again_text, len) != 0)
		abort();
	config_to_dataplane(again, 1, &dataplane);
	if (dataplane.n_workers == 0 || dataplane.flows_v4 == 0 || dataplane.flows_v6 == 0 || dataplane.n_mbufs == 0)
		abort();
	config_free(again);
	free(again_text);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned n_errors = 0;
	struct config *config = config_parse("fuzz", (const char *)data, size, count, &n_errors);

	if (config && n_errors)
		abort();
	if (config)
		check_accepted(config);
	else if (!n_errors)
		abort();
	config_free(config);
	return 0;
}
