# SPDX-License-Identifier: BSD-3-Clause
"""What runs on the lab's hosts: nginx on each upstream, unbound as the DNS server, an echo service, a slow upstream."""

import json
import os
import signal
import socket
import struct
import subprocess
import threading

from netns import APART, LabError, eventually
from tools import tool
from topology import BACKEND_PORT, DNS, UPSTREAMS, bracketed

# One process in the foreground: nothing to outlive the driver. /name says who answers, PUT keeps uploads, and what is
# below /slow/ comes slowly.
NGINX_CONF = """
daemon off;
master_process off;
pid {dir}/nginx.pid;
error_log {dir}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    client_max_body_size 0;
    client_body_buffer_size 1m;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/t1; fastcgi_temp_path {dir}/t2; uwsgi_temp_path {dir}/t3; scgi_temp_path {dir}/t4;
    keepalive_requests 1000000;
    server {{
        {listens}
        root {files};
        location = /name {{ default_type text/plain; return 200 "{name}\\n"; }}
        location /slow/ {{ limit_rate {slow_bytes_per_s}; }}
        location /upload/ {{ root {dir}; dav_methods PUT; create_full_put_path on; }}
    }}
}}
"""

TTL_S = 2  # of the shop's addresses
SLOW_BYTES_PER_S = 400_000
MORE_PORTS = (8081, 8082, 8083)  # for services that shall share no backend with the shop

UNBOUND_CONF = """
server:
    directory: "{dir}"
    pidfile: ""
    chroot: ""
    username: ""
    use-syslog: no
    logfile: "{dir}/unbound.log"
    do-daemonize: no
    num-threads: 1
    interface: {v4}
    interface: {v6}
    access-control: 0.0.0.0/0 allow
    access-control: ::/0 allow
    module-config: "iterator"
    rrset-roundrobin: yes
    local-zone: "lab.test." static
remote-control:
    control-enable: yes
    control-interface: {dir}/unbound.sock
    control-use-cert: no
"""


