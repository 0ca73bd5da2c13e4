/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane.h"
#include "events.h"
#include "insist.h"
#include "observe.h"
#include "services.h"
#include "shed.h"
#include "shedding_private.h"
#include "view.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define SECOND_NS      1000000000ull
#define REST_NS        SECOND_NS       /* a place is another's only so long after its client was shed */
#define FORGET_AT_ONCE 256             /* a tick */
#define QUIET_NS       (5 * SECOND_NS) /* without any, it is over */
#define PLACE_NONE     UINT32_MAX      /* all bits set */

static_assert((int)SHED_CLIENT == STORM_CLIENT && (int)SHED_PREFIX == STORM_PREFIX &&
		      (int)SHED_SERVICE == STORM_SERVICE && (int)SHED_LIMIT == STORM_LIMIT,
	      "the gates' caps are the policy's");

uint64_t shedding_bytes(uint32_t max_clients)
{
	const struct shedding *s = NULL;

	return max_clients * (uint64_t)(sizeof(*s->places) + sizeof(*s->chains));
}

struct shedding *shedding_create(struct dataplane *dp, const struct services *services, struct events *events,
				 const struct shedding_config *config)
{
	struct shedding *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	*s = (struct shedding){.dp = dp, .services = services, .events = events, .config = *config};
	s->n_chains = config->max_clients ? config->max_clients : 1;
	s->oldest = s->newest = s->first_free = PLACE_NONE;
	s->places = calloc(s->n_chains, sizeof(*s->places));
	s->chains = calloc(s->n_chains, sizeof(*s->chains));
	s->services_at = calloc(config->n_service_slots, sizeof(*s->services_at));
	if (!s->places || !s->chains || !s->services_at ||
	    getrandom(s->secret, sizeof(s->secret), 0) != sizeof(s->secret)) {
		shedding_destroy(s);
		errno = ENOMEM;
		return NULL;
	}
	memset(s->chains, 0xff, s->n_chains * sizeof(*s->chains));
	for (uint32_t i = config->max_clients; i-- > 0;) {
		s->places[i].chain = s->first_free;
		s->first_free = i;
	}
	return s;
}

void shedding_destroy(struct shedding *s)
{
	if (!s)
		return;
	for (uint32_t i = 0; s->services_at && i < s->config.n_service_slots; i++)
		free(s->services_at[i].listeners);
	free(s->places);
	free(s->chains);
	free(s->services_at);
	free(s);
}

static uint64_t to_clock(const struct shedding *s, uint64_t at_ns)
{
	return s->clock_ns + (at_ns - s->now_ns);
}

static void write_row(struct place *p, const struct shedding_row *row, bool used)
{
	union {
		struct shedding_row row;
		uint64_t words[sizeof(p->words) / 8];
	} from = {.words = {0}};

	from.row = *row;
	seq_write_begin(&p->seq);
	for (size_t i = 0; i < sizeof(p->words) / 8; i++)
		__atomic_store_n(&p->words[i], from.words[i], __ATOMIC_RELAXED);
	__atomic_store_n(&p->used, used, __ATOMIC_RELAXED);
	seq_write_end(&p->seq);
}

static struct shed_key key_of(const struct shedding_row *row)
{
	return (struct shed_key){row->client, row->vip, row->port_be};
}

static uint32_t *chain_of(struct shedding *s, const struct shedding_row *row)
{
	struct {
		struct ipaddr client, vip;
		uint64_t port_be;
	} key = {row->client, row->vip, row->port_be};

	if (!ipaddr_is_v4(&key.client))
		key.client.q_be[1] = 0;
	return &s->chains[hash_keyed(&key, sizeof(key), s->secret) % s->n_chains];
}

static uint32_t find(struct shedding *s, const struct shedding_row *row)
{
	uint32_t i = *chain_of(s, row);

	while (i != PLACE_NONE) {
		const struct shedding_row *r = &s->places[i].row;

		if (shedding_same_client(&r->client, &row->client) && ipaddr_equal(&r->vip, &row->vip) &&
		    r->port_be == row->port_be)
			break;
		i = s->places[i].chain;
	}
	return i;
}

