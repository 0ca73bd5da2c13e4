# SPDX-License-Identifier: BSD-3-Clause
"""Idle connections: kept alive through a firewall that forgets, and ended aloud when a peer is gone."""

import errno
import select
import time

import pytest
from connections import (
    HANGS_S,
    PEER_DEAD_S,
    idle,
    server_sockets,
    settled,
    streams,
)
from faults import forgetful_firewall, nft
from netns import eventually


def outlive(lab, gateway, per_family, forget_s, probe_s, idle_s):
    with forgetful_firewall(lab.lan, forget_s) as forgotten, streams(lab, per_family) as all_streams:
        eventually(lambda: settled(lab, len(all_streams)), 3, "all bytes acknowledged")
        before = server_sockets(lab)
        idle(idle_s)
        after = server_sockets(lab)
        ledger = gateway.ledger()
        rounds = int(idle_s / (1.1 * probe_s + 0.2))
        asked = ledger["actions"]["keepalive"]
        assert asked >= 2 * rounds * len(all_streams), ledger["actions"]
        # Most answers are nothing else, and end here; one that opens its window is passed on.
        assert ledger["reasons"]["absorb_probe_answer"] >= asked * 0.9
        assert ledger["actions"]["rst_peer_dead"] == 0
        # The kernel saw segments, and none with data in it; none was sent twice.
        segments = [sum(int(row["segs_in"]) for row in rows) for rows in (before, after)]
        assert segments[1] - segments[0] >= asked * 0.4
        for key in ("data_segs_in", "data_segs_out", "bytes_received", "bytes_acked", "retrans"):
            assert [row.get(key) for row in after] == [row.get(key) for row in before], key
        assert max(float(row["rtt"].split("/")[0]) for row in after) < 100
        for stream in all_streams:
            stream.send()
        for stream in all_streams:
            stream.receive()
        assert forgotten() == 0
    survived = [gateway.backend(f)["idle_survived_s"] for f in (4, 6)]
    assert all(0.9 * probe_s <= s <= 1.1 * probe_s for s in survived), survived
    assert [gateway.backend(f)["idle_lost_s"] for f in (4, 6)] == [None, None]
    return asked


@pytest.mark.costly
def test_outlives_the_firewall(lab, tuned, server):
    """Idle for longer than the firewall remembers, and the next byte passes."""
    outlive(lab, tuned("enforce", "idle: {probe: 1s}"), 25, forget_s=3, probe_s=1, idle_s=7)


@pytest.mark.long
def test_outlives_the_firewall_for_long(lab, tuned, server):
    outlive(lab, tuned("enforce", "idle: {probe: 3s}"), 50, forget_s=6, probe_s=3, idle_s=20)


@pytest.mark.costly
@pytest.mark.parametrize("mode", ["off", "shadow"])
def test_hangs_without(lab, tuned, server, mode):
    """The same without the cure: the next byte goes nowhere, and nobody says so. Shadow says what it would do."""
    gateway = tuned(mode, "idle: {probe: 1s}")
    with forgetful_firewall(lab.lan, 2) as forgotten, streams(lab, 10) as all_streams:
        idle(3)
        for stream in all_streams:
            stream.send(1)
        time.sleep(HANGS_S)
        assert not select.select([s.socket for s in all_streams], [], [], 0)[0]
        assert forgotten() > 0
        ledger = gateway.ledger()
    # But for the wall, which sees a backend that is silent to what all its clients send.
    assert ledger["sum"]["made"] == ledger["made"]["syn_probe"]
    assert (ledger["actions"]["would_keepalive"] >= 2 * len(all_streams)) == (mode == "shadow")
    assert ledger["reasons"]["absorb_probe_answer"] == 0


@pytest.mark.costly
def test_reset_with_data_under_way(lab, tuned, server):
    """
    Data goes missing before the backend until the connection counts as idle. The RST to the backend comes from behind
    that data; its kernel asks back, and is answered with the number that it does expect.
    """
    gateway = tuned("enforce", "idle: {tcp: 1s, probe: off}")
    lossy = "chain forward { type filter hook forward priority filter; oifname br0 meta length > 200 drop; }"
    with streams(lab, 5) as all_streams, nft(lab.lan, lossy):
        for stream in all_streams:
            stream.send(1000)
        # Its own timer doubles: 0.2 s, 0.4 s … until two packets of it are more than a second apart.
        ends = {stream.error(6) for stream in all_streams}
        assert ends == {errno.ECONNRESET}
        eventually(lambda: len(server.ends) == len(all_streams), 2, "the backend's ends")
    assert set(server.ends) == {errno.ECONNRESET}
    ledger = gateway.ledger()
    assert ledger["actions"]["rst_idle"] == len(all_streams)
    assert ledger["reasons"]["answer_reset_again"] >= len(all_streams)


@pytest.mark.long
def test_the_idle_time_that_a_path_loses(lab, tuned, server):
    """
    Asked too late: the firewall has forgotten the connection. The client hears of it instead of hanging, and as the
    backend serves others all the while, its path is to blame, with the idle time that it does not survive.
    """
    gateway = tuned("enforce", "idle: {probe: 5s}")
    with forgetful_firewall(lab.lan, 3), streams(lab, 5) as all_streams:
        begin = time.monotonic()
        pending = list(all_streams)
        while pending:
            assert time.monotonic() - begin < 1.1 * 5 + PEER_DEAD_S + 1
            with streams(lab, 1):
                pass
            ready = select.select([s.socket for s in pending], [], [], 0.5)[0]
            for stream in [s for s in pending if s.socket in ready]:
                assert stream.error(0) == errno.ECONNRESET
                pending.remove(stream)
        assert time.monotonic() - begin > 0.9 * 5 + 30 - 1
    for family in (4, 6):
        row = gateway.backend(family)
        assert 4.5 <= row["idle_lost_s"] <= 5.5, row
        assert (row["silent_clients"], row["silent_backends"]) == (0, 5)
