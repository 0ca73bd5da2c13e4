# SPDX-License-Identifier: BSD-3-Clause
"""Links with a smaller MTU: what routers say is learned, and new connections are clamped to it."""

import ipaddress
import random
import socket

import pytest
from netns import eventually
from paths import (
    Syns,
    download,
    download_over_small_egress,
    forget_paths,
    forged_ptb,
    full_mss,
    icmp_socket,
    small_link,
    upload,
)
from topology import CLIENTS, UPSTREAMS, VIP

FORGED = 10_000
FORGED_AT_ONCE = 500


def paths(gateway):
    return gateway.ctl("paths")["paths"]


def ptbs(gateway):
    return {result: n for result, n in gateway.ledger()["ptb"].items() if n}


def learned(gateway, address):
    """Waits until the gateway knows a path MTU of the address, and returns its row."""
    return eventually(lambda: gateway.ctl("paths", address)["paths"], 2, f"{address} learned")[0]


def assert_balanced(gateway):
    ledger = gateway.ledger()
    assert ledger["balance"] == 0 and ledger["sum"]["tx_balance"] == 0, ledger


def test_small_client_link(lab, spillway, family):
    """A router before one client says what fits: the download goes on, and that client's next connection is clamped."""
    client = CLIENTS[family][0]
    with Syns(lab.lan, "gw") as syns, small_link(lab, lab.wan, "client", [client], 1400):
        assert download(lab, family) <= 2
        row = learned(spillway, client)
        assert (row["mtu"], row["side"], row["source"]) == (1400, "client", "ptb")
        assert download(lab, family) <= 2
        assert download(lab, family, client=1) <= 2
        assert syns.mss == [full_mss(family), full_mss(family, 1400), full_mss(family)]
    assert len(paths(spillway)) == 1
    assert spillway.output().count(f"path_mtu_learned: {row['address']}: at most 1400 bytes") == 1
    assert_balanced(spillway)


def test_small_upstream_link(lab, spillway, family):
    """The same on the other side: the client hears of it, and whoever connects to that backend next is clamped."""
    backends = [str(ipaddress.ip_address(up[family])) for up in UPSTREAMS.values()]
    with Syns(lab.lan, "gw") as syns, small_link(lab, lab.lan, "br0", backends, 1300):
        while len(syns.mss) < 60 and len(paths(spillway)) < len(backends):
            assert upload(lab, family) <= 2
            forget_paths(lab)  # as if the next client were another host
        assert sorted(p["address"] for p in paths(spillway)) == sorted(backends)
        assert all((p["mtu"], p["side"]) == (1300, "upstream") for p in paths(spillway))
        assert syns.mss[0] == full_mss(family)
        assert upload(lab, family, client=1) <= 2
        assert syns.mss[-1] == full_mss(family, 1300)
    assert_balanced(spillway)


@pytest.mark.costly
def test_small_egress(lab, spillway, family):
    """The gateway's own link is the small one, and nobody hears its ICMP: the clamp is what helps."""
    assert download_over_small_egress(lab, family) <= 2
    assert spillway.ledger()["actions"]["clamp"] > 0
    for mode in ("shadow", "off"):
        spillway.ctl("cure", "path", mode)
        assert download_over_small_egress(lab, family) is None, f"it did not hang with path: {mode}"
    assert spillway.ledger()["actions"]["would_clamp"] > 0
    assert_balanced(spillway)


def test_small_egress_before(lab, before, family):
    """Where the kernel's NAT stands in its place, such a download hangs."""
    assert download_over_small_egress(lab, family) is None


def test_forged(lab, spillway, family):
    """Ten thousand that name the right connection and a random number teach nothing, and harm nobody."""
    client, rng = CLIENTS[family][0], random.Random(family)
    with lab.client.entered():
        connection = socket.create_connection((VIP[family], 80), timeout=5, source_address=(client, 0))
    port = connection.getsockname()[1]
    with connection, icmp_socket(lab.wan, family) as forger:
        for sent in range(FORGED_AT_ONCE, FORGED + 1, FORGED_AT_ONCE):
            for _ in range(FORGED_AT_ONCE):
                forger.sendto(forged_ptb(family, client, port, rng.getrandbits(32), 1280), (VIP[family], 0))
            eventually(lambda: ptbs(spillway).get("forged", 0) >= sent, 5, f"{sent} forged ones seen")
        assert ptbs(spillway) == {"forged": FORGED}
        assert spillway.ledger()["reasons"]["drop_icmp_sequence"] == FORGED
        assert paths(spillway) == []
        connection.sendall(b"GET /name HTTP/1.0\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    assert_balanced(spillway)


def test_nothing_stays(lab, spillway, family):
    """After all that, full-sized packets pass again both ways, and nothing is clamped."""
    with Syns(lab.lan, "gw") as syns:
        assert download(lab, family) <= 2
        assert syns.mss == [full_mss(family)]
    assert paths(spillway) == []
