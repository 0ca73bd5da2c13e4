# SPDX-License-Identifier: BSD-3-Clause
"""What stands in the gateway's place, behind one interface: kernel NAT (the *before*) or Spillway (the *after*)."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import time

from netns import LabError, eventually
from tools import BUILD
from topology import BACKEND_PORT, DNS, SNAT, UPSTREAMS, VIP, bracketed

BULK_PORT = 5201

CONFIG = """\
gateway:
  workers: [{workers}]
  idle: sleep
  flows: 100000
  memory: 512M
  ports:
    - {{name: wan, device: eth1}}
    - {{name: lan, device: eth2}}
  snat: ["{snat4}", "{snat6}"]
  api: {{socket: {socket}, http: off}}
  state_dir: {state_dir}
dns: {{servers: ["{dns}:53"], min_ttl: 1s, max_ttl: 5m, stale: 24h}}
services:
"""


@dataclasses.dataclass(frozen=True)
class Service:
    """What a gateway serves: one port of the VIP in both families, by some of the upstreams."""

    name: str
    port: int
    backend_port: int = BACKEND_PORT
    upstreams: tuple = tuple(UPSTREAMS)
    dns: str = ""  # of what name these are the addresses, relative to lab.test; "": they are configured
    options: str = ""  # Spillway's keys of this service: lines of YAML

    def addresses(self, f):
        return [UPSTREAMS[up][f] for up in self.upstreams]

    def yaml(self):
        """As Spillway's configuration has it."""
        listen = ", ".join(f'"{bracketed(VIP[f])}:{self.port}/tcp"' for f in (4, 6))
        text = f"  - name: {self.name}\n    listen: [{listen}]\n    backends:\n"
        if self.dns:
            text += f"      - {{dns: {self.dns}.lab.test, port: {self.backend_port}}}\n"
        else:
            for address in self.addresses(4) + self.addresses(6):
                text += f'      - {{address: "{address}", port: {self.backend_port}}}\n'
        return text + "".join(f"    {line}\n" for line in self.options.splitlines())


SHOP = Service("shop", 80, dns="shop")
BULK = Service("bulk", BULK_PORT, BULK_PORT, upstreams=("up1",))


class Nftables:
    """Kernel NAT over conntrack. Names are resolved once, at the start, as such set-ups do."""

    name = "nftables"
    title = "plain nftables NAT"
    always = (SHOP, BULK)  # services that need no asking for

    def __init__(self, lab, n_workers=1, services=()):
        self.lab = lab
        self.serves = (*self.always, *services)

    def start(self):
        gw = self.lab.gw
        tables = "".join(self._table(f) for f in (4, 6))
        gw.sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
        # A gateway of the kernel's own leaves checksums to its device, the gateway under test does not.
        for dev in ("eth1", "eth2"):
            gw.run("ethtool", "-K", dev, "tx", "off")
        gw.run("nft", "-f", "-", input=tables)

    def _addresses(self, service, f):
        if not service.dns:
            return service.addresses(f)
        kind = {4: "A", 6: "AAAA"}[f]
        name = f"{service.dns}.lab.test"
        answer = self.lab.gw.run("dig", "+short", "+tries=2", f"@{DNS[4]}", name, kind).stdout.split()
        if not answer:
            raise LabError(f"{name} has no {kind}")
        return sorted(answer)

    def _dnat(self, service, f):
        addresses = self._addresses(service, f)
        choice = ", ".join(f"{i} : {a}" for i, a in enumerate(addresses))
        to = f"numgen inc mod {len(addresses)} map {{ {choice} }}" if len(addresses) > 1 else bracketed(addresses[0])
        proto = {4: "ip", 6: "ip6"}[f]
        return f"{proto} daddr {VIP[f]} tcp dport {service.port} dnat to {to}:{service.backend_port}"

    def _table(self, f):
        family, lan = {4: ("ip", "198.18.2.0/24"), 6: ("ip6", "2001:db8:2::/64")}[f]
        dnats = "\n        ".join(self._dnat(service, f) for service in self.serves)
        return f"""
table {family} spillway_before {{
    chain pre {{
        type nat hook prerouting priority dstnat;
        {dnats}
    }}
    chain post {{
        type nat hook postrouting priority srcnat;
        oifname "eth2" {family} saddr != {lan} snat to {SNAT[f]}
    }}
}}
"""

    def wait_serving(self):
        """The kernel serves as soon as the rules are in."""

    def alive(self):
        return True

    def chapter(self):
        """The kernel keeps no account."""

    def told(self, chapter, cure):
        return []

    def stop(self):
        self.lab.gw.run("nft", "delete table ip spillway_before; delete table ip6 spillway_before")
        for dev in ("eth1", "eth2"):
            self.lab.gw.run("ethtool", "-K", dev, "tx", "on")
        self.lab.gw.sysctl(ipv4__ip_forward=0, ipv6__conf__all__forwarding=0)


