#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""The storm bench: an upstream of 500 requests a second meets a trigger, and its clients retry.

Each run is one trigger over one subject in the gateway's place. What happened is recorded (every attempt, what the
upstream did, the packets around the trigger) under build/storm, and everything that is said about it is made from there
by report.py. A run counts only if the bench itself was well: see Run.complaints().
"""

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP / "tests" / "lab"), str(TOP / "perf" / "storm")]

from attempts import sources, spread_clients, start_load, wait_until  # noqa: E402
from servers import SlowUpstream  # noqa: E402
from subjects import CLIENT_TIMEOUT_MS, PORT, SUBJECTS, Off, On, counts, names_of, serving  # noqa: E402
from tools import BUILD  # noqa: E402
from topology import UPSTREAMS, VIP, Lab, end_on_signals  # noqa: E402

OUT = pathlib.Path(BUILD) / "storm"
CAPACITY = 500
LAMBDA = 400
RETRIES = 3
WARM_S = 10
PREFIXES = range(32, 53)  # of clients: 21 networks
MEASURE_S = 4  # of the capacity
CAPTURED_S = 5
ALTERNATE_S = 5


@dataclasses.dataclass(frozen=True)
class Trigger:
    """What happens to the upstream at WARM_S, for so long. `orders`: (at its begin, at its end)."""

    seconds: float
    orders: tuple = ("report", "report")
    surge: float = 0
    kill_after_s: float = 0  # then the gateway is killed, and started again


STALL = Trigger(5, ("capacity 0", "capacity 1"))


@dataclasses.dataclass(frozen=True)
class Kind:
    """One row of the experiment."""

    name: str
    title: str
    trigger: Trigger = STALL
    after_s: int = 33  # the five seconds around +30 s, and a bit
    subjects: tuple = ("nftables", "haproxy", "haproxy-tuned", "spillway-off", "spillway")
    backlog: int = 4096
    upstream: tuple = ()  # its options, as (name, value)
    load: tuple = ()  # options of the load
    keep_alive: bool = False
    herd: int = 0
    alternating: bool = False  # the cure `storm` on and off, each for ALTERNATE_S; no trigger
    seeds: int = 1  # runs over Spillway, at least
    client_sysctl: tuple = ()  # (name as Namespace.sysctl has it, value)

    @property
    def seconds(self):
        return WARM_S + self.trigger.seconds + self.after_s


KINDS = {
    kind.name: kind
    for kind in (
        Kind("R1", "load 0.8 C, the upstream stalls for 5 s", after_s=63, seeds=5),
        Kind("R2", "load 0.8 C, the upstream has 0.3 of its capacity for 10 s",
             Trigger(10, ("capacity 0.3", "capacity 1")), seeds=5),
        Kind("R3", "2.5 times the load for 10 s", Trigger(10, surge=2.5), seeds=5),
        Kind("R4", "as R1, and the clients back off, with full jitter", load=("--backoff",),
             subjects=("nftables", "haproxy-tuned", "spillway-off", "spillway")),
        Kind("R5", "as R1, with a backlog of 128 instead of 4096", backlog=128,
             subjects=("nftables", "spillway-off", "spillway")),
        Kind("R6", "as R1, over a fixed limit of 600 connections", subjects=("fixed-600",)),
        Kind("R7", "2000 clients connect at once, backlog 128", herd=2000, backlog=128, after_s=0, seeds=5),
        Kind("R7b", "as R7, with the SYN timers of Linux before 6.5", herd=2000, backlog=128, after_s=0,
             subjects=("nftables", "spillway"), client_sysctl=(("ipv4__tcp_syn_linear_timeouts", 0),)),
        Kind("R8", "as R7, and clients that are refused try again at once, three times", herd=2000, backlog=128,
             after_s=0, load=("--retries", RETRIES), subjects=("spillway-refusing", "spillway")),
        Kind("R9", "load 0.8 C, and nothing happens", Trigger(0), after_s=110, alternating=True,
             subjects=("spillway",)),
        Kind("R10", "as R1, over a pool of 1000 connections that are kept", keep_alive=True,
             subjects=("nftables", "haproxy-tuned", "spillway"), load=("--pool", "1000")),
        Kind("R11", "as R1, and the upstream is another one: four times the workers take four times as long",
             subjects=("nftables", "haproxy-tuned", "spillway"), upstream=(("workers", 40), ("work_ms", 80))),
        Kind("R12", "as R1, and while the upstream stalls the gateway is killed, and started again",
             dataclasses.replace(STALL, kill_after_s=2), subjects=("spillway-off", "spillway")),
    )
}


def counters(ns, *names):
    """TcpExt counters of the namespace."""
    lines = ns.run("cat", "/proc/net/netstat").stdout.splitlines()
    keys, values = (line.split()[1:] for line in lines if line.startswith("TcpExt:"))
    row = dict(zip(keys, map(int, values)))
    return {name: row[name] for name in names}


UPSTREAM_COUNTERS = ("ListenOverflows", "ListenDrops")


class Run:
    def __init__(self, lab, kind, subject, seed, family):
        self.lab, self.kind, self.subject, self.seed, self.family = lab, kind, subject, seed, family
        self._lost = collections.Counter()
        self.dir = OUT / f"{kind.name}-{subject.name}-{seed}"
        self.record = {
            "kind": kind.name, "title": kind.title, "subject": subject.name, "subject_title": subject.title,
            "seed": seed, "family": family, "lambda": LAMBDA, "settings": subject.settings(), "herd": kind.herd,
            "warm_s": WARM_S, "trigger_s": kind.trigger.seconds, "seconds": kind.seconds,
            "timeout_ms": CLIENT_TIMEOUT_MS, "kernel": os.uname().release,
        }

    def measure_capacity(self, upstream):
        """Answers a second while more is asked than it can do, from next to it; all is worked off before it returns."""
        options = ("--rate", 2 * CAPACITY, "--seconds", MEASURE_S, "--timeout-ms", 30000)
        to = UPSTREAMS["up1"][self.family]
        load = start_load(self.lab, self.lab.lan, to, PORT, self.dir / "capacity.csv", *options)
        begin_ns = json.loads(load.stdout.readline())["begin_ns"]
        wait_until(begin_ns + 1_000_000_000)
        first, first_ns = upstream.tell("report")["answered"], time.monotonic_ns()
        wait_until(begin_ns + MEASURE_S * 1_000_000_000)
        last, last_ns = upstream.tell("report")["answered"], time.monotonic_ns()
        load.wait(60)
        self.lab.children.end(load)
        self.record["capacity"] = round((last - first) / ((last_ns - first_ns) / 1e9), 1)

    def _losses(self):
        """What the gateway dropped since its load, or it itself, began."""
        return collections.Counter(self.subject.losses()) - collections.Counter(self._losses_before)

    def _options(self):
        kind = self.kind
        options = ["--from", ",".join(sources(self.family, PREFIXES)), *kind.load, "--seed", self.seed]
        if kind.herd:
            return options + ["--herd", kind.herd, "--timeout-ms", 130000]
        options += ["--rate", LAMBDA, "--seconds", kind.seconds, "--retries", RETRIES]
        if kind.trigger.surge:
            options += ["--surge", f"{WARM_S}:{kind.trigger.seconds}:{kind.trigger.surge}"]
        return options + ["--timeout-ms", CLIENT_TIMEOUT_MS]

    @contextlib.contextmanager
    def _captured(self, at_ns):
        """The packets of the client's side, from a second before the trigger on."""
        wait_until(at_ns - 1_000_000_000)
        argv = ("tcpdump", "-i", "client", "-s", "96", "-w", str(self.dir / "trigger.pcap"), "-Z", "root")
        child = self.lab.children.spawn(self.lab.wan, *argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
            wait_until(at_ns + CAPTURED_S * 1_000_000_000)
        finally:
            self.lab.children.end(child, signal.SIGINT)

    def _trigger(self, upstream, begin_ns):
        begin, end = self.kind.trigger.orders
        at_ns = begin_ns + WARM_S * 1_000_000_000
        until_ns = at_ns + int(self.kind.trigger.seconds * 1e9)
        with self._captured(at_ns):
            wait_until(at_ns)
            self.record["before"] = upstream.tell(begin)
            self.record["trigger_at_us"] = (time.monotonic_ns() - begin_ns) // 1000
            if self.kind.trigger.kill_after_s:
                wait_until(at_ns + int(self.kind.trigger.kill_after_s * 1e9))
                self._lost = self._losses()
                self.subject.restart()
                self._losses_before = {}
                self.record["restarted_us"] = (time.monotonic_ns() - begin_ns) // 1000
        wait_until(until_ns)
        self.record["during"] = upstream.tell(end)
        self.record["trigger_until_us"] = (time.monotonic_ns() - begin_ns) // 1000

    def _alternate(self, begin_ns):
        """Records from when to when the cure was on or off; what it did about anybody; and what it says happened."""
        last = max((e["number"] for e in self.subject.events()), default=0)
        before, arms = self.subject.attempts(), []
        for at_s in range(WARM_S, int(self.kind.seconds), ALTERNATE_S):
            wait_until(begin_ns + at_s * 1_000_000_000)
            mode = ("enforce", "off")[len(arms) % 2]
            self.subject.ctl("cure", "storm", mode)
            # What is under way belongs to neither.
            arms.append({"mode": mode, "from_us": (time.monotonic_ns() - begin_ns) // 1000 + 100_000,
                         "until_us": (at_s + ALTERNATE_S) * 1_000_000 - 100_000})
        wait_until(begin_ns + int(self.kind.seconds * 1e9))
        after = self.subject.attempts()
        told = [f"{e['kind']}: {e['text']}" for e in self.subject.events(last) if e["kind"] != "cure_mode"]
        self.record |= {"arms": arms, "did": {key: after[key] - before[key] for key in after}, "told": told}

    @contextlib.contextmanager
    def _client_settings(self):
        before = [(name, self.lab.client.get_sysctl(name)) for name, _ in self.kind.client_sysctl]
        self.lab.client.sysctl(**dict(self.kind.client_sysctl))
        try:
            yield
        finally:
            self.lab.client.sysctl(**dict(before))

    def go(self):
        self.dir.mkdir(parents=True, exist_ok=True)
        options = {"backlog": self.kind.backlog, "seed": self.seed, "keep_alive": self.kind.keep_alive}
        upstream = SlowUpstream(self.lab, "up1", PORT, **options, **dict(self.kind.upstream))
        try:
            if not self.kind.herd and not self.kind.keep_alive:
                self.measure_capacity(upstream)
            with self._client_settings():
                self._go(upstream)
        finally:
            upstream.close()
        with open(self.dir / "run.json", "w", encoding="ascii") as f:
            json.dump(self.record, f, indent=1)

    def _go(self, upstream):
        first, listen = upstream.tell("report"), counters(self.lab.up1, *UPSTREAM_COUNTERS)
        self._losses_before = self.subject.losses()
        log = self.dir / "attempts.csv"
        load = start_load(self.lab, self.lab.client, VIP[self.family], PORT, log, *self._options())
        begin_ns = json.loads(load.stdout.readline())["begin_ns"]
        if self.kind.alternating:
            self._alternate(begin_ns)
        elif not self.kind.herd:
            self._trigger(upstream, begin_ns)
        self.record["load"] = json.loads(load.stdout.readline())
        load.wait(10)
        self.lab.children.end(load)
        last = upstream.tell("report")
        self.record["upstream"] = {key: round(last[key] - first[key], 3) for key in last}
        self.record["upstream"] |= {
            key: n - listen[key] for key, n in counters(self.lab.up1, *UPSTREAM_COUNTERS).items()
        }
        self.record["losses"] = dict(self._lost + self._losses())
        if isinstance(self.subject, Off):
            self.record["events"] = self.subject.events()
        self.record["complaints"] = self.complaints()

    def complaints(self):
        """Why the run says nothing; none: it counts."""
        load, seconds = self.record["load"], self.record["load"]["seconds"]
        said = []
        if load["late"] >= 0.01 * load["requests"]:
            said.append(f"{load['late']} of {load['requests']} requests began late")
        if load["overrun"]:
            said.append(f"{load['overrun']} requests found the load full")
        if self.record["upstream"]["cpu_s"] >= 0.6 * seconds:
            said.append(f"the upstream took {self.record['upstream']['cpu_s']} s of CPU in {seconds} s")
        if self.record["losses"]:
            said.append(f"the gateway dropped {self.record['losses']}")
        capacity = self.record.get("capacity")
        if capacity and not 0.9 * CAPACITY <= capacity <= 1.1 * CAPACITY:
            said.append(f"a capacity of {capacity}/s instead of {CAPACITY}")
        return said


def run_all(lab, kinds, only, seeds, family):
    """Returns the number of runs that do not count."""
    bad = 0
    for kind in kinds:
        for name in [name for name in kind.subjects if not only or name in only]:
            for seed in range(1, max(seeds, kind.seeds if name == On.name else 1) + 1):
                with serving(SUBJECTS[name](lab)) as subject:
                    run = Run(lab, kind, subject, seed, family)
                    run.go()
                bad += not counts("storm", f"{kind.name} over {name}, seed {seed}", run.record)
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--off", action="store_true", help="only what has no cure")
    parser.add_argument("--only", type=names_of, default=[], help="of " + ",".join(KINDS))
    parser.add_argument("--subjects", type=names_of, default=[], help="of " + ",".join(SUBJECTS))
    parser.add_argument("--seeds", type=int, default=1, help="runs of each kind over each subject, at least; over "
                        "Spillway some have five")
    parser.add_argument("--family", type=int, choices=(4, 6), default=4)
    args = parser.parse_args()
    unknown = [n for n in args.only if n not in KINDS] + [n for n in args.subjects if n not in SUBJECTS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    end_on_signals()
    kinds = [KINDS[name] for name in args.only or KINDS]
    only = args.subjects or [name for name, kind in SUBJECTS.items() if not (args.off and issubclass(kind, On))]
    shutil.rmtree(OUT, ignore_errors=True)
    with Lab() as lab:
        spread_clients(lab, PREFIXES)
        lab.up1.sysctl(core__somaxconn=4096, ipv4__tcp_max_syn_backlog=8192)
        bad = run_all(lab, kinds, only, args.seeds, args.family)
    # A part of the experiment is not the project's result.
    part = args.only or args.subjects
    subprocess.run([sys.executable, TOP / "perf" / "storm" / "report.py", OUT,
                    *(["--output", OUT / "RESULTS.md"] if part else [])], check=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
