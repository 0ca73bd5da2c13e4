#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Makes the replay cases: make.py PATH/TO/replay [CASE...]

A case is a conversation. send() adds a frame to in.pcap, lets the replay program run over all of it, and returns what
left since; so a case answers to the ports and addresses that the gateway chose, and checks at once that they are right.
in.pcap and out.pcap are kept in the tree: a change of either is to be looked at, packet by packet.
"""
import os
import subprocess
import sys

os.environ.setdefault("XDG_CACHE_HOME", "/tmp")
from scapy.all import ICMP, IP, TCP, UDP, Ether, ICMPv6EchoRequest, IPv6, PcapReader, PcapWriter, Raw  # noqa: E402
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6PacketTooBig, ICMPv6TimeExceeded  # noqa: E402

WAN, LAN = "02:00:00:00:00:10", "02:00:00:00:00:11"
ROUTER = "02:00:00:00:01:01"


class Family:
    """Addresses of tests/rig.h."""

    def __init__(self, ip, client, vip, snat, backend_prefix):
        self.ip, self.client, self.vip, self.snat, self.backend_prefix = ip, client, vip, snat, backend_prefix


V4 = Family(IP, "198.19.0.7", "198.18.100.1", "198.18.101.1", "198.18.3.")
V6 = Family(IPv6, "2001:db8:1000::7", "2001:db8:100::1", "2001:db8:101::1", "2001:db8:3::")


class Case:
    def __init__(self, replay, path, options=None):
        self.replay, self.path, self.time, self.n_out = replay, path, 1.0, 0
        self.frames = []
        os.makedirs(path, exist_ok=True)
        if options:
            with open(f"{path}/options", "w") as f:
                f.writelines(f"{name} {value}\n" for name, value in options.items())

    def send(self, frame, after=0.001, expect=1):
        """Sends a frame `after` seconds; returns the list of what left, which must be `expect` frames."""
        self.time += after
        frame = Ether(bytes(frame))
        frame.time = self.time
        self.frames.append(frame)
        with PcapWriter(f"{self.path}/in.pcap", nano=True, linktype=1) as w:
            for f in self.frames:
                w.write(f)
        subprocess.run([self.replay, "--write", self.path], check=True)
        with PcapReader(f"{self.path}/out.pcap") as r:
            out = list(r)
        new, self.n_out = out[self.n_out:], len(out)
        assert len(new) == expect, f"{self.path}: {expect} frames expected, got {new}"
        for f in new:
            check_checksums(f)
        return new

    def up(self, packet, **kw):
        return self.send(Ether(src=ROUTER, dst=WAN) / packet, **kw)

    def down(self, packet, **kw):
        return self.send(Ether(src="02:00:00:00:03:01", dst=LAN) / packet, **kw)


def check_checksums(frame):
    """What scapy computes anew must be what is there; a quoted packet is no layer of these."""
    again = Ether(bytes(frame))
    for layer, field in ((IP, "chksum"), (TCP, "chksum"), (UDP, "chksum"), (ICMP, "chksum"), (ICMPv6EchoReply, "cksum"),
                         (ICMPv6DestUnreach, "cksum"), (ICMPv6PacketTooBig, "cksum"), (ICMPv6TimeExceeded, "cksum")):
        if layer in again:
            delattr(again[layer], field)
    assert bytes(Ether(bytes(again))) == bytes(frame), f"checksum: {frame.show2(dump=True)}"


def ttl(packet):
    return packet.ttl if IP in packet else packet.hlim


def is_upstream(family, frame, sport=None):
    """It left for a backend in the gateway's name."""
    ip = frame[family.ip]
    assert frame.src == LAN and ip.src == family.snat and ip.dst.startswith(family.backend_prefix), frame.summary()
    assert ip.payload.dport == 8080 and ttl(ip) == 63, frame.summary()


def is_client(family, frame, sport, dport):
    """It left for the client in the VIP's name."""
    ip = frame[family.ip]
    assert (frame.src, frame.dst) == (WAN, ROUTER), frame.summary()
    assert (ip.src, ip.dst) == (family.vip, family.client), frame.summary()
    assert (ip.payload.sport, ip.payload.dport) == (sport, dport) and ttl(ip) == 63, frame.summary()


class TcpFlow:
    """A connection through the gateway, both ends played."""

    def __init__(self, case, family, sport=40000):
        self.case, self.family, self.sport = case, family, sport
        self.snat_port = self.backend = None

    def client(self, flags, seq, ack=0, data=b"", **kw):
        packet = (self.family.ip(src=self.family.client, dst=self.family.vip) /
                  TCP(sport=self.sport, dport=80, flags=flags, seq=seq, ack=ack) / Raw(data))
        out = self.case.up(packet, **kw)
        for frame in out:
            if frame.src == LAN:
                is_upstream(self.family, frame)
                self.snat_port, self.backend = frame[TCP].sport, frame[self.family.ip].dst
        return out

    def server(self, flags, seq, ack=0, data=b"", **kw):
        packet = (self.family.ip(src=self.backend, dst=self.family.snat) /
                  TCP(sport=8080, dport=self.snat_port, flags=flags, seq=seq, ack=ack) / Raw(data))
        out = self.case.down(packet, **kw)
        for frame in out:
            if frame.src == WAN:
                is_client(self.family, frame, 80, self.sport)
        return out

    def open(self):
        self.client("S", 1000)
        self.server("SA", 5000, 1001)
        self.client("A", 1001, 5001)


