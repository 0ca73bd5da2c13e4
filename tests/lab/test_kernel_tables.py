# SPDX-License-Identifier: BSD-3-Clause
"""The kernel has more routes than the gateway has room for: it says so, and serves what it has."""

import pytest
from gateways import Spillway
from netns import eventually
from tools import Load
from topology import LAN_GW

N_ROUTES = 400


@pytest.fixture
def small(lab, records):
    """A gateway with room for few routes."""
    if not Spillway.built():
        pytest.skip("build/spillway is not built")
    gateway = Spillway(lab, lab.n_queues)
    with open(gateway.config, "w", encoding="ascii") as f:
        f.write(gateway.config_text(lab.n_queues).replace("flows: 100000", "flows: 100000\n  routes: 16"))
    gateway.start()
    gateway.wait_serving()
    yield gateway
    gateway.stop()


def test_more_routes_than_room(lab, small):
    routes = [f"198.19.{i // 250}.{i % 250}/32" for i in range(N_ROUTES)]
    try:
        lab.gw.run("ip", "-batch", "-", input="".join(f"route add {r} via {LAN_GW[4]}\n" for r in routes))
        eventually(lambda: "table_full: routes and neighbours" in small.output(), 10, "the event")
        kernel = small.status()["kernel"]
        assert kernel["refused"] > 0
        assert kernel["routes_v4"] >= N_ROUTES
        for family in (4, 6):
            assert Load(lab, family, requests=50).wait()["failed"] == 0
        assert small.output().count("table_full") == 1
    finally:
        lab.gw.run("ip", "-batch", "-", input="".join(f"route del {r}\n" for r in routes), check=False)
