# SPDX-License-Identifier: BSD-3-Clause
"""The lab's own tools, run as children: HTTP load and the wire checker."""

import collections
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import time

from netns import LabError, eventually
from topology import CLIENTS, VIP, WAN_GW

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("SPILLWAY_BUILD", os.path.join(ROOT, "build"))

FLOOD_NET = "198.19.0.0/16"
# Nobody's, and nobody is there: 2^20 addresses of IPv4, and as many /64s.
SPOOFED_NETS = {4: "10.0.0.0/12", 6: "2001:db8:f000::/36"}
SPOOFED_SOURCES = 1 << 20


def report(record_property, **figures):
    """Into the JUnit file, and beside it for who watches (pytest -s)."""
    with open("/proc/loadavg", encoding="ascii") as f:
        figures["load"] = f.read().split()[0]
    for key, value in figures.items():
        record_property(key, str(value))
    print(" ".join(f"{key}={value}" for key, value in figures.items()))


def nstat(ns, *names):
    """Counters of the namespace's TCP, as /proc/net/netstat and snmp have them."""
    words = {}
    for path in ("/proc/net/netstat", "/proc/net/snmp"):
        lines = [line.split() for line in ns.run("cat", path).stdout.splitlines()]
        for keys, values in zip(lines[::2], lines[1::2]):
            words.update(zip((keys[0].rstrip(":") + k for k in keys[1:]), values[1:]))
    return {name: int(words[name]) for name in names}


def tool(name):
    return os.path.join(BUILD, "tests", "lab", name)


def bench_tool(name):
    return os.path.join(BUILD, "perf", "bench", name)


# Seconds since a load began, and its requests so far; `hanging`: without an answer for more than a second;
# `backends`: who answered how many.
Progress = collections.namedtuple("Progress", "seconds started ok failed hanging backends")


def parse_progress(line):
    ms, *counts = line.decode().split()
    backends = (word.rsplit("=", 1) for word in counts[4:])
    return Progress(int(ms) / 1000, *map(int, counts[:4]), {name: int(n) for name, n in backends})


class Load:
    """httpload from all client addresses of one family, or of several in turn; `wait` or `stop` gives what it saw.

    With report_ms it can be watched. A context manager, for those who may not come to wait for it.
    """

    SILENCE_S = 10  # a load that reports says something before that

    def __init__(self, lab, families, *, to=None, sources=None, port=80, **options):
        families = families if isinstance(families, tuple) else (families,)
        argv = [tool("httpload"), "--to", to or ",".join(VIP[f] for f in families), "--port", str(port)]
        argv += ["--from", ",".join(sources or sum((CLIENTS[f] for f in families), []))]
        for key, value in options.items():
            argv += [f"--{key.replace('_', '-')}", str(value)]
        self._lab = lab
        self._unread = b""
        self.samples = [Progress(0, 0, 0, 0, 0, {})]
        stderr = subprocess.PIPE if "report_ms" in options else None
        self.child = lab.children.spawn(lab.client, *argv, stdout=subprocess.PIPE, stderr=stderr, bufsize=0)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        """Nobody waits for its result any more."""
        self._lab.children.end(self.child, signal.SIGKILL)

    def running(self):
        return self.child.poll() is None

    def _read_progress(self):
        """The samples that came meanwhile; None after the last."""
        pipe = self.child.stderr.fileno()
        if not select.select([pipe], [], [], self.SILENCE_S)[0]:
            raise LabError(f"httpload says nothing for {self.SILENCE_S} s")
        data = os.read(pipe, 65536)
        if not data:
            return None
        *lines, self._unread = (self._unread + data).split(b"\n")
        try:
            return [parse_progress(line) for line in lines]
        except (ValueError, TypeError):
            raise LabError(f"httpload: {b' '.join(lines)}") from None

    def watch(self, seconds, on_second=None):
        """For so long on the load's clock, or until it ends. on_second(sample, the one a second before)."""
        begin = last = self.samples[-1]
        while self.samples[-1].seconds < begin.seconds + seconds:
            news = self._read_progress()
            if news is None:
                break
            for sample in news:
                self.samples.append(sample)
                if on_second and int(sample.seconds) > int(last.seconds):
                    on_second(sample, last)
                    last = sample

    def mark(self):
        """A new phase: requests that start from now on are counted apart."""
        self.child.send_signal(signal.SIGUSR1)

    def finish(self, on_second=None, timeout_s=60):
        """No new requests; those under way come to their end, within their deadline. Gives the result."""
        self.child.send_signal(signal.SIGTERM)
        self.watch(timeout_s, on_second)
        return self.wait(timeout_s)

    def ok_rate(self, begin_s, end_s):
        """Answers per second in that part of its time."""
        inside = [s for s in self.samples if begin_s <= s.seconds <= end_s]
        first, last = inside[0], inside[-1]
        return (last.ok - first.ok) / (last.seconds - first.seconds)

    def wait(self, timeout_s=120):
        out, _ = self.child.communicate(timeout=timeout_s)
        self._lab.children.end(self.child)
        return json.loads(out)

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        return self.wait(30)


