# SPDX-License-Identifier: BSD-3-Clause
"""Requests, transfers and what they look like on the wire."""

import hashlib
import json
import os
import subprocess

import pytest
from gateways import BULK_PORT, Spillway
from netns import eventually
from servers import listens
from tools import Load, both_sides, settled
from topology import UPSTREAMS, VIP, bracketed

REQUESTS = 10_000
STREAM_PAUSE_S = 4
# To what was sent twice: the RST of a closed port has the number of the older copy, which its receiver is past.
AFTERTHOUGHTS = ("drop_stray_rst", "drop_rst_window", "shed_stray_limit")
FILE_BYTES = 100 * 1000 * 1000


def assert_clean(wire, at_least):
    seen = settled(wire)
    assert seen["missed"] == 0, "the checker itself lost packets"
    assert seen["packets"] >= at_least
    assert seen["bad"] == 0 and seen["truncated"] == 0, seen["examples"]
    return seen


def assert_ledger(sample):
    """Every packet has a name: of each worker, and in both directions."""
    for row in (*sample["workers"], sample["sum"]):
        assert row["balance"] == 0 and row["tx_balance"] == 0, row
    assert sample["balance"] == 0


def test_requests(lab, gateway, family):
    """Each request a connection of its own, from 20 addresses, over 3 backends out of DNS."""
    watched = isinstance(gateway, Spillway)
    wan, lan = both_sides(lab)
    with wan, lan:
        load = Load(lab, family, requests=REQUESTS, concurrency=64)
        samples = 0
        while load.running():
            if watched:
                assert_ledger(gateway.ledger())
                samples += 1
        result = load.wait()
        assert_clean(wan, REQUESTS * 8)
        assert_clean(lan, REQUESTS * 8)
    assert result["failed"] == 0, result
    assert result["ok"] == REQUESTS
    assert result["sources_ok"] == 20
    assert set(result["backends"]) == set(UPSTREAMS)
    share = REQUESTS / len(UPSTREAMS)
    for name, answers in result["backends"].items():
        assert abs(answers - share) <= share / 4, f"{name}: {answers} of {REQUESTS}"
    if watched:
        assert samples >= 5
        last = gateway.ledger()
        assert_ledger(last)
        assert last["in_rings"] == 0
        # A busy machine makes clients send again and close in two ways; what they sent was not lost here.
        lost = {k: n for k, n in last["reasons"].items() if k.startswith(("drop_", "shed_")) and k not in AFTERTHOUGHTS}
        assert not any(lost.values()) and not any(last["lost"].values()), (lost, last["lost"])
        assert (last["sum"]["handed_over"] > 0) == (lab.n_queues > 1)


@pytest.fixture(scope="module")
def big_file(lab):
    """(path on the upstreams, SHA-256) of a file of random bytes."""
    path = os.path.join(lab.files, "big")
    digest = hashlib.sha256()
    with open(path, "wb") as f:
        for _ in range(100):
            block = os.urandom(FILE_BYTES // 100)
            digest.update(block)
            f.write(block)
    return path, digest.hexdigest()


def sha256_of(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def curl(lab, *argv):
    return lab.client.run("curl", "-sS", "--fail", "--globoff", "--max-time", "60", *argv, timeout=70)


def test_transfer(lab, gateway, family, big_file):
    """100 MB down and up arrive as they left, and no packet of them is bad."""
    path, digest = big_file
    url = f"http://{bracketed(VIP[family])}"
    down = lab.path("down")
    wan, lan = both_sides(lab)
    with wan, lan:
        curl(lab, "-o", down, f"{url}/big")
        curl(lab, "-T", path, f"{url}/upload/big")
        for wire in (wan, lan):
            assert assert_clean(wire, 2 * FILE_BYTES // 1460)["longest"] <= 1514
    assert sha256_of(down) == digest
    os.unlink(down)
    uploads = [lab.path(f"{up}/upload/big") for up in UPSTREAMS]
    uploads = [u for u in uploads if os.path.exists(u)]
    assert [sha256_of(u) for u in uploads] == [digest]
    os.unlink(uploads[0])


@pytest.mark.costly
def test_stream(lab, spillway, family):
    """iperf3 in both directions at once for ten seconds; neither stops for long."""
    server = lab.children.spawn(lab.up1, "iperf3", "-s", "-p", str(BULK_PORT), stdout=subprocess.DEVNULL)
    try:
        eventually(lambda: listens(lab.up1, BULK_PORT), 5, "iperf3 server")
        argv = ["iperf3", "-c", VIP[family], "-p", str(BULK_PORT), "-t", "10", "-J", "--bidir"]
        done = lab.client.run(*argv, check=False, timeout=40)
    finally:
        lab.children.end(server)
    report = json.loads(done.stdout)
    assert done.returncode == 0 and "error" not in report, report.get("error")
    assert len(report["intervals"]) >= 10
    for way in ("sum", "sum_bidir_reverse"):
        sent = [interval[way]["bytes"] for interval in report["intervals"]]
        # A busy machine may let one of them wait for a second or two.
        assert all(any(sent[i : i + STREAM_PAUSE_S]) for i in range(len(sent) - STREAM_PAUSE_S + 1)), (way, sent)
