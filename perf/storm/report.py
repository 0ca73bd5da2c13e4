#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Tables and plots of the storm bench, from what its runs recorded and nothing else.

Goodput is what was answered within the deadline of an attempt whose client still waited, per second. A run has
recovered at the first moment after its trigger from which on five seconds' mean is at least 0.95 of the load.
"""

import argparse
import csv
import json
import pathlib
import re
import statistics
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import promises  # noqa: E402
from results import PATH, write_storm  # noqa: E402

RECOVERED, RECOVERED_S = 0.95, 5
STEP_S = 0.1
COLOURS = {
    "nftables": "#888888", "haproxy": "#c77c11", "haproxy-tuned": "#8c510a", "fixed-600": "#8c510a",
    "spillway-off": "#c0392b", "spillway": "#1a7f37",
}
ORDER = {name: n for n, name in enumerate(COLOURS)}


class Run:
    def __init__(self, directory):
        self.dir = directory
        self.record = json.loads((directory / "run.json").read_text(encoding="ascii"))
        self.kind, self.subject, self.seed = (self.record[key] for key in ("kind", "subject", "seed"))
        self.load = self.record["lambda"]
        with open(directory / "attempts.csv", encoding="ascii", newline="") as f:
            self.attempts = list(csv.DictReader(f))
        self.answers_s = sorted(int(a["ended_us"]) / 1e6 for a in self.attempts if a["result"] == "ok")
        self.begin_s = self.record.get("trigger_at_us", 0) / 1e6
        self.end_s = self.record.get("trigger_until_us", 0) / 1e6

    def goodput(self, begin_s, end_s):
        """Per second; None where the run was over before."""
        if end_s > self.record["seconds"]:
            return None
        return sum(begin_s <= t < end_s for t in self.answers_s) / (end_s - begin_s)

    def before(self):
        return self.goodput(2, self.begin_s)

    def during(self):
        return self.goodput(self.begin_s, self.end_s)

    def after(self, seconds):
        """The five seconds around so many seconds after the trigger's end."""
        at_s = self.end_s + seconds
        return self.goodput(at_s - 2.5, at_s + 2.5)

    def recovery_s(self):
        """None: never while it lasted."""
        at_s = self.end_s
        while at_s + RECOVERED_S <= self.record["seconds"]:
            if self.goodput(at_s, at_s + RECOVERED_S) >= RECOVERED * self.load:
                return at_s - self.end_s
            at_s += STEP_S
        return None

    def late_ms(self):
        """Within that 99 of 100 were answered, of those that were while the trigger lasted; None of too few."""
        ms = sorted(
            (int(a["ended_us"]) - int(a["began_us"])) / 1000 for a in self.attempts
            if a["result"] == "ok" and self.begin_s <= int(a["ended_us"]) / 1e6 < self.end_s
        )
        return ms[int(0.99 * len(ms))] if len(ms) >= 100 else None

    def wasted(self):
        return self.record["upstream"]["abandoned"]

    def curve(self):
        """Goodput of each second."""
        n = int(self.record["seconds"])
        counts = [0] * n
        for t in self.answers_s:
            if t < n:
                counts[int(t)] += 1
        return counts

    def connect_us(self, mode):
        """R9: how long connecting took while the cure was in that mode."""
        arms = [arm for arm in self.record["arms"] if arm["mode"] == mode]
        return [
            int(a["connected_us"]) - int(a["began_us"])
            for a in self.attempts
            if a["connected_us"] and any(arm["from_us"] <= int(a["began_us"]) < arm["until_us"] for arm in arms)
        ]

    def connects_s(self):
        """--herd: when each client had its answer."""
        return self.answers_s


def median(values):
    """Of those that are; None if most are not."""
    there = [v for v in values if v is not None]
    return statistics.median(there) if 2 * len(there) > len(values) else None


def spread(values, worst, unit="", digits=0):
    """The median, and the worst of several that differ."""
    middle, bad = number(median(values), unit, digits), number(worst(values, key=_rank), unit, digits)
    return middle if middle == bad else f"{middle} ({bad})"


def _rank(value):
    """What never came is the latest."""
    return float("inf") if value is None else value


def number(value, unit="", digits=0):
    return "never" if value is None else f"{value:.{digits}f}{unit}"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def rate_row(runs):
    """One subject of one kind: of each figure the median of its seeds, and the worst."""

    def of(method, *args):
        return [getattr(run, method)(*args) for run in runs]

    cells = [spread(of("before"), min, "/s"), spread(of("during"), min, "/s"), spread(of("after", 30), min, "/s")]
    late = of("after", 60)
    cells.append("" if None in late else spread(late, min, "/s"))
    cells += [spread(of("recovery_s"), max, " s", 1), spread(of("wasted"), max)]
    slow = of("late_ms")
    cells.insert(2, "" if None in slow else spread(slow, max, " ms"))
    return [runs[0].record["subject_title"], *cells]


def herd_row(runs):
    def within(run, seconds):
        return sum(t <= seconds for t in run.connects_s())

    def last(run):
        return max(run.connects_s(), default=None)

    def half(run):
        return statistics.median(run.connects_s()) if run.connects_s() else None

    return [
        runs[0].record["subject_title"],
        *(spread([within(run, s) for run in runs], min) for s in (6, 30)),
        spread([half(run) for run in runs], max, " s", 1),
        spread([last(run) for run in runs], max, " s", 1),
        spread([run.record["herd"] - len(run.answers_s) for run in runs], max),
        spread([len(run.attempts) for run in runs], max),
        spread([run.record["upstream"]["ListenDrops"] for run in runs], max),
    ]


