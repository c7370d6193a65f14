"""Hears a room as server-sent events with a client for Python, and publishes to it.

Each event must be heard before the next is published, and nothing else may be an event.
"""

import json
import os
import queue
import sys
import threading
import urllib.request

client, url = sys.argv[1:3]
if client == "sseclient":
    # Its module has the name of that of sseclient-py.
    sys.path.insert(0, os.path.join(sys.prefix, "sseclient"))

import httpx
import httpx_sse
import requests
import sseclient

EVENTS = ["one", "two\nlines", "three"]
# Seconds within which an event is heard, on a machine that may be busy.
DEADLINE = 15


def lines():
    """`iter_lines` of requests, as it is; what it yields for a comment and a blank line is no event."""
    data = []
    for line in requests.get(url, stream=True).iter_lines(decode_unicode=True):
        if line.startswith("data: "):
            data.append(line.removeprefix("data: "))
        elif not line and data:
            yield "\n".join(data)
            data = []


def sseclient_py():
    for event in sseclient.SSEClient(requests.get(url, stream=True)).events():
        yield event.data


def sseclient_alone():
    for event in sseclient.SSEClient(url):
        yield event.data


def httpx_events():
    with httpx.Client(timeout=None) as http:
        with httpx_sse.connect_sse(http, "GET", url) as source:
            for event in source.iter_sse():
                yield event.data


heard = queue.Queue()


def hear(events):
    for event in events:
        heard.put(event)


clients = {
    "iter_lines": lines,
    "sseclient": sseclient_alone,
    "sseclient-py": sseclient_py,
    "httpx-sse": httpx_events,
}
events = clients[client]()
threading.Thread(target=hear, args=(events,), daemon=True).start()
publish = url.replace("/sse/", "/pub/")
recipients = 0
while recipients == 0:
    # The client that does nothing but ask is in no room yet.
    with urllib.request.urlopen(urllib.request.Request(publish, b"ready", method="POST")) as answer:
        recipients = json.loads(answer.read())["recipients"]
assert heard.get(timeout=DEADLINE) == "ready"
for text in EVENTS:
    urllib.request.urlopen(urllib.request.Request(publish, text.encode(), method="POST")).read()
    event = heard.get(timeout=DEADLINE)
    assert event == text, (event, text)
# Heartbeats have come meanwhile.
try:
    event = heard.get(timeout=0.5)
    raise SystemExit(f"an event that no one published: {event!r}")
except queue.Empty:
    print("done")
