import { assertEquals } from "./assert.ts";
import { describe, epoch, report, storeAway, trouble } from "../src/health.ts";

Deno.test("an answer tells of trouble only where it is about more than what was asked", () => {
  assertEquals(describe(404, { error: { message: "There is no run x." } }), null);
  assertEquals(describe(409, null), null);
  assertEquals(describe(503, { error: { message: "db-3 refuses" } }), {
    what: "store",
    message: "db-3 refuses",
  });
  assertEquals(describe(503, { status: "store", message: "db-3 is away" })?.message, "db-3 is away");
  assertEquals(describe(401, null)?.what, "token");
  assertEquals(describe(502, null)?.what, "server");
});

Deno.test("when an outage is over, what was read before it is read again, once", () => {
  const before = epoch.value;
  storeAway('{"message": "locked"}');
  storeAway('{"message": "locked"}');
  assertEquals([trouble.value?.message, epoch.value], ["locked", before]);
  report(null);
  report(null);
  assertEquals([trouble.value, epoch.value], [null, before + 1]);
});