static void unlink_age(struct shedding *s, uint32_t i)
{
	struct place *p = &s->places[i];

	*(p->older == PLACE_NONE ? &s->oldest : &s->places[p->older].newer) = p->newer;
	*(p->newer == PLACE_NONE ? &s->newest : &s->places[p->newer].older) = p->older;
}

static void make_newest(struct shedding *s, uint32_t i)
{
	struct place *p = &s->places[i];

	p->older = s->newest;
	p->newer = PLACE_NONE;
	*(s->newest == PLACE_NONE ? &s->oldest : &s->places[s->newest].newer) = i;
	s->newest = i;
}

static void forget_oldest(struct shedding *s)
{
	uint32_t i = s->oldest, *link;
	struct place *p = &s->places[i];
	struct shed_key key = key_of(&p->row);

	shed_untie(s->config.shed, &key);
	for (link = chain_of(s, &p->row); *link != i; link = &s->places[*link].chain)
		;
	*link = p->chain;
	unlink_age(s, i);
	write_row(p, &(struct shedding_row){0}, false);
	p->chain = s->first_free;
	s->first_free = i;
	__atomic_store_n(&s->n_used, s->n_used - 1, __ATOMIC_RELAXED);
}

/* PLACE_NONE: all are of clients that are shed, or were just now. */
static uint32_t take_place(struct shedding *s)
{
	uint32_t i;

	if (s->first_free == PLACE_NONE && s->oldest != PLACE_NONE &&
	    s->places[s->oldest].row.until_ns + REST_NS <= s->now_ns)
		forget_oldest(s);
	i = s->first_free;
	if (i != PLACE_NONE)
		s->first_free = s->places[i].chain;
	return i;
}

/* A new client's; false: there is no room. */
static bool enter(struct shedding *s, struct shedding_row *row)
{
	struct shed_key key = key_of(row);
	uint32_t i = take_place(s), *chain;

	if (i == PLACE_NONE) {
		__atomic_store_n(&s->full, s->full + 1, __ATOMIC_RELAXED);
		return false;
	}
	shed_set(s->config.shed, i, row->cap, row->service.slot, to_clock(s, row->until_ns));
	/* Before it is tied: what the gates discard from then on is this client's. */
	row->packets = shed_packets(s->config.shed, i);
	if (shed_tie(s->config.shed, &key, i)) {
		s->places[i].chain = s->first_free;
		s->first_free = i;
		__atomic_store_n(&s->full, s->full + 1, __ATOMIC_RELAXED);
		return false;
	}
	write_row(&s->places[i], row, true);
	chain = chain_of(s, row);
	s->places[i].chain = *chain;
	*chain = i;
	make_newest(s, i);
	__atomic_store_n(&s->n_used, s->n_used + 1, __ATOMIC_RELAXED);
	return true;
}

static void enter_again(struct shedding *s, uint32_t i, const struct shedding_row *news)
{
	struct shedding_row row = s->places[i].row;

	/* Several workers tell of it: the last to let it in again. */
	row.until_ns = news->until_ns > row.until_ns ? news->until_ns : row.until_ns;
	row.times++;
	row.cap = news->cap;
	row.service = news->service;
	shed_set(s->config.shed, i, row.cap, row.service.slot, to_clock(s, row.until_ns));
	write_row(&s->places[i], &row, true);
	unlink_age(s, i);
	make_newest(s, i);
}

static void put_ends(struct shedding *s)
{
	uint64_t clients_ns = s->clients_until_ns ? to_clock(s, s->clients_until_ns) : 0;

	shed_set_ends(s->config.shed, clients_ns, s->sharing ? s->clock_ns + SHARE_NS : 0);
}

static void begin_spell(struct spell *spell, uint64_t packets, uint64_t now_ns)
{
	if (!spell->since_ns)
		*spell = (struct spell){.since_ns = now_ns, .packets = packets};
	spell->last_ns = now_ns;
}

static struct service *service_of(struct shedding *s, const struct slot_ref *ref)
{
	struct service *svc = ref->slot < s->config.n_service_slots ? &s->services_at[ref->slot] : NULL;

	return svc && svc->seen && svc->ref.generation == ref->generation ? svc : NULL;
}

