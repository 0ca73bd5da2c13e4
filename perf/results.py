# SPDX-License-Identifier: BSD-3-Clause
"""RESULTS.md has several authors: the benches of speed write what stands above the marks, the others below theirs."""

import pathlib

PATH = pathlib.Path(__file__).with_name("RESULTS.md")
MARK = "<!-- From here on written by ./dev {} -->\n"
AUTHORS = ("failover", "storm")  # in the order of their parts


def _parts(path):
    text = path.read_text(encoding="utf-8") if path.exists() else "# Results\n\n"
    parts = {}
    for author in reversed(AUTHORS):
        text, _, parts[author] = text.partition(MARK.format(author))
    return {"speed": text, **parts}


def _write(path, author, text):
    parts = _parts(path) | {author: text}
    whole = parts["speed"].rstrip() + "\n"
    for name in AUTHORS:
        if parts[name]:
            whole += f"\n{MARK.format(name)}{parts[name].rstrip()}\n"
    path.write_text(whole, encoding="utf-8")


def write_speed(text, path=PATH):
    _write(path, "speed", text)


def write_failover(text, path=PATH):
    _write(path, "failover", text)


def write_storm(text, path=PATH):
    _write(path, "storm", text)
