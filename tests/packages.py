#!/usr/bin/env python3
"""Installs, starts, upgrades and removes the package of Debian, in a chroot: as root, on Debian.

    tests/packages.py PACKAGE FOLDER

PACKAGE is what deploy/deb has made for this machine. FOLDER keeps a system that debootstrap makes, if
there is none. The hub runs as the command line of its unit says, behind a socket as systemd passes
it. It is upgraded by the signal of the unit's ExecReload, and a client must not notice. Exits with 1
at the first thing that is not so.
"""

import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
from boxes import WAIT, Client, Hub, check

# What a package of hublet has, below the root.
FILES = [
    "usr/bin/hublet",
    "lib/systemd/system/hublet.service",
    "lib/systemd/system/hublet.socket",
    "etc/default/hublet",
    "usr/share/man/man1/hublet.1.gz",
    "usr/share/bash-completion/completions/hublet",
    "usr/share/zsh/vendor-completions/_hublet",
    "usr/share/fish/vendor_completions.d/hublet.fish",
    "usr/share/doc/hublet/copyright",
]

CODENAME = "bookworm"


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def newer(package, folder):
    """The package with a higher version, and a binary that is another file."""
    tree = folder / "newer"
    run("dpkg-deb", "--raw-extract", str(package), str(tree))
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: (.*)$", r"Version: \1+1", control.read_text()))
    out = folder / "newer.deb"
    run("dpkg-deb", "--root-owner-group", "--build", str(tree), str(out))
    return out


def command_of(root):
    """The command lines of the unit that start and reload."""
    unit = (root / "lib/systemd/system/hublet.service").read_text()
    start = re.search(r"(?m)^ExecStart=(.*)$", unit)[1].split()
    reload = re.search(r"(?m)^ExecReload=/bin/kill -(\w+) \$MAINPID$", unit)[1]
    return start, getattr(signal, f"SIG{reload}")


class Installed(Hub):
    """The hub in the chroot, behind a socket that is passed to it."""

    def __init__(self, root, command, address):
        passed = ["systemd-socket-activate", f"--listen={address[0]}:{address[1]}"]
        self.address = address
        self.log = open(root.parent / "hub.log", "w+b")
        self.process = subprocess.Popen(
            [*passed, "chroot", "--userspec=65534:65534", str(root), *command],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )
        self.wait_for(self.reached)

    def reached(self):
        try:
            return self.request("GET", "/health")[0] == 200
        except OSError:
            return False

    def said(self, text):
        self.log.flush()
        return text in pathlib.Path(self.log.name).read_text()

    def wait_for(self, is_so):
        end = time.monotonic() + WAIT
        while not is_so():
            if time.monotonic() > end or self.process.poll() is not None:
                sys.exit(f"in vain\n{pathlib.Path(self.log.name).read_text()}")
            time.sleep(0.05)


def try_package(package, root, folder):
    def dpkg(*arguments):
        return run("chroot", str(root), "dpkg", *arguments)

    for name, path in [("first.deb", package), ("second.deb", newer(package, folder))]:
        shutil.copy(path, root / name)
    dpkg("--install", "/first.deb")
    check(all((root / path).is_file() for path in FILES), "every file is installed")
    version = run("dpkg-deb", "--field", str(package), "Version").strip()
    says = run("chroot", str(root), "/usr/bin/hublet", "--version").strip()
    check(says == f"hublet {version}", f"the binary runs there, and is {says}")
    # The sample asks for the name of a host, which nothing here sends: addresses are let in always.
    start, reload = command_of(root)
    check(start[0] == "/usr/bin/hublet", f"the unit starts {' '.join(start)}")
    port = subprocess.run(
        [sys.executable, "-c", "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"],
        capture_output=True, text=True, check=True,
    ).stdout
    hub = Installed(root, start, ("127.0.0.1", int(port)))
    client = Client(hub, "/ws/news")
    check(client.status == 101, "the hub of the unit's command line lets a client in")
    # The configuration of the administrator stays.
    with open(root / "etc/default/hublet", "a", encoding="utf-8") as file:
        file.write("HUBLET_MAX_ROOMS=500\n")
    dpkg("--install", "/second.deb")
    check("HUBLET_MAX_ROOMS=500" in (root / "etc/default/hublet").read_text(), "an upgrade keeps the file of flags")
    hub.process.send_signal(reload)
    hub.wait_for(lambda: hub.said("restarted as "))
    hub.request("POST", "/pub/news", b"still here")
    check(client.hears() == "still here", "and the client of before hears what is published after it")
    hub.process.send_signal(signal.SIGTERM)
    check(client.hears() == 1012, "a drain closes it with 1012")
    client.stream.close()
    check(hub.process.wait(WAIT) == 0, "and ends with exit code 0")
    dpkg("--remove", "hublet")
    left = [path for path in FILES if (root / path).exists()]
    check(left == ["etc/default/hublet"], "a removal leaves the file of flags alone")
    dpkg("--purge", "hublet")
    check(not (root / "etc/default/hublet").exists(), "a purge nothing")


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    package, root = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    if not (root / "usr/bin/dpkg").exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        # In another folder first: what debootstrap leaves when it fails looks like a system.
        part = root.with_name(f"{root.name}.part")
        for system in [part / "proc", part / "sys"]:
            if system.is_mount():
                run("umount", str(system))
        shutil.rmtree(part, ignore_errors=True)
        run("debootstrap", "--variant=minbase", CODENAME, str(part))
        part.rename(root)
    with tempfile.TemporaryDirectory() as folder:
        try_package(package, root, pathlib.Path(folder))
    print("all is so")


main()
