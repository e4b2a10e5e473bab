import { assertEquals } from "./assert.ts";

// The router reads the address when it is loaded.
Object.assign(globalThis, { location: { pathname: "/runs/", search: "?state=Failed&state=Crashed" } });
const { address, at, match } = await import("../src/router.ts");

Deno.test("the address is read without its last slash, with every filter", () => {
  assertEquals(address.value.path, "/runs");
  assertEquals(address.value.query.getAll("state"), ["Failed", "Crashed"]);
});

Deno.test("a pattern takes paths of its own length only, and decodes their parts", () => {
  assertEquals(match("/runs/:id", "/runs"), null);
  assertEquals(match("/runs/:id", "/runs/a%20b"), { id: "a b" });
  assertEquals(match("/runs/:id/nodes/:node", "/runs/x/nodes/3"), { id: "x", node: "3" });
  assertEquals(match("/runs/:id", "/flows/x"), null);
  assertEquals(match("/flows/:name", "/flows/100%"), { name: "100%" });
});

Deno.test("a path survives names with slashes", () => {
  assertEquals(match("/flows/:name", at("flows", "a/b c")), { name: "a/b c" });
});
