# SPDX-License-Identifier: BSD-3-Clause
"""
The cures, enforced, off, and in shadow.

A script's answers fit what enforce does; off and shadow read the same frames. Shadow can count what enforce does only
as long as both have seen the same: where enforce refuses a flow or sends it elsewhere, shadow has it where it was,
and what the script says of it from then on fits enforce alone. So the conversations that make something count come
before what tells the two apart, SYNs that nobody answers in shadow get a RST of their client within the second after
which the wall would take note, and each attempt comes from a port of its own. What cannot be compared:

  keepalive, rst_peer_dead   of an end that answers no probe: only who asks can know (modes_dead)
  refuse_, silence_, hold_   of a SYN that is sent again: once refused, it is another attempt; in shadow its flow
                             exists, and it is none (modes_again)
  resteer                    of flows that storm refuses: in shadow they wait for a backend's answer (modes_again)
  put_off, rst_untold        counted by enforce alone: they tell of what it could not send
"""
import ipaddress
import tempfile

from conversation import (ICMP, IP, LAN, ROUTER, TCP, UDP, WAN, Case, Ether, ICMPv6PacketTooBig, IPv6, Raw, TcpFlow)


class Attempt(TcpFlow):
    """One of many connections: its numbers are its own, so that no other one's answer fits."""

    def __init__(self, case, family, sport, hops=64):
        super().__init__(case, family, sport, hops)
        self.isn = sport * 1000

    def syn(self, **kw):
        return self.client("S", self.isn, **kw)

    def answered(self):
        """And over."""
        self.server("SA", 5000, self.isn + 1)
        self.client("A", self.isn + 1, 5001)
        self.gives_up()

    def refused(self, **kw):
        return self.server("RA", 0, self.isn + 1, **kw)

    def gives_up(self, **kw):
        self.client("R", self.isn + 1, **kw)

    def moves(self, frame, number):
        assert frame[TCP].flags == "S" and frame[TCP].seq == self.isn, frame.summary()
        self.goes(frame)
        assert self.backend == self.family.backend(number), frame.summary()


class Choices:
    """Ports of clients by the backend that is their first choice of two."""

    def __init__(self, replay, family):
        self.replay, self.family, self.first = replay, family, 41000

    def of(self, number, client=None):
        """The next port whose flows go to that backend first."""
        family = self.family.of(client) if client else self.family
        ports = range(self.first, self.first + 16)
        with tempfile.TemporaryDirectory() as path:
            case = Case(self.replay, path, {"backends": 2})
            for port in ports:
                case.record(Ether(src=ROUTER, dst=WAN) / family.ip(src=family.client, dst=family.vip) /
                            TCP(sport=port, dport=80, flags="S", seq=1), 0.001)
            out = case.run()
        port = next(p for p, f in zip(ports, out) if f[family.ip].dst == family.backend(number))
        self.first = port + 1
        return port


def mss_of(frame):
    return dict(frame[TCP].options)["MSS"]


def ptb(family, frame, mtu):
    """What a router before the client says of a frame that left for it."""
    quoted = Raw(bytes(frame[family.ip])[:100])
    if family.ip is IP:
        return IP(src="198.18.1.1", dst=family.vip) / ICMP(type=3, code=4, nexthopmtu=mtu) / quoted
    return IPv6(src="2001:db8:1::1", dst=family.vip) / ICMPv6PacketTooBig(mtu=mtu) / quoted


def path_acts(case, family, clients):
    """SYN and SYN-ACK are clamped to a link, then to what a router said; one that says too little is held back."""
    headers = 40 if family.ip is IP else 60
    flow = TcpFlow(case, family.of(clients[0]), 40000)
    full, link, path = [("MSS", 1500 - headers)], 1480 - headers, 1400 - headers
    assert mss_of(flow.client("S", 1000, options=full)[0]) == link
    assert mss_of(flow.server("SA", 5000, 1001, options=full)[0]) == link
    flow.client("A", 1001, 5001)
    (big,) = flow.server("A", 5001, 1001, b"x" * 1400)
    (error,) = case.up(ptb(family, big, 1400))
    assert error.src == LAN and error[family.ip].dst == flow.backend, error.summary()
    flow.server("A", 5001, 1001, b"x" * 1300)
    flow.client("A", 1001, 6301)
    flow.client("R", 1001)
    flow = TcpFlow(case, family.of(clients[0]), 40001)
    fits_the_link = [("MSS", 1400)]
    assert mss_of(flow.client("S", 1000, options=fits_the_link, after=0.2)[0]) == path
    assert mss_of(flow.server("SA", 5000, 1001, options=fits_the_link)[0]) == path
    flow.client("A", 1001, 5001)
    flow.client("R", 1001)
    # So much was acknowledged in so few packets that larger ones than 1280 have passed.
    flow = TcpFlow(case, family.of(clients[1]), 40002)
    flow.open()
    for i in range(16):
        flow.server("A", 5001 + 1420 * i, 1001, b"x" * 1420)
    at = 5001 + 1420 * 16
    flow.client("A", 1001, at)
    (big,) = flow.server("A", at, 1001, b"x" * 1420)
    case.up(ptb(family, big, 1280), expect=0)
    (big,) = flow.server("A", at, 1001, b"x" * 1420, after=0.3)
    (error,) = case.up(ptb(family, big, 1280))
    assert error.src == LAN and error[family.ip].dst == flow.backend, error.summary()
    flow.client("R", 1001)


