# SPDX-License-Identifier: BSD-3-Clause
"""The same for long, and for many."""

import pytest
from conftest import diagonal, two_workers
from gateways import Service, Spillway, running
from netns import eventually
from test_truth import check_firewalls, check_vanished
from tools import Crowd, report
from topology import CLIENTS

pytestmark = pytest.mark.long


@two_workers
def test_five_minutes_behind_a_firewall(lab, tuned, server, record_property):
    """500 connections, which a firewall before the upstreams forgets after 30 s, and 50 that nobody keeps alive."""
    check_firewalls(lab, tuned, "20s", 30, 300, routers=(lab.lan,), kept=250, unasked=25)


def test_fifty_clients_vanish(lab, tuned, server, record_property):
    """Half of all addresses, with 25 connections of each family."""
    gone = [*CLIENTS[4][:10], *CLIENTS[6][:10]]
    check_vanished(lab, tuned, server, 20, record_property, gone=gone, per_family=45)


# --- many connections that stay ---

MANY = 50_000
STAY = Service("stay", 5203, 5203, upstreams=("up1",), options="idle: {probe: 20s}")
IDLE_S = 45
ROOM = (
    ("  flows: 100000\n", "  flows: 100000\n  flows_ipv6: 100000\n"),
    ("memory: 512M", "memory: 1G"),
)


@diagonal
def test_fifty_thousand(lab, family, record_property):
    """Opened, idle for two rounds of probes, used, closed: nothing fails, and nothing is left."""
    gateway = Spillway(lab, lab.n_queues, services=(STAY,), edits=ROOM)
    with running(gateway), Crowd(lab, (family,), MANY, port=STAY.port) as crowd:
        rss = [gateway.rss_kib()]
        did = {}
        for command in ("open", "use"):
            did[command] = crowd.do(command, 60)
        rss.append(gateway.rss_kib())
        row = next(r for r in gateway.ctl("backends")["backends"] if r["services"] == ["stay"] and r["flows"])
        assert row["flows"] == MANY
        eventually(lambda: gateway.ledger()["actions"]["keepalive"] >= 4 * MANY, IDLE_S + 15, "two rounds of probes")
        rss.append(gateway.rss_kib())
        did["use again"] = crowd.do("use", 60)
        did["close"] = crowd.do("close", 60)
        ledger = gateway.ledger()
        report(record_property, **{k: f"{v['done']} in {v['seconds']:.1f} s" for k, v in did.items()}, rss_kib=rss,
               keepalives=ledger["actions"]["keepalive"])
        for what, end in did.items():
            assert (end["done"], end["failed"], end["late"]) == (MANY, 0, 0), what
        assert ledger["actions"]["rst_peer_dead"] == 0
        # TIME_WAIT is a minute.
        eventually(lambda: not any(r["flows"] for r in gateway.ctl("backends")["backends"]), 90, "all entries are gone")
        assert gateway.ledger()["balance"] == 0
