#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Makes the replay cases: make.py PATH/TO/replay [CASE...]

A case is a conversation. send() adds a frame to in.pcap, lets the replay program run over all of it, and returns what
left since; so a case answers to the ports and addresses that the gateway chose, and checks at once that they are right.
in.pcap and out.pcap are kept in the tree: a change of either is to be looked at, packet by packet.
"""
import ipaddress
import os
import subprocess
import sys
import tempfile

os.environ.setdefault("XDG_CACHE_HOME", "/tmp")
from scapy.all import ICMP, IP, TCP, UDP, Ether, ICMPv6EchoRequest, IPv6, PcapReader, PcapWriter, Raw  # noqa: E402
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6PacketTooBig, ICMPv6TimeExceeded  # noqa: E402

WAN, LAN = "02:00:00:00:00:10", "02:00:00:00:00:11"
ROUTER = "02:00:00:00:01:01"


class Family:
    """Addresses of tests/rig.h."""

    def __init__(self, ip, client, vip, snat, backend_prefix):
        self.ip, self.client, self.vip, self.snat, self.backend_prefix = ip, client, vip, snat, backend_prefix

    def of(self, client):
        return Family(self.ip, client, self.vip, self.snat, self.backend_prefix)

    def backend(self, number):
        return f"{self.backend_prefix}{number}"

    def packet(self, src, dst, hops=64):
        return IP(src=src, dst=dst, ttl=hops) if self.ip is IP else IPv6(src=src, dst=dst, hlim=hops)


V4 = Family(IP, "198.19.0.7", "198.18.100.1", "198.18.101.1", "198.18.3.")
V6 = Family(IPv6, "2001:db8:1000::7", "2001:db8:100::1", "2001:db8:101::1", "2001:db8:3::")


class Case:
    def __init__(self, replay, path, options=None):
        self.replay, self.path, self.time, self.n_out = replay, path, 1.0, 0
        self.frames = []
        self.translates = "untranslated" not in (options or {})
        os.makedirs(path, exist_ok=True)
        if options:
            with open(f"{path}/options", "w") as f:
                f.writelines(f"{name} {value}\n" for name, value in options.items())

    def send(self, frame, after=0.001, expect=1):
        """Sends a frame `after` seconds; returns the list of what left, which must be `expect` frames."""
        self.record(frame, after)
        out = self.run()
        new, self.n_out = out[self.n_out:], len(out)
        assert len(new) == expect, f"{self.path}: {expect} frames expected, got {new}"
        for f in new:
            check_checksums(f)
        return new

    def record(self, frame, after):
        self.time += after
        frame = Ether(bytes(frame))
        frame.time = self.time
        self.frames.append(frame)

    def run(self):
        with PcapWriter(f"{self.path}/in.pcap", nano=True, linktype=1) as w:
            for f in self.frames:
                w.write(f)
        subprocess.run([self.replay, "--write", self.path], check=True)
        with PcapReader(f"{self.path}/out.pcap") as r:
            return list(r)

    def wait(self, seconds, **kw):
        """What leaves by itself meanwhile; a frame that is dropped at once ends it, for time passes with frames."""
        return self.send(Ether(src=ROUTER, dst=WAN, type=0x88b5) / Raw(bytes(46)), after=seconds, **kw)

    def finish(self, counts, shadow=None):
        """
        The case with its cures enforced is done; now with them off and in shadow. `counts`: of what enforce did, all
        of it. `shadow`: what shadow counted, if that cannot be the same.
        """
        self.check_counts("enforce", "counts", counts)
        subprocess.run([self.replay, "--write", "--modes", "off", self.path], check=True)
        if shadow:
            self.check_counts("shadow", "counts.shadow", shadow)
        subprocess.run([self.replay, "--modes", "shadow", self.path], check=True)

    def check_counts(self, mode, file, want):
        subprocess.run([self.replay, "--write", "--modes", mode, self.path], check=True)
        with open(f"{self.path}/{file}") as f:
            got = {name: int(n) for name, n in (line.split() for line in f)}
        assert got == want, f"{self.path}: {mode}: {got}"

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


def is_upstream(family, frame, hops=63):
    """It left for a backend in the gateway's name."""
    ip = frame[family.ip]
    assert frame.src == LAN and ip.src == family.snat and ip.dst.startswith(family.backend_prefix), frame.summary()
    assert ip.payload.dport == 8080 and ttl(ip) == hops, frame.summary()


