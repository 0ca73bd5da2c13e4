# SPDX-License-Identifier: BSD-3-Clause
"""A wrong configuration is refused with its place; the right one works."""

import re
import subprocess

import pytest
from gateways import Spillway
from tools import Load

# (what is replaced, by what, key that the message names)
MISTAKES = [
    ("  idle: sleep", "  idle: snooze", "gateway.idle"),
    ("  flows: 100000", "  flows: many", "gateway.flows"),
    ("  flows: 100000", "  flowz: 100000", "flowz"),
    ("max_ttl: 5m", "max_ttl: 5", "dns.max_ttl"),
    ("port: 8080", "port: 80800", "port"),
    ('198.18.101.10"', '198.18.101.256"', "snat"),
]


@pytest.fixture
def right(lab, records):
    if not Spillway.built():
        pytest.skip("build/spillway is not built")
    return Spillway(lab, lab.n_queues)


def check(lab, path):
    argv = ["ip", "netns", "exec", lab.gw.name, Spillway.binary, "--check", path]
    return subprocess.run(argv, text=True, capture_output=True, timeout=20, check=False)


@pytest.mark.parametrize("old, new, key", MISTAKES, ids=[m[1].strip().split()[0] for m in MISTAKES])
def test_mistake(lab, right, old, new, key):
    text = right.config_text(lab.n_queues)
    assert text.count(old) == 1
    line = text[: text.index(old)].count("\n") + 1
    path = lab.path("wrong.yaml")
    with open(path, "w", encoding="ascii") as f:
        f.write(text.replace(old, new))
    done = check(lab, path)
    assert done.returncode == 2, done
    said = done.stdout + done.stderr
    match = re.search(r"wrong\.yaml:(\d+):(\d+): (?!warning)(.*)", said)
    assert match, said
    assert int(match[1]) == line, said
    assert int(match[2]) > 0
    assert key in match[3], said


def test_right_one(lab, right):
    """The configuration of every other scenario passes the check and then serves."""
    done = check(lab, right.config)
    assert done.returncode == 0, done.stdout + done.stderr
    right.start()
    try:
        right.wait_serving()
        for family in (4, 6):
            assert Load(lab, family, requests=100).wait()["failed"] == 0
    finally:
        right.stop()
