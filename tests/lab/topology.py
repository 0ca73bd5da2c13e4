# SPDX-License-Identifier: BSD-3-Clause
"""The lab's hosts and links.

                    198.18.1.0/24              198.18.2.0/24
    client ---- wan ------------- eth1 gw eth2 ------------- lan ---+--- up1   198.18.3.21
    .0.101-120      .1         .2          .2             .1        +--- up2   198.18.3.22
    198.18.0.0/24   (router)      VIP  198.18.100.1       (router)  +--- up3   198.18.3.23
                                  SNAT 198.18.101.10                +--- dns   198.18.3.53

The same in IPv6: 198.18.N.X is 2001:db8:N::X, the VIP 2001:db8:100::1, the SNAT address 2001:db8:101::10. Each host is
a network namespace with a Linux stack of its own. There is no way out of it.
"""

import atexit
import os
import shutil
import signal
import tempfile

from netns import PREFIX, Children, Namespace, delete_all, sweep_stale

VIP = {4: "198.18.100.1", 6: "2001:db8:100::1"}
SNAT = {4: "198.18.101.10", 6: "2001:db8:101::10"}
GW_WAN = {4: "198.18.1.2", 6: "2001:db8:1::2"}
GW_LAN = {4: "198.18.2.2", 6: "2001:db8:2::2"}
WAN_CLIENT = {4: "198.18.0.1", 6: "2001:db8:0::1"}
LAN_UP = {4: "198.18.3.1", 6: "2001:db8:3::1"}
WAN_GW = {4: "198.18.1.1", 6: "2001:db8:1::1"}
LAN_GW = {4: "198.18.2.1", 6: "2001:db8:2::1"}
DNS = {4: "198.18.3.53", 6: "2001:db8:3::53"}
CLIENTS = {4: [f"198.18.0.{100 + i}" for i in range(1, 21)], 6: [f"2001:db8:0::{100 + i}" for i in range(1, 21)]}
UPSTREAMS = {f"up{i}": {4: f"198.18.3.{20 + i}", 6: f"2001:db8:3::{20 + i}"} for i in (1, 2, 3)}
BACKEND_PORT = 8080
ROLES = ("client", "wan", "gw", "lan", "dns")


def bracketed(address):
    return f"[{address}]" if ":" in address else address


