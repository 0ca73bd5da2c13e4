# SPDX-License-Identifier: BSD-3-Clause
"""Five outages, each over whatever stands in the gateway's place.

An outage names the services that it needs and arranges their good days before the gateway starts; `measure` breaks
something, counts what users feel, and mends it. What counts as hurt and as cured stands beside it. Nobody here knows
which gateway serves.
"""

import contextlib
import os
import time

import faults
from gateways import SHOP, Service
from netns import LabError
from paths import ptb_filtered, small_egress
from servers import SLOW_BYTES_PER_S, SlowUpstream
from tools import KeptConnections, Load
from topology import CLIENTS, UPSTREAMS, VIP, bracketed

FAMILIES = (4, 6)
DEADLINE_S = 10  # that long a user waits; what has no answer by then hangs
DEADLINE_MS = 1000 * DEADLINE_S


class Unseen:
    """Where an outage tells what it does. The demo has one that prints."""

    def step(self, text):
        """Something is done, or broken."""

    def count(self, seconds, **counts):
        """Figures of the last second, at so many seconds into the measurement."""


def per_second(show):
    """For Load.watch(): what happened in the last second."""
    return lambda now, last: show.count(
        now.seconds, answered=now.ok - last.ok, failed=now.failed - last.failed, hanging=now.hanging
    )


def percent(part, whole):
    return f"{round(100 * part / whole) if whole else 0} %"


def once(path, make):
    """A file of the upstreams that is there from the first use on."""
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(make())


class Outage:
    name = ""
    title = ""
    services = ()  # beside those that every gateway of the lab has

    def __init__(self, lab):
        self.lab = lab

    def arrange(self):
        """Good days: what must be there before a gateway starts, and again before the next one does."""

    def close(self):
        """What arrange() started ends."""

    def measure(self, show=Unseen()):
        """Breaks, counts and mends. Gives the figures that the methods below judge."""
        raise NotImplementedError

    def hurt(self, seen):
        """True if users felt the outage."""
        raise NotImplementedError

    def cured(self, seen):
        """True if they did not."""
        raise NotImplementedError

    def felt(self, seen):
        """In one sentence."""
        raise NotImplementedError


class Wall(Outage):
    """An upstream dies and refuses, then another one falls silent; new connections go on all the time."""

    name = "wall"
    title = "one of three upstreams dies, then another falls silent"
    rate = 150
    phase_s = 5
    under_way = 3  # at most so many requests, of less than a millisecond each, at the moment when a host dies

    def measure(self, show=Unseen()):
        tell = per_second(show)
        options = {"rate": self.rate, "timeout_ms": DEADLINE_MS, "concurrency": 4096, "report_ms": 200}
        show.step(f"{self.rate} new connections a second, over three upstreams")
        with Load(self.lab, FAMILIES, port=SHOP.port, **options) as load:
            load.watch(2, tell)
            show.step("up1 dies: its host refuses connections")
            with faults.refusing(self.lab.nginx["up1"]):
                load.mark()
                load.watch(self.phase_s, tell)
                show.step("up2 falls silent, too: no answer, no reset")
                with faults.silent(self.lab.up2):
                    load.mark()
                    load.watch(self.phase_s, tell)
                    show.step(f"no new ones; each that waits has {DEADLINE_S} s")
                    result = load.finish(tell)
        healthy, refused, silent = result["phases"]
        return {"healthy": healthy, "refused": refused, "silent": silent}

    def _failed(self, seen):
        return sum(phase["failed"] for phase in seen.values())

    def _unconnected(self, seen):
        return sum(phase["unconnected"] for phase in seen.values())

    def hurt(self, seen):
        refused, silent = seen["refused"], seen["silent"]
        return refused["failed"] > 0.2 * refused["started"] and silent["failures"]["timeout"] > 0.2 * silent["started"]

    def cured(self, seen):
        """What was under way with a host at the very moment of its end is lost with it, whoever forwards."""
        lost = self._failed(seen) - self._unconnected(seen)
        return self._unconnected(seen) == 0 and lost <= self.under_way and all(p["ok"] for p in seen.values())

    def felt(self, seen):
        refused, silent = seen["refused"], seen["silent"]
        if self.cured(seen):
            n = sum(phase["started"] for phase in seen.values())
            slowest_ms = max(phase["max_ms"] for phase in seen.values())
            lost = self._failed(seen)
            but = f"; {lost} under way at the moment was lost with its host" if lost else ""
            return f"none of {n} connections failed; the slowest took {slowest_ms:.0f} ms{but}"
        hang = silent["failures"]["timeout"]
        return (
            f"{percent(refused['failed'], refused['started'])} of connections failed; then "
            f"{percent(silent['failed'] - hang, silent['started'])} failed and {percent(hang, silent['started'])} hung"
        )


