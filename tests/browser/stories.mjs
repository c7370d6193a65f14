// What people do with the page, by name: node stories.mjs two_tabs_chat
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer, request } from 'node:http';
import { connect as dial, createServer as listen } from 'node:net';

import { launch } from '../tools/chromium.mjs';
import { curl, start } from './hub.mjs';

/** A story is over by then, or fails. */
const DEADLINE = 120_000;

/** How many clients took a message, by the answer to its POST. */
const recipients = answer => JSON.parse(answer).recipients;

/** What a foreign page asks of a hub at `url`; answers what came of each. */
async function askEverything(url) {
  const answers = {};
  const ends = (name, target, good, bad) =>
    new Promise(resolve => {
      target[`on${good}`] = () => resolve((answers[name] = good));
      target[`on${bad}`] = () => resolve((answers[name] = bad));
    });
  const ask = async (name, path, init) => {
    answers[name] = await fetch(url + path, init).then(response => response.type, () => 'error');
  };
  await ends('websocket', new WebSocket(url.replace('http', 'ws') + 'ws/lobby'), 'open', 'error');
  await ends('events', new EventSource(url + 'sse/lobby'), 'open', 'error');
  await ask('publish', 'pub/lobby', { method: 'POST', body: 'forged' });
  await ask('publish blindly', 'pub/lobby', { method: 'POST', body: 'forged', mode: 'no-cors' });
  await ask('to a user', 'user/ada', { method: 'POST', body: 'forged', mode: 'no-cors' });
  for (const path of ['pub/lobby', 'rooms', 'rooms/lobby', 'metrics']) {
    await ask(path, path, {});
    await ask(`${path} blindly`, path, { mode: 'no-cors' });
  }
  const image = new Image();
  const loaded = ends('image', image, 'load', 'error');
  image.src = url + 'sse/lobby';
  await loaded;
  const form = document.body.appendChild(document.createElement('form'));
  Object.assign(form, { action: url + 'pub/lobby', method: 'post', enctype: 'text/plain', target: 'frame' });
  const frame = document.createElement('iframe');
  frame.name = 'frame';
  document.body.appendChild(frame);
  form.appendChild(document.createElement('input')).name = 'forged';
  const posted = ends('form', frame, 'load', 'error');
  form.submit();
  await posted;
  return answers;
}

/** Serves a page of another origin, empty unless told; a hub, if given, answers for all other paths,
 *  and while it does not, `lost` ends their responses. */