def is_client(family, frame, sport, dport):
    """It left for the client in the VIP's name."""
    ip = frame[family.ip]
    assert (frame.src, frame.dst) == (WAN, ROUTER), frame.summary()
    assert (ip.src, ip.dst) == (family.vip, family.client), frame.summary()
    assert (ip.payload.sport, ip.payload.dport) == (sport, dport) and ttl(ip) == 63, frame.summary()


def option(tcp, name):
    return dict(o for o in tcp.options if len(o) == 2).get(name)


class TcpFlow:
    """
    A connection through the gateway, both ends played, in the client's numbers: what leaves for the backend must be
    shifted as the SYN was, what the backend says of that is shifted alike.
    """

    def __init__(self, case, family, sport=40000, hops=64):
        self.case, self.family, self.sport, self.hops = case, family, sport, hops
        self.snat_port = self.backend = None
        self.seq_shift = self.ts_shift = 0

    def client(self, flags, seq, ack=0, data=b"", options=(), **kw):
        packet = (self.family.packet(self.family.client, self.family.vip, self.hops) /
                  TCP(sport=self.sport, dport=80, flags=flags, seq=seq, ack=ack, options=list(options)) / Raw(data))
        out = self.case.up(packet, **kw)
        for frame in out:
            if frame.src == LAN:
                self.goes(frame)
                self.is_shifted(packet[TCP], frame[TCP])
        return out

    def goes(self, frame):
        is_upstream(self.family, frame, self.hops - 1)
        self.snat_port, self.backend = frame[TCP].sport, frame[self.family.ip].dst

    def is_shifted(self, sent, left):
        sent_ts, left_ts = option(sent, "Timestamp"), option(left, "Timestamp")
        if sent.flags == "S":
            self.seq_shift = left.seq - sent.seq
            assert bool(self.seq_shift % 2**32) == self.case.translates
            if sent_ts:
                self.ts_shift = left_ts[0] - sent_ts[0]
                assert bool(self.ts_shift % 2**32) == self.case.translates
        assert left.seq == (sent.seq + self.seq_shift) % 2**32 and left.ack == sent.ack, left.summary()
        if sent_ts:
            assert left_ts == ((sent_ts[0] + self.ts_shift) % 2**32, sent_ts[1]), left.summary()
        assert option(left, "SAck") == option(sent, "SAck"), left.summary()

    def server(self, flags, seq, ack=None, data=b"", options=(), timestamps=None, sack=(), **kw):
        options = list(options)
        if timestamps:
            options += [("NOP", None), ("NOP", None),
                        ("Timestamp", (timestamps[0], (timestamps[1] + self.ts_shift) % 2**32))]
        if sack:
            options += [("NOP", None), ("NOP", None), ("SAck", tuple((edge + self.seq_shift) % 2**32 for edge in sack))]
        packet = (self.family.ip(src=self.backend, dst=self.family.snat) /
                  TCP(sport=8080, dport=self.snat_port, flags=flags, seq=seq,
                      ack=0 if ack is None else (ack + self.seq_shift) % 2**32, options=options) / Raw(data))
        out = self.case.down(packet, **kw)
        for frame in out:
            if frame.src == WAN:
                is_client(self.family, frame, 80, self.sport)
                assert (frame[TCP].seq, frame[TCP].ack) == (seq, ack or 0), frame.summary()
                assert option(frame[TCP], "Timestamp") == timestamps, frame.summary()
                assert option(frame[TCP], "SAck") == (tuple(sack) or None), frame.summary()
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


