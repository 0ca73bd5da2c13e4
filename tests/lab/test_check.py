# SPDX-License-Identifier: BSD-3-Clause
"""Active checks: a backend that is dead, or says so, is known before a client finds out; and when it is well again."""

import contextlib

import pytest
from conftest import assert_nothing_left
from gateways import Service, Spillway, running
from netns import eventually
from servers import Threaded
from topology import UPSTREAMS, VIP, bracketed

PORT = 8090
SICK = "up2"

DEAF = """
table inet deaf {
    chain in {
        type filter hook input priority 0;
        tcp dport %d drop
    }
}
""" % PORT


class Health(Threaded):
    """An application that says how it is."""

    def __init__(self, lab, name):
        self.status, self.asked = "200 OK", []
        super().__init__(lab.ns[name], UPSTREAMS[name].values(), PORT)

    def _serve(self, conn):
        with conn, contextlib.suppress(OSError):
            conn.settimeout(5)
            if not (request := conn.recv(4096).decode("ascii")):
                return
            self.asked.append(request)
            conn.sendall(f"HTTP/1.1 {self.status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())


@contextlib.contextmanager
def checked(lab, check):
    """All upstreams have the application, and a gateway in front checks them."""
    service = Service("checked", PORT, PORT, options=f"check: {{{check}}}")
    with contextlib.ExitStack() as stack:
        apps = {name: stack.enter_context(contextlib.closing(Health(lab, name))) for name in UPSTREAMS}
        gateway = stack.enter_context(running(Spillway(lab, lab.n_queues, services=(service,))))
        yield gateway, apps
    assert_nothing_left(lab)


def row_of(gateway, name, family):
    backend = f"tcp:{bracketed(UPSTREAMS[name][family])}:{PORT}"
    return next(row for row in gateway.ctl("backends")["backends"] if row["id"] == backend)


def ask(lab, family):
    """The status that a client sees."""
    url = f"http://{bracketed(VIP[family])}:{PORT}/"
    return lab.client.run("curl", "-s", "-o", "/dev/null", "-m", "5", "-w", "%{http_code}", url).stdout


def is_breaker(gateway, family, state):
    return lambda: row_of(gateway, SICK, family)["breaker"] == state


def await_open(gateway, family, timeout_s):
    """Its row then: the state is of the moment, the evidence follows with decide's next tick."""
    eventually(is_breaker(gateway, family, "open"), timeout_s, "its breaker opens")
    eventually(lambda: row_of(gateway, SICK, family)["breaker_evidence"], 2, "it is told why")
    return row_of(gateway, SICK, family)


@pytest.mark.costly
def test_http(lab, records, family):
    """It answers 503: its breaker opens without a client; not before it says 200 do real flows try it."""
    with checked(lab, "http: /healthz, every: 1s, timeout: 500ms") as (gateway, apps):
        eventually(lambda: all(app.asked for app in apps.values()), 5, "all are checked")
        assert all("GET /healthz HTTP/1.1\r\n" in app.asked[0] for app in apps.values())
        apps[SICK].status = "503 Service Unavailable"
        row = await_open(gateway, family, 8)
        assert row["breaker_evidence"] == "3 checks in a row failed: 503", row
        assert row["new_flows"] == 0
        assert {ask(lab, family) for _ in range(20)} == {"200"}
        # Its kernel answers each probe; that its time is over is not enough.
        eventually(lambda: row_of(gateway, SICK, family)["probes"] >= 8, 15, "it is probed for longer than it takes")
        assert row_of(gateway, SICK, family)["breaker"] == "open"
        sentence = explained(gateway, family)
        assert "while its checks fail: 503" in sentence, sentence
        apps[SICK].status = "200 OK"
        eventually(is_breaker(gateway, family, "half_open"), 4, "it may be tried")
        eventually(lambda: ask(lab, family) and is_breaker(gateway, family, "ramp")(), 5, "real flows come back")
        others = [row_of(gateway, name, family)["breaker"] for name in UPSTREAMS if name != SICK]
        assert others == ["closed", "closed"]


def explained(gateway, family):
    found = gateway.ctl("explain", f"{bracketed(UPSTREAMS[SICK][family])}:{PORT}")["findings"]
    return next(row["sentence"] for row in found if row["reason"] == "breaker")


@pytest.mark.costly
@pytest.mark.parametrize("how", ["refuses", "silent"])
def test_tcp(lab, records, family, how):
    """Nobody listens, or nobody answers: five of the gateway's own SYNs open its breaker, without a client."""
    with checked(lab, "tcp: on, every: 1s") as (gateway, apps):
        eventually(lambda: all(row_of(gateway, name, family)["probes"] > 1 for name in UPSTREAMS), 6, "all are checked")
        with sick(lab, apps[SICK], how):
            row = await_open(gateway, family, 12)
            said = "refused" if how == "refuses" else "unanswered"
            assert row["breaker_evidence"] == f"5 SYNs in a row {said}, all of them checks", row
            assert row["new_flows"] == 0
            assert {ask(lab, family) for _ in range(10)} == {"200"}
        # No application saw any of them.
        assert all(len(app.asked) <= 10 for app in apps.values())
        assert sum(len(app.asked) for app in apps.values()) == 10


@contextlib.contextmanager
def sick(lab, app, how):
    if how == "refuses":
        app.close()
        yield
        return
    lab.ns[SICK].run("nft", "-f", "-", input=DEAF)
    try:
        yield
    finally:
        lab.ns[SICK].run("nft", "delete table inet deaf")
