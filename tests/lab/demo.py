# SPDX-License-Identifier: BSD-3-Clause
"""The demo: the lab, a gateway in it, requests through it, and how to look further. Leaves nothing behind."""

import argparse
import contextlib
import os
import signal
import subprocess
import sys

from gateways import KINDS, Spillway
from netns import LabError
from servers import Dns, Nginx
from tools import Load, tool
from topology import CLIENTS, UPSTREAMS, VIP, Lab, bracketed, end_on_signals

REQUESTS = 5000
TTL_S = 5

PICTURE = """
  client ---- wan ------ eth1 [ gateway ] eth2 ------ lan ---+--- up1   198.18.3.21   nginx
  20 addresses           VIP  198.18.100.1                   +--- up2   198.18.3.22   nginx
  v4 and v6              SNAT 198.18.101.10                  +--- up3   198.18.3.23   nginx
                                                             +--- dns   198.18.3.53   unbound
"""


def say(text=""):
    print(text, flush=True)


def table(header, rows):
    """Aligned columns: the first to the left, numbers to the right."""
    rows = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    for row in rows:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        say("  " + "   ".join(cells))


def run_load(lab, family):
    """Requests with a progress line; the result of httpload."""
    load = Load(lab, family, requests=REQUESTS, concurrency=32, progress=True, stderr=subprocess.PIPE)
    for line in load.child.stderr:
        done, ok = (int(n) for n in line.split())
        say(f"    IPv{family}  {done:6d} of {REQUESTS} requests, {ok} answered")
    return load.wait()


def show_results(results):
    say("\nWho answered:")
    rows = [(up, *(results[f]["backends"].get(up, 0) for f in (4, 6))) for up in UPSTREAMS]
    rows.append(("failed", *(results[f]["failed"] for f in (4, 6))))
    rows.append(("requests/s", *(round((REQUESTS - results[f]["failed"]) / results[f]["seconds"]) for f in (4, 6))))
    rows.append(("slowest, ms", *(round(results[f]["max_ms"], 1) for f in (4, 6))))
    table(("backend", "IPv4", "IPv6"), rows)


def show_ledger(gateway):
    ledger = gateway.ledger()["sum"]
    say("\nThe gateway's ledger (every packet has a name; balance is what is missing):")
    terms = ("rx", "forwarded", "answered", "shed", "absorbed", "dropped", "balance")
    table(terms, [[ledger[term] for term in terms]])


def show_how(lab, gateway):
    inside = f"ip netns exec {lab.client.name}"
    say("\nLook further, from another terminal:")
    if isinstance(gateway, Spillway):
        for command in ("status", "services", "backends", "flows", "ledger"):
            say(f"  {gateway.ctl_binary} --socket {gateway.socket} {command}")
    for family in (4, 6):
        say(f"  {inside} curl -sg http://{bracketed(VIP[family])}/name")
    say(f"  {inside} {tool('httpload')} --to {VIP[4]} --requests 10000 --from {CLIENTS[4][0]},{CLIENTS[4][1]}")
    say(f"  ip netns exec {lab.wan.name} tcpdump -ni gw host {VIP[4]}")
    say(f"  unbound-control -c {lab.path('dns')}/unbound.conf local_data_remove shop.lab.test.")
    say(f"  ip netns exec {lab.gw.name} bash")


def wait_for_the_end(gateway):
    """Ctrl-C raises; a gateway that ends by itself is news."""
    if not isinstance(gateway, Spillway):
        signal.pause()
    status = gateway.child.wait()
    raise LabError(f"spillway ended with {status}\n{gateway.output()}")


@contextlib.contextmanager
def running(gateway):
    gateway.start()
    try:
        gateway.wait_serving()
        yield
    finally:
        gateway.stop()


def demo(args):
    say(PICTURE)
    with Lab(n_queues=args.workers) as lab:
        files = lab.path("files")
        os.mkdir(files)
        for up in UPSTREAMS:
            Nginx(lab, up, files)
        Dns(lab).set("shop", [u[f] for u in UPSTREAMS.values() for f in (4, 6)], TTL_S)
        gateway = KINDS[args.gateway](lab, args.workers)
        with running(gateway):
            say(f"The lab is up, {gateway.name} serves {VIP[4]} and {VIP[6]}. Each request is a connection of its own:")
            results = {family: run_load(lab, family) for family in (4, 6)}
            show_results(results)
            if isinstance(gateway, Spillway):
                show_ledger(gateway)
            if not args.once:
                show_how(lab, gateway)
                say("\nCtrl-C ends the demo and removes everything.")
                wait_for_the_end(gateway)
    return 1 if any(r["failed"] for r in results.values()) else 0


def main():
    parser = argparse.ArgumentParser(prog="dev demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the requests instead of waiting for Ctrl-C")
    parser.add_argument("--gateway", choices=KINDS, default=Spillway.name, help="what stands in the gateway's place")
    parser.add_argument("--workers", type=int, choices=(1, 2), default=1)
    args = parser.parse_args()
    args.once = args.once or not sys.stdin.isatty()
    end_on_signals()
    try:
        return demo(args)
    except KeyboardInterrupt:
        say("\nThe demo is gone, nothing is left of it.")
        return 0
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
