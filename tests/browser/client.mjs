// The rules of hublet.js, without a browser: when it reconnects, after how long, when it stays away,
// what it asks for before each try, and when it gives a silent connection up.
import assert from 'node:assert/strict';

let links = [];
let timers = [];
let intervals = [];
let now = 0;
let random = 0;
let page = new EventTarget();

/// A WebSocket or an EventSource that the test moves.
class Link extends EventTarget {
  readyState = 0;
  constructor(url, protocols) {
    super();
    Object.assign(this, { url: String(url), protocols });
    links.push(this);
  }
  says(name, more = {}) {
    this.dispatchEvent(Object.assign(new Event(name), more));
  }
  opens() {
    this.readyState = 1;
    this.says('open');
  }
  close() {
    this.readyState = 3;
    this.closed = true;
  }
}
globalThis.WebSocket = class extends Link {
  sent = [];
  send(data) {
    this.sent.push(data);
  }
};
globalThis.EventSource = class extends Link {};
globalThis.addEventListener = (...listener) => page.addEventListener(...listener);
globalThis.removeEventListener = (...listener) => page.removeEventListener(...listener);
globalThis.setTimeout = (call, wait) => timers.push({ call, wait });
globalThis.clearTimeout = id => id && delete timers[id - 1];
globalThis.setInterval = (call, wait) => intervals.push({ call, wait });
globalThis.clearInterval = id => id && delete intervals[id - 1];
Date.now = () => now;
Math.random = () => random;

const { connect } = await import('../../src/bin/hublet/hublet.min.js');

const EMPTY = new ArrayBuffer(0);
const settled = () => new Promise(setImmediate);
const last = () => links.at(-1);
const hears = data => last().says('message', { data, lastEventId: '' });

/// A connection that has opened, and what it said.
async function connected(url = 'ws/lobby', options = {}) {
  [links, timers, intervals, now, random, page] = [[], [], [], 0, 0, new EventTarget()];
  const states = [];
  const messages = [];
  const hub = connect(url, { message: data => messages.push(data), state: state => states.push(state), ...options });
  await settled();
  last()?.opens();
  return { hub, states, messages };
}

/// Closes the newest link; returns the pause until the next try in seconds, or null for none.
function pauseAfter(code, reason = '') {
  timers = [];
  last().says('close', { code, reason });
  return timers.length ? timers[0].wait / 1000 : null;
}

/// The pause is over.
async function next() {
  timers.at(-1).call();
  await settled();
}

/// So many milliseconds pass for the watch of the connection.
function pass(time) {
  for (let gone = 0; gone < time; gone += intervals[0].wait) intervals[0]?.call();
}

// It says what happens, as data, and hands messages on.
{
  const { hub, states, messages } = await connected();
  assert.equal(last().binaryType, 'arraybuffer');
  hears('hello');
  hears('');
  hears(EMPTY);
  assert.deepEqual(messages, ['hello', '', EMPTY]);
  assert.equal(hub.send('there'), true);
  assert.deepEqual(last().sent, ['there']);
  now = 20_000;
  pauseAfter(1012, 'restarting');
  assert.equal(hub.send('lost'), false);
  assert.deepEqual(states, [
    { state: 'connecting' },
    { state: 'connected' },
    { state: 'waiting', code: 1012, reason: 'restarting', retryIn: 250 },
  ]);
  await next();
  assert.equal(links.length, 2);
  assert.deepEqual(states.at(-1), { state: 'connecting' });
  assert.equal(hub.send('too early'), false);
}

// Both callbacks may be left out.
{
  links = [];
  const hub = connect('ws/lobby');
  assert.equal(hub.send('before there is a link'), false);
  await settled();
  last().opens();
  hears('hello');
  pauseAfter(1006);
  hub.close();
}

// Codes that forbid to come back.
for (const code of [1000, 1008, 4500, 4999]) {
  const { states } = await connected();
  assert.equal(pauseAfter(code, 'go'), null, `${code}`);
  assert.deepEqual(states.at(-1), { state: 'closed', code, reason: 'go' });
  assert.equal(intervals.filter(Boolean).length, 0, 'nothing is watched any more');
  page.dispatchEvent(new Event('online'));
  assert.equal(links.length, 1);
}

// Codes that do not.
for (const code of [1001, 1006, 1009, 1011, 1012, 1013, 4000, 4108, 4499]) {
  await connected();
  assert.notEqual(pauseAfter(code), null, `${code}`);
}

