# SPDX-License-Identifier: BSD-3-Clause
"""What stands between the clients and the upstream: kernel NAT, HAProxy, Spillway; and how benches run over it."""

import contextlib
import dataclasses

from gateways import Nftables, Service, Spillway
from netns import LabError, eventually
from topology import UPSTREAMS, VIP, bracketed

PORT = 8090
CLIENT_TIMEOUT_MS = 1000
STORM = Service("storm", PORT, PORT, upstreams=("up1",))


class HAProxy:
    """haproxy in the gateway's namespace, on the VIP, as a TCP proxy (it speaks to the upstream from there)."""

    binary = "/usr/sbin/haproxy"
    server_options = ""
    defaults = ()

    def __init__(self, lab, service=STORM):
        self.lab, self.service = lab, service
        self.child = None
        self.config = lab.path("haproxy.cfg")

    def config_text(self):
        service = self.service
        binds = "\n".join(f"    bind {bracketed(VIP[f])}:{service.port}" for f in (4, 6))
        servers = "\n".join(
            f"    server {up} {UPSTREAMS[up][4]}:{service.backend_port} {self.server_options}"
            for up in service.upstreams
        )
        defaults = "\n".join(f"    {line}" for line in self.defaults)
        return f"""global
    maxconn 8000

defaults
    mode tcp
    maxconn 8000
    timeout client 60s
    timeout server 60s
{defaults}

listen {service.name}
{binds}
{servers}
"""

    def settings(self):
        """What it has beyond the least."""
        return [*self.defaults, f"server … {self.server_options}".rstrip()]

    def start(self):
        with open(self.config, "w", encoding="ascii") as f:
            f.write(self.config_text())
        argv = ("ip", "netns", "exec", self.lab.gw.name, self.binary, "-db", "-q", "-f", self.config)
        self.child = self.lab.children.spawn(None, *argv)
        eventually(self._listens, 10, "haproxy")

    def _listens(self):
        if self.child.poll() is not None:
            raise LabError(f"haproxy ended with {self.child.returncode}")
        return f":{self.service.port} " in self.lab.gw.run("ss", "-Hltn").stdout

    def wait_serving(self):
        """It serves when it listens."""

    def losses(self):
        return {}

    def stop(self):
        self.lab.children.end(self.child)


class Untuned(HAProxy):
    name = "haproxy"
    title = "HAProxy, untuned"
    defaults = ("timeout connect 5s",)


class Tuned(HAProxy):
    """
    By its manual: the server's maxconn is what it can do at once, the rest waits in HAProxy's queue, whom the client
    left there is not served, who waits too long is sent away, and a failed connect is tried again.
    """

    name = "haproxy-tuned"
    title = "HAProxy, tuned for the healthy capacity"
    defaults = (
        "timeout connect 1s",
        "timeout queue 500ms",
        "option abortonclose",
        "option redispatch",
        "retries 3",
    )
    server_options = "maxconn 20 check inter 1s"


class FixedLimit(HAProxy):
    """So many connections at once, whatever the upstream can do: 600 are 1.2 s of its healthy capacity."""

    limit = 600
    name = "fixed-600"
    title = "a fixed limit of 600 connections (HAProxy)"
    defaults = Tuned.defaults
    server_options = f"maxconn {limit}"


class Nat(Nftables):
    always = ()

    def __init__(self, lab, service=STORM):
        super().__init__(lab, services=(service,))

    def settings(self):
        return []

    def losses(self):
        return {}


class Off(Spillway):
    """With every cure off, it only forwards."""

    name = "spillway-off"
    title = "Spillway, cures off"
    always = ()
    cures = "{wall: off, names: off, silence: off, path: off, storm: off}"

    options = ""  # of the service

    def __init__(self, lab):
        edits = [("\nservices:\n", f"\ncures: {self.cures}\nservices:\n")]
        service = dataclasses.replace(STORM, options=self.options)
        super().__init__(lab, services=(service,), edits=edits)

    def settings(self):
        return [f"cures: {self.cures}", *self.options.splitlines()]

    def losses(self):
        """Packets that it dropped, by reason; a RST that its receiver would not have believed is no loss."""
        reasons = self.ledger()["reasons"]
        kept = {name: n for name, n in reasons.items() if name.startswith("drop_") and n}
        kept.pop("drop_rst_window", None)
        return kept

    def restart(self):
        """Killed without a word, and started again."""
        self.kill()
        self.start()

    def attempts(self):
        """What became of all attempts."""
        row = next(row for row in self.ctl("services")["services"] if row["name"] == STORM.name)
        return {key: row[key] for key in ("attempts", "new_flows", "held", "refused", "silent")}


class On(Off):
    """As it is delivered: nothing but the service and its backend is configured."""

    name = "spillway"
    title = "Spillway"
    cures = "{}"


class Refusing(On):
    """Told what the upstream can do; who is beyond that is refused at once."""

    name = "spillway-refusing"
    title = "Spillway, refusing what is beyond 450/s instead of holding it"
    options = "storm: {rate: 450/s, burst: 45, hold: off}"


SUBJECTS = {kind.name: kind for kind in (Nat, Untuned, Tuned, FixedLimit, Off, On, Refusing)}


@contextlib.contextmanager
def serving(subject):
    subject.start()
    try:
        subject.wait_serving()
        yield subject
    finally:
        subject.stop()


def counts(bench, what, record):
    """Says whether a run counts, and returns it."""
    said = "; ".join(record["complaints"]) or "valid"
    print(f"{bench}: {what}: {said}", flush=True)
    return not record["complaints"]


def names_of(text):
    """Of an option that is a list."""
    return [name for name in text.split(",") if name]
