# SPDX-License-Identifier: BSD-3-Clause
"""Many clients with clocks of their own share SNAT ports, faster than a backend forgets the connections it closed."""

import contextlib

import pytest
from capture import ACK, RST, SYN, Capture
from conftest import assert_nothing_left, diagonal
from gateways import Service, Spillway
from servers import SlowUpstream
from tools import Load, nstat, report
from topology import CLIENTS, VIP

PORT = 8090
N_CLIENTS = 200
OFF = "reuse: {isn: off, timestamps: off, assist: off}"


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


@contextlib.contextmanager
def sharing(lab, family, options, n_ports):
    """A gateway with so many SNAT ports towards a server that closes first. Gives it, and a Load's options."""
    service = Service("reuse", PORT, PORT, upstreams=("up1",), options=options)
    edits = (
        ("  flows: 100000\n", f"  flows: 100000\n  flows_ipv6: 100000\n  snat_ports: 20000-{20000 + n_ports - 1}\n"),
    )
    with contextlib.ExitStack() as stack:
        # So that no connection that up1 closed is forgotten early.
        stack.callback(lab.up1.sysctl, ipv4__tcp_max_tw_buckets=lab.up1.get_sysctl("ipv4__tcp_max_tw_buckets"))
        lab.up1.sysctl(ipv4__tcp_max_tw_buckets=262144)
        stack.enter_context(contextlib.closing(SlowUpstream(lab, "up1", PORT, workers=64, work_ms=1)))
        gateway = Spillway(lab, lab.n_queues, services=(service,), edits=edits)
        gateway.start()
        stack.callback(assert_nothing_left, lab)
        stack.callback(gateway.stop)
        gateway.wait_serving()
        sources = stack.enter_context(many_clients(lab, family))
        yield gateway, {"to": VIP[family], "port": PORT, "sources": sources, "timeout_ms": 10000}


def retransmitted(lab):
    return nstat(lab.client, "TcpExtTCPSynRetrans")["TcpExtTCPSynRetrans"]


def odd_answers(segments, vip):
    """Of how many client ports there were answers, and how many got something else than a SYN-ACK at first."""
    first = {}
    for p in segments:
        if p.src == vip:
            first.setdefault((p.dst, p.dport), p.flags)
    return len(first), sum(flags & (SYN | ACK | RST) != SYN | ACK for flags in first.values())


def run(lab, family, options, n_ports, record_property, **load):
    """What the load saw, how many SYNs its host sent again, and how many odd answers were on the wire."""
    with sharing(lab, family, options, n_ports) as (gateway, to):
        before = retransmitted(lab)
        # Neither data nor FIN: enough to see what is answered to a SYN.
        host = f"src host {VIP[family]} and tcp port {PORT}" if family == 4 else f"src host {VIP[6]} and ip6 proto 6"
        flags = "tcp[13] & 9 = 0" if family == 4 else "ip6[53] & 9 = 0"
        with Capture(lab, lab.wan, f"{host} and {flags}") as wan:
            result = Load(lab, family, **to, **load).wait(200)
        result["again"] = retransmitted(lab) - before
        result["seen"], result["odd"] = odd_answers(wan.segments, VIP[family])
        ledger = gateway.ledger()
        backend = lab.up1.run("cat", "/proc/net/sockstat").stdout
        time_wait = int(next(line for line in backend.splitlines() if line.startswith("TCP:")).split()[6])
        report(record_property, options=options or "on", ok=result["ok"], failed=result["failed"],
               seconds=round(result["seconds"], 1), connect_max_ms=result["connect_max_ms"], again=result["again"],
               odd=result["odd"], seen=result["seen"], backend_time_wait=time_wait,
               assisted=ledger["made"]["syn_time_wait"], exhausted=ledger["reasons"]["answer_ports_exhausted"],
               failures=result["failures"])
    return result


TEN, TEN_CONNECTS, OFF_CONNECTS = 10, 2000, 500
# A worker of two has five ports, and some connections that end are not over yet when the next begins.
AT_A_TIME = 1
CONNECT_MAX_MS = 100


@pytest.mark.costly
def test_d13_5_ten_ports(lab, family, record_property):
    """2000 connects through ten ports, no two clients with the same clock: none waits for anything."""
    result = run(lab, family, "", TEN, record_property, requests=TEN_CONNECTS, concurrency=AT_A_TIME)
    assert result["ok"] == TEN_CONNECTS
    assert result["again"] == 0 and result["odd"] == 0
    assert result["connect_max_ms"] < CONNECT_MAX_MS


@pytest.mark.costly
def test_d13_5_untranslated(lab, family, record_property):
    """
    The test above would notice: without the cure, many a SYN has to be sent again. A kernel of today does that a few
    milliseconds after the odd answer, others wait for a second; so it is the SYNs that are counted.
    """
    result = run(lab, family, OFF, TEN, record_property, requests=OFF_CONNECTS, concurrency=AT_A_TIME)
    assert result["again"] >= OFF_CONNECTS * 0.3
    assert result["odd"] >= OFF_CONNECTS * 0.3


# Of one SNAT address; a thousand connects a second use each of them several times a minute.
FEW_PORTS = 8192
PER_S, MINUTE_S, OFF_S = 1000, 60, 20


@diagonal
@pytest.mark.long
def test_a_thousand_a_second(lab, family, record_property):
    n = PER_S * MINUTE_S
    result = run(lab, family, "", FEW_PORTS, record_property, rate=PER_S, requests=n, concurrency=256)
    # A client's port may come twice in a minute.
    assert result["ok"] == n and result["seen"] > 0.98 * n
    assert result["again"] == 0 and result["odd"] == 0


@diagonal
@pytest.mark.long
def test_a_thousand_a_second_untranslated(lab, family, record_property):
    n = PER_S * OFF_S
    result = run(lab, family, OFF, FEW_PORTS, record_property, rate=PER_S, requests=n, concurrency=256)
    assert result["again"] > 0 and result["odd"] > 0