def steady_rows(run):
    """R9: enforce and off by turns, in the same run."""
    rows = []
    for mode in ("enforce", "off"):
        us = sorted(run.connect_us(mode))
        cells = [f"{us[int(share * len(us))]}" if us else "" for share in (0.5, 0.9, 0.99)]
        rows.append([f"storm: {mode}", f"{len(us)}", *cells])
    return rows


def steady(run):
    did = run.record["did"]
    text = table(STEADY_HEAD, steady_rows(run))
    text += f"\nOf {did['attempts']} attempts {did['held']} were held, {did['refused']} refused, "
    text += f"{did['silent']} unanswered. "
    told = "; ".join(run.record["told"])
    return text + (f"Events: {told}.\n" if told else "No event.\n")


RATE_HEAD = ("subject", "before", "during", "99 of 100", "+30 s", "+60 s", "recovered after", "done for nobody")
HERD_HEAD = ("subject", "answered by 6 s", "by 30 s", "half of them by", "the last", "never", "attempts",
             "SYNs that the upstream dropped")
STEADY_HEAD = ("mode", "connects", "half within, us", "90 %", "99 %")


def plot(runs_by_subject, path):
    """The first seed of each subject."""
    figure, axes = plt.subplots(figsize=(8, 3))
    for subject, runs in runs_by_subject.items():
        run = runs[0]
        axes.plot(range(len(run.curve())), run.curve(), label=run.record["subject_title"],
                  color=COLOURS.get(subject), linewidth=1.4)
    first = next(iter(runs_by_subject.values()))[0]
    if first.end_s:
        axes.axvspan(first.begin_s, first.end_s, color="#dddddd", zorder=0)
        axes.axhline(first.load, color="#bbbbbb", linewidth=0.8, linestyle=":")
    axes.set(xlabel="seconds", ylabel="answers in time, per second", ylim=(0, None), xlim=(0, None))
    axes.legend(fontsize=7, loc="best", frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def load_runs(directory):
    """{kind: {subject: [runs]}}, subjects in the order of their colours."""
    runs = {}
    for path in sorted(directory.glob("*/run.json"), key=lambda p: p.stat().st_mtime):
        run = Run(path.parent)
        runs.setdefault(run.kind, {}).setdefault(run.subject, []).append(run)
    for kind, subjects in runs.items():
        runs[kind] = dict(sorted(subjects.items(), key=lambda item: ORDER.get(item[0], 0)))
    return dict(sorted(runs.items(), key=lambda item: (int(re.search(r"\d+", item[0])[0]), item[0])))


def section(kind, subjects, plots):
    first = next(iter(subjects.values()))[0]
    text = f"### {kind}: {first.record['title']}\n\n"
    if "arms" in first.record:
        return text + steady(first)
    if first.record["herd"]:
        text += table(HERD_HEAD, [herd_row(runs) for runs in subjects.values()])
    else:
        text += table(RATE_HEAD, [rate_row(runs) for runs in subjects.values()])
    plot(subjects, plots / f"{kind}.svg")
    return text + f"\n![goodput over time](storm/{kind}.svg)\n"


def settings(runs):
    seen = {}
    for subjects in runs.values():
        for each in subjects.values():
            seen[each[0].record["subject_title"]] = each[0].record["settings"]
    lines = (f"- {title}: {'; '.join(f'`{s}`' for s in said) or 'nothing to set'}\n" for title, said in seen.items())
    return "".join(lines)


def asked(runs):
    return table(("run", "what is asked", "the worst", ""), promises.rows(runs)) + "\n"


def doubts(runs):
    found = [
        f"- {run.kind} over {run.record['subject_title']}, seed {run.seed}: {'; '.join(run.record['complaints'])}\n"
        for subjects in runs.values() for each in subjects.values() for run in each if run.record["complaints"]
    ]
    return "Runs that do not count:\n\n" + "".join(found) + "\n" if found else ""


def head(runs):
    every = [run for subjects in runs.values() for each in subjects.values() for run in each]
    capacities = [run.record["capacity"] for run in every if "capacity" in run.record]
    measured = f" (measured before each run: {min(capacities):.0f} to {max(capacities):.0f}/s)" if capacities else ""
    record = every[0].record
    seeds = len({run.seed for run in every})
    several = f"Where there are several seeds (up to {seeds}): medians, and the worst in brackets"
    medians = several if seeds > 1 else "One seed"
    return f"""## Storm

Ten workers that take 20 ms for a request do 500 a second{measured}.
Clients ask for {record["lambda"]} a second, wait {record["timeout_ms"]} ms, and then try again at once, three times;
the upstream does what they gave up like all the rest. The grey part of a plot is the trigger. Goodput is what was
answered to a client that still waited; `recovered after` says from when on five seconds' mean is 0.95 of the load
again; `99 of 100` says within what time those were answered that were while the trigger lasted; `done for nobody`
counts requests whose clients had left. {medians}; Linux {record["kernel"]}. Repeat it with
`./dev storm`.

{settings(runs)}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=pathlib.Path, help="directory of what was recorded")
    parser.add_argument("--output", type=pathlib.Path, default=PATH)
    args = parser.parse_args()
    runs = load_runs(args.runs)
    if not runs:
        sys.exit(f"no runs in {args.runs}")
    plots = args.output.parent / "storm"
    plots.mkdir(parents=True, exist_ok=True)
    sections = [section(kind, subjects, plots) for kind, subjects in runs.items()]
    write_storm(head(runs) + doubts(runs) + asked(runs) + "\n".join(sections), args.output)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
