/* SPDX-License-Identifier: BSD-3-Clause */
#include "breakers_talk.h"

static const char head[] = "gateway:\n"
			   "  workers: [0]\n"
			   "  flows: 10000\n"
			   "  ports: [{name: wan, device: eth1}, {name: lan, device: eth2}]\n"
			   "  snat: [198.18.101.1, \"2001:db8:101::1\"]\n"
			   "services:\n"
			   "  - name: shop\n"
			   "    listen: [\"198.18.100.1:80/tcp\", \"[2001:db8:100::1]:80/tcp\"]\n"
			   "    backends:\n";

struct breakers_fixture f;

uint64_t begin_ns;
uint32_t n_flows_each;
const char *more_yaml = "";

static void on_name(void *arg, const struct name_view *view)
{
}

static uint64_t rig_now_ns(void *arg)
{
	return rig.now_ns;
}

static void tell(void *arg, const char *message)
{
	print_error("%s\n", message);
}

/* The service has the first `n` backends of either family, TCP port 8080, and opens after `consecutive`. */
void configure(unsigned n, unsigned consecutive)
{
	char text[4096];
	size_t len = snprintf(text, sizeof(text), "%s", head);

	for (unsigned i = 1; i <= n; i++)
		len += snprintf(text + len, sizeof(text) - len,
				"      - {address: 198.18.3.%u, port: 8080}\n"
				"      - {address: \"2001:db8:3::%x\", port: 8080}\n",
				i, i);
	len += snprintf(text + len, sizeof(text) - len, "    breaker: {consecutive: %u}\n%s", consecutive, more_yaml);
	f.before = f.config;
	f.config = config_parse("test", text, len, tell, NULL);
	assert_non_null(f.config);
	f.config->cures.of[CURE_WALL] = f.mode;
	assert_int_equal(services_configure(f.services, f.config, f.names), 0);
	assert_int_equal(services_publish(f.services), 0);
	config_free(f.before);
	f.before = NULL;
	breakers_look_again(f.breakers);
}

void begin_all(unsigned workers, unsigned n, enum cure_mode mode)
{
	const struct names_config names = {.servers_csv = "127.0.0.1:9"};

	uint32_t n_flows = n_flows_each ? n_flows_each : 4096;

	start((struct rig_config){.n_backends = 8,
				  .n_workers = workers,
				  .flows_v4 = n_flows,
				  .flows_v6 = n_flows,
				  .n_holds = n_flows / 2,
				  .now_ns = begin_ns});
	f.mode = mode;
	f.base = event_base_new();
	f.names = names_create(f.base, &names, on_name, NULL);
	f.events = events_create(NULL);
	f.services = services_create(rig.dp, &(struct services_config){.n_service_slots = 4,
								       .n_backend_slots = N_SLOTS,
								       .events = f.events,
								       .poison = true,
								       .now_ns = rig_now_ns});
	f.breakers = breakers_create(rig.dp, f.services, f.events, &(struct breakers_config){N_SLOTS, 4});
	assert_true(f.base && f.names && f.services && f.events && f.breakers);
	configure(n, 5);
}

void end_all(void)
{
	dataplane_publish(rig.dp, &rig.policy);
	breakers_destroy(f.breakers);
	services_destroy(f.services);
	names_destroy(f.names);
	event_base_free(f.base);
	events_destroy(f.events);
	config_free(f.config);
	memset(&f, 0, sizeof(f));
	stop();
}

/* Decide hears what workers noted, and does what is due; the workers obey. */
void decide(void)
{
	struct note notes[64];
	size_t n;

	while ((n = dataplane_notes(rig.dp, notes, 64)))
		for (size_t i = 0; i < n; i++)
			if (notes[i].kind == NOTE_BACKEND)
				breakers_note(f.breakers, notes[i].backend.slot);
	breakers_run(f.breakers, f.mode, rig.now_ns);
	if (f.decided)
		f.decided();
	turn();
}

void pass(uint64_t ms)
{
	for (uint64_t end_ns = rig.now_ns + ms * 1000000; rig.now_ns < end_ns;) {
		pass_ms(10);
		decide();
	}
}

uint32_t slot_of_backend(bool v6, unsigned backend)
{
	char want[SLOT_ID_STRLEN], id[SLOT_ID_STRLEN];
	struct slot_info info;

	snprintf(want, sizeof(want), v6 ? "tcp:[2001:db8:3::%x]:8080" : "tcp:198.18.3.%u:8080", backend);
	for (uint32_t slot = 0; slot < N_SLOTS; slot++)
		if (services_backend(f.services, slot, &info) && strcmp(slots_id(&info, id), want) == 0)
			return slot;
	fail();
	return 0;
}

enum breaker_state state_of(bool v6, unsigned backend)
{
	return streak_state(dataplane_breaker(rig.dp, slot_of_backend(v6, backend)));
}

