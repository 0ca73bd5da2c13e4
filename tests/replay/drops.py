# SPDX-License-Identifier: BSD-3-Clause
"""Packets that go no further because of what they are: malformed, for nobody, or errors about nothing."""
from conversation import (ICMP, IP, ROUTER, TCP, UDP, V4, WAN, Ether, ICMPv6DestUnreach, ICMPv6EchoReply, IPv6, Raw,
                          TcpFlow)
from scapy.all import Dot1Q, ICMPv6EchoRequest, IPOption, IPOption_LSRR
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrRouting


def malformed4(case, family):
    """In the order in which the bytes are read."""
    ip = dict(src=family.client, dst=family.vip)
    syn = TCP(sport=40000, dport=80, flags="S")
    for packet, verdict in (
            (IP(**ip, len=1000) / syn, "drop_truncated"),
            (IP(**ip, version=5) / syn, "drop_ip_version"),
            (IP(**ip, ihl=4) / syn, "drop_ip_header"),
            (IP(**ip, chksum=1) / syn, "drop_ip_checksum"),
            (IP(src="127.0.0.1", dst=family.vip) / syn, "drop_ip_source"),
            (IP(**ip, options=[IPOption_LSRR(routers=["198.18.3.1"])]) / syn, "drop_source_route"),
            (IP(**ip, options=[IPOption(b"\x1e\x27\x00\x00")]) / syn, "drop_ip_options"),
            (IP(**ip, flags="MF") / UDP(sport=40001, dport=53) / Raw(bytes(8)), "drop_fragment"),
            (IP(**ip, proto=47) / Raw(bytes(20)), "drop_protocol"),
            (IP(**ip) / TCP(sport=40000, dport=80, flags="S", dataofs=3), "drop_l4_header"),
            (IP(**ip) / TCP(sport=40000, dport=80, flags="SF"), "drop_tcp_flags")):
        case.up(packet, expect=0, verdict=verdict)


def malformed6(case, family):
    """In the order in which the bytes are read."""
    ip = dict(src=family.client, dst=family.vip)
    syn = TCP(sport=40000, dport=80, flags="S")
    too_many = IPv6(**ip)
    for _ in range(9):
        too_many /= IPv6ExtHdrDestOpt()
    for packet, verdict in (
            (IPv6(**ip, plen=1000) / syn, "drop_truncated"),
            (IPv6(**ip, version=5) / syn, "drop_ip_version"),
            (IPv6(src="ff02::1", dst=family.vip) / syn, "drop_ip_source"),
            (IPv6(**ip) / IPv6ExtHdrRouting(type=0, addresses=["2001:db8:3::1"]) / syn, "drop_source_route"),
            (too_many / syn, "drop_ip_options"),
            (IPv6(**ip) / IPv6ExtHdrFragment(m=1, id=7) / UDP(sport=40001, dport=53, len=200) / Raw(bytes(8)),
             "drop_fragment"),
            (IPv6(**ip, nh=47) / Raw(bytes(20)), "drop_protocol"),
            (IPv6(**ip) / TCP(sport=40000, dport=80, flags="S", dataofs=3), "drop_l4_header"),
            (IPv6(**ip) / TCP(sport=40000, dport=80, flags="SF"), "drop_tcp_flags"),
            (IPv6(**ip) / UDP(sport=40001, dport=53, chksum=0) / Raw(b"query"), "drop_udp6_zero_checksum")):
        case.up(packet, expect=0, verdict=verdict)


def malformed(case, family):
    (malformed4 if family is V4 else malformed6)(case, family)
    syn = family.packet(family.client, family.vip) / TCP(sport=40000, dport=80, flags="S")
    case.send(Ether(src=ROUTER, dst=WAN) / Dot1Q(vlan=5) / syn, expect=0, verdict="drop_vlan")
    case.wait(0.001, expect=0, verdict="drop_not_ip")


def not_ours(case, family):
    """For no listener; from an upstream that would open; to many at once."""
    def to(address, **tcp):
        return family.packet(family.client, address) / TCP(sport=40000, **tcp)

    case.up(to(family.backend(1), dport=80, flags="S"), expect=0, verdict="drop_not_ours")
    case.up(to(family.vip, dport=81, flags="S"), expect=0, verdict="drop_not_ours")
    case.down(family.packet(family.backend(1), family.snat) / TCP(sport=8080, dport=2000, flags="S"), expect=0,
              verdict="drop_snat_syn")
    case.down(family.packet(family.backend(1), family.snat) / UDP(sport=8080, dport=2000) / Raw(b"answer"), expect=0,
              verdict="drop_stray_udp")
    case.send(Ether(src=ROUTER, dst="01:00:5e:00:00:01") / to(family.vip, dport=80, flags="A"), expect=0,
              verdict="drop_unanswerable")


def unreachable(family, src, quoted, code=None, chksum=None):
    """What a router, or a backend, says of a packet; the code of a port, or of a host."""
    if family.ip is IP:
        return IP(src=src, dst=quoted.src) / ICMP(type=3, code=3 if code is None else code, chksum=chksum) / Raw(
            bytes(quoted)[:100])
    return IPv6(src=src, dst=quoted.src) / ICMPv6DestUnreach(code=4 if code is None else code, cksum=chksum) / Raw(
        bytes(quoted)[:100])


def errors(case, family):
    """Errors that are not what they say: each changes nothing, and goes no further. A true one does."""
    flow = TcpFlow(case, family)
    flow.open()
    (sent,) = flow.client("PA", 1001, 5001, b"request")
    quoted = sent[family.ip]
    case.up(family.packet(family.client, family.vip) / (ICMP(type=13) if family is V4 else ICMPv6EchoReply()),
            expect=0, verdict="drop_icmp_unwanted")
    case.down(unreachable(family, flow.backend, quoted, chksum=1), expect=0, verdict="drop_icmp_checksum")
    short = (IP(src=flow.backend, dst=family.snat) / ICMP(type=3, code=3) / Raw(bytes(quoted)[:22]) if family is V4 else
             IPv6(src=flow.backend, dst=family.snat) / ICMPv6DestUnreach(code=4) / Raw(bytes(quoted)[:42]))
    case.down(short, expect=0, verdict="drop_icmp_quote")
    other = family.ip(bytes(quoted))
    other[TCP].sport ^= 1
    case.down(unreachable(family, flow.backend, other), expect=0, verdict="drop_icmp_no_flow")
    forged = family.ip(bytes(quoted))
    forged[TCP].seq = (forged[TCP].seq + 2**30) % 2**32
    case.down(unreachable(family, flow.backend, forged), expect=0, verdict="drop_icmp_sequence")
    (error,) = case.down(unreachable(family, flow.backend, quoted))
    assert error.src == WAN and error[family.ip].dst == family.client, error.summary()


def echo_too_big(case, family):
    """An echo request that came to the link of the backends in more than fits back: 1400 bytes."""
    request = ICMP(id=7, seq=1) if family is V4 else ICMPv6EchoRequest(id=7, seq=1)
    case.down(family.ip(src=family.backend(1), dst=family.snat) / request / Raw(bytes(1420)), expect=0,
              verdict="drop_too_big")
