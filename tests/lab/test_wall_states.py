# SPDX-License-Identifier: BSD-3-Clause
"""The breakers' acceptance scenarios, as clients and upstreams meet them; what needs a clock of its own is in unit/."""

import contextlib
import json
import select
import signal
import socket
import struct
import threading
import time

import faults
import pytest
from attempts import gather_clients, percentile, sources, spread_clients, wait_until
from conftest import assert_nothing_left, one_worker, started
from dying import DEAD, NETWORKS, TRIO, Mortals, backend_id, events_of, row_of
from gateways import Spillway
from netns import eventually
from paths import far_upstreams
from servers import Echo
from tools import Load
from topology import BACKEND_PORT, CLIENTS, UPSTREAMS, VIP

RATE = 400  # attempts a second
WARM_S, DEAD_S = 1.5, 2
CHANCE = 0.05  # of a third of 4000: two standard deviations
LAB_MS = 20  # what a bound may be exceeded by here
RSS_SLACK_KIB = 1024


@pytest.fixture
def trio(lab, family):
    with Mortals(lab, TRIO, family) as it:
        yield it


@pytest.fixture
def gateway(lab, records, trio):
    if not Spillway.built():
        pytest.skip("build/spillway is not built")
    yield from started(Spillway(lab, lab.n_queues, services=(TRIO,)))
    assert_nothing_left(lab)


def show(record_property, **figures):
    record_property("figures", json.dumps(figures))
    print(figures)


def unconnected(attempts):
    return [a for a in attempts if a.connected_s is None]


def opened_ms(gateway, died_at):
    """After how long the first breaker opened."""
    event = eventually(lambda: events_of(gateway, "breaker_open"), 3, "a breaker opens")[0]
    return 1000 * (event["at"] - died_at)


def one_dies(gateway, trio, die):
    """400 connections a second, and one upstream dies. When it opened, and who came since: (ms, attempts)."""
    clients = trio.clients(RATE, WARM_S + DEAD_S)
    wait_until(clients.begin_ns + int(WARM_S * 1e9))
    died_ns, died_at = die(DEAD)
    took_ms = opened_ms(gateway, died_at)
    account, attempts = clients.wait()
    assert account["overrun"] == 0
    return took_ms, [a for a in attempts if a.ended_s >= clients.at(died_ns)]


@pytest.mark.costly
def test_a11_1_killed(gateway, trio, record_property):
    """It refuses: open within a tenth of a second, nobody hears of it, hardly anybody waits."""
    took_ms, attempts = one_dies(gateway, trio, trio.kill)
    slow = [a for a in attempts if a.connected_s is not None and a.connect_ms > 50]
    show(record_property, opened_ms=round(took_ms), slow=len(slow), connects=len(attempts),
         slowest_ms=round(max(a.connect_ms or 0 for a in attempts), 1))
    assert unconnected(attempts) == []
    assert took_ms <= 100 + LAB_MS
    assert len(slow) <= 0.01 * len(attempts)
    assert trio.row(gateway, DEAD)["resteered"] >= 5


@pytest.mark.costly
def test_a11_2_unplugged(gateway, trio, record_property):
    """It is silent: open within half a second, and no client sends its SYN again."""
    took_ms, attempts = one_dies(gateway, trio, trio.unplug)
    show(record_property, opened_ms=round(took_ms), connects=len(attempts),
         slowest_ms=round(max(a.connect_ms or 0 for a in attempts), 1))
    assert unconnected(attempts) == []
    assert took_ms <= 500 + LAB_MS
    assert max(a.connect_ms for a in attempts) <= 450 + LAB_MS
    assert trio.row(gateway, DEAD)["resteered"] >= 5


@pytest.mark.long
def test_a11_3_without_resteer(gateway, trio, record_property):
    """The same in shadow, where nobody is given to another one: every third client hears nothing, and it is counted."""
    gateway.ctl("cure", "wall", "shadow")
    clients = trio.clients(RATE, WARM_S + 1.5, timeout_ms=900)
    wait_until(clients.begin_ns + int(WARM_S * 1e9))
    died_ns, _ = trio.unplug(DEAD)
    eventually(lambda: "shadow" in "".join(e["text"] for e in events_of(gateway, "breaker_open")), 3, "it would open")
    attempts = [a for a in clients.wait()[1] if a.began_s >= clients.at(died_ns)]
    failed, actions = unconnected(attempts), gateway.ledger()["actions"]
    show(record_property, failed=len(failed), connects=len(attempts), would=actions["would_resteer"])
    assert 0.2 * len(attempts) <= len(failed) <= 0.5 * len(attempts)
    assert actions["would_resteer"] > 0 and actions["resteer"] == 0


