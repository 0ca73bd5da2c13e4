# SPDX-License-Identifier: BSD-3-Clause
"""What passed an interface, segment by segment: by tcpdump, read when it has ended."""

import collections
import os
import signal
import socket
import struct
import subprocess
import time

from netns import LabError

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


class Capture:
    """A context manager; `segments` is there after it. What it missed raises."""

    def __init__(self, lab, ns, device, pcap_filter):
        self._lab, self._file = lab, lab.path(f"{ns.role}-{device}.pcap")
        argv = ["tcpdump", "-i", device, "-n", "-s", "128", "-B", "65536", "-U", "--immediate-mode", "-Z", "root"]
        argv += ["-w", self._file]
        self._child = lab.children.spawn(ns, *argv, pcap_filter, stderr=subprocess.PIPE, text=True)
        line = self._child.stderr.readline()
        if "listening on" not in line:
            raise LabError(f"tcpdump: {line}")
        self.segments = None

    def __enter__(self):
        return self

    def _settle(self):
        """What passed last may still be on its way to the file."""
        size = -1
        while size != (size := os.path.getsize(self._file)):
            time.sleep(0.1)

    def __exit__(self, *exc):
        self._settle()
        self._child.send_signal(signal.SIGINT)
        said = self._child.stderr.read()
        self._lab.children.end(self._child)
        self.segments = _read_file(self._file)
        if not exc[0] and "\n0 packets dropped by kernel" not in said:
            raise LabError(f"tcpdump: {said}")


def between_clients(lab, flags=RST | SYN | FIN | ACK):
    """Of the gateway's link towards the clients: segments of the VIPs with one of these flags."""
    return Capture(lab, lab.wan, "gw", _filter(("198.18.100.1", "2001:db8:100::1"), flags))


def between_upstreams(lab, flags=RST | SYN | FIN | ACK):
    """Of the gateway's link towards the upstreams."""
    return Capture(lab, lab.lan, "gw", _filter(("198.18.101.10", "2001:db8:101::10"), flags))


def _filter(hosts, flags):
    v4, v6 = hosts
    return f"(host {v4} and tcp[13] & {flags} != 0) or (host {v6} and ip6 proto 6 and ip6[53] & {flags} != 0)"
