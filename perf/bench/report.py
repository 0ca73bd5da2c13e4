#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Runs the benches and writes what they measured to a Markdown file.

Reserves the hugepages that the in-memory bench needs beyond those that are free, and gives exactly these back.
"""
import argparse
import contextlib
import datetime
import os
import pathlib
import re
import signal
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "perf"))

from results import write_speed  # noqa: E402

KINDS = ("tcp4", "tcp4_asks", "tcp6", "udp4", "udp6")
FLOWS = (1 << 10, 1 << 16, 1 << 20)
MANY_FLOWS = 1 << 22  # tcp4 only
HUGEPAGE_KB = 2048
HUGEPAGES = 1100  # MANY_FLOWS of tcp4 are what needs most
NR_HUGEPAGES = pathlib.Path("/proc/sys/vm/nr_hugepages")
SUBJECT = re.compile(r"^  (\w+) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)$", re.M)
STAGE = re.compile(r"^    (\w+) +([\d.]+)$", re.M)


def meminfo(key):
    return int(re.search(rf"^{key}: +(\d+)", pathlib.Path("/proc/meminfo").read_text(encoding="ascii"), re.M)[1])


def add_hugepages(n):
    NR_HUGEPAGES.write_text(str(max(meminfo("HugePages_Total") + n, 0)), encoding="ascii")


@contextlib.contextmanager
def hugepages():
    """True if there are enough."""
    before = meminfo("HugePages_Total")
    lacking = max(HUGEPAGES - meminfo("HugePages_Free"), 0) if meminfo("Hugepagesize") == HUGEPAGE_KB else 0
    taken = 0
    try:
        if lacking:
            add_hugepages(lacking)
            taken = meminfo("HugePages_Total") - before
        yield meminfo("Hugepagesize") == HUGEPAGE_KB and meminfo("HugePages_Free") >= HUGEPAGES
    finally:
        if taken > 0:
            add_hugepages(-taken)


def output_of(*command):
    print("report:", *command, file=sys.stderr, flush=True)
    text = subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True).stdout
    sys.stderr.write(text)
    return text


def bench(program, kind, flows, huge, rounds):
    """Text of each flow count."""
    text = output_of(program, "--kind", kind, "--flows", ",".join(map(str, flows)), "--rounds", rounds,
                     *(["--huge"] if huge else []))
    parts = re.split(rf"^{kind}, ", text, flags=re.M)[1:]
    return {int(part.split()[0]): part for part in parts}


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(["---"] + ["---:"] * (len(head) - 1)) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def size(flows):
    return f"{flows >> 20} Mi" if flows >= 1 << 20 else f"{flows >> 10} Ki"


def in_memory(directory, huge, rounds):
    rows = []
    for kind in KINDS:
        flows = FLOWS + (MANY_FLOWS,) if kind == "tcp4" and huge else FLOWS
        for n, text in bench(directory / "bench", kind, flows, huge, rounds).items():
            median = {m[1]: float(m[2]) for m in SUBJECT.finditer(text)}
            low, high = next((m[3], m[4]) for m in SUBJECT.finditer(text) if m[1] == "pipeline")
            rows.append([kind, size(n), *(f"{median[s]:.1f}" for s in ("empty", "rewrite", "lookup", "pipeline")),
                         f"{low} to {high}", *(f"{median['pipeline'] / median[s]:.2f}" for s in ("rewrite", "lookup")),
                         re.search(r"one core at this clock: ([\d.]+) Mpps", text)[1]])
    head = ["kind", "flows", "empty", "rewrite", "lookup", "pipeline", "10 % to 90 %", "/ rewrite", "/ lookup", "Mpps"]
    return table(head, rows)


def stages(directory, huge, rounds):
    texts = bench(directory / "bench_stages", "tcp4", FLOWS, huge, rounds)
    cycles = {n: dict(STAGE.findall(text)) for n, text in texts.items()}
    names = list(dict.fromkeys(name for of in cycles.values() for name in of))
    return table(["stage", *map(size, cycles)], [[name, *(of.get(name, "-") for of in cycles.values())]
                                                 for name in names])


LIFE_HEAD = ("phase", "clock s", "loops", "packets", "flows", "RSS MiB", "p50", "p99", "p99.9", "p99.99", "max",
             "ended", "probes")


def life(directory):
    """What life.c prints: what its clock costs, and a row per phase."""
    lines = output_of(directory / "life").splitlines()
    rows = [line.split() for line in lines if len(line.split()) == len(LIFE_HEAD)]
    cost = re.search(r"costs ([\d.]+) us", lines[0])[1]
    return cost, table(LIFE_HEAD, rows)


def veth(build, rounds):
    rows = [line.split() for line in
            output_of(pathlib.Path(__file__).with_name("veth.py"), "--build", build, "--rounds", rounds).splitlines()]
    rows = [row for row in rows if row and row[0] in ("bare", "nftables", "spillway")]
    head = ["subject", "sent/s", "received/s", "of bare", "CPU ns per packet", "of bare", "rounds: received/s, CPU ns"]
    return table(head, [["-" if word == "nan" else word for word in row[:6]] + [", ".join(row[6:])] for row in rows])


def early(rounds):
    """Two rows for each rate of SYNs, and the ratios below them."""
    lines = output_of(pathlib.Path(__file__).with_name("early.py"), "--rounds", rounds).splitlines()
    rows = [line.split() for line in lines if line.split()[1:2] in (["off"], ["on"])]
    ratios = [line.split(maxsplit=2) for line in lines if line.split()[1:2] == ["on/off"]]
    head = ["SYNs/s", "early", "sent/s", "refused/s", "by workers", "by the gate", "lost in the ring", "bulk MB/s",
            "CPU %"]
    told = "\n".join(f"{rate} SYNs/s, on to off: {words}.  " for rate, _, words in ratios)
    return f"{table(head, rows)}\n{told}\n"


def cpu_name():
    return re.search(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)[1]


def commit():
    done = subprocess.run(["git", "-C", str(TOP), "describe", "--always", "--dirty"], check=False, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return done.stdout.strip() or "unknown"


def load():
    return pathlib.Path("/proc/loadavg").read_text(encoding="ascii").split()[0]


def life_section(clock_us, lives):
    return f"""## A million flows, from beginning to end

