# SPDX-License-Identifier: BSD-3-Clause
"""What serve shows, and that showing it holds up nobody."""

import json
import subprocess
import threading
import time

import pytest
from api import Pestering, fetch, get
from conftest import TTL_S
from netns import LabError, eventually
from tools import Load
from topology import CLIENTS, UPSTREAMS, VIP

openmetrics = pytest.importorskip("prometheus_client.openmetrics.parser")
prometheus = pytest.importorskip("prometheus_client.parser")

OPENMETRICS = "application/openmetrics-text"
# A label is of the configuration, or of a list in the source: nothing that a client chooses.
CLIENTS_LABELS = {"address", "client", "ip", "network", "peer", "prefix", "source"}
TICK_MAX_MS = 150


def parsed(gateway):
    """Families by name, from both formats; each must be what a strict parser takes, and they must agree."""
    status, kind, text = fetch(gateway, "/metrics", accept=f"{OPENMETRICS};version=1.0.0,text/plain;q=0.5")
    assert status == 200 and kind.startswith(OPENMETRICS + "; version=1.0.0")
    families = list(openmetrics.text_string_to_metric_families(text))
    status, kind, text = fetch(gateway, "/metrics", accept="text/plain")
    assert status == 200 and kind.startswith("text/plain; version=0.0.4")
    plain = list(prometheus.text_string_to_metric_families(text))
    assert [(f.name, f.type) for f in families] == [(f.name, f.type) for f in plain]
    names = [f.name for f in families]
    assert len(names) == len(set(names))
    return {f.name: f for f in families}


def series(families):
    return {(s.name, *sorted(s.labels.items())) for f in families.values() for s in f.samples}


def test_openmetrics(lab, spillway, family):
    before = series(parsed(spillway))
    Load(lab, family, requests=200).wait()
    families = parsed(spillway)
    assert series(families) == before, "clients make series"
    for f in families.values():
        assert f.name.startswith("spillway_") and f.documentation
        for sample in f.samples:
            assert not set(sample.labels) & CLIENTS_LABELS, sample
            assert (sample.name == f.name + "_total") == (f.type == "counter"), sample
    text = json.dumps([list(s.labels.values()) for f in families.values() for s in f.samples])
    assert not any(address in text for address in CLIENTS[family])
    rx = families["spillway_rx_packets"].samples[0].value
    assert 0 < rx <= spillway.ledger()["sum"]["rx"]


@pytest.mark.costly
def test_decide_is_not_delayed(lab, spillway, family, record_property):
    """Scrapes, pages of flows and explanations, as fast as they come, beside traffic and a name that changes."""
    load = Load(lab, family, rate=500, seconds=3600)
    eventually(lambda: spillway.ledger()["sum"]["forwarded"] > 1000, 10, "traffic")
    requests = [
        ("/metrics", {}), ("/v1/flows", {}), ("/v1/explain", {"address": CLIENTS[family][0]}),
        ("/v1/explain", {"address": VIP[family]}), ("/v1/clients", {}), ("/v1/events", {}),
    ]
    with Pestering(spillway, *requests) as pestering:
        end = time.monotonic() + 8
        while time.monotonic() < end:
            lab.zone.set("shop", [u[f] for u in list(UPSTREAMS.values())[:2] for f in (4, 6)], TTL_S)
            time.sleep(1)
            lab.zone.set("shop", [u[f] for u in UPSTREAMS.values() for f in (4, 6)], TTL_S)
            time.sleep(1)
    status = spillway.status()
    result = load.stop()
    record_property("requests", pestering.counts)
    record_property("tick", f"{status['tick_p99_ms']} {status['tick_max_ms']}")
    print(f"requests={pestering.counts} tick p99={status['tick_p99_ms']} max={status['tick_max_ms']} ms")
    assert not pestering.failed and all(pestering.counts)
    assert status["tick_p99_ms"] < TICK_MAX_MS
    assert result["failed"] == 0, result


class Follower:
    """`spillwayctl events --follow`: its lines, as they come."""

    def __init__(self, lab, gateway):
        self._lab = lab
        self.events = []
        argv = [gateway.ctl_binary, "--socket", gateway.socket, "--json", "events", "--follow", "limit=1"]
        self.child = lab.children.spawn(None, *argv, stdout=subprocess.PIPE, text=True)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        for line in self.child.stdout:
            self.events.append(json.loads(line))

    def wait_for(self, kind, subject, timeout_s=10):
        def came():
            return [e for e in self.events if e["kind"] == kind and e["subject"] == subject]

        return eventually(came, timeout_s, f"event {kind} of {subject}")

    def ended(self):
        self.child.wait(10)
        self._thread.join(10)
        return self._lab.children.end(self.child)


@pytest.mark.costly
def test_events_are_followed(lab, spillway):
    """As they happen, and until the gateway stops."""
    follower = Follower(lab, spillway)
    (start,) = follower.wait_for("started", spillway.config)
    assert start["severity"] == "info"
    lab.zone.set("shop", [], TTL_S)
    (doubt, *_) = follower.wait_for("name_doubt", "shop.lab.test A")
    assert doubt["cure"] == "names" and doubt["severity"] == "warning"
    lab.zone.set("shop", [u[f] for u in UPSTREAMS.values() for f in (4, 6)], TTL_S)
    follower.wait_for("name_fresh", "shop.lab.test A")
    with open(spillway.config, encoding="ascii") as f:
        text = f.read()
    with open(spillway.config, "w", encoding="ascii") as f:
        f.write(text + "nonsense: 1\n")
    with pytest.raises(LabError):
        spillway.ctl("reload")
    (refused,) = follower.wait_for("reload_refused", spillway.config)
    assert "nonsense" in refused["text"] and "by uid 0" in refused["text"]
    numbers = [e["number"] for e in follower.events]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    listed = get(spillway, "/v1/events")["events"]
    assert [e["number"] for e in listed][-len(numbers):] == numbers
    spillway.stop()
    assert follower.ended() == 0
