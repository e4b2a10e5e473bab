// From a signature's JSON schema to fields, and from what was typed to parameters.
import type { Json, Schema } from "../types.ts";

export type Kind = "text" | "integer" | "number" | "boolean" | "choice" | "json";

export interface FormField {
  name: string;
  kind: Kind;
  required: boolean;
  description: string;
  /** What the field holds at first, as it would be typed. */
  initial: string;
  choices: string[];
  optional: boolean;
}

const KINDS: Record<string, Kind> = {
  string: "text",
  integer: "integer",
  number: "number",
  boolean: "boolean",
};

export function fieldsOf(schema: Schema): FormField[] {
  const required = new Set(schema.required ?? []);
  return Object.entries(schema.properties ?? {}).map(([name, property]) => {
    const { inner, optional } = unwrap(property, schema);
    const kind: Kind = inner.enum ? "choice" : KINDS[inner.type ?? ""] ?? "json";
    return {
      name,
      kind,
      optional,
      required: required.has(name),
      description: property.description ?? inner.description ?? "",
      initial: typed(property.default, kind),
      choices: (inner.enum ?? []).map((one) => typed(one, "choice")),
    };
  });
}

/** Behind references and "or None". */
function unwrap(property: Schema, root: Schema): { inner: Schema; optional: boolean } {
  const others = property.anyOf?.filter((one) => one.type !== "null");
  if (others && property.anyOf && others.length === 1 && others[0]) {
    return { inner: resolve(others[0], root), optional: others.length < property.anyOf.length };
  }
  return { inner: resolve(property, root), optional: false };
}

function resolve(schema: Schema, root: Schema): Schema {
  const name = schema.$ref?.replace("#/$defs/", "");
  return name ? root.$defs?.[name] ?? schema : schema;
}

function typed(value: Json | undefined, kind: Kind): string {
  if (value === undefined || value === null) return "";
  return typeof value === "string" && kind !== "json" ? value : JSON.stringify(value);
}

/** What a run's recorded parameters tell of a signature: names, the values' types, and what was given last. */
export function schemaOf(parameters: Record<string, Json>): Schema {
  const properties = Object.entries(parameters).map(([name, value]): [string, Schema] => {
    const type = Array.isArray(value) ? "array" : typeof value;
    return [name, value === null ? { default: null } : { type, default: value }];
  });
  return { type: "object", properties: Object.fromEntries(properties) };
}

/**
 * Read what was typed into a field.
 *
 * Returns undefined where the parameter is left out, so that the signature's default holds.
 * Throws an Error that names the field and what it wants.
 */
export function valueOf(field: FormField, text: string, root: Schema): Json | undefined {
  if (text === "" && !(field.kind === "text" && field.required)) {
    if (field.required) throw new Error(`${field.name} needs a value.`);
    return undefined;
  }
  switch (field.kind) {
    case "text":
      return text;
    case "boolean":
      return text === "true";
    case "choice":
      return choice(field, text, root);
    case "integer":
    case "number": {
      const value = Number(text);
      const fits = field.kind === "integer" ? Number.isSafeInteger(value) : Number.isFinite(value);
      if (!fits) {
        throw new Error(`${field.name} wants ${field.kind === "integer" ? "a whole number" : "a number"}.`);
      }
      return value;
    }
    case "json":
      try {
        return JSON.parse(text) as Json;
      } catch {
        throw new Error(`${field.name} wants JSON, such as [1, 2] or {"key": "value"}.`);
      }
  }
}

function choice(field: FormField, text: string, root: Schema): Json {
  const property = root.properties?.[field.name] ?? {};
  const { inner } = unwrap(property, root);
  return inner.enum?.find((one) => typed(one, "choice") === text) ?? text;
}
