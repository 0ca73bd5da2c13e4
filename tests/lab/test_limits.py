# SPDX-License-Identifier: BSD-3-Clause
"""What is usual of a backend outlives the gateway that measured it."""

import contextlib
import dataclasses
import json

import pytest
from attempts import Clients, gather_clients, sources, spread_clients, wait_until
from conftest import assert_nothing_left, one_worker
from gateways import Service, Spillway
from netns import eventually
from servers import SlowUpstream
from topology import UPSTREAMS, VIP, bracketed

PORT = 8091
CAPACITY = 500
SLOW = 0.3  # of it, in the trouble
RATE = 400
NETWORKS = range(32, 53)
# Seconds since the load's begin: when the upstream becomes slow, the gateway is restarted, and the upstream is well.
SLOW_S, RESTART_S, WELL_S, END_S = 7, 10, 22, 34
SETTLED_S = 5  # after the restart: what the first gateway had given to it is worked off
SERVICE = Service("storm", PORT, PORT, upstreams=("up1",))


class Gateway(Spillway):
    """Its address is in its configuration, so that no name is asked for."""

    always = ()

    def __init__(self, lab, options=""):
        super().__init__(lab, lab.n_queues, services=(dataclasses.replace(SERVICE, options=options),))

    def usual_ms(self):
        """As it is saved; None: it is not."""
        try:
            with open(self.saved_limits, encoding="ascii") as f:
                rows = json.load(f)["backends"]
        except FileNotFoundError:
            return None
        return rows[0]["base_us"] / 1000 if rows else None

    @staticmethod
    def upstream_id(family):
        return f"tcp:{bracketed(UPSTREAMS['up1'][family])}:{PORT}"

    def upstream(self, family):
        """The upstream's row."""
        rows = self.ctl("backends")["backends"]
        return next(row for row in rows if row["id"] == self.upstream_id(family))

    def rate(self, test, what):
        """How many a second of the service's clients were so by that test of the storm's."""
        service = next(row for row in self.ctl("services")["services"] if row["name"] == SERVICE.name)
        return next((row[what] for row in service["storm"] if row["test"] == test), 0)

    def limiter(self, family):
        """Of the upstream: "open" or "limiting"."""
        return self.upstream(family)["limiter"]


@contextlib.contextmanager
def storm(lab):
    """An upstream with a long queue, and clients of many networks."""
    lab.up1.sysctl(core__somaxconn=4096, ipv4__tcp_max_syn_backlog=8192)
    spread_clients(lab, NETWORKS)
    try:
        with contextlib.closing(SlowUpstream(lab, "up1", PORT, backlog=4096)) as upstream:
            yield upstream
    finally:
        gather_clients(lab, NETWORKS)


def goodput(attempts, from_s, until_s):
    """Answers a second."""
    return sum(a.result == "ok" and from_s <= a.ended_s < until_s for a in attempts) / (until_s - from_s)


def restart(gateway, how):
    if how == "killed":
        gateway.kill()
    else:
        gateway.stop()
    gateway.start()


@pytest.mark.long
@one_worker
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_restart_in_congestion(lab, records, family, how):
    """The next gateway limits as the first one did, and all is well when the upstream is."""
    with storm(lab) as upstream:
        gateway = Gateway(lab)
        gateway.start()
        try:
            gateway.wait_serving()
            clients = Clients(
                lab,
                VIP[family],
                PORT,
                lab.path("attempts.csv"),
                origins=sources(family, NETWORKS),
                rate=RATE,
                seconds=END_S,
                timeout_ms=1000,
                retries=3,
            )
            wait_until(clients.begin_ns + SLOW_S * 10**9)
            assert 10 <= gateway.usual_ms() <= 40
            upstream.tell(f"capacity {SLOW}")
            wait_until(clients.begin_ns + RESTART_S * 10**9)
            assert gateway.limiter(family) == "limiting"
            restart(gateway, how)
            assert "what is usual of 1 backends is known from before" in gateway.output()
            eventually(lambda: gateway.limiter(family) == "limiting", 3, "it is limited again")
            told = next(e for e in gateway.events() if e["kind"] == "limiting")
            assert ", from before the restart)" in told["text"], told
            wait_until(clients.begin_ns + WELL_S * 10**9)
            upstream.tell("capacity 1")
            _, attempts = clients.wait()
            assert gateway.limiter(family) == "open"
        finally:
            gateway.stop()
    slow = goodput(attempts, RESTART_S + SETTLED_S, WELL_S)
    well = goodput(attempts, WELL_S + 2, END_S - 1)
    print(f"{slow:.0f}/s while it is slow, {well:.0f}/s when it is well")
    assert slow >= 0.9 * SLOW * CAPACITY
    assert well >= 0.95 * RATE
    assert_nothing_left(lab)