class Lab:
    """A context manager: namespaces, links, addresses and routes, and every process that is started in them."""

    def __init__(self, n_queues=1):
        self.n_queues = n_queues
        self.ns = {}
        self.children = Children()
        self.dir = None

    def __getattr__(self, role):
        try:
            return self.__dict__["ns"][role]
        except KeyError:
            raise AttributeError(role) from None

    def __enter__(self):
        sweep_stale()
        atexit.register(self.close)
        self.dir = tempfile.mkdtemp(prefix=f"{PREFIX}-{os.getpid()}-")
        os.chmod(self.dir, 0o755)
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """Takes everything down; may be called twice. What a signal interrupts is done at exit."""
        self.children.end_all()
        delete_all()
        self.ns = {}
        if self.dir:
            shutil.rmtree(self.dir, ignore_errors=True)
            self.dir = None
        atexit.unregister(self.close)

    def path(self, name):
        return os.path.join(self.dir, name)

    def _build(self):
        for role in (*ROLES, *UPSTREAMS):
            self.ns[role] = Namespace(role)
            # Before any link exists: an address must be usable as soon as it is there.
            self.ns[role].sysctl(
                ipv6__conf__default__accept_dad=0, ipv6__conf__all__accept_dad=0, ipv6__conf__default__accept_ra=0
            )
            self.ns[role].ip("link set lo up")
        self._link("client", "eth0", "wan", "client")
        self._link_wan()
        self._link("lan", "gw", "gw", "eth2", self.n_queues)
        self.lan.ip("link add br0 type bridge", "link set br0 up")
        for role in (*UPSTREAMS, "dns"):
            self._link(role, "eth0", "lan", role)
            self.lan.ip(f"link set {role} master br0")
        for router in (self.wan, self.lan):
            router.sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
        self._gateway_offloads_off()
        self._addresses()
        self._routes()

    def _link_wan(self):
        self._link("wan", "gw", "gw", "eth1", self.n_queues)

    def _link(self, a, a_dev, b, b_dev, n_queues=1):
        queues = f"numtxqueues {n_queues} numrxqueues {n_queues}"
        self.ns[a].ip(f"link add {a_dev} {queues} type veth peer name {b_dev} netns {self.ns[b].name} {queues}")
        self.ns[a].ip(f"link set {a_dev} up")
        self.ns[b].ip(f"link set {b_dev} up")

    def _gateway_offloads_off(self):
        # An AF_XDP socket sees a frame as it is: nobody would fill in a checksum left for the device.
        for router in (self.wan, self.lan):
            router.run("ethtool", "-K", "gw", "tx", "off", "tso", "off", "gso", "off", "gro", "off")

    def relink(self):
        """Makes the link to the gateway's eth1 if it is not there, with all that belongs to it."""
        if self.gw.run("ip", "link", "show", "eth1", check=False).returncode:
            self._link_wan()
        self._gateway_offloads_off()
        self.restore()

    def restore(self):
        """Gives back what interfaces lost that went down: IPv6 addresses, and routes."""
        self._addresses()
        self._routes()

    def _addresses(self):
        def add(role, dev, address, extra=""):
            flags = "nodad" if ":" in address else ""
            self.ns[role].ip(f"addr replace {address} dev {dev} {flags} {extra}")

        for f, bits in ((4, 24), (6, 64)):
            for address in CLIENTS[f]:
                add("client", "eth0", f"{address}/{bits}")
            add("wan", "client", f"{WAN_CLIENT[f]}/{bits}")
            add("wan", "gw", f"{WAN_GW[f]}/{bits}")
            add("gw", "eth1", f"{GW_WAN[f]}/{bits}")
            add("gw", "eth2", f"{GW_LAN[f]}/{bits}")
            add("lan", "gw", f"{LAN_GW[f]}/{bits}")
            add("lan", "br0", f"{LAN_UP[f]}/{bits}")
            add("dns", "eth0", f"{DNS[f]}/{bits}")
            for up, address in UPSTREAMS.items():
                add(up, "eth0", f"{address[f]}/{bits}")
            host = {4: 32, 6: 128}[f]
            add("gw", "lo", f"{VIP[f]}/{host}")
            # Never a source that the kernel picks by itself.
            add("gw", "lo", f"{SNAT[f]}/{host}", "preferred_lft 0")

    def _routes(self):
        for f in (4, 6):
            net = {4: "198.18.{}.0/24", 6: "2001:db8:{}::/64"}[f].format
            self.client.ip(f"route replace default via {WAN_CLIENT[f]}")
            self.wan.ip(f"route replace {net(100)} via {GW_WAN[f]}", f"route replace {net(2)} via {GW_WAN[f]}")
            self.lan.ip(f"route replace {net(101)} via {GW_LAN[f]}", f"route replace default via {GW_LAN[f]}")
            self.gw.ip(f"route replace {net(0)} via {WAN_GW[f]}", f"route replace {net(3)} via {LAN_GW[f]}")
            for role in (*UPSTREAMS, "dns"):
                self.ns[role].ip(f"route replace default via {LAN_UP[f]}")


def end_on_signals(signals=(signal.SIGTERM, signal.SIGHUP)):
    """They unwind like Ctrl-C, so that context managers take the lab down; once, as a second one would stop that."""

    def unwind(signo, _frame):
        for each in signals:
            signal.signal(each, lambda *_: None)  # not SIG_IGN, which children would inherit
        raise KeyboardInterrupt(signal.Signals(signo).name)

    for signo in signals:
        signal.signal(signo, unwind)
