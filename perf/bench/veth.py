#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Packets a second through one worker on veth, against a bare AF_XDP forwarder and the kernel's NAT.

    src: c0 ======== g0 :gw: g1 ======== u0 :sink
      flood                                 counts and drops

60-byte UDP of many flows is sent as fast as it goes by one CPU; all else, the gateway first of all, runs on another.
The subjects run in turns, several rounds; the table gives medians. On a machine with other load compare the CPU time
per packet of the forwarding process (of all that its CPU does for it in the kernel, too); it is none of a process for
the kernel's NAT. Needs root and two CPUs.
"""
import argparse
import os
import pathlib
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parents[2]
MACS = {"c0": "02:00:00:00:01:02", "g0": "02:00:00:00:01:01", "g1": "02:00:00:00:02:01", "u0": "02:00:00:00:02:02"}
CLIENT, WAN, LAN, BACKEND = "198.18.1.2", "198.18.1.1", "198.18.2.1", "198.18.2.2"
VIP, SNAT, PORT = "198.18.100.1", "198.18.101.10", 9000
SOURCES, SOURCE = "198.19.0.0/16", "198.19.0.1"
READY_SECONDS = 20
WARM_UP, MEASURED = 1.0, 3.0

NFT = f"""
table ip nat {{
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        ip daddr {VIP} udp dport {PORT} dnat to {BACKEND}:{PORT}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        ip daddr {BACKEND} snat to {SNAT}
    }}
}}
"""

CONFIG = f"""
gateway:
  workers: [{{cpu}}]
  flows: 100k
  ports:
    - {{{{name: wan, device: g0}}}}
    - {{{{name: lan, device: g1}}}}
  snat: [{SNAT}]
  api: {{{{socket: {{dir}}/api.sock, http: "127.0.0.1:9090"}}}}
services:
  - name: bench
    listen: ["{VIP}:{PORT}/udp"]
    backends:
      - {{{{address: {BACKEND}, port: {PORT}}}}}
