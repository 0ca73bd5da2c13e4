# SPDX-License-Identifier: BSD-3-Clause
"""An upstream dies, by refusing or by falling silent: clients do not notice, and it hears next to nothing."""

import json
import time

import pytest
from netns import eventually
from tools import Load
from topology import BACKEND_PORT, UPSTREAMS, bracketed

DEAD = "up2"
RATE = 200  # new connections per second
WARM_S = 2
DEAD_S = 6
BACK_S = 6  # three probes in a row answered, three responses
PROBES_PER_S = 1.2
CLIENT_RTO_MS = 1000  # before Linux sends a SYN again

WATCH = """
table inet watch {
    counter syns {}
    chain in {
        type filter hook prerouting priority raw;
        tcp dport %d tcp flags & (syn | ack) == syn counter name syns
    }
    chain silence { type filter hook input priority filter; }
}
""" % BACKEND_PORT


class Upstream:
    """The upstream that dies. A context manager: it counts the SYNs that come, and is alive again in the end."""

    def __init__(self, lab):
        self.lab, self.ns, self.nginx = lab, lab.ns[DEAD], lab.nginx[DEAD]

    def __enter__(self):
        self.ns.run("nft", "-f", "-", input=WATCH)
        return self

    def __exit__(self, *exc):
        self.ns.run("nft", "delete table inet watch")
        if self.nginx.child.poll() is not None:
            self.nginx.start()

    def syns(self):
        rows = json.loads(self.ns.run("nft", "-j", "list counter inet watch syns").stdout)["nftables"]
        return next(row["counter"]["packets"] for row in rows if "counter" in row)

    def die(self, how):
        if how == "refuses":
            self.nginx.stop()
        else:
            self.ns.run("nft", f"add rule inet watch silence tcp dport {BACKEND_PORT} drop")

    def come_back(self, how):
        if how == "refuses":
            self.nginx.start()
        else:
            self.ns.run("nft", "flush chain inet watch silence")


def row_of(gateway, family):
    """What the gateway says of the upstream."""
    want = f"tcp:{bracketed(UPSTREAMS[DEAD][family])}:{BACKEND_PORT}"
    return next(row for row in gateway.ctl("backends")["backends"] if row["id"] == want)


def events_of(gateway, kind):
    """(subject, text) of each, out of the log."""
    lines = [line.split(f"spillway: {kind}: ", 1) for line in gateway.output().splitlines()]
    return [tuple(line[1].split(": ", 1)) for line in lines if len(line) == 2]


@pytest.fixture
def upstream(lab):
    with Upstream(lab) as it:
        yield it


@pytest.mark.costly
@pytest.mark.parametrize("how", ["refuses", "silent"])
def test_dead_upstream(lab, spillway, upstream, family, how, record_property):
    """A second after its death no connection fails any more; it gets probes alone, and comes back by itself."""
    load = Load(lab, family, rate=RATE, seconds=WARM_S + DEAD_S + BACK_S + 4, concurrency=2000)
    eventually(lambda: row_of(spillway, family)["connects"] >= 100, WARM_S + 5, "the upstream is in use")
    upstream.die(how)
    died_ns = time.monotonic_ns()
    eventually(lambda: row_of(spillway, family)["breaker"] == "open", 2, "its breaker opens")
    opened_ms = (time.monotonic_ns() - died_ns) / 1e6
    time.sleep(0.2)  # what was on its way when it opened
    syns, since = upstream.syns(), time.monotonic()
    time.sleep(DEAD_S - 1)
    syns_per_s = (upstream.syns() - syns) / (time.monotonic() - since)
    answered = row_of(spillway, family)["connects"]
    upstream.come_back(how)
    back_ns = time.monotonic_ns()
    eventually(lambda: row_of(spillway, family)["breaker"] == "ramp", BACK_S, "real flows tried it")
    back_s = (time.monotonic_ns() - back_ns) / 1e9
    eventually(lambda: row_of(spillway, family)["connects"] > answered + 8, 4, "it is in use again")
    result = load.wait()
    late = (result["last_failed_start_ns"] - died_ns) / 1e9 if result["failed"] else 0
    figures = {
        "failed": result["failed"],
        "opened_ms": round(opened_ms),
        "connect_max_ms": round(result["connect_max_ms"], 1),
        "syns_per_s": round(syns_per_s, 2),
        "back_s": round(back_s, 2),
        "resteered": row_of(spillway, family)["resteered"],
    }
    record_property("figures", json.dumps(figures))
    print(figures)
    assert late < 1, f"a connection failed that began {late:.2f} s after the death: {result}"
    assert syns_per_s <= PROBES_PER_S
    assert figures["resteered"] > 0
    if how == "refuses":
        assert result["connect_max_ms"] < CLIENT_RTO_MS, "no client had to send its SYN again"
    word = "refused" if how == "refuses" else "unanswered"
    assert events_of(spillway, "breaker_open") == [(row_of(spillway, family)["id"], f"5 SYNs in a row {word}")]
    assert len(events_of(spillway, "breaker_half_open")) == 1
    assert len(events_of(spillway, "breaker_ramp")) == 1
    ledger = spillway.ledger()
    assert ledger["balance"] == 0 and ledger["sum"]["tx_balance"] == 0


def test_before_does_notice(lab, before, upstream, family):
    """The control: kernel NAT goes on sending its share of the clients to an upstream that refuses."""
    load = Load(lab, family, rate=RATE, seconds=4, concurrency=2000)
    time.sleep(1)
    upstream.die("refuses")
    died_ns = time.monotonic_ns()
    result = load.wait()
    assert result["failures"]["refused"] > RATE / 2
    assert (result["last_failed_start_ns"] - died_ns) / 1e9 > 2
