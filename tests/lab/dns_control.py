#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Says to a running dns_server.py what it shall answer.

As a module: DnsServer starts one and is its handle; DnsControl talks to one that somebody else started.
As a program, for a look by hand:

    dns_control.py PATH set shop.test A 5 198.18.3.21 198.18.3.22
    dns_control.py PATH mode shop.test servfail
    dns_control.py PATH log
"""
import json
import os
import signal
import socket
import subprocess
import sys

SERVER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "dns_server.py")
TIMEOUT_S = 10


class DnsError(Exception):
    pass


class DnsControl:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(TIMEOUT_S)
        self.socket.connect(path)
        self.lines = self.socket.makefile("rb")

    def close(self):
        self.lines.close()
        self.socket.close()

    def call(self, op, **fields):
        self.socket.sendall(json.dumps({"op": op, **fields}).encode() + b"\n")
        line = self.lines.readline()
        if not line:
            raise DnsError("the DNS server hung up")
        reply = json.loads(line)
        if not reply["ok"]:
            raise DnsError(reply["error"])
        return reply

    def set(self, name, rtype, ttl, *data, subset=None):
        self.call("set", name=name, type=rtype, ttl=ttl, data=list(data), subset=subset)

    def delete(self, name, rtype=None):
        self.call("delete", name=name, type=rtype)

    def mode(self, name, mode, rtype=None, delay_ms=0):
        self.call("mode", name=name, mode=mode, type=rtype, delay_ms=delay_ms)

    def negative_ttl(self, ttl):
        self.call("negative_ttl", ttl=ttl)

    def log(self, since=0):
        return self.call("log", since=since)["log"]

    def clear(self):
        self.call("clear")


class DnsServer(DnsControl):
    """A server of our own, in `netns` if one is named. Use it in a `with`."""

    def __init__(self, control_path, listen=("127.0.0.1:0",), netns=None):
        command = ["ip", "netns", "exec", netns] if netns else []
        command += ["/usr/bin/python3", SERVER, "--die-with-parent", "--control", control_path]
        for address in listen:
            command += ["--listen", address]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        ready = self.process.stdout.readline().split()
        if ready[:1] != ["ready"]:
            self.stop()
            raise DnsError(f"{' '.join(command)} did not start")
        self.addresses = ready[1:]
        super().__init__(control_path)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(TIMEOUT_S)
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
        self.stop()


def main(argv):
    if len(argv) < 3:
        sys.exit(__doc__)
    control = DnsControl(argv[1])
    op, args = argv[2], argv[3:]
    if op == "log":
        for entry in control.log():
            print(f"{entry['t']:.3f} {entry['via']} {entry['type']:5} {entry['name']}")
    elif op in ("set", "delete", "mode", "negative_ttl", "clear"):
        getattr(control, op)(*args)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv)
