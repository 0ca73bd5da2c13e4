# SPDX-License-Identifier: BSD-3-Clause
"""Upstreams that die and come back, what reaches them meanwhile, and what the gateway says of it."""

import contextlib
import json
import signal
import time

import faults
from attempts import Clients, gather_clients, sources, spread_clients
from gateways import Service
from servers import SlowUpstream
from topology import BACKEND_PORT, UPSTREAMS, VIP, bracketed

DEAD = "up2"
NETWORKS = range(32, 53)  # of clients
TRIO = Service("trio", 8090, 8090)  # three upstreams that answer in a millisecond

WATCH = """
table inet watch {
    counter syns {}
    chain in {
        type filter hook prerouting priority raw;
        tcp dport { %d, %d } tcp flags & (syn | ack) == syn counter name syns
    }
}
""" % (BACKEND_PORT, TRIO.backend_port)


@contextlib.contextmanager
def watched(ns):
    """Gives a function that says how many SYNs came to this host since, whatever became of them there."""

    def syns():
        rows = json.loads(ns.run("nft", "-j", "list counter inet watch syns").stdout)["nftables"]
        return next(row["counter"]["packets"] for row in rows if "counter" in row)

    ns.run("nft", "-f", "-", input=WATCH)
    try:
        yield syns
    finally:
        ns.run("nft", "delete table inet watch")


def backend_id(role, family, port=BACKEND_PORT):
    return f"tcp:{bracketed(UPSTREAMS[role][family])}:{port}"


def row_of(gateway, backend):
    """What the gateway says of it."""
    return next(row for row in gateway.ctl("backends")["backends"] if row["id"] == backend)


def events_of(gateway, kind):
    return [e for e in gateway.events() if e["kind"] == kind]


class Mortals:
    """A service's upstreams, and clients of many networks. A context manager: none is dead in the end."""

    def __init__(self, lab, service, family):
        self._lab, self.service, self.family = lab, service, family
        self._stack = contextlib.ExitStack()
        self._faults = {}

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self._children = {up: self._start(up) for up in self.service.upstreams}
            stack.callback(lambda: [child.close() for child in self._children.values()])
            self.syns = {up: stack.enter_context(watched(self._lab.ns[up])) for up in self._children}
            spread_clients(self._lab, NETWORKS)
            stack.callback(gather_clients, self._lab, NETWORKS)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc):
        for fault in self._faults.values():
            fault.__exit__(*exc)
        self._stack.close()

    def _start(self, up):
        return SlowUpstream(self._lab, up, self.service.backend_port, workers=50, work_ms=1)

    def clients(self, rate, seconds, timeout_ms=3000, log=None):
        options = {"origins": sources(self.family, NETWORKS), "rate": rate, "seconds": seconds}
        log = log or self._lab.path("attempts.csv")
        return Clients(self._lab, VIP[self.family], self.service.port, log, timeout_ms=timeout_ms, **options)

    def answered(self):
        """By each, since it began."""
        return {up: child.tell("report")["answered"] for up, child in self._children.items()}

    def kill(self, up):
        """Its host refuses; when that is, on the monotonic clock and the wall's."""
        when = time.monotonic_ns(), time.time()
        self._lab.children.end(self._children[up].child, signal.SIGKILL)
        return when

    def restart(self, up):
        self._children[up] = self._start(up)
        return time.monotonic_ns(), time.time()

    def unplug(self, up):
        """Silence is all that tells; when it begins, on the monotonic clock and the wall's."""
        fault = faults.unplugged(self._lab.ns[up])
        fault.__enter__()
        self._faults[up] = fault
        return time.monotonic_ns(), time.time()

    def plug(self, up):
        self._faults.pop(up).__exit__(None, None, None)
        return time.monotonic_ns(), time.time()

    def backend(self, up):
        return backend_id(up, self.family, self.service.backend_port)

    def row(self, gateway, up):
        return row_of(gateway, self.backend(up))

    def breakers(self, gateway):
        rows = {row["id"]: row["breaker"] for row in gateway.ctl("backends")["backends"]}
        return [rows[self.backend(up)] for up in self.service.upstreams]
