#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""A dead upstream among four, over whatever stands in the gateway's place: what clients, and it, notice of it.

400 connections a second; one upstream dies, stays dead, and comes back. What happened is recorded (every attempt, the
SYNs that came to the dead one, who answered how many) under build/failover; report.py makes the table from that.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP / "tests" / "lab"), str(TOP / "perf" / "storm")]

from attempts import wait_until  # noqa: E402
from dying import DEAD, Mortals  # noqa: E402
from gateways import Service, Spillway  # noqa: E402
from netns import LabError  # noqa: E402
from subjects import HAProxy, Nat, Untuned, counts, names_of, serving  # noqa: E402
from tools import BUILD  # noqa: E402
from topology import UPSTREAMS, Lab, end_on_signals  # noqa: E402

UPSTREAMS["up4"] = {4: "198.18.3.24", 6: "2001:db8:3::24"}  # this lab has one more

OUT = pathlib.Path(BUILD) / "failover"
FOUR = Service("four", 8090, 8090, upstreams=tuple(UPSTREAMS))
RATE = 400
PATIENCE_MS = 10000  # of a client
OPENS_S = 1  # what it is sent from then on is counted
FIRST_S = LAST_S = 3  # at the begin and the end of its return, in which its share is counted
UNCHANGED_AFTER_S = 20  # who has no ramp is watched for so long at the most
FAULTS = {"killed": "kill", "unplugged": "unplug"}  # methods of Mortals


class Checked(HAProxy):
    """As its manual has it for servers that may die."""

    name = "haproxy-checked"
    title = "HAProxy with retries, redispatch and checks"
    defaults = ("timeout connect 1s", "retries 3", "option redispatch")
    server_options = "check inter 1s"


class Cured(Spillway):
    """As it comes."""

    name = "spillway"
    always = ()

    def __init__(self, lab, service):
        super().__init__(lab, services=(service,))

    def settings(self):
        return []

    def losses(self):
        reasons = self.ledger()["reasons"]
        return {name: n for name, n in reasons.items() if name.startswith("drop_") and n}


SUBJECTS = {kind.name: kind for kind in (Nat, Untuned, Checked, Cured)}
FAMILIES = {"spillway": (4, 6)}  # the others: IPv4


