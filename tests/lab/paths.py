# SPDX-License-Identifier: BSD-3-Clause
"""Links with a smaller MTU, hosts that do not hear of them, and what becomes of transfers there.

What is made smaller is made as before at the end of each `with`, and no host remembers what it learned of a path.
"""

import contextlib
import ipaddress
import os
import select
import socket
import struct
import subprocess
import threading

from netns import LabError
from tools import tool
from topology import CLIENTS, GW_LAN, SNAT, UPSTREAMS, VIP, bracketed

FILE_BYTES = 1_000_000
FILE_NAME = "megabyte"
HEADERS = {4: 40, 6: 60}  # of IP and TCP, without options

FILTER = """
table inet no_ptb {
    chain input {
        type filter hook input priority filter;
        icmp type destination-unreachable icmp code 4 drop
        icmpv6 type packet-too-big drop
    }
}
"""


def full_mss(family, mtu=1500):
    return mtu - HEADERS[family]


def forget_paths(lab):
    """No host's kernel keeps a path MTU."""
    for role in ("client", *UPSTREAMS):
        for version in ("-4", "-6"):
            lab.ns[role].run("ip", version, "route", "flush", "cache")


@contextlib.contextmanager
def small_link(lab, router, device, addresses, mtu):
    """What `router` sends to these addresses fits `mtu`, or it says so to the sender, each time."""
    hosts = {a: f"{a}/{128 if ':' in a else 32}" for a in addresses}
    router.sysctl(ipv4__icmp_ratelimit=0, ipv6__icmp__ratelimit=0)
    try:
        for host in hosts.values():
            router.ip(f"route replace {host} dev {device} mtu {mtu}")
        yield
    finally:
        for host in hosts.values():
            router.ip(f"route del {host} dev {device}")
        forget_paths(lab)


@contextlib.contextmanager
def small_egress(lab, mtu):
    """The gateway's own link towards the clients."""
    lab.gw.ip(f"link set eth1 mtu {mtu}")
    try:
        yield
    finally:
        lab.gw.ip("link set eth1 mtu 1500")
        forget_paths(lab)


@contextlib.contextmanager
def _delayed(lab, router, ms, destinations, ways):
    """What this router forwards to the destinations goes on so much later, by `ways`: routes without them."""
    device = "far"
    child = lab.children.spawn(
        router, tool("delay"), "--device", device, "--us", str(1000 * ms), stdout=subprocess.PIPE, text=True
    )
    # What came out of it goes on by a table of its own, or it would go round.
    rule = ("iif", device, "lookup", "100")
    try:
        if child.stdout.readline() != "ready\n":
            raise LabError("the long way did not come up")
        router.ip(f"link set {device} up", *(f"route replace {way} table 100" for way in ways))
        for version in ("-4", "-6"):
            router.run("ip", version, "rule", "add", *rule)
        router.ip(*(f"route replace {a} dev {device}" for a in destinations))
        yield
    finally:
        lab.children.end(child)  # and the device with it, and the routes to it
        for version in ("-4", "-6"):
            router.run("ip", version, "rule", "del", *rule, check=False)
            router.run("ip", version, "route", "flush", "table", "100", check=False)


def long_way(lab, ms):
    """Packets from the gateway reach the clients so much later; those of the clients take no longer than ever."""
    ways = ("198.18.0.0/24 dev client", "2001:db8:0::/64 dev client")
    return _delayed(lab, lab.wan, ms, CLIENTS[4] + CLIENTS[6], ways)


def far_upstreams(lab, ms):
    """Packets from the upstreams reach the gateway so much later; those to them take no longer than ever."""
    ways = [f"{SNAT[f]} via {GW_LAN[f]}" for f in (4, 6)]
    return _delayed(lab, lab.lan, ms, SNAT.values(), ways)


@contextlib.contextmanager
def ptb_filtered(lab, roles=tuple(UPSTREAMS)):
    """These hosts hear no "packet too big"."""
    filtered = []
    try:
        for role in roles:
            lab.ns[role].run("nft", "-f", "-", input=FILTER)
            filtered.append(role)
        yield
    finally:
        for role in filtered:
            lab.ns[role].run("nft", "delete", "table", "inet", "no_ptb")


