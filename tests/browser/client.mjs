// The rules of hublet.js: when it comes back, after how long, and when it stays away.
import assert from 'node:assert/strict';

let sockets = [];
let timers = [];
let now = 0;
let random = 0;

globalThis.WebSocket = class {
  readyState = 0;
  sent = [];
  constructor(url, protocols) {
    Object.assign(this, { url: String(url), protocols });
    sockets.push(this);
  }
  opens() {
    this.readyState = 1;
    this.onopen();
  }
  send(data) {
    this.sent.push(data);
  }
  close() {
    this.readyState = 2;
    this.onclose?.({ code: 1005, reason: '' });
  }
};
globalThis.setTimeout = (call, wait) => timers.push({ call, wait });
globalThis.clearTimeout = id => id && delete timers[id - 1];
Date.now = () => now;
Math.random = () => random;

const { connect } = await import('../../src/bin/hublet/hublet.js');

/// A connection, the socket it has now, and what it said.
function connected() {
  [sockets, timers, now, random] = [[], [], 0, 0];
  const states = [];
  const messages = [];
  const hub = connect('ws/lobby', {
    message: data => messages.push(data),
    state: words => states.push(words),
  });
  sockets[0].opens();
  return { hub, states, messages };
}

/// Closes the newest socket; returns the pause until the next try in seconds, or null for none.
function pauseAfter(code, reason = '') {
  timers = [];
  sockets.at(-1).onclose({ code, reason });
  return timers.length ? timers[0].wait / 1000 : null;
}

// It says what happens, and hands messages on.
{
  const { hub, states, messages } = connected();
  assert.equal(sockets[0].binaryType, 'arraybuffer');
  sockets[0].onmessage({ data: 'hello' });
  assert.deepEqual(messages, ['hello']);
  assert.equal(hub.send('there'), true);
  assert.deepEqual(sockets[0].sent, ['there']);
  now = 20_000;
  pauseAfter(1012, 'restarting');
  sockets[0].readyState = 3;
  assert.equal(hub.send('lost'), false);
  assert.deepEqual(states, ['connecting', 'connected', 'restarting (1012), next try in 0.3 s']);
  timers[0].call();
  assert.equal(sockets.length, 2);
  assert.equal(states.at(-1), 'connecting');
}

// Codes that forbid to come back.
for (const code of [1000, 1008, 4500, 4999]) {
  const { states } = connected();
  assert.equal(pauseAfter(code, 'go'), null, `${code}`);
  assert.equal(states.at(-1), `go (${code})`);
}

// Codes that do not.
for (const code of [1001, 1006, 1009, 1011, 1012, 1013, 4000, 4108, 4499]) {
  connected();
  assert.notEqual(pauseAfter(code), null, `${code}`);
}

// Pauses double up to 30 s, and no two clients have the same.
for (const [chance, share] of [[0, 1 / 2], [1, 1]]) {
  connected();
  random = chance;
  const pauses = [];
  for (let nth = 0; nth < 8; nth++) {
    pauses.push(pauseAfter(1006));
    timers[0].call();
  }
  assert.deepEqual(pauses, [1, 2, 4, 8, 16, 30, 30, 30].map(pause => pause * share));
}

// A connection that lasted is forgiven what came before; one that was thrown out at once is not.
{
  connected();
  pauseAfter(1006);
  pauseAfter(1006);
  timers[0].call();
  sockets.at(-1).opens();
  now += 9_000;
  assert.equal(pauseAfter(4108), 2);
  timers[0].call();
  sockets.at(-1).opens();
  now += 11_000;
  assert.equal(pauseAfter(4108), 0.25);
}

// 1012 asks to come back, 1013 to be patient.
{
  connected();
  pauseAfter(1006);
  pauseAfter(1006);
  assert.equal(pauseAfter(1012), 0.25);
  assert.equal(pauseAfter(1013), 5);
  assert.equal(pauseAfter(1013), 10);
}

// After close() it does not reconnect, also during a pause.
{
  const { hub, states } = connected();
  hub.close();
  assert.equal(sockets[0].readyState, 2);
  assert.equal(states.at(-1), 'connected');
  const second = connected();
  pauseAfter(1006);
  second.hub.close();
  assert.equal(timers.filter(Boolean).length, 0, 'the next try is off');
}

console.log('done');
