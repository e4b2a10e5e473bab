import { assertEquals } from "./assert.ts";
import { BAR_ORDER, figures, finished, STATES, total, words } from "../src/states.ts";

Deno.test("the states are the core's, in the order of their bytes", async () => {
  const source = await Deno.readTextFile(new URL("../../core/states.py", import.meta.url));
  const body = source.slice(source.indexOf("class State("), source.indexOf("@property"));
  const members = [...body.matchAll(/^ {4}([A-Z_]+) = (\d+)/gm)];
  const titles = members.map(([, name = ""]) =>
    name.split("_").map((part) => part.slice(0, 1) + part.slice(1).toLowerCase()).join("")
  );
  assertEquals(titles, [...STATES]);
  assertEquals(members.map(([, , value]) => Number(value)), STATES.map((_, byte) => byte));
});

Deno.test("a bar leaves out no state", () => {
  assertEquals([...BAR_ORDER].sort(), [...STATES].sort());
});

Deno.test("counts add up, and those of final states apart", () => {
  const counts = { Completed: 3, Failed: 1, Running: 2 };
  assertEquals(total(counts), 6);
  assertEquals(finished(counts), 4);
  assertEquals(words("AwaitingLimit"), "Awaiting limit");
});

Deno.test("figures tell what has succeeded, what has not, and what is under way", () => {
  assertEquals(figures({ Completed: 38, Skipped: 1, Failed: 1 }), "39 of 40 · 1 failed");
  assertEquals(
    figures({ Completed: 2, Running: 1, UpstreamFailed: 3, Submitted: 1, Pending: 9 }),
    "2 of 16 · 3 upstream failed · 1 running",
  );
});