HARD_MAX = 12


@pytest.mark.costly
def test_hard_max(lab, records, family):
    """Half of what the upstream could do at once, by its operator's word; who is beyond it hears why."""
    with storm(lab) as upstream:
        gateway = Gateway(lab, f"storm: {{hard_max: {HARD_MAX}}}")
        gateway.start()
        try:
            gateway.wait_serving()
            upstream.tell("capacity 0")
            options = {"origins": sources(family, NETWORKS), "rate": 100, "timeout_ms": 1000}
            clients = Clients(lab, VIP[family], PORT, lab.path("attempts.csv"), seconds=4, **options)
            eventually(lambda: gateway.ledger()["reasons"]["answer_storm_hard_max"] > 20, 5, "many are refused")
            row = gateway.upstream(family)
            # A worker may give it a burst more.
            assert HARD_MAX <= row["wip"] <= HARD_MAX + 32 * lab.n_queues and row["hard_max"] == HARD_MAX
            eventually(lambda: gateway.rate("hard_max", "refused_per_s") > 0, 5, "so many a second are")
            found = gateway.ctl("explain", VIP[family])["findings"]
            told = next(f["sentence"] for f in found if f["reason"] == "answer_storm_hard_max")
            assert f"is let in when {gateway.upstream_id(family)} has less than {HARD_MAX} under way" in told, told
            upstream.tell("capacity 1")
            clients.wait()
            clients = Clients(lab, VIP[family], PORT, lab.path("attempts.csv"), seconds=2, **options)
            _, attempts = clients.wait()
            served = sum(a.result == "ok" for a in attempts)
            assert served >= 0.95 * len(attempts), f"{served} of {len(attempts)}"
            told = gateway.ctl("limiter", gateway.upstream_id(family), "reset")
            assert told["set"] in ("forgotten", "measuring")
            assert [e for e in gateway.events() if e["kind"] == "usual_reset"]
        finally:
            gateway.stop()
    assert_nothing_left(lab)


BACKEND_RATE, BACKEND_BURST = 40, 10


@one_worker
def test_backend_rate(lab, records, family):
    """The upstream could do far more; by its operator's word it is given so many new connections a second, no more."""
    with storm(lab) as upstream:
        cap = f"storm: {{backend_rate: {BACKEND_RATE}/s, backend_burst: {BACKEND_BURST}}}"
        gateway = Gateway(lab, cap)
        gateway.start()
        try:
            gateway.wait_serving()
            before = upstream.tell("report")["accepted"]
            options = {"origins": sources(family, NETWORKS), "rate": 100, "timeout_ms": 1000}
            clients = Clients(lab, VIP[family], PORT, lab.path("attempts.csv"), seconds=5, **options)
            eventually(lambda: gateway.ledger()["reasons"]["answer_storm_backend"] > 20, 5, "many are refused")
            found = gateway.ctl("explain", VIP[family])["findings"]
            assert any(f["reason"] == "answer_storm_backend" for f in found), found
            _, attempts = clients.wait()
            accepted = upstream.tell("report")["accepted"] - before
            # Who waits at the end of the load may still go.
            most = BACKEND_RATE * 6 + BACKEND_BURST + 1 + lab.n_queues
            assert BACKEND_RATE * 5 * 0.9 <= accepted <= most, f"{accepted} of {len(attempts)}"
            assert sum(a.result == "ok" for a in attempts) >= 0.95 * accepted
            row = gateway.upstream(family)
            assert row["limiter"] == "open", row
        finally:
            gateway.stop()
    assert_nothing_left(lab)
