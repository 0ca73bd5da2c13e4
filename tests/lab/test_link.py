# SPDX-License-Identifier: BSD-3-Clause
"""Link addresses and netdevs that change under a running gateway."""

import json

import pytest
from netns import LabError, eventually
from tools import Load, both_sides
from topology import GW_WAN

OTHER_MAC = "02:00:00:00:99:99"


def link_address(ns, device):
    return json.loads(ns.run("ip", "-json", "link", "show", device).stdout)[0]["address"]


def gate_counts(spillway, port, name):
    return next(g for g in spillway.status()["gates"] if g["port"] == port)[f"gate_{name}"]


def assert_serves(lab, family):
    result = Load(lab, family, requests=100).wait()
    assert result["failed"] == 0, result


@pytest.fixture
def wan_neighbour(lab, family):
    """Says which link address the router takes the gateway for; None: the true one."""

    def say(address):
        kind = ["lladdr", address, "nud", "permanent"] if address else []
        lab.wan.run("ip", "neigh", "replace" if address else "del", GW_WAN[family], *kind, "dev", "gw", check=False)

    yield say
    say(None)


def test_another_host(lab, spillway, family, wan_neighbour):
    """What a switch floods is another host's to answer: nothing of it reaches a worker, the kernel says nothing."""
    wan, lan = both_sides(lab, "in")
    with wan, lan:
        before = gate_counts(spillway, "wan", "pass_other_mac"), spillway.ledger()["sum"]["rx"]
        wan_neighbour(OTHER_MAC)
        assert Load(lab, family, requests=5, timeout_ms=500).wait()["ok"] == 0
        eventually(lambda: gate_counts(spillway, "wan", "pass_other_mac") >= before[0] + 5, 5, "the gate's count")
        assert spillway.ledger()["sum"]["rx"] == before[1]
        assert wan.snapshot()["rst"] == lan.snapshot()["rst"] == 0
    wan_neighbour(None)
    assert_serves(lab, family)


def forget_gateway(lab):
    """Linux announces no new link address of its own, so the routers would believe in the old one for up to 45 s."""
    for router in (lab.wan, lab.lan):
        router.run("ip", "neigh", "flush", "dev", "gw")


def test_address_changes(lab, spillway, family):
    """The port's link address changes; as soon as the neighbours know, requests pass as before."""
    true = {device: link_address(lab.gw, device) for device in ("eth1", "eth2")}
    try:
        for i, device in enumerate(true):
            lab.gw.ip(f"link set {device} address 02:00:00:00:88:0{i}")
        forget_gateway(lab)
        eventually(lambda: Load(lab, family, requests=5, timeout_ms=300).wait()["failed"] == 0, 15, "traffic goes on")
        assert_serves(lab, family)
    finally:
        for device, address in true.items():
            lab.gw.ip(f"link set {device} address {address}")
        forget_gateway(lab)


@pytest.fixture
def new_link(lab):
    """Makes another netdev in the place of eth1; in the end there is one that works, whatever a test left."""

    def make():
        lab.gw.run("ip", "link", "del", "eth1", check=False)
        lab.relink()

    yield make
    lab.relink()


def refusal(spillway):
    """What `spillwayctl status` of a gateway that is not ready says; "" if it is ready."""
    try:
        spillway.status()
    except LabError as error:
        assert "status: 3\n" in str(error)
        return str(error)
    return ""


def test_netdev_replaced(lab, spillway, new_link):
    """The port's sockets die with its netdev: the gateway says so until it is restarted, and serves after that."""
    lab.gw.ip("link del eth1")
    eventually(lambda: "link_gone: wan" in spillway.output(), 10, "the event")
    new_link()
    eventually(lambda: "port_replaced: wan: eth1" in spillway.output(), 10, "the event")
    eventually(lambda: "port wan: its netdev eth1 was deleted" in refusal(spillway), 5, "not ready")
    assert Load(lab, 4, requests=3, timeout_ms=300).wait()["ok"] == 0
    spillway.stop()
    spillway.start()
    spillway.wait_serving()
    for family in (4, 6):
        assert_serves(lab, family)
