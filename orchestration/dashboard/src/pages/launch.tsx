import { signal } from "@preact/signals";
import { useMemo } from "preact/hooks";
import { api, Problem } from "../api.ts";
import { useLoad } from "../load.ts";
import { at, go } from "../router.ts";
import type { Flow, Json, LaunchForm, Run } from "../types.ts";
import { Failure } from "../ui/text.tsx";
import { fieldsOf, type FormField, schemaOf, valueOf } from "./form.ts";

/** Starts a flow, with a form from its signature; read only when somebody wants it, for it imports user code. */
export function LaunchPanel({ flow }: { flow: Flow }) {
  const open = useMemo(() => signal(false), [flow.flow]);
  if (!flow.entrypoint) return null;
  return (
    <section class="card pad stack" aria-label="Start a run">
      <div class="pagehead">
        <h2>Start a run</h2>
        {!open.value && (
          <div class="end">
            <button type="button" class="primary" onClick={() => (open.value = true)}>Set parameters…</button>
          </div>
        )}
      </div>
      {open.value && <Form flow={flow} entrypoint={flow.entrypoint} />}
    </section>
  );
}

function Form({ flow, entrypoint }: { flow: Flow; entrypoint: string }) {
  const loaded = useLoad(`form ${flow.flow}`, (signal) => api.form(flow.flow, signal));
  const problem = loaded.problem.value;
  const form = loaded.value.value;
  if (form) return <Fields form={form} />;
  if (problem?.status === 404 && flow.last) return <LastTime entrypoint={entrypoint} last={flow.last} />;
  return problem
    ? <Failure problem={problem} again={loaded.again} />
    : <p class="muted">Reading the signature…</p>;
}

/** Where the server does not know the signature: the parameters of the last run, to be changed. */
function LastTime({ entrypoint, last }: { entrypoint: string; last: Run }) {
  const form = useMemo(() => ({ entrypoint, schema: schemaOf(last.parameters) }), [last.id]);
  return (
    <>
      <p class="muted">
        The parameters of{" "}
        <a href={at("runs", last.id)}>{last.name}</a>, the last run. A field that is left empty takes the
        flow's own default.
      </p>
      <Fields form={form} />
    </>
  );
}

function Fields({ form }: { form: LaunchForm }) {
  const fields = useMemo(() => fieldsOf(form.schema), [form]);
  const failed = useMemo(() => signal(""), [form]);
  const busy = useMemo(() => signal(false), [form]);
  async function start(event: SubmitEvent): Promise<void> {
    event.preventDefault();
    if (busy.value) return; // Enter in a field sends the form, too
    busy.value = true;
    const data = new FormData(event.currentTarget as HTMLFormElement);
    failed.value = "";
    try {
      const parameters: Record<string, Json> = {};
      for (const field of fields) {
        const value = valueOf(field, String(data.get(field.name) ?? ""), form.schema);
        if (value !== undefined) parameters[field.name] = value;
      }
      const answer = await api.launch(form.entrypoint, parameters);
      if (answer) go(at("runs", answer.run));
    } catch (error) {
      failed.value = error instanceof Problem || error instanceof Error ? error.message : String(error);
    } finally {
      busy.value = false;
    }
  }
  return (
    <form class="stack" onSubmit={start}>
      {fields.length === 0 && <p class="muted">This flow takes no parameters.</p>}
      {fields.map((field) => (
        <label key={field.name} class="field">
          <span>
            <b>{field.name}</b> {!field.required && <span class="muted">optional</span>}
            {field.description && <span class="muted small">{field.description}</span>}
          </span>
          <Control field={field} />
        </label>
      ))}
      {failed.value && <p class="note bad" role="alert">{failed.value}</p>}
      <div class="actions">
        <button type="submit" class="primary" disabled={busy.value}>
          {busy.value ? "Starting…" : "Start"}
        </button>
      </div>
    </form>
  );
}

function Control({ field }: { field: FormField }) {
  const { name, required, initial } = field;
  if (field.kind === "boolean" || field.kind === "choice") {
    const choices = field.kind === "boolean" ? ["true", "false"] : field.choices;
    return (
      <select name={name} defaultValue={initial}>
        {(!required || initial === "") && <option value="">as the flow has it</option>}
        {choices.map((one) => <option key={one} value={one} selected={one === initial}>{one}</option>)}
      </select>
    );
  }
  if (field.kind === "json") {
    return <textarea name={name} rows={3} required={required} placeholder="JSON" defaultValue={initial} />;
  }
  const inputMode = field.kind === "text" ? "text" : field.kind === "integer" ? "numeric" : "decimal";
  return <input type="text" name={name} inputMode={inputMode} required={required} defaultValue={initial} />;
}
