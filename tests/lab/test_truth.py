# SPDX-License-Identifier: BSD-3-Clause
"""What the gateway knows of a connection is what its ends know, and when it ends both hear of it: one scene each."""

import collections
import contextlib
import errno
import select
import socket
import statistics
import struct
import time

import pytest
from capture import ACK, RST, between_clients, between_upstreams
from conftest import one_worker, two_workers
from connections import HANGS_S, PEER_DEAD_S, idle, server_sockets, sockets, streams
from faults import forgetful_firewall, nft, vanished
from gateways import BULK_PORT, Service, Spillway
from netns import eventually
from paths import long_way
from tools import Crowd, nstat, report
from topology import CLIENTS, UPSTREAMS, VIP, bracketed

LATE_S = 0.02  # what a busy machine may add to anything


def hear_something(connections, within_s):
    """Waits until there is something to read on any, data or an end; there may be more than select() takes."""
    poll = select.poll()
    for stream in connections:
        poll.register(stream.socket, select.POLLIN)
    return poll.poll(1000 * within_s)


def ends_of(connections, timeout_s):
    """{stream: (errno, when)} of those that end in that time."""
    ends, deadline = {}, time.monotonic() + timeout_s
    waiting = {s.socket: s for s in connections}
    while waiting and (left := deadline - time.monotonic()) > 0:
        for ready in select.select(list(waiting), [], [], left)[0]:
            at = time.time()
            stream = waiting.pop(ready)
            ends[stream] = stream.error(0), at
    return ends


# --- 1: firewalls that forget ---


def check_firewalls(lab, tuned, probe, forget_s, idle_s, routers=None, kept=5, unasked=5):
    """
    On either side of the gateway, or where `routers` says. Connections that begin while the cure is off are not kept
    alive, beside those that are: a connection keeps the mode of its birth. `kept`, `unasked`: of each family.
    """
    gateway = tuned("enforce", f"idle: {{probe: {probe}}}")
    with contextlib.ExitStack() as stack:
        forgotten = [stack.enter_context(forgetful_firewall(r, forget_s)) for r in routers or (lab.wan, lab.lan)]
        lives = stack.enter_context(streams(lab, kept))
        gateway.ctl("cure", "silence", "off")
        hangs = stack.enter_context(streams(lab, unasked))
        idle(idle_s)
        for stream in lives:
            stream.send()
        for stream in lives:
            stream.receive()
        assert not any(f() for f in forgotten)
        for stream in hangs:
            stream.send(1)
        assert not hear_something(hangs, HANGS_S)
        # What the first one does not let through, the other one does not see.
        assert forgotten[0]() >= len(hangs) and not any(f() for f in forgotten[1:])
    assert gateway.action("keepalive") >= 2 * len(lives)


@pytest.mark.costly
def test_d13_1_firewalls(lab, tuned, server):
    check_firewalls(lab, tuned, "1s", forget_s=2, idle_s=3)


@two_workers
@pytest.mark.long
def test_d13_1_ten_minutes(lab, tuned, server):
    check_firewalls(lab, tuned, "3m", forget_s=240, idle_s=600)


# --- 2: a client that is gone ---


