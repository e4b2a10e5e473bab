import { signal } from "@preact/signals";
import { useMemo } from "preact/hooks";
import { api, Problem } from "../api.ts";
import { useLoad } from "../load.ts";
import { at } from "../router.ts";
import { may } from "../session.ts";
import { number } from "../time.ts";
import type { Holder, Limit } from "../types.ts";
import { Dialog } from "../ui/dialog.tsx";
import { Empty, Failure, Loading, Moment } from "../ui/text.tsx";

const MOST_WAITERS = 20;

type Edited = Limit | "new" | null;

/** Who holds what, who waits, and how much there is. */
export function LimitsPage() {
  const loaded = useLoad("limits", (signal) => api.limits(signal), 2);
  const edited = useMemo(() => signal<Edited>(null), []);
  const limits = loaded.value.value;
  const problem = loaded.problem.value;
  return (
    <>
      <div class="pagehead">
        <h1>Limits</h1>
        <div class="end">
          {may("admin") && (
            <button type="button" class="primary" onClick={() => (edited.value = "new")}>New limit</button>
          )}
        </div>
      </div>
      {problem && !limits && <Failure problem={problem} again={loaded.again} />}
      {!limits && !problem && <Loading />}
      {limits?.length === 0 && (
        <Empty title="No limit yet">
          <p>A limit on a tag bounds how many task runs with it run at once, over all runs on this store.</p>
          <pre>millrace limit set database 4</pre>
        </Empty>
      )}
      {limits?.map((limit) => (
        <LimitCard
          key={limit.name}
          limit={limit}
          edit={() => (edited.value = limit)}
        />
      ))}
      {edited.value && (
        <LimitForm
          limit={edited.value === "new" ? null : edited.value}
          close={() => {
            edited.value = null;
            loaded.again();
          }}
        />
      )}
    </>
  );
}

function LimitCard({ limit, edit }: { limit: Limit; edit: () => void }) {
  const slots = limit.slots ?? 0;
  const rate = limit.per_second === null ? "" : `${number(limit.per_second)} starts a second`;
  return (
    <section class="card pad stack" aria-label={`Limit ${limit.name}`}>
      <div class="pagehead">
        <h2>{limit.name}</h2>
        <span class="muted">
          {limit.slots !== null && `${number(limit.held)} of ${number(slots)} held`}
          {limit.slots !== null && rate && ", "}
          {rate}
        </span>
        <div class="end">
          {may("admin") && <button type="button" onClick={edit}>Change</button>}
        </div>
      </div>
      {limit.slots !== null && (
        <div class="bar" aria-hidden="true">
          {limit.held > 0 && <i data-state="Running" style={{ flexGrow: limit.held }} />}
          <span style={{ flexGrow: Math.max(0, slots - limit.held) }} />
        </div>
      )}
      {limit.holders.length === 0 && <p class="muted">Nobody holds it.</p>}
      {limit.holders.length > 0 && (
        <div class="scroll">
          <table>
            <thead>
              <tr>
                <th>Held by</th>
                <th class="num">Slots</th>
                <th>Since</th>
                <th class="wide">Expires</th>
              </tr>
            </thead>
            <tbody>
              {limit.holders.map((holder) => (
                <tr key={`${holder.run} ${holder.label}`}>
                  <td>
                    <Who lease={holder} />
                    {holder.left && (
                      <div class="muted small">its process is gone or silent: free when it expires</div>
                    )}
                  </td>
                  <td class="num">{number(holder.slots)}</td>
                  <td>
                    <Moment at={holder.since} relative />
                  </td>
                  <td class="wide">
                    <Moment at={holder.expires} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {limit.holding > limit.holders.length && (
        <p class="muted small">and {number(limit.holding - limit.holders.length)} more</p>
      )}
      <Waiting limit={limit} />
    </section>
  );
}

/** Who waits, first come first. */
function Waiting({ limit }: { limit: Limit }) {
  if (limit.waiters.length === 0) return <p class="muted">Nobody waits.</p>;
  return (
    <p>
      <span class="muted">{number(limit.waiting)} {limit.waiting === 1 ? "waits" : "wait"}:</span>{" "}
      {limit.waiters.slice(0, MOST_WAITERS).map((waiter, i) => (
        <span key={i}>
          {i > 0 && "; "}
          <Who lease={waiter} />
        </span>
      ))}
      {limit.waiting > MOST_WAITERS && (
        <span class="muted">; and {number(limit.waiting - MOST_WAITERS)} more</span>
      )}
    </p>
  );
}

/** "insert[3] of jumpy-puppy"; a flow run that holds it itself is not named twice. */
function Who({ lease }: { lease: Holder }) {
  return (
    <>
      <a href={at("runs", lease.run)}>{lease.label}</a>{" "}
      {lease.run_name && !lease.label.endsWith(lease.run_name) && (
        <span class="muted">of {lease.run_name}</span>
      )}
    </>
  );
}

function LimitForm({ limit, close }: { limit: Limit | null; close: () => void }) {
  const failed = useMemo(() => signal(""), []);
  async function tryTo(change: () => Promise<unknown>): Promise<void> {
    try {
      await change();
      close();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      failed.value = error.message;
    }
  }
  function save(event: SubmitEvent): void {
    event.preventDefault();
    const data = new FormData(event.currentTarget as HTMLFormElement);
    const read = (name: string) => data.get(name) ? Number(data.get(name)) : null;
    const name = limit?.name ?? String(data.get("name") ?? "").trim();
    tryTo(() => api.setLimit(name, read("slots") ?? 1, read("per_second")));
  }
  return (
    <Dialog title={limit ? `Limit ${limit.name}` : "New limit"} close={close}>
      <form class="stack" onSubmit={save}>
        {!limit && (
          <label class="field">
            Name, as in a task's tags
            <input type="text" name="name" required />
          </label>
        )}
        <NumberField label="Slots: how many at once" name="slots" min={1} value={limit?.slots} required />
        <NumberField
          label="At most so many starts a second; empty: any number"
          name="per_second"
          min={0}
          value={limit?.per_second}
        />
        {failed.value && <p class="note bad" role="alert">{failed.value}</p>}
        <div class="actions">
          {limit && (
            <button
              type="button"
              class="danger"
              onClick={() => tryTo(() => api.deleteLimit(limit.name))}
            >
              Remove
            </button>
          )}
          <button type="button" onClick={close}>Leave as it is</button>
          <button type="submit" class="primary">Save</button>
        </div>
      </form>
    </Dialog>
  );
}

interface NumberFieldProps {
  label: string;
  name: string;
  value: number | null | undefined;
  min: number;
  required?: boolean;
}

function NumberField({ label, name, value, min, required }: NumberFieldProps) {
  const initial = value === null || value === undefined ? "" : String(value);
  return (
    <label class="field">
      {label}
      <input
        type="number"
        name={name}
        min={min}
        step={min === 1 ? 1 : "any"}
        required={required}
        defaultValue={initial}
      />
    </label>
  );
}
