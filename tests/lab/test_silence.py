# SPDX-License-Identifier: BSD-3-Clause
"""Idle connections: kept alive through a firewall that forgets, and ended aloud when a peer is gone."""

import contextlib
import errno
import hashlib
import os
import select
import socket
import struct
import time

import pytest
from conftest import assert_nothing_left
from faults import forgetful_firewall, nft
from gateways import BULK_PORT, Spillway
from netns import LabError, eventually
from servers import Echo
from topology import CLIENTS, UPSTREAMS, VIP

PEER_DEAD_S = 31  # three probes ten seconds apart, and a second for the wheel
HANGS_S = 3
BLOB = 8192


class Tuned(Spillway):
    """With settings of its own for the service `bulk`, which has one backend per family."""

    def __init__(self, lab, mode, idle):
        self._mode, self._idle = mode, idle
        super().__init__(lab, lab.n_queues)

    def config_text(self, n_workers):
        text = super().config_text(n_workers)
        assert text.count("\nservices:\n") == 1
        return text.replace("\nservices:\n", f"\ncures: {{silence: {self._mode}}}\nservices:\n") + f"    {self._idle}\n"

    def backend(self, family):
        """Its row of /v1/backends."""
        address = UPSTREAMS["up1"][family]
        rows = [r for r in self.ctl("backends")["backends"] if r["services"] == ["bulk"] and address in r["id"]]
        assert len(rows) == 1
        return rows[0]

    def action(self, name):
        return self.ledger()["actions"][name]


@pytest.fixture
def tuned(lab, records):
    """Starts a gateway: tuned(mode, "idle: {…}")."""
    if not Spillway.built():
        pytest.skip("build/spillway is not built")
    with contextlib.ExitStack() as stack:

        def start(mode, idle):
            gateway = Tuned(lab, mode, idle)
            gateway.start()
            stack.callback(assert_nothing_left, lab)
            stack.callback(gateway.stop)
            gateway.wait_serving()
            return gateway

        yield start


class Server(Echo):
    """An echo that remembers how its connections ended: the errno of each, 0 for a FIN."""

    def __init__(self, lab):
        self.ends = []
        self.connections = []
        super().__init__(lab.up1, [UPSTREAMS["up1"][f] for f in (4, 6)], BULK_PORT)

    def _serve(self, conn):
        self.connections.append(conn)
        try:
            conn.sendall(self.BANNER)
            while data := conn.recv(65536):
                conn.sendall(data)
            self.ends.append(0)
        except OSError as error:
            self.ends.append(error.errno)
        conn.close()

    def close(self):
        super().close()
        for conn in self.connections:
            with contextlib.suppress(OSError):
                conn.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def server(lab):
    with contextlib.closing(Server(lab)) as it:
        yield it


class Stream:
    """One connection of a client, which sends and hashes what it sends, and what comes back."""

    def __init__(self, lab, family, source):
        with lab.client.entered():
            self.socket = socket.create_connection((VIP[family], BULK_PORT), 5, source_address=(source, 0))
        self.source = source
        self._sent, self._got = hashlib.sha256(), hashlib.sha256()
        self._due = 0
        self._take(len(Echo.BANNER), None)

    def send(self, n=BLOB):
        data = os.urandom(n)
        self._sent.update(data)
        self._due += n
        self.socket.sendall(data)

    def _take(self, n, digest):
        while n:
            data = self.socket.recv(min(n, 65536))
            if not data:
                raise LabError("the stream ended")
            n -= len(data)
            if digest:
                digest.update(data)

    def receive(self):
        """All that was sent came back, byte for byte."""
        self.socket.settimeout(HANGS_S)
        self._take(self._due, self._got)
        self._due = 0
        assert self._sent.digest() == self._got.digest()

    def error(self, timeout_s):
        """The errno that ends a wait for bytes; None if nothing happens."""
        self.socket.settimeout(timeout_s)
        try:
            got = self.socket.recv(1)
        except TimeoutError:
            return None
        except OSError as error:
            return error.errno
        raise LabError(f"got {got!r}")


