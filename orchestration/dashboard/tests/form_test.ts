import assert from "node:assert/strict";
import { assertEquals } from "./assert.ts";
import { fieldsOf, type FormField, schemaOf, valueOf } from "../src/pages/form.ts";
import type { Schema } from "../src/types.ts";

const SCHEMA: Schema = {
  type: "object",
  required: ["n", "name"],
  properties: {
    n: { type: "integer", title: "N" },
    name: { type: "string" },
    ratio: { anyOf: [{ type: "number" }, { type: "null" }], default: null },
    fast: { type: "boolean", default: false },
    size: { $ref: "#/$defs/Size", default: 2 },
    rows: { type: "array", default: [1, 2] },
  },
  $defs: { Size: { enum: [1, 2, 3], type: "integer" } },
};

function field(name: string): FormField {
  const found = fieldsOf(SCHEMA).find((one) => one.name === name);
  assert(found);
  return found;
}

Deno.test("each type has its kind of field, behind references and `or None`", () => {
  assertEquals(fieldsOf(SCHEMA).map((one) => one.kind), [
    "integer",
    "text",
    "number",
    "boolean",
    "choice",
    "json",
  ]);
  assertEquals(field("ratio").optional, true);
  assertEquals(field("n").required, true);
});

Deno.test("defaults are there as one would type them", () => {
  assertEquals(["ratio", "fast", "size", "rows"].map((name) => field(name).initial), [
    "",
    "false",
    "2",
    "[1,2]",
  ]);
});

Deno.test("what was typed becomes a value of the parameter's type", () => {
  const read = (name: string, text: string) => valueOf(field(name), text, SCHEMA);
  assertEquals(read("n", "12"), 12);
  assertEquals(read("name", ""), "");
  assertEquals(read("ratio", ""), undefined);
  assertEquals(read("ratio", "0.5"), 0.5);
  assertEquals(read("fast", "true"), true);
  assertEquals(read("size", "3"), 3);
  assertEquals(read("rows", '["a"]'), ["a"]);
});

Deno.test("what does not fit is refused by the field's name", () => {
  assert.throws(() => valueOf(field("n"), "1.5", SCHEMA), /n wants a whole number/);
  assert.throws(() => valueOf(field("n"), "", SCHEMA), /n needs a value/);
  assert.throws(() => valueOf(field("rows"), "[1", SCHEMA), /rows wants JSON/);
});

Deno.test("recorded parameters make a form that gives them back", () => {
  const parameters = { n: 3, name: "x", fast: true, rows: [1], ratio: 0.5, nothing: null };
  const schema = schemaOf(parameters);
  const back = fieldsOf(schema).map((one) => [one.name, valueOf(one, one.initial, schema)]);
  assertEquals(Object.fromEntries(back), { ...parameters, nothing: undefined });
});
