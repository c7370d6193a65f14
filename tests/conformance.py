#!/usr/bin/env python3
"""Runs the Autobahn case files against a built hublet, and keeps the report.

    tests/conformance.py [--all] BINARY REPORT [FLAG...]

Wants Python 3.10 or later with kosoku 0.1.0 from PyPI, which drives Autobahn's own case files.
Exits with 1 unless every case passes strictly. The hub compresses (`--deflate 1`), so sections 12
and 13 count: none of them may be declined. Their cases send a thousand messages each, so one in
nineteen of them runs, others each day; with --all every one.
"""

import asyncio
import collections
import datetime
import pathlib
import subprocess
import sys

import kosoku
from kosoku._report import write_reports
from kosoku.cases import CASES

# Section 9 sends messages of 16 MiB, and of 4 MiB in pieces of 64 bytes.
LIMITS = ["--max-message", "16m", "--max-fragments", "100000", "--queue-bytes", "64m", "--deflate", "1"]

# How many cases each section has, so that none is passed over.
SECTIONS = {1: 16, 2: 11, 3: 7, 4: 10, 5: 20, 6: 145, 7: 37, 9: 54, 10: 1, 12: 90, 13: 126}

# Of the cases of sections 12 and 13 one in so many runs: 19, so that each part has cases of all lengths, of which there are 18.
PART = 19

COMPRESSION = [case for case in CASES if case.startswith(("12.", "13."))]

# Autobahn has no expectation of these: data behind a close frame, close codes without a meaning.
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}

# A case that takes longer, in seconds, has hung. Autobahn's own limits are shorter, but for a case of
# section 12 or 13, which sends a thousand messages of up to 128 KiB: 480.
CASE_TIMEOUT = 500


def repair(case):
    """Hands a case of sections 12 and 13 bytes, which it hashes; kosoku 0.1.0 hands it short messages as
    text of the same bytes."""
    on_message = case.onMessage

    def on_bytes(self, message, binary):
        on_message(self, message.encode("latin-1") if isinstance(message, str) else message, binary)

    case.onMessage = on_bytes


async def run_case(address: str, case: str):
    # A room of its own: what an earlier case left behind must not be heard in this one.
    url = f"ws://{address}/ws/{case}"
    try:
        results = await asyncio.wait_for(kosoku.run_fuzzingclient(url, [case]), CASE_TIMEOUT)
    except kosoku.FailureError as failure:
        results = failure.results
    (result,) = results
    return result


def expected(case: str):
    if case in INFORMATIONAL:
        return ("INFORMATIONAL", "INFORMATIONAL")
    return ("OK", "OK")


def chosen(everything: bool) -> list[str]:
    if everything:
        return list(CASES)
    first = datetime.date.today().toordinal() % PART
    print(f"of sections 12 and 13 every {PART}th case runs, from the {first + 1}th on")
    return [case for case in CASES if case not in COMPRESSION] + COMPRESSION[first::PART]


async def run_all(address: str, report: pathlib.Path, cases: list[str]) -> int:
    for case in COMPRESSION:
        repair(CASES[case])
    results, wrong = [], 0
    table = collections.defaultdict(collections.Counter)
    for case in cases:
        result = await run_case(address, case)
        results.append(result)
        section = int(case.split(".")[0])
        verdict = (result.behavior.value, result.behavior_close.value)
        table[section][verdict] += 1
        if verdict != expected(case):
            wrong += 1
            print(f"case {case}: {verdict[0]}, close {verdict[1]}: {result.result}")
    write_reports(results, str(report))
    for section, verdicts in sorted(table.items()):
        said = ", ".join(f"{n} {v[0]} (close {v[1]})" for v, n in verdicts.items())
        print(f"section {section}: {said}")
    counts = collections.Counter(int(case.split(".")[0]) for case in CASES)
    if counts != SECTIONS:
        print(f"cases by section were to be {SECTIONS} and are {dict(counts)}")
        wrong += 1
    print(f"{len(results)} cases, {wrong} with another verdict than expected; report: {report}")
    return wrong


def main() -> int:
    everything = sys.argv[1:2] == ["--all"]
    arguments = sys.argv[2:] if everything else sys.argv[1:]
    if len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    binary, report, *flags = arguments
    command = [binary, "--listen", "127.0.0.1:0", "--log", "warn", *LIMITS, *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            line = server.stdout.readline()
            address = line.removeprefix("listening on ").strip()
            assert address and address != line, f"it does not listen: {line!r}"
            wrong = asyncio.run(run_all(address, pathlib.Path(report), chosen(everything)))
        finally:
            server.terminate()
        if server.wait(30) != 0:
            print(f"the server ended with {server.returncode}")
            return 1
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
