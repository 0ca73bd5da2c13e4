/* SPDX-License-Identifier: BSD-3-Clause */
/* What counts as a retry, and what becomes of retries while they have a budget: whole workers. */
#include "wall_talk.h"

#include "budget.h"
#include "hash.h"
#include "outcome_worker.h"
#include "storm.h"
#include "trial.h"

#include <netinet/in.h>
#include <string.h>

#define MS        1000000ull
#define SECOND    (1000 * MS)
#define ENDED_MS  20000 /* by then an unanswered SYN's flow is over */
#define PORT      2000  /* of the clients of attempts that are fed by hand */
#define SHARE_PPM 200000

/* Each has an address, or a /64, of its own. */
static struct ipaddr address_of(bool v6, unsigned client)
{
	struct ipaddr a = rig_client(client, v6);

	if (v6) {
		a.b[6] = client >> 8;
		a.b[7] = client;
	}
	return a;
}

static struct frame_spec of_client(const struct talk *t, uint8_t flags, uint32_t seq, uint32_t ack)
{
	struct frame_spec spec = from_client(t, flags, seq, ack);

	spec.src = address_of(t->v6, t->client);
	return spec;
}

static struct talk ask(bool v6, unsigned client)
{
	struct talk t = {.v6 = v6, .proto = PROTO_TCP, .client = client};
	struct sent s = exchange(RIG_WAN, of_client(&t, TCP_SYN, ISN, 0));

	learn(&t, &s);
	return t;
}

static struct talk connected(bool v6, unsigned client)
{
	struct talk t = ask(v6, client);

	exchange(RIG_LAN, syn_ack(&t));
	exchange(RIG_WAN, of_client(&t, TCP_ACK, ISN + 1, PEER + 1));
	return t;
}

static void begin_retries(unsigned workers, unsigned n_backends)
{
	begin_rig(workers, n_backends);
	rig.service.storm.hold_ns = 900 * MS;
	rig.service.storm.retry_budget_ppm = SHARE_PPM;
}

/* As decide does while some backend is congested: so many tokens at the most, and none yet. */
static void enforce(uint32_t cap)
{
	dataplane_service_budget(rig.dp, 0, cap, 0);
	rig.dp->cells.services[0].budget = budget_full(0, rig.now_ns);
}

static uint64_t tokens(void)
{
	const struct service_shared *shared = &rig.dp->cells.services[0];

	return budget_parts(shared->budget, shared->budget_cap, rig.now_ns) / BUDGET_TOKEN;
}

static void give_tokens(uint32_t n)
{
	rig.dp->cells.services[0].budget = budget_full(n, rig.now_ns);
}

static uint64_t tag_of(bool v6, unsigned client)
{
	struct ipaddr addr = address_of(v6, client);

	return client_tag(&rig.dp->clients, &rig.service.ref, &addr);
}

static unsigned credits_of(bool v6, unsigned client)
{
	return credits_count(&rig.dp->credits, tag_of(v6, client), rig.now_ns);
}

static void give_credits(bool v6, unsigned client, unsigned n)
{
	while (n--)
		credits_add(&rig.dp->credits, tag_of(v6, client), rig.now_ns);
}

static struct service_report report(void)
{
	struct service_report r;

	observe_service(rig.dp, 0, &r);
	return r;
}

/* One of a client's attempts: each has a port and a number of its own. */
static struct frame_spec attempt(bool v6, unsigned client, unsigned number)
{
	struct talk t = {.v6 = v6, .proto = PROTO_TCP, .client = client};
	struct frame_spec spec = of_client(&t, TCP_SYN, ISN + number * 100000, 0);

	spec.sport_be = htons(PORT + number);
	return spec;
}

/* What becomes of it at once. */
enum fate {
	WENT,
	TOLD,
	NOTHING,
};

static enum fate fate(struct frame_spec spec)
{
	struct sent s;

	feed(RIG_WAN, spec);
	turn();
	if (!take(&s))
		return NOTHING;
	assert_null(frame_checksum_error(s.frame));
	assert_false(take(&(struct sent){0}));
	if (s.port == RIG_LAN) {
		assert_int_equal(s.p.tcp_flags, TCP_SYN);
		return WENT;
	}
	assert_int_equal(s.p.tcp_flags, TCP_RST | TCP_ACK);
	assert_int_equal(ack(&s), ntohl(spec.seq_be) + 1);
	return TOLD;
}

