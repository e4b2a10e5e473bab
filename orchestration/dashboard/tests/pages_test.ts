import { assertEquals } from "./assert.ts";
import type { LogLine, Run } from "../src/types.ts";

// The router and the stream read the page they are loaded into.
Object.assign(globalThis, { location: { pathname: "/runs", search: "" } });
const { mergeRuns, withOlder } = await import("../src/pages/run-list.ts");
const { filterOf, pointsOf } = await import("../src/pages/runs.tsx");
const { append } = await import("../src/run/log-store.ts");
const { partsOf } = await import("../src/ui/text.tsx");
const { backoff } = await import("../src/persist.ts");

function run(id: string, state: string): Run {
  return {
    id,
    name: id,
    flow: "flow",
    state,
    state_name: state,
    message: null,
    created: 1,
    started: 10,
    ended: null,
    heartbeat: null,
    runner: null,
    engine_url: null,
    entrypoint: null,
    version: null,
    tags: [],
    parameters: {},
    parent: null,
    host: null,
    pid: null,
    counts: {},
    retries: 0,
    retry_seconds: 0,
    seconds: null,
    can: { cancel: true, pause: true, resume: false, retry: false },
  };
}

function line(seq: number): LogLine {
  return {
    seq,
    at: seq,
    level: 20,
    logger: "x",
    message: "",
    task: null,
    node: -1,
    index: 0,
    attempt: null,
  };
}

Deno.test("news of a listed run replace it; only a change of state asks for the counts", () => {
  const before = [run("a", "Running"), run("b", "Running")];
  const same = mergeRuns(before, [{ ...run("a", "Running"), message: "half" }]);
  assertEquals([same.runs[0]?.message, same.moved], ["half", false]);
  assertEquals(mergeRuns(before, [run("b", "Failed")]).moved, true);
});

Deno.test("a run that is not listed yet asks for the list, in the place that the server gives it", () => {
  const merged = mergeRuns([run("a", "Running")], [run("c", "Pending")]);
  assertEquals([merged.runs.length, merged.moved], [1, true]);
});

Deno.test("what was read of older runs stays when the list is read again", () => {
  const at = (id: string, created: number) => ({ ...run(id, "Completed"), created });
  const before = [at("c", 30), at("b", 20), at("a", 10), at("z", 1)];
  const ids = (newest: Run[]) => withOlder(newest, before).map((one) => one.id).join("");
  assertEquals(ids([at("d", 40), at("c", 30)]), "dcbaz");
  assertEquals(ids([at("d", 40), at("b", 20)]), "dbaz");
  assertEquals(ids([]), "cbaz");
});

Deno.test("the address's query is the filter", () => {
  const query = new URLSearchParams("state=Failed&state=Crashed&search=big&period=1h");
  const filter = filterOf(query, 10_000);
  assertEquals(filter.state, ["Failed", "Crashed"]);
  assertEquals([filter.search, filter.since, filter.flow], ["big", 6400, null]);
});

Deno.test("a run that goes on is a point as high as it has lasted, one that never started is none", () => {
  const points = pointsOf([run("a", "Running"), { ...run("b", "Pending"), started: null }], 25);
  assertEquals(points.map(({ id, seconds }) => [id, seconds]), [["a", 15]]);
});

Deno.test("log lines are added once each, and the oldest go", () => {
  const first = append([], [line(1), line(2)], 3);
  const second = append(first.lines, [line(2), line(3), line(4)], 3);
  assertEquals(second.lines.map((one) => one.seq), [2, 3, 4]);
  assertEquals(second.dropped, 1);
  assertEquals(append(second.lines, [line(4)], 3).lines === second.lines, true);
});

Deno.test("a stream comes back soon at first, and after a while every five seconds", () => {
  assertEquals([0, 1, 2, 10].map(backoff), [300, 600, 1200, 5000]);
});

Deno.test("what the server says is taken apart: commands and moments are shown as such", () => {
  assertEquals(partsOf("held by `x` since 2026-01-31T14:02:11Z; 1 wait before it"), [
    "held by ",
    { command: "x" },
    " since ",
    { at: 1769868131 },
    "; 1 wait before it",
  ]);
  assertEquals(partsOf("one ` alone"), ["one ` alone"]);
});
