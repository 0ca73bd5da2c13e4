# SPDX-License-Identifier: BSD-3-Clause
"""Early shedding: a client that insists beyond its cap is discarded by the XDP program, and nobody else is."""

import contextlib
import socket
import struct
import threading
import time

import pytest
from attempts import gather_clients, sources, spread_clients
from conftest import assert_nothing_left, one_worker
from gateways import Spillway, running
from netns import eventually
from tools import Flood, Load, Wire, settled
from topology import CLIENTS, VIP

SHOP = "      - {dns: shop.lab.test, port: 8080}\n"
# What the client's side sends towards the gateway as first packets.
SYN = {4: "tcp[13] & 0x12 = 2", 6: "ip6[6] = 6 and ip6[53] & 0x12 = 2"}
RATE, BURST = 20, 10
OTHERS = 41  # the network of the clients that keep to their caps
FLOOD_PER_S = 5000
SYN_FLAG, OFFSET = 0x02, 5 << 4
IPV6_CHECKSUM = 7  # <linux/in6.h>


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Insistent:
    """One client that sends so many SYNs a second, each of its own, and heeds no answer. A context manager."""

    def __init__(self, lab, family, source, per_s):
        self._family, self._per_s, self.sent = family, per_s, 0
        with lab.client.entered():
            kind = {4: socket.AF_INET, 6: socket.AF_INET6}[family]
            self._socket = socket.socket(kind, socket.SOCK_RAW, socket.IPPROTO_TCP)
            self._socket.bind((source, 0))
        if family == 6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, IPV6_CHECKSUM, 16)
        self._pseudo = socket.inet_aton(source) + socket.inet_aton(VIP[4]) + b"\0\6\0\24" if family == 4 else b""
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _syn(self, number):
        fields = (1024 + number % 60000, 80, number * 64007 % 2**32, 0, OFFSET, SYN_FLAG, 65535)
        tcp = struct.pack("!HHIIBBHHH", *fields, 0, 0)
        return struct.pack("!HHIIBBHHH", *fields, checksum(self._pseudo + tcp), 0) if self._pseudo else tcp

    def _run(self):
        begin = time.monotonic()
        while not self._ends.wait(0.002):
            while self.sent < (time.monotonic() - begin) * self._per_s:
                self._socket.sendto(self._syn(self.sent), (VIP[self._family], 0))
                self.sent += 1

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._ends.set()
        self._thread.join()
        self._socket.close()


class Capped(Spillway):
    """The shop has a cap per client."""

    def __init__(self, lab, storm):
        self.storm = storm
        super().__init__(lab, lab.n_queues)

    def config_text(self, n_workers):
        return super().config_text(n_workers).replace(SHOP, f"{SHOP}    storm: {{{self.storm}}}\n")

    def shop(self):
        return next(r for r in self.ctl("services")["services"] if r["name"] == "shop")

    def exits(self, *names):
        return sum(row[f"gate_{name}"] for row in self.status()["gates"] for name in names)

    def kinds(self):
        return [e["kind"] for e in self.events() if e["kind"].startswith("early_")]


@contextlib.contextmanager
def stormy(lab, storm):
    with running(Capped(lab, storm)) as gateway:
        yield gateway
    assert_nothing_left(lab)


def capped(lab, hold, early="on"):
    return stormy(lab, f"client_rate: {RATE}/s, client_burst: {BURST}, hold: {hold}, early: {early}")


@pytest.fixture
def others(lab):
    spread_clients(lab, [OTHERS])
    yield lambda family: sources(family, [OTHERS])
    gather_clients(lab, [OTHERS])


def connects(lab, source, family):
    """How long the client's own kernel takes to get in; it sends its second SYN after a second."""
    began = time.monotonic()
    with lab.client.entered():
        socket.create_connection((VIP[family], 80), 5, (source, 0)).close()
    return time.monotonic() - began


def check_accounts(gateway, wire, family, insistent):
    """Each SYN that was sent is one that workers saw, or one that was discarded, in every account alike."""
    came = settled(wire)["packets"]
    eventually(lambda: gateway.exits("new", "shed_client") == came, 3, f"{came} SYNs in the gate's account")
    shed, new = gateway.exits("shed_client"), gateway.exits("new")
    ledger, shop = gateway.ledger(), gateway.shop()
    eventually(lambda: gateway.shop()["shed_early"] == shed, 3, "the service's account")
    assert ledger["early"]["gate_shed_client"] == shed == sum(ledger["early"].values())
    assert ledger["balance"] == 0
    # What is sent again to a flow that is there is no attempt.
    repeats = new - shop["attempts"] - ledger["lost"]["new_ring"]
    assert 0 <= repeats <= 20, (new, shop, ledger["lost"])
    explained = gateway.ctl("explain", CLIENTS[family][-1])
    (finding,) = [f for f in explained["findings"] if f["reason"] == "shed_early"]
    assert (finding["count"], finding["service"], finding["cure"]) == (shed, "shop", "storm")
    assert "storm.client_rate" in finding["sentence"] and "ago" in finding["sentence"]
    assert gateway.ctl("clients", CLIENTS[family][-1])["clients"][0]["shed_early"] == shed
    print(f"{insistent.sent} SYNs of one client: {shed} discarded, {new} came to the workers; {finding['sentence']}")
    return shed


