import { assertEquals } from "./assert.ts";
import { more } from "../src/ui/sample.tsx";

function said(shape: number[], rows: number, across: number, index = 0): string {
  const cells = Array.from({ length: rows }, () => Array<string>(across).fill("0"));
  return more({
    kind: "",
    shape,
    columns: [],
    types: [],
    index: Array<string>(index).fill("0"),
    rows: cells,
  });
}

Deno.test("what is not here of a table or an array is said", () => {
  assertEquals(said([3, 2], 3, 2), "");
  assertEquals(said([30, 20], 10, 12), "here are the first 10 rows, the first 12 columns");
  assertEquals(said([1000], 10, 1), "here are the first 10 rows");
  assertEquals(said([5, 4, 3], 4, 3), "here is the first plane");
  assertEquals(said([5, 40, 3], 10, 3), "here are the first 10 rows of the first plane");
  assertEquals(said([], 1, 1), "");
});
