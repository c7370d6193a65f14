// What a program in TypeScript may do with the module; it is compiled and never run.
import { connect, type Connection, type State } from '../../src/bin/hublet/hublet.js';

const short: Connection = connect('ws/lobby');
short.close();

const said: string[] = [];
const lobby = connect(new URL('wss://hub.example/ws/lobby'), {
  message: data => said.push(typeof data == 'string' ? data : `${data.byteLength} bytes`),
  state(now: State) {
    if (now.state == 'waiting') said.push(`${now.reason} (${now.code}), next try in ${now.retryIn} ms`);
    // @ts-expect-error: a connection that stands has no code
    if (now.state == 'connected') said.push(now.code);
  },
  token: () => fetch('/token').then(response => response.text()),
  protocols: async () => ['chat'],
});
const sent: boolean = lobby.send('hello') && lobby.send(new Uint8Array([1])) && lobby.send(new ArrayBuffer(1));
connect('ws/news', { since: 'now', message: (data, position) => said.push(`${position}`), missed: () => said.push('fetch') });
// @ts-expect-error: a date is no position
connect('ws/news', { since: new Date() });
// @ts-expect-error: an object would be sent as "[object Object]"
lobby.send({ sent });
// @ts-expect-error: a token is text
connect('ws/lobby', { token: () => 42 });
// @ts-expect-error: there is no such option
connect('ws/lobby', { onmessage: console.log });
