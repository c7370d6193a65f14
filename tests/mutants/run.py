#!/usr/bin/env python3
"""Puts faults into a copy of the library: its tests must catch each.

    tests/mutants/run.py [--check] [--list] [--seeds N] [--workers N] [WORD...]

Runs the faults with a WORD in their name or place, and all without one. Exits with 1 if the tests
miss a fault, if the source does not have the piece that a fault replaces (any more), or if a fault
does not build.

All faults with the same features are in one build, in target/mutants: a function with faults has its
body once as it is and once for each fault, and HUBLET_FAULT says which of them runs. A fault that does
not build beside the others, because a function has one type or one borrow then, has a build of its own.
"""

import argparse
import concurrent.futures
import functools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

# No files of the interpreter's beside the source.
sys.dont_write_bytecode = True
from faults import FAULTS
import locate

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
COPIES = ROOT / "target" / "mutants"

# Every test ends by itself; a fault may keep one from it.
TEST_SECONDS_MAX = 100

# So many faults are found sooner without optimisation.
FAULTS_UNOPTIMISED_MAX = 20


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

    def __init__(self, name, profile, features):
        self.folder = COPIES / name
        self.profile = profile
        self.features = features
        self.program = None

    def prepare(self):
        """Copies the tree as it is now."""
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

    def path(self, path):
        return self.folder / path.relative_to(ROOT)

    def build(self):
        """Builds the tests; returns the errors of the compiler, as cargo has them."""
        environment = dict(os.environ, CARGO_TARGET_DIR=str(self.folder / "target"))
        # Nothing reads the debug information, which takes a third of the time.
        environment["CARGO_PROFILE_DEV_DEBUG"] = "0"
        command = ["cargo", "test", "--quiet", "--lib", "--no-run", "--profile", self.profile]
        command += [f"--features={self.features}", "--message-format=json"]
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        errors = []
        for message in map(json.loads, done.stdout.splitlines()):
            if message.get("executable") and "lib" in message["target"]["kind"]:
                self.program = message["executable"]
            if message["reason"] == "compiler-message" and message["message"]["level"] == "error":
                errors.append(message["message"])
        if done.returncode != 0 and not errors:
            sys.exit(done.stderr)
        return errors if done.returncode != 0 else []

    def test(self, tests, seeds, number=0):
        """Runs some of the tests; returns whether they pass, and what they print."""
        environment = dict(os.environ, HUBLET_SIM_SEEDS=f"0..{seeds}", RUST_BACKTRACE="0")
        environment["HUBLET_FAULT"] = str(number)
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


def printed(errors):
    return "\n".join(error["rendered"] for error in errors)


# What the copy of lib.rs gets.
NUMBER = """
/// Which of the faults runs.
pub(crate) fn inserted_fault() -> usize {
    static NUMBER: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *NUMBER.get_or_init(|| {
        std::env::var("HUBLET_FAULT").ok().and_then(|number| number.parse().ok()).unwrap_or(0)
    })
}
"""


class Variants:
    """A file whose functions have a body for each of their faults."""

    def __init__(self, path):
        self.path = path
        # Of each function: the item, and a body for each number.
        self.functions = {}

    def add(self, fault, number):
        """Whether the fault can stand here."""
        item, body = locate.body_with(
            text_of(self.path), fault.place.split("::", 1)[1], fault.pattern, fault.replacement
        )
        overlaps = (
            other != item and other.start < item.end and item.start < other.end
            for other in self.functions
        )
        if body is None or any(overlaps):
            return False
        self.functions.setdefault(item, {})[number] = body
        return True

    def text(self):
        """The text of the file, and the lines of each number and of each function."""
        before = text_of(self.path)
        out, at, places = "", 0, []
        for item in sorted(self.functions, key=lambda item: item.start):
            out += before[at : item.body] + "{ match crate::inserted_fault() {\n"
            first = out.count("\n")
            for number, body in self.functions[item].items():
                start = out.count("\n") + 1
                out += f"{number} => {body}\n"
                places.append((start, out.count("\n"), [number]))
            out += f"_ => {before[item.body:item.end]}\n}} }}"
            places.append((first, out.count("\n") + 1, list(self.functions[item])))
            at = item.end
        return out + before[at:], places

    def remove(self, numbers):
        for bodies in self.functions.values():
            for number in numbers:
                bodies.pop(number, None)
        self.functions = {item: bodies for item, bodies in self.functions.items() if bodies}