def tcp(case, family):
    """Handshake, request, answer, both FINs."""
    flow = TcpFlow(case, family)
    flow.open()
    (frame,) = flow.client("PA", 1001, 5001, b"GET / HTTP/1.0\r\n\r\n")
    assert bytes(frame[Raw]) == b"GET / HTTP/1.0\r\n\r\n"
    flow.server("A", 5001, 1019)
    flow.server("PA", 5001, 1019, b"x" * 1400)
    flow.client("A", 1019, 6401)
    flow.server("FA", 6401, 1019)
    flow.client("FA", 1019, 6402)
    flow.server("A", 6402, 1020)


def tcp_rst(case, family):
    """
    A RST that the other side would ignore goes no further, one that it would ask back about changes nothing, one that
    it takes ends the flow: then a stray.
    """
    flow = TcpFlow(case, family)
    flow.open()
    flow.server("R", 9999999, expect=0)
    flow.server("R", 5002)
    flow.client("PA", 1001, 5001, b"still there")
    flow.server("R", 5001)
    (frame,) = flow.client("A", 1012, 5001, after=30)
    assert frame.src == WAN and frame[TCP].flags == "R" and frame[TCP].seq == 5001, frame.summary()


def tcp_stray(case, family):
    """Packets of no flow: answered with the RST that the sender must believe; a RST is never answered."""
    (frame,) = TcpFlow(case, family).client("A", 77, 4711)
    assert frame.src == WAN and frame[TCP].flags == "R" and frame[TCP].seq == 4711, frame.summary()
    TcpFlow(case, family).client("R", 77, expect=0)


def udp(case, family):
    """A query, its answer, a second query on the same flow; then silence until it is forgotten."""
    query = family.ip(src=family.client, dst=family.vip) / UDP(sport=40001, dport=53) / Raw(b"query")
    (up,) = case.up(query)
    is_upstream(family, up)
    answer = (family.ip(src=up[family.ip].dst, dst=family.snat) / UDP(sport=8080, dport=up[UDP].sport) / Raw(b"answer"))
    (down,) = case.down(answer)
    is_client(family, down, 53, 40001)
    (again,) = case.up(query, after=250)
    assert again[UDP].sport == up[UDP].sport
    case.down(answer, after=310, expect=0)


def refused(case, family):
    """No backend at all: a TCP client hears it at once by RST, a UDP client by port unreachable."""
    (frame,) = TcpFlow(case, family).client("S", 1000)
    assert frame.src == WAN and frame[TCP].flags == "RA" and frame[TCP].ack == 1001, frame.summary()
    (frame,) = case.up(family.ip(src=family.client, dst=family.vip) / UDP(sport=40001, dport=53) / Raw(b"query"))
    error = frame[ICMP] if family is V4 else frame[ICMPv6DestUnreach]
    assert (error.type, error.code) == ((3, 3) if family is V4 else (1, 4)), frame.summary()


def echo(case, family):
    """The VIP answers pings itself."""
    request = ICMP(id=7, seq=1) if family is V4 else ICMPv6EchoRequest(id=7, seq=1)
    (frame,) = case.up(family.ip(src=family.client, dst=family.vip) / request / Raw(b"abcdefgh"))
    ip = frame[family.ip]
    assert ip.src == family.vip and ip.dst == family.client and ip.payload.type in (0, 129), frame.summary()


def too_big(case, family):
    """The way to the backend takes 1400 bytes: the client is told so."""
    flow = TcpFlow(case, family)
    flow.open()
    packet = (family.ip(src=family.client, dst=family.vip) /
              TCP(sport=40000, dport=80, flags="A", seq=1001, ack=5001) / Raw(b"y" * 1420))
    if family is V4:
        packet.flags = "DF"
    (frame,) = case.up(packet)
    ip = frame[family.ip]
    assert frame.src == WAN and ip.dst == family.client, frame.summary()
    if family is V4:
        assert (frame[ICMP].type, frame[ICMP].code, frame[ICMP].nexthopmtu) == (3, 4, 1400), frame.summary()
    else:
        assert frame[ICMPv6PacketTooBig].mtu == 1400, frame.summary()
    flow.client("A", 1001, 5001, b"y" * 1300)


def ttl_exceeded(case, family):
    """A hop limit that runs out here is answered in the VIP's name, and the flow lives on."""
    flow = TcpFlow(case, family)
    flow.open()
    packet = family.ip(src=family.client, dst=family.vip) / TCP(sport=40000, dport=80, flags="A", seq=1001, ack=5001)
    packet.setfieldval("ttl" if family is V4 else "hlim", 1)
    (frame,) = case.up(packet)
    error = frame[ICMP] if family is V4 else frame[ICMPv6TimeExceeded]
    assert (error.type, error.code) == ((11, 0) if family is V4 else (3, 0)), frame.summary()
    flow.client("PA", 1001, 5001, b"still here")


CASES = {
    "tcp": (tcp, None),
    "tcp_rst": (tcp_rst, None),
    "tcp_stray": (tcp_stray, None),
    "ttl_exceeded": (ttl_exceeded, None),
    "udp": (udp, None),
    "refused": (refused, {"backends": 0}),
    "echo": (echo, None),
    "too_big": (too_big, {"lan_mtu": 1400}),
}


def main():
    replay, wanted = os.path.abspath(sys.argv[1]), sys.argv[2:]
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cases")
    for name, (make, options) in CASES.items():
        for family, suffix in ((V4, "4"), (V6, "6")):
            if wanted and name + suffix not in wanted:
                continue
            make(Case(replay, os.path.join(here, name + suffix), options), family)
            print(name + suffix)


if __name__ == "__main__":
    main()
