#!/usr/bin/env python3
"""Puts faults into a copy of the library, one after another: its tests must catch each.

    tests/mutants/run.py [--check] [--list] [--seeds N] [--workers N] [WORD...]

Runs the faults with a WORD in their name or place, and all without one. Exits with 1 if the tests
miss a fault, if the source does not have the piece that a fault replaces (any more), or if a fault
does not build. Each worker has a copy of the tree and a build of its own in target/mutants.
"""

import argparse
import functools
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

# No files of the interpreter's beside the source.
sys.dont_write_bytecode = True
from faults import FAULTS
import locate

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
COPIES = ROOT / "target" / "mutants"

# Every test ends by itself; a fault may keep one from it.
TEST_SECONDS_MAX = 150


@functools.cache
def text_of(path):
    return path.read_text()


@functools.cache
def file_of(name):
    return locate.file_of(SOURCE, name)


def place(fault):
    """The file of a fault, and the text that it gets."""
    file, item = fault.place.split("::", 1)
    path = file_of(file)
    return path, locate.replaced(text_of(path), item, fault.pattern, fault.replacement)


def tests_of(fault):
    """What the test harness takes for the tests that must find a fault."""
    file, _, test = fault.tests.partition("::")
    path = file_of(file)
    # A long file has its tests in a file of their own.
    apart = path.with_suffix("") / "tests.rs"
    tested = [path, apart] if apart.exists() else [path]
    if not test:
        tested = path.parent.rglob("*.rs") if path.name == "mod.rs" else tested
        if not any("#[test]" in text_of(path) for path in tested):
            raise locate.Missing(f"{file} has no test")
        module = path.relative_to(SOURCE).with_suffix("").parts
        return "::".join(part for part in module if part != "mod") + "::"
    if not any(re.search(rf"#\[test\]\s+fn {test}\b", text_of(path)) for path in tested):
        raise locate.Missing(f"{file} has no test {test}")
    return test


