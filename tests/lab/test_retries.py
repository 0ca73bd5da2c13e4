# SPDX-License-Identifier: BSD-3-Clause
"""Clients that retry at once, twenty times: what of that reaches the gateway, and the upstream."""

import time

import faults
import pytest
from gateways import Service, Spillway, running
from servers import SlowUpstream
from tools import Load

RATE, RETRIES, DEADLINE_MS = 250, 20, 1000
UPSTREAM = {"workers": 10, "work_ms": 20, "backlog": 4096}  # 500/s
HEALTHY_S, STALL_S, AFTER_S = 3, 5, 5
TICKETS = Service("tickets", 84, 9000, upstreams=("up3",), options="storm: {hold: 300ms}")


class Seen:
    """What the gateway and the upstream counted until now."""

    def __init__(self, gateway, upstream):
        self.at_s = time.monotonic()
        row = next(r for r in gateway.ctl("services")["services"] if r["name"] == "tickets")
        ledger = gateway.ledger()
        work = upstream.snapshot()
        self.retries = row["retries"]
        self.first = row["new_flows"] - row["retries"]
        refused = {k: n for k, n in ledger["reasons"].items() if k.startswith(("answer_storm", "shed_storm"))}
        # Also those that kernels sent again, which are no other attempts.
        self.syns = row["new_flows"] + sum(refused.values())
        self.beyond = refused["answer_storm_retry"] + refused["shed_storm_retry"]
        self.good = work["answered"] - work["abandoned"]


def watch(gateway, upstream, seconds):
    seen = [Seen(gateway, upstream)]
    for _ in range(seconds):
        time.sleep(1)
        seen.append(Seen(gateway, upstream))
    return seen


def rates(seen, what):
    return [(getattr(b, what) - getattr(a, what)) / (b.at_s - a.at_s) for a, b in zip(seen, seen[1:])]


@pytest.mark.costly
def test_impatient_clients(lab, record_property):
    """An upstream stalls for five seconds: no storm at the gateway, few retries upstream, and then all is well."""
    upstream = SlowUpstream(lab, *TICKETS.upstreams, TICKETS.backend_port, **UPSTREAM)
    options = {"rate": RATE, "poisson": 1, "retries": RETRIES, "timeout_ms": DEADLINE_MS, "concurrency": 4096}
    try:
        with running(Spillway(lab, lab.n_queues, (TICKETS,))) as gateway, Load(lab, 4, port=84, **options) as load:
            healthy = watch(gateway, upstream, HEALTHY_S)
            with faults.stalled(upstream):
                stalled = watch(gateway, upstream, STALL_S)
            after = watch(gateway, upstream, AFTER_S)
            load.stop()
    finally:
        upstream.close()
    storm, goods = stalled + after, rates(after, "good")
    syns = rates(storm, "syns")
    print(f"SYNs/s {[round(n) for n in syns]}, good/s {[round(n) for n in goods]}")
    print(f"retries admitted {storm[-1].retries}, beyond the budget {storm[-1].beyond}")
    record_property("syns_per_s", max(syns))
    assert healthy[-1].retries == healthy[-1].beyond == 0
    assert max(syns) <= 4000
    # Half of what they tried again is more than the budget has.
    assert storm[-1].beyond > 100
    # What was saved is earned by first attempts, too: of these ten seconds, and of the good ones before.
    begin, end = storm[0], storm[-1]
    earned = 0.2 * (end.first - begin.first) + 5 * (end.at_s - begin.at_s)
    assert 0 < end.retries <= earned + 0.2 * begin.first + lab.n_queues + 1
    assert min(goods[2:]) >= 0.9 * RATE, goods
