# SPDX-License-Identifier: BSD-3-Clause
"""The lab's own tools, run as children: HTTP load and the wire checker."""

import json
import os
import signal
import subprocess

from netns import LabError
from topology import CLIENTS, VIP, WAN_GW

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("SPILLWAY_BUILD", os.path.join(ROOT, "build"))

FLOOD_NET = "198.19.0.0/16"


def tool(name):
    return os.path.join(BUILD, "tests", "lab", name)


def bench_tool(name):
    return os.path.join(BUILD, "perf", "bench", name)


class Load:
    """httpload from all client addresses of one family; `wait` or `stop` gives what it saw."""

    def __init__(self, lab, family, *, to=None, stderr=None, sources=None, port=80, **options):
        argv = [tool("httpload"), "--to", to or VIP[family], "--port", str(port)]
        argv += ["--from", ",".join(sources or CLIENTS[family])]
        for key, value in options.items():
            argv += [f"--{key.replace('_', '-')}"] + ([] if value is True else [str(value)])
        self._lab = lab
        self.child = lab.children.spawn(lab.client, *argv, stdout=subprocess.PIPE, stderr=stderr)

    def running(self):
        return self.child.poll() is None

    def wait(self, timeout_s=120):
        out, _ = self.child.communicate(timeout=timeout_s)
        self._lab.children.end(self.child)
        return json.loads(out)

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        return self.wait(30)


class Flood:
    """SYNs from random addresses of FLOOD_NET, from the client's side of the gateway or into a sink beside it.

    A context manager: while it is there, the gateway routes FLOOD_NET towards the clients, where nobody answers.
    """

    SINK = ("sink0", "sink1")

    def __init__(self, lab):
        self._lab = lab
        self._sink = None

    def __enter__(self):
        inner, outer = self.SINK
        self._lab.gw.ip(f"route replace {FLOOD_NET} via {WAN_GW[4]}")
        self._lab.wan.ip(
            f"route replace blackhole {FLOOD_NET}",
            f"link add {inner} type veth peer name {outer}",
            f"link set {inner} up",
            f"link set {outer} up",
        )
        argv = [bench_tool("sink"), outer, "0", "3600"]
        self._sink = self._lab.children.spawn(self._lab.wan, *argv, stdout=subprocess.PIPE, text=True)
        if self._sink.stdout.readline() != "ready\n":
            self.__exit__()
            raise LabError("the sink did not start")
        return self

    def __exit__(self, *exc):
        self._lab.children.end(self._sink)
        self._lab.wan.ip(f"link del {self.SINK[0]}", f"route del blackhole {FLOOD_NET}")
        self._lab.gw.ip(f"route del {FLOOD_NET}")

    def start(self, seconds, *, rate=None, port=80, to_sink=False, cpu=1):
        argv = ["taskset", "-c", str(cpu), bench_tool("flood"), "--mode", "syn"]
        argv += ["--device", self.SINK[0] if to_sink else "gw", "--from", "02:00:00:00:00:01", "--to", self._mac()]
        argv += ["--source", FLOOD_NET.split("/")[0], "--destination", VIP[4], "--port", str(port)]
        argv += ["--seconds", str(seconds)] + (["--rate", str(rate)] if rate else [])
        return self._lab.children.spawn(self._lab.wan, *argv, stdout=subprocess.PIPE, text=True)

    def _mac(self):
        return json.loads(self._lab.gw.run("ip", "-j", "link", "show", "eth1").stdout)[0]["address"]

    def wait(self, child, timeout_s=90):
        """How many frames it sent."""
        out, _ = child.communicate(timeout=timeout_s)
        self._lab.children.end(child)
        return int(out.split()[0])


class Wire:
    """Checks every packet that passes one interface. A context manager."""

    def __init__(self, lab, ns, device, pcap_filter="", direction=None):
        argv = [tool("wirecheck"), "-i", device]
        argv += ["-d", direction] if direction else []
        argv += [pcap_filter] if pcap_filter else []
        self._lab = lab
        self.child = lab.children.spawn(ns, *argv, stdout=subprocess.PIPE, text=True)
        json.loads(self.child.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._lab.children.end(self.child)

    def snapshot(self):
        self.child.send_signal(signal.SIGUSR1)
        return json.loads(self.child.stdout.readline())


def both_sides(lab, direction=None):
    """Wires on the client's and on the upstream's side of the gateway, for the gateway's traffic alone."""
    vips = "host 198.18.100.1 or host 2001:db8:100::1"
    snats = "host 198.18.101.10 or host 2001:db8:101::10"
    return Wire(lab, lab.wan, "gw", vips, direction), Wire(lab, lab.lan, "gw", snats, direction)


def settled(wire):
    """A snapshot after which nothing has moved for two looks in a row."""
    last = wire.snapshot()
    while (now := wire.snapshot())["packets"] != last["packets"]:
        last = now
    return now
