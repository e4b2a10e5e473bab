import { assertEquals } from "./assert.ts";
import { LOST, type Timeline } from "../src/canvas/codec.ts";
import {
  attemptAt,
  columnsOf,
  endOf,
  extentOf,
  pack,
  shifted,
  tallyOf,
  ticksOf,
  zoomed,
} from "../src/canvas/lanes.ts";
import { STATES } from "../src/states.ts";

const COMPLETED = STATES.indexOf("Completed");

/** A timeline of rows of worker, start, seconds and, where it is not Completed, state. */
function timeline(rows: [number, number, number, number?][], workers = ["w10", "w9"]): Timeline {
  return {
    workers,
    next: "0-0",
    whole: true,
    worker: Uint16Array.from(rows, (row) => row[0]),
    started: Float64Array.from(rows, (row) => row[1]),
    seconds: Float32Array.from(rows, (row) => row[2]),
    state: Uint8Array.from(rows, (row) => row[3] ?? COMPLETED),
    node: new Uint32Array(rows.length),
    index: Uint32Array.from(rows, (_, i) => i),
    attempt: new Uint8Array(rows.length).fill(1),
    outcome: new Uint8Array(rows.length),
  };
}

Deno.test("workers are lanes in the order people count, and what overlaps gets lanes of its own", () => {
  const lanes = pack(timeline([[0, 5, 5], [1, 0, 4], [0, 0, 6], [1, 4, 1], [0, 7, 1]]));
  assertEquals(lanes.map((lane) => [lane.worker, [...lane.rows]]), [
    [1, [1, 3]],
    [0, [2, 4]],
    [0, [0]],
  ]);
});

Deno.test("no two attempts of a lane overlap, and none is lost", () => {
  const rows = Array.from({ length: 3000 }, (_, i): [number, number, number] => [
    i % 2,
    (i * 7919) % 1000,
    1 + (i * 31) % 9,
  ]);
  const found = timeline(rows);
  const lanes = pack(found);
  assertEquals(lanes.reduce((sum, lane) => sum + lane.rows.length, 0), 3000);
  for (const { rows } of lanes) {
    for (let k = 1; k < rows.length; k++) {
      assertEquals(endOf(found, rows[k - 1]!) <= found.started[rows[k]!]! + 1e-4, true);
    }
  }
});

Deno.test("one crash among 100,000 attempts is seen", () => {
  const rows = Array.from({ length: 100_000 }, (_, i): [number, number, number] => [0, i, 1]);
  const found = timeline(rows);
  found.state[70_123] = STATES.indexOf("Crashed");
  const [lane] = pack(found);
  const columns = columnsOf(found, lane!, extentOf(found)!, 800);
  assertEquals(columns.length, 800);
  assertEquals(columns.includes(-1), false);
  assertEquals(columns.filter((row) => row === 70_123).length, 1);
  assertEquals(columns[Math.floor(70_123 / 125)], 70_123);
});

Deno.test("a loss is seen before everything else, and marks are counted", () => {
  const rows = Array.from({ length: 1000 }, (_, i): [number, number, number] => [0, i, 1]);
  const found = timeline(rows);
  found.state[503] = STATES.indexOf("Crashed");
  found.outcome[507] = LOST;
  found.attempt[7] = 3;
  const [lane] = pack(found);
  assertEquals(columnsOf(found, lane!, extentOf(found)!, 100)[50], 507);
  const { states, retries, losses } = tallyOf(found);
  assertEquals([retries, losses], [1, 1]);
  assertEquals(states[COMPLETED], 998); // without the crashed one, and the lost one, which has a colour of its own
});

Deno.test("the attempt under the mouse is found, also a bar that is thinner than the mouse", () => {
  const found = timeline([[0, 10, 5], [0, 20, 0.001], [0, 30, 5]]);
  const [lane] = pack(found);
  assertEquals(attemptAt(found, lane!, 12, 1), 0);
  assertEquals(attemptAt(found, lane!, 20.5, 1), 1);
  assertEquals(attemptAt(found, lane!, 29.5, 1), 2);
  assertEquals(attemptAt(found, lane!, 25, 1), -1);
});

Deno.test("zoom keeps the time under the mouse and stays inside", () => {
  const extent = { from: 100, to: 200 };
  assertEquals(zoomed(extent, extent, 150, 0.5), { from: 125, to: 175 });
  assertEquals(zoomed({ from: 125, to: 175 }, extent, 130, 100), extent);
  assertEquals(shifted({ from: 125, to: 175 }, extent, 60), { from: 150, to: 200 });
  assertEquals(extentOf(timeline([])), null);
});

Deno.test("ticks are round and not too many", () => {
  assertEquals(ticksOf({ from: 1000.7, to: 1010 }, 1000, 5), [2, 4, 6, 8, 10]);
  assertEquals(ticksOf({ from: 0, to: 3600 }, 0, 4), [0, 1000, 2000, 3000]);
});