def tcp_options(case, family):
    """
    Timestamps and SACK, with sequence numbers and clocks that wrap: the client sees its own, the backend those of the
    gateway. Then the same client again, which the backend still has in TIME_WAIT: a RST for that, and the SYN again.
    """
    isn, clock = 2**32 - 50, 2**32 - 3
    flow = TcpFlow(case, family)
    syn = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (clock, 0)), ("NOP", None), ("WScale", 7)]
    flow.client("S", isn, options=syn)
    flow.server("SA", 5000, (isn + 1) % 2**32, timestamps=(700, clock))

    def stamped(ticks, echo=700):
        return [("NOP", None), ("NOP", None), ("Timestamp", ((clock + ticks) % 2**32, echo))]

    flow.client("A", (isn + 1) % 2**32, 5001, options=stamped(1))
    for i in range(3):
        flow.client("PA", (isn + 1 + 40 * i) % 2**32, 5001, b"z" * 40, options=stamped(2 + i))
    edges = [(isn + 81) % 2**32, (isn + 121) % 2**32]
    flow.server("A", 5001, (isn + 41) % 2**32, timestamps=(710, (clock + 2) % 2**32), sack=edges)
    flow.server("FA", 5001, (isn + 121) % 2**32, timestamps=(720, (clock + 3) % 2**32))
    flow.client("FA", (isn + 121) % 2**32, 5002, options=stamped(9, 720))
    flow.server("A", 5002, (isn + 122) % 2**32, timestamps=(730, (clock + 9) % 2**32))
    again = TcpFlow(case, family)
    again.client("S", 77, options=[("Timestamp", (1, 0)), ("NOP", None), ("NOP", None)])
    first_isn, first_port = again.seq_shift + 77, again.snat_port
    (rst, second) = again.server("A", 5002, 4711, expect=2)
    assert (rst[TCP].flags, rst[TCP].sport) == ("R", first_port), rst.summary()
    assert rst[TCP].seq == (4711 + again.seq_shift) % 2**32, rst.summary()
    assert (second[TCP].flags, second[TCP].seq, second[TCP].sport) == ("S", first_isn, first_port), second.summary()
    (passed,) = again.server("A", 5002, 4711)
    assert passed.src == WAN


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


# --- the cures, enforced, off, and in shadow ---
#
# A script's answers fit what enforce does; off and shadow read the same frames. Shadow can count what enforce does only
# as long as both have seen the same: where enforce refuses a flow or sends it elsewhere, shadow has it where it was,
# and what the script says of it from then on fits enforce alone. So the conversations that make something count come
# before what tells the two apart, SYNs that nobody answers in shadow get a RST of their client within the second after
# which the wall would take note, and each attempt comes from a port of its own. What cannot be compared:
#
#   keepalive, rst_peer_dead   of an end that answers no probe: only who asks can know (modes_dead)
#   refuse_, silence_, hold_   of a SYN that is sent again: once refused, it is another attempt; in shadow its flow
#                              exists, and it is none (modes_again)
#   resteer                    of flows that storm refuses: in shadow they wait for a backend's answer (modes_again)
#   put_off, rst_untold        counted by enforce alone: they tell of what it could not send


class Attempt(TcpFlow):
    """One of many connections: its numbers are its own, so that no other one's answer fits."""

    def __init__(self, case, family, sport, hops=64):
        super().__init__(case, family, sport, hops)
        self.isn = sport * 1000

    def syn(self, **kw):
        return self.client("S", self.isn, **kw)

    def answered(self):
        """And over."""
        self.server("SA", 5000, self.isn + 1)
        self.client("A", self.isn + 1, 5001)
        self.gives_up()

    def refused(self, **kw):
        return self.server("RA", 0, self.isn + 1, **kw)

    def gives_up(self, **kw):
        self.client("R", self.isn + 1, **kw)

    def moves(self, frame, number):
        assert frame[TCP].flags == "S" and frame[TCP].seq == self.isn, frame.summary()
        self.goes(frame)
        assert self.backend == self.family.backend(number), frame.summary()


class Choices:
    """Ports of clients by the backend that is their first choice of two."""

    def __init__(self, replay, family):
        self.replay, self.family, self.first = replay, family, 41000

    def of(self, number, client=None):
        """The next port whose flows go to that backend first."""
        family = self.family.of(client) if client else self.family
        ports = range(self.first, self.first + 16)
        with tempfile.TemporaryDirectory() as path:
            case = Case(self.replay, path, {"backends": 2})
            for port in ports:
                case.record(Ether(src=ROUTER, dst=WAN) / family.ip(src=family.client, dst=family.vip) /
                            TCP(sport=port, dport=80, flags="S", seq=1), 0.001)
            out = case.run()
        port = next(p for p, f in zip(ports, out) if f[family.ip].dst == family.backend(number))
        self.first = port + 1
        return port


def mss_of(frame):
    return dict(frame[TCP].options)["MSS"]


def ptb(family, frame, mtu):
    """What a router before the client says of a frame that left for it."""
    quoted = Raw(bytes(frame[family.ip])[:100])
    if family.ip is IP:
        return IP(src="198.18.1.1", dst=family.vip) / ICMP(type=3, code=4, nexthopmtu=mtu) / quoted
    return IPv6(src="2001:db8:1::1", dst=family.vip) / ICMPv6PacketTooBig(mtu=mtu) / quoted


