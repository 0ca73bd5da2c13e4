/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What must be right in a dataplane between any two turns, seen from outside: its books, and the structure of its
 * tables. Each returns NULL, or what is wrong.
 */
#pragma once

struct worker;
struct dataplane;

/*
 * Ledgers, attempts, and who holds what: every packet and every attempt is accounted for, and every flow, tuple and
 * port that rests has exactly its share.
 */
const char *books_error(const struct dataplane *dp);
/* Each hold stands in one slot of the wheel, and those that say so in their queue. Part of it. */
const char *books_holds_error(const struct worker *w);
/* Per backend: every flow has one outcome or none yet, and levels and what ends by itself are what flows say. Part of
 * it.
 */
const char *books_signals_error(const struct worker *w);
/* Each entry of the flow table, whole: index, pool, wheel, ports, the lists that it is in. Takes a while. */
const char *books_flows_error(const struct worker *w);