// Pauses double up to 30 s, with jitter.
for (const [chance, share] of [[0, 1 / 2], [1, 1]]) {
  await connected();
  random = chance;
  const pauses = [];
  for (let nth = 0; nth < 8; nth++) {
    pauses.push(pauseAfter(1006));
    await next();
  }
  assert.deepEqual(pauses, [1, 2, 4, 8, 16, 30, 30, 30].map(pause => pause * share));
}

// The pauses begin anew after a connection that lasted 10 s, and grow after a shorter one.
{
  await connected();
  pauseAfter(1006);
  await next();
  pauseAfter(1006);
  await next();
  last().opens();
  now += 9_000;
  assert.equal(pauseAfter(4108), 2);
  await next();
  last().opens();
  now += 11_000;
  assert.equal(pauseAfter(4108), 0.25);
}

// 1012 asks to come back, 1013 to be patient.
{
  await connected();
  for (const [code, pause] of [[1006, 0.5], [1006, 1], [1012, 0.25], [1013, 5], [1013, 10]]) {
    assert.equal(pauseAfter(code), pause);
    await next();
  }
}

// No try follows `close()`: while connected, in a pause, and while the token is on its way.
{
  const { hub, states } = await connected();
  hub.close();
  assert.equal(last().closed, true);
  last().says('close', { code: 1005, reason: '' });
  assert.deepEqual(states.at(-1), { state: 'connected' });
  const second = await connected();
  pauseAfter(1006);
  second.hub.close();
  page.dispatchEvent(new Event('online'));
  await settled();
  assert.equal(timers.filter(Boolean).length, 0, 'the next try is off');
  for (const token of [async () => 't', async () => { throw Error('too late'); }]) {
    links = [];
    const states = [];
    connect('ws/lobby', { token, state: state => states.push(state) }).close();
    await settled();
    assert.equal(links.length, 0);
    assert.deepEqual(states, [{ state: 'connecting' }]);
  }
}

// Where it connects to: beside the module, or to an absolute URL of any of four schemes.
for (const [url, expected] of [
  ['https://hub.example/ws/a%20b', 'wss://hub.example/ws/a%20b?probe=1'],
  ['http://hub.example:8080/ws/lobby?echo=0', 'ws://hub.example:8080/ws/lobby?echo=0&probe=1'],
  ['ws://hub.example/ws', 'ws://hub.example/ws?probe=1'],
  ['wss://hub.example/under/a/prefix/ws/sse', 'wss://hub.example/under/a/prefix/ws/sse?probe=1'],
  ['wss://http.example/ws/http', 'wss://http.example/ws/http?probe=1'],
  ['https://hub.example/sse/lobby', 'https://hub.example/sse/lobby?probe=1'],
  ['wss://hub.example/prefix/sse', 'https://hub.example/prefix/sse?probe=1'],
  ['ws://hub.example/sse/ws', 'http://hub.example/sse/ws?probe=1'],
]) {
  const { hub } = await connected(url);
  assert.equal(last().url, expected);
  assert.equal(last() instanceof EventSource, expected.startsWith('http'), url);
  hub.close();
}
assert.throws(() => connect('https://'), TypeError);

// A token is a subprotocol where it can be, and stands in the URL where it cannot.
for (const [token, url, query, protocols] of [
  ['a.b-c', 'ws://hub/ws', '', ['hublet.token', 'a.b-c']],
  ['two words&more', 'ws://hub/ws', '&token=two%20words%26more', []],
  ['', 'ws://hub/ws', '', []],
  [undefined, 'ws://hub/ws', '', []],
  ['a.b-c', 'http://hub/sse', '&token=a.b-c', undefined],
]) {
  await connected(url, { token });
  assert.equal(last().url, `${url}?probe=1${query}`);
  assert.deepEqual(last().protocols, protocols);
}