def are_probes(family, frames, flow):
    up, down = sorted(frames, key=lambda f: f.src, reverse=True)
    assert (up.src, down.src) == (LAN, WAN) and up[family.ip].dst == flow.backend, frames
    assert all(f[TCP].flags == "A" and not f[TCP].payload for f in frames), frames


def are_resets(frames):
    assert sorted(f.src for f in frames) == [WAN, LAN] and all(f[TCP].flags == "RA" for f in frames), frames


def silence_acts(case, family, clients):
    """One idles, and its ends answer; those of another are gone with data under way. A RST and a SYN are forged."""
    idle, stuck = TcpFlow(case, family.of(clients[0]), 40003), TcpFlow(case, family.of(clients[1]), 40004)
    stuck.open()
    stuck.client("PA", 1001, 5001, b"lost")
    idle.open()
    idle.client("PA", 1001, 5001, b"ping")
    idle.server("PA", 5001, 1005, b"pong")
    idle.client("A", 1005, 5005)
    idle.server("R", 9999999, expect=0)
    (ack,) = idle.client("S", 99)
    assert ack.src == WAN and (ack[TCP].flags, ack[TCP].seq, ack[TCP].ack) == ("A", 5005, 1005), ack.summary()
    are_probes(family, case.wait(22.3, expect=2), idle)
    idle.client("A", 1005, 5005, expect=0)
    idle.server("A", 5005, 1005, expect=0)
    are_probes(family, case.wait(9.7, expect=2), stuck)
    frames = case.wait(12.6, expect=4)
    for flow in idle, stuck:
        are_probes(family, [f for f in frames if flow.snat_port == f[TCP].sport or flow.sport == f[TCP].dport], flow)
    idle.client("A", 1005, 5005, expect=0)
    idle.server("PA", 5005, 1005, b"more")
    are_probes(family, case.wait(7, expect=2), stuck)
    are_resets(case.wait(10, expect=2))
    stuck.client("R", 1005, expect=0)
    idle.client("R", 1005)


def is_syn_of_ours(family, frame, number):
    assert frame.src == LAN and frame[TCP].flags == "S", frame.summary()
    assert (frame[family.ip].src, frame[family.ip].dst) == (family.snat, family.backend(number)), frame.summary()


def wall_opens(case, family, choices):
    """The first backend refuses, and is silent once: all goes to the second one, and so does a flow that waits."""
    def attempt(number=1):
        flow = Attempt(case, family, choices.of(number, family.client))
        flow.syn(after=0.2)
        return flow

    case.wait(2, expect=0)
    refused = attempt()
    refused.moves(refused.refused()[0], 2)
    refused.answered()
    silent = attempt()
    late = family.ip(src=silent.backend, dst=family.snat) / TCP(
        sport=8080, dport=silent.snat_port, flags="RA", ack=silent.isn + 1)
    silent.moves(case.wait(1.2)[0], 2)
    case.down(late, expect=0)
    silent.answered()
    for _ in range(2):
        refused = attempt()
        refused.moves(refused.refused()[0], 2)
        refused.gives_up()
    waiting, refused = attempt(), attempt()
    moved, given_away = refused.refused(expect=2)
    refused.moves(moved, 2)
    waiting.moves(given_away, 2)
    (probe,) = case.wait(0.05)
    is_syn_of_ours(family, probe, 1)
    case.down(family.ip(src=family.backend(1), dst=family.snat) /
              TCP(sport=8080, dport=probe[TCP].sport, flags="RA", ack=probe[TCP].seq + 1), expect=0)
    refused.gives_up()
    waiting.gives_up()
    diverted = attempt()
    assert diverted.backend == family.backend(2)
    diverted.answered()


def all_open(case, family, choices):
    """The second backend falls silent, too: then one flow a second as a last resort, and RSTs for the others."""
    case.wait(1.5, expect=0)
    for _ in range(5):
        Attempt(case, family, choices.of(2, family.client)).syn(after=0.15)
    (probe,) = case.wait(1.3)
    is_syn_of_ours(family, probe, 2)
    last = Attempt(case, family, choices.of(2, family.client))
    last.syn(after=0.15)
    assert last.backend == family.backend(1)
    last.answered()
    # Twice a second its client hears of it, and no more often.
    (rst,) = Attempt(case, family, choices.of(1, family.client)).syn(after=0.15)
    assert rst.src == WAN and rst[TCP].flags == "RA", rst.summary()
    Attempt(case, family, choices.of(1, family.client)).syn(after=0.15, expect=0)