static void tell_clients(struct shedding *s, struct service *svc, const struct shedding_row *row)
{
	char client[IPADDR_STRLEN];

	ipaddr_format(&row->client, client);
	events_add(s->events, EVENT_WARNING, "early_shedding", cure_name[CURE_STORM], svc->name,
		   "clients insist beyond %s, the first of them %s: their SYNs are discarded by the XDP program, for a "
		   "second at most each time",
		   row->cap == STORM_CLIENT ? "storm.client_rate" : "storm.prefix_rate", client);
}

void shedding_note(struct shedding *s, const struct note *note, enum cure_mode mode, uint64_t now_ns, uint64_t clock_ns)
{
	struct service *svc = service_of(s, &note->insists.service);
	struct shedding_row row = {
		.client = note->insists.client,
		.vip = note->insists.vip,
		.service = note->insists.service,
		.first_ns = now_ns,
		.until_ns = note->insists.until_ns,
		.times = 1,
		.port_be = note->insists.port_be,
		.cap = note->insists.cap,
	};
	uint32_t i;

	/* It came late, or is of a policy that is no more: all workers had the new one before what went by it ended. */
	if (!s->config.shed || mode != CURE_ENFORCE || !svc || row.until_ns <= now_ns ||
	    note->insists.at_ns <= s->ended_ns)
		return;
	s->now_ns = now_ns;
	s->clock_ns = clock_ns;
	if (!svc->clients.since_ns)
		tell_clients(s, svc, &row);
	begin_spell(&svc->clients, svc->counts.of_clients, now_ns);
	i = find(s, &row);
	if (i != PLACE_NONE)
		enter_again(s, i, &row);
	else if (!enter(s, &row))
		return;
	else
		svc->clients.clients++;
	if (row.until_ns > s->clients_until_ns) {
		s->clients_until_ns = row.until_ns;
		put_ends(s);
	}
}

/* --- a share of all --- */

static void drop_share(struct shedding *s, struct service *svc)
{
	for (size_t i = 0; i < svc->n_listeners; i++)
		shed_del_share(s->config.shed, &svc->listeners[i].addr, svc->listeners[i].port_be);
	free(svc->listeners);
	svc->listeners = NULL;
	svc->n_listeners = 0;
}

/* Its listeners of TCP. */
static bool take_listeners(struct service *svc, const struct config_service *config)
{
	svc->listeners = calloc(config->n_listen, sizeof(*svc->listeners));
	for (size_t i = 0; svc->listeners && i < config->n_listen; i++)
		if (config->listen[i].proto == PROTO_TCP)
			svc->listeners[svc->n_listeners++] =
				(struct listener){config->listen[i].addr, config->listen[i].port_be};
	return svc->n_listeners;
}

static void tell_share(struct shedding *s, const struct service *svc)
{
	events_add(s->events, EVENT_WARNING, "early_shedding_all", cure_name[CURE_STORM], svc->name,
		   "%" PRIu64 " SYNs a second come and %" PRIu64
		   " are let in, the others are beyond %s: the XDP program "
		   "lets %.1f%% of all through to choose from",
		   svc->offered, svc->admitted,
		   svc->cap == SHED_SERVICE ? "storm.rate" : "what the backends bear or may have",
		   svc->pass / 4294967296.0 * 100);
}

static void put_share(struct shedding *s, struct service *svc, const struct config_service *config)
{
	bool first = !svc->n_listeners;

	if (first && !take_listeners(svc, config)) {
		drop_share(s, svc);
		return;
	}
	for (size_t i = 0; i < svc->n_listeners; i++)
		if (shed_set_share(s->config.shed, &svc->listeners[i].addr, svc->listeners[i].port_be, svc->cap,
				   svc->ref.slot, svc->pass, s->clock_ns + SHARE_NS))
			__atomic_store_n(&s->full, s->full + 1, __ATOMIC_RELAXED);
	if (!svc->all.since_ns)
		tell_share(s, svc);
	begin_spell(&svc->all, svc->counts.of_all, s->now_ns);
}

static uint64_t best_of(const struct service *svc)
{
	uint64_t best = 0;

	for (int i = 0; i < BEST_TICKS; i++)
		best = svc->best[i] > best ? svc->best[i] : best;
	return best;
}

static uint64_t per_s(uint64_t n, uint64_t dt_ns)
{
	return (unsigned __int128)n * SECOND_NS / dt_ns;
}