`build/perf/bench/life`: 1 000 000 TCP flows of one worker begin within a third of a second, idle, are asked on both
sides three times and answer, fall silent on one side and are ended with RST to both; then the same flows begin again,
close, and leave TIME_WAIT. `clock s`: of the bench's own clock, a loop per millisecond while nothing but timers is due,
a loop per 10 us while packets come in bursts of 32 per port. p50 to max: CPU time of the worker's thread per loop, us,
of which reading that clock is {clock_us}. `ended`, `probes`: the most that one loop ended, and sent. The wheel looks at
64 flows per loop, each of which is asked on two sides. RSS without hugepages, the measured times included (32 MiB).

{lives}"""


def report(args):
    begin = datetime.datetime.now(datetime.timezone.utc)
    load_before = load()
    directory = args.build / "perf" / "bench"
    with hugepages() as huge:
        memory = in_memory(directory, huge, args.rounds)
        by_stage = stages(directory, huge, args.rounds)
    clock_us, lives = life(directory)
    on_veth = veth(args.build, args.veth_rounds)
    on_early = early(args.veth_rounds)
    pages = "2 MiB pages" if huge else "plain pages (too few hugepages)"
    return f"""# Results

Written by `./dev bench`, {begin:%Y-%m-%d %H:%M} UTC, commit {commit()}.
{cpu_name()}, {os.cpu_count()} CPUs, Linux {os.uname().release}; {pages}.
Load average {load_before} before, {load()} after.

## Cycles per packet, in memory

One worker, established flows in random order, bursts of 32 shortest frames. `empty` is the harness alone and is part of
all others, `rewrite` a translation known beforehand, `lookup` the bare flow table with that translation, `pipeline` the
worker's whole turn. `tcp4` is a download, whose clients acknowledge; in `tcp4_asks` each packet begins an exchange with
its backend or ends one, which is the most that its signals can cost; `tcp6` has no payload. Medians of {args.rounds}
rounds; cycles of the time-stamp counter. Mpps: one core, harness subtracted.

{memory}
## Cycles per packet and stage

tcp4. Reading the counter around each stage costs some itself. Packets are looked up while they are parsed, so what
`parse` waits for is memory too.

{by_stage}
{life_section(clock_us, lives)}
## veth

`perf/bench/veth.py`: 60-byte UDP of 1000 flows from one CPU, the subject on another; medians of {args.veth_rounds}
rounds. `of bare`: against the AF_XDP forwarder that only swaps MAC addresses. Where other load shares the CPUs, the
time per packet says more than the rate.

{on_veth}
## Early shedding

`perf/bench/early.py`: SYNs of 16 addresses that may begin 20 flows a second each, beside a transfer through the same
worker; `storm.early` off and on in turns, medians of {args.veth_rounds} rounds of 2 s. `CPU %`: of the gateway's
process; the XDP program runs on the sender's. Two CPUs do everything: what the flood and the gateway leave is the
transfer's.

{on_early}"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--build", default=TOP / "build", type=pathlib.Path)
    parser.add_argument("--output", default=TOP / "perf" / "RESULTS.md", type=pathlib.Path)
    parser.add_argument("--rounds", default=101, type=int)
    parser.add_argument("--veth-rounds", default=5, type=int)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    text = report(args)
    write_speed(text, args.output)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
