import assert from "node:assert/strict";
import { assertEquals } from "./assert.ts";
import { decodeTimeline, eachChange, joined } from "../src/canvas/codec.ts";

/** A timeline as the server writes it, each part padded to 8 bytes. */
function encoded(workers: string[], rows: number[][]): ArrayBuffer {
  const json = new TextEncoder().encode(JSON.stringify({ workers, next: `${rows.length}-0`, whole: true }));
  const head = new Uint8Array(12 + json.length);
  head.set(new TextEncoder().encode("MRTL"));
  new DataView(head.buffer).setUint32(4, rows.length, true);
  new DataView(head.buffer).setUint32(8, json.length, true);
  head.set(json, 12);
  const bytes = [Uint8Array, Uint8Array, Uint8Array];
  const kinds = [Float64Array, Float32Array, Uint32Array, Uint32Array, Uint16Array, ...bytes];
  const parts = [
    head,
    ...kinds.map((kind, k) => new Uint8Array(new kind(rows.map((row) => row[k]!)).buffer)),
  ];
  const whole: number[] = [];
  for (const part of parts) whole.push(...part, ...new Array((8 - part.length % 8) % 8).fill(0));
  return new Uint8Array(whole).buffer;
}

Deno.test("a timeline comes apart as it was put together, whatever the padding", () => {
  for (const names of [[], ["w"], ["wörker-1", "w2", "a"]]) {
    for (const n of [0, 1, 3, 8]) {
      const rows = Array.from(
        { length: n },
        (_, i) => [1e9 + i / 8, i / 4, 7, i, i % 3, i % 5, i % 13, 255 - i],
      );
      const found = decodeTimeline(encoded(names, rows));
      assertEquals(found.workers, names);
      assertEquals(found.next, `${n}-0`);
      const back = rows.map((_, i) => [
        found.started[i],
        found.seconds[i],
        found.node[i],
        found.index[i],
        found.worker[i],
        found.attempt[i],
        found.state[i],
        found.outcome[i],
      ]);
      assertEquals(back as number[][], rows);
    }
  }
});

Deno.test("what comes later is put behind, with the same workers", () => {
  const before = decodeTimeline(encoded(["a", "b"], [[1, 1, 0, 0, 0, 1, 7, 0], [1, 1, 0, 1, 1, 1, 7, 0]]));
  const more = decodeTimeline(encoded(["c", "b"], [[2, 1, 0, 2, 0, 1, 7, 0], [2, 1, 0, 3, 1, 2, 9, 255]]));
  const all = joined(before, more);
  assertEquals(all.workers, ["a", "b", "c"]);
  assertEquals([...all.worker], [0, 1, 2, 1]);
  assertEquals([...all.index], [0, 1, 2, 3]);
  assertEquals([...all.outcome], [0, 0, 0, 255]);
  assertEquals(all.next, "2-0");
});

Deno.test("what is no timeline is refused", () => {
  assert.throws(() => decodeTimeline(new ArrayBuffer(3)), RangeError);
  assert.throws(() => decodeTimeline(new ArrayBuffer(64)), /load this page again/);
  const cut = encoded(["w"], [[1, 1, 1, 1, 0, 1, 7, 0]]).slice(0, 88);
  assert.throws(() => decodeTimeline(cut), RangeError);
});

Deno.test("changes are told for each node, and only as far as the bytes go", () => {
  const bytes = new Uint8Array([
    3,
    0,
    0,
    0,
    2,
    0,
    0,
    0,
    1,
    1,
    0,
    0,
    7,
    9,
    0,
    0,
    0,
    4,
    5,
    0,
    0,
    0,
    1,
    0,
    0,
    0,
    2,
    0,
    0,
    0,
    11,
  ]);
  const told: number[][] = [];
  eachChange(bytes, (...change) => told.push(change));
  assertEquals(told, [[3, 257, 7], [3, 9, 4], [5, 2, 11]]);
  told.length = 0;
  eachChange(bytes.subarray(0, 16), (...change) => told.push(change));
  assertEquals(told, [[3, 257, 7]]);
});
