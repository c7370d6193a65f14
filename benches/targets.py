#!/usr/bin/env python3
"""Measures the binary of each target and writes the table of docs/install.md.

    deploy/release
    python3 benches/targets.py [TARGET...]

Without a target all that have a binary in dist/ are measured; what is not measured keeps its figure.
With TLS, which is hublet-tls, only the bytes are counted. The memory at start is that of a process
without an emulator, which has its own in it. The memory of an idle client is what a process grows by,
over 2,000 clients behind the first 500, and an emulator hardly grows with them: HUBLET_EMULATE=1
measures x86-64 under qemu-x86_64, to compare.

--check measures nothing, and fails if the page is not what this script writes, or if its targets are
not those of deploy/release.
"""

import os
import pathlib
import re
import resource
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
sys.dont_write_bytecode = True
from boxes import EMULATORS, Client, Hub

PAGE = ROOT / "docs/install.md"

# The machines of a target.
MACHINES = {
    "x86_64-unknown-linux-musl": "PC, server",
    "i686-unknown-linux-musl": "PC of 32 bit with SSE2",
    "aarch64-unknown-linux-musl": "Raspberry Pi 3 and later, 64 bit; most boards and routers since 2018",
    "armv7-unknown-linux-musleabihf": "Raspberry Pi 2 and later, 32 bit; boards of ARMv7",
    "arm-unknown-linux-musleabihf": "Raspberry Pi 1 and Zero: ARMv6 with floating point",
    "armv5te-unknown-linux-musleabi": "other ARM, from ARMv5TE on, without floating point",
    "riscv64gc-unknown-linux-musl": "RISC-V of 64 bit",
    "mips-unknown-linux-musl": "routers with MIPS, big-endian: OpenWrt's ath79",
    "mipsel-unknown-linux-musl": "routers with MIPS, little-endian: OpenWrt's ramips",
}

# A process of these needs no emulator on x86-64.
NATIVE = ["x86_64-unknown-linux-musl", "i686-unknown-linux-musl"]

HEAD = """| machine | target | run in CI under | bytes | with TLS | resident at start | per idle client |
|---|---|---|---:|---:|---:|---:|
"""

# Clients that come first: the code that they need is no part of a client, nor is its translation.
FIRST = 500
CLIENTS = 2000
# Starts, of which the median counts: the system maps more of the file in one than in another.
STARTS = 5


def resident(hub):
    """Bytes that a process has in memory."""
    status = pathlib.Path(f"/proc/{hub.process.pid}/status").read_text(encoding="ascii")
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


def at_start(command):
    starts = []
    for _ in range(STARTS):
        hub = Hub(command)
        starts.append(resident(hub))
        hub.drain()
        hub.end()
    return statistics.median(starts)


def of_a_client(command):
    hub = Hub(command, "--max-clients", str(FIRST + CLIENTS))
    # Each has its room joined when its 101 is there.
    clients = [Client(hub, "/ws/news") for _ in range(FIRST)]
    before = resident(hub)
    clients += [Client(hub, "/ws/news") for _ in range(CLIENTS)]
    grown = resident(hub) - before
    if {client.status for client in clients} != {101}:
        sys.exit("the hub did not let all clients in")
    hub.drain()
    for client in clients:
        client.stream.close()
    hub.end()
    return grown / CLIENTS


def measured(target, binary):
    """The bytes, the memory at start and that of a client."""
    emulator, processor = EMULATORS[target]
    native = target in NATIVE
    if os.environ.get("HUBLET_EMULATE") and target == "x86_64-unknown-linux-musl":
        emulator, native = "qemu-x86_64", False
    os.environ.pop("QEMU_CPU", None)
    if processor and not native:
        os.environ["QEMU_CPU"] = processor
    command = [str(binary)] if native else [emulator, str(binary)]
    start = f"{at_start(command) / 1024:.0f} KiB" if native else ""
    return f"{binary.stat().st_size:,}", start, f"{of_a_client(command):,.0f} B"


def kept(page, target):
    """The figures of a target as the page has them."""
    found = re.search(rf"(?m)^\|[^|]*\| `{target}` \|[^|]*\|([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|$", page)
    if not found:
        sys.exit(f"{PAGE} has no figures of {target} to keep: deploy/release {target} first")
    return [figure.strip() for figure in found.groups()]


def main():
    wanted, checks = sys.argv[1:], sys.argv[1:] == ["--check"]
    listed = subprocess.run([ROOT / "deploy/release", "--list"], check=True, stdout=subprocess.PIPE, text=True)
    targets = listed.stdout.split()
    page = PAGE.read_text(encoding="utf-8")
    version = re.search(r'(?m)^version = "(.*)"', (ROOT / "Cargo.toml").read_text(encoding="utf-8"))[1]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    table = HEAD
    for target in targets:
        binary = ROOT / f"dist/hublet-{version}-{target}"
        with_tls = ROOT / f"dist/hublet-tls-{version}-{target}"
        size, tls, start, client = kept(page, target)
        if not checks and target in (wanted or targets) and (wanted or binary.exists()):
            print(f"{target}: {binary}", file=sys.stderr)
            size, start, client = measured(target, binary)
        if not checks and target in (wanted or targets) and with_tls.exists():
            tls = f"{with_tls.stat().st_size:,}"
        under = EMULATORS[target][0] or "itself"
        table += f"| {MACHINES[target]} | `{target}` | {under} | {size} | {tls} | {start} | {client} |\n"
    text = re.sub(r"(?m)^\| machine \| target .*\n(\|.*\n)*", lambda _: table, page)
    if checks:
        sys.exit(0 if text == page else f"{PAGE} is not what this script writes")
    PAGE.write_text(text, encoding="utf-8")


main()
