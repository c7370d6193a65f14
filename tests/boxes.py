#!/usr/bin/env python3
"""Tries a static binary as it is shipped, for any processor, by nothing but its port.

    tests/boxes.py BINARY [EMULATOR]

EMULATOR is a program of qemu-user, like qemu-mips, or a target of deploy/release, whose emulator then
has the oldest processor that the target is for; none for a binary of this machine. The binary
serves, two clients meet, a POST and a reader of events too, kept messages are read by positions past
2^32, the arithmetic of --max-memory adds up, --health answers, a drain ends with 1012 and exit code 0.
With libfaketime it does so in 2040, when a second of 32 bits has run over. hublet-tls also serves
through TLS 1.3 and 1.2, with a certificate that openssl makes. Exits with 1 at the first thing that is
not so. A restart by SIGUSR2 is not tried here: an emulated process cannot execute a
binary of the other processor.
"""

import base64
import glob
import hashlib
import hmac
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time

# A wait for anything that the hub does, in seconds. An emulator on a busy machine is slow.
WAIT = 60

# The first second that a signed number of 32 bits does not reach.
END_OF_32_BITS = 2**31

# The emulator of a target, and the processor that it is: without one, the emulator has all extensions.
# i686 too, since libfaketime gets into no static binary of this machine.
EMULATORS = {
    "x86_64-unknown-linux-musl": (None, None),
    "i686-unknown-linux-musl": ("qemu-i386", "qemu32"),
    "aarch64-unknown-linux-musl": ("qemu-aarch64", "cortex-a53"),
    "armv7-unknown-linux-musleabihf": ("qemu-arm", "cortex-a7"),
    "arm-unknown-linux-musleabihf": ("qemu-arm", "arm1176"),
    "armv5te-unknown-linux-musleabi": ("qemu-arm", "arm926"),
    "riscv64gc-unknown-linux-musl": ("qemu-riscv64", "rv64"),
    "mips-unknown-linux-musl": ("qemu-mips", "24Kc"),
    "mipsel-unknown-linux-musl": ("qemu-mipsel", "24Kc"),
}

# Rooms that are tried for a position past 2^32: each begins below it once in a million times.
ROOMS = 8

KEY = b"the key of a test, of 32 bytes at least"


def check(is_so, what):
    if not is_so:
        sys.exit(f"not so: {what}")
    print(f"ok: {what}", flush=True)


