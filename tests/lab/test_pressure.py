# SPDX-License-Identifier: BSD-3-Clause
"""A flow table that is full: new connections hear a no at once, and those that are there notice nothing."""

import contextlib
import os
import resource
import selectors
import socket
import threading

import pytest
from conftest import assert_nothing_left
from gateways import BULK_PORT, Spillway
from netns import eventually
from topology import CLIENTS, UPSTREAMS, VIP, WAN_GW

N_FLOWS = 1024  # the smallest table
N_MORE = N_FLOWS // 2
BLOB = 4096
IP_FREEBIND = 15  # of linux/in.h
# Of hosts that are the client's all alike; of IPv6 each is in a /64 of its own.
CROWD_NET = {4: "198.19.64.0/20", 6: "2001:db8:4000::/36"}


def crowd(family, i):
    return f"198.19.{64 + i // 250}.{1 + i % 250}" if family == 4 else f"2001:db8:4000:{i:x}::1"


@pytest.fixture
def hosts(lab):
    """The client answers for all of CROWD_NET."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (16384, max(before[1], 16384)))
    for f, net in CROWD_NET.items():
        lab.client.ip(f"route replace local {net} dev lo")
        lab.wan.ip(f"route replace {net} via {CLIENTS[f][0]}")
        lab.gw.ip(f"route replace {net} via {WAN_GW[f]}")
    yield
    for net in CROWD_NET.values():
        lab.client.ip(f"route del local {net} dev lo")
        lab.wan.ip(f"route del {net}")
        lab.gw.ip(f"route del {net}")
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def small(lab, records, hosts):
    """A gateway with the smallest tables."""
    if not Spillway.built():
        pytest.skip("build/spillway is not built")
    edits = (("flows: 100000", f"flows: {N_FLOWS}\n  flows_ipv6: {N_FLOWS}"),)
    gateway = Spillway(lab, lab.n_queues, edits=edits)
    gateway.start()
    gateway.wait_serving()
    yield gateway
    gateway.stop()
    assert_nothing_left(lab)


class Mirror:
    """Sends back what it gets, on any number of connections, from one thread. A context manager."""

    def __init__(self, lab, family):
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        with lab.up1.entered():
            self._listener = socket.create_server(
                (UPSTREAMS["up1"][family], BULK_PORT), family=kind, backlog=2 * N_FLOWS
            )
        self._listener.setblocking(False)
        self._end, self._ended = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        os.write(self._ended, b"x")
        self._thread.join()
        self._listener.close()
        os.close(self._end)
        os.close(self._ended)

    def _run(self):
        conns = set()
        with selectors.DefaultSelector() as ready:
            ready.register(self._listener, selectors.EVENT_READ)
            ready.register(self._end, selectors.EVENT_READ)
            while True:
                for key, _ in ready.select():
                    if key.fileobj == self._end:
                        for conn in conns:
                            conn.close()
                        return
                    if key.fileobj is self._listener:
                        conn, _ = self._listener.accept()
                        conns.add(conn)
                        ready.register(conn, selectors.EVENT_READ)
                    elif not self._mirror(key.fileobj):
                        ready.unregister(key.fileobj)
                        conns.discard(key.fileobj)
                        key.fileobj.close()

    @staticmethod
    def _mirror(conn):
        try:
            data = conn.recv(BLOB)
            conn.sendall(data)
            return bool(data)
        except OSError:
            return False


def connect(family, i, timeout_s=3):
    s = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6)
    s.settimeout(timeout_s)
    try:
        # The address is the host's by a route alone.
        s.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        s.bind((crowd(family, i), 0))
        s.connect((VIP[family], BULK_PORT))
    except OSError:
        s.close()
        raise
    return s


def talk(conn, blob):
    """Whether it comes back as it was sent."""
    got = b""
    with contextlib.suppress(OSError):
        conn.sendall(blob)
        while len(got) < len(blob) and (data := conn.recv(BLOB)):
            got += data
    return got == blob


def refusals(gateway):
    reasons = gateway.ledger()["reasons"]
    return reasons["answer_table_full"] + reasons["answer_table_pressed"], reasons["shed_refused_limit"]


def table(gateway, family):
    return gateway.status()["tables"][family == 6]


def fill(family, conns):
    """Each host that connects is known from then on, so that 300 of them fill the last places too."""
    tries = 0
    while len(conns) < N_FLOWS:
        tries += 1
        assert tries < 8 * N_FLOWS, f"only {len(conns)} of {N_FLOWS} connections came about"
        with contextlib.suppress(OSError):
            conns.append(connect(family, tries % 300))


@pytest.mark.costly
def test_d13_7_table_full(lab, family, small):
    """D.13, 7: a full table of live flows, and half as many SYNs more: all refused, none of the old ones lost."""
    conns = []
    with lab.client.entered(), Mirror(lab, family), contextlib.ExitStack() as stack:
        stack.callback(lambda: [conn.close() for conn in conns])
        fill(family, conns)
        assert table(small, family)["flows"] == N_FLOWS
        eventually(lambda: table(small, family)["level"] == "full", 2, "the level")
        refused_before, limited_before = refusals(small)
        for i in range(N_MORE):
            with pytest.raises(ConnectionRefusedError):
                connect(family, 1000 + i)
        refused, limited = refusals(small)
        assert (refused - refused_before, limited - limited_before) == (N_MORE, 0)
        assert table(small, family)["flows"] == N_FLOWS
        eventually(lambda: f"table_pressed: IPv{family} flow table: full" in small.output(), 5, "the event")
        blobs = [os.urandom(BLOB) for _ in conns]
        assert all(talk(conn, blob) for conn, blob in zip(conns, blobs))
        # What closes makes room for a stranger within seconds: TIME_WAIT is short now.
        for conn in conns[: N_FLOWS // 4]:
            conn.close()
        eventually(lambda: table(small, family)["flows"] <= 3 * N_FLOWS // 4, 6, "room")
        connect(family, 3000).close()