/* The same one again and again is work, too, though no other attempt. */
static uint64_t syns_of(const struct service_report *r)
{
	return r->attempts + r->repeated;
}

/* Sets `pass` and `cap`, and returns true, if so many come in vain that a share of them is enough. */
static bool wants_share(struct service *svc, const struct service_report *r, uint64_t of_all, uint64_t dt_ns)
{
	uint64_t syns = syns_of(r) - svc->syns, silent = r->silent_many - svc->silent_many, keep;

	memmove(svc->best + 1, svc->best, sizeof(svc->best) - sizeof(svc->best[0]));
	svc->best[0] = per_s(r->new_flows - svc->new_flows, dt_ns);
	svc->admitted = best_of(svc);
	svc->offered = per_s(syns + of_all - svc->counts.of_all, dt_ns);
	keep = SHARE_TIMES * svc->admitted > SHARE_MIN_PER_S ? SHARE_TIMES * svc->admitted : SHARE_MIN_PER_S;
	if (svc->offered <= keep || silent * 2 < syns)
		return false;
	svc->pass = (keep << 32) / svc->offered;
	svc->cap = (r->silent_rate - svc->silent_rate) * 2 >= silent ? SHED_SERVICE : SHED_LIMIT;
	return true;
}

/* --- services --- */

static void forget_service(struct shedding *s, struct service *svc)
{
	drop_share(s, svc);
	*svc = (struct service){0};
}

static void begin_service(struct shedding *s, struct service *svc, const struct services_row *row)
{
	forget_service(s, svc);
	svc->ref = row->ref;
	svc->before = svc->counts = shed_counts(s->config.shed, row->ref.slot);
	snprintf(svc->name, sizeof(svc->name), "%s", row->name);
}

static void tell_over(struct shedding *s, const struct service *svc, const struct spell *spell, bool all,
		      uint64_t packets)
{
	char clients[60] = "";

	if (!all)
		snprintf(clients, sizeof(clients), " of %" PRIu64 " clients", spell->clients);
	events_add(s->events, EVENT_INFO, all ? "early_shedding_all_over" : "early_shedding_over",
		   cure_name[CURE_STORM], svc->name,
		   "%" PRIu64 " SYNs%s were discarded by the XDP program within %.1f s", packets - spell->packets,
		   clients, (spell->last_ns - spell->since_ns) / 1e9);
}

static void end_spells(struct shedding *s, struct service *svc, const struct shed_counts *counts)
{
	if (svc->clients.since_ns && s->now_ns - svc->clients.last_ns >= QUIET_NS) {
		tell_over(s, svc, &svc->clients, false, counts->of_clients);
		svc->clients.since_ns = 0;
	}
	if (svc->all.since_ns && s->now_ns - svc->all.last_ns >= QUIET_NS) {
		tell_over(s, svc, &svc->all, true, counts->of_all);
		svc->all.since_ns = 0;
	}
}

/* Where nothing is shed the gates' counts stand still: they are not asked for. */
static struct shed_counts counts_of(const struct shedding *s, const struct service *svc)
{
	if (!svc->clients.since_ns && !svc->all.since_ns)
		return svc->counts;
	return shed_counts(s->config.shed, svc->ref.slot);
}

struct ticking {
	struct shedding *s;
	enum cure_mode mode;
	uint64_t dt_ns;
};

static void tick_service(void *arg, const struct services_row *row)
{
	const struct ticking *t = arg;
	struct shedding *s = t->s;
	struct service *svc = &s->services_at[row->ref.slot];
	struct shed_counts counts;
	struct service_report r;
	bool wanted;

	if (!row->config || !row->part)
		return;
	if (svc->ref.generation != row->ref.generation || !svc->known)
		begin_service(s, svc, row);
	svc->seen = true;
	observe_service(s->dp, row->ref.slot, &r);
	counts = counts_of(s, svc);
	wanted = svc->known && t->mode == CURE_ENFORCE && row->part->storm.early &&
		 wants_share(svc, &r, counts.of_all, t->dt_ns) && !s->just_ended;
	if (wanted)
		put_share(s, svc, row->config);
	else
		drop_share(s, svc);
	s->sharing |= svc->n_listeners > 0;
	svc->syns = syns_of(&r);
	svc->new_flows = r.new_flows;
	svc->silent_many = r.silent_many;
	svc->silent_rate = r.silent_rate;
	svc->counts = counts;
	svc->known = true;
	end_spells(s, svc, &counts);
}

