/* SPDX-License-Identifier: BSD-3-Clause */
#include "resolver.h"

#include <ares.h>
#include <event2/event.h>

#include <arpa/nameser.h>
#include <sys/queue.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define SERVERS_MAX 8
#define TRIES_MIN   3
#define EDNS_SIZE   1232

/* A socket of c-ares, watched for as long as c-ares wants. */
struct watched_socket {
	LIST_ENTRY(watched_socket) link;
	struct server *server;
	struct event *event;
	evutil_socket_t fd;
};

/*
 * A channel for each server: c-ares hides which server said SERVFAIL or REFUSED when it chooses the next one itself,
 * and forgets which one works.
 */
struct server {
	ares_channel channel; /* NULL: not made */
	struct resolver *resolver;
	LIST_HEAD(, watched_socket) sockets;
};

struct resolver_query {
	TAILQ_ENTRY(resolver_query) link; /* in `pending`, unless c-ares has it */
	struct resolver *resolver;
	resolver_done_fn *done;
	void *arg;
	unsigned server_idx;
	unsigned n_failed; /* of this question; the next name of a chain starts anew */
	uint32_t ttl_s;
	unsigned n_chain;
	uint8_t family;
	bool pending;
	bool cancelled;
	char name[DNSREPLY_NAME_LEN];
};

struct resolver {
	struct event_base *base;
	struct event *pump; /* sends what is pending, lets c-ares see its timeouts */
	struct server servers[SERVERS_MAX];
	unsigned n_servers;
	unsigned server_idx; /* the last one that answered */
	TAILQ_HEAD(pending_head, resolver_query) pending;
	struct dnsreply reply;
};

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
	struct server *server = arg;

	/* May free the event that called. */
	ares_process_fd(server->channel, what & EV_READ ? fd : ARES_SOCKET_BAD, what & EV_WRITE ? fd : ARES_SOCKET_BAD);
}

static struct watched_socket *find_socket(struct server *server, evutil_socket_t fd)
{
	struct watched_socket *s;

	LIST_FOREACH(s, &server->sockets, link)
	if (s->fd == fd)
		return s;
	return NULL;
}

static void unwatch_socket(struct watched_socket *s)
{
	LIST_REMOVE(s, link);
	event_free(s->event);
	free(s);
}

/* Without memory for the event the socket stays unheard, and the query ends as a timeout. */
static void on_socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
	struct server *server = arg;
	struct watched_socket *s = find_socket(server, fd);
	short what = (short)((readable ? EV_READ : 0) | (writable ? EV_WRITE : 0) | EV_PERSIST);

	if (s)
		unwatch_socket(s);
	if (!readable && !writable)
		return;
	s = calloc(1, sizeof(*s));
	if (!s)
		return;
	*s = (struct watched_socket){.server = server, .fd = fd};
	s->event = event_new(server->resolver->base, fd, what, on_socket, server);
	if (!s->event || event_add(s->event, NULL) < 0) {
		if (s->event)
			event_free(s->event);
		free(s);
		return;
	}
	LIST_INSERT_HEAD(&server->sockets, s, link);
}

static void make_pending(struct resolver_query *query)
{
	query->pending = true;
	TAILQ_INSERT_TAIL(&query->resolver->pending, query, link);
	event_add(query->resolver->pump, &(struct timeval){0});
}

/* A server that is silent may have lost a packet and is asked again; one that refuses is not (RFC 9520 3.1). */
static bool may_ask_again(const struct resolver_query *query, int status)
{
	unsigned n_servers = query->resolver->n_servers;
	unsigned n_tries = status == ARES_ETIMEOUT && n_servers < TRIES_MIN ? TRIES_MIN : n_servers;

	return query->n_failed < n_tries;
}

