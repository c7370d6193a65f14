// Posts a body that is too large with each client of Node.js.
import { request } from 'node:http';

import { BYTES, check } from './too_large.mjs';

const url = process.argv[2];
const body = new Uint8Array(BYTES);

const answer = await fetch(url, { method: 'POST', body });
check(`${answer.status} ${await answer.text()}`);

check(
  await new Promise((resolve, reject) => {
    const asked = request(url, { method: 'POST' }, response => {
      let text = '';
      response.setEncoding('utf8').on('data', part => (text += part));
      response.on('end', () => resolve(`${response.statusCode} ${text}`)).on('error', reject);
    });
    // With a length it is refused by its head, and as chunks once it is too long.
    asked.on('error', reject).write(body);
    asked.end();
  }),
);
console.log('done');