@pytest.mark.long
def test_a11_4_returns(gateway, trio, record_property):
    """Silent for 12 s: a real flow within 3.5 s of its return, a tenth of its share first, all of it after the ramp."""
    clients = trio.clients(RATE, WARM_S + 12 + 4 + 42)
    wait_until(clients.begin_ns + int(WARM_S * 1e9))
    trio.unplug(DEAD)
    eventually(lambda: trio.row(gateway, DEAD)["breaker"] == "open", 3, "it opens")
    time.sleep(12)
    connects = trio.row(gateway, DEAD)["connects"]
    back_ns, _ = trio.plug(DEAD)
    eventually(lambda: trio.row(gateway, DEAD)["connects"] > connects, 5, "a real flow")
    back_s = (time.monotonic_ns() - back_ns) / 1e9
    eventually(lambda: trio.row(gateway, DEAD)["breaker"] == "ramp", 2, "the ramp")
    first = share(gateway, trio, 3)
    eventually(lambda: trio.row(gateway, DEAD)["breaker"] == "closed", 30, "the ramp's end")
    last = share(gateway, trio, 10)
    _, attempts = clients.wait()
    show(record_property, back_s=round(back_s, 2), first=round(first, 3), last=round(last, 3))
    assert back_s <= 3.5
    assert first <= 0.15
    assert last >= 0.95 - CHANCE
    assert unconnected(attempts) == []


def share(gateway, trio, seconds):
    """Of its fair part of the new flows of the next seconds."""

    def new_flows():
        return [trio.row(gateway, up)["new_flows"] for up in UPSTREAMS]

    before = new_flows()
    time.sleep(seconds)
    counts = dict(zip(UPSTREAMS, (b - a for a, b in zip(before, new_flows()))))
    return counts[DEAD] * len(UPSTREAMS) / sum(counts.values())


class Resetting(Echo):
    """Takes a request, and resets the connection instead of an answer."""

    def __init__(self, ns, addresses, port):
        self.asked = 0
        super().__init__(ns, addresses, port)

    def _serve(self, conn):
        with contextlib.suppress(OSError), conn:
            if conn.recv(4096):
                self.asked += 1
                conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.fixture
def in_place_of_nginx(lab):
    """The shop's upstream that dies; something else may listen there until the end."""
    lab.nginx[DEAD].stop()
    with contextlib.ExitStack() as stack:
        yield stack
    lab.nginx[DEAD].start()


@pytest.mark.costly
def test_a11_5_resets(lab, in_place_of_nginx, spillway, family, record_property):
    """It resets every request: one network's word opens nothing, that of several does after a handful."""
    address = UPSTREAMS[DEAD][family]
    server = in_place_of_nginx.enter_context(contextlib.closing(Resetting(lab.ns[DEAD], [address], BACKEND_PORT)))
    backend = backend_id(DEAD, family)
    result = Load(lab, family, rate=150, requests=150, concurrency=500).wait()
    alone = server.asked
    assert result["failures"]["reset"] >= 0.9 * alone > 30
    assert row_of(spillway, backend)["breaker"] == "closed"
    spread_clients(lab, NETWORKS)
    in_place_of_nginx.callback(gather_clients, lab, NETWORKS)
    Load(lab, family, rate=150, requests=150, concurrency=500, sources=sources(family, NETWORKS)).wait()
    assert row_of(spillway, backend)["breaker"] == "open"
    show(record_property, alone=alone, until_open=server.asked - alone)
    # What was under way; without a breaker it would be as many as from one network.
    assert 0 < server.asked - alone <= 20
    event = events_of(spillway, "breaker_open")[0]
    assert event["subject"] == backend and "of at least 3 networks" in event["text"]


class Crowded:
    """A listener with room for hardly any, which nobody accepts from, but those that were there before."""

    def __init__(self, ns, address):
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        with ns.entered():
            self.listener = socket.create_server((address, BACKEND_PORT), family=kind, backlog=1)

    def accept_one(self):
        conn, _ = self.listener.accept()
        return conn

    def close(self):
        self.listener.close()