def storm_acts(case, family, choices, clients, n_admitted):
    """
    Attempts of these clients in turn, faster than a cap lets them through (10/s): some at once, two held, one refused,
    and the same client's next one silently. Of the next two one is held, for what was released has had its tokens.
    Their hops are few: that makes nobody's silence count against a backend, for in shadow those that are refused have
    flows that no answer of the script fits.
    """
    def attempt(client, **kw):
        flow = Attempt(case, family.of(client), choices.of(2, client), hops=10)
        return flow, flow.syn(**kw)

    clients = iter(clients)
    case.wait(1, expect=0)
    for _ in range(n_admitted):
        flow, _ = attempt(next(clients))
        assert flow.backend == family.backend(2)
    first, _ = attempt(next(clients), expect=0)
    second, _ = attempt(next(clients), expect=0)
    first.syn(expect=0)
    client = next(clients)
    _, (rst,) = attempt(client)
    assert rst.src == WAN and rst[TCP].flags == "RA", rst.summary()
    attempt(client, expect=0)
    released = case.wait(0.24, expect=2)
    first.moves(released[0], 2)
    second.moves(released[1], 2)
    attempt(next(clients), after=0.08)
    third, _ = attempt(next(clients), expect=0)
    third.moves(case.wait(0.11)[0], 2)
    third.answered()


def modes(case, family):
    """Every cure acts, and what shadow counts is what enforce did."""
    v4 = family.ip is IP

    def client(net, subnet=0, host=7):
        if v4:
            return f"198.19.{net}.{subnet + host}"
        return ipaddress.ip_address(f"2001:db8:{0x1000 + net:x}:{subnet:x}::{host:x}").compressed

    choices = Choices(case.replay, family)
    path_acts(case, family, [client(0, host=7), client(0, host=8)])
    silence_acts(case, family, [client(1), client(2)])
    wall_opens(case, family.of(client(3)), choices)
    storm_acts(case, family, choices, [client(4)] * 7, 2)
    # UDP is never held, nor refused aloud.
    case.wait(0.5, expect=0)
    for i in range(4):
        case.up(family.ip(src=client(4), dst=family.vip) / UDP(sport=40010 + i, dport=53) / Raw(b"query"),
                expect=1 if i < 2 else 0)
    storm_acts(case, family, choices, [client(5, subnet=i) for i in range(9)], 4)
    storm_acts(case, family, choices, [client(i) for i in range(10, 21)], 6)
    all_open(case, family.of(client(3)), choices)
    case.finish({
        "resteer": 6, "divert": 1, "last_resort": 1, "refuse_open": 2, "probe": 2,
        "keepalive": 10, "rst_peer_dead": 1, "refuse_rst": 1, "challenge": 1, "clamp": 4, "hold_ptb": 1,
        "hold_client": 3, "hold_prefix": 3, "hold_service": 3,
        "refuse_client": 1, "refuse_prefix": 1, "refuse_service": 1,
        "silence_client": 3, "silence_prefix": 1, "silence_service": 1,
    })


def modes_idle(case, family):
    """Where nobody is asked, a connection that idles too long ends, and both ends hear of it."""
    flow = TcpFlow(case, family)
    flow.open()
    flow.client("PA", 1001, 5001, b"ping")
    flow.server("PA", 5001, 1005, b"pong")
    flow.client("A", 1005, 5005)
    are_resets(case.wait(30.2, expect=2))
    (frame,) = flow.client("PA", 1005, 5005, b"still there?")
    assert frame.src == WAN and frame[TCP].flags == "R" and frame[TCP].seq == 5005, frame.summary()
    case.finish({"rst_idle": 1})


def modes_dead(case, family):
    """
    The backend answers no probe. Shadow asks nobody and cannot know: it takes both ends for alive, counts the next
    round in its time, and no end.
    """
    flow = TcpFlow(case, family)
    flow.open()
    flow.server("PA", 5001, 1001, b"hello")
    flow.client("A", 1001, 5006)
    are_probes(family, case.wait(22.3, expect=2), flow)
    flow.client("A", 1001, 5006, expect=0)
    ends = case.wait(30, expect=4)
    assert all(f.src == LAN and f[TCP].flags == "A" for f in ends[:2]), ends
    are_resets(ends[2:])
    case.wait(15, expect=0)
    case.finish({"keepalive": 4, "rst_peer_dead": 1}, shadow={"keepalive": 6})


def modes_again(case, family):
    """
    Refused, clients send the same SYN again. Enforced, that is another attempt each time; in shadow it belongs to the
    flow that the first one made, which gets no answer here, so that the wall would give it to another backend.
    """
    flow = Attempt(case, family, 40000)
    flow.syn()
    flow.answered()
    aloud, silently = Attempt(case, family, 40001), Attempt(case, family, 40002)
    (rst,) = aloud.syn()
    assert rst.src == WAN and rst[TCP].flags == "RA", rst.summary()
    silently.syn(expect=0)
    silently.syn(after=0.2, expect=0)
    (rst,) = silently.syn(after=0.4)
    assert rst.src == WAN and rst[TCP].flags == "RA", rst.summary()
    case.wait(0.7, expect=0)
    case.finish({"refuse_client": 2, "silence_client": 2},
                shadow={"refuse_client": 1, "silence_client": 1, "resteer": 2})
