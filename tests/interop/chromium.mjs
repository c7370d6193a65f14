import { launch } from '../tools/chromium.mjs';
import { exchange } from './exchange.mjs';

const url = process.argv[2];
const browser = await launch();
try {
  const page = await browser.newPage();
  // A page of the hub's own origin.
  await page.goto(new URL('/health', url.replace(/^ws/, 'http')).href);
  console.log(await page.evaluate(`(${exchange})(WebSocket, ${JSON.stringify(url)})`));
} finally {
  await browser.close();
}
