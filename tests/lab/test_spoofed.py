# SPDX-License-Identifier: BSD-3-Clause
"""SYNs in the names of very many sources that never sent them: nothing grows, and no client pays for it."""

import contextlib
import os
import time

import pytest
from attempts import Clients, gather_clients, percentile, sources, spread_clients
from conftest import assert_nothing_left
from gateways import Service, Spillway, running
from netns import eventually
from servers import SlowUpstream
from tools import SPOOFED_NETS, SPOOFED_SOURCES, Flood, report
from topology import UPSTREAMS, VIP, bracketed

PORT = 8091
TICKETS = Service("tickets", PORT, PORT, options="storm: {}")  # all of it as it is where nobody says otherwise
# For all flows of a short flood; for a tenth of a long one's; and for next to none of it, so that the upstreams, which
# share these CPUs, have fewer SYNs to answer.
WIDE, USUAL, NARROW = (("flows: 100000", f"flows: {n}\n  flows_ipv6: {n}") for n in (170_000, 100_000, 12_500))
# Some were served lately when the flood begins. The others come for the first time, none twice within STRANGE_S: what
# becomes of these is told.
KNOWN, STRANGERS = range(32, 42), range(110, 250)
RATE = 100  # of either, a second
WARM_RATE, WARM_S = 400, 3
STRANGE_S = 5
PATIENCE_MS = 3000
SUCCESS_MIN = 0.98
RSS_SLACK_KIB = 1024  # a byte for each of a million sources


class Gateway(Spillway):
    """Its addresses are in its configuration, so that no name is asked for."""

    always = ()

    def bpf_maps(self):
        """How much memory each map of the process has, by its number."""
        maps, fds = {}, f"/proc/{self.child.pid}/fdinfo"
        for fd in os.listdir(fds):
            # Those of connections to the API come and go.
            with contextlib.suppress(FileNotFoundError), open(f"{fds}/{fd}", encoding="ascii") as f:
                words = dict(line.split(":", 1) for line in f)
                if "map_id" in words:
                    maps[int(words["map_id"])] = int(words["memlock"])
        return maps

    def memory(self):
        return self.rss_kib(), self.bpf_maps()

    def knows_usual(self, family):
        """What its limiter goes by is known of all backends of that family."""
        usual = {row["id"]: row["usual_ms"] for row in self.ctl("backends")["backends"]}
        return all(usual[f"tcp:{bracketed(UPSTREAMS[up][family])}:{PORT}"] for up in UPSTREAMS)


@pytest.fixture
def serving(lab, records):
    """serving(edits): a gateway, upstreams with long queues, and clients of many networks."""
    networks = (*KNOWN, *STRANGERS)
    with contextlib.ExitStack() as stack:
        stack.callback(assert_nothing_left, lab)
        spread_clients(lab, networks)
        stack.callback(gather_clients, lab, networks)
        for up in UPSTREAMS:
            lab.ns[up].sysctl(core__somaxconn=4096, ipv4__tcp_max_syn_backlog=8192)
            stack.enter_context(contextlib.closing(SlowUpstream(lab, up, PORT, backlog=4096)))
        yield lambda edits: stack.enter_context(running(Gateway(lab, lab.n_queues, (TICKETS,), edits)))


def begin_clients(lab, family, networks, rate, seconds):
    log = lab.path(f"attempts-{networks[0]}.csv")
    options = {"origins": sources(family, networks), "rate": rate, "seconds": seconds, "timeout_ms": PATIENCE_MS}
    return Clients(lab, VIP[family], PORT, log, **options)


def served(attempts):
    return [a for a in attempts if a.result == "ok"]


def share_served(attempts):
    return round(len(served(attempts)) / len(attempts), 4)


def send_all(flood, rate, n_sources):
    """One SYN of each source at least, however much of its CPU the generator gets; how many there were."""
    sent, until = 0, time.monotonic() + 3 * n_sources / rate
    while sent < n_sources:
        assert time.monotonic() < until, f"{sent} SYNs of {n_sources} could be sent"
        seconds = max(1, (n_sources - sent) / rate)
        sent += flood.wait(flood.start(seconds, rate=rate, port=PORT, sources=n_sources, first=sent))
    return sent


def check_books(gateway, n_sources, n_others):
    """Each SYN that came has its place in them; on the way some may be lost that nobody counts."""
    ledger = gateway.ledger()
    for row in (*ledger["workers"], ledger["sum"]):
        assert row["balance"] == 0 and row["tx_balance"] == 0, row
    tickets = next(row for row in gateway.ctl("services")["services"] if row["name"] == TICKETS.name)
    came = tickets["attempts"] + tickets["shed_early"] + ledger["lost"]["new_ring"] - n_others
    assert came >= 0.96 * n_sources  # still a million of 2^20
    return {key: n for key, n in ledger["reasons"].items() if n}


def check_spoofed(lab, family, gateway, flood, rate, n_sources, record_property):
    seconds = n_sources / rate
    _, of_warm = begin_clients(lab, family, KNOWN, WARM_RATE, WARM_S).wait()
    eventually(lambda: gateway.knows_usual(family), 2, "what is usual of the upstreams")
    before = gateway.memory()
    known, strangers = (begin_clients(lab, family, networks, RATE, seconds) for networks in (KNOWN, STRANGERS))
    sent = send_all(flood, rate, n_sources)
    after = gateway.memory()
    _, of_known = known.wait()
    _, of_strangers = strangers.wait()
    reasons = check_books(gateway, n_sources, len(of_warm) + len(of_known) + len(of_strangers))
    report(record_property, sent=sent, served=share_served(of_known),
           strangers_served=share_served([a for a in of_strangers if a.began_s < STRANGE_S]),
           p99_connect_ms=round(percentile([a.connect_ms for a in served(of_known)], 0.99)),
           rss_kib=f"{before[0]}..{after[0]}", maps_kib=sum(after[1].values()) // 1024, reasons=reasons)
    assert len(of_known) > 0.8 * RATE * seconds
    assert share_served(of_known) >= SUCCESS_MIN
    assert after[0] <= before[0] + RSS_SLACK_KIB
    assert after[1] == before[1] and before[1]


@pytest.mark.costly
@pytest.mark.parametrize("resets", [False, True], ids=["nobody", "resets"])
def test_spoofed_sources(lab, serving, family, resets, record_property):
    """Fewer of them, for which there is room: so it is the storm's to say who goes first. Some sources may be there."""
    gateway = serving((WIDE,))
    with Flood(lab, family, SPOOFED_NETS[family], resets) as flood:
        check_spoofed(lab, family, gateway, flood, 30_000, 1 << 17, record_property)


@pytest.mark.long
@pytest.mark.parametrize("table", [USUAL, NARROW], ids=["usual", "narrow"])
def test_b8_million_spoofed_sources(lab, serving, family, table, record_property):
    """Far more than the flow table has room for, for so long that it is full and has room again, time after time."""
    gateway = serving((table,))
    with Flood(lab, family, SPOOFED_NETS[family]) as flood:
        check_spoofed(lab, family, gateway, flood, 60_000, SPOOFED_SOURCES, record_property)
