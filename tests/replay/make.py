#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Makes the replay cases: make.py PATH/TO/replay [CASE...]"""
import os
import sys

from connections import echo, refused, tcp, tcp_options, tcp_rst, tcp_stray, too_big, ttl_exceeded, udp
from conversation import V4, V6, Case
from cures import modes, modes_again, modes_dead, modes_idle
from drops import echo_too_big, errors, malformed, not_ours
from refusals import (backend_rate, breakers_open, fragments, ghosts, hard_max, limited, limits, no_buffer, no_way,
                      ports_exhausted, reset_again, retries, rst_limit, stopped, table_full, table_pressed,
                      worker_stands, workers)

# A flow that one mode has earlier or elsewhere than another would have other numbers there, and frames be its alone.
UNTRANSLATED = {"untranslated": 1}

# IPv6 is cut by its senders alone.
IPV4_ALONE = {"fragments"}

CASES = {
    "tcp": (tcp, None),
    "tcp_options": (tcp_options, None),
    "tcp_rst": (tcp_rst, None),
    "tcp_stray": (tcp_stray, None),
    "ttl_exceeded": (ttl_exceeded, None),
    "udp": (udp, None),
    "refused": (refused, {"backends": 0}),
    "echo": (echo, None),
    "too_big": (too_big, {"lan_mtu": 1400}),
    "malformed": (malformed, None),
    "not_ours": (not_ours, None),
    "errors": (errors, None),
    "echo_too_big": (echo_too_big, {"lan_mtu": 1400}),
    "table_full": (table_full, {"flows": 1}),
    "table_pressed": (table_pressed, {"flows": 20}),
    "ports_exhausted": (ports_exhausted, {"snat": 0}),
    "no_way": (no_way, None),
    "no_buffer": (no_buffer, {"client_rate": 10, "hold_ms": 250}),
    "stopped": (stopped, {"client_rate": 10, "hold_ms": 250}),
    "fragments": (fragments, {"lan_mtu": 1400}),
    "limits": (limits, {"backends": 0}),
    "reset_again": (reset_again, {"probe_ms": 0, "idle_ms": 30000}),
    "ghosts": (ghosts, {**UNTRANSLATED, "backends": 2}),
    "rst_limit": (rst_limit, {**UNTRANSLATED, "backends": 2}),
    "breakers_open": (breakers_open, None),
    "limited": (limited, {"backends": 1, "holds": 5, "hold_ms": 900}),
    "hard_max": (hard_max, {"backends": 1, "hard_max": 1}),
    "backend_rate": (backend_rate, {"backends": 1, "backend_rate": 1, "backend_burst": 1}),
    "retries": (retries, {"backends": 1}),
    "workers": (workers, {"workers": 2}),
    "worker_stands": (worker_stands, {"workers": 2, "running": 1}),
    "modes": (modes, {
        **UNTRANSLATED,
        "backends": 2, "lan_mtu": 1480, "probe_ms": 20000, "unacked_ms": 30000, "hold_ms": 250, "holds": 4,
        "client_rate": 10, "client_burst": 1, "prefix_rate": 10, "prefix_burst": 3, "service_rate": 10,
        "service_burst": 5}),
    "modes_idle": (modes_idle, {**UNTRANSLATED, "probe_ms": 0, "idle_ms": 30000}),
    "modes_dead": (modes_dead, {**UNTRANSLATED, "probe_ms": 20000}),
    "modes_again": (modes_again, {**UNTRANSLATED, "client_rate": 1}),
}


def main():
    replay, wanted = os.path.abspath(sys.argv[1]), sys.argv[2:]
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cases")
    for name, (make, options) in CASES.items():
        for family, suffix in ((V4, "4"), (V6, "6")):
            if family is V6 and name in IPV4_ALONE or wanted and name + suffix not in wanted:
                continue
            make(Case(replay, os.path.join(here, name + suffix), options), family)
            print(name + suffix)


if __name__ == "__main__":
    main()