class Names(Outage):
    """DNS moves a service to another host; the old one goes on with a page of yesterday."""

    name = "names"
    title = "DNS moves a service to another host, the old one keeps serving"
    ttl_s = 2
    grace_s = 2
    rate = 100
    news = Service("news", 81, 8081, upstreams=("up1",), dns="news")
    services = (news,)

    def _point_to(self, up):
        self.lab.zone.set(self.news.dns, [UPSTREAMS[up][f] for f in FAMILIES], self.ttl_s)

    def arrange(self):
        self._point_to("up1")
        # From before the move until after the last stale answer may be given.
        self._page = os.path.join(self.lab.files, "slow", "page")
        once(self._page, lambda: os.urandom(SLOW_BYTES_PER_S * (2 + self.ttl_s + self.grace_s + 2)))

    def measure(self, show=Unseen()):

        def tell(now, last):
            new = {up: now.backends.get(up, 0) - last.backends.get(up, 0) for up in ("up1", "up2")}
            show.count(now.seconds, **new, failed=now.failed - last.failed, hanging=now.hanging)

        options = {"rate": self.rate, "timeout_ms": DEADLINE_MS, "concurrency": 4096, "report_ms": 100}
        with contextlib.ExitStack() as stack:
            stack.callback(self._point_to, "up1")
            transfers = [stack.enter_context(self._transfer(f)) for f in FAMILIES]
            load = stack.enter_context(Load(self.lab, FAMILIES, port=self.news.port, **options))
            show.step(f"{self.rate} new connections a second, and {len(transfers)} long transfers from up1")
            load.watch(2, tell)
            moved_ns = time.monotonic_ns()
            self._point_to("up2")
            load.mark()
            show.step(f"DNS says up2 now, with a TTL of {self.ttl_s} s; what up1 says is stale")
            load.watch(self.ttl_s + self.grace_s, tell)
            load.mark()
            show.step(f"TTL + {self.grace_s} s have passed")
            load.watch(4, tell)
            result = load.finish(tell)
            whole = sum(self._is_whole(transfer) for transfer in transfers)
        after = result["phases"][2]
        last_stale_ns = result["last_start_ns"]["up1"]
        return {
            "late": after,
            "late_stale": after["backends"].get("up1", 0),
            "last_stale_s": max(0, last_stale_ns - moved_ns) / 1e9,
            "failed": result["failed"],
            "transfers": len(transfers),
            "transfers_whole": whole,
        }

    @contextlib.contextmanager
    def _transfer(self, f):
        path = self.lab.path(f"page{f}")
        url = f"http://{bracketed(VIP[f])}:{self.news.port}/slow/page"
        argv = ["curl", "-sS", "--fail", "--globoff", "--max-time", "30", "-o", path, url]
        child = self.lab.children.spawn(self.lab.client, *argv)
        try:
            yield child, path
        finally:
            self.lab.children.end(child)
            if os.path.exists(path):
                os.unlink(path)

    def _is_whole(self, transfer):
        child, path = transfer
        if child.wait(40) != 0:
            return False
        with open(path, "rb") as got, open(self._page, "rb") as sent:
            return got.read() == sent.read()

    def hurt(self, seen):
        return seen["late_stale"] > 0.9 * seen["late"]["ok"] > 0

    def cured(self, seen):
        unharmed = seen["failed"] == 0 and seen["transfers_whole"] == seen["transfers"]
        return unharmed and seen["late_stale"] == 0 and seen["late"]["ok"] > 0

    def felt(self, seen):
        if seen["late_stale"]:
            stale = percent(seen["late_stale"], seen["late"]["ok"])
            text = f"{stale} of answers were stale, still {seen['last_stale_s']:.0f} s after the move"
        else:
            text = f"the last stale answer {seen['last_stale_s']:.1f} s after the move"
        if seen["failed"]:
            text += f"; {seen['failed']} connections failed"
        broken = seen["transfers"] - seen["transfers_whole"]
        return text + (f"; {broken} long transfers broke" if broken else "; long transfers unharmed")


