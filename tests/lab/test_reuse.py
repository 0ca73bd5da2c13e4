# SPDX-License-Identifier: BSD-3-Clause
"""Many clients with clocks of their own share SNAT ports, faster than a backend forgets the connections it closed."""

import contextlib

import pytest
from conftest import assert_nothing_left
from gateways import Service, Spillway
from servers import SlowUpstream
from tools import Load
from topology import CLIENTS, VIP

PORT = 8090
N_PORTS = 63 * 1024  # of one SNAT address
N_FILL = N_PORTS + 4000  # so that each worker has used all of its own
N_CLIENTS = 200
N_AGAIN = 1000
ROOM = ("  flows: 100000\n", "  flows: 100000\n  flows_ipv6: 100000\n")
OFF = "reuse: {isn: off, timestamps: off, assist: off}"


def retransmissions(ns):
    """TCP segments that the hosts of the namespace sent again: of short connections, SYNs."""
    lines = [line.split() for line in ns.run("cat", "/proc/net/snmp").stdout.splitlines() if line.startswith("Tcp:")]
    return int(dict(zip(*lines, strict=True))["RetransSegs"])


@contextlib.contextmanager
def many_clients(lab, family):
    """Addresses of the client's host: Linux gives each pair of addresses a timestamp clock of its own."""
    net, bits = {4: ("198.18.0.{}", 24), 6: ("2001:db8:0::{}", 64)}[family]
    more = [net.format(host) for host in (*range(10, 100), *range(130, 220))][: N_CLIENTS - len(CLIENTS[family])]
    flags = "nodad" if family == 6 else ""
    lab.client.ip(*(f"addr replace {a}/{bits} dev eth0 {flags}" for a in more))
    try:
        yield CLIENTS[family] + more
    finally:
        lab.client.ip(*(f"addr del {a}/{bits} dev eth0" for a in more))


def run(lab, family, options):
    """All ports once, then some of them again: what the second load saw, and how many segments were sent again then."""
    service = Service("reuse", PORT, PORT, upstreams=("up1",), options=options)
    with contextlib.ExitStack() as stack:
        # So that no connection that up1 closed is forgotten early.
        stack.callback(lab.up1.sysctl, ipv4__tcp_max_tw_buckets=lab.up1.get_sysctl("ipv4__tcp_max_tw_buckets"))
        lab.up1.sysctl(ipv4__tcp_max_tw_buckets=4 * N_PORTS)
        stack.enter_context(contextlib.closing(SlowUpstream(lab, "up1", PORT, workers=64, work_ms=1)))
        gateway = Spillway(lab, lab.n_queues, services=(service,), edits=(ROOM,))
        gateway.start()
        stack.callback(assert_nothing_left, lab)
        stack.callback(gateway.stop)
        gateway.wait_serving()
        sources = stack.enter_context(many_clients(lab, family))
        load = {"to": VIP[family], "port": PORT, "sources": sources, "concurrency": 32, "timeout_ms": 10000}
        first = Load(lab, family, requests=N_FILL, **load).wait(120)
        assert first["ok"] >= N_FILL * 0.999, first
        before = retransmissions(lab.client)
        again = Load(lab, family, requests=N_AGAIN, **load).wait()
        again["retransmissions"] = retransmissions(lab.client) - before
        again["made"] = gateway.ledger()["made"]
        again["fill_s"] = first["seconds"]
        print(f"{options or 'on'}: {again}")
        return again


@pytest.mark.long
def test_reuse(lab, family):
    again = run(lab, family, "")
    assert again["ok"] == N_AGAIN
    assert again["retransmissions"] == 0
    assert again["connect_max_ms"] < 500


@pytest.mark.long
def test_reuse_untranslated(lab, family):
    """
    The test above would notice: without the cure, many a SYN has to be sent again. A kernel of today does that a few
    milliseconds after the odd answer, others wait for a second; so it is the SYNs that are counted.
    """
    again = run(lab, family, OFF)
    assert again["retransmissions"] >= N_AGAIN * 0.3