class Spillway:
    """build/spillway in the gateway's namespace, in the foreground, with its output in a log."""

    name = "spillway"
    title = "Spillway"
    always = (SHOP, BULK)
    COMMANDS = ("status", "services", "backends", "names", "flows", "ledger", "events", f"explain {VIP[4]}")
    binary = os.path.join(BUILD, "spillway")
    ctl_binary = os.path.join(BUILD, "spillwayctl")
    env = {}  # beside what the driver has

    def __init__(self, lab, n_workers=1, services=(), edits=()):
        """`edits`: (old, new) texts of the configuration."""
        self.lab = lab
        self.serves = (*self.always, *services)
        self.socket = lab.path("api.sock")
        self.config = lab.path("spillway.yaml")
        self.log = lab.path("spillway.log")
        self.child = None
        self.saved, self.saved_limits = (os.path.join(lab.dir, name) for name in ("names.json", "limits.json"))
        for path in (self.saved, self.saved_limits):
            if os.path.exists(path):
                os.unlink(path)  # of another test's gateway
        text = self.config_text(n_workers)
        for old, new in edits:
            if old not in text:
                raise LabError(f"{old!r} is not in the configuration")
            text = text.replace(old, new)
        with open(self.config, "w", encoding="ascii") as f:
            f.write(text)

    def config_text(self, n_workers):
        return CONFIG.format(
            workers=", ".join(str(cpu) for cpu in range(n_workers)),
            snat4=SNAT[4],
            snat6=SNAT[6],
            socket=self.socket,
            state_dir=self.lab.dir,
            dns=DNS[4],
        ) + "".join(service.yaml() for service in self.serves)

    @classmethod
    def built(cls):
        return os.access(cls.binary, os.X_OK) and os.access(cls.ctl_binary, os.X_OK)

    def output(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def start(self):
        """Returns when it says that it is ready."""
        argv = ["ip", "netns", "exec", self.lab.gw.name, self.binary, self.config]
        with open(self.log, "wb") as out:
            env = {**os.environ, **self.env}
            self.child = self.lab.children.spawn(None, *argv, stdout=out, stderr=subprocess.STDOUT, env=env)
        try:
            eventually(self._ready, 30, "spillway: ready")
        except (TimeoutError, LabError) as error:
            self.lab.children.end(self.child)
            raise LabError(f"{error}\n{self.output()}") from None

    def _ready(self):
        if "spillway: ready" in self.output():
            return True
        if self.child.poll() is not None:
            raise LabError(f"spillway ended with {self.child.returncode} instead of getting ready")
        return False

    def wait_serving(self):
        """Ready says that packets are served; the names may still be on their way."""
        eventually(lambda: self.backend_addresses() >= self._expected(), 10, "backends from DNS")

    def _expected(self):
        return {(bracketed(a), s.backend_port) for s in self.serves for f in (4, 6) for a in s.addresses(f)}

    def backend_addresses(self):
        """(address, port) of each backend that takes new flows."""
        rows = [row for row in self.ctl("backends")["backends"] if row["life"] == "active"]
        return {(address, int(port)) for address, port in (r["id"].split(":", 1)[1].rsplit(":", 1) for r in rows)}

    def ctl(self, *argv):
        done = subprocess.run(
            [self.ctl_binary, "--socket", self.socket, "--json", *argv], text=True, capture_output=True, timeout=10
        )
        if done.returncode:
            raise LabError(f"spillwayctl {' '.join(argv)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def backend(self, address):
        """The row of the backend at that address; None if it has none."""
        rows = self.ctl("backends")["backends"]
        return next((row for row in rows if row["id"] == f"tcp:{bracketed(address)}:{BACKEND_PORT}"), None)

    def ledger(self):
        return self.ctl("ledger")

    def status(self):
        return self.ctl("status")

    def events(self, since=0):
        """Changes of state, oldest first."""
        return self.ctl("events", f"since={since}", "limit=1000")["events"]

    def chapter(self):
        """For told(): the last event until now, when that is, and what was done until then."""
        return max((e["number"] for e in self.events()), default=0), time.time(), self.ledger()["actions"]

    def told(self, chapter, cure):
        """What it says that happened since and concerns that cure: changes of state, and what explains the VIPs.

        What happens to packets that nobody misses explains no failure, and is in the ledger alone.
        """
        last, began, actions = chapter
        told = [f"{e['subject']}: {e['text']}" for e in self.events(last) if e["cure"] == cure]
        for vip in VIP.values():
            findings = self.ctl("explain", vip)["findings"]
            # Totals of a service have no time.
            told += [f["sentence"] for f in findings if f["cure"] == cure and (f["last"] or began) >= began]
        deeds = {name: n - actions.get(name, 0) for name, n in self.ledger()["actions"].items()}
        return list(dict.fromkeys(told)) or [f"ledger: {name} {n}" for name, n in deeds.items() if n]

    def rss_kib(self):
        with open(f"/proc/{self.child.pid}/status", encoding="ascii") as f:
            return int(next(line for line in f if line.startswith("VmRSS:")).split()[1])

    def alive(self):
        return self.child is not None and self.child.poll() is None

    def kill(self):
        self.child.kill()
        self.child.wait()
        self.lab.children.end(self.child)

    def stop(self):
        """A clean stop; the exit status must be 0."""
        if self.child is None:
            return
        self.child.send_signal(signal.SIGCONT)
        status = self.lab.children.end(self.child, signal.SIGTERM, 15)
        self.child = None
        if status:
            raise LabError(f"spillway ended with {status} at SIGTERM\n{self.output()}")


@contextlib.contextmanager
def running(gateway):
    """Started and serving; stopped in the end, whatever happens."""
    gateway.start()
    try:
        gateway.wait_serving()
        yield gateway
    finally:
        gateway.stop()


KINDS = {kind.name: kind for kind in (Nftables, Spillway)}