class Silence(Outage):
    """A firewall between gateway and upstreams forgets connections that idle, and drops what comes on them."""

    name = "silence"
    title = "a firewall on the way forgets idle connections, without a word"
    forgets_s = 6
    per_family = 20
    chat = Service("chat", 82, 8082, options="idle: {probe: 3s}")
    services = (chat,)

    def measure(self, show=Unseen()):
        with faults.forgetful_firewall(self.lab.lan, self.forgets_s):
            with KeptConnections(self.lab, FAMILIES, self.chat.port, self.per_family) as kept:
                first = kept.ask(DEADLINE_S)
                show.step(f"{len(kept)} keep-alive connections, {first['answered']} requests answered")
                if first["answered"] != len(kept):
                    raise LabError(f"silence: the good days are none: {first}")
                idle_s = self.forgets_s + 2
                show.step(f"they idle for {idle_s} s; a firewall on the way forgets after {self.forgets_s} s")
                time.sleep(idle_s)
                show.step("each is used again")
                counts = kept.ask(DEADLINE_S, lambda s, counts: show.count(s, **counts))
                show.step(f"{counts['answered']} answered, {counts['closed']} closed, {counts['hanging']} hang")
        return {"connections": len(kept), **counts}

    def hurt(self, seen):
        return seen["hanging"] > 0.9 * seen["connections"]

    def cured(self, seen):
        return seen["answered"] == seen["connections"]

    def felt(self, seen):
        n = seen["connections"]
        if self.cured(seen):
            return f"all {n} idle connections answered at once"
        text = f"{seen['hanging']} of {n} idle connections hung at their next use (> {DEADLINE_S} s)"
        return text + (f", {seen['closed']} were closed" if seen["closed"] else "")


class Path(Outage):
    """The link to the clients carries less than the gateway's other side, and upstreams never hear of it."""

    name = "path"
    title = "a link with a smaller MTU, and a filter that swallows ICMP"
    mtu = 1400
    requests = 40
    files = Service("files", 83, 8083)
    services = (files,)

    def arrange(self):
        once(os.path.join(self.lab.files, "film"), lambda: b"film\n" + bytes(1000 * 1000))

    def _ask(self, path, tell=None):
        options = {"requests": self.requests, "concurrency": self.requests, "timeout_ms": DEADLINE_MS}
        with Load(self.lab, FAMILIES, port=self.files.port, path=path, report_ms=200, **options) as load:
            load.watch(2 * DEADLINE_S, tell)
            return load.wait()

    def measure(self, show=Unseen()):
        tell = per_second(show)
        healthy = self._ask("/film", tell)
        show.step(f"{healthy['ok']} of {self.requests} downloads of 1 MB in {healthy['seconds']:.1f} s")
        if healthy["failed"]:
            raise LabError(f"path: the good days are none: {healthy}")
        with ptb_filtered(self.lab), small_egress(self.lab, self.mtu):
            show.step(f"the link to the clients has an MTU of {self.mtu} now; no upstream hears \"packet too big\"")
            small = self._ask("/name", tell)
            show.step(f"{small['ok']} of {self.requests} small requests work")
            big = self._ask("/film", tell)
            show.step(f"{big['ok']} of {self.requests} downloads complete")
        return {"small": small, "big": big}

    def hurt(self, seen):
        return seen["small"]["failed"] == 0 and seen["big"]["ok"] == 0 and self._hung(seen) == self.requests

    def _hung(self, seen):
        return seen["big"]["failures"]["timeout"]

    def cured(self, seen):
        return seen["small"]["failed"] == 0 and seen["big"]["failed"] == 0

    def felt(self, seen):
        if self.cured(seen):
            return f"all {self.requests} downloads completed, the slowest in {seen['big']['max_ms'] / 1000:.1f} s"
        n = self.requests
        small = f"small requests worked ({seen['small']['ok']} of {n})"
        return f"{small}, {self._hung(seen)} of {n} downloads hung (> {DEADLINE_S} s)"


