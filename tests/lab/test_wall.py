# SPDX-License-Identifier: BSD-3-Clause
"""An upstream dies, by refusing or by falling silent: clients do not notice, and it hears next to nothing."""

import contextlib
import json
import time

import faults
import pytest
from dying import DEAD, backend_id, events_of, row_of, watched
from netns import eventually
from tools import Load

RATE = 200  # new connections per second
WARM_S = 2
DEAD_S = 6
BACK_S = 6  # three probes in a row answered, three responses
PROBES_PER_S = 1.2
CLIENT_RTO_MS = 1000  # before Linux sends a SYN again


class Upstream:
    """The upstream that dies. A context manager: it counts the SYNs that come, and is alive again in the end."""

    def __init__(self, lab):
        self._ns, self._nginx = lab.ns[DEAD], lab.nginx[DEAD]
        self._stack = contextlib.ExitStack()
        self._fault = None

    def __enter__(self):
        self.syns = self._stack.enter_context(watched(self._ns))
        self._stack.callback(self.come_back)
        return self

    def __exit__(self, *exc):
        self._stack.close()

    def die(self, how):
        self._fault = faults.refusing(self._nginx) if how == "refuses" else faults.silent(self._ns)
        self._fault.__enter__()

    def come_back(self):
        fault, self._fault = self._fault, None
        if fault:
            fault.__exit__(None, None, None)


@pytest.fixture
def upstream(lab):
    with Upstream(lab) as it:
        yield it


@pytest.mark.costly
@pytest.mark.parametrize("how", ["refuses", "silent"])
def test_dead_upstream(lab, spillway, upstream, family, how, record_property):
    """A second after its death no connection fails any more; it gets probes alone, and comes back by itself."""
    backend = backend_id(DEAD, family)
    load = Load(lab, family, rate=RATE, seconds=WARM_S + DEAD_S + BACK_S + 4, concurrency=2000)
    eventually(lambda: row_of(spillway, backend)["connects"] >= 100, WARM_S + 5, "the upstream is in use")
    upstream.die(how)
    died_ns = time.monotonic_ns()
    eventually(lambda: row_of(spillway, backend)["breaker"] == "open", 2, "its breaker opens")
    opened_ms = (time.monotonic_ns() - died_ns) / 1e6
    time.sleep(0.2)  # what was on its way when it opened
    syns, since = upstream.syns(), time.monotonic()
    time.sleep(DEAD_S - 1)
    syns_per_s = (upstream.syns() - syns) / (time.monotonic() - since)
    answered = row_of(spillway, backend)["connects"]
    upstream.come_back()
    back_ns = time.monotonic_ns()
    eventually(lambda: row_of(spillway, backend)["breaker"] == "ramp", BACK_S, "real flows tried it")
    back_s = (time.monotonic_ns() - back_ns) / 1e9
    eventually(lambda: row_of(spillway, backend)["connects"] > answered + 8, 4, "it is in use again")
    result = load.wait()
    late = (result["last_failed_start_ns"] - died_ns) / 1e9 if result["failed"] else 0
    figures = {
        "failed": result["failed"],
        "opened_ms": round(opened_ms),
        "connect_max_ms": round(result["connect_max_ms"], 1),
        "syns_per_s": round(syns_per_s, 2),
        "back_s": round(back_s, 2),
        "resteered": row_of(spillway, backend)["resteered"],
    }
    record_property("figures", json.dumps(figures))
    print(figures)
    assert late < 1, f"a connection failed that began {late:.2f} s after the death: {result}"
    assert syns_per_s <= PROBES_PER_S
    assert figures["resteered"] > 0
    if how == "refuses":
        assert result["connect_max_ms"] < CLIENT_RTO_MS, "no client had to send its SYN again"
    word = "refused" if how == "refuses" else "unanswered"
    opened = [(e["subject"], e["text"]) for e in events_of(spillway, "breaker_open")]
    assert opened == [(backend, f"5 SYNs in a row {word}")]
    assert len(events_of(spillway, "breaker_half_open")) == 1
    assert len(events_of(spillway, "breaker_ramp")) == 1
    ledger = spillway.ledger()
    assert ledger["balance"] == 0 and ledger["sum"]["tx_balance"] == 0


@pytest.mark.costly
def test_before_does_notice(lab, before, upstream, family):
    """The control: kernel NAT goes on sending its share of the clients to an upstream that refuses."""
    load = Load(lab, family, rate=RATE, seconds=4, concurrency=2000)
    time.sleep(1)
    upstream.die("refuses")
    died_ns = time.monotonic_ns()
    result = load.wait()
    assert result["failures"]["refused"] > RATE / 2
    assert (result["last_failed_start_ns"] - died_ns) / 1e9 > 2
