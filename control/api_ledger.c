/* SPDX-License-Identifier: BSD-3-Clause */
#include "api_docs.h"

#include "api_early.h"

#include "json_row.h"
#include "observe.h"

#include <stdlib.h>

/* The two laws of observe.h with every term, and what is missing from each. */
struct ledger_row {
	uint64_t rx, taken_over, forwarded, answered, shed, absorbed, punted, dropped, handed_over, inside;
	uint64_t tx, made, tx_failed;
	int64_t balance, tx_balance;
};

static const struct json_field ledger_fields[] = {
	JSON_FIELD(ledger_row, rx),        JSON_FIELD(ledger_row, taken_over), JSON_FIELD(ledger_row, forwarded),
	JSON_FIELD(ledger_row, answered),  JSON_FIELD(ledger_row, shed),       JSON_FIELD(ledger_row, absorbed),
	JSON_FIELD(ledger_row, punted),    JSON_FIELD(ledger_row, dropped),    JSON_FIELD(ledger_row, handed_over),
	JSON_FIELD(ledger_row, inside),    JSON_FIELD(ledger_row, tx),         JSON_FIELD(ledger_row, made),
	JSON_FIELD(ledger_row, tx_failed), JSON_FIELD(ledger_row, balance),    JSON_FIELD(ledger_row, tx_balance),
};

static json_t *ledger_json(const struct ledger *l)
{
	struct ledger_row row = {
		.rx = l->rx,
		.taken_over = l->taken_over,
		.forwarded = ledger_class(l, CLASS_FORWARDED),
		.answered = ledger_class(l, CLASS_ANSWERED),
		.shed = ledger_class(l, CLASS_SHED),
		.absorbed = ledger_class(l, CLASS_ABSORBED),
		.punted = ledger_class(l, CLASS_PUNTED),
		.dropped = ledger_class(l, CLASS_DROPPED),
		.handed_over = ledger_class(l, CLASS_HANDED_OVER),
		.inside = l->inside,
		.tx = l->tx,
		.tx_failed = l->tx_failed,
		.balance = ledger_balance(l),
	};

	for (int i = 0; i < MADE_COUNT; i++)
		row.made += l->made[i];
	row.tx_balance = (int64_t)(row.forwarded + row.answered + row.made - row.tx_failed - row.tx);
	return JSON_ROW(ledger_fields, &row);
}

void api_ledger_sum(const struct api_source *src, struct ledger *sum)
{
	*sum = (struct ledger){0};
	for (unsigned w = 0; w < dataplane_n_workers(src->dp); w++) {
		struct ledger l;

		observe_ledger(src->dp, w, &l);
		ledger_add(sum, &l);
	}
}

/* Takes each worker's ledger once, so that the rows and their sum agree. */
static json_t *ledger_workers(const struct api_source *src, struct ledger *sum)
{
	json_t *rows = json_array();

	*sum = (struct ledger){0};
	for (unsigned w = 0; w < dataplane_n_workers(src->dp); w++) {
		struct ledger l;
		json_t *row;

		observe_ledger(src->dp, w, &l);
		ledger_add(sum, &l);
		row = ledger_json(&l);
		json_object_set_new(row, "worker", json_integer(w));
		json_array_append_new(rows, row);
	}
	return rows;
}

static json_t *ledger_reasons(const struct ledger *sum)
{
	json_t *counts = json_object();

	for (int v = 0; v < VERDICT_COUNT; v++)
		json_object_set_new(counts, verdict_info[v].name, json_integer((json_int_t)sum->verdicts[v]));
	return counts;
}

/* So that a client can explain a reason that it was not built with. */
static json_t *ledger_about(const struct view *view)
{
	json_t *about = json_object();

	for (int v = 0; v < VERDICT_COUNT; v++)
		json_object_set_new(about, verdict_info[v].name,
				    json_pack("{s:s,s:s,s:s}", "class", verdict_class_name(verdict_info[v].class),
					      "cause", cause_name(verdict_info[v].cause), "help",
					      verdict_info[v].help));
	api_early_about(view, about);
	return about;
}

static json_t *ledger_made(const struct ledger *sum)
{
	json_t *made = json_object();

	for (int i = 0; i < MADE_COUNT; i++)
		json_object_set_new(made, made_name[i], json_integer((json_int_t)sum->made[i]));
	return made;
}

/* What each "packet too big" came to. */
static json_t *ledger_ptb(const struct ledger *sum)
{
	json_t *counts = json_object();

	for (int i = 0; i < PTB_COUNT; i++)
		json_object_set_new(counts, ptb_name[i], json_integer((json_int_t)sum->ptb[i]));
	return counts;
}

/* What cures did, and under "would_…" what they would have done in shadow. */
static json_t *ledger_actions(const struct ledger *sum)
{
	json_t *actions = json_object();
	char name[64];

	for (int i = 0; i < ACTION_COUNT; i++) {
		json_object_set_new(actions, action_info[i].name, json_integer((json_int_t)sum->did[i]));
		snprintf(name, sizeof(name), "would_%s", action_info[i].name);
		json_object_set_new(actions, name, json_integer((json_int_t)sum->would[i]));
	}
	return actions;
}

struct lost_row {
	uint64_t known_ring, new_ring, no_buffer, invalid, tx_full;
};

static const struct json_field lost_fields[] = {
	JSON_FIELD(lost_row, known_ring), JSON_FIELD(lost_row, new_ring), JSON_FIELD(lost_row, no_buffer),
	JSON_FIELD(lost_row, invalid),    JSON_FIELD(lost_row, tx_full),
};

static json_t *ledger_lost(const struct api_source *src)
{
	struct lost_row lost = {0};
	size_t n;
	struct port_report *ports = api_ports(src, &n);

	for (size_t i = 0; i < n; i++) {
		lost.known_ring += ports[i].lost_known_ring;
		lost.new_ring += ports[i].lost_new_ring;
		lost.no_buffer += ports[i].lost_no_buffer;
		lost.invalid += ports[i].lost_invalid;
		lost.tx_full += ports[i].tx_full;
	}
	free(ports);
	return JSON_ROW(lost_fields, &lost);
}

unsigned api_doc_ledger(const struct api_source *src, const struct view *view, const struct api_query *query,
			json_t **doc, char err[static API_QUERY_ERR])
{
	struct ledger sum;
	json_t *workers = ledger_workers(src, &sum);
	int64_t in_rings = (int64_t)(ledger_class(&sum, CLASS_HANDED_OVER) - sum.taken_over);

	/* Workers are read one after the other: while packets flow, in_rings is a momentary figure and may be off. */
	*doc = json_pack("{s:I,s:I,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "balance", (json_int_t)ledger_balance(&sum),
			 "in_rings", (json_int_t)in_rings, "sum", ledger_json(&sum), "workers", workers, "reasons",
			 ledger_reasons(&sum), "made", ledger_made(&sum), "actions", ledger_actions(&sum), "ptb",
			 ledger_ptb(&sum), "lost", ledger_lost(src), "early", api_early_counts(view), "about",
			 ledger_about(view));
	return 200;
}