def accepts(ns, address, port):
    """True if a TCP connection made inside the namespace succeeds."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with ns.entered(), socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(1)
        return s.connect_ex((address, port)) == 0


def listens(ns, port):
    """For servers of one client at a time, such as iperf3, which would take a connection for that client."""
    return ns.run("ss", "-Hltn", f"sport = :{port}").stdout != ""


class Nginx:
    def __init__(self, lab, name, files):
        self._lab = lab
        self.name = name
        self.dir = lab.path(name)
        os.mkdir(self.dir)
        self._conf = os.path.join(self.dir, "nginx.conf")
        listens = [
            f"listen {bracketed(address)}:{port} backlog=4096;"
            for address in UPSTREAMS[name].values()
            for port in (BACKEND_PORT, *MORE_PORTS)
        ]
        text = NGINX_CONF.format(
            dir=self.dir, files=files, name=name, listens="\n        ".join(listens), slow_bytes_per_s=SLOW_BYTES_PER_S
        )
        with open(self._conf, "w", encoding="ascii") as f:
            f.write(text)
        self.start()

    def start(self):
        ns = self._lab.ns[self.name]
        with open(os.path.join(self.dir, "output"), "ab") as out:
            self.child = self._lab.children.spawn(
                ns, "nginx", "-c", self._conf, "-p", self.dir, stdout=out, stderr=out
            )
        addresses = UPSTREAMS[self.name].values()
        eventually(lambda: all(accepts(ns, a, BACKEND_PORT) for a in addresses), 10, f"nginx on {self.name}")

    def stop(self):
        """At once: its host refuses connections from now on, and what was open is reset."""
        self._lab.children.end(self.child, signal.SIGKILL)


class Dns:
    """unbound with records that change live. Names are relative to lab.test."""

    def __init__(self, lab):
        self.dir = lab.path("dns")
        os.mkdir(self.dir)
        self._conf = os.path.join(self.dir, "unbound.conf")
        with open(self._conf, "w", encoding="ascii") as f:
            f.write(UNBOUND_CONF.format(dir=self.dir, v4=DNS[4], v6=DNS[6]))
        with open(os.path.join(self.dir, "output"), "wb") as out:
            self.child = lab.children.spawn(
                lab.dns, "unbound", "-d", "-p", "-c", self._conf, stdout=out, stderr=out
            )
        eventually(lambda: self._control("status", check=False), 10, "unbound")
        eventually(lambda: accepts(lab.dns, DNS[4], 53), 10, "unbound")

    def _control(self, *argv, check=True):
        done = subprocess.run(
            ["unbound-control", "-c", self._conf, *argv],
            text=True,
            capture_output=True,
            timeout=10,
            check=False,
            **APART,
        )
        if check and done.returncode:
            raise LabError(f"unbound-control {argv}: {done.stdout}{done.stderr}")
        return done.returncode == 0

    def set(self, name, addresses, ttl_s):
        """The name has just these addresses from now on."""
        self._control("local_data_remove", f"{name}.lab.test.")
        for address in addresses:
            kind = "AAAA" if ":" in address else "A"
            self._control("local_data", f"{name}.lab.test. {ttl_s} IN {kind} {address}")


def start_servers(lab):
    """nginx on all upstreams, with the same files, and DNS, where they are the shop: lab.nginx, lab.files, lab.zone."""
    lab.files = lab.path("files")
    os.mkdir(lab.files)
    lab.nginx = {up: Nginx(lab, up, lab.files) for up in UPSTREAMS}
    lab.zone = Dns(lab)
    lab.zone.set("shop", [u[f] for u in UPSTREAMS.values() for f in (4, 6)], TTL_S)


class SlowUpstream:
    """upstream.c: few workers, a long queue, and no eye for clients that have left."""

    def __init__(self, lab, role, port, **options):
        argv = [tool("upstream"), "--name", role, "--port", str(port)]
        for key, value in options.items():
            flag = f"--{key.replace('_', '-')}"
            argv += [flag] * value if isinstance(value, bool) else [flag, str(value)]
        self._lab = lab
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.child = lab.children.spawn(lab.ns[role], *argv, **pipes, text=True, bufsize=1)
        eventually(lambda: listens(lab.ns[role], port), 10, f"the slow upstream on {role}")

    def close(self):
        self._lab.children.end(self.child)

    def tell(self, order):
        """Returns when it has obeyed: what it has done so far."""
        self.child.stdin.write(order + "\n")
        return json.loads(self.child.stdout.readline())

    def stall(self):
        self.tell("capacity 0")

    def go_on(self):
        self.tell("capacity 1")

    def snapshot(self):
        """Requests that it answered, how many of their clients had left before, and who never asked."""
        done = self.tell("report")
        return {key: done[key] for key in ("answered", "abandoned", "no_request")}


class Threaded:
    """A service in threads of this process, on sockets of the namespace; _serve() does what it is for."""

    def __init__(self, ns, addresses, port=22):
        self._listeners = []
        with ns.entered():
            for address in addresses:
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                s = socket.create_server((address, port), family=family)
                self._listeners.append(s)
        for s in self._listeners:
            threading.Thread(target=self._accept, args=(s,), daemon=True).start()

    def _accept(self, listener):
        while True:
            try:
                conn, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def close(self):
        while self._listeners:
            s = self._listeners.pop()
            # close() alone does not wake a thread that waits in accept().
            s.shutdown(socket.SHUT_RDWR)
            s.close()


class Echo(Threaded):
    """An SSH-like service: a banner, then each line comes back."""

    BANNER = b"SSH-2.0-lab\r\n"

    def _serve(self, conn):
        with conn:
            try:
                conn.sendall(self.BANNER)
                while data := conn.recv(4096):
                    conn.sendall(data)
            except OSError:
                pass


class Session:
    """The client of an Echo: one long-lived connection."""

    def __init__(self, ns, address, port=22, timeout_s=5):
        with ns.entered():
            self._socket = socket.create_connection((address, port), timeout=timeout_s)
        self.address = self._socket.getsockname()
        self._lines = 0
        self._file = self._socket.makefile("rb")
        banner = self._file.readline()
        if banner != Echo.BANNER:
            raise LabError(f"banner was {banner!r}")

    def send_line(self):
        self._lines += 1
        self._socket.sendall(b"line %d\n" % self._lines)

    def await_line(self, timeout_s=5):
        """Waits until the line that was sent last comes back; raises if it does not."""
        self._socket.settimeout(timeout_s)
        answer, expected = self._file.readline(), b"line %d\n" % self._lines
        if answer != expected:
            raise LabError(f"sent {expected!r}, got {answer!r}")

    def say(self, timeout_s=5):
        self.send_line()
        self.await_line(timeout_s)

    def reset(self):
        """What comes last is a RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self):
        self._file.close()
        self._socket.close()