@contextlib.contextmanager
def connections_to(lab, family, crowded, n):
    """So many clients' connections that the crowded listener got: (client, server) of each."""
    with contextlib.ExitStack() as stack:
        found = []
        for source in CLIENTS[family] * n:
            with lab.client.entered():
                client = socket.create_connection((VIP[family], 80), 5, source_address=(source, 0))
            stack.callback(client.close)
            if select.select([crowded.listener], [], [], 0.02)[0]:
                found.append((client, crowded.accept_one()))
                stack.callback(found[-1][1].close)
            if len(found) == n:
                break
        yield found


@contextlib.contextmanager
def talking(pairs):
    """Something moves on each of these connections every 50 ms."""
    over = threading.Event()

    def talk():
        while not over.wait(0.05):
            for client, server in pairs:
                client.sendall(b"?")
                server.sendall(server.recv(1))

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.costly
def test_a11_6_crowded(lab, in_place_of_nginx, spillway, family, record_property):
    """It takes nobody any more, but is heard: that is no death, and who was to wait for it is given to another one."""
    crowded = Crowded(lab.ns[DEAD], UPSTREAMS[DEAD][family])
    in_place_of_nginx.enter_context(contextlib.closing(crowded))
    # As many as both workers have some of.
    with connections_to(lab, family, crowded, 12) as pairs, talking(pairs):
        assert len(pairs) == 12
        # Whom it has in its queue waits in vain, as the last second's do.
        result = Load(lab, family, rate=150, seconds=3, concurrency=1000, timeout_ms=1500).wait()
        row = row_of(spillway, backend_id(DEAD, family))
    where = backend_id(DEAD, family).removeprefix("tcp:")
    findings = spillway.ctl("explain", where)["findings"]
    overloads = sum(f["count"] for f in findings if f["scope"] == "backend" and f["reason"] == "overloads")
    show(record_property, overloads=overloads, resteered=row["resteered"], unconnected=result["unconnected"],
         failed=result["failed"])
    assert overloads > 20
    assert row["breaker"] == "closed" and events_of(spillway, "breaker_open") == []
    assert row["resteered"] > 20
    assert result["unconnected"] == 0


def all_die(gateway, trio, seconds, record_property):
    for up in UPSTREAMS:
        trio.kill(up)
    clients = trio.clients(1000, seconds + 2, timeout_ms=900)
    eventually(lambda: trio.breakers(gateway) == ["open"] * len(UPSTREAMS), 5, "all are open")
    time.sleep(0.5)
    rss, begin = gateway.rss_kib(), time.monotonic()
    before, did = sum(syns() for syns in trio.syns.values()), gateway.ledger()["actions"]
    time.sleep(seconds)
    syns, end = sum(syns() for syns in trio.syns.values()) - before, time.monotonic()
    now, grown_kib = gateway.ledger()["actions"], gateway.rss_kib() - rss
    did = {name: now[name] - did[name] for name in ("last_resort", "probe")}
    _, attempts = clients.wait()
    refused = [a.took_ms for a in attempts if a.result == "refused" and 1 < a.began_s < seconds]
    p99_ms = percentile(refused, 0.99)
    show(record_property, syns=syns, seconds=round(end - begin, 2), **did, refused=len(refused),
         rst_p99_ms=round(p99_ms, 1), grown_kib=grown_kib)
    # A look takes a moment, in which the next one may come.
    assert did["last_resort"] <= end - begin + 1
    assert did["probe"] <= len(UPSTREAMS) * (1.15 * (end - begin) + 1)
    assert abs(syns - sum(did.values())) <= len(UPSTREAMS) + 1
    assert len(refused) > 20 * seconds
    assert p99_ms <= 5 + LAB_MS
    assert grown_kib <= RSS_SLACK_KIB
    assert {a.result for a in attempts if a.began_s > 1} <= {"refused", "timeout"}


@pytest.mark.costly
def test_a11_8_all_dead(gateway, trio, record_property):
    """Clients hear a no at once, upstreams get next to nothing, and what they get is what was counted."""
    all_die(gateway, trio, 3, record_property)


@pytest.mark.long
def test_a11_8_all_dead_for_long(gateway, trio, record_property):
    all_die(gateway, trio, 60, record_property)


@pytest.mark.long
@one_worker
def test_a11_9_loss(lab, gateway, trio, record_property):
    """One packet in a hundred is lost each way, for a minute: no breaker opens."""
    rules = "chain forward { type filter hook forward priority 0; meta l4proto tcp numgen random mod 100 == 0 drop; }"
    with faults.nft(lab.lan, rules):
        _, attempts = trio.clients(500, 60).wait()
    show(record_property, connects=len(attempts), slow=len([a for a in attempts if (a.connect_ms or 0) > 900]),
         failed=len([a for a in attempts if a.result != "ok"]))
    assert events_of(gateway, "breaker_open") == []
    assert len([a for a in attempts if a.result == "ok"]) > 0.99 * len(attempts)


