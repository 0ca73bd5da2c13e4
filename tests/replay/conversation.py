# SPDX-License-Identifier: BSD-3-Clause
"""
A case is a conversation. send() adds a frame to in.pcap, lets the replay program run over all of it, and returns what
left since; so a case answers to the ports and addresses that the gateway chose, and checks at once that they are right.
in.pcap and out.pcap are kept in the tree: a change of either is to be looked at, packet by packet.
"""
import os
import subprocess

os.environ.setdefault("XDG_CACHE_HOME", "/tmp")
from scapy.all import ICMP, IP, TCP, UDP, Ether, IPv6, PcapReader, PcapWriter, Raw  # noqa: E402
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
        self.frames, self.events, self.options = [], [], options or {}
        self.translates = "untranslated" not in self.options
        os.makedirs(path, exist_ok=True)

    def event(self, name, value, after=0.001):
        """Something that is not a packet: events[] of replay.c."""
        self.time += after
        self.events.append(f"@{self.time:.9f} {name} {value}\n")

    def verdicts(self):
        """How many packets ended how, until now."""
        if not self.frames:
            return {}
        with open(f"{self.path}/verdicts") as f:
            return {name: int(n) for name, n in (line.split() for line in f)}

    def send(self, frame, after=0.001, expect=1, verdict=None):
        """
        Sends a frame `after` seconds; returns the list of what left, which must be `expect` frames. `verdict`: of one
        packet at least that ended since the last one.
        """
        before = self.verdicts()
        self.record(frame, after)
        out = self.run()
        if verdict:
            new = {name for name, n in self.verdicts().items() if n > before.get(name, 0)}
            assert verdict in new, f"{self.path}: {verdict} expected, got {new}"
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
        settings = [f"{name} {value}\n" for name, value in self.options.items()] + self.events
        if settings:
            with open(f"{self.path}/options", "w") as f:
                f.writelines(settings)
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
    """What scapy computes anew must be what is there; a quoted packet is no layer of these, nor is a fragment."""
    again = Ether(bytes(frame))
    if IP in again and (again[IP].frag or again[IP].flags.MF):
        return
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
