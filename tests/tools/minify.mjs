// Makes the client module that the hub serves: prints it, or writes it with --write.
import { readFileSync, writeFileSync } from 'node:fs';
import { minify } from 'terser';

const file = name => new URL(`../../src/bin/hublet/${name}`, import.meta.url);
const { code } = await minify(readFileSync(file('hublet.js'), 'utf8'), {
  module: true,
  ecma: 2020,
  compress: { passes: 3 },
  format: { preamble: '// hublet.js of hublet, minified' },
});
if (process.argv[2] == '--write') writeFileSync(file('hublet.min.js'), `${code}\n`);
else console.log(code);
