# SPDX-License-Identifier: BSD-3-Clause
"""The lab's own tools notice what they are there to notice."""

import contextlib
import json
import socket
import subprocess
import threading

import pytest
from netns import eventually
from servers import Echo, SlowUpstream
from tools import Load, tool
from topology import VIP

SLOW_PORT = 9000

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


@contextlib.contextmanager
def answering(ns, address, answer):
    """A server that answers every connection with these bytes."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with ns.entered():
        listener = socket.create_server((address, 80), family=family)

    def serve():
        with contextlib.suppress(OSError):
            while True:
                conn, _ = listener.accept()
                with conn:
                    conn.recv(4096)
                    conn.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def test_httpload_finds_a_cut_answer(lab, family):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    for length, kind in ((3, "ok"), (4, "failed")):
        with answering(lab.gw, VIP[family], head % length + b"up\n"):
            result = Load(lab, family, requests=10).wait()
        assert result[kind] == 10, result


def test_httpload_retries(lab, family):
    """Each request is made once and three times again; it fails once."""
    result = Load(lab, family, requests=10, retries=3).wait()
    assert (result["started"], result["attempts"], result["failures"]["refused"]) == (10, 40, 10)


def slow_server(lab, **options):
    """On the gateway's own host: the clients have no way beyond it without a gateway."""
    return contextlib.closing(SlowUpstream(lab, "gw", SLOW_PORT, work_ms=1, **options))


def test_httpload_phases(lab):
    """A request belongs to the phase in which it began; progress and result say the same."""
    with slow_server(lab), Load(lab, (4, 6), port=SLOW_PORT, rate=200, report_ms=50) as load:
        load.watch(0.5)
        load.mark()
        load.watch(1)
        result = load.finish()
    first, second = result["phases"]
    last = load.samples[-1]
    assert first["ok"] >= 50 and second["ok"] >= 100 and result["sources_ok"] == 40
    assert first["ok"] + second["ok"] == result["ok"] == last.ok == last.backends["gw"]
    assert result["failed"] == last.failed == last.hanging == 0


def test_slow_upstream(lab, family):
    """It does the work of clients that have left, and says so."""
    with slow_server(lab, workers=2) as upstream:
        options = {"port": SLOW_PORT, "concurrency": 8, "timeout_ms": 300}
        assert Load(lab, family, requests=20, **options).wait()["backends"] == {"gw": 20}
        upstream.stall()
        assert Load(lab, family, requests=8, **options).wait()["failures"]["timeout"] == 8
        assert upstream.snapshot() == {"answered": 20, "abandoned": 0, "no_request": 0}
        upstream.go_on()
        eventually(lambda: upstream.snapshot()["answered"] == 28, 5, "the rest is done")
        assert upstream.snapshot()["abandoned"] == 8
