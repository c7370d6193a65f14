// A page in Firefox posts a body that is too large, and reads why it was refused.
import { withFirefox } from '../tools/firefox.mjs';
import { BYTES, check } from './too_large.mjs';

const url = process.argv[2];
await withFirefox(new URL('/health', url).href, async evaluate => {
  const post = `fetch(${JSON.stringify(url)}, { method: 'POST', body: new Uint8Array(${BYTES}) })`;
  check(await evaluate(`${post}.then(async answer => answer.status + ' ' + await answer.text())`));
});
console.log('done');
