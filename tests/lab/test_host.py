# SPDX-License-Identifier: BSD-3-Clause
"""The host behind the gateway stays a host: ARP, ND, ping and SSH work whatever the gateway does."""

import contextlib

import pytest
from servers import Echo, Session
from topology import GW_LAN, GW_WAN, VIP, WAN_GW


@pytest.fixture
def echo(lab):
    with contextlib.closing(Echo(lab.gw, [GW_WAN[4], GW_WAN[6], GW_LAN[4], GW_LAN[6]])) as it:
        yield it


def assert_host_works(lab, sessions):
    """Neighbours are resolved from nothing, then ping, an old session and a new one."""
    for router, addresses in ((lab.wan, GW_WAN), (lab.lan, GW_LAN)):
        for address in addresses.values():
            router.run("ip", "neigh", "flush", "to", address)
            router.run("ping", "-n", "-c", "3", "-i", "0.01", "-W", "2", address)
    lab.gw.run("ip", "neigh", "flush", "dev", "eth1")
    for address in WAN_GW.values():
        lab.gw.run("ping", "-n", "-c", "1", "-W", "2", address)
    for session in sessions:
        session.say()
    for address in GW_WAN.values():
        with contextlib.closing(Session(lab.client, address)) as new:
            new.say()


def test_host_traffic(lab, spillway, echo):
    """Before, while it runs, after kill -9, after a restart; the same two sessions live through all of it."""
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(contextlib.closing(Session(lab.client, a))) for a in GW_WAN.values()]
        assert_host_works(lab, sessions)
        spillway.kill()
        assert_host_works(lab, sessions)
        spillway.start()
        assert_host_works(lab, sessions)
        spillway.stop()
        assert_host_works(lab, sessions)


def test_vip_answers_ping(lab, spillway, family):
    lab.client.run("ping", "-n", "-c", "3", "-i", "0.01", "-W", "2", VIP[family])
