# SPDX-License-Identifier: BSD-3-Clause
"""Backends follow DNS at the records' own TTL, and what leaves them is not forgotten."""

import contextlib
import hashlib
import http.client
import os
import signal
import time

import pytest
from conftest import TTL_S, assert_nothing_left
from gateways import Spillway
from netns import eventually
from tools import Load, Wire
from topology import BACKEND_PORT, UPSTREAMS, VIP, bracketed

GRACE_S = 2
DRAIN_S = 3
LEAVES_S = TTL_S + GRACE_S + 1  # with what a busy machine needs
N_HELD = 40
FILE_BYTES = 48 << 20  # more than all buffers on the way hold


@pytest.fixture
def start(lab, records):
    """Starts gateways with edited configurations, one after the other."""
    if not Spillway.built():
        pytest.skip("build/spillway is not built")
    with contextlib.ExitStack() as stack:

        def start_one(*edits):
            gateway = Spillway(lab, lab.n_queues, edits=edits)
            gateway.start()
            stack.callback(gateway.stop)
            gateway.wait_serving()
            return gateway

        yield start_one
    assert_nothing_left(lab)


class Held:
    """Connections to the service that stay, each with its upstream."""

    def __init__(self, lab, family, n=N_HELD):
        self._connections = []
        for _ in range(n):
            connection = http.client.HTTPConnection(VIP[family], 80, timeout=5)
            with lab.client.entered():
                connection.connect()
            self._connections.append(connection)
        self.names = [self._ask(c) for c in self._connections]

    @staticmethod
    def _ask(connection):
        connection.request("GET", "/name")
        return connection.getresponse().read().decode().strip()

    def of(self, name):
        return [c for c, n in zip(self._connections, self.names) if n == name]

    def all_right(self, *names):
        """Those of the named upstreams still reach them."""
        return all(self._ask(c) == n for c, n in zip(self._connections, self.names) if n in names)

    @staticmethod
    def is_reset(connection):
        try:
            return connection.sock.recv(1) == b"?"
        except ConnectionResetError:
            return True

    def close(self):
        for connection in self._connections:
            connection.close()


def held(lab, family, n=N_HELD):
    return contextlib.closing(Held(lab, family, n))


def established(ns):
    """How many connections an upstream has."""
    return len(ns.run("ss", "-Htn", "state", "established", f"sport = :{BACKEND_PORT}").stdout.splitlines())


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


@pytest.mark.costly
def test_removed_record(lab, spillway, family):
    """New flows to an address that left DNS stop within TTL + 2 s, and nobody notices."""
    result, removed_ns = load_across_removal(lab, family, TTL_S + GRACE_S + 4)
    assert result["failed"] == 0, result
    late_s = (result["last_start_ns"]["up2"] - removed_ns) / 1e9
    assert late_s <= TTL_S + GRACE_S, f"up2 got a new flow {late_s:.2f} s after it left DNS"
    for name in ("up1", "up3"):
        assert (result["last_start_ns"][name] - removed_ns) / 1e9 > TTL_S + GRACE_S + 2


@pytest.mark.costly
def test_added_record(lab, spillway, family):
    """An address that comes (back) to DNS gets flows within the TTL."""
    lab.zone.set("shop", without("up2"), TTL_S)
    up2 = (bracketed(UPSTREAMS["up2"][family]), BACKEND_PORT)
    eventually(lambda: up2 not in spillway.backend_addresses(), TTL_S + GRACE_S, "up2 leaves")
    lab.zone.set("shop", [u[f] for u in UPSTREAMS.values() for f in (4, 6)], TTL_S)
    eventually(lambda: up2 in spillway.backend_addresses(), TTL_S + GRACE_S, "up2 comes back")
    result = Load(lab, family, requests=300).wait()
    assert result["failed"] == 0 and result["backends"]["up2"] > 0


@pytest.mark.costly
def test_before_does_not_notice(lab, before, family):
    """The control: a gateway that resolved once sends new flows to a removed address until it is restarted."""
    result, removed_ns = load_across_removal(lab, family, TTL_S + GRACE_S + 1)
    assert (result["last_start_ns"]["up2"] - removed_ns) / 1e9 > TTL_S + GRACE_S


@pytest.fixture(scope="module")
def big_file(lab):
    """SHA-256 of a file of random bytes that the upstreams have."""
    data = os.urandom(FILE_BYTES)
    with open(os.path.join(lab.files, "pinned"), "wb") as f:
        f.write(data)
    return hashlib.sha256(data).hexdigest()


def leave(lab, gateway, name, family):
    """The upstream's records go, and it with them."""
    lab.zone.set("shop", without(name), TTL_S)
    address = UPSTREAMS[name][family]
    eventually(lambda: gateway.backend(address)["life"] == "draining", LEAVES_S, f"{name} leaves")
    return gateway.backend(address)


def test_pinned(lab, spillway, family, big_file):
    """What began before a removal goes on, byte for byte, and is counted exactly."""
    with held(lab, family) as flows:
        down = flows.of("up2")[0]
        down.request("GET", "/pinned")
        response = down.getresponse()
        digest = hashlib.sha256(response.read(65536))
        row = leave(lab, spillway, "up2", family)
        assert row["pinned"] == row["flows"] == len(flows.of("up2"))
        assert f"backend_removed: {row['id']}: DNS no longer names it (shop.lab.test); {row['pinned']} flows" in (
            spillway.output()
        )
        # New ones come and go elsewhere meanwhile, and change nothing of that figure.
        result = Load(lab, family, requests=300).wait()
        assert result["failed"] == 0 and set(result["backends"]) == {"up1", "up3"}
        while block := response.read(1 << 20):
            digest.update(block)
        assert digest.hexdigest() == big_file
        assert flows.all_right(*UPSTREAMS)
        assert spillway.backend(UPSTREAMS["up2"][family])["pinned"] == len(flows.of("up2"))
    assert spillway.ledger()["balance"] == 0