"""


def run(*command, **kwargs):
    subprocess.run(command, check=True, **kwargs)


class Lab:
    """Three namespaces of our own, which end with it."""

    def __init__(self):
        self.names = {part: f"veth-bench-{os.getpid()}-{part}" for part in ("src", "gw", "sink")}
        self.processes = []
        self.dir = tempfile.mkdtemp(prefix="veth-bench-")

    def __enter__(self):
        try:
            self.build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self.processes:
            stop(process)
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(self.dir, ignore_errors=True)

    def inside(self, part, *command):
        return ["ip", "netns", "exec", self.names[part], *map(str, command)]

    def do(self, part, line):
        run(*self.inside(part, *line.split()))

    def start(self, part, cpu, *command, **kwargs):
        process = subprocess.Popen(self.inside(part, "taskset", "-c", str(cpu), *command), text=True, **kwargs)
        self.processes.append(process)
        return process

    def build(self):
        for name in self.names.values():
            run("ip", "netns", "add", name)
        for near, part, far in (("c0", "src", "g0"), ("u0", "sink", "g1")):
            run("ip", "link", "add", near, "netns", self.names[part], "address", MACS[near], "type", "veth",
                "peer", "name", far, "netns", self.names["gw"], "address", MACS[far])
            for where, device in ((part, near), ("gw", far)):
                self.do(where, f"sysctl -q -w net.ipv6.conf.{device}.disable_ipv6=1")
                self.do(where, f"ip link set {device} up")
        self.do("gw", "ip link set lo up")
        self.do("gw", f"ip addr add {WAN}/24 dev g0")
        self.do("gw", f"ip addr add {LAN}/24 dev g1")
        self.do("gw", f"ip addr add {VIP}/32 dev lo")
        self.do("gw", f"ip addr add {SNAT}/32 dev lo preferred_lft 0")
        self.do("gw", f"ip neigh add {CLIENT} lladdr {MACS['c0']} dev g0 nud permanent")
        self.do("gw", f"ip neigh add {BACKEND} lladdr {MACS['u0']} dev g1 nud permanent")
        self.do("gw", f"ip route add {SOURCES} via {CLIENT}")
        self.do("gw", "sysctl -q -w net.ipv4.ip_forward=1")


def stop(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for_line(process, text):
    """Until the process has printed a line that holds `text`."""
    while True:
        if not select.select([process.stdout], [], [], READY_SECONDS)[0]:
            raise RuntimeError(f"{process.args[-3:]} did not become ready")
        line = process.stdout.readline()
        if text in line:
            return
        if not line:
            raise RuntimeError(f"{process.args[-3:]} ended with {process.wait()}")


# --- subjects: each starts, and returns its process (None: it is the kernel) and what undoes it ---


def start_bare(lab, bench, cpu):
    process = lab.start("gw", cpu, bench / "xskfwd", "g0", "g1", stdout=subprocess.PIPE)
    wait_for_line(process, "ready")
    return process, lambda: stop(process)


def start_nftables(lab, _bench, cpu):
    """Made packets need NAPI at the receiver, which GRO turns on; RPS moves the work to the other CPU."""
    lab.do("gw", "ethtool -K g0 gro on")
    rps = "/sys/class/net/g0/queues/rx-0/rps_cpus"
    run(*lab.inside("gw", "sh", "-c", f"echo {1 << cpu:x} >{rps}"))
    run(*lab.inside("gw", "nft", "-f", "-"), input=NFT, text=True)

    def undo():
        lab.do("gw", "nft delete table ip nat")
        lab.do("gw", "ethtool -K g0 gro off")
        run(*lab.inside("gw", "sh", "-c", f"echo 0 >{rps}"))

    return None, undo


def start_spillway(lab, bench, cpu):
    config = pathlib.Path(lab.dir) / "bench.yaml"
    config.write_text(CONFIG.format(cpu=cpu, dir=lab.dir), encoding="utf-8")
    log = open(pathlib.Path(lab.dir) / "spillway.log", "w+", encoding="utf-8")
    process = lab.start("gw", f"0-{os.cpu_count() - 1}", bench.parents[1] / "control" / "spillway", config,
                        stdout=log, stderr=log)
    try:
        wait_until_ready(lab, process)
    except RuntimeError as error:
        log.seek(0)
        raise RuntimeError(f"{error}:\n{log.read()}") from error
    return process, lambda: stop(process)


def wait_until_ready(lab, process):
    curl = lab.inside("gw", "curl", "-s", "-o", "/dev/null", "-f", "--retry", READY_SECONDS, "--retry-delay", 1,
                      "--retry-connrefused", "--retry-all-errors", "--unix-socket", f"{lab.dir}/api.sock",
                      "http://gateway/v1/ready")
    if subprocess.run(curl, check=False).returncode or process.poll() is not None:
        raise RuntimeError("spillway did not become ready")


SUBJECTS = {"bare": start_bare, "nftables": start_nftables, "spillway": start_spillway}


def cpu_ns(process):
    """What the process has run so far, all threads."""
    return sum(int(path.read_text(encoding="ascii").split()[0])
               for path in pathlib.Path(f"/proc/{process.pid}/task").glob("*/schedstat"))


def measure(lab, bench, args, process):
    """One run: packets sent and received a second, and the CPU time per packet in ns."""
    sink = lab.start("sink", args.cpu, bench / "sink", "u0", WARM_UP, MEASURED, stdout=subprocess.PIPE)
    wait_for_line(sink, "ready")
    rate = ["--rate", args.rate] if args.rate else []
    flood = lab.start("src", args.flood_cpu, bench / "flood", "--device", "c0", "--from", MACS["c0"], "--to",
                      MACS["g0"], "--source", SOURCE, "--destination", VIP, "--port", PORT, "--flows", args.flows,
                      "--seconds", WARM_UP + MEASURED + 0.5, *rate, stdout=subprocess.PIPE)
    wait_for_line(sink, "begin")
    begin_ns = cpu_ns(process) if process else 0
    received = sink.stdout.readline()
    spent_ns = cpu_ns(process) - begin_ns if process else 0
    sent = flood.communicate(timeout=60)[0]
    if flood.returncode or sink.wait(10):
        raise RuntimeError("flood or sink failed")
    packets = float(received) * MEASURED
    return float(sent.split()[-3]), float(received), spent_ns / packets if packets else 0.0


def of_bare(value, bare):
    return f"{value:6.2f}" if bare and value else "     -"


def table(results, rounds):
    medians = {name: [statistics.median(column) for column in zip(*runs)] for name, runs in results.items()}
    _, bare_pps, bare_ns = medians.get("bare", (0, 0, 0))
    print(f"{'subject':10} {'sent/s':>9} {'received/s':>10} {'of bare':>7} {'CPU ns/packet':>13} {'of bare':>7}   "
          "rounds")
    for name, (sent, received, ns) in medians.items():
        rate = of_bare(received / bare_pps if bare_pps else 0, bare_pps)
        speed = of_bare(bare_ns / ns if ns else 0, bare_ns)
        print(f"{name:10} {sent:9.0f} {received:10.0f}  {rate} {ns or float('nan'):13.0f}  {speed}   " +
              " ".join(f"{run[1]:.0f}/{run[2]:.0f}" for run in results[name]))
    print(f"medians of {rounds} rounds of {MEASURED:.0f} s; rounds: received/s and CPU ns per packet")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--build", default=TOP / "build", type=pathlib.Path)
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--flows", default=1000, type=int)
    parser.add_argument("--rate", type=int, help="packets a second; default: as fast as it goes")
    parser.add_argument("--cpu", default=1, type=int, help="of the gateway")
    parser.add_argument("--flood-cpu", default=0, type=int)
    parser.add_argument("subjects", nargs="*", default=list(SUBJECTS), metavar="SUBJECT", help=", ".join(SUBJECTS))
    args = parser.parse_args()
    unknown = set(args.subjects) - set(SUBJECTS)
    if unknown:
        parser.error(f"no such subject: {', '.join(unknown)}")
    results = {name: [] for name in args.subjects}
    bench = args.build.resolve() / "perf" / "bench"
    with Lab() as lab:
        for _ in range(args.rounds):
            for name in args.subjects:
                process, undo = SUBJECTS[name](lab, bench, args.cpu)
                try:
                    results[name].append(measure(lab, bench, args, process))
                finally:
                    undo()
    table(results, args.rounds)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RuntimeError as error:
        sys.exit(f"veth.py: {error}")
