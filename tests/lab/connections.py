# SPDX-License-Identifier: BSD-3-Clause
"""Connections that are looked at one by one: a gateway with settings of its own for them, an echo, and its clients."""

import contextlib
import hashlib
import os
import socket
import time

from gateways import BULK_PORT, Spillway
from netns import LabError
from servers import Echo
from topology import CLIENTS, UPSTREAMS, VIP

PEER_DEAD_S = 31  # three probes ten seconds apart, and a second for the wheel
HANGS_S = 3
BLOB = 8192


class Tuned(Spillway):
    """With settings of its own for the service `bulk`, which has one backend per family."""

    def __init__(self, lab, mode, idle, edits=()):
        self._mode, self._idle = mode, idle
        super().__init__(lab, lab.n_queues, edits=edits)

    def config_text(self, n_workers):
        text = super().config_text(n_workers)
        assert text.count("\nservices:\n") == 1
        return text.replace("\nservices:\n", f"\ncures: {{silence: {self._mode}}}\nservices:\n") + f"    {self._idle}\n"

    def backend(self, family):
        """Its row of /v1/backends."""
        address = UPSTREAMS["up1"][family]
        rows = [r for r in self.ctl("backends")["backends"] if r["services"] == ["bulk"] and address in r["id"]]
        assert len(rows) == 1
        return rows[0]

    def action(self, name):
        return self.ledger()["actions"][name]


class Server(Echo):
    """An echo that remembers how its connections ended: the errno of each, 0 for a FIN."""

    def __init__(self, lab):
        self.ends = []
        self.connections = []
        super().__init__(lab.up1, [UPSTREAMS["up1"][f] for f in (4, 6)], BULK_PORT)

    def _serve(self, conn):
        self.connections.append(conn)
        try:
            conn.sendall(self.BANNER)
            while data := conn.recv(65536):
                conn.sendall(data)
            self.ends.append(0)
        except OSError as error:
            self.ends.append(error.errno)
        conn.close()

    def close(self):
        super().close()
        for conn in self.connections:
            with contextlib.suppress(OSError):
                conn.shutdown(socket.SHUT_RDWR)


class Stream:
    """One connection of a client, which sends and hashes what it sends, and what comes back."""

    def __init__(self, lab, family, source):
        with lab.client.entered():
            self.socket = socket.create_connection((VIP[family], BULK_PORT), 5, source_address=(source, 0))
        self.source = source
        self._sent, self._got = hashlib.sha256(), hashlib.sha256()
        self._due = 0
        self._take(len(Echo.BANNER), None)

    def send(self, n=BLOB):
        data = os.urandom(n)
        self._sent.update(data)
        self._due += n
        self.socket.sendall(data)

    def _take(self, n, digest):
        while n:
            data = self.socket.recv(min(n, 65536))
            if not data:
                raise LabError("the stream ended")
            n -= len(data)
            if digest:
                digest.update(data)

    def receive(self):
        """All that was sent came back, byte for byte."""
        self.socket.settimeout(HANGS_S)
        self._take(self._due, self._got)
        self._due = 0
        assert self._sent.digest() == self._got.digest()

    def error(self, timeout_s):
        """The errno that ends a wait for bytes; None if nothing happens."""
        self.socket.settimeout(timeout_s)
        try:
            got = self.socket.recv(1)
        except TimeoutError:
            return None
        except OSError as error:
            return error.errno
        raise LabError(f"got {got!r}")


@contextlib.contextmanager
def streams(lab, n, families=(4, 6)):
    """n of each family, from all client addresses in turn; each has transferred something."""
    with contextlib.ExitStack() as stack:
        made = []
        for family in families:
            for i in range(n):
                made.append(Stream(lab, family, CLIENTS[family][i % len(CLIENTS[family])]))
                stack.callback(made[-1].socket.close)
        for stream in made:
            stream.send()
        for stream in made:
            stream.receive()
        yield made


def sockets(ns, *expression):
    """What the kernel says of each established connection of the service: {name: value}, "" for bare words."""
    out = ns.run("ss", "-Htino", "state", "established", *expression).stdout.splitlines()
    rows = []
    for line in out[1::2]:
        words = line.split()
        rows.append(dict(w.partition(":")[::2] for w in words))
    return rows


def server_sockets(lab):
    return sockets(lab.up1, "sport", "=", f":{BULK_PORT}")


def settled(lab, n):
    """The server has n connections, and their clients have acknowledged what came back."""
    acked = [row.get("bytes_acked") for row in server_sockets(lab)]
    return acked == [str(len(Echo.BANNER) + BLOB)] * n


def idle(seconds):
    """Silence itself is what is tested: there is no condition to wait for."""
    time.sleep(seconds)