static struct talk begin_attempt(bool v6, unsigned client, unsigned number)
{
	struct talk t = {.v6 = v6, .proto = PROTO_TCP, .client = client};
	struct sent s = exchange(RIG_WAN, attempt(v6, client, number));

	learn(&t, &s);
	return t;
}

/* --- what gives a credit --- */

/* Whatever is fed, a SYN alone makes nobody known. */
static void test_bare_syns(bool v6, unsigned workers)
{
	static const struct credit_set none;

	begin_retries(workers, 2);
	for (unsigned client = 0; client < 100; client++)
		assert_int_equal(fate(attempt(v6, client, 0)), WENT);
	for (uint64_t i = 0; i <= rig.dp->credits.mask; i++)
		assert_memory_equal(&rig.dp->credits.sets[i], &none, sizeof(none));
	stop();
}

static void test_refused_here(bool v6, unsigned workers)
{
	begin_retries(workers, 2);
	rig.service.sets[v6][SET_TCP].n_backends = 0;
	for (unsigned i = 0; i < 4; i++) {
		assert_int_not_equal(fate(attempt(v6, 5, i)), WENT);
		assert_int_equal(credits_of(v6, 5), i + 1);
	}
	assert_int_equal(credits_of(v6, 6), 0);
	stop();
}

/* Each way in which a backend fails, and no other backend to turn to: one credit, however it goes on. */
static void test_backend_fails(bool v6, unsigned workers)
{
	uint8_t frame[FRAME_MAX];
	struct talk t[4];
	struct sent s;
	size_t len;

	begin_retries(workers, 1);
	for (unsigned i = 0; i < 4; i++)
		t[i] = connected(v6, i);
	t[0] = ask(v6, 10);
	exchange(RIG_LAN, refusal(&t[0]));
	assert_int_equal(credits_of(v6, 10), 1);

	/* Silence: at its time, and not again when the flow ends. */
	t[1] = ask(v6, 11);
	assert_int_equal(credits_of(v6, 11), 0);
	pass_ms(1240);
	assert_int_equal(credits_of(v6, 11), 1);
	assert_int_equal(credits_of(v6, 10), 1);
	pass_ms(ENDED_MS);
	assert_int_equal(credits_of(v6, 11), 0);
	*word_of(v6, &t[1].backend) = 0;

	t[2] = (struct talk){.v6 = v6, .proto = PROTO_TCP, .client = 12};
	s = exchange(RIG_WAN, of_client(&t[2], TCP_SYN, ISN, 0));
	learn(&t[2], &s);
	len = make_error(frame, s.frame, t[2].backend, v6 ? 1 : 3, 1, 0);
	feed_raw(RIG_LAN, 0, frame, len);
	turn();
	take_all();
	assert_int_equal(credits_of(v6, 12), 1);
	stop();
}

static void test_backend_resets(bool v6, unsigned workers)
{
	struct talk t;

	begin_retries(workers, 1);
	for (unsigned client = 0; client < 2; client++) {
		t = connected(v6, client);
		exchange(RIG_WAN, with_payload(of_client(&t, TCP_ACK, ISN + 1, PEER + 1), 100));
		if (client)
			exchange(RIG_LAN, with_payload(from_backend(&t, TCP_ACK, PEER + 1, ISN + 101), 100));
		exchange(RIG_LAN, from_backend(&t, TCP_RST, client ? PEER + 101 : PEER + 1, 0));
		assert_int_equal(credits_of(v6, client), !client);
	}
	stop();
}

/* Its client left for want of an answer; not one that only says that it has asked all. */
static void test_client_gives_up(bool v6, unsigned workers)
{
	begin_retries(workers, 1);
	for (unsigned client = 0; client < 3; client++) {
		struct talk t = connected(v6, client);

		exchange(RIG_WAN, with_payload(of_client(&t, TCP_ACK, ISN + 1, PEER + 1), 100));
		pass_ms(client ? 1200 : 40);
		exchange(RIG_WAN, of_client(&t, client == 2 ? TCP_RST : TCP_FIN | TCP_ACK, ISN + 101, PEER + 1));
		assert_int_equal(credits_of(v6, client), client > 0);
	}
	stop();
}

