"""Says a word over wss, in TLS 1.3 and 1.2, and hears it."""

import asyncio
import ssl
import sys

from websockets.asyncio.client import connect


async def main(url, ca):
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ssl.create_default_context(cafile=ca)
        context.minimum_version = context.maximum_version = version
        async with connect(url + "?echo=1", ssl=context) as client:
            if version == ssl.TLSVersion.TLSv1_3:
                await client.send("by Python")
                assert await client.recv() == "by Python"


asyncio.run(main(*sys.argv[1:]))
