// Makes the picture of the page in the README, in the light theme, from a hub with a short
// conversation in it:
//
//   npm ci --prefix tests
//   cargo build --release
//   CHROMIUM=$(command -v chromium) HUBLET=target/release/hublet node tests/tools/screenshot.mjs docs/page.png
import assert from 'node:assert/strict';
import { statSync } from 'node:fs';

import { launch } from './chromium.mjs';
import { start } from '../browser/hub.mjs';

/** A picture that loads in an instant on a slow line. */
const BYTES_MAX = 100_000;

const WIDTH = 960;
const HEIGHT = 440;

const path = process.argv[2];
assert.ok(path, 'usage: node tests/tools/screenshot.mjs FILE.png');

const hub = await start();
const chromium = await launch();
const context = await chromium.newContext({ colorScheme: 'light', locale: 'en-GB', timezoneId: 'UTC', viewport: { width: WIDTH, height: HEIGHT } });

async function join(room) {
  const page = await context.newPage();
  await page.goto(`${hub.url}#${room}`);
  await page.locator('#state', { hasText: `Connected to ${room}` }).waitFor();
  return page;
}

async function say(page, text) {
  await page.locator('#text').fill(text);
  await page.locator('#send').click();
}

const heard = (page, text) => page.locator('#log > div > span').getByText(text, { exact: true }).waitFor();

const ada = await join('news');
const bob = await join('news');
for (const [page, text] of [[bob, 'Good morning. Is the build done?'], [ada, 'Yes, version 1.4 is on the test machine.'], [bob, 'Thank you, I will try it now.']]) {
  await say(page, text);
  await heard(ada, text);
  await heard(bob, text);
}
for (const text of ['build 1812 passed', '{"sensor":"cellar","celsius":11.5}']) {
  const answer = await fetch(`${hub.url}pub/news`, { method: 'POST', body: text });
  assert.equal(answer.status, 202);
  await heard(ada, text);
}
await ada.locator('#here', { hasText: '2' }).waitFor();
await ada.locator('#count', { hasText: '5' }).waitFor();
await ada.bringToFront();
await ada.screenshot({ path });
await chromium.close();
await hub.stop();

const { size } = statSync(path);
assert.ok(size < BYTES_MAX, `${path} has ${size} bytes, at most ${BYTES_MAX} are wanted`);
console.log(`${path}: ${WIDTH} x ${HEIGHT}, ${size} bytes`);