/* Another backend took over: nothing has failed. */
static void test_resteered(bool v6, unsigned workers)
{
	struct talk t;

	begin_retries(workers, 2);
	t = ask(v6, 5);
	t = refuse(&t);
	assert_int_equal(credits_of(v6, 5), 0);
	exchange(RIG_LAN, syn_ack(&t));
	exchange(RIG_WAN, of_client(&t, TCP_ACK, ISN + 1, PEER + 1));
	assert_int_equal(credits_of(v6, 5), 0);
	assert_true(credits_served_lately(&rig.dp->credits, tag_of(v6, 5), rig.now_ns));
	/* And the second one refuses, too: that is one. */
	t = ask(v6, 6);
	t = refuse(&t);
	exchange(RIG_LAN, refusal(&t));
	assert_int_equal(credits_of(v6, 6), 1);
	stop();
}

/* Without the wall nobody looks at a SYN's time but its flow's own. */
static void test_without_the_wall(bool v6, unsigned workers)
{
	begin_retries(workers, 1);
	rig.policy.modes.of[CURE_WALL] = CURE_OFF;
	ask(v6, 5);
	pass_ms(14000);
	assert_int_equal(credits_of(v6, 5), 0);
	pass_ms(1500);
	assert_int_equal(credits_of(v6, 5), 1);
	stop();
}

/* --- the budget --- */

static void test_not_enforced(bool v6, unsigned workers)
{
	begin_retries(workers, 2);
	give_credits(v6, 5, 10);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(fate(attempt(v6, 5, i)), WENT);
	assert_int_equal(credits_of(v6, 5), 10);
	assert_int_equal(report().retries, 0);
	stop();
}

/* As many retries as there are tokens, then a RST, twice a second, then silence; nobody else is concerned. */
static void test_refused(bool v6, unsigned workers)
{
	uint64_t told;

	begin_retries(workers, 2);
	give_credits(v6, 5, 10);
	enforce(100);
	give_tokens(3);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(fate(attempt(v6, 5, i)) == WENT, i < 3);
	assert_int_equal(report().retries, 3);
	told = verdicts(VERDICT_answer_storm_retry);
	assert_in_range(told, 1, workers);
	assert_int_equal(verdicts(VERDICT_shed_storm_retry), 5 - told);
	assert_int_equal(did(ACTION_refuse_retry), told);
	assert_int_equal(did(ACTION_silence_retry), 5 - told);
	assert_int_equal(report().refused, told);
	assert_int_equal(report().silent, 5 - told);
	assert_int_equal(report().refused_storm, 5);
	assert_int_equal(report().held, 0);
	/* Each has used up one, and a token that is wanting gives none. */
	assert_int_equal(credits_of(v6, 5), 2);
	assert_int_equal(fate(attempt(v6, 6, 0)), WENT);
	/* Five first attempts earn a token. */
	for (unsigned i = 1; i < 5; i++)
		assert_int_equal(fate(attempt(v6, 6, i)), WENT);
	assert_int_equal(tokens(), 1);
	assert_int_equal(fate(attempt(v6, 5, 20)), WENT);
	assert_int_not_equal(fate(attempt(v6, 5, 21)), WENT);
	assert_int_equal(report().retries, 4);
	assert_int_equal(report().first_attempts, 5);
	check_books();
	stop();
}

/* Forged UDP earns nothing for anybody: it is no attempt of either kind. */
static void test_udp(bool v6, unsigned workers)
{
	begin_retries(workers, 2);
	enforce(100);
	for (unsigned i = 0; i < 20; i++) {
		struct talk t = {.v6 = v6, .proto = PROTO_UDP, .client = i};

		assert_int_equal(exchange(RIG_WAN, from_client(&t, 0, 0, 0)).port, RIG_LAN);
	}
	assert_int_equal(report().new_flows, 20);
	assert_int_equal(report().first_attempts, 0);
	assert_int_equal(tokens(), 0);
	stop();
}

