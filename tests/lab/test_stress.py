# SPDX-License-Identifier: BSD-3-Clause
"""Much of everything: policies, names, services, routes and SYNs, each while requests run.

The sanitizers' runs are long; the short form of each runs with the plain build, whose freed policies are overwritten.
"""

import contextlib
import itertools
import json
import os
import statistics
import subprocess
import time

import pytest
from conftest import assert_nothing_left, one_worker, two_workers
from dns_control import DnsServer
from gateways import BULK_PORT, CONFIG, Spillway, running
from netns import eventually
from servers import listens
from tools import ROOT, Flood, Load, report
from topology import BACKEND_PORT, CLIENTS, DNS, LAN_GW, SNAT, UPSTREAMS, VIP, WAN_GW

WORDS_OF_A_FINDING = ("Sanitizer", "runtime error:", "spillway: cannot")


# --- gateways ---


class Rewritten(Spillway):
    """A gateway whose services are written again and again."""

    env = {"SPILLWAY_POISON": "1"}

    def __init__(self, lab, services, dns=f"{DNS[4]}:53", memory="512M"):
        self.services, self.dns, self.memory = services, dns, memory
        super().__init__(lab, lab.n_queues)

    def config_text(self, n_workers):
        head = CONFIG[: CONFIG.index("services:\n")].replace("{dns}:53", self.dns).replace("512M", self.memory)
        return head.format(
            workers=", ".join(str(cpu) for cpu in range(n_workers)),
            snat4=SNAT[4],
            snat6=SNAT[6],
            socket=self.socket,
            state_dir=self.lab.dir,
        ) + "services:\n" + "".join(self.services)

    def rewrite(self, services):
        self.services = services
        with open(self.config, "w", encoding="ascii") as f:
            f.write(self.config_text(self.lab.n_queues))

    def reload(self, services):
        self.rewrite(services)
        self.ctl("reload")

    def wait_serving(self):
        eventually(lambda: all(row["backends"] for row in self.ctl("services")["services"]), 15, "backends")


def sanitized(kind, sanitizers, **options):
    """`kind` from a build with sanitizers of its own, made now if it is not there."""
    name = sanitizers.split(",")[0]
    build = os.path.join(ROOT, f"build-{ {'address': 'asan', 'thread': 'tsan'}[name]}")
    if not os.path.isdir(build):
        setup = ["meson", "setup", build, f"-Db_sanitize={sanitizers}", "-Db_lundef=false"]
        subprocess.run(setup, check=True, cwd=ROOT)
    subprocess.run(["ninja", "-C", build, "control/spillway"], check=True, stdout=subprocess.DEVNULL)
    return type(f"{kind.__name__}_{name}", (kind,), {
        "binary": os.path.join(build, "control", "spillway"),
        "env": {**kind.env, **options},
    })


def with_asan():
    return sanitized(
        Rewritten,
        "address,undefined",
        ASAN_OPTIONS="detect_leaks=1",
        UBSAN_OPTIONS="print_stacktrace=1",
        LSAN_OPTIONS=f"suppressions={ROOT}/tests/lsan.supp",
    )


def with_tsan():
    return sanitized(Rewritten, "thread", TSAN_OPTIONS=f"suppressions={ROOT}/tests/tsan.supp")


@contextlib.contextmanager
def running_clean(gateway):
    """Ends with a clean stop, whose findings (leaks, too) are in the log."""
    with running(gateway):
        yield gateway
    log = gateway.output()
    assert not any(words in log for words in WORDS_OF_A_FINDING), log
    assert_nothing_left(gateway.lab)


def service(name, port, *backends):
    rows = "".join(f"      - {{{b}}}\n" for b in backends)
    return f'  - name: {name}\n    listen: ["{VIP[4]}:{port}/tcp"]\n    backends:\n{rows}'


def address(up, port=BACKEND_PORT, weight=1):
    return f"address: {UPSTREAMS[up][4]}, port: {port}, weight: {weight}"


def assert_unharmed(gateway, loads):
    """Stops the loads; no request failed, no packet is without a name, no burst saw an older policy."""
    for load in loads:
        result = load.stop()
        assert result["failed"] == 0 and result["ok"] > 0, result
    ledger = gateway.ledger()
    for row in (*ledger["workers"], ledger["sum"]):
        assert row["balance"] == 0 and row["tx_balance"] == 0, row
    assert [w["policy_regress"] for w in gateway.status()["workers"]] == [0] * gateway.lab.n_queues


# --- names ---

FIRST_CHURN_PORT = 20000


