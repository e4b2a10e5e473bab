import { assertEquals } from "./assert.ts";
import { may, me } from "../src/session.ts";

Deno.test("a role may do what the roles before it may, nobody may do anything", () => {
  const allowed = () => [may("read"), may("run"), may("admin")];
  assertEquals(allowed(), [false, false, false]);
  me.value = { role: "read", user: "ada" };
  assertEquals(allowed(), [true, false, false]);
  me.value = { role: "run", user: "ada" };
  assertEquals(allowed(), [true, true, false]);
  me.value = { role: "admin", user: null };
  assertEquals(allowed(), [true, true, true]);
  me.value = null;
});