/* B-7: who is refused for want of a token, or has one and is refused for something else, takes none. */
static void test_denied_takes_nothing(bool v6, unsigned workers)
{
	struct service_shared before;

	for (int has_token = 0; has_token < 2; has_token++) {
		begin_retries(workers, 2);
		give_credits(v6, 5, 5);
		for (enum storm_cap cap = 0; cap < STORM_CAPS; cap++)
			assert_int_equal(gcra_rate_init(&rig.service.storm.caps[cap], 100, SECOND, 10), 0);
		enforce(100);
		give_tokens(has_token ? 5 : 0);
		if (has_token)
			rig.service.sets[v6][SET_TCP].n_backends = 0;
		before = rig.dp->cells.services[0];
		for (unsigned i = 0; i < 5; i++)
			assert_int_not_equal(fate(attempt(v6, 5, i)), WENT);
		assert_memory_equal(&before, &rig.dp->cells.services[0], sizeof(before));
		assert_null(client_lookup(&rig.dp->clients, tag_of(v6, 5)).bucket);
		assert_int_equal(credits_of(v6, 5), has_token ? 5 : 0);
		stop();
	}
}

/* One held has a place, and spends its token when it goes; if there is none by then, it goes away. */
static void test_held(bool v6, unsigned workers)
{
	for (int gone = 0; gone < 2; gone++) {
		begin_retries(workers, 2);
		assert_int_equal(gcra_rate_init(&rig.service.storm.caps[STORM_SERVICE], 10, SECOND, 0), 0);
		assert_int_equal(fate(attempt(v6, 4, 0)), WENT);
		give_credits(v6, 5, 1);
		enforce(100);
		give_tokens(3);
		assert_int_equal(fate(attempt(v6, 5, 0)), NOTHING);
		assert_int_equal(report().holding, 1);
		assert_int_equal(tokens(), 3);
		assert_int_equal(credits_of(v6, 5), 0);
		if (gone)
			give_tokens(0);
		pass_ms(160);
		assert_int_equal(report().holding, 0);
		assert_int_equal(report().retries, !gone);
		assert_int_equal(verdicts(VERDICT_answer_storm_retry), gone);
		assert_int_equal(tokens(), gone ? 0 : 2);
		assert_int_equal(credits_of(v6, 5), 0);
		take_all();
		stop();
	}
}

#define SECONDS 30

/* B-5, over any ten seconds of a crowd of both kinds. */
static void test_budget(bool v6, unsigned workers)
{
	const uint32_t cap = 50;
	unsigned first[SECONDS] = {0}, retries[SECONDS] = {0}, number = 0;
	uint64_t random = 3;

	begin_retries(workers, 2);
	rig.service.timeouts.syn_sent_ms = 200;
	rig.policy.modes.of[CURE_WALL] = CURE_OFF;
	enforce(cap);
	for (unsigned ms = 0; ms < SECONDS * 1000; ms += 10) {
		unsigned load = 1 + ms / 5000 % 3, second = ms / 1000;
		uint64_t before = report().retries;

		for (unsigned i = 0; i < load; i++, number++) {
			give_credits(v6, 100 + number % 50, 1);
			feed(RIG_WAN, attempt(v6, 100 + number % 50, number % 50000));
		}
		if (frame_random(&random) % 4)
			feed(RIG_WAN, attempt(v6, 1000 + ms / 10, 0));
		turn();
		for (struct sent s; take(&s);)
			first[second] += s.port == RIG_LAN;
		retries[second] += report().retries - before;
		first[second] -= report().retries - before;
		rig.now_ns += 10 * MS;
	}
	for (unsigned from = 0; from + 10 <= SECONDS; from++) {
		unsigned n_first = 0, n_retries = 0;

		for (unsigned i = from; i < from + 10; i++) {
			n_first += first[i];
			n_retries += retries[i];
		}
		assert_in_range(n_first, 600, 900);
		assert_in_range(n_retries, n_first / 5 + 45, n_first / 5 + 50 + cap + workers);
	}
	assert_true(report().refused_storm > 1000);
	stop();
}

/*
 * Scenario 9: an address with many users, of whose attempts one in a hundred fails. No more are retries than failed,
 * and all go.
 */