class Names:
    """`n` services with a name each, whose addresses come and go in all of them at once."""

    FEW, ALL = ("up1", "up2"), ("up1", "up2", "up3")

    def __init__(self, server, n):
        self._server, self.n = server, n
        self.set(self.FEW)

    def set(self, ups):
        for i in range(self.n):
            self._server.set(f"n{i}.lab.test", "A", 1, *(UPSTREAMS[up][4] for up in ups))

    def services(self):
        """Two of them are in use; the others have ports of their own, so that their slots come and go."""
        return [
            service(f"n{i}", FIRST_CHURN_PORT + i, f"dns: n{i}.lab.test, port: {BACKEND_PORT if i < 2 else 30000 + i}")
            for i in range(self.n)
        ]


def churn_names(gateway, names, other, rounds):
    """Each round adds and removes one address of each name, and sees both published; reloads go on meanwhile."""
    variants = itertools.cycle([other + [service("static", 81, address("up1", weight=w))] for w in (1, 2)])

    def published(ups):
        gateway.reload(next(variants) + names.services())
        rows = [row for row in gateway.ctl("services")["services"] if row["name"].startswith("n")]
        return len(rows) == names.n and all(row["backends"] == len(ups) for row in rows)

    for _ in range(rounds):
        for ups in (Names.ALL, Names.FEW):
            names.set(ups)
            eventually(lambda ups=ups: published(ups), 30, f"all names at {ups}")


def check_names(lab, kind, n, rounds, record_property):
    other = [service("shop", 80, *(address(up) for up in UPSTREAMS))]
    listen = f"{DNS[4]}:5300"
    with DnsServer(lab.path("churn-dns.sock"), (listen,), lab.dns.name) as server:
        names = Names(server, n)
        gateway = kind(lab, other + [service("static", 81, address("up1"))] + names.services(), listen)
        with running_clean(gateway):
            start = {row["id"] for row in gateway.ctl("backends")["backends"]}
            first = gateway.status()["policy_number"]
            loads = [Load(lab, 4, rate=100, seconds=3600, port=p) for p in (80, FIRST_CHURN_PORT, FIRST_CHURN_PORT + 1)]
            begin = time.monotonic()
            churn_names(gateway, names, other, rounds)
            seconds = time.monotonic() - begin
            assert_unharmed(gateway, loads)
            policies = gateway.status()["policy_number"] - first
            assert policies >= 2 * rounds
            eventually(lambda: {r["id"] for r in gateway.ctl("backends")["backends"]} == start, 10, "slots are free")
            report(record_property, cycles=n * rounds, policies=policies, seconds=round(seconds))


@two_workers
def test_names_come_and_go(lab, record_property):
    check_names(lab, Rewritten, 50, 2, record_property)


@two_workers
@pytest.mark.long
def test_names_come_and_go_asan(lab, record_property):
    """10 000 times."""
    check_names(lab, with_asan(), 400, 25, record_property)


# --- policies ---


def check_publishes(lab, kind, n, record_property):
    """Each reload changes a set, a weight or the listeners."""
    shop = [service("shop", 80, *(address(up) for up in UPSTREAMS))]
    variants = itertools.cycle([
        [service("shop", 80, *(address(up) for up in ("up1", "up2")))],
        [service("shop", 80, address("up1"), address("up2", weight=3), address("up3"))],
        shop + [service("more", 81, address("up2"))],
        shop,
    ])
    gateway = kind(lab, shop)
    with running_clean(gateway):
        first, rss = gateway.status()["policy_number"], gateway.rss_kib()
        loads = [Load(lab, 4, rate=300, seconds=3600)]
        begin = time.monotonic()
        for services in itertools.islice(variants, n):
            gateway.reload(services)
        seconds = time.monotonic() - begin
        assert_unharmed(gateway, loads)
        # A view of it is made now and then.
        eventually(lambda: gateway.status()["policy_number"] - first == n, 5, "each is published")
        report(record_property, policies=n, seconds=round(seconds, 1), rss_kib=f"{rss}..{gateway.rss_kib()}")


@two_workers
def test_publishes(lab, record_property):
    check_publishes(lab, Rewritten, 100, record_property)


@two_workers
@pytest.mark.long
def test_publishes_tsan(lab, record_property):
    check_publishes(lab, with_tsan(), 1000, record_property)


# --- services ---

N_SERVICES, N_BACKENDS = 1000, 16
START_MAX_S, PUBLISH_MAX_US = 10, 20_000


