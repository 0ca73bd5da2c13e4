# SPDX-License-Identifier: BSD-3-Clause
"""What the runs must show: that the bench traps what has no cure, and that Spillway does not stay in the trap."""

import dataclasses
import re
import statistics

NEVER = float("inf")


@dataclasses.dataclass(frozen=True)
class Promise:
    kind: str
    subject: str
    words: str
    figure: object  # of a run
    least: float = -NEVER
    most: float = NEVER
    unit: str = ""
    digits: int = 0

    def worst(self, runs):
        figures = [self.figure(run) for run in runs]
        return min(figures) if self.least > -NEVER else max(figures)

    def row(self, runs):
        worst = self.worst(runs)
        said = "never" if worst == NEVER else f"{worst:.{self.digits}f}{self.unit}"
        kept = "kept" if self.least <= worst <= self.most else "**missed**"
        return [f"{self.kind}, {runs[0].record['subject_title']}", self.words, f"{said} of {len(runs)}", kept]


def _recovery_s(run):
    recovered = run.recovery_s()
    return NEVER if recovered is None else recovered


def _answered_share(run):
    return 100 * len(run.answers_s) / run.record["herd"]


def _half_s(run):
    return statistics.median(run.answers_s) if run.answers_s else NEVER


def _last_s(run):
    """When all have their answers."""
    return max(run.answers_s) if len(run.answers_s) == run.record["herd"] else NEVER


def _mode_difference_us(run):
    return statistics.median(run.connect_us("enforce")) - statistics.median(run.connect_us("off"))


def _turned_away(run):
    return sum(run.record["did"][key] for key in ("held", "refused", "silent"))


def _trap(kind, subject="nftables"):
    return Promise(kind, subject, "the trap holds: at most 40/s 30 s later", lambda run: run.after(30), most=40,
                   unit="/s")


def _herd_trap(kind):
    return Promise(kind, "nftables", "100 and more have no answer after 30 s",
                   lambda run: run.record["herd"] - sum(t <= 30 for t in run.answers_s), least=100)


def _recovers(kind, seconds=2):
    words = f"from {seconds} s after the trigger on 95 % of the load is answered again"
    return Promise(kind, "spillway", words, _recovery_s, most=seconds, unit=" s", digits=1)


PROMISES = (
    *(_trap(kind) for kind in ("R1", "R2", "R3", "R4", "R10", "R11")),
    _trap("R6", "fixed-600"),
    _trap("R12", "spillway-off"),
    *(_herd_trap(kind) for kind in ("R7", "R7b")),
    *(_recovers(kind) for kind in ("R1", "R2", "R3", "R4", "R5", "R11", "R12")),
    _recovers("R10", 3),
    Promise("R1", "spillway", "at most 500 requests are done for nobody", lambda run: run.wasted(), most=500),
    Promise("R2", "spillway", "135/s at least meanwhile", lambda run: run.during(), least=135, unit="/s"),
    Promise("R3", "spillway", "450/s at least meanwhile", lambda run: run.during(), least=450, unit="/s"),
    Promise("R3", "spillway", "of 100 that are answered meanwhile 99 within 400 ms", lambda run: run.late_ms(),
            most=400, unit=" ms"),
    Promise("R7", "spillway", "all have their answers within 6 s", _last_s, most=6, unit=" s", digits=1),
    Promise("R7", "spillway", "the upstream drops no SYN", lambda run: run.record["upstream"]["ListenDrops"], most=0),
    Promise("R8", "spillway-refusing", "80 % and more give up", lambda run: 100 - _answered_share(run), least=80,
            unit=" %"),
    Promise("R8", "spillway", "99 % are answered", _answered_share, least=99, unit=" %", digits=1),
    Promise("R8", "spillway", "half of them within 3 s", _half_s, most=3, unit=" s", digits=1),
    Promise("R8", "spillway", "by at most 1.5 attempts each", lambda run: len(run.attempts) / run.record["herd"],
            most=1.5, digits=2),
    Promise("R9", "spillway", "nobody is held or refused", _turned_away, most=0),
    Promise("R9", "spillway", "nothing is told", lambda run: len(run.record["told"]), most=0),
    Promise("R9", "spillway", "half connect within at most 50 us more than with the cure off", _mode_difference_us,
            most=50, unit=" us"),
)


def rows(runs):
    """Of those that were run: what is asked, the worst of all seeds, and whether that will do."""
    return [
        promise.row(runs[promise.kind][promise.subject])
        for promise in sorted(PROMISES, key=lambda p: (int(re.sub(r"\D", "", p.kind)), p.kind))
        if promise.subject in runs.get(promise.kind, {})
    ]