def check_vanished(lab, tuned, server, probe_s, record_property, gone=(CLIENTS[4][0], CLIENTS[6][0]), per_family=5):
    """Those of `per_family` connections of each family whose client is `gone` end, in time; the others do not."""
    gateway = tuned("enforce", f"idle: {{probe: {probe_s}s}}")
    with streams(lab, per_family) as all_streams:
        dead = [s for s in all_streams if s.source in gone]
        with vanished(lab, gone):
            begin = time.monotonic()
            eventually(lambda: server.ends, 1.1 * probe_s + PEER_DEAD_S, "a RST for the backend")
            first_s = time.monotonic() - begin
            eventually(lambda: len(server.ends) == len(dead), 1.1 * probe_s + PEER_DEAD_S - first_s, "the others")
            last_s = time.monotonic() - begin
            left = per_family - len(dead) // 2
            eventually(lambda: [gateway.backend(f)["flows"] for f in (4, 6)] == [left, left], 7, "their entries go")
        assert set(server.ends) == {errno.ECONNRESET}
        report(record_property, probe_s=probe_s, dead=len(dead), reset_s=(round(first_s, 2), round(last_s, 2)))
        # The last packet came a moment before.
        assert first_s > 0.9 * probe_s + 30 - 1
        for stream in set(all_streams) - set(dead):
            stream.send()
            stream.receive()
    for family in (4, 6):
        row = gateway.backend(family)
        assert (row["silent_clients"], row["silent_backends"]) == (len(dead) // 2, 0)
        assert row["idle_lost_s"] is None
    eventually(lambda: "peer_dead" in gateway.output(), 2, "the event")


@pytest.mark.long
def test_d13_2_vanished_client(lab, tuned, server, record_property):
    """A client's host is gone without a word: the backend's kernel is told, in the time that was promised."""
    check_vanished(lab, tuned, server, 1, record_property)


@one_worker
@pytest.mark.long
def test_d13_2_three_minutes(lab, tuned, server, record_property):
    check_vanished(lab, tuned, server, 180, record_property)


# --- 3: a backend that knows nothing of it ---


def forget(lab, server):
    """The backend's kernel drops its connections, and none of its RSTs gets out: as if it had been started anew."""
    silent = "chain output { type filter hook output priority filter; tcp flags & rst == rst drop; }"
    with nft(lab.up1, silent):
        for conn in server.connections:
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            conn.shutdown(socket.SHUT_RD)
        eventually(lambda: not server_sockets(lab), 5, "the backend forgets its connections")


def first_resets(wan):
    """{(address, port) of a client: the RST that it got first}"""
    first = {}
    for p in wan.segments:
        if p.flags & RST and p.src in VIP.values():
            first.setdefault((p.dst, p.dport), p)
    return first


def test_d13_3_forgotten_by_the_backend(lab, tuned, server, record_property):
    """It says so when it is asked: the client learns it then, and has nothing to ask back."""
    gateway = tuned("enforce", "idle: {probe: 1s}")
    with streams(lab, 5) as all_streams:
        with between_clients(lab) as wan, between_upstreams(lab, RST) as lan:
            forget(lab, server)
            ends = ends_of(all_streams, 3)
        ports = {s.socket.getsockname()[:2]: s for s in all_streams}
    assert [e for e, _ in ends.values()] == [errno.ECONNRESET] * len(all_streams)
    told = first_resets(wan)
    assert set(told) == set(ports)
    # A challenge ACK is what a client sends that does not believe a RST (RFC 5961).
    assert not [p for p in wan.segments if (p.src, p.sport) in told and p.at > told[p.src, p.sport].at]
    said = [p.at for p in lan.segments if p.dst not in UPSTREAMS["up1"].values()]
    late = [ends[ports[who]][1] - max(at for at in said if at <= p.at) for who, p in told.items()]
    report(record_property, answer_to_error_ms=[round(1000 * s, 2) for s in sorted(late)])
    assert max(late) < LATE_S
    assert gateway.action("rst_peer_dead") == 0


# --- 4: a gateway that ends what is busy ---

DOWNLOADS = 1000
POUR = Service("pour", 5202, 5202, upstreams=("up1", "up2"))


def n_pouring(lab):
    """Connections of the service that have data under way or waiting."""
    rows = [row for up in POUR.upstreams for row in sockets(lab.ns[up], "sport", "=", f":{POUR.port}")]
    return sum("unacked" in row or "notsent" in row for row in rows)


def check_killed(lab, family, kill, n_killed, record_property):
    """`kill` begins it. Each client hears of it at once, however much is under way to it, and of three RSTs at most."""
    gateway = Spillway(lab, lab.n_queues, services=(POUR,))
    with contextlib.ExitStack() as stack:
        gateway.start()
        stack.callback(gateway.stop)
        gateway.wait_serving()
        crowd = Crowd(lab, (family,), DOWNLOADS, servers=POUR.upstreams, port=POUR.port, pour=True, rcvbuf=16384)
        stack.enter_context(crowd)
        opened = crowd.do("open")
        assert opened["done"] == DOWNLOADS, opened
        crowd.tell("watch", 6)
        eventually(lambda: n_pouring(lab) == DOWNLOADS, 5, "data under way on each")
        with between_clients(lab, RST) as wan:
            n = kill(gateway)
            heard = crowd.told()
    first = first_resets(wan)
    counts = collections.Counter((p.dst, p.dport) for p in wan.segments if p.flags & RST and p.src == VIP[family])
    late = sorted(e["at"] - first[e["address"], e["port"]].at for e in heard["ends"])
    report(record_property, killed=len(late), last_ms=round(1000 * late[-1], 1),
           median_ms=round(1000 * statistics.median(late), 2), rsts=dict(collections.Counter(counts.values())),
           first_to_last_s=round(max(e["at"] for e in heard["ends"]) - min(p.at for p in first.values()), 2))
    assert {e["errno"] for e in heard["ends"]} == {errno.ECONNRESET}
    assert len(late) == len(first) == n_killed(n)
    assert late[-1] <= 1
    assert max(counts.values()) <= 3


@pytest.mark.costly
def test_d13_4_stopped_downloads(lab, family, record_property):
    check_killed(lab, family, Spillway.stop, lambda _: DOWNLOADS, record_property)


@pytest.mark.long
def test_d13_4_drained_downloads(lab, family, record_property):
    """Those of one backend of two; the others go on."""
    backend = f"tcp:{bracketed(UPSTREAMS['up1'][family])}:{POUR.port}"

    def drain(gateway):
        return gateway.ctl("drain", backend, "deadline=1s")["flows"]

    check_killed(lab, family, drain, lambda n: n, record_property)


# --- 6: timestamps ---

FAR_MS = 20


PAWS = ("TcpExtPAWSActive", "TcpExtPAWSEstab", "TcpExtPAWSOldAck", "TcpExtPAWSTimewait", "TcpExtTSEcrRejected")


def test_d13_6_round_trips(lab, tuned, server, record_property):
    """Timestamps are the gateway's own upstream, and both ends measure by them what is true."""
    tuned("enforce", "idle: {probe: off}")
    ends = {"client": lab.client, "backend": lab.up1}
    before = {name: nstat(ns, *PAWS) for name, ns in ends.items()}
    with long_way(lab, FAR_MS), streams(lab, 2) as all_streams:
        for _ in range(5):
            for stream in all_streams:
                stream.send(100_000)
            for stream in all_streams:
                stream.receive()
        rows = {"backend": server_sockets(lab), "client": sockets(lab.client, "dport", "=", f":{BULK_PORT}")}
    assert {name: nstat(ns, *PAWS) for name, ns in ends.items()} == before
    for name, found in rows.items():
        assert len(found) == len(all_streams) and all("ts" in row for row in found)
        least = [float(row["minrtt"]) for row in found]
        # By the timestamps that come back with data.
        by_data = [float(row["rcv_rtt"]) for row in found if "rcv_rtt" in row]
        report(record_property, end=name, minrtt_ms=least, rcv_rtt_ms=by_data, rtt_ms=[row["rtt"] for row in found])
        assert all(FAR_MS <= ms <= FAR_MS + 1 for ms in least), least
        # In ticks of a millisecond.
        assert abs(min(by_data) - FAR_MS) <= 1, by_data


# --- 10: strays ---


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Strays:
    """ACKs of connections that nobody has, from one address. A context manager."""

    def __init__(self, lab, source, to):
        self._kind = socket.AF_INET6 if ":" in source else socket.AF_INET
        self.source, self._to = source, to
        with lab.client.entered():
            self._socket = socket.socket(self._kind, socket.SOCK_RAW, socket.IPPROTO_TCP)
            self._socket.bind((source, 0))
        ends = socket.inet_pton(self._kind, source) + socket.inet_pton(self._kind, to)
        self._pseudo = ends + struct.pack("!IHBB", 20, 0, 0, socket.IPPROTO_TCP)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._socket.close()

    def send(self, i):
        """The i-th: each has ports and numbers of its own."""
        head = struct.pack("!HHII", 1024 + i % 60000, 80, i * 7919 & 0xFFFFFFFF, i * 104729 + 1 & 0xFFFFFFFF)
        segment = head + struct.pack("!BBHHH", 5 << 4, ACK, 1000, 0, 0)
        right = struct.pack("!H", checksum(self._pseudo + segment))
        self._socket.sendto(segment[:16] + right + segment[18:], (self._to, 0))


STRAYS = 20
FLOOD_PER_S, FLOOD_S = 10_000, 3


def answers(wan, family):
    """(stray, RST or None) of each, as the wire had them."""
    rsts = {(p.dst, p.dport): p for p in wan.segments if p.src == VIP[family] and p.flags & RST}
    return [(p, rsts.get((p.src, p.sport))) for p in wan.segments if p.dst == VIP[family]]


def test_d13_10_stray(lab, spillway, family, record_property):
    """A RST whose number is what the stray acknowledged, at once."""
    # All addresses of an IPv6 /64 are one source.
    sources = CLIENTS[4] if family == 4 else CLIENTS[6][:1]
    # A source is answered ten times a second, by each worker its share of that.
    every_s = 0.1 * lab.n_queues + 0.01
    with contextlib.ExitStack() as stack:
        strays = [stack.enter_context(Strays(lab, source, VIP[family])) for source in sources]
        with between_clients(lab) as wan:
            for i in range(STRAYS):
                for j, stray in enumerate(strays):
                    stray.send(i * len(strays) + j)
                idle(every_s)
    pairs = answers(wan, family)
    assert len(pairs) == STRAYS * len(sources) and all(rst for _, rst in pairs), len(pairs)
    assert all(rst.seq == stray.ack and rst.flags == RST and not rst.payload for stray, rst in pairs)
    late = sorted(rst.at - stray.at for stray, rst in pairs)
    report(record_property, n=len(late), median_ms=round(1000 * statistics.median(late), 3),
           max_ms=round(1000 * late[-1], 3))
    assert late[int(0.99 * (len(late) - 1))] <= 0.001 + LATE_S


def test_d13_10_flood_of_strays(lab, spillway, family, record_property):
    """Ten RSTs a second to one source, also in the minute after a start, when all together may have more."""
    with Strays(lab, CLIENTS[family][0], VIP[family]) as strays, between_clients(lab, RST) as wan:
        begin = time.monotonic()
        for i in range(FLOOD_PER_S * FLOOD_S):
            strays.send(i)
            if i % 10 == 0:
                time.sleep(max(0, begin + i / FLOOD_PER_S - time.monotonic()))
        took_s = time.monotonic() - begin
        ledger = eventually(
            lambda: (now := spillway.ledger())["reasons"]["shed_stray_limit"] > 0 and now["in_rings"] == 0 and now,
            2, "all are counted",
        )
    rsts = [p for p in wan.segments if p.flags & RST]
    report(record_property, sent=i + 1, seconds=round(took_s, 2), rsts=len(rsts))
    assert ledger["reasons"]["shed_stray_limit"] >= FLOOD_PER_S * FLOOD_S * 0.9
    assert len(rsts) <= 10 * took_s + lab.n_queues
    assert len(rsts) >= 5 * took_s