@pytest.mark.costly
def test_drain(lab, start, family):
    """At the deadline both ends hear of it; the upstream is gone then, and nobody else noticed."""
    gateway = start(("  - name: shop\n", f"  - name: shop\n    drain: {DRAIN_S}s\n"))
    up2 = UPSTREAMS["up2"][family]
    with held(lab, family) as flows, Wire(lab, lab.up2, "eth0", f"tcp port {BACKEND_PORT}", "in") as wire:
        row = leave(lab, gateway, "up2", family)
        left_at = time.monotonic()
        pinned = row["pinned"]
        assert 0 < row["drain_s"] <= DRAIN_S and pinned == len(flows.of("up2"))
        eventually(lambda: gateway.backend(up2) is None, 2 * DRAIN_S, "up2 is gone")
        took_s = time.monotonic() - left_at
        assert DRAIN_S - 1 < took_s < DRAIN_S + DRAIN_S / 4 + 1.5, f"{took_s:.2f} s"
        assert all(Held.is_reset(c) for c in flows.of("up2"))
        assert wire.snapshot()["rst"] == pinned and established(lab.up2) == 0
        assert flows.all_right("up1", "up3")
    ledger = gateway.ledger()
    assert ledger["actions"]["drain_rst"] == pinned and ledger["made"]["rst_drain"] == 2 * pinned
    assert ledger["balance"] == 0
    for word in (f"drain_deadline: {row['id']}: {pinned} flows", f"backend_gone: {row['id']}"):
        assert word in gateway.output()


@contextlib.contextmanager
def deaf_dns(lab):
    lab.zone.child.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        lab.zone.child.send_signal(signal.SIGCONT)


@pytest.mark.costly
def test_start_without_dns(lab, spillway, family):
    """A gateway that died comes back while DNS is dead: it serves what it knew."""
    eventually(lambda: os.path.exists(spillway.saved), 5, "the sets are saved")
    with deaf_dns(lab):
        spillway.kill()
        spillway.start()
        assert {row["state"] for row in spillway.ctl("names")["names"]} == {"stale"}
        result = Load(lab, family, requests=300).wait()
        assert result["failed"] == 0 and set(result["backends"]) == set(UPSTREAMS)
    # Back to what DNS says, once it says something.
    lab.zone.set("shop", without("up2"), TTL_S)
    up2 = (bracketed(UPSTREAMS["up2"][family]), BACKEND_PORT)
    eventually(lambda: up2 not in spillway.backend_addresses(), 10, "DNS is followed again")
    eventually(lambda: {r["state"] for r in spillway.ctl("names")["names"]} == {"fresh"}, 10, "fresh")


def used(lab, family):
    result = Load(lab, family, requests=200).wait()
    assert result["failed"] == 0, result
    return set(result["backends"])


@pytest.mark.costly
@pytest.mark.parametrize("mode, family", [("off", 4), ("shadow", 6)])
def test_modes(lab, start, family, mode):
    """The first answer stays; enforce, when it comes, goes by the current one."""
    gateway = start(("services:\n", f"cures: {{names: {mode}}}\nservices:\n"))
    lab.zone.set("shop", without("up2"), TTL_S)
    time.sleep(TTL_S + GRACE_S)
    assert used(lab, family) == set(UPSTREAMS)
    actions = gateway.ledger()["actions"]
    # A third of the flows would have gone elsewhere, and those of the others that Maglev moves.
    assert (actions["would_follow"] > 40) == (mode == "shadow"), actions
    gateway.ctl("cure", "names", "enforce")
    eventually(lambda: used(lab, family) == {"up1", "up3"}, LEAVES_S, "DNS is followed")
    gateway.ctl("cure", "names", mode)
    lab.zone.set("shop", without("up3"), TTL_S)
    time.sleep(TTL_S + GRACE_S)
    assert used(lab, family) == {"up1", "up3"}


def test_command(lab, spillway, family):
    """A backend that is taken out gets nothing new until it is put back."""
    backend = f"tcp:{bracketed(UPSTREAMS['up2'][family])}:{BACKEND_PORT}"
    with held(lab, family) as flows:
        done = spillway.ctl("drain", backend, "deadline=2s")
        assert done == {"backend": backend, "set": "out", "services": 1, "flows": len(flows.of("up2"))}
        assert used(lab, family) == {"up1", "up3"}
        eventually(lambda: spillway.backend(UPSTREAMS["up2"][family])["pinned"] == 0, 5, "its flows are ended")
        assert all(Held.is_reset(c) for c in flows.of("up2"))
        assert flows.all_right("up1", "up3")
    spillway.ctl("drain", backend, "set=auto")
    assert "up2" in used(lab, family)
    assert "by uid 0" in next(line for line in spillway.output().splitlines() if "backend_taken_out" in line)


def test_stop(lab, start, family):
    """A gateway that stops tells both ends of each connection."""
    gateway = start()
    with held(lab, family) as flows:
        begin = time.monotonic()
        gateway.stop()
        assert time.monotonic() - begin < 3
        assert all(Held.is_reset(c) for name in UPSTREAMS for c in flows.of(name))
        assert sum(established(lab.ns[up]) for up in UPSTREAMS) == 0