@contextlib.contextmanager
def streams(lab, n, families=(4, 6)):
    """n of each family, from all client addresses in turn; each has transferred something."""
    with contextlib.ExitStack() as stack:
        made = []
        for family in families:
            for i in range(n):
                made.append(Stream(lab, family, CLIENTS[family][i % len(CLIENTS[family])]))
                stack.callback(made[-1].socket.close)
        for stream in made:
            stream.send()
        for stream in made:
            stream.receive()
        yield made


def sockets(ns, *expression):
    """What the kernel says of each established connection of the service: {name: value}."""
    out = ns.run("ss", "-Htino", "state", "established", *expression).stdout.splitlines()
    rows = []
    for line in out[1::2]:
        words = line.split()
        rows.append(dict(w.split(":", 1) for w in words if ":" in w))
    return rows


def server_sockets(lab):
    return sockets(lab.up1, "sport", "=", f":{BULK_PORT}")


def settled(lab, n):
    """The server has n connections, and their clients have acknowledged what came back."""
    acked = [row.get("bytes_acked") for row in server_sockets(lab)]
    return acked == [str(len(Echo.BANNER) + BLOB)] * n


def idle(seconds):
    """Silence itself is what is tested: there is no condition to wait for."""
    time.sleep(seconds)


def outlive(lab, gateway, per_family, forget_s, probe_s, idle_s):
    with forgetful_firewall(lab, forget_s) as forgotten, streams(lab, per_family) as all_streams:
        eventually(lambda: settled(lab, len(all_streams)), 3, "all bytes acknowledged")
        before = server_sockets(lab)
        idle(idle_s)
        after = server_sockets(lab)
        ledger = gateway.ledger()
        rounds = int(idle_s / (1.1 * probe_s + 0.2))
        asked = ledger["actions"]["keepalive"]
        assert asked >= 2 * rounds * len(all_streams), ledger["actions"]
        # Most answers are nothing else, and end here; one that opens its window is passed on.
        assert ledger["reasons"]["absorb_probe_answer"] >= asked * 0.9
        assert ledger["actions"]["rst_peer_dead"] == 0
        # The kernel saw segments, and none with data in it; none was sent twice.
        segments = [sum(int(row["segs_in"]) for row in rows) for rows in (before, after)]
        assert segments[1] - segments[0] >= asked * 0.4
        for key in ("data_segs_in", "data_segs_out", "bytes_received", "bytes_acked", "retrans"):
            assert [row.get(key) for row in after] == [row.get(key) for row in before], key
        assert max(float(row["rtt"].split("/")[0]) for row in after) < 100
        for stream in all_streams:
            stream.send()
        for stream in all_streams:
            stream.receive()
        assert forgotten() == 0
    survived = [gateway.backend(f)["idle_survived_s"] for f in (4, 6)]
    assert all(0.9 * probe_s <= s <= 1.1 * probe_s for s in survived), survived
    assert [gateway.backend(f)["idle_lost_s"] for f in (4, 6)] == [None, None]
    return asked


def test_outlives_the_firewall(lab, tuned, server):
    """Idle for longer than the firewall remembers, and the next byte passes."""
    outlive(lab, tuned("enforce", "idle: {probe: 1s}"), 25, forget_s=3, probe_s=1, idle_s=7)


@pytest.mark.long
def test_outlives_the_firewall_for_long(lab, tuned, server):
    outlive(lab, tuned("enforce", "idle: {probe: 3s}"), 50, forget_s=6, probe_s=3, idle_s=20)


@pytest.mark.parametrize("mode", ["off", "shadow"])
def test_hangs_without(lab, tuned, server, mode):
    """The same without the cure: the next byte goes nowhere, and nobody says so. Shadow says what it would do."""
    gateway = tuned(mode, "idle: {probe: 1s}")
    with forgetful_firewall(lab, 2) as forgotten, streams(lab, 10) as all_streams:
        idle(3)
        for stream in all_streams:
            stream.send(1)
        time.sleep(HANGS_S)
        assert not select.select([s.socket for s in all_streams], [], [], 0)[0]
        assert forgotten() > 0
        ledger = gateway.ledger()
    assert ledger["sum"]["made"] == 0
    assert (ledger["actions"]["would_keepalive"] >= 2 * len(all_streams)) == (mode == "shadow")
    assert ledger["reasons"]["absorb_probe_answer"] == 0


