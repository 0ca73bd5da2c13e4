# SPDX-License-Identifier: BSD-3-Clause
"""Crashes, hangs, restarts and links that go away."""

import contextlib
import os
import signal
import subprocess
import time

import pytest
from gateways import BULK_PORT
from netns import eventually
from servers import Echo, Session
from tools import Load, both_sides, settled
from topology import DNS, UPSTREAMS, VIP

RESTARTS = 5


@pytest.fixture
def bulk(lab):
    """An echo service behind the VIP's second port."""
    addresses = [UPSTREAMS["up1"][f] for f in (4, 6)]
    with contextlib.closing(Echo(lab.up1, addresses, BULK_PORT)) as it:
        yield it


def bulk_session(lab, family):
    return contextlib.closing(Session(lab.client, VIP[family], BULK_PORT))


def assert_serves(lab, family, requests=300):
    result = Load(lab, family, requests=requests).wait()
    assert result["failed"] == 0 and result["ok"] == requests, result


@pytest.mark.costly
def test_kill_and_restart(lab, spillway):
    """kill -9 and a start at once, five of five."""
    for _ in range(RESTARTS):
        spillway.kill()
        spillway.start()
        spillway.wait_serving()
        for family in (4, 6):
            assert_serves(lab, family)


def test_second_gateway(lab, spillway):
    """One more in the same namespace is refused, and leaves the first one as it was."""
    argv = ["ip", "netns", "exec", lab.gw.name, spillway.binary, spillway.config]
    guard = lab.gw.run("nft", "list", "sets").stdout
    assert "spillway" in guard
    done = subprocess.run(argv, text=True, capture_output=True, timeout=20, check=False)
    assert done.returncode == 3
    assert f"another gateway (process {spillway.child.pid})" in done.stderr
    assert lab.gw.run("nft", "list", "sets").stdout == guard
    assert_serves(lab, 4)


@contextlib.contextmanager
def stopped(gateway):
    os.kill(gateway.child.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(gateway.child.pid, signal.SIGCONT)


@pytest.mark.costly
@pytest.mark.parametrize("seconds", [2, 10])
def test_hang(lab, spillway, bulk, family, seconds):
    """While the gateway hangs the kernel answers nothing in its name; a flow survives a short hang."""
    wan, lan = both_sides(lab, "in")
    with wan, lan, bulk_session(lab, family) as session:
        session.say()
        for wire in (wan, lan):
            settled(wire)
        with stopped(spillway):
            rst = [wire.snapshot()["rst"] for wire in (wan, lan)]
            # New attempts and an established flow both knock for as long as it hangs.
            end = time.monotonic() + seconds
            load = Load(lab, family, rate=50, seconds=seconds, timeout_ms=1000 * seconds)
            session.send_line()
            load.wait(seconds + 30)
            assert time.monotonic() >= end
            assert [wire.snapshot()["rst"] for wire in (wan, lan)] == rst
        if seconds == 2:
            session.await_line(timeout_s=10)
            session.say()
    assert_serves(lab, family)


@pytest.mark.costly
@pytest.mark.parametrize("device", ["eth1", "eth2"])
@pytest.mark.parametrize("end", ["own", "peer"])
def test_link_down_and_up(lab, spillway, family, device, end):
    """Either end of either link goes down and comes back; traffic does, too."""
    peer = {"eth1": lab.wan, "eth2": lab.lan}[device]
    ns, name = (lab.gw, device) if end == "own" else (peer, "gw")
    try:
        ns.ip(f"link set {name} down")
        assert spillway.alive()
        ns.ip(f"link set {name} up")
    finally:
        # An interface that goes down loses its IPv6 addresses and its routes.
        lab.restore()
    eventually(lambda: Load(lab, family, requests=5, timeout_ms=300).wait()["failed"] == 0, 15, "traffic comes back")
    assert_serves(lab, family)
    assert spillway.ledger()["balance"] == 0


def guard_stands(lab):
    return "table inet spillway" in lab.gw.run("nft", "list", "tables").stdout


def with_config(lab, gateway, name, old, new):
    """Another configuration: `old` must be in the present one."""
    with open(gateway.config, encoding="ascii") as f:
        text = f.read()
    assert old in text
    path = lab.path(name)
    with open(path, "w", encoding="ascii") as f:
        f.write(text.replace(old, new))
    return path


@pytest.mark.costly
def test_failed_start(lab, spillway):
    """It takes the guard with it, but not one that keeps the kernel silent for a gateway that died."""
    nowhere = with_config(lab, spillway, "nowhere.yaml", spillway.socket, spillway.config + "/no-directory")
    spillway.kill()
    assert guard_stands(lab)
    argv = [spillway.binary, nowhere]
    assert lab.gw.run(*argv, check=False, timeout=30).returncode == 3
    assert guard_stands(lab)
    spillway.start()
    spillway.stop()
    assert not guard_stands(lab)
    assert lab.gw.run(*argv, check=False, timeout=30).returncode == 3
    assert not guard_stands(lab)


def test_signal_during_start(lab, spillway):
    """A SIGTERM while names are waited for is no less a clean stop."""
    path = with_config(lab, spillway, "deaf.yaml", f"{DNS[4]}:53", "198.18.3.254:53")
    spillway.stop()
    with open(spillway.log, "wb") as out:
        argv = ["ip", "netns", "exec", lab.gw.name, spillway.binary, path]
        child = lab.children.spawn(None, *argv, stdout=out, stderr=out)
    eventually(lambda: guard_stands(lab), 20, "the guard")
    assert lab.children.end(child, signal.SIGTERM, 15) == 0, spillway.output()
    assert not guard_stands(lab)
