# SPDX-License-Identifier: BSD-3-Clause
"""Sums up the reports of all test runners: prints what was skipped, then one line; the exit status is the verdict.

A runner that left no report counts as a failure. A skipped test fails the run unless tests/skips.txt names it, one a
line: a shell pattern of its name, white space, the reason.
"""

import argparse
import fnmatch
import json
import sys
import xml.etree.ElementTree as ET

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
MESON = {"OK": PASSED, "EXPECTEDFAIL": PASSED, "SKIP": SKIPPED}


def from_meson(path):
    with open(path, encoding="utf-8") as f:
        for line in f:
            test = json.loads(line)
            yield test["name"], MESON.get(test["result"], FAILED), test["result"].lower()


def from_junit(path):
    for case in ET.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            yield name, FAILED, "failed"
        elif (skip := case.find("skipped")) is not None:
            yield name, SKIPPED, skip.get("message")
        else:
            yield name, PASSED, ""


def read_skips(path):
    """pattern -> reason; a line without a reason is an error."""
    skips = {}
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            pattern, _, reason = line.partition(" ")
            if not reason.strip():
                sys.exit(f"{path}:{number}: no reason given for {pattern}")
            skips[pattern] = reason.strip()
    return skips


def collect(read, paths):
    for path in paths:
        try:
            yield from read(path)
        except (OSError, ET.ParseError, json.JSONDecodeError, KeyError) as error:
            yield path, FAILED, f"no report: {error}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--skips", required=True)
    parser.add_argument("--meson", action="append", default=[])
    parser.add_argument("--junit", action="append", default=[])
    parser.add_argument("--failed-step", action="append", default=[], help="counts as one failed test")
    args = parser.parse_args()
    allowed = read_skips(args.skips)
    results = [*collect(from_meson, args.meson), *collect(from_junit, args.junit)]
    results += [(f"step {name}", FAILED, "see above") for name in args.failed_step]
    bad_skips = 0
    for name, outcome, why in results:
        reason = next((r for pattern, r in allowed.items() if fnmatch.fnmatchcase(name, pattern)), None)
        if outcome == SKIPPED:
            bad_skips += reason is None
            print(f"skipped: {name}: {reason or f'{why} (not in {args.skips}: counts as a failure)'}")
        elif outcome == FAILED:
            print(f"failed: {name}: {why}")
    count = {o: sum(1 for r in results if r[1] == o) for o in (PASSED, FAILED, SKIPPED)}
    print(f"{count[PASSED]} passed, {count[FAILED]} failed, {count[SKIPPED]} skipped")
    return 1 if count[FAILED] or bad_skips or not count[PASSED] else 0


if __name__ == "__main__":
    sys.exit(main())
