# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures: one lab per number of workers, one freshly started gateway per test."""

import contextlib
import os
import sys
import zlib

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from connections import Server, Tuned  # noqa: E402
from gateways import Nftables, Spillway, running  # noqa: E402
from servers import start_servers  # noqa: E402
from topology import UPSTREAMS, Lab, end_on_signals  # noqa: E402

TTL_S = 2

# Of what takes minutes: not each with each.
one_worker = pytest.mark.parametrize("lab", [1], ids=["1worker"], indirect=True)
two_workers = pytest.mark.parametrize("lab", [2], ids=["2workers"], indirect=True)
diagonal = pytest.mark.parametrize("lab, family", [(1, 4), (2, 6)], ids=["1worker-v4", "2workers-v6"], indirect=True)


def pytest_configure(config):
    if os.geteuid():
        raise pytest.UsageError("the lab makes network namespaces: run as root")
    config.addinivalue_line("markers", "long: only run by ./dev test --long")
    config.addinivalue_line("markers", "costly: takes so long that the short run has one of its combinations")
    end_on_signals()


def is_in_short_run(item, params):
    """
    Where workers and families make four of a test, the short run has two: both numbers, both families. Of a costly one
    it has one of these; which follows from its name, so that all of them together have both.
    """
    if "lab" not in params:
        return True
    if "family" in params and (params["lab"] == 1) != (params["family"] == 4):
        return False
    return not item.get_closest_marker("costly") or params["lab"] == zlib.crc32(item.originalname.encode()) % 2 + 1


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if not is_in_short_run(item, item.callspec.params if hasattr(item, "callspec") else {}):
            item.add_marker("long")


@pytest.fixture(scope="session", params=[1, 2], ids=["1worker", "2workers"])
def lab(request):
    """Hosts and servers; as many queues towards the gateway as it has workers."""
    with Lab(n_queues=request.param) as it:
        start_servers(it)
        yield it


@pytest.fixture(params=[4, 6], ids=["v4", "v6"])
def family(request):
    return request.param


@pytest.fixture
def records(lab):
    """shop.lab.test has all upstreams, however a test left it, and the gateway's host knows no neighbour yet."""
    lab.zone.set("shop", [u[f] for u in UPSTREAMS.values() for f in (4, 6)], TTL_S)
    for device in ("eth1", "eth2"):
        lab.gw.run("ip", "neigh", "flush", "dev", device)


def started(gateway):
    """For fixtures: `yield from started(gateway)`."""
    with running(gateway):
        yield gateway


def assert_nothing_left(lab):
    """A clean stop leaves the gateway's host as it was: no XDP program, no nftables table, no socket file."""
    assert "xdp" not in lab.gw.run("ip", "-details", "link", "show").stdout
    assert not lab.gw.run("nft", "list", "tables").stdout
    assert not os.path.exists(lab.path("api.sock"))


@pytest.fixture
def spillway(lab, records):
    if not Spillway.built():
        pytest.skip("build/spillway is not built")
    yield from started(Spillway(lab, lab.n_queues))
    assert_nothing_left(lab)


@pytest.fixture
def tuned(lab, records):
    """Starts a gateway: tuned(mode, "idle: {…}")."""
    if not Spillway.built():
        pytest.skip("build/spillway is not built")
    with contextlib.ExitStack() as stack:

        def start(mode, idle, edits=()):
            gateway = Tuned(lab, mode, idle, edits)
            gateway.start()
            stack.callback(assert_nothing_left, lab)
            stack.callback(gateway.stop)
            gateway.wait_serving()
            return gateway

        yield start


@pytest.fixture
def server(lab):
    with contextlib.closing(Server(lab)) as it:
        yield it


@pytest.fixture
def before(lab, records):
    yield from started(Nftables(lab))


@pytest.fixture(params=["nftables", "spillway"])
def gateway(request):
    """The same scenario over plain kernel NAT and over Spillway."""
    return request.getfixturevalue({"nftables": "before"}.get(request.param, request.param))
