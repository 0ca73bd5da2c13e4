/* SPDX-License-Identifier: BSD-3-Clause */
#include "ctl.h"

#include <curl/curl.h>

#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SOCKET_DEFAULT "/run/spillway/api.sock"

static const struct command {
	const char *name, *args;
	command_fn *run;
	bool shows; /* changes nothing: may be watched */
	const char *help;
} commands[] = {
	{"status", "", command_status, true, "state, workers and ports; exit code 3 if it is not ready"},
	{"services", "", command_services, true, "services and how many flows each took and refused"},
	{"backends", "[limit=N]", command_backends, true, "backends, their life, load and failures"},
	{"flows", "[ADDRESS[:PORT]] [service=NAME] [backend=ID] [limit=N]", command_flows, true,
	 "flows and their states; any address of a flow may be asked for"},
	{"paths", "[ADDRESS] [limit=N]", command_paths, true,
	 "path MTUs that routers told, of clients, their prefixes and backends"},
	{"names", "", command_names, true, "DNS names and when they are asked again"},
	{"ledger", "", command_ledger, true, "where every packet went, and why"},
	{"clients", "[ADDRESS] [limit=N]", command_clients, true, "what became of each client's attempts"},
	{"events", "[--follow] [since=NUMBER] [limit=N]", command_events, true,
	 "what changed its state, and when; --follow waits for more"},
	{"explain", "ADDRESS[:PORT]", command_explain, true,
	 "what happened to a client, a backend or a VIP; with a SNAT address and port: whose flow that is or was"},
	{"reload", "", command_reload, false, "read the configuration file again"},
	{"cure", "NAME MODE", command_cure, false,
	 "wall, names, silence, path or storm to enforce, shadow or off, until the next reload"},
	{"breaker", "BACKEND open|close|auto", command_breaker, false,
	 "hold a backend's breaker open or closed, or leave it to itself again"},
	{"limiter", "BACKEND reset", command_limiter, false,
	 "measure anew what first bytes of a backend usually take: it was changed, and is slower for good"},
	{"drain", "BACKEND [service=NAME] [deadline=30s] [set=auto]", command_drain, false,
	 "take a backend out: no new flows, and its flows end at the deadline; set=auto puts it back, as a reload does"},
	{"check", "FILE", command_check, false, "check a configuration file (spillway --check; exits as that does)"},
};

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void print_help(void)
{
	printf("spillwayctl [OPTION]... COMMAND [ARGUMENT]...\n\nCommands:\n");
	for (size_t i = 0; i < N_COMMANDS; i++)
		printf("  %s%s%s\n        %s\n", commands[i].name, *commands[i].args ? " " : "", commands[i].args,
		       commands[i].help);
	printf("\nOptions:\n"
	       "  --json           the API's answer as it is\n"
	       "  --socket PATH    the API's socket (default: $SPILLWAY_SOCKET, else " SOCKET_DEFAULT ")\n"
	       "  --watch SECONDS  repeat until interrupted\n"
	       "  --follow         (events) go on with each event that comes\n"
	       "  --help           this text\n"
	       "  --version        the version\n"
	       "\nExit codes:\n"
	       "  0  done\n"
	       "  1  wrong usage\n"
	       "  2  the gateway cannot be reached\n"
	       "  3  refused by the gateway, or it is not ready\n");
}

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < N_COMMANDS; i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

/* Ends by a signal only, or on a usage error: a gateway that restarts is just what one watches. */
static enum ctl_exit watch(const struct command *command, const struct ctl *ctl, double seconds)
{
	struct timespec pause = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};

	for (;;) {
		if (isatty(STDOUT_FILENO))
			fputs("\033[H\033[2J", stdout);
		if (command->run(ctl) == EXIT_USAGE)
			return EXIT_USAGE;
		if (!isatty(STDOUT_FILENO) && !ctl->json)
			putchar('\n');
		if (fflush(stdout) != 0)
			return EXIT_USAGE;
		nanosleep(&pause, NULL);
	}
}

static enum ctl_exit usage_error(const char *what, const char *which)
{
	fprintf(stderr, "spillwayctl: %s%s (see spillwayctl --help)\n", what, which);
	return EXIT_USAGE;
}

static bool parse_interval(const char *text, double *seconds)
{
	char *end;

	*seconds = strtod(text, &end);
	return end != text && !*end && *seconds >= 0.1 && *seconds <= 86400;
}

static enum ctl_exit run(struct ctl *ctl, double watch_s)
{
	const struct command *command;
	enum ctl_exit result;

	if (ctl->n_args == 0)
		return usage_error("no command", "");
	command = find_command(ctl->args[0]);
	if (!command)
		return usage_error("no such command: ", ctl->args[0]);
	ctl->args++;
	ctl->n_args--;
	if (ctl->follow && (command->run != command_events || watch_s > 0))
		return usage_error("--follow is for events, without --watch, not for ", command->name);
	if (watch_s > 0 && !command->shows)
		return usage_error("--watch is for commands that show, not for ", command->name);
	result = watch_s > 0 ? watch(command, ctl, watch_s) : command->run(ctl);
	/* A full disk or a closed pipe must not pass for success. */
	if (fflush(stdout) != 0 && result == EXIT_OK)
		return usage_error("cannot write the answer", "");
	return result;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'},
		{"socket", required_argument, NULL, 's'},
		{"watch", required_argument, NULL, 'w'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{"follow", no_argument, NULL, 'f'},
		{NULL, 0, NULL, 0},
	};
	const char *env = getenv("SPILLWAY_SOCKET");
	struct ctl ctl = {.socket_path = env && *env ? env : SOCKET_DEFAULT};
	double watch_s = 0;
	int opt;

	while ((opt = getopt_long(argc, argv, "js:w:hVf", options, NULL)) != -1) {
		switch (opt) {
		case 'j':
			ctl.json = true;
			break;
		case 's':
			ctl.socket_path = optarg;
			break;
		case 'w':
			if (!parse_interval(optarg, &watch_s))
				return usage_error("--watch expects 0.1 .. 86400 seconds, not ", optarg);
			break;
		case 'f':
			ctl.follow = true;
			break;
		case 'h':
			print_help();
			return EXIT_OK;
		case 'V':
			printf("spillwayctl %s\n", SPILLWAY_VERSION);
			return EXIT_OK;
		default:
			return EXIT_USAGE;
		}
	}
	ctl.args = argv + optind;
	ctl.n_args = argc - optind;
	curl_global_init(CURL_GLOBAL_DEFAULT);
	return run(&ctl, watch_s);
}
