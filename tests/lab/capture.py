# SPDX-License-Identifier: BSD-3-Clause
"""What passed an interface, segment by segment: by tcpdump, read when it has ended."""

import collections
import os
import signal
import socket
import struct
import subprocess

from netns import LabError, eventually
from topology import GW_LAN, GW_WAN

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
ETHER = 14

# `at`: seconds of the host's clock, as time.time(); addresses as text, numbers as they stood on the wire.
Segment = collections.namedtuple("Segment", "at src sport dst dport flags seq ack payload")


def _read_segment(at, frame, length):
    """None: no TCP, or behind headers that hosts do not send here."""
    version = frame[ETHER] >> 4
    if version == 4:
        header, total = (frame[ETHER] & 15) * 4, struct.unpack_from("!H", frame, ETHER + 2)[0]
        proto, family, size = frame[ETHER + 9], socket.AF_INET, 4
        src = ETHER + 12
    else:
        header, total = 40, 40 + struct.unpack_from("!H", frame, ETHER + 4)[0]
        proto, family, size = frame[ETHER + 6], socket.AF_INET6, 16
        src = ETHER + 8
    if proto != socket.IPPROTO_TCP or ETHER + total > length:
        return None
    tcp = ETHER + header
    sport, dport, seq, ack, offset, flags = struct.unpack_from("!HHIIBB", frame, tcp)
    addresses = [socket.inet_ntop(family, frame[i : i + size]) for i in (src, src + size)]
    return Segment(at, addresses[0], sport, addresses[1], dport, flags, seq, ack, total - header - (offset >> 4) * 4)


def _read_file(path):
    """Little endian, microseconds: what tcpdump writes here."""
    segments = []
    with open(path, "rb") as f:
        magic = f.read(24)[:4]
        if magic != b"\xd4\xc3\xb2\xa1":
            raise LabError(f"{path}: a capture that begins with {magic!r}")
        while record := f.read(16):
            seconds, us, captured, length = struct.unpack("<IIII", record)
            segment = _read_segment(seconds + us / 1e6, f.read(captured), length)
            if segment:
                segments.append(segment)
    return segments


PEER = {"wan": GW_WAN[4], "lan": GW_LAN[4]}
DISCARD = 9  # RFC 863


class Capture:
    """Of a router's link to the gateway. A context manager; `segments` is there after it. What it missed raises."""

    def __init__(self, lab, ns, pcap_filter):
        self._lab, self._ns, self._file = lab, ns, lab.path(f"{ns.role}.pcap")
        argv = ["tcpdump", "-i", "gw", "-n", "-s", "128", "-B", "65536", "-U", "--immediate-mode", "-Z", "root"]
        argv += ["-w", self._file, f"({pcap_filter}) or udp dst port {DISCARD}"]
        self._child = lab.children.spawn(ns, *argv, stderr=subprocess.PIPE, text=True)
        line = self._child.stderr.readline()
        if "listening on" not in line:
            raise LabError(f"tcpdump: {line}")
        self.segments = None

    def __enter__(self):
        return self

    def _has(self, mark, offset):
        with open(self._file, "rb") as f:
            f.seek(offset)
            return mark in f.read()

    def _settle(self):
        """What passed until now is in the file when what passes now is."""
        mark, offset = os.urandom(16), os.path.getsize(self._file)
        with self._ns.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.sendto(mark, (PEER[self._ns.role], DISCARD))
        eventually(lambda: self._has(mark, offset), 10, "all that passed is in the file")

    def _end(self):
        """What it said at last."""
        self._child.send_signal(signal.SIGINT)
        said = self._child.stderr.read()
        self._lab.children.end(self._child)
        return said

    def __exit__(self, *exc):
        try:
            self._settle()
        finally:
            said = self._end()
        self.segments = _read_file(self._file)
        if not exc[0] and "\n0 packets dropped by kernel" not in said:
            raise LabError(f"tcpdump: {said}")


def between_clients(lab, flags=RST | SYN | FIN | ACK):
    """Of the gateway's link towards the clients: segments of the VIPs with one of these flags."""
    return Capture(lab, lab.wan, _filter(("198.18.100.1", "2001:db8:100::1"), flags))


def between_upstreams(lab, flags=RST | SYN | FIN | ACK):
    """Of the gateway's link towards the upstreams."""
    return Capture(lab, lab.lan, _filter(("198.18.101.10", "2001:db8:101::10"), flags))


def _filter(hosts, flags):
    v4, v6 = hosts
    return f"(host {v4} and tcp[13] & {flags} != 0) or (host {v6} and ip6 proto 6 and ip6[53] & {flags} != 0)"
