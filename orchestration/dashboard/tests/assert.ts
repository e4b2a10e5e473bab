// The few assertions that the tests need; node:assert is part of Deno.
import assert from "node:assert/strict";

export function assertEquals<T>(actual: T, expected: T): void {
  assert.deepEqual(actual, expected);
}