static void test_b12_9_many_users(bool v6, unsigned workers)
{
	unsigned n_failed = 0;

	begin_retries(workers, 1);
	enforce(10);
	give_tokens(5);
	for (unsigned i = 0; i < 3000; i++) {
		struct talk t = {.v6 = v6, .proto = PROTO_TCP, .client = 5};
		struct frame_spec spec;
		struct sent s;

		s = exchange(RIG_WAN, attempt(v6, 5, i));
		assert_int_equal(s.port, RIG_LAN);
		learn(&t, &s);
		spec = i % 100 ? from_backend(&t, TCP_SYN | TCP_ACK, PEER, seq(&s) + 1)
			       : from_backend(&t, TCP_RST | TCP_ACK, 0, seq(&s) + 1);
		exchange(RIG_LAN, spec);
		n_failed += i % 100 == 0;
		rig.now_ns += SECOND / 300;
	}
	assert_int_equal(n_failed, 30);
	assert_int_equal(report().new_flows, 3000);
	assert_int_equal(report().retries, n_failed);
	stop();
}

/* --- the same SYN again --- */

/*
 * Its client's kernel goes on for as long as it is refused: one attempt, of the class that it had, and one credit; none
 * where it was for want of a token.
 */
static void test_repeated(bool v6, unsigned workers)
{
	for (unsigned n_tokens = 0; n_tokens <= 50; n_tokens += 50) {
		begin_retries(workers, 2);
		give_credits(v6, 5, 1);
		enforce(100);
		if (n_tokens)
			rig.service.sets[v6][SET_TCP].n_backends = 0;
		for (unsigned i = 0; i < 10; i++) {
			give_tokens(n_tokens);
			assert_int_not_equal(fate(attempt(v6, 5, 9)), WENT);
			assert_int_equal(credits_of(v6, 5), n_tokens > 0);
			pass_ms(400);
		}
		assert_int_equal(report().attempts, 1);
		assert_int_equal(report().repeated, 9);
		assert_int_equal(report().refused + report().silent, 1);
		assert_int_equal(report().refused_storm, !n_tokens);
		rig.service.sets[v6][SET_TCP].n_backends = 2;
		give_tokens(0);
		assert_int_not_equal(fate(attempt(v6, 5, 9)), WENT);
		assert_int_equal(report().attempts, 1);
		give_tokens(1);
		assert_int_equal(fate(attempt(v6, 5, 9)), WENT);
		assert_int_equal(tokens(), 0);
		assert_int_equal(credits_of(v6, 5), 0);
		assert_int_equal(report().attempts, 2);
		assert_int_equal(report().retries, 1);
		check_books();
		stop();
	}
}

/* A first attempt that is refused stays one when it comes again, and needs no token. */
static void test_first_repeated(bool v6, unsigned workers)
{
	begin_retries(workers, 2);
	enforce(100);
	rig.service.sets[v6][SET_TCP].n_backends = 0;
	assert_int_equal(fate(attempt(v6, 5, 0)), TOLD);
	rig.service.sets[v6][SET_TCP].n_backends = 2;
	assert_int_equal(fate(attempt(v6, 5, 0)), WENT);
	assert_int_equal(credits_of(v6, 5), 0);
	assert_int_equal(report().retries, 0);
	/* With another number it is another one. */
	rig.service.sets[v6][SET_TCP].n_backends = 0;
	fate(attempt(v6, 6, 0));
	rig.service.sets[v6][SET_TCP].n_backends = 2;
	give_tokens(0);
	assert_int_not_equal(fate(attempt(v6, 6, 1)), WENT);
	assert_int_equal(verdicts(VERDICT_answer_storm_retry) + verdicts(VERDICT_shed_storm_retry), 1);
	stop();
}

/* What a failure gave is taken back once, however often the SYN comes when it has been served. */
static void test_repeated_once_served(bool v6, unsigned workers)
{
	struct talk t;

	begin_retries(workers, 2);
	rig.service.sets[v6][SET_TCP].n_backends = 0;
	assert_int_not_equal(fate(attempt(v6, 5, 0)), WENT);
	assert_int_equal(credits_of(v6, 5), 1);
	rig.service.sets[v6][SET_TCP].n_backends = 2;
	t = begin_attempt(v6, 5, 0);
	assert_int_equal(credits_of(v6, 5), 0);
	exchange(RIG_LAN, syn_ack(&t));
	feed(RIG_LAN, from_backend(&t, TCP_RST | TCP_ACK, PEER + 1, ISN + 1));
	turn();
	take_all();
	pass_ms(ENDED_MS);
	give_credits(v6, 5, 3);
	assert_int_equal(fate(attempt(v6, 5, 0)), WENT);
	assert_int_equal(credits_of(v6, 5), 3);
	stop();
}

