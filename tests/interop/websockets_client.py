"""The exchange of exchange.mjs, by the package websockets."""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

LONGEST = 65536
MESSAGES = [
    "héllo, wörld ✓ 🦀",
    bytes(range(256)),
    "",
    b"",
    "é" * (LONGEST // 2),
    b"\xa5" * LONGEST,
]


async def end(client):
    """Reads up to the close frame; returns it."""
    try:
        while True:
            await client.recv()
    except ConnectionClosed as closed:
        return closed.rcvd


async def main(url):
    def join():
        return connect(url, subprotocols=["interop.v1", "interop.v2"])

    async with join() as ada, join() as bob:
        assert ada.subprotocol == "interop.v2", ada.subprotocol
        for message in MESSAGES:
            await ada.send(message)
            for client in (ada, bob):
                assert await client.recv() == message

        await bob.send("close me")
        bye = await end(bob)
        assert (bye.code, bye.reason) == (4000, "as you asked"), bye

        async with join() as eve:
            await eve.send(bytes(LONGEST + 1))
            assert (await end(eve)).code == 1009

        assert await ada.recv() == "close me"
        await ada.close(4321, "goodbye")
        echo = await end(ada)
        assert echo.code == 4321, echo
    print("done")


asyncio.run(main(sys.argv[1]))