/* --- all --- */

static void forget_old(struct shedding *s)
{
	for (int i = 0; i < FORGET_AT_ONCE && s->oldest != PLACE_NONE; i++) {
		if (s->places[s->oldest].row.until_ns + SHEDDING_KEPT_NS > s->now_ns)
			return;
		forget_oldest(s);
	}
}

/*
 * In the order in which they were entered, the newest first: one that has been over for longer than anybody is shed for
 * was entered before that, and so were all that follow it.
 */
static bool may_be_shed(const struct shedding *s, uint32_t i)
{
	return s->clients_until_ns && i != PLACE_NONE && s->places[i].row.until_ns + INSIST_MAX_NS >= s->now_ns;
}

static void count_live(struct shedding *s)
{
	uint64_t n = 0;

	for (uint32_t i = s->newest; may_be_shed(s, i); i = s->places[i].older)
		n += s->places[i].row.until_ns > s->now_ns;
	__atomic_store_n(&s->n_live, n, __ATOMIC_RELAXED);
}

static void end_clients(struct shedding *s)
{
	for (uint32_t i = s->newest; may_be_shed(s, i); i = s->places[i].older) {
		struct shedding_row row = s->places[i].row;

		if (row.until_ns <= s->now_ns)
			continue;
		row.until_ns = s->now_ns;
		shed_set_until(s->config.shed, i, s->clock_ns);
		write_row(&s->places[i], &row, true);
	}
	s->clients_until_ns = 0;
	__atomic_store_n(&s->n_live, 0, __ATOMIC_RELAXED);
}

void shedding_end_all(struct shedding *s, uint64_t now_ns, uint64_t clock_ns)
{
	if (!s->config.shed)
		return;
	s->now_ns = s->ended_ns = now_ns;
	s->clock_ns = clock_ns;
	s->just_ended = true;
	shed_set_ends(s->config.shed, 0, 0);
	end_clients(s);
	for (uint32_t i = 0; i < s->config.n_service_slots; i++)
		drop_share(s, &s->services_at[i]);
	s->sharing = false;
}

void shedding_tick(struct shedding *s, enum cure_mode mode, uint64_t now_ns, uint64_t clock_ns)
{
	struct ticking t = {s, mode, now_ns - s->ticked_ns};

	if (!s->config.shed || now_ns <= s->ticked_ns)
		return;
	if (mode != CURE_ENFORCE && (s->clients_until_ns || s->sharing))
		shedding_end_all(s, now_ns, clock_ns);
	s->now_ns = now_ns;
	s->clock_ns = clock_ns;
	s->ticked_ns = now_ns;
	s->sharing = false;
	for (uint32_t i = 0; i < s->config.n_service_slots; i++)
		s->services_at[i].seen = false;
	services_foreach(s->services, tick_service, &t);
	s->just_ended = false;
	for (uint32_t i = 0; i < s->config.n_service_slots; i++)
		if (!s->services_at[i].seen && s->services_at[i].known)
			forget_service(s, &s->services_at[i]);
	if (s->clients_until_ns <= now_ns)
		s->clients_until_ns = 0;
	put_ends(s);
	count_live(s);
	forget_old(s);
}

/* --- for others --- */

void shedding_view(const struct shedding *s, struct view *view)
{
	for (size_t i = 0; s->config.shed && i < view->n_services; i++) {
		struct view_service *to = &view->services[i];
		const struct service *svc = &s->services_at[to->slot];

		if (!svc->known || svc->ref.generation != to->generation)
			continue;
		to->early = (struct view_early){
			.of_clients = svc->counts.of_clients - svc->before.of_clients,
			.of_all = svc->counts.of_all - svc->before.of_all,
			.clients_since_ns = svc->clients.since_ns,
			.all_since_ns = svc->all.since_ns,
			.pass = svc->n_listeners ? svc->pass : 0,
			.offered = svc->offered,
			.admitted = svc->admitted,
		};
	}
}