def many_services(weight):
    """One of the backends is there, and answers for the first service."""
    hosts = (f"198.19.{i >> 8}.{i & 255}" for i in itertools.count())
    services = [
        service(f"s{i}", 10000 + i, *(f"address: {next(hosts)}, port: 8080" for _ in range(N_BACKENDS)))
        for i in range(N_SERVICES - 1)
    ]
    return [service("shop", 80, address("up1", weight=weight))] + services


@one_worker
def test_many_services(lab, record_property):
    """1000 services of 16 backends start in 10 s; one that changes is published in 20 ms, and the others stay."""
    gateway = Rewritten(lab, many_services(1), memory="1G")
    begin = time.monotonic()
    with running_clean(gateway):
        started_s = time.monotonic() - begin
        first_us = gateway.status()["publish_took_us"]
        load = Load(lab, 4, rate=200, seconds=3600)
        took_us = []
        for number, weight in enumerate((2, 3, 4, 5, 6), 2):
            gateway.reload(many_services(weight))
            eventually(lambda n=number: gateway.status()["policy_number"] == n, 5, "the policy is shown")
            took_us.append(gateway.status()["publish_took_us"])
        assert_unharmed(gateway, [load])
        plan = next(line for line in gateway.output().splitlines() if " in all " in line).split()[2]
        report(record_property, start_s=round(started_s, 2), first_publish_us=first_us, publish_us=took_us,
               rss_mib=gateway.rss_kib() // 1024, plan_mib=plan)
        assert started_s < START_MAX_S
        assert statistics.median(took_us) < PUBLISH_MAX_US


# --- routes ---

ROUTE_CHANGES_PER_S = 10_000
RSS_SLACK_KIB = 2048


def run_queue_wait_ns(gateway):
    """How long the workers were ready to run without a CPU to run on."""
    tasks = f"/proc/{gateway.child.pid}/task"
    total = 0
    for tid in os.listdir(tasks):
        with open(f"{tasks}/{tid}/comm", encoding="ascii") as f:
            if not f.read().startswith("worker"):
                continue
        with open(f"{tasks}/{tid}/schedstat", encoding="ascii") as f:
            total += int(f.read().split()[1])
    return total


def stalled_ns(gateway):
    return sum(w["stalled_ns"] for w in gateway.status()["workers"])


def change_routes(lab, seconds):
    """Prefixes come, change and go at ROUTE_CHANGES_PER_S. Returns how many changes there were."""
    ways = {"wan": WAN_GW[4], "lan": LAN_GW[4]}
    prefixes = [f"198.19.{i >> 8}.{i & 255}/32" for i in range(ROUTE_CHANGES_PER_S // 4)]
    steps = [
        [f"route add {p} via {ways['wan']}" for p in prefixes],
        [f"route change {p} via {ways['lan']}" for p in prefixes],
        [f"route change {p} via {ways['wan']} mtu 1400" for p in prefixes],
        [f"route del {p}" for p in prefixes],
    ]
    begin = time.monotonic()
    done = 0
    for step in itertools.islice(itertools.cycle(steps), 4 * seconds):
        lab.gw.ip(*step)
        done += len(step)
        # Not faster than asked for.
        time.sleep(max(0, begin + done / ROUTE_CHANGES_PER_S - time.monotonic()))
    return done, time.monotonic() - begin


def check_routes(lab, spillway, seconds, share, record_property):
    change_routes(lab, 1)
    rss = spillway.rss_kib()
    stalled, waited = stalled_ns(spillway), run_queue_wait_ns(spillway)
    dropped = spillway.ledger()["sum"]["dropped"]
    load = Load(lab, 4, rate=500, seconds=3600)
    changes, took_s = change_routes(lab, seconds)
    result = load.stop()
    stalled, waited = stalled_ns(spillway) - stalled, run_queue_wait_ns(spillway) - waited
    report(record_property, changes_per_s=round(changes / took_s), stalled_ms=stalled // 1000000,
           waited_ms=waited // 1000000, rss_kib=f"{rss}..{spillway.rss_kib()}", max_ms=result["max_ms"])
    assert result["failed"] == 0 and result["ok"] > 0, result
    assert spillway.ledger()["sum"]["dropped"] == dropped
    assert changes / took_s >= share * ROUTE_CHANGES_PER_S
    # What a worker did not run it must have waited for a CPU, rather than for the routes.
    assert stalled <= waited
    assert spillway.rss_kib() <= rss + RSS_SLACK_KIB


def assert_routes_followed(lab):
    """The gateway's routes are the kernel's: one client is cut off, and comes back."""
    source = CLIENTS[4][0]

    def served(expected):
        return Load(lab, 4, requests=1, timeout_ms=300, sources=[source]).wait()["ok"] == expected

    lab.gw.ip(f"route add blackhole {source}/32")
    try:
        eventually(lambda: served(0), 5, "the black hole")
    finally:
        lab.gw.ip(f"route del blackhole {source}/32")
    eventually(lambda: served(1), 5, "the way back")


@one_worker
@pytest.mark.parametrize("seconds, share", [(3, 0.5), pytest.param(10, 0.9, marks=pytest.mark.long)])
def test_route_changes(lab, spillway, seconds, share, record_property):
    """10 000 changes a second harm no request; a short run beside other tests may reach half of them."""
    check_routes(lab, spillway, seconds, share, record_property)
    assert_routes_followed(lab)


# --- a flood of SYNs ---

BULK_WINDOW = 1 << 20
# Per second. Where two CPUs do everything, more of it takes the CPU of the transfer's ends rather than the gateway's.
FLOOD_RATE = 500_000


@contextlib.contextmanager
def bulk_transfer(lab):
    """iperf3 towards the client. Its window fits into a receive ring, which it can therefore not overflow."""
    was = lab.client.run("sysctl", "-n", "net.ipv4.tcp_rmem").stdout.strip()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    iperf3 = ("taskset", "-c", "1", "iperf3", "-p", str(BULK_PORT))
    server = lab.children.spawn(lab.up1, *iperf3, "-s", **quiet)
    try:
        lab.client.sysctl(ipv4__tcp_rmem=f"4096 131072 {BULK_WINDOW}")
        eventually(lambda: listens(lab.up1, BULK_PORT), 5, "iperf3 server")
        client = lab.children.spawn(lab.client, *iperf3, "-c", VIP[4], "-R", "-t", "3600", **quiet)
        try:
            yield client
            assert client.poll() is None, "the transfer broke"
        finally:
            lab.children.end(client)
    finally:
        lab.client.sysctl(ipv4__tcp_rmem=was.replace("\t", " "))
        lab.children.end(server)


def ports(gateway):
    return {port["name"]: port for port in gateway.ctl("status")["ports"]}


def goodput(gateway, seconds):
    """Bytes per second from the upstreams, over a while."""
    begin, start = time.monotonic(), ports(gateway)["lan"]["rx_bytes"]
    time.sleep(seconds)
    return (ports(gateway)["lan"]["rx_bytes"] - start) / (time.monotonic() - begin)


def flooded(gateway, flood, seconds, to_sink):
    """The transfer's goodput beside a flood, without the first half second of it."""
    child = flood.start(seconds + 1, to_sink=to_sink, rate=FLOOD_RATE)
    time.sleep(0.5)
    rate = goodput(gateway, seconds)
    return rate, flood.wait(child)


@one_worker
@pytest.mark.parametrize("rounds, share", [(3, None), pytest.param(10, 0.8, marks=pytest.mark.long)])
def test_flood(lab, spillway, rounds, share, record_property):
    """
    SYNs overflow their own ring alone; a transfer keeps its share, against the same flood dropped elsewhere. The short
    form only tells the share: three rounds say little of it where other tests want the same CPUs.
    """
    with Flood(lab) as flood, bulk_transfer(lab):
        eventually(lambda: goodput(spillway, 0.2) > 1e6, 5, "the transfer runs")
        # Until the table is full of flows that nobody will complete.
        flood.wait(flood.start(1))
        rss, before = spillway.rss_kib(), ports(spillway)
        beside, alone, sent = [], [], 0
        for _ in range(rounds):
            alone.append(flooded(spillway, flood, 2, True)[0])
            goodput_now, n = flooded(spillway, flood, 2, False)
            beside.append(goodput_now)
            sent += n
        after = ports(spillway)
        grown = spillway.rss_kib() - rss
        known = {name: after[name]["lost_known_ring"] - before[name]["lost_known_ring"] for name in after}
        new = after["wan"]["lost_new_ring"] - before["wan"]["lost_new_ring"]
        # Of neighbouring measurements, since the machine may have other work now and then.
        kept = statistics.median(b / a for a, b in zip(alone, beside))
        report(record_property, sent=sent, lost_new=new, lost_known=known, kept=round(kept, 2), grown_kib=grown,
               beside=[round(r / 1e6) for r in beside], alone=[round(r / 1e6) for r in alone])
    assert known == {"wan": 0, "lan": 0}
    assert new > 0, "the flood was not more than the gateway takes"
    assert share is None or kept >= share
    assert grown <= RSS_SLACK_KIB
    assert spillway.ledger()["balance"] == 0
