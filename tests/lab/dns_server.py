#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""A DNS server whose records, delays and faults are set live, for the lab and the tests of names.

    dns_server.py --control PATH [--listen 127.0.0.1:5300]... [--listen '[::1]:5300']...

Serves UDP and TCP on each address (port 0: one that is free), prints "ready ADDRESS:PORT..." and runs until SIGTERM
or until its parent's end if --die-with-parent is given. Everything else is said through the Unix stream socket PATH,
one JSON object per line and one line of answer for each ({"ok": true, ...} or {"ok": false, "error": "..."}):

    {"op": "set", "name": N, "type": "A|AAAA|CNAME|SRV", "ttl": S, "data": ["198.18.3.21", ...], "subset": K}
        Replaces the RRset. "subset": answer with K of them, chosen anew each time. CNAMEs are followed in answers.
    {"op": "delete", "name": N, "type": T}          without "type": all of the name
    {"op": "mode", "name": N, "mode": M, "type": T, "delay_ms": D}
        M: ok, servfail, nxdomain, refused, drop, malformed, and
           trunc (UDP answers carry TC and nothing else), nodata, half_chain (a CNAME without what it points to),
           wrong_question, wrong_id. Without "type": for all types. "name": "*": for every name without its own mode.
    {"op": "negative_ttl", "ttl": S}                TTL and MINIMUM of the SOA in negative answers
    {"op": "log", "since": I}                       queries number I.. as
                                                    {"i", "t" (monotonic s), "name", "type", "via"}
    {"op": "clear"}                                 records, modes and the log
"""
import argparse
import asyncio
import ctypes
import ipaddress
import json
import os
import random
import signal
import socket
import struct
import time

TYPES = {"A": 1, "CNAME": 5, "SOA": 6, "AAAA": 28, "SRV": 33, "OPT": 41}
TYPE_NAMES = {number: name for name, number in TYPES.items()}
MODES = ("ok", "servfail", "nxdomain", "refused", "drop", "malformed", "trunc", "nodata", "half_chain",
         "wrong_question", "wrong_id")
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 1, 2, 3, 4, 5
CHAIN_MAX = 16
LOG_MAX = 200_000
CONTROL_LINE_MAX = 1 << 20
PR_SET_PDEATHSIG = 1


def canonical(name):
    return name.rstrip(".").lower()


def encode_name(name):
    labels = [label.encode("ascii") for label in name.rstrip(".").split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def decode_name(message, offset):
    """A query's name: never compressed."""
    labels = []
    while True:
        length = message[offset]
        if length == 0:
            return ".".join(labels), offset + 1
        if length > 63:
            raise ValueError("compressed name in a question")
        labels.append(message[offset + 1:offset + 1 + length].decode("ascii"))
        offset += 1 + length


def encode_rdata(rtype, text):
    if rtype == "A":
        return ipaddress.IPv4Address(text).packed
    if rtype == "AAAA":
        return ipaddress.IPv6Address(text).packed
    if rtype == "CNAME":
        return encode_name(text)
    if rtype == "SRV":
        priority, weight, port, target = text.split()
        return struct.pack("!HHH", int(priority), int(weight), int(port)) + encode_name(target)
    raise ValueError(f"type {rtype!r} is none of A, AAAA, CNAME, SRV")


def record(name, rtype, ttl, rdata):
    return encode_name(name) + struct.pack("!HHIH", TYPES[rtype], 1, ttl, len(rdata)) + rdata


