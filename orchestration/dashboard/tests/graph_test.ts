import { assertEquals } from "./assert.ts";
import { BOX_HEIGHT, BOX_WIDTH, grouped, laidOut } from "../src/canvas/graph.ts";

const NODES = [
  { node: 0, task: "extract", upstream: [] },
  { node: 1, task: "transform", upstream: [0] },
  { node: 2, task: "check", upstream: [0] },
  { node: 3, task: "load", upstream: [1, 2] },
];

Deno.test("what waits is to the right of what it waits for, and no box covers another", () => {
  const { boxes, edges, width, height } = laidOut(grouped(NODES));
  const at = new Map(boxes.map((box) => [box.nodes[0], box]));
  for (const one of NODES) {
    for (const before of one.upstream) {
      assertEquals(at.get(before)!.x + BOX_WIDTH < at.get(one.node)!.x, true);
    }
  }
  for (const a of boxes) {
    for (const b of boxes) {
      const apart = Math.abs(a.x - b.x) >= BOX_WIDTH || Math.abs(a.y - b.y) >= BOX_HEIGHT;
      assertEquals(a === b || apart, true);
    }
    assertEquals(a.x >= 0 && a.y >= 0 && a.x + BOX_WIDTH <= width && a.y + BOX_HEIGHT <= height, true);
  }
  assertEquals(edges.length, 4);
});

Deno.test("single task runs of one task are one box, unless they wait for something else", () => {
  const nodes = [
    ...NODES,
    ...Array.from({ length: 500 }, (_, i) => ({ node: 10 + i, task: "notify", upstream: [3] })),
    { node: 900, task: "notify", upstream: [1] },
  ];
  const groups = grouped(nodes).map((group) => group.nodes.length);
  assertEquals(groups, [1, 1, 1, 1, 500, 1]);
});

Deno.test("a chain of a task with itself stays a chain", () => {
  const chain = Array.from({ length: 5 }, (_, i) => ({ node: i, task: "step", upstream: i ? [i - 1] : [] }));
  assertEquals(grouped(chain).map((group) => group.nodes), [[0], [1], [2], [3], [4]]);
});

Deno.test("nothing is drawn of nothing", () => {
  assertEquals(laidOut(grouped([])).boxes, []);
});