// Functions are asked before each try, and an ended token is a reason to ask.
{
  let count = 0;
  const options = { token: async () => `t${++count}`, protocols: () => ['chat'] };
  const { states } = await connected('ws/lobby', options);
  now = 60_000;
  assert.equal(pauseAfter(1008, 'token expired'), 0.25);
  assert.deepEqual(states.at(-1), { state: 'waiting', code: 1008, reason: 'token expired', retryIn: 250 });
  await next();
  assert.deepEqual(links.map(({ protocols }) => protocols), [['chat', 'hublet.token', 't1'], ['chat', 'hublet.token', 't2']]);
  last().opens();
  assert.equal(pauseAfter(1008, 'sending needs a token that allows it'), null);
  for (const fixed of [{ token: 't' }, { protocols: ['hublet.token', 't'] }, {}]) {
    await connected('ws/lobby', fixed);
    assert.equal(pauseAfter(1008, 'token expired'), null, 'it would show the same one');
  }
  await connected('ws/lobby', { protocols: () => ['hublet.token', 't'] });
  assert.notEqual(pauseAfter(1008, 'token expired'), null);
}

// A function that gives the same old token again and again is asked ever more seldom.
{
  await connected('ws/lobby', { token: () => 'stale' });
  now = 60_000;
  const pauses = [pauseAfter(1008, 'token expired')];
  for (let nth = 0; nth < 7; nth++) {
    await next();
    last().opens();
    pauses.push(pauseAfter(1008, 'token expired'));
  }
  assert.deepEqual(pauses, [0.25, 0.5, 1, 2, 4, 8, 15, 15]);
}

// A function that fails is a try that failed; one that never answers is given up.
for (const token of [() => { throw Error('no session'); }, async () => { throw Error('no session'); }]) {
  const { states } = await connected('ws/lobby', { token });
  assert.equal(links.length, 0);
  assert.deepEqual(states.at(-1), { state: 'waiting', code: 1006, reason: 'Error: no session', retryIn: 500 });
}
{
  const { states } = await connected('ws/lobby', { token: () => new Promise(() => {}) });
  pass(40_000);
  assert.deepEqual(states.at(-1), { state: 'waiting', code: 1006, reason: 'no answer', retryIn: 500 });
}

// A silent connection is asked, and given up within 40 s if nothing comes.
{
  const { states, messages } = await connected();
  pass(10_000);
  assert.equal(last().sent.length, 0);
  pass(10_000);
  assert.deepEqual(last().sent, [new Uint8Array()]);
  hears(EMPTY);
  assert.deepEqual(messages, [], 'the answer is no message');
  pass(20_000);
  assert.equal(last().sent.length, 2, 'it is asked again after the next silence');
  hears('anything');
  hears(EMPTY);
  hears(EMPTY);
  assert.deepEqual(messages, ['anything', EMPTY], 'one of both is the answer');
  pass(30_000);
  assert.equal(states.length, 2);
  pass(10_000);
  assert.deepEqual(states.at(-1), { state: 'waiting', code: 1006, reason: 'no answer', retryIn: 500 });
  assert.equal(last().closed, true);
  last().says('close', { code: 1006, reason: '' });
  assert.equal(states.length, 3, 'the end is told once');
  pass(60_000);
  assert.equal(states.length, 3, 'a pause is no silence');
}

// So is a try that comes to nothing.
{
  const { states } = await connected();
  pauseAfter(1006);
  await next();
  pass(40_000);
  assert.deepEqual(states.at(-1).reason, 'no answer');
  assert.equal(last().sent.length, 0);
}

// A page that is looked at again or has a network again asks at once, and once.
for (const name of ['online', 'visibilitychange']) {
  const { states } = await connected();
  page.dispatchEvent(new Event(name));
  page.dispatchEvent(new Event(name));
  assert.equal(last().sent.length, 1, name);
  pass(20_000);
  assert.equal(states.at(-1).reason, 'no answer', name);
  assert.equal(last().sent.length, 1, name);
  page.dispatchEvent(new Event(name));
  await settled();
  assert.equal(links.length, name == 'online' ? 2 : 1, 'only a network ends a pause');
  assert.equal(timers.filter(Boolean).length, name == 'online' ? 0 : 1);
}

// Server-sent events have the same messages, states and pauses.
{
  const { hub, states, messages } = await connected('http://hub/sse/lobby');
  hears('hello');
  last().says('binary', { data: 'AP8=' });
  assert.deepEqual(messages, ['hello', new Uint8Array([0, 255]).buffer]);
  assert.equal(hub.send('no'), false);
  now = 20_000;
  last().says('close', { data: '{"code":1012,"reason":"restarting"}' });
  assert.equal(last().closed, true, 'or it would come back by itself');
  last().says('error');
  assert.deepEqual(states.slice(1), [{ state: 'connected' }, { state: 'waiting', code: 1012, reason: 'restarting', retryIn: 250 }]);
  await next();
  last().says('error');
  assert.deepEqual(states.at(-1), { state: 'waiting', code: 1006, reason: '', retryIn: 500 });
  await next();
  assert.equal(links.length, 3);
}

