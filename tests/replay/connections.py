# SPDX-License-Identifier: BSD-3-Clause
"""Connections and queries as they should be, and how they end; what the gateway answers in its own name."""
from conversation import (ICMP, TCP, UDP, V4, WAN, ICMPv6DestUnreach, ICMPv6PacketTooBig, ICMPv6TimeExceeded, Raw,
                          TcpFlow, is_client, is_upstream)
from scapy.all import ICMPv6EchoRequest


def tcp(case, family):
    """Handshake, request, answer, both FINs."""
    flow = TcpFlow(case, family)
    flow.open()
    (frame,) = flow.client("PA", 1001, 5001, b"GET / HTTP/1.0\r\n\r\n")
    assert bytes(frame[Raw]) == b"GET / HTTP/1.0\r\n\r\n"
    flow.server("A", 5001, 1019)
    flow.server("PA", 5001, 1019, b"x" * 1400)
    flow.client("A", 1019, 6401)
    flow.server("FA", 6401, 1019)
    flow.client("FA", 1019, 6402)
    flow.server("A", 6402, 1020)


def tcp_options(case, family):
    """
    Timestamps and SACK, with sequence numbers and clocks that wrap: the client sees its own, the backend those of the
    gateway. Then the same client again, which the backend still has in TIME_WAIT: a RST for that, and the SYN again.
    """
    isn, clock = 2**32 - 50, 2**32 - 3
    flow = TcpFlow(case, family)
    syn = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (clock, 0)), ("NOP", None), ("WScale", 7)]
    flow.client("S", isn, options=syn)
    flow.server("SA", 5000, (isn + 1) % 2**32, timestamps=(700, clock))

    def stamped(ticks, echo=700):
        return [("NOP", None), ("NOP", None), ("Timestamp", ((clock + ticks) % 2**32, echo))]

    flow.client("A", (isn + 1) % 2**32, 5001, options=stamped(1))
    for i in range(3):
        flow.client("PA", (isn + 1 + 40 * i) % 2**32, 5001, b"z" * 40, options=stamped(2 + i))
    edges = [(isn + 81) % 2**32, (isn + 121) % 2**32]
    flow.server("A", 5001, (isn + 41) % 2**32, timestamps=(710, (clock + 2) % 2**32), sack=edges)
    flow.server("FA", 5001, (isn + 121) % 2**32, timestamps=(720, (clock + 3) % 2**32))
    flow.client("FA", (isn + 121) % 2**32, 5002, options=stamped(9, 720))
    flow.server("A", 5002, (isn + 122) % 2**32, timestamps=(730, (clock + 9) % 2**32))
    again = TcpFlow(case, family)
    again.client("S", 77, options=[("Timestamp", (1, 0)), ("NOP", None), ("NOP", None)])
    first_isn, first_port = again.seq_shift + 77, again.snat_port
    (rst, second) = again.server("A", 5002, 4711, expect=2)
    assert (rst[TCP].flags, rst[TCP].sport) == ("R", first_port), rst.summary()
    assert rst[TCP].seq == (4711 + again.seq_shift) % 2**32, rst.summary()
    assert (second[TCP].flags, second[TCP].seq, second[TCP].sport) == ("S", first_isn, first_port), second.summary()
    (passed,) = again.server("A", 5002, 4711)
    assert passed.src == WAN


def tcp_rst(case, family):
    """
    A RST that the other side would ignore goes no further, one that it would ask back about changes nothing, one that
    it takes ends the flow: then a stray.
    """
    flow = TcpFlow(case, family)
    flow.open()
    flow.server("R", 9999999, expect=0)
    flow.server("R", 5002)
    flow.client("PA", 1001, 5001, b"still there")
    flow.server("R", 5001)
    (frame,) = flow.client("A", 1012, 5001, after=30)
    assert frame.src == WAN and frame[TCP].flags == "R" and frame[TCP].seq == 5001, frame.summary()


def tcp_stray(case, family):
    """Packets of no flow: answered with the RST that the sender must believe; a RST is never answered."""
    (frame,) = TcpFlow(case, family).client("A", 77, 4711)
    assert frame.src == WAN and frame[TCP].flags == "R" and frame[TCP].seq == 4711, frame.summary()
    TcpFlow(case, family).client("R", 77, expect=0)


def udp(case, family):
    """A query, its answer, a second query on the same flow; then silence until it is forgotten."""
    query = family.ip(src=family.client, dst=family.vip) / UDP(sport=40001, dport=53) / Raw(b"query")
    (up,) = case.up(query)
    is_upstream(family, up)
    answer = (family.ip(src=up[family.ip].dst, dst=family.snat) / UDP(sport=8080, dport=up[UDP].sport) / Raw(b"answer"))
    (down,) = case.down(answer)
    is_client(family, down, 53, 40001)
    (again,) = case.up(query, after=250)
    assert again[UDP].sport == up[UDP].sport
    case.down(answer, after=310, expect=0)


def refused(case, family):
    """No backend at all: a TCP client hears it at once by RST, a UDP client by port unreachable."""
    (frame,) = TcpFlow(case, family).client("S", 1000)
    assert frame.src == WAN and frame[TCP].flags == "RA" and frame[TCP].ack == 1001, frame.summary()
    (frame,) = case.up(family.ip(src=family.client, dst=family.vip) / UDP(sport=40001, dport=53) / Raw(b"query"))
    error = frame[ICMP] if family is V4 else frame[ICMPv6DestUnreach]
    assert (error.type, error.code) == ((3, 3) if family is V4 else (1, 4)), frame.summary()


def echo(case, family):
    """The VIP answers pings itself."""
    request = ICMP(id=7, seq=1) if family is V4 else ICMPv6EchoRequest(id=7, seq=1)
    (frame,) = case.up(family.ip(src=family.client, dst=family.vip) / request / Raw(b"abcdefgh"))
    ip = frame[family.ip]
    assert ip.src == family.vip and ip.dst == family.client and ip.payload.type in (0, 129), frame.summary()


def too_big(case, family):
    """The way to the backend takes 1400 bytes: the client is told so."""
    flow = TcpFlow(case, family)
    flow.open()
    packet = (family.ip(src=family.client, dst=family.vip) /
              TCP(sport=40000, dport=80, flags="A", seq=1001, ack=5001) / Raw(b"y" * 1420))
    if family is V4:
        packet.flags = "DF"
    (frame,) = case.up(packet)
    ip = frame[family.ip]
    assert frame.src == WAN and ip.dst == family.client, frame.summary()
    if family is V4:
        assert (frame[ICMP].type, frame[ICMP].code, frame[ICMP].nexthopmtu) == (3, 4, 1400), frame.summary()
    else:
        assert frame[ICMPv6PacketTooBig].mtu == 1400, frame.summary()
    flow.client("A", 1001, 5001, b"y" * 1300)


def ttl_exceeded(case, family):
    """A hop limit that runs out here is answered in the VIP's name, and the flow lives on."""
    flow = TcpFlow(case, family)
    flow.open()
    packet = family.ip(src=family.client, dst=family.vip) / TCP(sport=40000, dport=80, flags="A", seq=1001, ack=5001)
    packet.setfieldval("ttl" if family is V4 else "hlim", 1)
    (frame,) = case.up(packet)
    error = frame[ICMP] if family is V4 else frame[ICMPv6TimeExceeded]
    assert (error.type, error.code) == ((11, 0) if family is V4 else (3, 0)), frame.summary()
    flow.client("PA", 1001, 5001, b"still here")
