import { assertEquals } from "./assert.ts";
import { bytesOf, logsOf, mergeNodes } from "../src/feed.ts";
import type { RunNode } from "../src/types.ts";

function node(number: number, width: number): RunNode {
  return {
    node: number,
    path: `task-${number}`,
    task: "task",
    kind: "map",
    width,
    counts: {},
    started: null,
    ended: null,
    upstream: [],
    tags: [],
    policy: null,
    waited: null,
    parent: null,
  };
}

Deno.test("changes of known nodes are merged, others stay the same objects", () => {
  const nodes = [node(0, 1), node(1, 5)];
  const change = { node: 1, width: 9, counts: { Running: 9 }, started: 5, ended: null };
  const merged = mergeNodes(nodes, [change]);
  assertEquals(merged?.[1]?.width, 9);
  assertEquals(merged?.[1]?.path, "task-1");
  assertEquals(merged?.[0] === nodes[0], true);
});

Deno.test("a node that is not known yet asks for a full reading", () => {
  const change = { node: 7, width: 1, counts: {}, started: null, ended: null };
  assertEquals(mergeNodes([node(0, 1)], [change]), null);
});

Deno.test("bytes come as base64, bare or as a JSON string", () => {
  assertEquals([...bytesOf("AQL/")], [1, 2, 255]);
  assertEquals([...bytesOf('"AQL/"')], [1, 2, 255]);
});

Deno.test("log news is a list or says how many lines were skipped", () => {
  assertEquals(logsOf("[]"), { items: [], skipped: 0 });
  assertEquals(logsOf('{"items": [], "skipped": 40}'), { items: [], skipped: 40 });
});
