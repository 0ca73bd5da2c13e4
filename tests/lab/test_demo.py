# SPDX-License-Identifier: BSD-3-Clause
"""The demo proves what it says, and leaves nothing behind, whenever it is ended."""

import glob
import os
import re
import signal
import subprocess
import tempfile
import time

import pytest
from gateways import Spillway
from netns import APART, PREFIX, RUN_DIR, eventually
from tools import ROOT

PROGRAM = [os.path.join(ROOT, "tests", "lab", "demo.py"), "--once"]


def host_state():
    """What a demo could leave on the host outside of its own names."""
    tables = subprocess.run(["nft", "list", "tables"], text=True, capture_output=True, check=True).stdout
    with open("/proc/meminfo", encoding="ascii") as f:
        hugepages = [line for line in f if line.startswith("HugePages_")]
    return tables, hugepages, sorted(os.listdir("/sys/class/net"))


def started_at(pid):
    """Tells a process from a later one with its pid; None: there is none, or only its parent has yet to notice."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            fields = f.read().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def descendants(pid):
    """pid -> start, of all that it started, directly or not."""
    found = {}
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        try:
            with open(path, encoding="ascii") as f:
                children = [int(word) for word in f.read().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in children:
            if start := started_at(child):
                found[child] = start
            found.update(descendants(child))
    return found


class Demo:
    def __init__(self, *argv):
        self.before = host_state()
        argv = ["/usr/bin/python3", *PROGRAM, *argv]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self.child = subprocess.Popen(argv, text=True, **pipes, **APART)
        self.said = ""

    def read_until(self, words, timeout_s=60):
        """The demo says a line a second at least, or ends."""
        end = time.monotonic() + timeout_s
        while words not in self.said:
            line = self.child.stdout.readline()
            assert line and time.monotonic() < end, self.said
            self.said += line

    def signal(self, signo):
        """To all of its process group, as a terminal does."""
        os.killpg(self.child.pid, signo)

    def has_namespace(self):
        return any(name.startswith(f"{PREFIX}-{self.child.pid}-") for name in os.listdir(RUN_DIR))

    def end(self, timeout_s=60):
        """Its exit status, after all of it is said."""
        rest, _ = self.child.communicate(timeout=timeout_s)
        self.said += rest
        return self.child.returncode

    def assert_nothing_left(self, children):
        mine = f"{PREFIX}-{self.child.pid}-"
        for parent in (RUN_DIR, tempfile.gettempdir()):
            assert not [name for name in os.listdir(parent) if name.startswith(mine)]
        eventually(lambda: all(started_at(pid) != start for pid, start in children.items()), 5, "its processes end")
        assert host_state() == self.before

    def kill(self):
        if self.child.poll() is None:
            self.child.kill()
            self.child.communicate()


@pytest.fixture
def demo():
    if not Spillway.built():
        pytest.skip("build/spillway is not built")
    made = []

    def start(*argv):
        made.append(Demo(*argv))
        return made[-1]

    yield start
    for each in made:
        each.kill()


def test_one_row(demo):
    """Hurt before, cured after, said so in the table and by the exit status; and then nothing is left."""
    it = demo("--only", "names")
    it.read_until("=== over Spillway ===")
    children = descendants(it.child.pid)
    assert len(children) >= 5
    status = it.end()
    assert status == 0, it.said
    assert "1 of 1 outages went as they should." in it.said
    before, after = re.findall(r"^    -> (.*)$", it.said, re.M)
    assert before.startswith("100 % of answers were stale")
    assert after.startswith("the last stale answer ")
    it.assert_nothing_left(children)


@pytest.mark.parametrize(
    "gateway, words, signals",
    [
        ("nftables", "Services behind", [signal.SIGINT]),
        ("nftables", "the link to the clients has", [signal.SIGINT, signal.SIGINT]),
        ("spillway", "=== over Spillway ===", [signal.SIGINT]),
        ("spillway", "the link to the clients has", [signal.SIGTERM, signal.SIGINT]),
    ],
    ids=["building", "broken_before", "starting_after", "broken_after"],
)
def test_interrupted(demo, gateway, words, signals):
    """Ctrl-C, also twice and in the middle of an outage: everything is taken down."""
    it = demo("--only", "path", "--gateway", gateway)
    it.read_until(words)
    eventually(it.has_namespace, 10, "the lab begins")
    children = descendants(it.child.pid)
    for signo in signals:
        it.signal(signo)
    assert it.end() == 130, it.said
    assert it.said.rstrip().endswith("nothing is left of it."), it.said
    it.assert_nothing_left(children)


def test_unknown_outage(demo):
    it = demo("--only", "path,rain")
    assert it.end() == 2
    assert "'rain' is none of wall, names, silence, path, storm" in it.said