def path_acts(case, family, clients):
    """SYN and SYN-ACK are clamped to a link, then to what a router said; one that says too little is held back."""
    headers = 40 if family.ip is IP else 60
    flow = TcpFlow(case, family.of(clients[0]), 40000)
    full, link, path = [("MSS", 1500 - headers)], 1480 - headers, 1400 - headers
    assert mss_of(flow.client("S", 1000, options=full)[0]) == link
    assert mss_of(flow.server("SA", 5000, 1001, options=full)[0]) == link
    flow.client("A", 1001, 5001)
    (big,) = flow.server("A", 5001, 1001, b"x" * 1400)
    (error,) = case.up(ptb(family, big, 1400))
    assert error.src == LAN and error[family.ip].dst == flow.backend, error.summary()
    flow.server("A", 5001, 1001, b"x" * 1300)
    flow.client("A", 1001, 6301)
    flow.client("R", 1001)
    flow = TcpFlow(case, family.of(clients[0]), 40001)
    fits_the_link = [("MSS", 1400)]
    assert mss_of(flow.client("S", 1000, options=fits_the_link, after=0.2)[0]) == path
    assert mss_of(flow.server("SA", 5000, 1001, options=fits_the_link)[0]) == path
    flow.client("A", 1001, 5001)
    flow.client("R", 1001)
    # So much was acknowledged in so few packets that larger ones than 1280 have passed.
    flow = TcpFlow(case, family.of(clients[1]), 40002)
    flow.open()
    for i in range(16):
        flow.server("A", 5001 + 1420 * i, 1001, b"x" * 1420)
    at = 5001 + 1420 * 16
    flow.client("A", 1001, at)
    (big,) = flow.server("A", at, 1001, b"x" * 1420)
    case.up(ptb(family, big, 1280), expect=0)
    (big,) = flow.server("A", at, 1001, b"x" * 1420, after=0.3)
    (error,) = case.up(ptb(family, big, 1280))
    assert error.src == LAN and error[family.ip].dst == flow.backend, error.summary()
    flow.client("R", 1001)


def are_probes(family, frames, flow):
    up, down = sorted(frames, key=lambda f: f.src, reverse=True)
    assert (up.src, down.src) == (LAN, WAN) and up[family.ip].dst == flow.backend, frames
    assert all(f[TCP].flags == "A" and not f[TCP].payload for f in frames), frames


def are_resets(frames):
    assert sorted(f.src for f in frames) == [WAN, LAN] and all(f[TCP].flags == "RA" for f in frames), frames


def silence_acts(case, family, clients):
    """One idles, and its ends answer; those of another are gone with data under way. A RST and a SYN are forged."""
    idle, stuck = TcpFlow(case, family.of(clients[0]), 40003), TcpFlow(case, family.of(clients[1]), 40004)
    stuck.open()
    stuck.client("PA", 1001, 5001, b"lost")
    idle.open()
    idle.client("PA", 1001, 5001, b"ping")
    idle.server("PA", 5001, 1005, b"pong")
    idle.client("A", 1005, 5005)
    idle.server("R", 9999999, expect=0)
    (ack,) = idle.client("S", 99)
    assert ack.src == WAN and (ack[TCP].flags, ack[TCP].seq, ack[TCP].ack) == ("A", 5005, 1005), ack.summary()
    are_probes(family, case.wait(22.3, expect=2), idle)
    idle.client("A", 1005, 5005, expect=0)
    idle.server("A", 5005, 1005, expect=0)
    are_probes(family, case.wait(9.7, expect=2), stuck)
    frames = case.wait(12.6, expect=4)
    for flow in idle, stuck:
        are_probes(family, [f for f in frames if flow.snat_port == f[TCP].sport or flow.sport == f[TCP].dport], flow)
    idle.client("A", 1005, 5005, expect=0)
    idle.server("PA", 5005, 1005, b"more")
    are_probes(family, case.wait(7, expect=2), stuck)
    are_resets(case.wait(10, expect=2))
    stuck.client("R", 1005, expect=0)
    idle.client("R", 1005)


def is_syn_of_ours(family, frame, number):
    assert frame.src == LAN and frame[TCP].flags == "S", frame.summary()
    assert (frame[family.ip].src, frame[family.ip].dst) == (family.snat, family.backend(number)), frame.summary()


