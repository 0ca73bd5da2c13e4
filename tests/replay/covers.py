#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""covers.py VERDICT.H CASES EXCEPTIONS CASE...: every verdict comes up in a replay case of either family.

CASES is the directory, CASE... are those that are played. EXCEPTIONS has a line for each verdict that no packet of a
family can bring about: its name, 4, 6 or 46, the unit test that does it instead (FILE::TEST below tests/), the reason.
"""
import os
import re
import sys


def names_of(header):
    with open(header, encoding="utf-8") as f:
        return re.findall(r"^\s*V\((\w+), [A-Z_]+, [A-Z]+,", f.read(), re.M)


def counted(cases, case):
    with open(os.path.join(cases, case, "verdicts"), encoding="utf-8") as f:
        return {line.split()[0] for line in f}


def is_test(tests, named):
    file, _, test = named.partition("::")
    path = os.path.join(tests, file)
    if not os.path.exists(path):
        return False
    with open(path, encoding="utf-8") as f:
        return re.search(rf"\bcmocka_unit_test\({re.escape(test)}\)", f.read()) is not None


def read_exceptions(path, tests):
    """(verdict, family): there. What is wrong with the list is found, too."""
    exceptions, wrong = set(), []
    with open(path, encoding="utf-8") as f:
        lines = [line.split(maxsplit=3) for line in f if line.strip() and not line.startswith("#")]
    for line in lines:
        if len(line) < 4:
            wrong.append(f"{path}: {' '.join(line)}: no reason")
        elif not is_test(tests, line[2]):
            wrong.append(f"{path}: there is no {line[2]}")
        else:
            exceptions |= {(line[0], family) for family in line[1]}
    return exceptions, wrong


def main():
    header, cases, path, played = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
    names = names_of(header)
    exceptions, wrong = read_exceptions(path, os.path.dirname(os.path.dirname(os.path.abspath(path))))
    seen = {(name, case[-1]) for case in played for name in counted(cases, case)}
    wanted = {(name, family) for name in names for family in "46"}
    wrong += [f"{case} is not played" for case in sorted(set(os.listdir(cases)) - set(played))]
    wrong += [f"no IPv{family} case ends a packet as {name}" for name, family in sorted(wanted - seen - exceptions)]
    wrong += [f"{path}: IPv{family} {name} has a case" for name, family in sorted(exceptions & seen)]
    wrong += [f"{path}: there is no verdict {name}" for name, _ in sorted(exceptions - wanted)]
    if wrong or not names:
        sys.exit("\n".join(wrong or [f"no verdicts in {header}"]))
    print(f"{len(names)} verdicts, {len(seen)} of {len(wanted)} with their family, {len(exceptions)} exceptions")


if __name__ == "__main__":
    main()
