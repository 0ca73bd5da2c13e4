# SPDX-License-Identifier: BSD-3-Clause
"""Network namespaces, and the processes that live in them.

A namespace's name carries the pid of the run that made it, so that a later run can tell what a killed one left behind.
"""

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

CLONE_NEWNET = 0x40000000
PREFIX = "spillway-lab"
RUN_DIR = "/run/netns"

_libc = ctypes.CDLL(None, use_errno=True)


# A command of its own process group does not hear the terminal's Ctrl-C: what takes things down must get to its end.
APART = {"process_group": 0}


class LabError(Exception):
    """The lab itself failed, as opposed to what is tested in it."""


def _setns(fd):
    if _libc.setns(fd, CLONE_NEWNET):
        errno = ctypes.get_errno()
        raise OSError(errno, "setns: " + os.strerror(errno))


def eventually(condition, timeout_s, what):
    """Waits until condition() is true and returns its value; raises with `what` after timeout_s."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{what}: not within {timeout_s} s")
        time.sleep(0.01)


class Namespace:
    """One network namespace; sockets and processes made inside `with` belong to it."""

    def __init__(self, role):
        self.role = role
        self.name = f"{PREFIX}-{os.getpid()}-{role}"
        subprocess.run(["ip", "netns", "add", self.name], check=True)

    @contextlib.contextmanager
    def entered(self):
        """Moves the calling thread into the namespace, and back."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            inside = os.open(f"{RUN_DIR}/{self.name}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                _setns(inside)
            finally:
                os.close(inside)
            try:
                yield self
            finally:
                _setns(home)
        finally:
            os.close(home)

    def ip(self, *lines):
        """Runs `ip` commands in one batch; the first that fails raises."""
        batch = "\n".join(lines) + "\n"
        argv = ["ip", "-n", self.name, "-batch", "-"]
        done = subprocess.run(argv, input=batch, text=True, capture_output=True, check=False, **APART)
        if done.returncode:
            raise LabError(f"ip in {self.role}: {done.stderr.strip()}\n{batch}")

    def sysctl(self, **values):
        """Writes net.* settings; dots of the name are written as two underscores."""
        with self.entered():
            for key, value in values.items():
                with open("/proc/sys/net/" + key.replace("__", "/"), "w", encoding="ascii") as f:
                    f.write(str(value))

    def get_sysctl(self, key):
        """One net.* setting, its name as for sysctl()."""
        with self.entered(), open("/proc/sys/net/" + key.replace("__", "/"), encoding="ascii") as f:
            return f.read().strip()

    def run(self, *argv, check=True, timeout=30, **kwargs):
        with self.entered():
            done = subprocess.run(argv, text=True, capture_output=True, timeout=timeout, **APART, **kwargs)
        if check and done.returncode:
            raise LabError(f"{' '.join(argv)} in {self.role}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done


def delete_all():
    """Removes every namespace of this run, also one whose maker was interrupted before it could hold it."""
    for name in os.listdir(RUN_DIR) if os.path.isdir(RUN_DIR) else ():
        if name.startswith(f"{PREFIX}-{os.getpid()}-"):
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL, **APART)


class Children:
    """Every process of a lab: started here, killed by pid and reaped here, and never outliving its driver."""

    def __init__(self):
        self._children = []

    def spawn(self, ns, *argv, **kwargs):
        # setpriv keeps the pid: if even this driver is killed, the kernel ends the child.
        argv = ("setpriv", "--pdeathsig", "KILL", "--") + argv
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        with ns.entered() if ns else contextlib.nullcontext():
            child = subprocess.Popen(argv, **APART, **kwargs)
        self._children.append(child)
        return child

    def end(self, child, signo=signal.SIGTERM, timeout_s=10):
        """Ends one child and returns its exit status; a child that does not obey is killed."""
        if child.poll() is None:
            child.send_signal(signo)
            try:
                child.wait(timeout_s)
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGCONT)
                child.kill()
                child.wait()
        if child in self._children:
            self._children.remove(child)
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream:
                stream.close()
        return child.returncode

    def end_all(self):
        for child in reversed(self._children[:]):
            self.end(child, timeout_s=3)


def sweep_stale():
    """Removes the namespaces and directories of runs that were killed before they could clean up."""
    for parent in (RUN_DIR, tempfile.gettempdir()):
        for name in os.listdir(parent) if os.path.isdir(parent) else ():
            match = re.fullmatch(PREFIX + r"-(\d+)-\w+", name)
            if not match or os.path.exists(f"/proc/{match[1]}"):
                continue
            if parent == RUN_DIR:
                subprocess.run(["ip", "netns", "del", name], check=False)
            else:
                shutil.rmtree(os.path.join(parent, name), ignore_errors=True)
