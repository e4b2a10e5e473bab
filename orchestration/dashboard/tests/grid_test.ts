import { assertEquals } from "./assert.ts";
import {
  cellAt,
  Cells,
  fitting,
  layoutOf,
  moved,
  paint,
  placeOf,
  zoomed,
  ZOOMS,
} from "../src/canvas/grid.ts";

Deno.test("each cell is found where it is drawn, and nothing beside the last one", () => {
  const layout = layoutOf(1003, 400, 12);
  assertEquals([layout.columns, layout.rows], [33, 31]);
  for (let index = 0; index < layout.count; index++) {
    const { x, y } = placeOf(layout, index);
    assertEquals([cellAt(layout, x, y), cellAt(layout, x + 11.9, y + 11.9)], [index, index]);
  }
  const last = placeOf(layout, 1002);
  assertEquals(cellAt(layout, last.x + 12, last.y), -1);
  assertEquals(cellAt(layout, 399, 5), -1);
  assertEquals(cellAt(layout, -1, 5), -1);
});

Deno.test("cells are as large as the place allows", () => {
  assertEquals(fitting(10, 1200, 600), 16);
  const cell = fitting(100_000, 1200, 900);
  assertEquals(cell, 3);
  assertEquals(layoutOf(100_000, 1200, cell).rows * cell <= 900, true);
  assertEquals(fitting(1_000_000, 350, 600), ZOOMS[1]);
});

Deno.test("zoom goes through its steps and stops at both ends", () => {
  let cell: number = ZOOMS[0];
  const seen = [cell];
  while (zoomed(cell, 1) !== cell) seen.push(cell = zoomed(cell, 1));
  assertEquals(seen, [...ZOOMS]);
  assertEquals(zoomed(ZOOMS[0], -1), ZOOMS[0]);
});

Deno.test("keys lead from cell to cell and never outside", () => {
  const layout = layoutOf(25, 100, 10);
  assertEquals(moved(layout, 12, "ArrowRight", 5), 13);
  assertEquals(moved(layout, 12, "ArrowUp", 5), 2);
  assertEquals(moved(layout, 2, "ArrowUp", 5), 2);
  assertEquals(moved(layout, 18, "ArrowDown", 5), 18);
  assertEquals(moved(layout, 24, "ArrowRight", 5), 24);
  assertEquals(moved(layout, 12, "Home", 5), 0);
  assertEquals(moved(layout, 12, "End", 5), 24);
  assertEquals(moved(layout, 12, "PageDown", 5), 24);
  assertEquals(moved(layout, 12, "x", 5), null);
});

Deno.test("changes keep the counts true, also of items that are new", () => {
  const cells = new Cells(new Uint8Array([0, 0, 4]), 13);
  cells.set(2, 7);
  cells.set(1, 4);
  cells.set(1, 4);
  assertEquals([...cells.counts].slice(0, 8), [1, 0, 0, 0, 1, 0, 0, 1]);
  assertEquals([cells.first, cells.last], [1, 3]);
  cells.clean();
  cells.set(5, 9);
  assertEquals([...cells.states], [0, 4, 7, 0, 0, 9]);
  assertEquals(cells.counts[0], 3);
  assertEquals([cells.first, cells.last], [5, 6]);
});

Deno.test("only what changed is painted, and what is not looked for is dimmed", () => {
  const colours = new Uint32Array([0xff111111, 0xff222222]);
  const pixels = new Uint32Array(4);
  paint(pixels, new Uint8Array([0, 1, 1, 0]), colours, 1, 3);
  assertEquals([...pixels], [0, 0xff222222, 0xff222222, 0]);
  paint(pixels, new Uint8Array([0, 1, 1, 0]), colours, 0, 4, 0);
  assertEquals([...pixels], [0xff111111, 0x26222222, 0x26222222, 0xff111111]);
});