// The hub tells a stream of events how often a ping comes.
{
  const { states } = await connected('http://hub/sse/lobby');
  page.dispatchEvent(new Event('online'));
  for (let nth = 0; nth < 5; nth++) {
    last().says('ping', { data: '25' });
    pass(30_000);
  }
  assert.equal(states.length, 2);
  pass(20_000);
  assert.equal(states.at(-1).reason, 'no answer');
  await next();
  last().opens();
  last().says('ping', { data: '60' });
  pass(70_000);
  assert.deepEqual(states.at(-1), { state: 'connected' });
  pass(20_000);
  assert.equal(states.at(-1).reason, 'no answer');
  await next();
  pass(40_000);
  assert.deepEqual(states.map(({ state }) => state).slice(-3), ['waiting', 'connecting', 'waiting'], 'a try has less time');
}

// With `since` it resumes by itself, and says when messages are lost for good.
{
  const heard = [];
  let gaps = 0;
  const options = { since: 'now', message: (data, position) => heard.push([data, position]), missed: () => gaps++ };
  const { hub } = await connected('ws://hub/ws/news', options);
  assert.equal(last().url, 'ws://hub/ws/news?probe=1&since=now');
  hears('41');
  hears('hello');
  hears(EMPTY);
  pass(20_000);
  hears(EMPTY);
  hears('there');
  assert.deepEqual(heard, [['hello', 42], [EMPTY, 43], ['there', 44]], 'the answer to a question has no position');
  pauseAfter(1012);
  await next();
  assert.equal(last().url, 'ws://hub/ws/news?probe=1&since=44');
  last().opens();
  hears('44');
  hears('45th');
  assert.deepEqual([gaps, heard.at(-1)], [0, ['45th', 45]]);
  pauseAfter(1006);
  await next();
  last().opens();
  hears('50');
  assert.equal(gaps, 1, 'five are lost');
  hears('51st');
  assert.deepEqual(heard.at(-1), ['51st', 51]);
  pauseAfter(4108);
  await next();
  assert.equal(last().url, 'ws://hub/ws/news?probe=1&since=51');
  last().opens();
  hears('7');
  assert.equal(gaps, 2, 'another life of the room');
  hub.close();
}
for (const [since, first, gaps] of [[0, '9', 0], [-3, '9', 0], ['9', '9', 0], [8, '9', 1]]) {
  let missed = 0;
  await connected('ws://hub/ws/news', { since, missed: () => missed++ });
  assert.equal(last().url, `ws://hub/ws/news?probe=1&since=${since}`);
  hears(first);
  assert.equal(missed, gaps, `${since}`);
}

// Events say their position themselves.
{
  const heard = [];
  let gaps = 0;
  await connected('http://hub/sse/news', { since: 'now', message: (data, position) => heard.push([data, position]), missed: () => gaps++ });
  assert.equal(last().url, 'http://hub/sse/news?probe=1&since=now');
  last().says('ping', { data: '25', lastEventId: '41' });
  last().says('error');
  await next();
  assert.equal(last().url, 'http://hub/sse/news?probe=1&since=41');
  last().opens();
  last().says('message', { data: 'hello', lastEventId: '42' });
  last().says('binary', { data: 'AP8=', lastEventId: '43' });
  assert.deepEqual(heard, [['hello', '42'], [new Uint8Array([0, 255]).buffer, '43']]);
  last().says('gap', { data: '3', lastEventId: '46' });
  last().says('close', { data: '{"code":1012,"reason":"restarting"}', lastEventId: '46' });
  await next();
  assert.deepEqual([gaps, last().url], [1, 'http://hub/sse/news?probe=1&since=46']);
}

// Without it nothing is resumed.
for (const url of ['ws://hub/ws/news', 'http://hub/sse/news']) {
  const { messages } = await connected(url);
  last().says('message', { data: '41', lastEventId: '41' });
  assert.deepEqual(messages, ['41']);
  last().says(url.startsWith('ws') ? 'close' : 'error', { code: 1006 });
  await next();
  assert.equal(links.length, 2);
  assert.equal(last().url, `${url}?probe=1`);
}

console.log('done');