static void read_reply(struct resolver_query *query, int status, const unsigned char *message, int len)
{
	struct dnsreply *reply = &query->resolver->reply;

	reply->ttl_s = query->ttl_s;
	reply->n_chain = query->n_chain;
	if (message && len > 0 && status != ARES_ETIMEOUT) {
		dnsreply_parse(reply, message, (size_t)len, query->name, query->family);
		return;
	}
	reply->kind = DNSREPLY_FAILED;
	reply->error = status == ARES_ETIMEOUT ? "timeout" : ares_strerror(status);
	reply->n_addresses = 0;
}

static void on_reply(void *arg, int status, int n_timeouts, unsigned char *message, int len)
{
	struct resolver_query *query = arg;
	struct resolver *resolver = query->resolver;
	struct dnsreply *reply = &resolver->reply;

	if (query->cancelled || status == ARES_EDESTRUCTION) {
		free(query);
		return;
	}
	read_reply(query, status, message, len);
	if (reply->kind == DNSREPLY_FAILED) {
		query->n_failed++;
		query->server_idx = (query->server_idx + 1) % resolver->n_servers;
		if (may_ask_again(query, status))
			return make_pending(query);
	} else {
		resolver->server_idx = query->server_idx;
	}
	if (reply->kind == DNSREPLY_CHAIN) {
		memcpy(query->name, reply->target, sizeof(query->name));
		query->ttl_s = reply->ttl_s;
		query->n_chain = reply->n_chain;
		query->n_failed = 0;
		return make_pending(query);
	}
	query->done(query->arg, reply);
	free(query);
}

static void send_pending(struct resolver *resolver)
{
	struct resolver_query *query, *last = TAILQ_LAST(&resolver->pending, pending_head);

	/* on_reply() may run within ares_query() and append: those wait for the next round. */
	while ((query = TAILQ_FIRST(&resolver->pending))) {
		bool stop = query == last;

		TAILQ_REMOVE(&resolver->pending, query, link);
		query->pending = false;
		ares_query(resolver->servers[query->server_idx].channel, query->name, ns_c_in,
			   query->family == 4 ? ns_t_a : ns_t_aaaa, on_reply, query);
		if (stop)
			break;
	}
}