class Run:
    """One subject and one fault; before_s, dead_s, after_s: how long each part lasts."""

    def __init__(self, subject, mortals, fault, seconds):
        self.subject, self.mortals, self.fault = subject, mortals, fault
        family = mortals.family
        self.before_s, self.dead_s, self.after_s = seconds
        if subject.name != "spillway":
            self.after_s = min(self.after_s, UNCHANGED_AFTER_S)
        self.dir = OUT / f"{subject.name}-{family}-{fault}"
        self.record = {
            "subject": subject.name, "title": subject.title, "settings": subject.settings(), "family": family,
            "fault": fault, "rate": RATE, "n_upstreams": len(UPSTREAMS), "patience_ms": PATIENCE_MS,
            "kernel": os.uname().release, "first_s": FIRST_S, "last_s": LAST_S, "opens_s": OPENS_S,
            "before_s": self.before_s, "dead_s": self.dead_s, "after_s": self.after_s,
        }

    def _come_back(self):
        return self.mortals.restart(DEAD) if self.fault == "killed" else self.mortals.plug(DEAD)

    def _be_dead(self, clients):
        died_ns, _ = getattr(self.mortals, FAULTS[self.fault])(DEAD)
        self.record["died_s"] = clients.at(died_ns)
        wait_until(died_ns + int(OPENS_S * 1e9))
        syns, begin_s = self.mortals.syns[DEAD](), time.monotonic()
        wait_until(died_ns + int(self.dead_s * 1e9))
        self.record["syns"] = self.mortals.syns[DEAD]() - syns
        self.record["syns_s"] = round(time.monotonic() - begin_s, 3)

    def _wait_for_use(self, before, until_ns):
        """When it answered again, on the monotonic clock; None: not until then."""
        while (now_ns := time.monotonic_ns()) < until_ns:
            if self.mortals.answered()[DEAD] > before:
                return now_ns
            time.sleep(0.005)
        return None

    def _share(self, seconds):
        """Of what it would answer if all were treated alike, in the next seconds."""
        before = self.mortals.answered()
        time.sleep(seconds)
        counts = {up: n - before[up] for up, n in self.mortals.answered().items()}
        return counts[DEAD] * len(counts) / max(1, sum(counts.values()))

    def _be_back(self, clients):
        answered = 0 if self.fault == "killed" else self.mortals.answered()[DEAD]
        back_ns, _ = self._come_back()
        self.record["back_s"] = clients.at(back_ns)
        end_ns = back_ns + int(self.after_s * 1e9)
        used_ns = self._wait_for_use(answered, end_ns - int((FIRST_S + LAST_S) * 1e9))
        self.record["used_after_s"] = None if used_ns is None else (used_ns - back_ns) / 1e9
        self.record["share_first"] = 0 if used_ns is None else self._share(FIRST_S)
        wait_until(end_ns - int(LAST_S * 1e9))
        self.record["share_last"] = self._share(LAST_S)

    def go(self):
        shutil.rmtree(self.dir, ignore_errors=True)
        self.dir.mkdir(parents=True)
        losses = self.subject.losses()
        seconds = self.before_s + self.dead_s + self.after_s + 0.5
        clients = self.mortals.clients(RATE, seconds, PATIENCE_MS, self.dir / "attempts.csv")
        wait_until(clients.begin_ns + int(self.before_s * 1e9))
        self._be_dead(clients)
        self._be_back(clients)
        self.record["load"], _ = clients.wait()
        after = self.subject.losses()
        self.record["losses"] = {name: n - losses.get(name, 0) for name, n in after.items()}
        self.record["complaints"] = self.complaints()
        with open(self.dir / "run.json", "w", encoding="ascii") as f:
            json.dump(self.record, f, indent=1)

    def complaints(self):
        """Why the run says nothing; none: it counts."""
        load, said = self.record["load"], []
        if load["late"] >= 0.01 * load["requests"]:
            said.append(f"{load['late']} of {load['requests']} requests began late")
        if load["overrun"]:
            said.append(f"{load['overrun']} requests found the load full")
        if lost := {name: n for name, n in self.record["losses"].items() if n}:
            said.append(f"the gateway dropped {lost}")
        return said


def run_all(lab, subjects, seconds):
    """Returns the number of runs that do not count."""
    bad = 0
    for name in subjects:
        for family in FAMILIES.get(name, (4,)):
            for fault in FAULTS:
                with Mortals(lab, FOUR, family) as mortals, serving(SUBJECTS[name](lab, FOUR)) as subject:
                    run = Run(subject, mortals, fault, seconds)
                    run.go()
                bad += not counts("failover", f"{name}, IPv{family}, {fault}", run.record)
    return bad


def seconds_of(text):
    parts = tuple(float(part) for part in text.split(","))
    if len(parts) != 3 or parts[0] < 2 or parts[1] <= OPENS_S or parts[2] < FIRST_S + LAST_S:
        raise argparse.ArgumentTypeError(f"BEFORE,DEAD,AFTER of at least 2,{OPENS_S + 1},{FIRST_S + LAST_S}")
    return parts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=seconds_of, help="before its death, dead, and back (6,30,38)")
    parser.add_argument("--subjects", type=names_of, default=[], help="of " + ",".join(SUBJECTS))
    args = parser.parse_args()
    if unknown := [name for name in args.subjects if name not in SUBJECTS]:
        parser.error(f"unknown: {', '.join(unknown)}")
    end_on_signals()
    shutil.rmtree(OUT, ignore_errors=True)
    with Lab() as lab:
        bad = run_all(lab, args.subjects or SUBJECTS, args.seconds or (6, 30, 38))
    # A part of the experiment is not the project's result.
    part = args.seconds or args.subjects
    subprocess.run([sys.executable, TOP / "perf" / "failover" / "report.py", OUT,
                    *(["--output", OUT / "RESULTS.md"] if part else [])], check=True)
    return 1 if bad else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        sys.exit(f"failover: {error}")
