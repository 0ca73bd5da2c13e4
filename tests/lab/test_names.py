# SPDX-License-Identifier: BSD-3-Clause
"""Backends follow DNS at the records' own TTL."""

import time

from conftest import TTL_S
from netns import eventually
from tools import Load, Wire
from topology import BACKEND_PORT, UPSTREAMS, bracketed

GRACE_S = 2


def without(name):
    return [u[f] for up, u in UPSTREAMS.items() for f in (4, 6) if up != name]


def load_across_removal(lab, family, seconds):
    """Removes up2's records under load. Gives the result and when the removal was done (monotonic ns)."""
    with Wire(lab, lab.up2, "eth0", f"tcp port {BACKEND_PORT}") as wire:
        load = Load(lab, family, rate=300, seconds=seconds)
        eventually(lambda: wire.snapshot()["syn"] >= 10, 5, "up2 is in use")
        lab.zone.set("shop", without("up2"), TTL_S)
        removed_ns = time.monotonic_ns()
        return load.wait(), removed_ns


def test_removed_record(lab, spillway, family):
    """New flows to an address that left DNS stop within TTL + 2 s, and nobody notices."""
    result, removed_ns = load_across_removal(lab, family, TTL_S + GRACE_S + 4)
    assert result["failed"] == 0, result
    late_s = (result["last_start_ns"]["up2"] - removed_ns) / 1e9
    assert late_s <= TTL_S + GRACE_S, f"up2 got a new flow {late_s:.2f} s after it left DNS"
    for name in ("up1", "up3"):
        assert (result["last_start_ns"][name] - removed_ns) / 1e9 > TTL_S + GRACE_S + 2


def test_added_record(lab, spillway, family):
    """An address that comes (back) to DNS gets flows within the TTL."""
    lab.zone.set("shop", without("up2"), TTL_S)
    up2 = (bracketed(UPSTREAMS["up2"][family]), BACKEND_PORT)
    eventually(lambda: up2 not in spillway.backend_addresses(), TTL_S + GRACE_S, "up2 leaves")
    lab.zone.set("shop", [u[f] for u in UPSTREAMS.values() for f in (4, 6)], TTL_S)
    eventually(lambda: up2 in spillway.backend_addresses(), TTL_S + GRACE_S, "up2 comes back")
    result = Load(lab, family, requests=300).wait()
    assert result["failed"] == 0 and result["backends"]["up2"] > 0


def test_before_does_not_notice(lab, before, family):
    """The control: a gateway that resolved once sends new flows to a removed address until it is restarted."""
    result, removed_ns = load_across_removal(lab, family, TTL_S + GRACE_S + 1)
    assert (result["last_start_ns"]["up2"] - removed_ns) / 1e9 > TTL_S + GRACE_S
