# SPDX-License-Identifier: BSD-3-Clause
"""What the gateway itself lacks: room, ports, a way, buffers, another worker's time; and what limits let it say."""
from conversation import ICMP, LAN, ROUTER, TCP, UDP, V4, WAN, Ether, ICMPv6DestUnreach, Raw, TcpFlow, is_upstream
from cures import Attempt, Choices, are_resets, is_syn_of_ours
from drops import unreachable


def query(family, sport=40001, size=5):
    return family.packet(family.client, family.vip) / UDP(sport=sport, dport=53) / Raw(bytes(size))


def is_refused(frame, flow, isn):
    assert frame.src == WAN and frame[TCP].flags == "RA" and frame[TCP].ack == isn + 1, frame.summary()


def table_full(case, family):
    """One entry, and it is taken: a TCP client hears it at once, a UDP client has its own timer."""
    first, second = TcpFlow(case, family, 40000), TcpFlow(case, family, 40001)
    first.open()
    (frame,) = second.client("S", 1000, verdict="answer_table_full")
    is_refused(frame, second, 1000)
    case.up(query(family), expect=0, verdict="drop_table_full")
    first.client("PA", 1001, 5001, b"goes on")


def table_pressed(case, family):
    """
    19 entries of 20: what is left is for a client that had a connection lately. Others hear it, or have timers of
    their own.
    """
    known, stranger = TcpFlow(case, family, 40000), family.of("198.19.0.8" if family is V4 else "2001:db8:1001::7")
    known.open()
    for i in range(18):
        case.up(query(stranger, 40001 + i))
    flow = TcpFlow(case, stranger, 40100)
    (frame,) = flow.client("S", 1000, verdict="answer_table_pressed")
    is_refused(frame, flow, 1000)
    case.up(query(stranger, 40101), expect=0, verdict="drop_table_pressed")
    case.up(query(family, 40102))
    (frame,) = TcpFlow(case, family, 40103).client("S", 1000, verdict="answer_table_full")
    is_refused(frame, flow, 1000)
    known.client("PA", 1001, 5001, b"goes on")


def ports_exhausted(case, family):
    """There is no port to go out by."""
    flow = TcpFlow(case, family)
    (frame,) = flow.client("S", 1000, verdict="answer_ports_exhausted")
    is_refused(frame, flow, 1000)
    case.up(query(family), expect=0, verdict="drop_ports_exhausted")


def no_way(case, family):
    """Neighbour, link and route of the backends go, one after the other, and the connection outlives the first two."""
    flow = TcpFlow(case, family)
    flow.open()

    def lost(verdict):
        flow.client("PA", 1001, 5001, b"request", expect=0, verdict=verdict)

    case.event("neighbours", 0)
    lost("drop_neighbour")
    case.event("neighbours", 1)
    case.event("lan", 0)
    lost("drop_link_down")
    case.event("lan", 1)
    flow.client("PA", 1001, 5001, b"request")
    case.event("route", 1)
    lost("drop_route_blackhole")
    case.event("route", 2)
    lost("drop_no_route")


def no_buffer(case, family):
    """A connection that was held finds no buffer for its SYN when its time comes: nobody hears of it."""
    TcpFlow(case, family, 40000).client("S", 1000)
    TcpFlow(case, family, 40001).client("S", 2000, expect=0)
    case.event("buffers", 0)
    case.event("buffers", 1, after=0.3)
    case.wait(0.001, expect=0, verdict="drop_no_buffer")


def stopped(case, family):
    """One that is held when the worker ends."""
    TcpFlow(case, family, 40000).client("S", 1000)
    TcpFlow(case, family, 40001).client("S", 2000, expect=0)
    case.event("stop", 1)
    case.wait(0.001, expect=0, verdict="drop_stopped")


def fragments(case, family):
    """1420 bytes that may be cut go on in two pieces over a link of 1400."""
    first, second = case.up(query(family, size=1392), expect=2, verdict="forwarded_fragments")
    assert first.src == second.src == LAN and first[family.ip].flags.MF and second[family.ip].frag, first.summary()