class Hub:
    """A process of the binary, and where it listens."""

    # For a hub that speaks TLS.
    context = None

    def __init__(self, command, *flags, environment=None, context=None):
        self.context = context
        self.process = subprocess.Popen(
            [*command, "--listen", "127.0.0.1:0", *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(os.environ, **(environment or {})),
        )
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            sys.exit(f"no hub: {line!r}\n{self.process.communicate()[1]}")
        host, _, port = line.split()[-1].rpartition(":")
        self.address = (host, int(port))

    def socket(self):
        stream = socket.create_connection(self.address, timeout=WAIT)
        return self.context.wrap_socket(stream) if self.context else stream

    def request(self, method, path, body=b"", **headers):
        """The status, the headers and the body of an answer."""
        with self.socket() as stream:
            stream.sendall(head(method, path, body, {"Connection": "close", **headers}) + body)
            answer = b""
            while piece := stream.recv(65536):
                answer += piece
        top, _, rest = answer.partition(b"\r\n\r\n")
        return int(top.split()[1]), top.decode(), rest

    def drain(self):
        self.process.send_signal(signal.SIGTERM)

    def end(self):
        """The exit code and the log of a hub that drains."""
        _, log = self.process.communicate(timeout=WAIT)
        return self.process.returncode, log


def head(method, path, body, headers):
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Client:
    """A WebSocket."""

    def __init__(self, hub, path):
        self.stream = hub.socket()
        self.read = self.stream.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Version": "13"}
        self.stream.sendall(head("GET", path, b"", {**upgrade, "Sec_WebSocket_Key": key}))
        self.status = int(self.read.readline().split()[1])
        answer = {}
        while (line := self.read.readline()).strip():
            name, _, value = line.decode().partition(":")
            answer[name.lower()] = value.strip()
        if self.status == 101:
            accept = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
            assert answer["sec-websocket-accept"] == base64.b64encode(accept).decode()

    def say(self, text):
        data, mask = text.encode(), os.urandom(4)
        length = len(data)
        size = bytes([128 | length]) if length < 126 else bytes([254]) + length.to_bytes(2, "big")
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
        self.stream.sendall(b"\x81" + size + mask + masked)

    def hears(self):
        """The text of the next message, or the code of a close."""
        first, length = self.read.read(2)
        if length == 126:
            length = int.from_bytes(self.read.read(2), "big")
        data = self.read.read(length)
        return int.from_bytes(data[:2], "big") if first == 0x88 else data.decode()


def token(end):
    """A JSON Web Token that ends at a second."""
    parts = [{"alg": "HS256", "typ": "JWT"}, {"sub": "ann", "exp": end, "publish": ["*"]}]
    text = ".".join(encoded(json.dumps(part).encode()) for part in parts)
    return text + "." + encoded(hmac.new(KEY, text.encode(), hashlib.sha256).digest())


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def events(hub, path):
    """Lines of server-sent events, behind the head."""
    stream = hub.socket()
    stream.sendall(head("GET", path, b"", {}))
    lines = stream.makefile("rb")
    while lines.readline().strip():
        pass
    return (line.decode().strip() for line in lines)


def drains(hub, ann, bob):
    """Ends a hub with two clients, of which the second has heard all."""
    hub.drain()
    check(bob.hears() == 1012, "a drain closes with 1012")
    bob.stream.close()
    ann.stream.close()
    check(hub.end()[0] == 0, "and ends with exit code 0")


def serves(command):
    hub = Hub(command, "--history", "*=10")
    ann, bob = Client(hub, "/ws/news"), Client(hub, "/ws/news")
    for text in ["hello", "x" * 1000]:
        ann.say(text)
        check(bob.hears() == text and ann.hears() == text, f"two clients meet, {len(text)} bytes")
    reader = events(hub, "/sse/news?since=0")
    # A first room counts from a random number below 2^52, so nearly always past 2^32.
    status, _, body = hub.request("POST", "/pub/news", "grüße".encode())
    check(status == 202 and bob.hears() == "grüße", "a POST reaches a client")
    answer = json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])
    position = answer["position"]
    said = []
    while len(said) < 3:
        line = next(reader)
        if line.startswith("data:"):
            said.append(line[5:].strip())
    check(said == ["hello", "x" * 1000, "grüße"], "a reader of events gets what was kept")
    _, top, body = hub.request("GET", f"/pub/news?since={position - 1}")
    check(f"Hublet-Position: {position}" in top and "grüße".encode() in body,
          f"a message is read by its position, {position}")
    asked = [*command, "--listen", f"127.0.0.1:{hub.address[1]}", "--health"]
    check(subprocess.run(asked, check=False).returncode == 0, "--health answers 0")
    status, _, metrics = hub.request("GET", "/metrics")
    check(status == 200 and b"\nhublet_messages_received_total 3\n" in metrics.replace(b"\r", b""),
          "the metrics count three messages")
    drains(hub, ann, bob)
    check(subprocess.run(asked, check=False, stderr=subprocess.DEVNULL).returncode == 1,
          "--health answers 1 without a hub")


def counts_past_32_bits(command):
    hub = Hub(command, "--history", "*=10")
    for room in (f"far{number}" for number in range(ROOMS)):
        positions = []
        for text in ["one", "two"]:
            _, _, body = hub.request("POST", f"/pub/{room}", text.encode())
            positions.append(json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])["position"])
        if positions[0] > 2**32:
            break
    one, two = positions
    check(2**32 < one == two - 1, f"positions past 2^32 are counted: {one}, {two}")
    client = Client(hub, f"/ws/{room}?since={one}")
    heard = [client.hears(), client.hears()]
    check(heard == [str(one), "two"], "a client goes on behind one of them")
    # The same position in the lower 32 bits alone.
    lost = Client(hub, f"/ws/{room}?since={one % 2**32}")
    heard = [lost.hears(), lost.hears(), lost.hears()]
    check(heard == [str(one - 1), "one", "two"], "and its lower 32 bits are another position")
    reader = events(hub, f"/sse/{room}?since={one}")
    lines = []
    while "data: two" not in lines:
        lines.append(next(reader))
    check(lines[-2] == f"id: {two}", "an event has the position as its id")
    hub.drain()
    for reader in [client, lost]:
        check(reader.hears() == 1012, "a drain closes a reader with 1012")
        reader.stream.close()
    check(hub.end()[0] == 0, "and ends with exit code 0")


