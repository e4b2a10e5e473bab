import { assertEquals } from "./assert.ts";
import { ago, duration } from "../src/time.ts";

Deno.test("a duration keeps the digits that matter", () => {
  const cases: [number | null, string][] = [
    [null, "–"],
    [0.000412, "412 µs"],
    [0.00831, "8.31 ms"],
    [0.5, "500 ms"],
    [4.24, "4.2 s"],
    [42.4, "42 s"],
    [187, "3 min 07 s"],
    [3599.7, "1 h 00 min"],
    [7500, "2 h 05 min"],
    [3 * 86400 + 4 * 3600, "3 d 4 h"],
  ];
  for (const [seconds, text] of cases) assertEquals(duration(seconds), text);
});

Deno.test("a moment that is a little in the future, by another machine's clock, is now", () => {
  assertEquals(ago(105, 100), "just now");
  assertEquals(ago(0, 90), "1 min ago");
  assertEquals(ago(0, 86400), "24 h ago");
});