/* Windows sends a SYN that was refused by its backend again, twice: it has failed once. */
static void test_repeated_to_its_backend(bool v6, unsigned workers)
{
	struct talk t;

	begin_retries(workers, 1);
	enforce(100);
	for (int i = 0; i < 3; i++) {
		t = ask(v6, 5);
		exchange(RIG_LAN, refusal(&t));
		assert_int_equal(credits_of(v6, 5), 1);
		pass_ms(480);
	}
	assert_int_equal(report().retries, 0);
	stop();
}

/* A SYN in the place of one that nothing has answered: it earns nothing that the first one has not. */
static void test_replaced(bool v6, unsigned workers)
{
	struct frame_spec again = attempt(v6, 6, 0);

	begin_retries(workers, 1);
	enforce(100);
	give_tokens(3);
	(void)begin_attempt(v6, 6, 0);
	for (unsigned i = 1; i <= 40; i++) {
		again.seq_be = htonl(ntohl(again.seq_be) + 1);
		feed(RIG_WAN, again);
		turn();
	}
	(void)take_all();
	assert_int_equal(tokens(), 3);
	assert_int_equal(report().first_attempts, 1);
	stop();
}

/* --- what the wall does with retries --- */

/* Of two backends one is tried: a retry goes there only when nobody else has for a tenth of a second. */
static void test_trial(bool v6, unsigned workers)
{
	unsigned n = 0;

	begin_retries(workers, 1);
	set_breaker(v6, 0, BREAKER_HALF_OPEN);
	dataplane_trial_begin(rig.dp, rig.backends[v6][SET_TCP][0].ref.slot, false);
	enforce(100);
	give_tokens(50);
	give_credits(v6, 5, 40);
	for (unsigned ms = 0; ms < 99; ms += 33, n++) {
		assert_int_not_equal(fate(attempt(v6, 5, n)), WENT);
		pass_ms(33);
	}
	assert_int_equal(fate(attempt(v6, 6, 0)), WENT);
	dataplane_trial_begin(rig.dp, rig.backends[v6][SET_TCP][0].ref.slot, false);
	pass_ms(99);
	assert_int_not_equal(fate(attempt(v6, 5, n++)), WENT);
	pass_ms(1);
	assert_int_equal(fate(attempt(v6, 5, n)), WENT);
	stop();
}

/* A dead backend's SYNs go elsewhere without a token, and take one where there is one; those of retries need it. */
static void test_move(bool v6, unsigned workers)
{
	for (unsigned n_tokens = 0; n_tokens < 2; n_tokens++) {
		struct talk t;
		struct sent s;

		begin_retries(workers, 2);
		give_credits(v6, 6, 1);
		enforce(100);
		t = ask(v6, 5);
		give_tokens(n_tokens);
		refuse(&t);
		assert_int_equal(tokens(), 0);
		assert_int_equal(did(ACTION_resteer), 1);

		give_tokens(1 + n_tokens);
		t = begin_attempt(v6, 6, 0);
		assert_int_equal(report().retries, 1);
		assert_int_equal(tokens(), n_tokens);
		s = exchange(RIG_LAN, from_backend(&t, TCP_RST | TCP_ACK, 0, ISN + 1));
		assert_int_equal(s.port, n_tokens ? RIG_LAN : RIG_WAN);
		assert_int_equal(tokens(), 0);
		assert_int_equal(did(ACTION_withhold), !n_tokens);
		assert_int_equal(did(ACTION_resteer), 1 + n_tokens);
		assert_int_equal(credits_of(v6, 6), !n_tokens);
		stop();
	}
}

/* What is silent for want of time is spared by no other one, beyond the budget: that has its own work. */
static void test_move_of_overload(bool v6, unsigned workers)
{
	for (unsigned n_tokens = 0; n_tokens < 2; n_tokens++) {
		struct talk t;
		struct sent s;

		begin_retries(workers, 2);
		enforce(100);
		t = ask(v6, 5);
		pass_ms(960);
		feed(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, 5, 5));
		turn();
		take_all();
		give_tokens(n_tokens);
		if (n_tokens) {
			assert_true(ms_until_sent(&s, 180) <= 180);
			moved(&t, &s);
		} else {
			assert_true(ms_until_sent(&s, 180) == UINT64_MAX);
		}
		assert_int_equal(report_of(v6, &t.backend).overloads, 1);
		assert_int_equal(did(ACTION_withhold), !n_tokens);
		assert_int_equal(credits_of(v6, 5), !n_tokens);
		assert_int_equal(tokens(), 0);
		stop();
	}
}

