// What a client sees of a body that is too large.
import assert from 'node:assert/strict';

/** More than any buffer between a client and the hub takes. */
export const BYTES = 16 << 20;

/** Checks the status and the body of an answer. */
export function check(answer) {
  assert.match(answer, /^413 .* the limit of 65536( bytes)?\n$/);
}
