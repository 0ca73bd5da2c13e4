# SPDX-License-Identifier: BSD-3-Clause
"""The gateway's HTTP API over its Unix socket, without a program in between: for times, headers and many requests."""

import contextlib
import http.client
import json
import socket
import threading
import time
import urllib.parse


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=10):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def fetch(gateway, path, accept="*/*", **query):
    """(status, content type, text)"""
    with contextlib.closing(UnixConnection(gateway.socket)) as connection:
        url = path + ("?" + urllib.parse.urlencode(query) if query else "")
        connection.request("GET", url, headers={"Accept": accept})
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type"), answer.read().decode()


def get(gateway, path, **query):
    status, _, text = fetch(gateway, path, **query)
    assert status == 200, text
    return json.loads(text)


def timed(gateway, path, **query):
    """The answer, and for how many ms it was waited for."""
    begin = time.monotonic()
    answer = get(gateway, path, **query)
    return answer, 1000 * (time.monotonic() - begin)


class Pestering:
    """One request after the other, as fast as they are answered, from a thread each. A context manager."""

    def __init__(self, gateway, *requests):
        self._gateway = gateway
        self._stop = threading.Event()
        self.counts = [0] * len(requests)
        self.failed = None
        self._threads = [threading.Thread(target=self._run, args=(i, *r)) for i, r in enumerate(requests)]

    def _run(self, i, path, query):
        try:
            while not self._stop.is_set():
                get_status = fetch(self._gateway, path, **query)[0]
                assert get_status == 200, f"{path}: {get_status}"
                self.counts[i] += 1
        except (AssertionError, OSError, http.client.HTTPException) as error:
            self.failed = f"{path}: {error!r}"

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc):
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