def counts_memory(command, size, ceiling):
    hub = Hub(command, "--max-memory", size)
    hub.drain()
    _, log = hub.end()
    found = re.search(
        r"memory: (\d+) bytes = (\d+) at start \+ \((\d+) clients \+ (\d+) handshakes\) x (\d+) "
        r"\+ (\d+) for messages",
        log,
    )
    total, start, clients, handshakes, each, messages = map(int, found.groups())
    adds_up = start + (clients + handshakes) * each + messages
    check(total == ceiling and abs(total - adds_up) <= each and clients > 0,
          f"--max-memory {size} adds up to {adds_up} for {clients} clients")


def goes_past_2038(command):
    preload = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    if not preload:
        skip("2040", "libfaketime")
        return
    # Without the emulator nothing loads a library into a static binary.
    future = {"LD_PRELOAD": preload[0], "FAKETIME": "@2040-01-01 00:00:00", "TZ": "UTC",
              # Only a machine that is up for 68 years has such a monotonic clock.
              "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}
    hub = Hub(command, "--jwt-secret", KEY.decode(), environment=future)
    _, top, _ = hub.request("GET", "/health")
    date = re.search(r"(?i)^date: (.*)\r?$", top, re.MULTILINE)
    check(date and " 2040 " in date[1], f"the date of an answer is in 2040: {date and date[1].strip()}")
    year = 365 * 86_400
    in_2040 = 2_208_988_800
    for end, status in [(in_2040 + year, 101), (in_2040 - year // 2, 401), (END_OF_32_BITS - 1, 401)]:
        seen = Client(hub, f"/ws/news?token={token(end)}").status
        check(seen == status, f"a token that ends at {end} is answered {seen}")
    hub.drain()
    check(hub.end()[0] == 0, "and the hub of 2040 drains")


def skip(what, tool):
    """Ends a part for which this machine lacks a program."""
    if os.environ.get("REQUIRE_TEST_TOOLS"):
        sys.exit(f"{tool} is not installed")
    print(f"skipped: {what}: {tool} is not installed")


def speaks_tls(command):
    if not shutil.which("openssl"):
        skip("TLS", "openssl")
        return
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = f"{folder}/certificate.pem", f"{folder}/key.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost",
                        "-days", "2", "-keyout", key, "-out", certificate],
                       check=True, capture_output=True)
        for version in ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.load_verify_locations(certificate)
            context.minimum_version = context.maximum_version = version
            hub = Hub(command, "--tls-cert", certificate, "--tls-key", key, context=context)
            ann, bob = Client(hub, "/ws/news"), Client(hub, "/ws/news")
            for text in ["hello", "x" * 60_000]:
                ann.say(text)
                check(bob.hears() == text, f"two clients meet through {version.name}, {len(text)} bytes")
            status, _, _ = hub.request("POST", "/pub/news", b"posted")
            check(status == 202 and bob.hears() == "posted", "a POST reaches a client")
            drains(hub, ann, bob)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    binary = str(pathlib.Path(sys.argv[1]).resolve())
    command = [*sys.argv[2:], binary]
    if sys.argv[2:] and sys.argv[2] in EMULATORS:
        emulator, processor = EMULATORS[sys.argv[2]]
        command = [emulator, binary] if emulator else [binary]
        if processor:
            os.environ["QEMU_CPU"] = processor
    start = time.monotonic()
    version = subprocess.run([*command, "--version"], check=True, capture_output=True, text=True)
    print(version.stdout.strip(), *command)
    serves(command)
    counts_past_32_bits(command)
    for size, ceiling in [("32m", 32 << 20), ("2047m", 2047 << 20), ("4095m", 4095 << 20)]:
        counts_memory(command, size, ceiling)
    if pathlib.Path(binary).name.startswith("hublet-tls"):
        speaks_tls(command)
    if command != [binary]:
        goes_past_2038(command)
    print(f"all is so, in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