class Zone:
    """Records, modes and the log. Serves as the recursive resolver of a world that has only these names."""

    def __init__(self):
        self.clear()

    def clear(self):
        self.rrsets = {}  # (name, type) -> (ttl, [rdata], subset or None)
        self.modes = {}   # (name, type or None) -> (mode, delay_s)
        self.negative_ttl = 5
        self.log = []

    def set(self, name, rtype, ttl, data, subset=None):
        rdata = [encode_rdata(rtype, text) for text in data]
        if rtype == "CNAME":
            if len(rdata) != 1:
                raise ValueError("a CNAME has one target")
            self.rrsets[canonical(name), rtype] = (int(ttl), rdata, canonical(data[0]))
            return
        self.rrsets[canonical(name), rtype] = (int(ttl), rdata, subset)

    def delete(self, name, rtype=None):
        for key in [key for key in self.rrsets if key[0] == canonical(name) and rtype in (None, key[1])]:
            del self.rrsets[key]

    def set_mode(self, name, mode, rtype=None, delay_ms=0):
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} is none of {', '.join(MODES)}")
        self.modes[canonical(name), rtype] = (mode, delay_ms / 1000)

    def mode_of(self, name, rtype):
        for key in ((name, rtype), (name, None), ("*", rtype), ("*", None)):
            if key in self.modes:
                return self.modes[key]
        return "ok", 0

    def note(self, name, rtype, via):
        if len(self.log) < LOG_MAX:
            self.log.append({"i": len(self.log), "t": time.monotonic(), "name": name, "type": rtype, "via": via})

    def resolve(self, name, rtype):
        """Returns (rcode, [answer record]): CNAMEs followed, then the RRset."""
        answers = []
        for _ in range(CHAIN_MAX):
            rrset = self.rrsets.get((name, rtype))
            if rrset:
                ttl, rdata, subset = rrset
                chosen = random.sample(rdata, min(subset, len(rdata))) if subset else rdata
                return NOERROR, answers + [record(name, rtype, ttl, one) for one in chosen]
            alias = self.rrsets.get((name, "CNAME"))
            if not alias:
                exists = any(key[0] == name for key in self.rrsets)
                return (NOERROR if exists else NXDOMAIN), answers
            answers.append(record(name, "CNAME", alias[0], alias[1][0]))
            name = alias[2]
        return SERVFAIL, []

    def soa(self):
        numbers = struct.pack("!IIIII", 1, 3600, 600, 86400, self.negative_ttl)
        return record("test", "SOA", self.negative_ttl, encode_name("ns.test") + encode_name("admin.test") + numbers)


class Query:
    """One question and how it is to be answered."""

    def __init__(self, message, via):
        if len(message) < 12:
            raise ValueError("short message")
        self.id, flags, n_questions, _, _, n_additional = struct.unpack("!HHHHHH", message[:12])
        if flags & 0x8000 or n_questions != 1:
            raise ValueError("not a query")
        self.name, end = decode_name(message, 12)
        number, _ = struct.unpack("!HH", message[end:end + 4])
        self.type = TYPE_NAMES.get(number, str(number))
        self.question = message[12:end + 4]
        self.rd = flags & 0x0100
        self.edns = n_additional > 0 and message[end + 4:end + 7] == b"\0" + struct.pack("!H", TYPES["OPT"])
        udp_max = struct.unpack("!H", message[end + 7:end + 9])[0] if self.edns else 512
        self.size_max = max(512, udp_max) if via == "udp" else 65535

    def message(self, rcode, answers=(), authority=(), flags=0, question=None, query_id=None):
        additional = b"\0" + struct.pack("!HHIH", TYPES["OPT"], 1232, 0, 0) if self.edns else b""
        header = struct.pack("!HHHHHH", self.id if query_id is None else query_id, 0x8480 | self.rd | flags | rcode,
                             1, len(answers), len(authority), 1 if self.edns else 0)
        body = self.question if question is None else question
        return header + body + b"".join(answers) + b"".join(authority) + additional


def answer(zone, query, mode, via):
    """The reply's bytes, or None to say nothing."""
    name, rtype = canonical(query.name), query.type
    rcodes = {"servfail": SERVFAIL, "refused": REFUSED}
    if mode == "drop":
        return None
    if mode in rcodes:
        return query.message(rcodes[mode])
    if mode in ("nxdomain", "nodata"):
        return query.message(NXDOMAIN if mode == "nxdomain" else NOERROR, authority=[zone.soa()])
    if mode == "trunc" and via == "udp":
        return query.message(NOERROR, flags=0x0200)
    if mode == "malformed":
        cut = encode_name(name) + struct.pack("!HHIH", TYPES.get(rtype, 1), 1, 60, 4000) + b"\xc0"
        return query.message(NOERROR, answers=[cut])
    if mode == "wrong_question":
        return query.message(NOERROR, question=encode_name("other.test") + query.question[-4:])
    if mode == "wrong_id":
        return query.message(NOERROR, query_id=query.id ^ 0xffff)
    if mode == "half_chain" and (name, "CNAME") in zone.rrsets:
        ttl, rdata, _ = zone.rrsets[name, "CNAME"]
        return query.message(NOERROR, answers=[record(name, "CNAME", ttl, rdata[0])])
    rcode, answers = zone.resolve(name, rtype)
    negative = rcode == NXDOMAIN or (rcode == NOERROR and (name, rtype) not in zone.rrsets
                                     and not any_of_type(answers, rtype))
    reply = query.message(rcode, answers, [zone.soa()] if negative else [])
    return reply if len(reply) <= query.size_max else query.message(rcode, flags=0x0200)