class Build:
    """A copy of the tree, and the tests that are built of it."""

    def __init__(self, number):
        self.folder = COPIES / str(number)
        self.program = None

    def prepare(self, other=None):
        """Copies the tree as it is now, and what cargo made for `other` of its dependencies."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ["Cargo.toml", "Cargo.lock", "README.md"]:
            shutil.copy2(ROOT / name, self.folder / name)
        for name in ["src", "benches", "tests", "examples"]:
            shutil.rmtree(self.folder / name, ignore_errors=True)
            # With the time of the copy: cargo takes what is older than its last build, which was of
            # a fault, for built.
            shutil.copytree(
                ROOT / name,
                self.folder / name,
                copy_function=shutil.copy,
                ignore=shutil.ignore_patterns("node_modules"),
            )
        if other and not (self.folder / "target").exists():
            shutil.copytree(other.folder / "target", self.folder / "target", symlinks=True)

    def build(self, jobs):
        """Builds the tests; returns what cargo says if they do not build."""
        # Nothing reads the debug information, which takes a third of the time.
        settings = {"CARGO_PROFILE_DEV_DEBUG": "0", "CARGO_INCREMENTAL": "1"}
        environment = dict(os.environ, CARGO_TARGET_DIR=str(self.folder / "target"), **settings)
        command = ["cargo", "test", "--quiet", "--lib", "--no-run", f"--jobs={jobs}"]
        command.append("--message-format=json-render-diagnostics")
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            return done.stderr
        for message in map(json.loads, done.stdout.splitlines()):
            if message.get("executable") and "lib" in message["target"]["kind"]:
                self.program = message["executable"]
        return None

    def test(self, tests, seeds):
        """Runs some of the tests; returns whether they pass, and what they print."""
        environment = dict(os.environ, HUBLET_SIM_SEEDS=f"0..{seeds}", RUST_BACKTRACE="0")
        environment.pop("HUBLET_TEST_SEED", None)
        running = subprocess.Popen(
            [self.program, "--quiet", tests],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # With the tests that start a program of their own.
            start_new_session=True,
        )
        try:
            log, _ = running.communicate(timeout=TEST_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.communicate()
            return False, f"failures:\n    no end in {TEST_SECONDS_MAX} s\n"
        return running.returncode == 0, log

    def outcomes(self, path, text, faults, seeds):
        """Puts a text into a file; yields how each of the faults that it has ends."""
        path = self.folder / path.relative_to(ROOT)
        before = path.read_text()
        path.write_text(text)
        try:
            errors = self.build(jobs=1)
        finally:
            path.write_text(before)
        for fault in faults:
            if errors:
                yield fault, "does not build", errors
                continue
            passes, log = self.test(tests_of(fault), seeds)
            yield fault, "MISSED" if passes else "caught", "" if passes else how(log)


def how(log):
    """What caught a fault, by what the tests print."""
    if seed := re.search(r"HUBLET_TEST_SEED=(\d+): ([^\n]*)", log):
        return f"seed {seed[1]}: {seed[2]}"[:150]
    failed = re.search(r"^failures:\n    ([^\n]+)$", log, re.MULTILINE)
    return failed[1] if failed else "the tests do not end well"


def prepare(faults, workers):
    """The builds of the workers. Without a fault the tests must pass."""
    first = Build(0)
    first.prepare()
    if errors := first.build(jobs=workers):
        sys.exit(f"without a fault it does not build\n{errors}")
    for tests in sorted({tests_of(fault) for fault in faults}):
        passes, log = first.test(tests, 50)
        if not passes or "running 0 tests" in log:
            sys.exit(f"without a fault {tests} must pass, and be there\n{log}")
    others = [Build(number) for number in range(1, workers)]
    for build in others:
        build.prepare(first)
    return [first, *others]


def run(faults, places, seeds, workers):
    """Runs faults; returns how many were caught."""
    # Faults with one text need one build.
    texts = {}
    for fault in faults:
        texts.setdefault(places[fault.name], []).append(fault)
    waiting = queue.SimpleQueue()
    for (path, text), group in texts.items():
        waiting.put((path, text, group))
    lock = threading.Lock()
    caught = []

    def work(build):
        while True:
            try:
                path, text, group = waiting.get_nowait()
            except queue.Empty:
                return
            start = time.monotonic()
            for fault, outcome, note in build.outcomes(path, text, group, seeds):
                took = time.monotonic() - start
                start += took
                with lock:
                    print(f"{outcome}: {fault.name} ({took:.1f} s)", flush=True)
                    if note:
                        print("    " + note.strip().replace("\n", "\n    "), flush=True)
                    if outcome == "caught":
                        caught.append(fault)

    threads = [threading.Thread(target=work, args=[b]) for b in prepare(faults, workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(caught)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*", metavar="WORD", help="only faults that have one")
    parser.add_argument("--check", action="store_true", help="only look for every piece")
    parser.add_argument("--list", action="store_true", help="only list the faults")
    parser.add_argument("--seeds", type=int, default=1000, help="seeds a fault has to hide from")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    arguments = parser.parse_args()
    start = time.monotonic()
    if twice := len(FAULTS) - len({fault.name for fault in FAULTS}):
        sys.exit(f"{twice} faults have the name of another")
    words = arguments.words or [""]
    faults = [f for f in FAULTS if any(word in f.name or word in f.place for word in words)]
    if not faults:
        sys.exit(f"no fault has one of {words} in its name or place")
    if arguments.list:
        for fault in faults:
            print(f"{fault.name}\n    {fault.place}, for {fault.tests}")
        return 0
    places = {}
    for fault in faults:
        try:
            places[fault.name] = place(fault)
            tests_of(fault)
        except locate.Missing as missing:
            places.pop(fault.name, None)
            print(f"not found: {fault.name}\n    {missing}", flush=True)
    runnable = [fault for fault in faults if fault.name in places]
    if arguments.check:
        print(f"{len(faults)} faults, {len(faults) - len(runnable)} not found")
        return 0 if runnable == faults else 1
    caught = run(runnable, places, arguments.seeds, arguments.workers) if runnable else 0
    took = time.monotonic() - start
    print(f"{len(faults)} faults, {caught} caught, {len(faults) - caught} not, in {took:.0f} s")
    return 0 if caught == len(faults) else 1


if __name__ == "__main__":
    sys.exit(main())
