# SPDX-License-Identifier: BSD-3-Clause
"""What stands in the gateway's place, behind one interface: kernel NAT (the *before*) or Spillway (the *after*)."""

import json
import os
import signal
import subprocess

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
  - name: shop
    listen: ["{vip4}:80/tcp", "{vip6}:80/tcp"]
    backends:
      - {{dns: shop.lab.test, port: {backend_port}}}
  - name: bulk
    listen: ["{vip4}:{bulk_port}/tcp", "{vip6}:{bulk_port}/tcp"]
    backends:
      - {{address: "{bulk4}", port: {bulk_port}}}
      - {{address: "{bulk6}", port: {bulk_port}}}
"""


class Nftables:
    """Kernel NAT over conntrack. Names are resolved once, at the start, as such set-ups do."""

    name = "nftables"

    def __init__(self, lab, n_workers=1):
        self.lab = lab
        self._addresses = {}

    def start(self):
        gw = self.lab.gw
        gw.sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
        for f, kind in ((4, "A"), (6, "AAAA")):
            answer = gw.run("dig", "+short", "+tries=2", f"@{DNS[4]}", "shop.lab.test", kind).stdout.split()
            if not answer:
                raise LabError(f"shop.lab.test has no {kind}")
            self._addresses[f] = sorted(answer)
        # A gateway of the kernel's own leaves checksums to its device, the gateway under test does not.
        for dev in ("eth1", "eth2"):
            gw.run("ethtool", "-K", dev, "tx", "off")
        gw.run("nft", "-f", "-", input="".join(self._table(f) for f in (4, 6)))

    def _table(self, f):
        family, proto = {4: ("ip", "ip"), 6: ("ip6", "ip6")}[f]
        addresses = self._addresses[f]
        choice = ", ".join(f"{i} : {a}" for i, a in enumerate(addresses))
        return f"""
table {family} spillway_before {{
    chain pre {{
        type nat hook prerouting priority dstnat;
        {proto} daddr {VIP[f]} tcp dport 80 dnat to numgen inc mod {len(addresses)} map {{ {choice} }}:{BACKEND_PORT}
        {proto} daddr {VIP[f]} tcp dport {BULK_PORT} dnat to {bracketed(UPSTREAMS["up1"][f])}:{BULK_PORT}
    }}
    chain post {{
        type nat hook postrouting priority srcnat;
        oifname "eth2" {proto} saddr != {{ 198.18.2.0/24 }} snat to {SNAT[f]}
    }}
}}
""".replace("{ 198.18.2.0/24 }", {4: "198.18.2.0/24", 6: "2001:db8:2::/64"}[f])

    def wait_serving(self):
        """The kernel serves as soon as the rules are in."""

    def stop(self):
        self.lab.gw.run("nft", "delete table ip spillway_before; delete table ip6 spillway_before")
        for dev in ("eth1", "eth2"):
            self.lab.gw.run("ethtool", "-K", dev, "tx", "on")
        self.lab.gw.sysctl(ipv4__ip_forward=0, ipv6__conf__all__forwarding=0)


class Spillway:
    """build/spillway in the gateway's namespace, in the foreground, with its output in a log."""

    name = "spillway"
    binary = os.path.join(BUILD, "spillway")
    ctl_binary = os.path.join(BUILD, "spillwayctl")
    env = {}  # beside what the driver has

    def __init__(self, lab, n_workers=1, edits=()):
        """`edits`: (old, new) texts of the configuration."""
        self.lab = lab
        self.socket = lab.path("api.sock")
        self.config = lab.path("spillway.yaml")
        self.log = lab.path("spillway.log")
        self.child = None
        self.saved = os.path.join(lab.dir, "names.json")
        if os.path.exists(self.saved):
            os.unlink(self.saved)  # of another test's gateway
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
            vip4=VIP[4],
            vip6=bracketed(VIP[6]),
            socket=self.socket,
            state_dir=self.lab.dir,
            dns=DNS[4],
            backend_port=BACKEND_PORT,
            bulk_port=BULK_PORT,
            bulk4=UPSTREAMS["up1"][4],
            bulk6=UPSTREAMS["up1"][6],
        )

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
        return {(bracketed(u[f]), BACKEND_PORT) for u in UPSTREAMS.values() for f in (4, 6)}

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


KINDS = {kind.name: kind for kind in (Nftables, Spillway)}