def limits(case, family):
    """A stray is answered ten times a second, and an unreachable port as often. Nobody hears more."""
    flow = TcpFlow(case, family)
    flow.client("A", 77, 4711, verdict="answer_stray_rst")
    flow.client("A", 77, 4711, expect=0, verdict="shed_stray_limit")
    flow.client("A", 77, 4711, after=0.1, verdict="answer_stray_rst")
    for i in range(10):
        case.up(query(family, 40001 + i), verdict="answer_unreachable")
    case.up(query(family, 40020), expect=0, verdict="shed_icmp_limit")


def reset_again(case, family):
    """It idled too long. What its client still says is answered three times."""
    flow = TcpFlow(case, family)
    flow.open()
    are_resets(case.wait(30.2, expect=2))
    for _ in range(3):
        (rst,) = flow.client("PA", 1001, 5001, b"?", verdict="answer_reset_again")
        assert rst.src == WAN and (rst[TCP].flags, rst[TCP].seq) == ("R", 5001), rst.summary()
    flow.client("PA", 1001, 5001, b"?", expect=0, verdict="shed_reset_again")


def ghosts(case, family):
    """
    The first backend answers too late, is unreachable, and refuses until its breaker opens. Its late SYN-ACK and the
    one to the gateway's own SYN are answered with RST, for nobody wants these connections.
    """
    choices = Choices(case.replay, family)

    def attempt():
        flow = Attempt(case, family, choices.of(1))
        (sent,) = flow.syn(after=0.2)
        return flow, sent

    def syn_ack(isn, port, **kw):
        (rst,) = case.down(family.packet(family.backend(1), family.snat) /
                           TCP(sport=8080, dport=port, flags="SA", seq=5000, ack=(isn + 1) % 2**32), **kw)
        assert rst.src == LAN and (rst[TCP].flags, rst[TCP].seq) == ("R", (isn + 1) % 2**32), rst.summary()

    case.wait(2, expect=0)
    late, sent = attempt()
    late.moves(case.wait(1.2)[0], 2)
    syn_ack(sent[TCP].seq, sent[TCP].sport, verdict="answer_ghost")
    late.answered()
    far, sent = attempt()
    far.moves(case.down(unreachable(family, family.backend(1), sent[family.ip], code=1 if family is V4 else 3),
                        verdict="absorb_unreachable")[0], 2)
    far.answered()
    for i in range(4):
        refused, _ = attempt()
        moved = refused.refused(verdict="absorb_refusal")
        refused.moves(moved[0], 2)
        if i < 3:
            refused.answered()
    (probe,) = case.wait(0.05)
    is_syn_of_ours(family, probe, 1)
    syn_ack(probe[TCP].seq, probe[TCP].sport, verdict="answer_probe")


def rst_limit(case, family):
    """
    A backend answers when another one has the connection already, and while no more RSTs may be sent. When it says
    that again, it gets its RST.
    """
    choices = Choices(case.replay, family)
    case.wait(2, expect=0)
    flow = Attempt(case, family, choices.of(1))
    (sent,) = flow.syn()
    flow.moves(case.wait(1.2)[0], 2)
    flow.answered()
    late = family.packet(family.backend(1), family.snat) / TCP(
        sport=8080, dport=sent[TCP].sport, flags="SA", seq=5000, ack=flow.isn + 1)
    case.event("no_more_rsts", 0)
    case.down(late, after=0.00001, expect=0, verdict="shed_backend_rst")
    (rst,) = case.down(late, after=1, verdict="answer_ghost")
    assert rst.src == LAN and (rst[TCP].flags, rst[TCP].seq) == ("R", flow.isn + 1), rst.summary()


def breakers_open(case, family):
    """All breakers are open: a query as a last resort, the next one is told."""
    case.event("breakers", 1)
    (sent,) = case.up(query(family))
    is_upstream(family, sent)
    (frame,) = case.up(query(family, 40002), verdict="answer_wall_unreachable")
    error = frame[ICMP] if family is V4 else frame[ICMPv6DestUnreach]
    assert (error.type, error.code) == ((3, 3) if family is V4 else (1, 4)), frame.summary()


