# SPDX-License-Identifier: BSD-3-Clause
"""Five outages, each first over plain nftables NAT, then over Spillway, and what users felt. Leaves nothing behind."""

import argparse
import contextlib
import signal
import sys
import textwrap
import time

from gateways import KINDS, Nftables, Spillway, running
from netns import LabError
from outages import OUTAGES, Unseen
from servers import start_servers
from topology import CLIENTS, VIP, Lab, bracketed, end_on_signals

PICTURE = """
  client ---- wan ------ eth1 [ gateway ] eth2 ------ lan ---+--- up1   198.18.3.21   nginx
  20 addresses           VIP  198.18.100.1                   +--- up2   198.18.3.22   nginx
  v4 and v6              SNAT 198.18.101.10                  +--- up3   198.18.3.23   nginx, a slow server
                                                             +--- dns   198.18.3.53   unbound
"""

WIDTHS = (9, 34, 34, 46)
SAID = 4  # sentences of Spillway's in the table; the rest is a command away
FAILURES = (LabError, TimeoutError, OSError)


def say(text=""):
    print(text, flush=True)


class Shown(Unseen):
    """Each step and each second is a line."""

    def step(self, text):
        say(f"    {text}")

    def count(self, seconds, **counts):
        figures = "   ".join(f"{name} {n:4d}" for name, n in counts.items())
        say(f"      {seconds:5.0f} s   {figures}")


class Row:
    """What became of one outage, per gateway."""

    def __init__(self, outage):
        self.outage = outage
        self.felt = {}
        self.passed = {}  # hurt before, cured after
        self.said = []

    def run(self, gateway):
        outage, name = self.outage, gateway.name
        began = time.monotonic()
        try:
            seen = outage.measure(Shown())
        except FAILURES as error:
            self.felt[name], self.passed[name] = f"not measured: {error}", False
        else:
            self.felt[name] = outage.felt(seen)
            self.passed[name] = (outage.cured if gateway.name == Spillway.name else outage.hurt)(seen)
        say(f"    -> {self.felt[name]}   ({time.monotonic() - began:.0f} s)")

    def ok(self):
        return all(self.passed.values())


def wrapped(cell, width):
    """A cell is a text, or a list of them."""
    texts = [cell] if isinstance(cell, str) else cell
    return [line for text in texts for line in textwrap.wrap(text, width)] or [""]


def lines_of(cells):
    """One row of the table: each cell wrapped to its column."""
    columns = [wrapped(cell, width) for cell, width in zip(cells, WIDTHS)]
    for i in range(max(len(column) for column in columns)):
        parts = (column[i] if i < len(column) else "" for column in columns)
        yield "  ".join(part.ljust(width) for part, width in zip(parts, WIDTHS)).rstrip()


def show_table(rows):
    say()
    cells = [("outage", "what users felt over nftables", "what users felt over Spillway", "what Spillway says")]
    for row in rows:
        felt = (row.felt.get(name, "-") for name in (Nftables.name, Spillway.name))
        cells.append((row.outage.name, *felt, row.said[:SAID] + ["…"] * (len(row.said) > SAID)))
    for i, row in enumerate(cells):
        for line in lines_of(row):
            say(line)
        say("  ".join("-" * width for width in WIDTHS) if i < len(cells) - 1 else "")


def show_verdict(rows):
    for row in rows:
        if not row.passed.get(Nftables.name, True):
            say(f"{row.outage.name}: nftables did not fail as it should: the lab is no proof")
        if not row.passed.get(Spillway.name, True):
            say(f"{row.outage.name}: Spillway did not cure it")
    good = sum(row.ok() for row in rows)
    say(f"{good} of {len(rows)} outages went as they should.")


def show_how(lab, gateway):
    inside = f"ip netns exec {lab.client.name}"
    say("\nLook further, from another terminal:")
    if isinstance(gateway, Spillway):
        for command in gateway.COMMANDS:
            say(f"  {gateway.ctl_binary} --socket {gateway.socket} {command}")
    for family in (4, 6):
        say(f"  {inside} curl -sg http://{bracketed(VIP[family])}/name")
    say(f"  ip netns exec {lab.wan.name} tcpdump -ni gw host {VIP[4]}")
    say(f"  unbound-control -c {lab.path('dns')}/unbound.conf local_data_remove shop.lab.test.")
    say(f"  ip netns exec {lab.gw.name} bash")
    say(f"  kill {lab.nginx['up1'].child.pid}     # up1 dies")
    say("\nCtrl-C ends the demo and removes everything.")


def wait_for_the_end(gateway):
    """Until Ctrl-C; a gateway that ends by itself is news."""
    with contextlib.suppress(KeyboardInterrupt):
        if not isinstance(gateway, Spillway):
            signal.pause()
        status = gateway.child.wait()
        raise LabError(f"spillway ended with {status}\n{gateway.output()}")


def act(rows, gateway):
    """All outages over one gateway, which must live through them."""
    say(f"\n=== over {gateway.title} ===")
    for number, row in enumerate(rows, 1):
        say(f"\n{number}/{len(rows)}  {row.outage.name}: {row.outage.title}")
        chapter = gateway.chapter()
        row.run(gateway)
        if before := row.felt.get(Nftables.name) if gateway.name == Spillway.name else None:
            say(f"       over nftables: {before}")
        if not gateway.alive():
            raise LabError(f"{gateway.name} is gone\n{gateway.output()}")
        row.said = gateway.told(chapter, row.outage.name)


def demo(args):
    began = time.monotonic()
    say(PICTURE)
    say(f"Services behind {VIP[4]} and {VIP[6]}; {len(CLIENTS[4])} clients from {CLIENTS[4][0]} on, and in IPv6.")
    with Lab(n_queues=args.workers) as lab:
        start_servers(lab)
        rows = [Row(OUTAGES[name](lab)) for name in args.only]
        services = sum((row.outage.services for row in rows), ())
        for kind in args.gateways:
            for row in rows:
                row.outage.arrange()
            gateway = KINDS[kind](lab, args.workers, services)
            with running(gateway):
                act(rows, gateway)
                if kind != args.gateways[-1]:
                    continue
                show_table(rows)
                show_verdict(rows)
                say(f"It took {time.monotonic() - began:.0f} s.")
                if not args.once:
                    show_how(lab, gateway)
                    wait_for_the_end(gateway)
                    say("\nremoving everything ...")
    return 0 if all(row.ok() for row in rows) else 1


def outage_list(text):
    names = text.split(",")
    for name in names:
        if name not in OUTAGES:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(OUTAGES)}")
    return [name for name in OUTAGES if name in names]


def parse_arguments():
    parser = argparse.ArgumentParser(prog="dev demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the table instead of waiting for Ctrl-C")
    parser.add_argument(
        "--only", type=outage_list, default=list(OUTAGES), metavar="NAME,…", help=f"some of {', '.join(OUTAGES)}"
    )
    parser.add_argument("--gateway", choices=("both", *KINDS), default="both", help="over what; default: both")
    parser.add_argument("--workers", type=int, choices=(1, 2), default=1, help="of Spillway, and queues of each link")
    args = parser.parse_args()
    args.gateways = list(KINDS) if args.gateway == "both" else [args.gateway]
    args.once = args.once or not sys.stdin.isatty()
    return args


def main():
    args = parse_arguments()
    end_on_signals((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        return demo(args)
    except KeyboardInterrupt:
        say("\nThe demo is gone, nothing is left of it.")
        return 130
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
