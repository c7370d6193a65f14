// What every client does, by the WebSocket of browsers. It stands alone, since Chromium is handed
// its source text.
export async function exchange(WebSocket, url) {
  const LONGEST = 65536;
  const check = (fact, what) => {
    if (!fact) throw new Error(what);
  };

  // A connection, what it has received, and how it ended.
  async function join() {
    const socket = new WebSocket(url, ['interop.v1', 'interop.v2']);
    socket.binaryType = 'arraybuffer';
    const received = [];
    const waiting = [];
    const closed = new Promise((resolve) => socket.addEventListener('close', resolve));
    socket.addEventListener('message', ({ data }) => {
      const next = waiting.shift();
      next ? next(data) : received.push(data);
    });
    await new Promise((resolve, reject) => {
      socket.addEventListener('open', resolve);
      socket.addEventListener('error', () => reject(new Error('no connection')));
    });
    const receive = () =>
      received.length > 0
        ? Promise.resolve(received.shift())
        : new Promise((resolve) => waiting.push(resolve));
    return { socket, closed, receive };
  }

  function same(sent, got) {
    if (typeof sent === 'string') return sent === got;
    if (!(got instanceof ArrayBuffer) || got.byteLength !== sent.length) return false;
    const bytes = new Uint8Array(got);
    return sent.every((byte, index) => byte === bytes[index]);
  }

  const ada = await join();
  const bob = await join();
  check(ada.socket.protocol === 'interop.v2', `subprotocol ${ada.socket.protocol}`);

  const messages = [
    'héllo, wörld ✓ 🦀',
    Uint8Array.from({ length: 256 }, (_, index) => index),
    '',
    new Uint8Array(0),
    'é'.repeat(LONGEST / 2),
    new Uint8Array(LONGEST).fill(0xa5),
  ];
  for (const [index, message] of messages.entries()) {
    ada.socket.send(message);
    for (const client of [ada, bob]) {
      check(same(message, await client.receive()), `message ${index} came back changed`);
    }
  }

  // The hub closes: the client is told why.
  bob.socket.send('close me');
  const bye = await bob.closed;
  check(bye.code === 4000 && bye.reason === 'as you asked', `${bye.code} ${bye.reason}`);

  // The client breaks a limit.
  const eve = await join();
  eve.socket.send(new Uint8Array(LONGEST + 1));
  const { code } = await eve.closed;
  check(code === 1009, `${code} for a message that is too long`);

  // The client closes: its code comes back.
  check((await ada.receive()) === 'close me', 'what bob said was not heard');
  ada.socket.close(4321, 'goodbye');
  const echo = await ada.closed;
  check(echo.wasClean && echo.code === 4321, `${echo.code} instead of the echo of 4321`);
  return 'done';
}