def build_together(faults, features):
    """A build with as many faults as go into one, and the numbers of those that it has."""
    # The optimised build takes two minutes longer, and runs ten times as fast.
    profile = "checked" if len(faults) > FAULTS_UNOPTIMISED_MAX else "test"
    build = Build("together", profile, features)
    build.prepare()
    numbers, files = {}, {}
    for number, fault in enumerate(faults, start=1):
        path = file_of(fault.place.split("::", 1)[0])
        if files.setdefault(path, Variants(path)).add(fault, number):
            numbers[number] = fault
    library = build.path(SOURCE / "lib.rs")
    # Each round leaves out what the compiler has named.
    while True:
        where = {}
        for path, variants in files.items():
            text, places = variants.text()
            build.path(path).write_text(text)
            where[str(path.relative_to(ROOT))] = variants, places
        library.write_text(library.read_text().removesuffix(NUMBER) + NUMBER)
        errors = build.build()
        if not errors:
            return build, numbers
        refused = set()
        for error in errors:
            for span in error["spans"]:
                variants, places = where.get(span["file_name"], (None, []))
                # The lines of one fault come before those of its function.
                for first, last, around in places:
                    if first <= span["line_start"] <= last:
                        variants.remove(around)
                        refused.update(around)
                        break
        if not refused:
            sys.exit(f"with the faults behind numbers it does not build\n{printed(errors)}")
        for number in refused:
            numbers.pop(number, None)


def how(log):
    """What caught a fault, by what the tests print."""
    if seed := re.search(r"HUBLET_TEST_SEED=(\d+): ([^\n]*)", log):
        return f"seed {seed[1]}: {seed[2]}"[:150]
    failed = re.search(r"^failures:\n    ([^\n]+)$", log, re.MULTILINE)
    return failed[1] if failed else "the tests do not end well"


def check_without(build, faults):
    """Without a fault the tests must pass."""
    for tests in sorted({tests_of(fault) for fault in faults}):
        passes, log = build.test(tests, 50)
        if not passes or "running 0 tests" in log:
            sys.exit(f"without a fault {tests} must pass, and be there\n{log}")


def report(fault, passes, log, start):
    """Prints how a fault ended; returns whether it was caught."""
    took = time.monotonic() - start
    print(f"{'MISSED' if passes else 'caught'}: {fault.name} ({took:.1f} s)", flush=True)
    if not passes:
        print("    " + how(log), flush=True)
    return not passes


def run_together(build, numbers, seeds, workers):
    """Runs the faults of one build; returns how many were caught."""
    check_without(build, numbers.values())

    def work(entry):
        number, fault = entry
        start = time.monotonic()
        return report(fault, *build.test(tests_of(fault), seeds, number), start)

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(work, numbers.items()))


def run_alone(faults, features, places, seeds):
    """Runs faults, each with a build of its own; returns how many were caught."""
    if not faults:
        return 0
    build = Build("alone", "test", features)
    build.prepare()
    if errors := build.build():
        sys.exit(f"without a fault it does not build\n{printed(errors)}")
    check_without(build, faults)
    caught = 0
    for fault in faults:
        start = time.monotonic()
        path, text = places[fault.name]
        path = build.path(path)
        before = path.read_text()
        path.write_text(text)
        try:
            errors = build.build()
        finally:
            path.write_text(before)
        if errors:
            print(f"does not build: {fault.name}\n{printed(errors)}", flush=True)
        else:
            caught += report(fault, *build.test(tests_of(fault), seeds), start)
    return caught


def run(faults, features, places, seeds, workers):
    """Runs faults with the same features; returns how many were caught."""
    faults = [fault for fault in faults if fault.features == features]
    build, numbers = build_together(faults, features)
    alone = [fault for number, fault in enumerate(faults, start=1) if number not in numbers]
    print(f"{len(numbers)} faults in one build, {len(alone)} in their own", flush=True)
    together = run_together(build, numbers, seeds, workers)
    return together + run_alone(alone, features, places, seeds)


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
    caught = 0
    for features in sorted({fault.features for fault in runnable}):
        caught += run(runnable, features, places, arguments.seeds, arguments.workers)
    took = time.monotonic() - start
    print(f"{len(faults)} faults, {caught} caught, {len(faults) - caught} not, in {took:.0f} s")
    return 0 if caught == len(faults) else 1


if __name__ == "__main__":
    sys.exit(main())