async function foreign(body = '', hub = undefined, lost = response => response.destroy()) {
  const server = createServer((asked, response) => {
    if (asked.url == '/' || !hub) {
      response.setHeader('Content-Type', 'text/html').end(`<!doctype html><link rel=icon href=data:,><title>foreign</title>${body}`);
      return;
    }
    const { url: path, method, headers } = asked;
    const passed = request({ host: '127.0.0.1', port: hub.port, path, method, headers }, answer => {
      answer.pipe(response.writeHead(answer.statusCode, answer.headers));
    });
    asked.pipe(passed.on('error', () => lost(response)));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  server.unref();
  return `http://127.0.0.1:${server.address().port}/`;
}

/** A way to a hub that can become silent: it carries on nothing then, in either direction, and closes nothing. */
async function wire(hub) {
  const sockets = [];
  let silent = false;
  const server = listen(near => {
    const far = dial(hub.port, '127.0.0.1');
    for (const [from, to] of [[near, far], [far, near]]) {
      from.on('data', bytes => silent || to.write(bytes)).on('error', () => {}).on('close', () => to.destroy());
    }
    sockets.push(near, far);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  server.unref();
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    /** From now on, until it is mended, for the connections of now. */
    silence: () => (silent = true),
    mend() {
      silent = false;
      for (const socket of sockets.splice(0)) socket.destroy();
    },
  };
}

const SECRET = 'a key of thirty-two bytes or more';

/** A JSON Web Token that ends after `seconds`; the hub accepts it for 5 s more. */
function token(seconds) {
  const part = value => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ alg: 'HS256' })}.${part({ sub: 'ada', publish: 'lobby', exp: Math.floor(Date.now() / 1000) + seconds })}`;
  return `${signed}.${createHmac('sha256', SECRET).update(signed).digest('base64url')}`;
}

/** Has a page connect with the module at `from`; it keeps what it heard and what became of the connection. */
async function connects(page, from, path, name = 'hub') {
  await page.evaluate(async ([from, path, name]) => {
    const { connect } = await import(from);
    const kept = (window[name] = { heard: [], states: [] });
    const decoded = data => (typeof data == 'string' ? data : [...new Uint8Array(data)]);
    kept.hub = connect(path, {
      message: data => kept.heard.push(decoded(data)),
      state: state => kept.states.push(state),
      token: window.token,
    });
  }, [from, path, name]);
  return {
    heard: () => page.evaluate(name => window[name].heard, name),
    states: () => page.evaluate(name => window[name].states, name),
    /** Waits until the last state is this one, for the `nth` time. */
    is: (state, nth = 1) => page.waitForFunction(([name, state, nth]) => {
      const { states } = window[name];
      return states.at(-1)?.state == state && states.filter(now => now.state == state).length >= nth;
    }, [name, state, nth]),
    hears: data => page.waitForFunction(([name, data]) => window[name].heard.some(heard => String(heard) == data), [name, String(data)]),
  };
}

/** The blocks of a document that are marked as `kind`. */
function blocks(document, kind) {
  const text = readFileSync(new URL(`../../${document}`, import.meta.url), 'utf8');
  return [...text.matchAll(/^```(\w+)\n([^]*?)^```$/gm)].filter(([, marked]) => marked == kind).map(([, , lines]) => lines);
}

/** The one block of a document that is marked as `kind` and begins with `first`. */
function block(document, kind, first = '') {
  const found = blocks(document, kind).filter(lines => lines.startsWith(first));
  assert.equal(found.length, 1, `blocks of ${kind} that begin with "${first}" in ${document}`);
  return found[0];
}

/** A browser and what went wrong in any of its pages. */
class Browser {
  faults = [];

  static async open(...args) {
    const browser = new Browser();
    browser.chromium = await launch(...args);
    return browser;
  }

  async tab(url, options = {}) {
    const context = await this.chromium.newContext(options);
    const page = await context.newPage();
    page.setDefaultTimeout(40_000);
    page.on('console', message => {
      // A page asks for a hub that a story stops: it refuses while it drains, is gone as the request comes,
      // and is not there until it is back.
      const isOfStoppedHub = /ERR_CONNECTION_(REFUSED|RESET)|status of 503/.test(message.text());
      if (['error', 'warning'].includes(message.type()) && !isOfStoppedHub) this.faults.push(`${message.text()} (${message.location().url})`);
    });
    page.on('pageerror', error => this.faults.push(error.message));
    await page.goto(url);
    return page;
  }

  /** A tab with a page of the hub's origin that does nothing. */
  async blank(url) {
    const page = await this.tab('about:blank');
    await page.route('**/favicon.ico', route => route.fulfill({ status: 204 }));
    await page.goto(`${url}health`);
    return page;
  }

  /** A tab, what it logs, and a wait for a line of that. */
  async logging(url) {
    const page = await this.tab('about:blank');
    const logged = [];
    page.on('console', message => logged.push(message.text()));
    await page.goto(url);
    const logs = async words => {
      while (!logged.some(line => line.match(words))) await page.waitForEvent('console');
    };
    return { page, logged, logs };
  }

  /** A tab that has joined a room. */
  async room(hub, room, options) {
    const page = await this.tab(`${hub.url}#${encodeURIComponent(room)}`, options);
    await joined(page, room);
    return page;
  }
}

const joined = (page, room) => page.locator('#state', { hasText: `Connected to ${room}` }).waitFor();
const line = (page, text) => page.locator('#log > div > span').getByText(text, { exact: true });
const texts = page => page.locator('#log > div > span').allTextContents();

async function say(page, text) {
  await page.locator('#text').fill(text);
  await page.locator('#send').click();
}