/* --- modes --- */

static uint64_t digest_in(enum cure_mode mode, bool v6, unsigned workers)
{
	uint64_t digest;

	begin_retries(workers, 2);
	rig.policy.modes.of[CURE_STORM] = mode;
	rig.service.storm.retry_budget_ppm = 0;
	give_credits(v6, 5, 20);
	enforce(100);
	give_tokens(3);
	for (unsigned i = 0; i < 20; i++) {
		struct talk t = begin_attempt(v6, 5 + i % 2, i);

		if (i == 4)
			exchange(RIG_LAN, from_backend(&t, TCP_RST | TCP_ACK, 0, ISN + i * 100000 + 1));
	}
	assert_int_equal(did(ACTION_resteer), 1);
	assert_int_equal(would(ACTION_withhold), mode == CURE_SHADOW);
	assert_int_equal(would(ACTION_refuse_retry) + would(ACTION_silence_retry), mode == CURE_SHADOW ? 7 : 0);
	assert_int_equal(report().would_refuse + report().would_silence, mode == CURE_SHADOW ? 7 : 0);
	assert_int_equal(report().retries, mode == CURE_SHADOW ? 3 : 0);
	assert_int_equal(did(ACTION_refuse_retry) + did(ACTION_silence_retry) + did(ACTION_withhold), 0);
	assert_int_equal(credits_of(v6, 5), mode == CURE_SHADOW ? 10 : 20);
	digest = taken();
	stop();
	return digest;
}

static void test_shadow(bool v6, unsigned workers)
{
	assert_true(digest_in(CURE_OFF, v6, workers) == digest_in(CURE_SHADOW, v6, workers));
}

#define EACH(name)                                                                                                     \
	static void name##_each(void **state)                                                                          \
	{                                                                                                              \
		each_way(name);                                                                                        \
	}
EACH(test_bare_syns)
EACH(test_refused_here)
EACH(test_backend_fails)
EACH(test_backend_resets)
EACH(test_client_gives_up)
EACH(test_resteered)
EACH(test_without_the_wall)
EACH(test_not_enforced)
EACH(test_refused)
EACH(test_udp)
EACH(test_denied_takes_nothing)
EACH(test_held)
EACH(test_budget)
EACH(test_b12_9_many_users)
EACH(test_repeated)
EACH(test_first_repeated)
EACH(test_repeated_once_served)
EACH(test_repeated_to_its_backend)
EACH(test_replaced)
EACH(test_trial)
EACH(test_move)
EACH(test_move_of_overload)
EACH(test_shadow)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bare_syns_each),
		cmocka_unit_test(test_refused_here_each),
		cmocka_unit_test(test_backend_fails_each),
		cmocka_unit_test(test_backend_resets_each),
		cmocka_unit_test(test_client_gives_up_each),
		cmocka_unit_test(test_resteered_each),
		cmocka_unit_test(test_without_the_wall_each),
		cmocka_unit_test(test_not_enforced_each),
		cmocka_unit_test(test_refused_each),
		cmocka_unit_test(test_udp_each),
		cmocka_unit_test(test_denied_takes_nothing_each),
		cmocka_unit_test(test_held_each),
		cmocka_unit_test(test_budget_each),
		cmocka_unit_test(test_b12_9_many_users_each),
		cmocka_unit_test(test_repeated_each),
		cmocka_unit_test(test_first_repeated_each),
		cmocka_unit_test(test_repeated_once_served_each),
		cmocka_unit_test(test_repeated_to_its_backend_each),
		cmocka_unit_test(test_replaced_each),
		cmocka_unit_test(test_trial_each),
		cmocka_unit_test(test_move_each),
		cmocka_unit_test(test_move_of_overload_each),
		cmocka_unit_test(test_shadow_each),
	};

	if (rig_eal(512, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