class Crowd:
    """crowd.c: many connections of all client addresses, and the servers that they stay at. A context manager."""

    PER_PROCESS = 12_500  # there are limits on files

    def __init__(self, lab, families, count, *, port, servers=("up1",), pour=False, rcvbuf=None):
        self._lab = lab
        n = -(-count // self.PER_PROCESS)
        argv = [tool("crowd"), "serve", "--port", str(port), *(["--pour"] if pour else [])]
        self._servers = [lab.children.spawn(lab.ns[up], *argv) for up in servers for _ in range(n)]
        listening = ("ss", "-Hltn", f"sport = :{port}")
        eventually(
            lambda: all(lab.ns[up].run(*listening).stdout.count("\n") == n for up in servers), 5, "the crowd's servers"
        )
        argv = [tool("crowd"), "call", "--port", str(port), "--to", ",".join(VIP[f] for f in families)]
        argv += ["--from", ",".join(a for f in families for a in CLIENTS[f])]
        argv += ["--rcvbuf", str(rcvbuf)] if rcvbuf else []
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
        counts = [count // n + (i < count % n) for i in range(n)]
        self._callers = [lab.children.spawn(lab.client, *argv, "--count", str(c), **pipes) for c in counts]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for child in (*self._callers, *self._servers):
            self._lab.children.end(child, signal.SIGKILL)
        for child in self._callers:
            child.stdin.close()

    def tell(self, command, patience_s=30):
        """Begins it; told() waits for what became of it."""
        for child in self._callers:
            child.stdin.write(f"{command} {1000 * patience_s}\n")

    def told(self):
        all_told = [json.loads(child.stdout.readline()) for child in self._callers]
        result = {key: sum(told[key] for told in all_told) for key in ("done", "failed", "late")}
        result["seconds"] = max(told["seconds"] for told in all_told)
        result["ends"] = [end for told in all_told for end in told.get("ends", ())]
        return result

    def do(self, command, patience_s=30):
        self.tell(command, patience_s)
        return self.told()


class KeptConnections:
    """HTTP connections that are used more than once, from all client addresses. A context manager."""

    REQUEST = b"GET /name HTTP/1.1\r\nHost: lab\r\n\r\n"

    def __init__(self, lab, families, port, per_family):
        self._sockets = []
        try:
            with lab.client.entered():
                for f in families:
                    for i in range(per_family):
                        source = (CLIENTS[f][i % len(CLIENTS[f])], 0)
                        s = socket.create_connection((VIP[f], port), timeout=5, source_address=source)
                        self._sockets.append(s)
        except OSError:
            self.__exit__()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for s in self._sockets:
            s.close()

    def __len__(self):
        return len(self._sockets)

    def ask(self, deadline_s, on_second=None):
        """One request on each. How many were answered, how many closed or reset, and how many hang at the deadline."""
        counts = {"answered": 0, "closed": 0, "hanging": len(self._sockets)}
        begin = time.monotonic()
        shown_s = 0
        with selectors.DefaultSelector() as waiting:
            for s in self._sockets:
                waiting.register(s, selectors.EVENT_READ)
                self._send(s)
            while counts["hanging"] and (now_s := time.monotonic() - begin) < deadline_s:
                for key, _ in waiting.select(min(shown_s + 1, deadline_s) - now_s):
                    waiting.unregister(key.fileobj)
                    counts["hanging"] -= 1
                    counts["answered" if self._answered(key.fileobj) else "closed"] += 1
                if on_second and time.monotonic() - begin >= shown_s + 1:
                    shown_s += 1
                    on_second(shown_s, counts)
        return counts

    def _send(self, s):
        try:
            s.sendall(self.REQUEST)
        except OSError:
            pass  # a reset that came meanwhile: reading says so

    def _answered(self, s):
        """Such small an answer comes in one piece."""
        try:
            return s.recv(4096).startswith(b"HTTP/1.1 200 ")
        except OSError:
            return False


class Flood:
    """SYNs from many addresses of a network, from the client's side of the gateway or into a sink beside it.

    A context manager: while it is there, the gateway routes that network towards the clients, where nobody answers; or,
    with `resets`, somebody is there who knows nothing of a SYN.
    """

    SINK = ("sink0", "sink1")

    def __init__(self, lab, family=4, net=FLOOD_NET, resets=False):
        self._lab, self._family, self._net, self._resets = lab, family, net, resets
        self._sink = None

    def __enter__(self):
        inner, outer = self.SINK
        self._lab.gw.ip(f"route replace {self._net} via {WAN_GW[self._family]}")
        there = f"{self._net} via {CLIENTS[self._family][0]}" if self._resets else f"blackhole {self._net}"
        if self._resets:
            self._lab.client.ip(f"route replace local {self._net} dev lo")
        self._lab.wan.ip(
            f"route replace {there}",
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
        self._lab.wan.ip(f"link del {self.SINK[0]}", f"route del {self._net}")
        if self._resets:
            self._lab.client.ip(f"route del local {self._net} dev lo")
        self._lab.gw.ip(f"route del {self._net}")

    def start(self, seconds, *, rate=None, port=80, to_sink=False, cpu=1, sources=None, first=0):
        argv = ["taskset", "-c", str(cpu), bench_tool("flood"), "--mode", {4: "syn", 6: "syn6"}[self._family]]
        argv += ["--device", self.SINK[0] if to_sink else "gw", "--from", "02:00:00:00:00:01", "--to", self._mac()]
        argv += ["--source", self._net.split("/")[0], "--destination", VIP[self._family], "--port", str(port)]
        argv += ["--seconds", str(seconds)] + (["--rate", str(rate)] if rate else [])
        argv += ["--sources", str(sources), "--first", str(first)] if sources else []
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
