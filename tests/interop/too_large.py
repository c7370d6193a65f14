"""Posts a body that is too large with each client for Python, and reads why it was refused."""

import sys
import urllib.error
import urllib.request

import httpx
import requests

url = sys.argv[1]
# More than any buffer between a client and the hub takes.
BODY = bytes(16 << 20)


def parts():
    """The body as a generator has it: its length is not known."""
    for at in range(0, len(BODY), 1 << 16):
        yield BODY[at : at + (1 << 16)]


def check(status, text):
    assert status == 413 and " the limit of 65536" in text, (status, text)


for body in (BODY, parts()):
    try:
        urllib.request.urlopen(urllib.request.Request(url, body, method="POST"))
        raise SystemExit("urllib was not refused")
    except urllib.error.HTTPError as error:
        check(error.code, error.read().decode())
for post, name in ((requests.post, "data"), (httpx.post, "content")):
    for body in (BODY, parts()):
        answer = post(url, **{name: body})
        check(answer.status_code, answer.text)
print("done")