@pytest.mark.long
@one_worker
def test_a11_10_flapping(lab, gateway, trio, record_property):
    """Two seconds up, two down, for five minutes: it is left alone for longer each time, and clients hardly notice."""
    clients = trio.clients(100, 300)
    dport = f"tcp dport {TRIO.backend_port}"
    rules = f"chain in {{ type filter hook input priority -300; {dport} reject with tcp reset; }}"
    for i in range(75):
        with faults.nft(lab.ns[DEAD], rules):
            wait_until(clients.begin_ns + (4 * i + 2) * 1_000_000_000)
        wait_until(clients.begin_ns + (4 * i + 4) * 1_000_000_000)
    _, attempts = clients.wait()
    failed = [a for a in attempts if a.result != "ok"]
    opened = [e["at"] for e in events_of(gateway, "breaker_open")]
    tried = [e["at"] for e in events_of(gateway, "breaker_half_open")]
    closed_s = [round(min((t for t in tried if t > at), default=at) - at, 1) for at in opened]
    show(record_property, failed=len(failed), connects=len(attempts), opened=len(opened), closed_s=closed_s)
    assert len(failed) < 0.02 * len(attempts)
    assert 5 <= len(opened) <= 30
    assert max(closed_s) >= 0.75 * 60


@contextlib.contextmanager
def stopped(gateway):
    gateway.child.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        gateway.child.send_signal(signal.SIGCONT)


@pytest.mark.costly
def test_stopped_gateway(lab, gateway, trio, record_property):
    """It does not run for 300 ms, again and again, while eight SYNs wait: what it hears late is no upstream's fault."""
    with far_upstreams(lab, 20):
        clients = trio.clients(RATE, 4)
        wait_until(clients.begin_ns + 1_000_000_000)
        for _ in range(4):
            with stopped(gateway):
                time.sleep(0.3)
            time.sleep(0.3)
        _, attempts = clients.wait()
    stalled, actions = events_of(gateway, "worker_stalled"), gateway.ledger()["actions"]
    show(record_property, connects=len(attempts), slowest_ms=round(max(a.connect_ms or 0 for a in attempts)),
         resteered=actions["resteer"], stalled=len(stalled))
    assert events_of(gateway, "breaker_open") == events_of(gateway, "side_down") == []
    assert trio.breakers(gateway) == ["closed"] * len(UPSTREAMS)
    assert [a for a in attempts if a.result != "ok"] == []
    assert "did not run for" in stalled[0]["text"]


def told_of_side(gateway, kind, family):
    texts = [e["text"] for e in events_of(gateway, kind) if e["subject"] == TRIO.name]
    return next(text for text in texts if text.startswith(f"IPv{family}: "))


@pytest.mark.costly
@pytest.mark.parametrize("end", ["own", pytest.param("peer", marks=pytest.mark.long)])
def test_pulled_link(lab, gateway, trio, end, record_property):
    """The upstreams' side is pulled for 3 s under load: it says so, blames no upstream, and serves at once after."""
    ns, device = (lab.gw, "eth2") if end == "own" else (lab.lan, "gw")
    clients = trio.clients(RATE, 7, timeout_ms=1500)
    wait_until(clients.begin_ns + 1_000_000_000)
    pulled_s = clients.at(time.monotonic_ns())
    try:
        ns.ip(f"link set {device} down")
        time.sleep(3)
        breakers = trio.breakers(gateway)
        ns.ip(f"link set {device} up")
    finally:
        lab.restore()
    back_s = clients.at(time.monotonic_ns())
    _, attempts = clients.wait()
    failed = [a for a in attempts if a.result != "ok"]
    last_s = max((a.began_s for a in failed), default=back_s) - back_s
    show(record_property, failed=len(failed), connects=len(attempts), last_failed_s=round(last_s, 2))
    assert breakers == trio.breakers(gateway) == ["closed"] * len(UPSTREAMS)
    assert events_of(gateway, "breaker_open") == []
    assert "its link is down" in told_of_side(gateway, "side_down", trio.family)
    assert "there is a way again" in told_of_side(gateway, "side_up", trio.family)
    assert [a for a in failed if a.ended_s < pulled_s] == []
    assert last_s <= 2
