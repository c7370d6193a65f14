"""The exchange of exchange.mjs, by the package websocket-client."""

import struct
import sys

from websocket import ABNF, create_connection

LONGEST = 65536
MESSAGES = [
    (ABNF.OPCODE_TEXT, "héllo, wörld ✓ 🦀".encode()),
    (ABNF.OPCODE_BINARY, bytes(range(256))),
    (ABNF.OPCODE_TEXT, b""),
    (ABNF.OPCODE_BINARY, b""),
    (ABNF.OPCODE_TEXT, ("é" * (LONGEST // 2)).encode()),
    (ABNF.OPCODE_BINARY, b"\xa5" * LONGEST),
]


def join():
    return create_connection(sys.argv[1], timeout=20, subprotocols=["interop.v1", "interop.v2"])


def end(client):
    """Reads up to the close frame; returns its code and reason."""
    while True:
        opcode, payload = client.recv_data()
        if opcode == ABNF.OPCODE_CLOSE:
            return struct.unpack("!H", payload[:2])[0], payload[2:].decode()


ada, bob = join(), join()
assert ada.getsubprotocol() == "interop.v2", ada.getsubprotocol()
for opcode, payload in MESSAGES:
    ada.send(payload, opcode)
    for client in (ada, bob):
        assert client.recv_data() == (opcode, payload)

bob.send("close me")
assert end(bob) == (4000, "as you asked")

eve = join()
eve.send_binary(bytes(LONGEST + 1))
assert end(eve)[0] == 1009

assert ada.recv() == "close me"
# close() would throw the echo away.
ada.send_close(4321, b"goodbye")
assert end(ada)[0] == 4321
for client in (ada, bob, eve):
    client.shutdown()
print("done")
