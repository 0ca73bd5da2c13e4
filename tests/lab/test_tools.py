# SPDX-License-Identifier: BSD-3-Clause
"""The lab's own tools notice what they are there to notice."""

import json
import subprocess

import pytest
from servers import Echo
from tools import Load, tool
from topology import VIP

scapy = pytest.importorskip("scapy.all")


def checked(tmp_path, *packets):
    path = str(tmp_path / "packets.pcap")
    scapy.wrpcap(path, list(packets))
    done = subprocess.run([tool("wirecheck"), "-r", path], text=True, capture_output=True, check=True, timeout=10)
    return json.loads(done.stdout)


def frame(version, layer):
    ip = {4: scapy.IP(src="198.18.0.1", dst="198.18.0.2"), 6: scapy.IPv6(src="2001:db8::1", dst="2001:db8::2")}[version]
    return scapy.Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / ip / layer


def test_wirecheck_finds_bad_checksums(tmp_path, family):
    good = [frame(family, layer / b"odd") for layer in (scapy.TCP(flags="A"), scapy.UDP())]
    seen = checked(tmp_path, *good)
    assert (seen["packets"], seen["bad"], seen["rst"]) == (2, 0, 0)
    bad = [frame(family, layer / b"odd") for layer in (scapy.TCP(flags="R", chksum=1), scapy.UDP(chksum=1))]
    seen = checked(tmp_path, *good, *bad)
    assert (seen["packets"], seen["bad"], seen["rst"]) == (4, 2, 1)


def test_wirecheck_finds_a_bad_header(tmp_path):
    packet = frame(4, scapy.UDP() / b"x")
    packet[scapy.IP].chksum = 1
    assert checked(tmp_path, packet)["bad"] == 1


def test_httpload_counts_failures(lab, family):
    """Nobody listens on the VIP, and an echo service is no HTTP server."""
    result = Load(lab, family, requests=20, timeout_ms=1000).wait()
    assert (result["ok"], result["failures"]["refused"]) == (0, 20)
    echo = Echo(lab.gw, [VIP[family]], 80)
    try:
        result = Load(lab, family, requests=20, timeout_ms=300).wait()
    finally:
        echo.close()
    assert (result["ok"], result["failed"]) == (0, 20)