def wall_opens(case, family, choices):
    """The first backend refuses, and is silent once: all goes to the second one, and so does a flow that waits."""
    def attempt(number=1):
        flow = Attempt(case, family, choices.of(number, family.client))
        flow.syn(after=0.2)
        return flow

    case.wait(2, expect=0)
    refused = attempt()
    refused.moves(refused.refused()[0], 2)
    refused.answered()
    silent = attempt()
    late = family.ip(src=silent.backend, dst=family.snat) / TCP(
        sport=8080, dport=silent.snat_port, flags="RA", ack=silent.isn + 1)
    silent.moves(case.wait(1.2)[0], 2)
    case.down(late, expect=0)
    silent.answered()
    for _ in range(2):
        refused = attempt()
        refused.moves(refused.refused()[0], 2)
        refused.gives_up()
    waiting, refused = attempt(), attempt()
    moved, given_away = refused.refused(expect=2)
    refused.moves(moved, 2)
    waiting.moves(given_away, 2)
    (probe,) = case.wait(0.05)
    is_syn_of_ours(family, probe, 1)
    case.down(family.ip(src=family.backend(1), dst=family.snat) /
              TCP(sport=8080, dport=probe[TCP].sport, flags="RA", ack=probe[TCP].seq + 1), expect=0)
    refused.gives_up()
    waiting.gives_up()
    diverted = attempt()
    assert diverted.backend == family.backend(2)
    diverted.answered()


def all_open(case, family, choices):
    """The second backend falls silent, too: then one flow a second as a last resort, and RSTs for the others."""
    case.wait(1.5, expect=0)
    for _ in range(5):
        Attempt(case, family, choices.of(2, family.client)).syn(after=0.15)
    (probe,) = case.wait(1.3)
    is_syn_of_ours(family, probe, 2)
    last = Attempt(case, family, choices.of(2, family.client))
    last.syn(after=0.15)
    assert last.backend == family.backend(1)
    last.answered()
    # Twice a second its client hears of it, and no more often.
    (rst,) = Attempt(case, family, choices.of(1, family.client)).syn(after=0.15)
    assert rst.src == WAN and rst[TCP].flags == "RA", rst.summary()
    Attempt(case, family, choices.of(1, family.client)).syn(after=0.15, expect=0)


def storm_acts(case, family, choices, clients, n_admitted):
    """
    Attempts of these clients in turn, faster than a cap lets them through (10/s): some at once, two held, one refused,
    and the same client's next one silently. Of the next two one is held, for what was released has had its tokens.
    Their hops are few: that makes nobody's silence count against a backend, for in shadow those that are refused have
    flows that no answer of the script fits.
    """
    def attempt(client, **kw):
        flow = Attempt(case, family.of(client), choices.of(2, client), hops=10)
        return flow, flow.syn(**kw)

    clients = iter(clients)
    case.wait(1, expect=0)
    for _ in range(n_admitted):
        flow, _ = attempt(next(clients))
        assert flow.backend == family.backend(2)
    first, _ = attempt(next(clients), expect=0)
    second, _ = attempt(next(clients), expect=0)
    first.syn(expect=0)
    client = next(clients)
    _, (rst,) = attempt(client)
    assert rst.src == WAN and rst[TCP].flags == "RA", rst.summary()
    attempt(client, expect=0)
    released = case.wait(0.24, expect=2)
    first.moves(released[0], 2)
    second.moves(released[1], 2)
    attempt(next(clients), after=0.08)
    third, _ = attempt(next(clients), expect=0)
    third.moves(case.wait(0.11)[0], 2)
    third.answered()


def modes(case, family):
    """Every cure acts, and what shadow counts is what enforce did."""
    v4 = family.ip is IP

    def client(net, subnet=0, host=7):
        if v4:
            return f"198.19.{net}.{subnet + host}"
        return ipaddress.ip_address(f"2001:db8:{0x1000 + net:x}:{subnet:x}::{host:x}").compressed

    choices = Choices(case.replay, family)
    path_acts(case, family, [client(0, host=7), client(0, host=8)])
    silence_acts(case, family, [client(1), client(2)])
    wall_opens(case, family.of(client(3)), choices)
    storm_acts(case, family, choices, [client(4)] * 7, 2)
    # UDP is never held, nor refused aloud.
    case.wait(0.5, expect=0)
    for i in range(4):
        case.up(family.ip(src=client(4), dst=family.vip) / UDP(sport=40010 + i, dport=53) / Raw(b"query"),
                expect=1 if i < 2 else 0)
    storm_acts(case, family, choices, [client(5, subnet=i) for i in range(9)], 4)
    storm_acts(case, family, choices, [client(i) for i in range(10, 21)], 6)
    all_open(case, family.of(client(3)), choices)
    case.finish({
        "resteer": 6, "divert": 1, "last_resort": 1, "refuse_open": 2, "probe": 2,
        "keepalive": 10, "rst_peer_dead": 1, "refuse_rst": 1, "challenge": 1, "clamp": 4, "hold_ptb": 1,
        "hold_client": 3, "hold_prefix": 3, "hold_service": 3,
        "refuse_client": 1, "refuse_prefix": 1, "refuse_service": 1,
        "silence_client": 3, "silence_prefix": 1, "silence_service": 1,
    })