def test_forgotten_by_the_backend(lab, tuned, server):
    """The backend's kernel knows the connection no more, and says so when it is asked: the client learns it then."""
    gateway = tuned("enforce", "idle: {probe: 1s}")
    with streams(lab, 5) as all_streams:
        silent = "chain output { type filter hook output priority filter; tcp flags & rst == rst drop; }"
        with nft(lab.up1, silent):
            for conn in server.connections:
                conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                conn.shutdown(socket.SHUT_RD)
            eventually(lambda: not server_sockets(lab), 5, "the backend forgets its connections")
        ends = {stream.error(3) for stream in all_streams}
    assert ends == {errno.ECONNRESET}
    assert gateway.action("rst_peer_dead") == 0


def test_reset_with_data_under_way(lab, tuned, server):
    """
    Data goes missing before the backend until the connection counts as idle. The RST to the backend comes from behind
    that data; its kernel asks back, and is answered with the number that it does expect.
    """
    gateway = tuned("enforce", "idle: {tcp: 1s, probe: off}")
    lossy = "chain forward { type filter hook forward priority filter; oifname br0 meta length > 200 drop; }"
    with streams(lab, 5) as all_streams, nft(lab.lan, lossy):
        for stream in all_streams:
            stream.send(1000)
        # Its own timer doubles: 0.2 s, 0.4 s … until two packets of it are more than a second apart.
        ends = {stream.error(6) for stream in all_streams}
        assert ends == {errno.ECONNRESET}
        eventually(lambda: len(server.ends) == len(all_streams), 2, "the backend's ends")
    assert set(server.ends) == {errno.ECONNRESET}
    ledger = gateway.ledger()
    assert ledger["actions"]["rst_idle"] == len(all_streams)
    assert ledger["reasons"]["answer_reset_again"] >= len(all_streams)


@pytest.mark.long
def test_dead_client(lab, tuned, server):
    """A client's network is gone without a word: the backend's kernel is told, in the time that was promised."""
    gateway = tuned("enforce", "idle: {probe: 1s}")
    gone = {4: CLIENTS[4][0], 6: CLIENTS[6][0]}
    drop = "".join(f"{p} saddr {a} drop; {p} daddr {a} drop; " for p, a in (("ip", gone[4]), ("ip6", gone[6])))
    with streams(lab, 5) as all_streams:
        dead = [s for s in all_streams if s.source in gone.values()]
        assert len(dead) == 2
        with nft(lab.wan, f"chain forward {{ type filter hook forward priority filter; {drop} }}"):
            begin = time.monotonic()
            eventually(lambda: len(server.ends) == len(dead), 1.1 * 1 + PEER_DEAD_S, "a RST for the backend")
            assert time.monotonic() - begin > 0.9 + 30 - 1
            assert set(server.ends) == {errno.ECONNRESET}
        for stream in set(all_streams) - set(dead):
            stream.send()
            stream.receive()
    for family in (4, 6):
        row = gateway.backend(family)
        assert (row["silent_clients"], row["silent_backends"]) == (1, 0)
        assert row["idle_lost_s"] is None
    eventually(lambda: "peer_dead" in gateway.output(), 2, "the event")


@pytest.mark.long
def test_the_idle_time_that_a_path_loses(lab, tuned, server):
    """
    Asked too late: the firewall has forgotten the connection. The client hears of it instead of hanging, and as the
    backend serves others all the while, its path is to blame, with the idle time that it does not survive.
    """
    gateway = tuned("enforce", "idle: {probe: 5s}")
    with forgetful_firewall(lab, 3), streams(lab, 5) as all_streams:
        begin = time.monotonic()
        pending = list(all_streams)
        while pending:
            assert time.monotonic() - begin < 1.1 * 5 + PEER_DEAD_S + 1
            with streams(lab, 1):
                pass
            ready = select.select([s.socket for s in pending], [], [], 0.5)[0]
            for stream in [s for s in pending if s.socket in ready]:
                assert stream.error(0) == errno.ECONNRESET
                pending.remove(stream)
        assert time.monotonic() - begin > 0.9 * 5 + 30 - 1
    for family in (4, 6):
        row = gateway.backend(family)
        assert 4.5 <= row["idle_lost_s"] <= 5.5, row
        assert (row["silent_clients"], row["silent_backends"]) == (0, 5)
