# SPDX-License-Identifier: BSD-3-Clause
"""SIGHUP reloads, as daemons do."""

import os
import signal

from netns import eventually
from tools import Load
from topology import DNS


def hang_up(spillway):
    os.kill(spillway.child.pid, signal.SIGHUP)


def rewrite(spillway, old, new):
    with open(spillway.config, encoding="ascii") as f:
        text = f.read()
    assert old in text
    with open(spillway.config, "w", encoding="ascii") as f:
        f.write(text.replace(old, new))


def test_hangup_reloads(lab, spillway):
    """A new service is there, a mistake is named and changes nothing, and whatever comes the gateway goes on."""
    rewrite(spillway, "- name: bulk", "- name: heap")
    hang_up(spillway)
    eventually(lambda: "by SIGHUP" in spillway.output(), 10, "the reload")
    assert [s["name"] for s in spillway.ctl("services")["services"]] == ["shop", "heap"]
    rewrite(spillway, "- name: heap", "- nume: heap")
    hang_up(spillway)
    eventually(lambda: "SIGHUP: the file is refused" in spillway.output(), 10, "the refusal")
    assert "nume" in spillway.output()
    assert [s["name"] for s in spillway.ctl("services")["services"]] == ["shop", "heap"]
    for family in (4, 6):
        assert Load(lab, family, requests=50).wait()["failed"] == 0


def test_hangup_during_start(lab, spillway):
    """While names are waited for it is kept for later."""
    spillway.stop()
    rewrite(spillway, f"{DNS[4]}:53", "198.18.3.254:53")
    with open(spillway.log, "wb") as out:
        argv = ["ip", "netns", "exec", lab.gw.name, spillway.binary, spillway.config]
        spillway.child = lab.children.spawn(None, *argv, stdout=out, stderr=out)
    eventually(lambda: "memory plan" in spillway.output(), 20, "the start")
    hang_up(spillway)
    eventually(lambda: "by SIGHUP" in spillway.output(), 20, "the reload")
    assert spillway.alive()
