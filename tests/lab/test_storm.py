# SPDX-License-Identifier: BSD-3-Clause
"""Caps on new flows, and what clients see of them."""

import contextlib
import time

import pytest
from conftest import assert_nothing_left
from gateways import Spillway, running
from netns import eventually
from tools import Load, Wire, settled
from topology import CLIENTS

SHOP = "      - {dns: shop.lab.test, port: 8080}\n"
# What leaves towards the upstreams as a first packet.
SYN = {4: "src 198.18.101.10 and tcp[13] & 0x12 = 2", 6: "src 2001:db8:101::10 and ip6[6] = 6 and ip6[53] & 0x12 = 2"}
SLACK_MS = 250  # of a busy machine


class Capped(Spillway):
    """The shop has caps."""

    def __init__(self, lab, n_workers, storm):
        self.storm = storm
        super().__init__(lab, n_workers)

    def config_text(self, n_workers):
        return super().config_text(n_workers).replace(SHOP, f"{SHOP}    storm: {{{self.storm}}}\n")

    def shop(self):
        return next(r for r in self.ctl("services")["services"] if r["name"] == "shop")


@contextlib.contextmanager
def capped(lab, storm):
    with running(Capped(lab, lab.n_queues, storm)) as gateway:
        yield gateway
    assert_nothing_left(lab)


def assert_accurate(lab, family, seconds):
    """100/s under ten times that, by the wall's clock; what is admitted is answered, and nobody else is."""
    with capped(lab, "rate: 100/s, burst: 50, hold: off") as gateway:
        load = Load(lab, family, rate=1000, seconds=seconds + 2, concurrency=4096, timeout_ms=1500)
        eventually(lambda: gateway.shop()["refused_storm"] > 0, 5, "the burst is used up")
        began, before = time.monotonic(), gateway.shop()["new_flows"]
        time.sleep(seconds)
        ended, after = time.monotonic(), gateway.shop()["new_flows"]
        result = load.wait()
        last = gateway.shop()
        reasons = gateway.ledger()["reasons"]
    expected = 100 * (ended - began)
    # A sample is as old as the call takes.
    assert abs(after - before - expected) <= 0.02 * expected + lab.n_queues + 3, (after - before, expected)
    assert result["ok"] == last["new_flows"], (result, last)
    assert result["failures"]["refused"] > 0 and result["failures"]["timeout"] > 0
    assert last["attempts"] == last["new_flows"] + last["refused"] + last["silent"]
    assert last["refused_storm"] == last["refused"] + last["silent"]
    assert last["held"] == last["holding"] == 0
    assert reasons["answer_storm_service"] >= result["failures"]["refused"] > 0
    # Of those to whom nobody answers, kernels send their SYN again.
    assert reasons["shed_storm_service"] >= last["silent"] > 0
    print(f"{after - before} admitted in {ended - began:.3f} s")


@pytest.mark.costly
def test_rate(lab, records, family):
    assert_accurate(lab, family, 4)


@pytest.mark.long
def test_rate_for_long(lab, records, family):
    assert_accurate(lab, family, 20)


def test_herd(lab, records, family):
    """400 at once into 500/s: each waits for its turn, none sees an error, and the upstreams see each SYN once."""
    with capped(lab, "rate: 500/s, burst: 50") as gateway, Wire(lab, lab.lan, "gw", SYN[family], "in") as wire:
        result = Load(lab, family, requests=400, concurrency=400).wait()
        shop, seen = gateway.shop(), settled(wire)
        ledger = gateway.ledger()
    assert (result["ok"], result["failed"]) == (400, 0), result
    # The burst and one more at once, the others at the rate: no sooner, and not much later.
    assert 0.95 * 349 / 500 <= result["seconds"] <= 349 / 500 + SLACK_MS / 1000
    assert result["max_ms"] <= 1000 * 349 / 500 + SLACK_MS
    assert shop["held"] == shop["held_admitted"] >= 300 and shop["refused"] == shop["silent"] == 0
    # One SYN each, but for those that a busy upstream left unanswered for too long, or knew the ports of.
    assert shop["new_flows"] == shop["attempts"] == 400
    made = ledger["made"]
    assert seen["packets"] == 400 + made["syn_resteer"] + made["syn_time_wait"], made
    assert seen["bad"] == 0, seen["examples"]
    assert ledger["sum"]["inside"] == 0 and ledger["balance"] == 0
    assert ledger["actions"]["hold_service"] == shop["held"]


@pytest.mark.costly
def test_client_rate(lab, records, family):
    """One client too many times costs the others nothing."""
    greedy_one = CLIENTS[family][-1]
    others = CLIENTS[family][:-1]
    with capped(lab, "client_rate: 20/s, client_burst: 10, hold: off") as gateway:
        greedy = Load(lab, family, sources=[greedy_one], rate=200, seconds=2, concurrency=600, timeout_ms=500)
        # In IPv6 they are one client with it: all of a /64 are.
        load = Load(lab, family, sources=others, requests=60, concurrency=4, timeout_ms=500)
        greedy, load = greedy.wait(), load.wait()
        reasons = gateway.ledger()["reasons"]
    assert reasons["answer_storm_client"] > 0 and reasons["answer_storm_service"] == 0
    assert greedy["failed"] > 200
    if family == 4:
        assert load["ok"] == 60, load
    admitted = greedy["ok"] + (load["ok"] if family == 6 else 0)
    assert admitted <= 20 * (greedy["seconds"] + load["seconds"]) + 11 + lab.n_queues


@pytest.mark.costly
def test_shadow_and_off(lab, records, family):
    """Counted and not done; then not even counted."""
    with capped(lab, "rate: 50/s, burst: 20") as gateway:
        gateway.ctl("cure", "storm", "shadow")
        result = Load(lab, family, requests=300, rate=300, concurrency=100).wait()
        shop, actions = gateway.shop(), gateway.ledger()["actions"]
        assert (result["ok"], result["failed"]) == (300, 0)
        assert shop["would_hold"] == actions["would_hold_service"] > 100
        assert shop["held"] == shop["refused"] == shop["silent"] == actions["hold_service"] == 0
        eventually(lambda: gateway.shop()["would_refuse"] > 0, 5, "holds that would end refused")
        gateway.ctl("cure", "storm", "off")
        result = Load(lab, family, requests=300, rate=300, concurrency=100).wait()
        assert (result["ok"], result["failed"]) == (300, 0)
        assert gateway.shop()["would_hold"] == shop["would_hold"]


def test_stop_with_holds(lab, records):
    """A gateway that ends leaves nobody with an answer that it did not mean: who waits there tries again."""
    with capped(lab, "rate: 1/s, burst: 1, hold: 900ms") as gateway:
        load = Load(lab, 4, requests=200, concurrency=200, timeout_ms=600)
        eventually(lambda: gateway.shop()["holding"] > 20, 5, "connections that wait")
    result = load.wait()
    assert result["failures"]["timeout"] >= 20, result