class Storm(Outage):
    """An upstream stalls for a moment. Clients give up and try again, and what they abandon is worked off, too.

    With immediate retries the demand becomes four times the load, more than the upstream can do, and its queue holds
    more work than clients have patience: from then on it answers only those that have left, and all of them try again.
    Four fifths of its capacity would do, if it were spent on those who wait. Nothing of it is configured: what the
    upstream bears is measured.
    """

    name = "storm"
    title = "an upstream stalls for a moment, and clients retry"
    rate = 400
    workers = 10
    work_ms = 20
    capacity = workers * 1000 // work_ms
    deadline_ms = 1000
    retries = 3
    healthy_s = 8
    stall_s = 5
    watch_s = 32
    steady_s = 5  # so long it must serve again to be called recovered
    recovers_s = 2
    tickets = Service("tickets", 84, 9000, upstreams=("up3",))
    services = (tickets,)

    def __init__(self, lab):
        super().__init__(lab)
        self._upstream = None

    def arrange(self):
        """A fresh one each time: what the last storm left in its queue would be worked off first."""
        self.close()
        options = {"workers": self.workers, "work_ms": self.work_ms, "backlog": 4096}
        self._upstream = SlowUpstream(self.lab, *self.tickets.upstreams, self.tickets.backend_port, **options)

    def close(self):
        if self._upstream:
            self._upstream.close()
        self._upstream = None

    def measure(self, show=Unseen()):
        tell = per_second(show)
        options = {"rate": self.rate, "poisson": 1, "retries": self.retries, "timeout_ms": self.deadline_ms}
        show.step(
            f"{self.rate} requests a second; the upstream can do {self.capacity}. Clients give up after "
            f"{self.deadline_ms / 1000:.0f} s and try again at once, {self.retries} times"
        )
        port = self.tickets.port
        with Load(self.lab, 4, port=port, concurrency=4096, report_ms=100, **options) as load:
            load.watch(self.healthy_s, tell)
            with faults.stalled(self._upstream):
                stalled_s = load.samples[-1].seconds
                show.step(f"all workers of the upstream stall for {self.stall_s} s")
                load.watch(self.stall_s, tell)
            ended_s = load.samples[-1].seconds
            before = self._upstream.snapshot()
            show.step("the upstream works at full speed again")
            load.watch(self.watch_s, tell)
            after = self._upstream.snapshot()
            result = load.finish()
        goods = [load.ok_rate(ended_s + s, ended_s + s + 1) for s in range(self.watch_s - 1)]
        return {
            "healthy": load.ok_rate(min(1, stalled_s), stalled_s),
            "goods": goods,
            "end": sum(goods[-5:]) / 5,
            "recovered_s": self._recovered_s(goods),
            "answered": after["answered"] - before["answered"],
            "abandoned": after["abandoned"] - before["abandoned"],
            "late": result["late"],
            "started": result["started"],
        }

    def _recovered_s(self, goods):
        """Seconds after the stall from which on the load is served; None: never."""
        for i in range(len(goods) - self.steady_s + 1):
            if sum(goods[i:]) / len(goods[i:]) >= 0.95 * self.rate and goods[i] >= 0.9 * self.rate:
                return i
        return None

    def hurt(self, seen):
        return seen["healthy"] >= 0.9 * self.rate and seen["end"] <= 0.1 * self.rate

    def cured(self, seen):
        recovered_s = seen["recovered_s"]
        return seen["healthy"] >= 0.9 * self.rate and recovered_s is not None and recovered_s <= self.recovers_s

    def felt(self, seen):
        if self.cured(seen):
            return f"{seen['healthy']:.0f} answers/s; after the stall again from {seen['recovered_s']} s on"
        waste = percent(seen["abandoned"], seen["answered"])
        return (
            f"{seen['healthy']:.0f} answers/s, then {seen['end']:.0f}/s, and so {self.watch_s} s after the stall: "
            f"{waste} of what the upstream did was for clients that had left"
        )


OUTAGES = {kind.name: kind for kind in (Wall, Names, Silence, Path, Storm)}
