# SPDX-License-Identifier: BSD-3-Clause
"""Clients that come when a timetable says (perf/storm/load.c), and what became of each of their attempts."""

import collections
import csv
import json
import math
import os
import subprocess
import time

from tools import BUILD
from topology import CLIENTS, WAN_GW

HOSTS = range(1, 5)


def wait_until(ns):
    """Of the monotonic clock."""
    time.sleep(max(0, ns - time.monotonic_ns()) / 1e9)


def sources(family, networks):
    """Four hosts of each: 198.18.N.0/24, 2001:db8:N::/64."""
    return [{4: f"198.18.{n}.{h}", 6: f"2001:db8:{n}::{h}"}[family] for n in networks for h in HOSTS]


def _ways(networks, verb):
    net = {4: "198.18.{}.0/24", 6: "2001:db8:{}::/64"}
    for f in (4, 6):
        for via, ns in ((CLIENTS[f][0], "wan"), (WAN_GW[f], "gw")):
            yield ns, [f"route {verb} {net[f].format(n)} via {via}" for n in networks]


def spread_clients(lab, networks):
    """Gives the client's host addresses of these networks, and the ways there."""
    for f in (4, 6):
        bits = {4: 32, 6: 128}[f]
        extra = " nodad" if f == 6 else ""
        lab.client.ip(*(f"addr replace {a}/{bits} dev lo{extra}" for a in sources(f, networks)))
    for ns, lines in _ways(networks, "replace"):
        lab.ns[ns].ip(*lines)


def gather_clients(lab, networks):
    """Takes back what spread_clients() gave."""
    for ns, lines in _ways(networks, "del"):
        lab.ns[ns].ip(*lines)
    for f in (4, 6):
        lab.client.ip(*(f"addr del {a}/{({4: 32, 6: 128})[f]} dev lo" for a in sources(f, networks)))


def start_load(lab, ns, to, port, log, *options):
    argv = [os.path.join(BUILD, "perf", "storm", "storm_load"), "--to", to, "--port", str(port), "--log", str(log)]
    return lab.children.spawn(ns, *argv, *map(str, options), stdout=subprocess.PIPE, text=True)


def percentile(values, share):
    """The least of them that so large a share does not exceed; None of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


class Attempt(collections.namedtuple("Attempt", "began_s connected_s first_s ended_s result")):
    """Seconds since the load's begin; None: it never was."""

    @property
    def connect_ms(self):
        return None if self.connected_s is None else 1000 * (self.connected_s - self.began_s)

    @property
    def answer_ms(self):
        """Until the first byte."""
        return None if self.first_s is None else 1000 * (self.first_s - self.began_s)

    @property
    def took_ms(self):
        return 1000 * (self.ended_s - self.began_s)


def _seconds(text):
    return int(text) / 1e6 if text else None


def read_log(path):
    with open(path, encoding="ascii", newline="") as f:
        keys = ("began_us", "connected_us", "first_us", "ended_us")
        return [Attempt(*(_seconds(row[k]) for k in keys), row["result"]) for row in csv.DictReader(f)]


class Clients:
    """A load of so many attempts a second, each of its own; who fails tries again at once, `retries` times.

    `begin_ns` is on the monotonic clock.
    """

    def __init__(self, lab, to, port, log, *, origins, rate, seconds, timeout_ms, retries=0):
        options = ("--from", ",".join(origins), "--rate", rate, "--seconds", seconds, "--timeout-ms", timeout_ms)
        options += ("--retries", retries) if retries else ()
        self._lab, self._log = lab, log
        self._child = start_load(lab, lab.client, to, port, log, *options)
        self.begin_ns = json.loads(self._child.stdout.readline())["begin_ns"]

    def at(self, ns):
        """A moment of the monotonic clock, in seconds since the begin."""
        return (ns - self.begin_ns) / 1e9

    def wait(self):
        """Until the last one has ended: (the load's account of itself, its attempts)."""
        account = json.loads(self._child.stdout.readline())
        self._child.wait(10)
        self._lab.children.end(self._child)
        return account, read_log(self._log)