static void on_pump(evutil_socket_t fd, short what, void *arg)
{
	struct resolver *resolver = arg;
	struct timeval max = {.tv_sec = 3600}, earliest = max, tv, *next;

	for (unsigned i = 0; i < resolver->n_servers; i++)
		ares_process_fd(resolver->servers[i].channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	send_pending(resolver);
	if (!TAILQ_EMPTY(&resolver->pending)) {
		event_add(resolver->pump, &(struct timeval){0});
		return;
	}
	for (unsigned i = 0; i < resolver->n_servers; i++) {
		next = ares_timeout(resolver->servers[i].channel, &max, &tv);
		if (evutil_timercmp(next, &earliest, <))
			earliest = *next;
	}
	if (evutil_timercmp(&earliest, &max, ==))
		return;
	/* c-ares compares whole milliseconds less exactly than libevent: without this the loop would spin at the end.
	 */
	earliest.tv_usec += 1000;
	event_add(resolver->pump, &earliest);
}

static int init_channel(struct server *server, uint64_t timeout_ns)
{
	struct ares_options options = {
		.flags = ARES_FLAG_EDNS | ARES_FLAG_NOCHECKRESP | ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES,
		.timeout = (int)(timeout_ns / 1000000),
		.tries = 1,
		.ednspsz = EDNS_SIZE,
		.sock_state_cb = on_socket_state,
		.sock_state_cb_data = server,
		.lookups = (char[]){"b"},
	};
	int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_EDNSPSZ | ARES_OPT_SOCK_STATE_CB |
		   ARES_OPT_LOOKUPS;

	return ares_init_options(&server->channel, &options, mask) == ARES_SUCCESS ? 0 : -ENOMEM;
}

/* What is configured or what the system says, through the channel of the first server, which has no sockets yet. */
static int list_servers(struct server *first, const char *servers_csv, struct ares_addr_port_node **list)
{
	if (servers_csv && ares_set_servers_ports_csv(first->channel, servers_csv) != ARES_SUCCESS)
		return -EINVAL;
	if (ares_get_servers_ports(first->channel, list) != ARES_SUCCESS || !*list)
		return -EINVAL;
	return 0;
}

static int add_servers(struct resolver *resolver, const struct ares_addr_port_node *list, uint64_t timeout_ns)
{
	for (; list; list = list->next) {
		struct server *server = &resolver->servers[resolver->n_servers];
		struct ares_addr_port_node one = *list;
		int err;

		if (resolver->n_servers == SERVERS_MAX)
			return -E2BIG;
		one.next = NULL;
		err = server->channel ? 0 : init_channel(server, timeout_ns);
		if (err)
			return err;
		if (ares_set_servers_ports(server->channel, &one) != ARES_SUCCESS)
			return -ENOMEM;
		resolver->n_servers++;
	}
	return 0;
}

static int init_servers(struct resolver *resolver, const char *servers_csv, uint64_t timeout_ns)
{
	struct ares_addr_port_node *list = NULL;
	int err;

	for (unsigned i = 0; i < SERVERS_MAX; i++)
		resolver->servers[i].resolver = resolver;
	err = init_channel(&resolver->servers[0], timeout_ns);
	if (err)
		return err;
	err = list_servers(&resolver->servers[0], servers_csv, &list);
	if (err)
		return err;
	err = add_servers(resolver, list, timeout_ns);
	ares_free_data(list);
	return err;
}

struct resolver *resolver_create(struct event_base *base, const char *servers_csv, uint64_t timeout_ns)
{
	struct resolver *resolver;
	int err = -ENOMEM;

	if (ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS) {
		errno = ENOMEM;
		return NULL;
	}
	resolver = calloc(1, sizeof(*resolver));
	if (!resolver)
		goto fail_library;
	resolver->base = base;
	TAILQ_INIT(&resolver->pending);
	resolver->pump = evtimer_new(base, on_pump, resolver);
	if (!resolver->pump)
		goto fail;
	err = init_servers(resolver, servers_csv, timeout_ns);
	if (err)
		goto fail;
	return resolver;

fail:
	resolver_destroy(resolver);
	errno = -err;
	return NULL;
fail_library:
	ares_library_cleanup();
	errno = -err;
	return NULL;
}

void resolver_destroy(struct resolver *resolver)
{
	struct resolver_query *query;

	if (!resolver)
		return;
	while ((query = TAILQ_FIRST(&resolver->pending))) {
		TAILQ_REMOVE(&resolver->pending, query, link);
		free(query);
	}
	for (unsigned i = 0; i < SERVERS_MAX; i++) {
		struct server *server = &resolver->servers[i];

		if (server->channel)
			ares_destroy(server->channel);
		while (!LIST_EMPTY(&server->sockets))
			unwatch_socket(LIST_FIRST(&server->sockets));
	}
	if (resolver->pump)
		event_free(resolver->pump);
	free(resolver);
	ares_library_cleanup();
}

struct resolver_query *resolver_ask(struct resolver *resolver, const char *name, uint8_t family, resolver_done_fn *done,
				    void *arg)
{
	struct resolver_query *query = malloc(sizeof(*query));

	if (!query)
		return NULL;
	*query = (struct resolver_query){
		.resolver = resolver,
		.done = done,
		.arg = arg,
		.server_idx = resolver->server_idx,
		.ttl_s = UINT32_MAX,
		.family = family,
	};
	snprintf(query->name, sizeof(query->name), "%s", name);
	make_pending(query);
	return query;
}

void resolver_cancel(struct resolver_query *query)
{
	if (!query->pending) {
		query->cancelled = true;
		return;
	}
	TAILQ_REMOVE(&query->resolver->pending, query, link);
	free(query);
}
