/* SPDX-License-Identifier: BSD-3-Clause */
#include "config.h"
#include "gateway.h"
#include "host_check.h"
#include "memory_plan.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum exit_code {
	EXIT_OK = 0,
	EXIT_USAGE = 1,
	EXIT_CONFIG = 2,
	EXIT_START = 3,
};

static void print_message(void *arg, const char *message)
{
	fprintf(stderr, "%s\n", message);
}

static int usage(FILE *out, int code)
{
	fputs("usage: spillway CONFIG            run in the foreground until SIGTERM; SIGHUP reloads\n"
	      "       spillway --check CONFIG    check the file and print the memory plan\n"
	      "       spillway --example         print every key with its default\n"
	      "       spillway --version\n"
	      "exit: 0 fine, 1 usage, 2 configuration refused, 3 could not start\n",
	      out);
	return code;
}

/* As far as can be told without the devices: those that are not here count with one queue. */
static int check(const struct config *config)
{
	struct dataplane_config dataplane = {0};
	unsigned n_queues = 0;
	char err[256];
	int rc;

	for (unsigned i = 0; i < config->n_ports; i++) {
		int n = memory_plan_queues(&config->ports[i], config->n_workers, err, sizeof(err));

		if (n < 0)
			fprintf(stderr, "%s%s\n", n == -E2BIG ? "" : "warning: ", err);
		if (n == -E2BIG)
			return EXIT_CONFIG;
		n_queues += n > 0 ? n : 1;
	}
	rc = host_check_snat(config, err, sizeof(err));
	if (rc)
		fprintf(stderr, "%s%s\n", rc == -EADDRINUSE ? "" : "warning: ", err);
	if (rc == -EADDRINUSE)
		return EXIT_CONFIG;
	config_to_dataplane(config, n_queues, &dataplane);
	dataplane.max_frame = memory_plan_max_frame(config);
	if (memory_plan_check(config, &dataplane, n_queues, stdout))
		return EXIT_CONFIG;
	puts("the configuration is fine");
	return EXIT_OK;
}

static int run(struct config *config, const char *path)
{
	struct gateway *gw;

	/* Whoever reads our log may go away before us. */
	signal(SIGPIPE, SIG_IGN);
	gw = gateway_start(config, path);
	if (!gw)
		return EXIT_START;
	gateway_run(gw);
	gateway_stop(gw);
	return EXIT_OK;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"check", no_argument, NULL, 'c'},
		{"example", no_argument, NULL, 'e'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'v'},
		{0},
	};
	bool only_check = false;
	struct config *config;
	int c, code;

	while ((c = getopt_long(argc, argv, "ch", options, NULL)) != -1)
		switch (c) {
		case 'c':
			only_check = true;
			break;
		case 'e':
			config_print_example(stdout);
			return EXIT_OK;
		case 'v':
			puts("spillway " SPILLWAY_VERSION);
			return EXIT_OK;
		case 'h':
			return usage(stdout, EXIT_OK);
		default:
			return usage(stderr, EXIT_USAGE);
		}
	if (optind != argc - 1)
		return usage(stderr, EXIT_USAGE);
	config = config_load(argv[optind], print_message, NULL);
	if (!config)
		return EXIT_CONFIG;
	if (!only_check)
		return run(config, argv[optind]);
	code = check(config);
	config_free(config);
	return code;
}
