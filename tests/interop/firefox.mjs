import { withFirefox } from '../tools/firefox.mjs';
import { exchange } from './exchange.mjs';

const url = process.argv[2];
// A page of the hub's own origin.
await withFirefox(new URL('/health', url.replace(/^ws/, 'http')).href, async evaluate => {
  console.log(await evaluate(`(${exchange})(WebSocket, ${JSON.stringify(url)})`));
});