def modes_idle(case, family):
    """Where nobody is asked, a connection that idles too long ends, and both ends hear of it."""
    flow = TcpFlow(case, family)
    flow.open()
    flow.client("PA", 1001, 5001, b"ping")
    flow.server("PA", 5001, 1005, b"pong")
    flow.client("A", 1005, 5005)
    are_resets(case.wait(30.2, expect=2))
    (frame,) = flow.client("PA", 1005, 5005, b"still there?")
    assert frame.src == WAN and frame[TCP].flags == "R" and frame[TCP].seq == 5005, frame.summary()
    case.finish({"rst_idle": 1})


def modes_dead(case, family):
    """
    The backend answers no probe. Shadow asks nobody and cannot know: it takes both ends for alive, counts the next
    round in its time, and no end.
    """
    flow = TcpFlow(case, family)
    flow.open()
    flow.server("PA", 5001, 1001, b"hello")
    flow.client("A", 1001, 5006)
    are_probes(family, case.wait(22.3, expect=2), flow)
    flow.client("A", 1001, 5006, expect=0)
    ends = case.wait(30, expect=4)
    assert all(f.src == LAN and f[TCP].flags == "A" for f in ends[:2]), ends
    are_resets(ends[2:])
    case.wait(15, expect=0)
    case.finish({"keepalive": 4, "rst_peer_dead": 1}, shadow={"keepalive": 6})


def modes_again(case, family):
    """
    Refused, clients send the same SYN again. Enforced, that is another attempt each time; in shadow it belongs to the
    flow that the first one made, which gets no answer here, so that the wall would give it to another backend.
    """
    flow = Attempt(case, family, 40000)
    flow.syn()
    flow.answered()
    aloud, silently = Attempt(case, family, 40001), Attempt(case, family, 40002)
    (rst,) = aloud.syn()
    assert rst.src == WAN and rst[TCP].flags == "RA", rst.summary()
    silently.syn(expect=0)
    silently.syn(after=0.2, expect=0)
    (rst,) = silently.syn(after=0.4)
    assert rst.src == WAN and rst[TCP].flags == "RA", rst.summary()
    case.wait(0.7, expect=0)
    case.finish({"refuse_client": 2, "silence_client": 2},
                shadow={"refuse_client": 1, "silence_client": 1, "resteer": 2})


# A flow that one mode has earlier or elsewhere than another would have other numbers there, and frames be its alone.
UNTRANSLATED = {"untranslated": 1}

CASES = {
    "tcp": (tcp, None),
    "tcp_options": (tcp_options, None),
    "tcp_rst": (tcp_rst, None),
    "tcp_stray": (tcp_stray, None),
    "ttl_exceeded": (ttl_exceeded, None),
    "udp": (udp, None),
    "refused": (refused, {"backends": 0}),
    "echo": (echo, None),
    "too_big": (too_big, {"lan_mtu": 1400}),
    "modes": (modes, {
        **UNTRANSLATED,
        "backends": 2, "lan_mtu": 1480, "probe_ms": 20000, "unacked_ms": 30000, "hold_ms": 250, "holds": 4,
        "client_rate": 10, "client_burst": 1, "prefix_rate": 10, "prefix_burst": 3, "service_rate": 10,
        "service_burst": 5}),
    "modes_idle": (modes_idle, {**UNTRANSLATED, "probe_ms": 0, "idle_ms": 30000}),
    "modes_dead": (modes_dead, {**UNTRANSLATED, "probe_ms": 20000}),
    "modes_again": (modes_again, {**UNTRANSLATED, "client_rate": 1}),
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
