#!/usr/bin/env python3
"""Measures hublet and writes docs/figures.md, the one page with printed figures.

    deploy/build
    python3 benches/figures.py [SECTION..]

SECTION is footprint, compare, delivery, history, deflate, tls, ceiling or soak; without one, all of them
run, which takes about two hours. A section that does not run keeps the figures that the page has,
with the day on which they were measured. Every section names the command that makes its figures.
Needs Linux, the static binary that deploy/build makes, and what the commands need: valgrind and
strace for delivery, root for ceiling, Go for compare and deflate.

--check measures nothing, and fails if the page is not what this script writes.
"""
import datetime
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGE = os.path.join(ROOT, 'docs/figures.md')
STATIC = '$PWD/target/x86_64-unknown-linux-musl/dist/hublet'
BINARY = os.path.join(ROOT, 'target/x86_64-unknown-linux-musl/dist/hublet')

HEAD = '''# Figures

For everyone that wants to know what hublet costs, and how that was measured.
`python3 benches/figures.py` writes this page; do not edit it.
[performance.md](performance.md) explains the figures.

All figures come from an x86-64 virtual machine with two cores, on loopback, with the static binary of `deploy/build`.
Each section says when it was measured, and the size of the binary of that day: a later build may differ.
Run the commands to get those of your machine. They need the static binary.
'''

# Name, heading, what it measures, command.
SECTIONS = [
    ('footprint', 'Footprint',
     'Size and memory, with 10,000 idle clients of each kind. Needs a hard limit of 10,100 file '
     'descriptors (`ulimit -Hn`).',
     f'cargo bench --bench footprint -- {STATIC}'),
    ('compare', 'Beside other servers',
     'One fresh server for each measurement, in turns; the figures are medians. `limit-c` is the '
     'floor: C on epoll without queues, one `send` for all frames of a read. `limit-c-msg` sends '
     'each message by itself. axum and gorilla are hubs as their examples build them. In brackets: '
     'the median of the ratios to `limit-c-msg` in the same repetition. An exclamation mark: '
     'messages or clients were lost. Needs Python, Cargo, a C compiler and Go; a missing peer is '
     'named and left out.',
     'python3 benches/compare.py --reps 3 --secs 1 --peers limit-c-msg,limit-c,axum,gorilla'),
    ('delivery', 'A delivery, counted',
     'Instructions and system calls of a delivery to one of 100 clients, counted and not timed. '
     'Needs valgrind and strace.',
     f'cargo bench --bench delivery -- {STATIC}'),
    ('history', 'Kept messages',
     'Clients that are behind by 1,000 messages of 1 KiB in a room that keeps them, and the processor '
     'time of a message to 100 clients with history, over that without: the median of turns.',
     f'cargo bench --bench history -- {STATIC}'),
    ('deflate', 'Compression',
     'Bytes on the wire and processor time of a delivery of JSON, plain and compressed: the least of '
     'seven runs each, in turns. gorilla compresses once for all too (`PreparedMessage`). It '
     'needs Go, and is left out without it, and where it loses clients on a busy machine.',
     f'cargo bench --bench deflate -- {STATIC}'),
    ('tls', 'TLS',
     'Instructions, system calls and memory of clients over TLS 1.3, and the processor time of a '
     'handshake with a key of ECDSA P-256. Needs `hublet-tls`, valgrind and strace.',
     f'cargo bench --features tls --bench tls -- {STATIC}-tls'),
    ('ceiling', 'The memory ceiling under attack',
     'The binary in a cgroup of exactly the size of its `--max-memory`, while every kind of '
     'attacker does its worst. Needs root.',
     f'cargo bench --bench ceiling -- {STATIC}'),
    ('soak', 'An hour of soak',
     'An hour of readers, publishers, guests and attackers at one message a second for each '
     'publisher; the end of its output.',
     f'cargo bench --bench soak -- --rate 1 --seconds 3600 {STATIC}'),
]

# Lines of the soak's output that are shown: its end.
SOAK_LINES = 6


def shown(name, printed):
    """What of a command's output stands on the page."""
    lines = [line.rstrip() for line in printed.strip('\n').splitlines()]
    if name == 'compare':
        return '\n'.join(line for line in lines if line.startswith('|'))
    if name == 'soak':
        lines = lines[-SOAK_LINES:]
    return '```text\n' + '\n'.join(lines) + '\n```'


def measured(name):
    """When, and with which binary."""
    size = os.path.getsize(BINARY + '-tls' if name == 'tls' else BINARY)
    return f'Measured on {datetime.date.today()}, with a binary of {size:,} bytes.\n\n'


def kept(page, heading):
    """The figures of a section as the page has them."""
    section = re.search(rf'^## {re.escape(heading)}\n.*?\n```sh\n.*?\n```\n\n(.*?)(?=\n\n## |\n*\Z)', page, re.M | re.S)
    if not section:
        sys.exit(f'{PAGE} has no figures of {heading!r} to keep: name no section, or this one')
    return section[1].rstrip('\n')


def main():
    names = [name for name, *_ in SECTIONS]
    checks = sys.argv[1:] == ['--check']
    wanted = [] if checks else sys.argv[1:] or names
    for name in wanted:
        if name not in names:
            sys.exit(f'{name!r} is no section: {", ".join(names)}')
    page = open(PAGE, encoding='utf-8').read() if os.path.exists(PAGE) else ''
    text = HEAD
    for name, heading, about, command in SECTIONS:
        if name in wanted:
            print(f'{name}: {command}', file=sys.stderr)
            ran = subprocess.run(['sh', '-c', command], cwd=ROOT, stdout=subprocess.PIPE, text=True)
            if ran.returncode != 0:
                sys.exit(f'{name} failed; {PAGE} is as it was')
            figures = measured(name) + shown(name, ran.stdout)
        else:
            figures = kept(page, heading)
        text += f'\n## {heading}\n\n{about}\n\n```sh\n{command}\n```\n\n{figures}\n'
    if checks:
        sys.exit(0 if text == page else f'{PAGE} is not what this script writes')
    with open(PAGE, 'w', encoding='utf-8') as file:
        file.write(text)


main()
