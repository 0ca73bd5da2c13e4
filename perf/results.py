# SPDX-License-Identifier: BSD-3-Clause
"""RESULTS.md has two authors: the benches of speed write what stands above the mark, the storm bench what is below."""

import pathlib

PATH = pathlib.Path(__file__).with_name("RESULTS.md")
MARK = "<!-- From here on written by ./dev storm -->\n"


def _parts(path):
    text = path.read_text(encoding="utf-8") if path.exists() else "# Results\n\n"
    above, _, below = text.partition(MARK)
    return above, below


def _write(path, above, below):
    text = above.rstrip() + "\n" + (f"\n{MARK}{below}" if below else "")
    path.write_text(text, encoding="utf-8")


def write_speed(text, path=PATH):
    _write(path, text, _parts(path)[1])


def write_storm(text, path=PATH):
    _write(path, _parts(path)[0], text)
