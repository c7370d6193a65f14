import { WebSocket } from 'ws';
import { exchange } from './exchange.mjs';

console.log(await exchange(WebSocket, process.argv[2]));
