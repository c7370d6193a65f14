// A headless Chromium from the environment variable CHROMIUM, which the Rust side of a test sets.
import { chromium } from 'playwright-core';

// The sandbox cannot start as root, which CI uses. The other flags keep Chromium off the network.
const args = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** Starts it, with what a test adds to its arguments. */
export function launch({ args: more = [] } = {}) {
  return chromium.launch({ executablePath: process.env.CHROMIUM, args: [...args, ...more] });
}
