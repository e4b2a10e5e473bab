import { assertEquals } from "./assert.ts";
import { decades, extentOf, moments, nearest, place, type Point, tick } from "../src/canvas/scatter.ts";

const BOX = { left: 60, top: 10, width: 400, height: 100 };

function point(id: string, at: number, seconds: number): Point {
  return { id, at, seconds, state: "Completed" };
}

Deno.test("the axes hold every point, in whole decades", () => {
  const points = [point("a", 1000, 0.02), point("b", 5000, 42), point("c", 3000, 0)];
  const extent = extentOf(points);
  for (const one of points) {
    const { x, y } = place(one, extent, BOX);
    assertEquals(x >= 60 && x <= 460 && y >= 10 && y <= 110, true);
  }
  assertEquals(decades(extent).map((value) => Number(value.toPrecision(1))), [0.001, 0.01, 0.1, 1, 10, 100]);
});

Deno.test("one run alone has axes, too", () => {
  const extent = extentOf([point("a", 1000, 1)]);
  assertEquals(Object.values(extent).every(Number.isFinite), true);
  assertEquals(extent.to > extent.from && extent.high > extent.low, true);
  assertEquals(Object.values(extentOf([])).every(Number.isFinite), true);
});

Deno.test("the point under the mouse is found, of two at one place the one on top", () => {
  const points = [point("a", 1000, 1), point("b", 9000, 100), point("c", 9000, 100)];
  const extent = extentOf(points);
  const there = place(points[1] as Point, extent, BOX);
  assertEquals(nearest(points, extent, BOX, there.x + 5, there.y)?.id, "c");
  assertEquals(nearest(points, extent, BOX, there.x - 60, there.y + 30), null);
});

Deno.test("ticks are round in the viewer's zone", () => {
  const halfPast = 5.5 * 3600; // a zone that is half an hour off
  const ticks = moments(0, 86400, 4, halfPast);
  assertEquals(ticks.every((at) => (at + halfPast) % (6 * 3600) === 0), true);
  assertEquals(ticks.length, 4);
});

Deno.test("durations on the axis are short", () => {
  assertEquals([0.001, 0.1, 1, 100, 1000, 10_000, 1_000_000].map(tick), [
    "1 ms",
    "100 ms",
    "1 s",
    "100 s",
    "17 min",
    "2.8 h",
    "12 d",
  ]);
});