def any_of_type(answers, rtype):
    for one in answers:
        _, end = decode_name(one, 0)
        if struct.unpack("!H", one[end:end + 2])[0] == TYPES.get(rtype):
            return True
    return False


async def serve(zone, message, via):
    try:
        query = Query(message, via)
    except (ValueError, IndexError, struct.error, UnicodeDecodeError):
        return None
    zone.note(canonical(query.name), query.type, via)
    mode, delay_s = zone.mode_of(canonical(query.name), query.type)
    if delay_s:
        await asyncio.sleep(delay_s)
    return answer(zone, query, mode, via)


class Udp(asyncio.DatagramProtocol):
    def __init__(self, zone):
        self.zone = zone
        self.tasks = set()

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        task = asyncio.ensure_future(self.reply(data, addr))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def reply(self, data, addr):
        message = await serve(self.zone, data, "udp")
        if message is not None:
            self.transport.sendto(message, addr)


def tcp_handler(zone):
    async def handle(reader, writer):
        try:
            while True:
                length = struct.unpack("!H", await reader.readexactly(2))[0]
                message = await serve(zone, await reader.readexactly(length), "tcp")
                if message is None:
                    continue
                writer.write(struct.pack("!H", len(message)) + message)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
    return handle


def command(zone, request):
    op = request.pop("op", None)
    if op == "set":
        zone.set(request["name"], request["type"], request["ttl"], request["data"], request.get("subset"))
    elif op == "delete":
        zone.delete(request["name"], request.get("type"))
    elif op == "mode":
        zone.set_mode(request["name"], request["mode"], request.get("type"), request.get("delay_ms", 0))
    elif op == "negative_ttl":
        zone.negative_ttl = int(request["ttl"])
    elif op == "log":
        return {"ok": True, "log": zone.log[request.get("since", 0):]}
    elif op == "clear":
        zone.clear()
    else:
        raise ValueError(f"no such op: {op!r}")
    return {"ok": True}


def control_handler(zone):
    async def handle(reader, writer):
        try:
            while line := await reader.readline():
                try:
                    reply = command(zone, json.loads(line))
                except (ValueError, KeyError, TypeError, AttributeError, UnicodeError) as error:
                    reply = {"ok": False, "error": f"{type(error).__name__}: {error}"}
                writer.write(json.dumps(reply).encode() + b"\n")
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()
    return handle


def bind_both(host, port):
    """A UDP and a TCP socket on one address and port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(50):
        udp = socket.socket(family, socket.SOCK_DGRAM)
        tcp = socket.socket(family, socket.SOCK_STREAM)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            for sock in (udp, tcp):
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            udp.bind((host, port))
            tcp.bind((host, udp.getsockname()[1]))
            return udp, tcp
        except OSError:
            udp.close()
            tcp.close()
            if port:
                raise
    raise OSError(f"no port of {host} is free for both UDP and TCP")


async def main(args):
    zone = Zone()
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    ready = []
    for text in args.listen or ["127.0.0.1:0"]:
        host, _, port = text.rpartition(":")
        udp, tcp = bind_both(host.strip("[]"), int(port))
        await loop.create_datagram_endpoint(lambda: Udp(zone), sock=udp)
        await asyncio.start_server(tcp_handler(zone), sock=tcp)
        ready.append(f"{host}:{udp.getsockname()[1]}")
    await asyncio.start_unix_server(control_handler(zone), args.control, limit=CONTROL_LINE_MAX)
    try:
        print("ready", *ready, flush=True)
        await stop.wait()
    finally:
        os.unlink(args.control)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--control", required=True, metavar="PATH")
    parser.add_argument("--listen", action="append", metavar="ADDRESS:PORT")
    parser.add_argument("--die-with-parent", action="store_true")
    arguments = parser.parse_args()
    if arguments.die_with_parent:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    asyncio.run(main(arguments))