const stories = {
  async two_tabs_chat(browser) {
    const hub = await start();
    const room = 'café ♥/1';
    const ada = await browser.room(hub, room);
    const bob = await browser.room(hub, room);
    const other = await browser.room(hub, 'other');
    await say(ada, 'hello');
    await line(bob, 'hello').waitFor();
    const code = '<img src=x onerror="alert(1)">';
    await say(bob, code);
    await line(ada, code).waitFor();
    assert.equal(await ada.locator('#log img').count(), 0, 'text is text');
    await line(bob, code).waitFor();
    for (const page of [ada, bob]) assert.deepEqual(await texts(page), ['hello', code]);
    assert.deepEqual(await ada.locator('#log .mine > span').allTextContents(), ['hello']);
    assert.deepEqual(await bob.locator('#log .mine > span').allTextContents(), [code]);
    await ada.locator('#count', { hasText: '2' }).waitFor();
    await ada.locator('#here', { hasText: '2' }).waitFor();
    assert.equal(await ada.locator('#members li').count(), 2);
    assert.match(await ada.locator('#plot').getAttribute('aria-label'), /over the last minute: \d now, at most [12]/);
    assert.deepEqual(await texts(other), []);
    // The hash is the room: a link leads there, and back leads back.
    await other.goto(`${hub.url}#${encodeURIComponent(room)}`);
    await joined(other, room);
    await say(ada, 'welcome');
    await line(other, 'welcome').waitFor();
    await other.goBack();
    await joined(other, 'other');
    assert.deepEqual(await texts(other), []);
  },

  async page_reconnects_after_a_restart(browser) {
    let hub = await start();
    const { port } = hub;
    const page = await browser.room(hub, 'lobby');
    await say(page, 'before');
    await line(page, 'before').waitFor();
    assert.equal(await hub.stop(), 0);
    await page.locator('#state', { hasText: 'next try in' }).waitFor();
    assert.equal(await page.locator('#send').isDisabled(), true);
    await page.locator('#text').fill('meanwhile');
    await page.locator('#text').press('Enter');
    hub = await start([], { port });
    await joined(page, 'lobby');
    await page.locator('#log .note', { hasText: 'a gap' }).waitFor();
    assert.equal(await page.locator('#text').inputValue(), 'meanwhile', 'what could not be sent is kept');
    await page.locator('#send').click();
    await line(page, 'meanwhile').waitFor();
    assert.deepEqual(await texts(page), ['before', 'meanwhile']);
  },

  async page_shows_what_a_room_keeps_and_a_gap(browser) {
    let hub = await start(['--history', '2']);
    const { port, url } = hub;
    for (const text of ['first', 'second', 'third']) await curl('-d', text, `${url}pub/lobby`);
    const page = await browser.room(hub, 'lobby');
    await line(page, 'third').waitFor();
    assert.deepEqual(await texts(page), ['second', 'third'], 'what the room keeps, and no gap before it');
    assert.equal(await page.locator('#log .note').count(), 0);
    assert.equal(await hub.stop(), 0);
    hub = await start(['--history', '2'], { port });
    await curl('-d', 'fourth', `${url}pub/lobby`);
    await line(page, 'fourth').waitFor();
    const lines = await page.locator('#log > div').allTextContents();
    assert.match(lines.join('|'), /second\|.*third\|a gap: messages may be missing here\|.*fourth$/);
  },

  async events_with_positions_run_as_printed(browser) {
    let hub = await start(['--history', '2']);
    const { port, url } = hub;
    const publish = text => curl('-d', text, `${url}pub/news`);
    const { position } = JSON.parse(await publish('old'));
    const lines = block('docs/web.md', 'js', '// replay.js');
    const { logs, logged } = await browser.logging(await foreign(`<script>\n${lines}</script>`, hub));
    await logs(`${position} old`);
    await publish('new');
    await logs(`${position + 1} new`);
    assert.equal(await hub.stop(), 0);
    hub = await start(['--history', '2'], { port });
    const after = JSON.parse(await publish('after'));
    await logs(/^missed unknown$/);
    await logs(`${after.position} after`);
    assert.equal(logged.filter(text => text.startsWith('missed')).length, 1);
    browser.faults = browser.faults.filter(fault => !/ERR_/.test(fault));
  },

  async the_module_resumes_by_itself(browser) {
    const hub = await start(['--history', '9', '--overflow', 'replay', '--allow-origin', '*']);
    const way = await wire(hub);
    for (const path of ['ws/news', 'sse/news']) {
      const page = await browser.blank(hub.url);
      await page.evaluate(async ([from, url]) => {
        const { connect } = await import(from);
        const kept = (window.hub = { heard: [], gaps: 0, states: [] });
        kept.hub = connect(url, {
          since: 'now',
          message: (data, position) => kept.heard.push([data, Number(position)]),
          missed: () => kept.gaps++,
          state: ({ state }) => kept.states.push(state),
        });
      }, [`${hub.url}hublet.js`, way.url + path]);
      const states = count => page.waitForFunction(count => window.hub.states.filter(state => state == 'connected').length >= count, count);
      await states(1);
      const publish = async text => JSON.parse(await curl('-d', text, `${hub.url}pub/news`)).position;
      const first = await publish('one');
      await page.waitForFunction(() => window.hub.heard.length == 1);
      way.mend();
      for (const text of ['two', 'three']) await publish(text);
      await page.waitForFunction(() => window.hub.heard.length == 3);
      for (let nth = 0; nth < 12; nth++) await publish(`four ${nth}`);
      await page.waitForFunction(() => window.hub.heard.length == 15);
      const { heard, gaps } = await page.evaluate(() => ({ heard: window.hub.heard, gaps: window.hub.gaps }));
      assert.deepEqual(heard.map(([, position]) => position), heard.map((_, nth) => first + nth), path);
      assert.deepEqual([heard[0][0], heard[1][0], gaps], ['one', 'two', 0]);
      await page.evaluate(() => window.hub.hub.close());
    }
    browser.faults = browser.faults.filter(fault => !/ERR_|WebSocket connection to/.test(fault));
  },

  async event_source_gets_what_curl_publishes(browser) {
    const hub = await start();
    const page = await browser.tab(hub.url);
    await page.evaluate(() => {
      window.heard = [];
      const events = new EventSource('/sse/lobby');
      events.onmessage = event => window.heard.push(event.data);
      events.addEventListener('binary', event => window.heard.push(['binary', event.data]));
      return new Promise(resolve => (events.onopen = resolve));
    });
    assert.equal(recipients(await curl('-d', 'two\nlines', `${hub.url}pub/lobby`)), 1);
    await curl('-H', 'Content-Type: application/octet-stream', '-d', 'bytes', `${hub.url}pub/lobby`);
    await page.waitForFunction(() => window.heard.length == 2);
    assert.deepEqual(await page.evaluate(() => window.heard), ['two\nlines', ['binary', 'Ynl0ZXM=']]);
    // The page shows both kinds as well.
    const room = await browser.room(hub, 'lobby');
    await curl('-d', 'for the page', `${hub.url}pub/lobby`);
    await line(room, 'for the page').waitFor();
    await curl('-H', 'Content-Type: application/octet-stream', '-d', 'bytes', `${hub.url}pub/lobby`);
    await line(room, '5 bytes: 62 79 74 65 73').waitFor();
  },

  async tour_of_the_readme_runs_as_printed(browser) {
    const text = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');
    const tour = text.slice(text.indexOf("## A minute's tour"), text.indexOf('## How it works'));
    const [command, publish, listen] = [...tour.matchAll(/^```sh\n(.*)\n```$/gm)].map(([, line]) => line);
    const hub = await start(command.split(' ').slice(1));
    const here = line => line.replaceAll('http://127.0.0.1:8080/', hub.url);
    const [, address] = tour.match(/Open `([^`]*)` in two tabs/);
    const tabs = [await browser.tab(here(address)), await browser.tab(here(address))];
    for (const tab of tabs) await joined(tab, 'news');
    const words = here(publish).replaceAll("'", '').split(' ');
    assert.equal(words.shift(), 'curl');
    const [, answer] = tour.match(/clients that it goes to, .* here `(.*)`/);
    assert.equal(recipients(await curl(...words)), recipients(answer));
    for (const tab of tabs) await line(tab, 'hello').waitFor();
    // The third client, as long as it takes to hear what a tab says.
    assert.match(listen, /^curl -N http/);
    const heard = curl('-N', '--max-time', '10', here(listen.split(' ').at(-1)));
    await tabs[0].locator('#here', { hasText: '3' }).waitFor();
    await say(tabs[0], 'hello');
    const [, prints] = tour.match(/the shell prints an event with the line `(.*)`/);
    await line(tabs[1], 'hello').nth(1).waitFor();
    await hub.stop();
    assert.ok((await heard).split('\n').includes(prints), await heard);
  },

  async the_events_of_the_documents_run_as_printed(browser) {
    const hub = await start();
    const lines = block('docs/web.md', 'js', '// events.js');
    const { logs } = await browser.logging(await foreign(`<script>\n${lines}</script>`, hub));
    // Its own message may be published before it listens; then no client hears it.
    await logs(/^{recipients: [01](, position: \d+)?}$/);
    await logs(/^fetch the current state here$/);
    const publish = (...args) => curl(...args, `${hub.url}pub/news`);
    while (recipients(await publish('-d', 'two words')) != 1);
    await logs(/^two words$/);
    await publish('-H', 'Content-Type: application/octet-stream', '-d', 'bytes');
    await logs(/^bytes$/);
    assert.equal(await hub.stop(), 0);
    await logs(/^restarting$/);
    // It tries to come back, as event sources do.
    browser.faults = browser.faults.filter(fault => !/ERR_EMPTY_RESPONSE/.test(fault));
  },

  async event_source_closed_by_a_status_is_reopened_as_printed(browser) {
    let hub = await start();
    const { port, url } = hub;
    const lines = block('docs/web.md', 'js', '// reopen.js');
    // As a proxy does while the hub is away.
    const away = response => response.writeHead(502).end();
    const { page, logs } = await browser.logging(await foreign(`<script>\n${lines}</script>`, hub, away));
    const closed = await page.evaluateHandle(() => {
      // One beside it, which nothing opens anew.
      const events = new EventSource('/sse/news');
      return new Promise(resolve => (events.onopen = () => resolve(events)));
    });
    const publish = text => curl('-d', text, `${url}pub/news`);
    while (recipients(await publish('before')) != 2);
    await logs(/^before$/);
    assert.equal(await hub.stop(), 0);
    await page.waitForFunction(events => events.readyState == EventSource.CLOSED, closed);
    hub = await start([], { port });
    while (recipients(await publish('after')) != 1) await new Promise(resolve => setTimeout(resolve, 50));
    await logs(/^after$/);
    browser.faults = browser.faults.filter(fault => !/502|ERR_EMPTY_RESPONSE|ERR_INCOMPLETE_CHUNKED/.test(fault));
  },

  async the_module_of_the_readme_runs_as_printed(browser) {
    const hub = await start(['--allow-origin', '*']);
    const lines = block('README.md', 'html');
    assert.ok(lines.includes("'http://127.0.0.1:8080/hublet.js'"), 'the address of the README');
    const { page, logged, logs } = await browser.logging(await foreign(lines.replace('http://127.0.0.1:8080/', hub.url)));
    await logs(/^fetch the current state here$/);
    const witness = await browser.room(hub, 'news');
    await page.mouse.click(10, 10);
    await logs(/^hello$/);
    await line(witness, 'hello').waitFor();
    assert.deepEqual(logged, ['{"state":"connecting"}', '{"state":"connected"}', 'fetch the current state here', 'hello']);
    assert.equal(await hub.stop(), 0);
    await logs(/^{"state":"waiting","code":1012,"reason":"restarting","retryIn":\d+}$/);
  },

  async a_foreign_page_is_refused_on_every_route(browser) {
    const hub = await start();
    const witness = await browser.room(hub, 'lobby');
    const page = await browser.tab(await foreign());
    const statuses = [];
    page.on('response', response => {
      if (response.url().startsWith(hub.url)) statuses.push([response.request().method(), new URL(response.url()).pathname, response.status()]);
    });
    const answers = await page.evaluate(askEverything, hub.url);
    // What a page asks for blindly it cannot read; that nothing came of it its status says.
    for (const [name, answer] of Object.entries(answers)) {
      const expected = name.includes('blindly') || name == 'to a user' ? 'opaque' : name == 'form' ? 'load' : 'error';
      assert.equal(answer, expected, name);
    }
    const seen = new Set(statuses.map(([method, path]) => `${method} ${path}`));
    const expected = ['POST /pub/lobby', 'POST /user/ada', 'GET /sse/lobby', 'GET /pub/lobby', 'GET /rooms', 'GET /rooms/lobby', 'GET /metrics'];
    assert.deepEqual([...seen].sort(), expected.sort());
    for (const [method, path, status] of statuses) assert.equal(status, 403, `${method} ${path}`);
    await say(witness, 'only this');
    await line(witness, 'only this').waitFor();
    assert.deepEqual(await texts(witness), ['only this']);
    // The refusals are what the browser complains of, and all that it does.
    browser.faults = browser.faults.filter(fault => !/403|CORS|ERR_FAILED|WebSocket connection to/.test(fault));
  },

  async dns_rebinding_is_refused() {
    // As if its owner had made the name lead to this machine after the page was loaded.
    const browser = await Browser.open({ args: ['--host-resolver-rules=MAP rebound.example 127.0.0.1'] });
    const hub = await start();
    const url = `http://rebound.example:${hub.port}/`;
    const page = await browser.tab(`${url}hublet.js`);
    const answers = await page.evaluate(async url => {
      const socket = new WebSocket(url.replace('http', 'ws') + 'ws/lobby');
      const upgraded = await new Promise(resolve => {
        socket.onopen = () => resolve(true);
        socket.onerror = () => resolve(false);
      });
      const statuses = [];
      for (const path of ['pub/lobby', 'user/ada']) statuses.push((await fetch(url + path, { method: 'POST', body: 'x' })).status);
      for (const path of ['sse/lobby', 'pub/lobby', 'rooms', 'rooms/lobby', 'metrics']) statuses.push((await fetch(url + path)).status);
      return { upgraded, statuses };
    }, url);
    assert.deepEqual(answers, { upgraded: false, statuses: Array(7).fill(421) });
    await browser.chromium.close();
  },

  async a_page_of_a_listed_origin_uses_the_client_module(browser) {
    const origin = await foreign();
    const hub = await start(['--allow-origin', origin.slice(0, -1)]);
    const witness = await browser.room(hub, 'lobby');
    const page = await browser.tab(origin);
    const lobby = await connects(page, `${hub.url}hublet.js`, 'ws/lobby');
    await page.waitForFunction(() => window.hub.hub.send('from elsewhere'));
    await line(witness, 'from elsewhere').waitFor();
    await say(witness, 'hello there');
    await lobby.hears('hello there');
    assert.deepEqual(await lobby.heard(), ['from elsewhere', 'hello there']);
    assert.deepEqual(await lobby.states(), [{ state: 'connecting' }, { state: 'connected' }]);
    const status = await page.evaluate(url => fetch(`${url}pub/lobby`, { method: 'POST', body: 'posted' }).then(response => response.json()), hub.url);
    assert.equal(status.recipients, 2);
  },

  async a_copy_of_the_module_connects_to_an_absolute_url(browser) {
    const module = readFileSync(new URL('../../src/bin/hublet/hublet.min.js', import.meta.url));
    const server = createServer((asked, response) => {
      const isModule = asked.url == '/copy.js';
      response.setHeader('Content-Type', isModule ? 'text/javascript' : 'text/html');
      response.end(isModule ? module : '<!doctype html><link rel=icon href=data:,>');
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const hub = await start(['--allow-origin', '*']);
    const page = await browser.tab(`http://127.0.0.1:${server.address().port}/`);
    for (const [nth, url] of [`${hub.url}ws/lobby`, `${hub.url.replace('http', 'ws')}ws/lobby`, `${hub.url}sse/lobby`].entries()) {
      const lobby = await connects(page, './copy.js', url, `hub${nth}`);
      await lobby.is('connected');
      assert.equal(recipients(await curl('-d', url, `${hub.url}pub/lobby`)), nth + 1);
      await lobby.hears(url);
    }
    server.close();
  },

  async a_token_that_ends_is_renewed(browser) {
    const hub = await start(['--jwt-secret', SECRET]);
    const page = await browser.blank(hub.url);
    const shown = [];
    // The page's backend; it has only an old token for a while.
    const next = [token(-3), token(-60), token(-60), token(600)];
    await page.exposeFunction('token', () => {
      shown.push(next.length);
      return next.length > 1 ? next.shift() : next[0];
    });
    for (const kind of ['ws', 'sse']) {
      next.unshift(...[token(-3), token(-60), token(-60)].slice(0, 4 - next.length));
      shown.length = 0;
      const lobby = await connects(page, `${hub.url}hublet.js`, `${kind}/lobby`, kind);
      await lobby.is('connected', 2);
      assert.deepEqual(shown, [4, 3, 2, 1], 'it was asked before each try');
      const states = await lobby.states();
      const ended = { state: 'waiting', code: 1008, reason: 'token expired' };
      const refused = { state: 'waiting', code: 1006, reason: '' };
      const tries = [{ state: 'connecting' }, { state: 'connected' }, ended, { state: 'connecting' }, refused, { state: 'connecting' }, refused, { state: 'connecting' }, { state: 'connected' }];
      assert.deepEqual(states.map(({ retryIn, ...state }) => state), tries);
      const pauses = states.flatMap(({ retryIn }) => retryIn ?? []);
      // The first token was good for less than ten seconds, so that the pauses grow.
      for (const [nth, pause] of pauses.entries()) assert.ok(pause >= 500 * 2 ** nth && pause <= 1000 * 2 ** nth, `${pauses}`);
      assert.equal(recipients(await curl('-d', kind, '-H', `Authorization: Bearer ${token(60)}`, `${hub.url}pub/lobby`)), kind == 'ws' ? 1 : 2);
      await lobby.hears(kind);
    }
    browser.faults = browser.faults.filter(fault => !/401|WebSocket connection to/.test(fault));
  },

  async a_silent_connection_is_noticed(browser) {
    const hub = await start(['--ping-interval', '1s']);
    const { url, silence, mend } = await wire(hub);
    const page = await browser.blank(url);
    // The page's clock goes on only when it is told to.
    await page.clock.install();
    await page.clock.pauseAt(Date.now() + 60_000);
    const witness = await browser.blank(hub.url);
    await witness.evaluate(async url => {
      window.heard = [];
      const socket = new WebSocket(`${url.replace('http', 'ws')}ws/lobby`);
      socket.onmessage = event => window.heard.push(event.data);
      await new Promise(resolve => (socket.onopen = resolve));
    }, hub.url);
    const lobby = await connects(page, `${url}hublet.js`, 'ws/lobby');
    await lobby.is('connected');
    const counted = async name => Number((await curl(`${hub.url}metrics`)).match(new RegExp(`^hublet_${name}_total (\\d+)$`, 'm'))[1]);
    // The hub answers each question, so that two minutes without a message are no silence.
    const before = await counted('messages_received');
    for (let nth = 1; nth <= 6; nth++) {
      await page.clock.runFor(20_000);
      while ((await counted('messages_delivered')) < nth);
      // The answer is here before the clock goes on: what follows it in the stream is.
      await curl('-d', `after ${nth}`, `${hub.url}pub/lobby`);
      await lobby.hears(`after ${nth}`);
    }
    assert.equal(await counted('messages_received') - before, 12, 'a question and a message a round');
    const said = [1, 2, 3, 4, 5, 6].map(nth => `after ${nth}`);
    assert.deepEqual(await lobby.heard(), said, 'no answer is heard');
    assert.deepEqual(await witness.evaluate(() => window.heard), said, 'no question is published');
    assert.equal((await lobby.states()).length, 2);
    /** The first state behind `count` others. */
    const state = async ({ states }, count) => {
      const { retryIn, ...state } = (await states())[count];
      return state;
    };
    const given = { state: 'waiting', code: 1006, reason: 'no answer' };
    silence();
    await page.clock.runFor(30_000);
    assert.equal((await lobby.states()).length, 2, 'it may answer still');
    await page.clock.runFor(10_000);
    assert.deepEqual(await state(lobby, 2), given);
    // A network that is back ends the pause.
    mend();
    await lobby.is('waiting');
    await page.evaluate(() => dispatchEvent(new Event('online')));
    await lobby.is('connected', 2);
    // A page that is looked at again asks at once.
    const count = (await lobby.states()).length;
    silence();
    await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange', { bubbles: true })));
    await page.clock.runFor(20_000);
    assert.deepEqual(await state(lobby, count), given);
    mend();
    await page.evaluate(() => window.hub.hub.close());
    // Events tell by pings, which the hub sends to a client that asks for them.
    const events = await connects(page, `${url}hublet.js`, 'sse/lobby', 'events');
    await events.is('connected');
    const pings = count => page.evaluate(([url, count]) => new Promise(resolve => {
      const stream = new EventSource(url);
      stream.addEventListener('ping', () => --count || resolve(stream.close()));
    }), [`${url}sse/lobby?probe=1`, count]);
    for (let nth = 0; nth < 3; nth++) {
      await page.clock.runFor(30_000);
      // The first comes at once; behind three more, another stream has had one.
      await pings(4);
    }
    assert.equal((await events.states()).length, 2);
    silence();
    await page.clock.runFor(40_000);
    assert.deepEqual(await state(events, 2), given);
    mend();
    browser.faults = browser.faults.filter(fault => !/WebSocket connection to|ERR_/.test(fault));
  },

  async events_are_opened_anew_after_a_status(browser) {
    const hub = await start(['--max-clients', '1']);
    const first = await browser.blank(hub.url);
    const taken = await connects(first, `${hub.url}hublet.js`, 'ws/lobby');
    await taken.is('connected');
    const page = await browser.blank(hub.url);
    const refused = page.waitForResponse(response => response.status() == 503);
    const lobby = await connects(page, `${hub.url}hublet.js`, 'sse/lobby');
    await refused;
    await lobby.is('waiting');
    const [connecting, { retryIn, ...waiting }] = await lobby.states();
    assert.deepEqual([connecting, waiting], [{ state: 'connecting' }, { state: 'waiting', code: 1006, reason: '' }]);
    assert.ok(retryIn >= 500 && retryIn <= 1000, `${retryIn}`);
    await first.evaluate(() => window.hub.hub.close());
    await lobby.is('connected');
    await curl('-d', 'two\nlines', `${hub.url}pub/lobby`);
    await curl('--data-binary', '\\x00', '-H', 'Content-Type: application/octet-stream', `${hub.url}pub/lobby`);
    await lobby.hears('two\nlines');
    await lobby.hears([...Buffer.from('\\x00')]);
    assert.equal(await page.evaluate(() => window.hub.hub.send('no')), false);
    browser.faults = browser.faults.filter(fault => !/503/.test(fault));
  },

  async page_works_with_the_keyboard(browser) {
    const hub = await start();
    const page = await browser.room(hub, 'main');
    const { keyboard } = page;
    const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.textContent.trim());
    const order = [];
    for (let nth = 0; nth < 8; nth++) {
      await keyboard.press('Tab');
      order.push(await focused());
      const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
      assert.notEqual(outline, 'none', `${order.at(-1)} shows that it has the focus`);
    }
    assert.deepEqual(order, ['room', 'token', 'Join', 'log', 'text', 'send', 'Who is here', 'From a shell']);
    await keyboard.press('Enter');
    await page.locator('#shell', { hasText: `curl -N ${hub.url}sse/main` }).waitFor();
    // Back to the room's name, into another room, and the message is next.
    for (let nth = 0; nth < 7; nth++) await keyboard.press('Shift+Tab');
    assert.equal(await focused(), 'room');
    await keyboard.press('ControlOrMeta+A');
    await keyboard.type('by keys');
    await keyboard.press('Enter');
    await joined(page, 'by keys');
    assert.equal(await focused(), 'text');
    await keyboard.type('one');
    await keyboard.press('Shift+Enter');
    await keyboard.type('two');
    await keyboard.press('Enter');
    await line(page, 'one\ntwo').waitFor();
    assert.equal(await page.locator('#text').inputValue(), '');
    assert.equal(await focused(), 'text', 'the next message is a key away');
    // A name that no room can have is refused in words, before anything is sent.
    await page.locator('#room').fill('..');
    await page.locator('#room').press('Enter');
    assert.match(await page.locator('#room').evaluate(input => input.validationMessage), /neither \. nor \.\./);
  },

  async page_fits_a_phone(browser) {
    const hub = await start();
    const page = await browser.room(hub, 'lobby', { viewport: { width: 320, height: 568 }, hasTouch: true, isMobile: true });
    await say(page, 'x'.repeat(500));
    await page.locator('#log > div').waitFor();
    await page.locator('summary', { hasText: 'From a shell' }).tap();
    const sizes = await page.evaluate(() => ({
      width: document.documentElement.scrollWidth,
      height: document.documentElement.scrollHeight,
      font: Math.min(...[...document.querySelectorAll('input, textarea')].map(input => parseFloat(getComputedStyle(input).fontSize))),
      small: [...document.querySelectorAll('button, input, textarea')].filter(element => element.getBoundingClientRect().height < 32).length,
      hidden: [...document.querySelectorAll('button, input, textarea, #log')].filter(element => element.getBoundingClientRect().bottom > innerHeight).length,
    }));
    // A smaller font than 16 px makes phones zoom in.
    assert.deepEqual(sizes, { width: 320, height: 568, font: 16, small: 0, hidden: 0 });
  },

  async page_is_accessible(browser) {
    const hub = await start();
    const page = await browser.room(hub, 'lobby');
    await say(page, 'hello');
    await line(page, 'hello').waitFor();
    await page.locator('summary', { hasText: 'From a shell' }).click();
    const { default: axe } = await import('axe-core');
    await page.evaluate(axe.source);
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme });
      const { violations, passes } = await page.evaluate(() => window.axe.run());
      assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]), [], colorScheme);
      assert.ok(passes.some(({ id }) => id == 'color-contrast'), 'colours were looked at');
    }
  },

  async token_is_accepted_and_a_missing_one_is_reported(browser) {
    const hub = await start(['--token', 'to listen', '--publish-token', 'to-send']);
    const page = await browser.tab(`${hub.url}#lobby`);
    await page.locator('#state', { hasText: /Closed \(1006\), next try in .*: .*token/ }).waitFor();
    const join = async token => {
      await page.locator('#token').fill(token);
      await page.locator('#token').press('Enter');
    };
    // One that cannot be a subprotocol, and may not send.
    await join('to listen');
    await joined(page, 'lobby');
    assert.equal(recipients(await curl('-d', 'hello', '-H', 'Authorization: Bearer to-send', `${hub.url}pub/lobby`)), 1);
    await line(page, 'hello').waitFor();
    await say(page, 'may I?');
    await page.locator('#state', { hasText: /\(1008\)$/ }).waitFor();
    await join('to-send');
    await joined(page, 'lobby');
    await say(page, 'I may');
    await line(page, 'I may').waitFor();
    assert.deepEqual(await texts(page), ['I may']);
    // A refusal is what the browser complains of, and all that it does.
    browser.faults = browser.faults.filter(fault => !/401|WebSocket connection to/.test(fault));
  },

  async refused_member_list_is_reported(browser) {
    const hub = await start();
    const page = await browser.tab('about:blank');
    await page.route('**/rooms/*', route => route.fulfill({ status: 403 }));
    await page.goto(`${hub.url}#lobby`);
    await page.locator('#members', { hasText: 'only to its administrators' }).waitFor();
    assert.equal(await page.locator('#here').textContent(), '–');
    await say(page, 'all the same');
    await line(page, 'all the same').waitFor();
    browser.faults = browser.faults.filter(fault => !/403/.test(fault));
  },

  async a_flood_is_counted_and_the_page_stays_small(browser) {
    const FLOOD = 20_000;
    const hub = await start(['--stdin', 'n', '--write-timeout', '1m'], { input: true });
    const page = await browser.room(hub, 'n');
    for (let nth = 1; nth <= FLOOD; nth++) hub.stdin.write(`line ${nth}\n`);
    await line(page, `line ${FLOOD}`).waitFor();
    await page.locator('#count', { hasText: FLOOD.toLocaleString('en-US') }).waitFor();
    assert.ok((await page.locator('#log > div').count()) <= 300);
    const log = page.locator('#log');
    assert.ok(await log.evaluate(log => log.scrollHeight - log.scrollTop - log.clientHeight < 2), 'it follows');
    hub.stdin.end();
    assert.equal(await hub.ended, 0);
    await page.locator('#state', { hasText: 'Going away (1001), next try in' }).waitFor();
  },

  async nothing_else_runs_in_the_page(browser) {
    const hub = await start();
    const page = await browser.room(hub, 'lobby');
    const tried = await page.evaluate(async () => {
      const violated = [];
      document.addEventListener('securitypolicyviolation', event => violated.push(event.effectiveDirective));
      const script = document.createElement('script');
      const throws = call => { try { call(); return false; } catch { return true; } };
      const caught = {
        text: throws(() => (script.textContent = 'window.ran = true')),
        html: throws(() => (document.body.innerHTML = '<b>hello</b>')),
      };
      script.append('window.ran = true');
      throws(() => document.body.append(script));
      const image = document.body.appendChild(document.createElement('img'));
      image.src = 'http://127.0.0.1:9/';
      const elsewhere = await fetch('http://127.0.0.1:9/').then(() => true, () => false);
      document.body.setAttribute('style', 'color: red');
      await new Promise(resolve => setTimeout(resolve));
      return { caught, ran: !!window.ran, elsewhere, violated: [...new Set(violated)].sort() };
    });
    assert.deepEqual(tried.caught, { text: true, html: true });
    assert.deepEqual([tried.ran, tried.elsewhere], [false, false]);
    for (const directive of ['connect-src', 'img-src', 'style-src-attr']) assert.ok(tried.violated.includes(directive), directive);
    assert.equal(await page.evaluate(() => document.querySelectorAll('iframe').length), 0);
    const frame = await browser.tab(await foreign());
    const refused = await frame.evaluate(url => {
      const frame = document.body.appendChild(document.createElement('iframe'));
      frame.src = url;
      return new Promise(resolve => (frame.onload = () => {
        try { resolve(frame.contentDocument !== null); } catch { resolve(true); }
      }));
    }, hub.url);
    assert.equal(refused, false, 'it stands in no frame of others');
    // All that was tried was complained of.
    browser.faults = [];
  },
};

const name = process.argv[2];
setTimeout(() => {
  console.error(`${name} is not over after ${DEADLINE} ms`);
  process.exit(1);
}, DEADLINE).unref();
const browser = await Browser.open();
try {
  await stories[name](browser);
} catch (error) {
  for (const context of browser.chromium.contexts()) {
    for (const page of context.pages()) console.error(`${page.url()}\n${await page.innerText('body').catch(String)}`);
  }
  console.error(browser.faults);
  throw error;
}
await browser.chromium.close();
assert.deepEqual(browser.faults, [], 'the browser complains of nothing');
console.log('done');
process.exit();