def limited(case, family):
    """
    The backend may have one thing under way: the next two attempts wait, in their order, and there is no place for
    more. One goes when the first response has come. The other one waits for as long as its client has patience, and
    hears nothing, for that client was told half a second before. Then the limit is over.
    """
    flows = [TcpFlow(case, family, 40000 + i) for i in range(8)]
    case.event("limit", 1)
    flows[0].open()
    flows[0].client("PA", 1001, 5001, b"request")
    for flow in flows[1:3]:
        flow.client("S", 1000, expect=0)
    (frame,) = flows[3].client("S", 1000, verdict="answer_storm_limit")
    is_refused(frame, flows[3], 1000)
    (_, frame) = flows[0].server("PA", 5001, 1008, b"response", expect=2)
    flows[1].goes(frame)
    case.wait(0.6, expect=0)
    assert case.verdicts()["shed_storm_limit"] == 1
    for flow in flows[4:6]:
        flow.client("S", 1000, expect=0)
    (frame,) = flows[6].client("S", 1000, verdict="answer_storm_limit")
    case.event("limit", 0)
    frames = case.wait(0.1, expect=2)
    flows[4].goes(frames[0])
    flows[5].goes(frames[1])
    flows[7].client("S", 1000)


def hard_max(case, family):
    """The backend is let have one thing under way, and without a hold nobody waits: a client is told of it once."""
    flows = [TcpFlow(case, family, 40000 + i) for i in range(4)]
    flows[0].open()
    flows[0].client("PA", 1001, 5001, b"request")
    (frame,) = flows[1].client("S", 1000, verdict="answer_storm_hard_max")
    is_refused(frame, flows[1], 1000)
    for flow in flows[2:]:
        flow.client("S", 1000, expect=0, verdict="shed_storm_hard_max")
    flows[0].server("PA", 5001, 1008, b"response")
    flows[3].client("S", 1000)


def backend_rate(case, family):
    """The backend is given two at once and then one a second: without a hold, who comes next is told so once."""
    flows = [TcpFlow(case, family, 40000 + i) for i in range(5)]
    flows[0].client("S", 1000)
    flows[1].client("S", 1000)
    (frame,) = flows[2].client("S", 1000, verdict="answer_storm_backend")
    is_refused(frame, flows[2], 1000)
    flows[3].client("S", 1000, expect=0, verdict="shed_storm_backend")
    case.wait(1, expect=0)
    flows[4].client("S", 1000)


def retries(case, family):
    """
    A client whose connections were refused tries again, and there is one token for that: the next time it hears a RST,
    then nothing, however often its kernel sends that SYN again, until there is a token for it.
    """
    flows = [TcpFlow(case, family, 40000 + i) for i in range(5)]
    for flow in flows[:3]:
        if flow is flows[2]:
            case.event("budget", 1)
        flow.client("S", 1000)
        (frame,) = flow.server("RA", 0, 1001)
        assert frame.src == WAN and frame[TCP].flags == "RA", frame.summary()
    (frame,) = flows[3].client("S", 1000, verdict="answer_storm_retry")
    is_refused(frame, flows[3], 1000)
    for _ in range(2):
        flows[4].client("S", 1000, expect=0, verdict="shed_storm_retry")
    case.wait(0.3, expect=0)
    flows[4].client("S", 1000)


def workers(case, family):
    """All frames come to the first of two workers, which gives what belongs to the second to that."""
    for i in range(4):
        flow = TcpFlow(case, family, 40000 + i)
        flow.open()
        flow.client("PA", 1001, 5001, b"request")
    assert case.verdicts()["handed_over"] >= 4


def worker_stands(case, family):
    """The second worker does not run, until what the first one gave to it fills the ring."""
    for i in range(16):
        case.record(Ether(src=ROUTER, dst=WAN) / query(family, 40000 + i), 0.001)
        if len(case.run()) == i:
            break
    case.event("repeat", 1100)
    case.wait(0.1, expect=i, verdict="drop_handover_full")