@pytest.mark.costly
@pytest.mark.parametrize("hold", ["off", "900ms"])
def test_insistent_client(lab, records, family, others, hold):
    greedy = CLIENTS[family][-1]
    with capped(lab, hold) as gateway, Wire(lab, lab.wan, "gw", SYN[family], "out") as wire:
        with Insistent(lab, family, greedy, FLOOD_PER_S) as insistent:
            load = Load(lab, family, sources=others(family), rate=20, seconds=4, concurrency=40, timeout_ms=900)
            result = load.wait()
        assert result["failed"] == 0 and result["ok"] >= 70, result
        # Whoever behaves again is in with its second SYN at the latest.
        took = connects(lab, greedy, family)
        assert took < 2, took
        shed = check_accounts(gateway, wire, family, insistent)
        # Two workers share out the client's SYNs, and each tells of it when it has seen enough.
        assert shed > (0.6 if hold == "off" else 0.3) * insistent.sent
        # What its cap gives, it got, burst or no burst.
        admitted = gateway.shop()["new_flows"] - result["ok"]
        assert admitted >= 0.7 * RATE * 4, admitted
        eventually(lambda: gateway.kinds() == ["early_shedding", "early_shedding_over"], 8, "what was told")
        told = next(e for e in gateway.events() if e["kind"] == "early_shedding_over")
        assert told["subject"] == "shop" and f"{shed} SYNs of 1 clients" in told["text"], told


@pytest.mark.costly
def test_switched_off(lab, records, family):
    """Nothing is discarded with `early: off`, nor in shadow; and nothing any more once the cure is."""
    greedy = CLIENTS[family][-1]
    with capped(lab, "off", "off") as gateway:
        with Insistent(lab, family, greedy, 2000):
            eventually(lambda: gateway.ledger()["reasons"]["shed_storm_client"] > 500, 5, "silent refusals")
        assert gateway.exits("shed_client") == 0
    with capped(lab, "off") as gateway:
        gateway.ctl("cure", "storm", "shadow")
        with Insistent(lab, family, greedy, 2000):
            eventually(lambda: gateway.ledger()["actions"]["would_silence_client"] > 500, 5, "what would be silent")
            assert gateway.exits("shed_client") == 0
            gateway.ctl("cure", "storm", "enforce")
            eventually(lambda: gateway.exits("shed_client") > 500, 5, "discarded SYNs")
            gateway.ctl("cure", "storm", "off")
            came = gateway.exits("new")
            eventually(lambda: gateway.exits("new") > came + 200, 5, "SYNs that are counted after that")
            before = gateway.exits("shed_client"), gateway.exits("new")
            eventually(lambda: gateway.exits("new") > before[1] + 500, 5, "SYNs that come to the workers")
            assert gateway.exits("shed_client") == before[0]


@one_worker
def test_everybody(lab, records):
    """Far more from everywhere than the service may take: workers see a share, and all of it is told."""
    with stormy(lab, "rate: 50/s, burst: 10, hold: off") as gateway, Flood(lab) as flood:
        sent = flood.wait(flood.start(2))
        eventually(lambda: gateway.kinds() == ["early_shedding_all", "early_shedding_all_over"], 12, "what was told")
        shop, ledger = gateway.shop(), gateway.ledger()
        shed, new = gateway.exits("shed_service"), gateway.exits("new")
        assert shed == shop["shed_early"] == ledger["early"]["gate_shed_service"] > new / 2 > 0
        # The way to the gate has a queue of its own, which may overflow.
        assert shed + new <= sent
        # Random ports repeat now and then.
        assert 0 <= new - shop["attempts"] - ledger["lost"]["new_ring"] <= 1000
        assert ledger["balance"] == 0
        (finding,) = [f for f in gateway.ctl("explain", VIP[4])["findings"] if f["reason"] == "shed_early"]
        assert finding["count"] == shed and "of everybody" in finding["sentence"]
        assert connects(lab, CLIENTS[4][0], 4) < 1
        print(f"{sent} sent, {new} came to the worker, {shed} discarded; {finding['sentence']}")