bool is_marked(bool v6, unsigned backend)
{
	return streak_read(dataplane_breaker(rig.dp, slot_of_backend(v6, backend))).side_down;
}

/* Of the wall's; what DNS and the configuration did is not asked for. */
bool next_event_of(const char *cause, struct event_record *e)
{
	uint64_t lost;

	while (events_read(f.events, f.events_seen, e, 1, &lost, 0)) {
		assert_int_equal(lost, 0);
		f.events_seen = e->number;
		if (strcmp(e->cause, cause) == 0)
			return true;
	}
	return false;
}

bool next_event(struct event_record *e)
{
	return next_event_of("wall", e);
}

/* The next event there must be, and it is that one. */
void expect(const char *kind, const char *subject, const char *words)
{
	struct event_record e;

	assert_true(next_event(&e));
	assert_string_equal(e.kind, kind);
	assert_string_equal(e.subject, subject);
	if (!strstr(e.text, words))
		fail_msg("expected '%s' in '%s'", words, e.text);
}

void expect_nothing(void)
{
	struct event_record e;

	if (next_event(&e))
		fail_msg("%s: %s: %s", e.kind, e.subject, e.text);
}

enum says says[9];
bool asks_nothing;
unsigned at_once = 1;

/* What the client says to what came: its request, and that it is done. */
static void client_says(const struct sent *s)
{
	struct ipaddr client = packet_dst(s->frame, &s->p);
	struct talk t = {.v6 = s->p.family == 6, .proto = PROTO_TCP, .client = client.b[14] << 8 | client.b[15]};

	if (asks_nothing)
		return;
	if ((s->p.tcp_flags & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK))
		feed(RIG_WAN, with_payload(from_client(&t, TCP_ACK, ISN + 1, seq(s) + 1), 10));
	else if (s->p.payload_len)
		feed(RIG_WAN, from_client(&t, TCP_RST | TCP_ACK, ISN + 11, seq(s) + s->p.payload_len));
}

static void backend_says(const struct sent *s, struct seen *seen)
{
	struct talk t = {.v6 = s->p.family == 6, .proto = PROTO_TCP};
	enum says what;

	learn(&t, s);
	what = says[t.backend.b[15]];
	if (s->p.tcp_flags == TCP_SYN) {
		seen->probes += s->p.payload_off - s->p.l4_off == 24;
		seen->syns[t.backend.b[15]]++;
		if (what != SILENT)
			feed(RIG_LAN, from_backend(&t, what == REFUSES ? TCP_RST | TCP_ACK : TCP_SYN | TCP_ACK, PEER,
						   seq(s) + 1));
	} else if (s->p.payload_len && what == ANSWERS) {
		feed(RIG_LAN, with_payload(from_backend(&t, TCP_ACK, ack(s), seq(s) + s->p.payload_len), 10));
	} else if (s->p.payload_len && what == SLOW) {
		feed(RIG_LAN, from_backend(&t, TCP_ACK, ack(s), seq(s) + s->p.payload_len));
	} else if (s->p.payload_len && what == RESETS) {
		feed(RIG_LAN, from_backend(&t, TCP_RST | TCP_ACK, ack(s), seq(s) + s->p.payload_len));
	}
}

/* All that left, and what is said to it. A probe is what comes without SACK and timestamps: 24 bytes. */
struct seen talk_back(void)
{
	struct seen seen = {0};

	for (struct sent s; take(&s);) {
		assert_null(frame_checksum_error(s.frame));
		if (s.port == RIG_LAN) {
			backend_says(&s, &seen);
			continue;
		}
		seen.rsts += !!(s.p.tcp_flags & TCP_RST);
		client_says(&s);
	}
	return seen;
}

static void add(struct seen *sum, const struct seen *s)
{
	sum->probes += s->probes;
	sum->rsts += s->rsts;
	for (int i = 0; i < 9; i++)
		sum->syns[i] += s->syns[i];
}

/* `ms` with a new client each `every_ms`; 0: without. */
struct seen run(bool v6, unsigned *client, uint64_t ms, unsigned every_ms)
{
	struct seen sum = {0};

	for (uint64_t at = 0; at < ms; at += 10) {
		struct seen s;

		for (unsigned i = 0; every_ms && at % every_ms == 0 && i < at_once; i++)
			feed(RIG_WAN, from_client(&(struct talk){.v6 = v6, .proto = PROTO_TCP, .client = (*client)++},
						  TCP_SYN, ISN, 0));
		pass(10);
		s = talk_back();
		add(&sum, &s);
		for (int i = 0; i < 4; i++) {
			turn();
			s = talk_back();
			add(&sum, &s);
		}
	}
	return sum;
}

const char *id_of(bool v6, unsigned backend)
{
	static char id[SLOT_ID_STRLEN];
	struct slot_info info;

	assert_true(services_backend(f.services, slot_of_backend(v6, backend), &info));
	return slots_id(&info, id);
}
