#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""A few clients far beyond their cap, with early shedding and without: who refuses their SYNs, and what it costs.

SYNs of 16 addresses go to a service whose clients may begin 20 flows a second each; beside them a transfer of bulk data
runs through the same worker. Both kinds of round follow each other in one process of the gateway, which reloads its
configuration between them; the table gives medians. Where two CPUs do everything, the sender of the SYNs and the XDP
program share one of them, and the transfer's ends have what those and the worker leave. Needs root and two CPUs.
"""

import argparse
import contextlib
import os
import pathlib
import statistics
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tests" / "lab"))

from gateways import BULK_PORT, Spillway, running  # noqa: E402
from netns import eventually  # noqa: E402
from servers import listens, start_servers  # noqa: E402
from tools import Flood  # noqa: E402
from topology import VIP, Lab, end_on_signals  # noqa: E402

SHOP = "      - {dns: shop.lab.test, port: 8080}\n"
STORM = "    storm: {{client_rate: 20/s, client_burst: 10, hold: off, early: {}}}\n"
SOURCES = 16
RATES = (100_000, 300_000, None)  # of SYNs a second; None: as fast as one CPU sends them
SETTLED_S, MEASURED_S, REST_S = 1.0, 2.0, 1.2
ARMS = ("off", "on")


class Capped(Spillway):
    """The shop has a cap per client; early() turns early shedding on or off."""

    def __init__(self, lab):
        super().__init__(lab, edits=((SHOP, SHOP + STORM.format("on")),))

    def early(self, arm):
        text = pathlib.Path(self.config).read_text(encoding="ascii")
        for other in ARMS:
            text = text.replace(STORM.format(other), STORM.format(arm))
        pathlib.Path(self.config).write_text(text, encoding="ascii")
        self.ctl("reload")

    def counts(self):
        """What was counted so far; the gate's as of its last look."""
        ledger, status = self.ledger(), self.status()
        shop = next(row for row in self.ctl("services")["services"] if row["name"] == "shop")
        return {
            "at": time.monotonic(),
            "worker": shop["refused"] + shop["silent"],
            "early": ledger["early"]["gate_shed_client"],
            "lost": ledger["lost"]["new_ring"],
            "bulk": next(p["rx_bytes"] for p in status["ports"] if p["name"] == "lan") / 1e6,
            "cpu": self.cpu_s(),
        }

    def cpu_s(self):
        """Of all its threads."""
        tasks = pathlib.Path(f"/proc/{self.child.pid}/task").glob("*/schedstat")
        return sum(int(path.read_text(encoding="ascii").split()[0]) for path in tasks) / 1e9


@contextlib.contextmanager
def transfer(lab):
    """Bulk data towards the client, all the time."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = lab.children.spawn(lab.up1, "iperf3", "-p", str(BULK_PORT), "-s", **quiet)
    eventually(lambda: listens(lab.up1, BULK_PORT), 5, "iperf3 server")
    client = lab.children.spawn(lab.client, "iperf3", "-p", str(BULK_PORT), "-c", VIP[4], "-R", "-t", "3600", **quiet)
    try:
        yield client
        if client.poll() is not None:
            raise RuntimeError("the transfer broke")
    finally:
        lab.children.end(client)
        lab.children.end(server)


def measure(gateway, flood, arm, rate):
    """One round: a second's worth of each count."""
    gateway.early(arm)
    child = flood.start(SETTLED_S + MEASURED_S + 1, rate=rate, sources=SOURCES)
    time.sleep(SETTLED_S)
    before = gateway.counts()
    time.sleep(MEASURED_S)
    after = gateway.counts()
    sent = flood.wait(child)
    seconds = after["at"] - before["at"]
    time.sleep(REST_S)
    row = {key: (after[key] - before[key]) / seconds for key in before if key != "at"}
    return row | {"sent": sent / (SETTLED_S + MEASURED_S + 1), "refused": row["worker"] + row["early"]}


COLUMNS = ("sent", "refused", "worker", "early", "lost", "bulk", "cpu")


def print_rates(rate, rounds):
    """A row for each arm, and the ratio of neighbouring rounds."""
    name = f"{rate // 1000}k" if rate else "all"
    median = {arm: {c: statistics.median(r[c] for r in rounds[arm]) for c in COLUMNS} for arm in ARMS}
    for arm in ARMS:
        m = median[arm]
        print(f"{name:>5} {arm:>4} " + " ".join(f"{m[c]:12.0f}" for c in COLUMNS[:5]) +
              f" {m['bulk']:8.1f} {100 * m['cpu']:6.1f}")
    ratio = {c: statistics.median(on[c] / max(off[c], 1e-9) for off, on in zip(rounds["off"], rounds["on"]))
             for c in ("refused", "bulk", "cpu")}
    print(f"{name:>5} on/off refused {ratio['refused']:.2f}, bulk {ratio['bulk']:.2f}, CPU {ratio['cpu']:.2f}",
          flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", default=5, type=int)
    args = parser.parse_args()
    end_on_signals()
    os.chdir(TOP)
    print(f"{'SYNs':>5} {'early':>4} " + " ".join(f"{c + '/s':>12}" for c in COLUMNS[:5]) + f" {'bulk MB/s':>8} CPU %")
    with Lab(n_queues=1) as lab:
        start_servers(lab)
        with running(Capped(lab)) as gateway, Flood(lab) as flood, transfer(lab):
            eventually(lambda: gateway.counts()["bulk"] > 10, 5, "the transfer runs")
            for rate in RATES:
                rounds = {arm: [] for arm in ARMS}
                for _ in range(args.rounds):
                    for arm in ARMS:
                        rounds[arm].append(measure(gateway, flood, arm, rate))
                print_rates(rate, rounds)
            balance = gateway.ledger()["balance"]
            if balance:
                raise RuntimeError(f"the ledger's balance is {balance}")


if __name__ == "__main__":
    main()
