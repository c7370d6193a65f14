// A headless Firefox from the environment variable FIREFOX, which the Rust side of a test sets,
// driven by WebDriver BiDi.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/** Opens `url` in it, and calls `use` with a function that evaluates code in the page and returns
 *  the text that it promises. */
export async function withFirefox(url, use) {
  const profile = mkdtempSync(join(tmpdir(), 'hublet-firefox-'));
  const arguments_ = ['--headless', '--no-remote', '--profile', profile, '--remote-debugging-port', '0'];
  const firefox = spawn(process.env.FIREFOX, arguments_, {
    env: { ...process.env, HOME: profile, MOZ_DISABLE_CONTENT_SANDBOX: '1' },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  process.on('exit', () => firefox.kill('SIGKILL'));
  const ended = new Promise(resolve => firefox.once('exit', resolve));
  try {
    const socket = new WebSocket(`${await listening(firefox)}/session`);
    await new Promise((resolve, reject) => Object.assign(socket, { onopen: resolve, onerror: reject }));
    const waiting = new Map();
    socket.onmessage = ({ data }) => {
      const { id, result, ...failure } = JSON.parse(data);
      const { resolve, reject } = waiting.get(id) ?? {};
      waiting.delete(id);
      if (result) resolve?.(result);
      else reject?.(new Error(JSON.stringify(failure)));
    };
    let last = 0;
    const ask = (method, params) =>
      new Promise((resolve, reject) => {
        waiting.set(++last, { resolve, reject });
        socket.send(JSON.stringify({ id: last, method, params }));
      });
    await ask('session.new', { capabilities: {} });
    const { contexts: [{ context }] } = await ask('browsingContext.getTree', {});
    await ask('browsingContext.navigate', { context, url, wait: 'complete' });
    await use(async expression => {
      const evaluated = await ask('script.evaluate', { expression, target: { context }, awaitPromise: true });
      if (evaluated.type !== 'success') throw new Error(JSON.stringify(evaluated.exceptionDetails));
      return evaluated.result.value;
    });
    socket.close();
  } finally {
    firefox.kill();
    await ended;
    rmSync(profile, { recursive: true, force: true });
  }
}

/** Where it listens for commands, which it says on standard error. */
async function listening(firefox) {
  for await (const line of createInterface(firefox.stderr)) {
    const [, address] = line.match(/WebDriver BiDi listening on (\S+)/) ?? [];
    if (address) {
      firefox.stderr.resume();
      return address;
    }
  }
  throw new Error('Firefox has ended');
}
