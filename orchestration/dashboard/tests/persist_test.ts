import { assertEquals } from "./assert.ts";
import { Problem } from "../src/api.ts";
import { passes, Persistence } from "../src/persist.ts";

Deno.test("an outage passes, a wrong request does not", () => {
  const statuses = [0, 401, 404, 422, 429, 500, 503];
  const found = statuses.filter((status) => passes(new Problem(status, "", "")));
  assertEquals(found, [0, 500, 503]);
  assertEquals(passes(new Error("a defect")), false);
});

Deno.test("what failed is asked for again until it is there", async () => {
  const answers = [false, false, true];
  let asked = 0;
  await new Promise<void>((done) => {
    const persistence = new Persistence(read);
    function read() {
      if (!answers[asked++]) return persistence.failed(new Problem(0, "", ""));
      persistence.succeeded();
      done();
    }
    read();
  });
  assertEquals(asked, 3);
});
