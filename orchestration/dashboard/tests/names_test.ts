import { assertEquals } from "./assert.ts";
import { lineOf, nameOf, namer } from "../src/names.ts";
import type { RunNode } from "../src/types.ts";

function node(id: number, task: string, kind: string): RunNode {
  return {
    node: id,
    path: `${task}-0`,
    task,
    kind,
    width: 1,
    counts: {},
    started: null,
    ended: null,
    upstream: [],
    tags: [],
    policy: {},
    waited: {},
    parent: null,
  };
}

Deno.test("an item of a map has its index, also of a map of one; what is alone has none", () => {
  assertEquals(nameOf("fetch", "map", 0), "fetch[0]");
  assertEquals(nameOf("fetch", "single", 0), "fetch");
});

Deno.test("a task run goes by its own name, by its node's task, or by what is told of it", () => {
  const name = namer([node(3, "fetch", "map"), node(4, "load", "call")]);
  assertEquals(name({ node: 3, index: 5 }), "fetch[5]");
  assertEquals(name({ node: 3, index: 5, name: "page five" }), "page five");
  assertEquals(name({ node: 4, index: 0 }, "other"), "load");
  assertEquals(name({ node: 9, index: 2 }, "clean"), "clean[2]");
});

Deno.test("a node goes by its path, the first of its task without a number", () => {
  assertEquals(["fetch-0", "fetch-10", "load-0[3]/fetch-0"].map(lineOf), [
    "fetch",
    "fetch-10",
    "load-0[3]/fetch",
  ]);
});
