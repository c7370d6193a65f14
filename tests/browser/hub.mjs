// Hubs for a story to look at; each ends with the story.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

const running = new Set();
process.on('exit', () => running.forEach(child => child.kill('SIGKILL')));

/** Starts the binary; `address` is where it listens, with `port` 0 on any free port. */
export async function start(flags = [], { port = 0, input = false } = {}) {
  const stdio = [input ? 'pipe' : 'ignore', 'pipe', 'inherit'];
  const child = spawn(process.env.HUBLET, ['--listen', `127.0.0.1:${port}`, '--log', 'warn', ...flags], { stdio });
  running.add(child);
  const ended = once(child, 'exit').then(([code]) => {
    running.delete(child);
    return code;
  });
  const [line] = await Promise.race([
    once(createInterface(child.stdout), 'line'),
    ended.then(code => Promise.reject(new Error(`the hub ended with ${code}`))),
  ]);
  const address = line.replace('listening on ', '');
  return {
    address,
    port: Number(address.split(':')[1]),
    url: `http://${address}/`,
    stdin: child.stdin,
    /** Asks it to end; it drains. */
    stop() {
      child.kill('SIGTERM');
      return ended;
    },
    ended,
  };
}

/** Runs curl; returns what it printed. */
export async function curl(...args) {
  const child = spawn('curl', ['--silent', '--show-error', '--max-time', '20', ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  let printed = '';
  child.stdout.setEncoding('utf8').on('data', text => (printed += text));
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error(`curl ${args.join(' ')} ended with ${code}`);
  return printed;
}
