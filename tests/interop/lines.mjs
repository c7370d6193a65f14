// Sends standard input as the body of a fetch, each line as it comes, and prints the answer.
import { Readable } from 'node:stream';

const body = Readable.toWeb(process.stdin);
const answer = await fetch(process.argv[2], { method: 'POST', body, duplex: 'half' });
console.log(await answer.text());