def _curl(lab, source, deadline_s, *argv):
    """Seconds, or None if it did not end in time."""
    argv = ["curl", "-sS", "--fail", "--globoff", "--interface", source, "--max-time", str(deadline_s), *argv]
    done = lab.client.run(*argv, "-w", "%{time_total}", check=False, timeout=deadline_s + 10)
    if done.returncode == 28:
        return None
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def download(lab, family, *, client=0, deadline_s=10):
    """A megabyte to a client (by number). Seconds, or None if it did not come in time."""
    path, got = os.path.join(lab.files, FILE_NAME), lab.path("got")
    if not os.path.exists(path):
        with open(path, "wb") as f:
            f.write(os.urandom(FILE_BYTES))
    url = f"http://{bracketed(VIP[family])}/{FILE_NAME}"
    seconds = _curl(lab, CLIENTS[family][client], deadline_s, "-o", got, url)
    if seconds is not None:
        with open(path, "rb") as sent, open(got, "rb") as came:
            assert sent.read() == came.read()
    return seconds


def upload(lab, family, *, client=0, deadline_s=10):
    """A megabyte from a client. Seconds, or None if it did not go in time."""
    path = lab.path("upload")
    with open(path, "wb") as f:
        f.write(os.urandom(FILE_BYTES))
    url = f"http://{bracketed(VIP[family])}/upload/{FILE_NAME}"
    return _curl(lab, CLIENTS[family][client], deadline_s, "-T", path, url)


def download_over_small_egress(lab, family, deadline_s=3):
    """A download through a gateway whose own link is smaller than the upstreams think, and they hear of it from nobody.

    Seconds, or None: it hangs. The same for whatever stands in the gateway's place.
    """
    # The filter outlasts the small link: what is sent again of a download that hung must teach nobody.
    with ptb_filtered(lab), small_egress(lab, 1400):
        return download(lab, family, deadline_s=deadline_s)


class Syns:
    """The MSS of each SYN (without ACK) that passes an interface, in order. A context manager."""

    def __init__(self, ns, device):
        with ns.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
            self._socket.bind((device, 0))
        self._stop, self._stopped = os.pipe()
        self.mss = []
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        os.close(self._stopped)
        self._thread.join()
        os.close(self._stop)
        self._socket.close()

    def _watch(self):
        while True:
            ready, _, _ = select.select([self._socket, self._stop], [], [])
            if self._stop in ready:
                return
            mss = syn_mss(self._socket.recv(2048))
            if mss is not None:
                self.mss.append(mss)


def syn_mss(frame):
    """None if it is no SYN; 0 if that has no MSS."""
    kind = struct.unpack_from("!H", frame, 12)[0]
    if kind == 0x0800 and frame[23] == 6:
        tcp = frame[14 + (frame[14] & 15) * 4 :]
    elif kind == 0x86DD and frame[20] == 6:
        tcp = frame[54:]
    else:
        return None
    if tcp[13] & 0x12 != 0x02:
        return None
    options = tcp[20 : (tcp[12] >> 4) * 4]
    while options and options[0] != 0:
        if options[0] == 1:
            options = options[1:]
            continue
        if options[0] == 2:
            return struct.unpack("!H", options[2:4])[0]
        options = options[options[1] :]
    return 0


def _checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def forged_ptb(family, client, client_port, seq, mtu):
    """An ICMP message about 1500 bytes from the VIP's port 80 to a client, as a router would send it to the VIP."""
    src, dst = (ipaddress.ip_address(a).packed for a in (VIP[family], client))
    tcp = struct.pack("!HHI", 80, client_port, seq)
    if family == 6:
        quote = struct.pack("!IHBB", 6 << 28, 1460, 6, 64) + src + dst + tcp
        return struct.pack("!BBHI", 2, 0, 0, mtu) + quote  # the kernel fills in the checksum
    quote = struct.pack("!BBHHHBBH", 0x45, 0, 1500, 0, 0x4000, 64, 6, 0) + src + dst + tcp
    message = struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + quote
    return message[:2] + struct.pack("!H", _checksum(message)) + message[4:]


def icmp_socket(ns, family):
    """Sends ICMP messages of our own making."""
    with ns.entered():
        if family == 6:
            return socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
