#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""The table of failover.py, from what its runs recorded and nothing else."""

import argparse
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2] / "tests" / "lab")]

from attempts import percentile, read_log  # noqa: E402
from results import PATH, write_failover  # noqa: E402

WARM_S = 1  # of the time before: not counted
HEAD = (
    "subject", "fault", "requests", "never connected", "unanswered", "unanswered once back", "p99 connect before",
    "slowest connect", "slowest answer", "SYNs/s to it", "used again after", "share, first 3 s", "share at the end",
)


class Run:
    def __init__(self, directory):
        self.record = json.loads((directory / "run.json").read_text(encoding="ascii"))
        attempts = read_log(directory / "attempts.csv")
        died_s, back_s = self.record["died_s"], self.record["back_s"]
        self.before = [a for a in attempts if WARM_S <= a.began_s and a.ended_s < died_s]
        # Whoever was under way when it died had to do with it, too.
        self.dead = [a for a in attempts if a.began_s < back_s and a.ended_s >= died_s]
        self.back = [a for a in attempts if a.began_s >= back_s]

    def row(self):
        r, dead = self.record, self.dead
        title = r["title"] + (", IPv6" if r["family"] == 6 else "")
        used = r["used_after_s"]
        return [
            title, r["fault"], str(len(dead)),
            str(sum(a.connected_s is None for a in dead)),
            str(sum(a.result != "ok" for a in dead)),
            str(sum(a.result != "ok" for a in self.back)),
            ms(percentile([a.connect_ms for a in self.before if a.connected_s is not None], 0.99)),
            ms(max((a.connect_ms for a in dead if a.connected_s is not None), default=None)),
            ms(max((a.answer_ms for a in dead if a.first_s is not None), default=None)),
            f"{r['syns'] / r['syns_s']:.1f}",
            f"not in {r['after_s'] - r['first_s'] - r['last_s']:g} s" if used is None else f"{used:.2f} s",
            f"{100 * r['share_first']:.0f} %", f"{100 * r['share_last']:.0f} %",
        ]


def ms(value):
    return "" if value is None else f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 2)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def settings(runs):
    seen = {run.record["title"]: run.record["settings"] for run in runs}
    lines = (f"- {title}: {'; '.join(f'`{s}`' for s in said) or 'as it comes'}\n" for title, said in seen.items())
    return "".join(lines)


def doubts(runs):
    found = [
        f"- {run.record['title']}, IPv{run.record['family']}, {run.record['fault']}: {'; '.join(said)}\n"
        for run in runs if (said := run.record["complaints"])
    ]
    return "\nRuns that do not count:\n\n" + "".join(found) if found else ""


def text_of(runs):
    r = runs[0].record
    back_s = sorted({run.record["after_s"] for run in runs})
    watched_s = " or ".join(f"{s:g}" for s in back_s)
    return f"""## A dead upstream among four

{r["rate"]} connections a second over {r["n_upstreams"]} upstreams that answer in a millisecond; one dies, is dead for
{r["dead_s"]:g} s, and comes back. Killed: its process is, and its host refuses. Unplugged: its host drops all TCP, what
comes and what it would send; neighbour resolution goes on, so that silence alone tells. Clients wait for
{r["patience_ms"] / 1000:g} s and do not try again. Counted are the requests that were under way while it was dead:
`never connected`, and `unanswered`, these included. Whoever was with it at that very moment is lost with it, whoever
forwards. HAProxy takes a connection before it has an upstream, so that its `slowest connect` says nothing of one;
`slowest answer`, until the first byte, says it of all. `SYNs/s to it`: what came to the dead host from
{r["opens_s"]:g} s after its death on, of clients and checks alike. Its share is of what it would answer if all were
treated alike: in the {r["first_s"]:g} s from its first answer on, and in the last {r["last_s"]:g} of the {watched_s} s
for which it was watched. Linux {r["kernel"]}. Repeat it with `./dev failover`.

{settings(runs)}
{table(HEAD, [run.row() for run in runs])}{doubts(runs)}"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=pathlib.Path, help="directory of what was recorded")
    parser.add_argument("--output", type=pathlib.Path, default=PATH)
    args = parser.parse_args()
    runs = [Run(path.parent) for path in sorted(args.runs.glob("*/run.json"), key=lambda p: p.stat().st_mtime)]
    if not runs:
        sys.exit(f"no runs in {args.runs}")
    write_failover(text_of(runs), args.output)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
