import { signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import type { RunFilter } from "../api.ts";
import { epoch } from "../health.ts";
import { address, setQuery } from "../router.ts";
import { RUN_STATES, words } from "../states.ts";
import { now, number } from "../time.ts";
import type { Run } from "../types.ts";
import { RunTable } from "../ui/run-table.tsx";
import { Scatter } from "../ui/scatter.tsx";
import { SearchField } from "../ui/search-field.tsx";
import { Dot } from "../ui/state.tsx";
import { Empty, Failure, Loading } from "../ui/text.tsx";
import { RunList } from "./run-list.ts";

const PERIODS: [string, string, number][] = [
  ["1h", "Last hour", 3600],
  ["24h", "Last 24 hours", 86400],
  ["7d", "Last 7 days", 7 * 86400],
  ["30d", "Last 30 days", 30 * 86400],
];
const SHOWN_AT_FIRST = 100;

/** All runs, filtered by what the address says. */
export function RunsPage() {
  const query = address.value.query;
  const key = query.toString();
  const outages = epoch.value;
  const list = useMemo(() => new RunList(filterOf(query)), [key, outages]);
  useEffect(() => () => list.close(), [list]);
  const runs = list.runs.value;
  const problem = list.problem.value;
  return (
    <>
      <div class="pagehead">
        <h1>Runs</h1>
        <span class={`live ${list.live.value ? "" : "off"}`}>{list.live.value ? "live" : "not live"}</span>
      </div>
      <Filters query={query} />
      <StateChips states={list.states.value} ofNewest={list.ofNewest.value} chosen={query.getAll("state")} />
      {problem && !runs && <Failure problem={problem} again={() => list.refresh()} />}
      {!runs && !problem && <Loading />}
      {runs && (runs.length > 0 || list.more.value) && <Shown list={list} runs={runs} />}
      {runs?.length === 0 && !list.more.value && <Nothing filtered={key !== ""} />}
    </>
  );
}

/** The filter that an address's query means. */
export function filterOf(query: URLSearchParams, today = now.peek()): RunFilter {
  const period = PERIODS.find(([id]) => id === query.get("period"));
  return {
    state: query.getAll("state"),
    tag: query.getAll("tag"),
    flow: query.get("flow"),
    search: query.get("search"),
    since: period ? Math.floor(today - period[2]) : null,
  };
}

function Filters({ query }: { query: URLSearchParams }) {
  return (
    <form class="filters" role="search" onSubmit={(event) => event.preventDefault()}>
      <SearchField label="Search runs" placeholder="Search names, flows, messages ( / )" />
      <input
        type="text"
        placeholder="Flow"
        aria-label="Flow"
        value={query.get("flow") ?? ""}
        onChange={(event) => setQuery({ flow: event.currentTarget.value })}
      />
      <input
        type="text"
        placeholder="Tag"
        aria-label="Tag"
        value={query.get("tag") ?? ""}
        onChange={(event) => setQuery({ tag: event.currentTarget.value })}
      />
      <select
        aria-label="Period"
        value={query.get("period") ?? ""}
        onChange={(event) => setQuery({ period: event.currentTarget.value })}
      >
        <option value="">Any time</option>
        {PERIODS.map(([id, title]) => <option key={id} value={id}>{title}</option>)}
      </select>
      {query.size > 0 && <a href="/runs">Clear</a>}
    </form>
  );
}

interface StateChipsProps {
  states: Record<string, number>;
  ofNewest: number | null;
  chosen: string[];
}

function StateChips({ states, ofNewest, chosen }: StateChipsProps) {
  const offered = RUN_STATES.filter((state) => states[state] || chosen.includes(state));
  if (offered.length === 0) return null;
  const toggle = (state: string) =>
    setQuery({
      state: chosen.includes(state) ? chosen.filter((one) => one !== state) : [...chosen, state],
    });
  return (
    <div class="chips" role="group" aria-label="States">
      {offered.map((state) => (
        <button
          key={state}
          type="button"
          class="chip"
          aria-pressed={chosen.includes(state)}
          onClick={() => toggle(state)}
        >
          <Dot state={state} /> {words(state)} <b>{number(states[state] ?? 0)}</b>
        </button>
      ))}
      {ofNewest !== null && <span class="muted small">of the newest {number(ofNewest)} runs</span>}
    </div>
  );
}

function Shown({ list, runs }: { list: RunList; runs: readonly Run[] }) {
  const shown = useMemo(() => signal(SHOWN_AT_FIRST), [list]);
  const points = useMemo(() => pointsOf(runs), [runs]);
  async function more(): Promise<void> {
    if (shown.value >= runs.length) await list.older();
    shown.value += SHOWN_AT_FIRST;
  }
  const busy = list.busy.value;
  const failed = list.failed.value && <p class="note bad" role="alert">{list.failed.value}</p>;
  if (runs.length === 0) {
    return (
      <Empty title={`No match among the newest ${number(list.searched.value)} runs`}>
        <button type="button" disabled={busy} onClick={() => list.older()}>
          {busy ? "Searching…" : "Search on"}
        </button>
        {failed}
      </Empty>
    );
  }
  return (
    <>
      <section class="card" aria-label="Duration over time">
        <Scatter points={points} />
        {list.more.value && (
          <p class="muted small below">The newest {number(runs.length)} that match; older ones below.</p>
        )}
      </section>
      <RunTable runs={runs.slice(0, shown.value)} />
      {(shown.value < runs.length || list.more.value) && (
        <div class="centred">
          <button type="button" disabled={busy} onClick={more}>{busy ? "Reading…" : "Older runs"}</button>
          {list.more.value && <p class="muted small">{number(list.searched.value)} runs looked at so far</p>}
        </div>
      )}
    </>
  );
}

/** A run that has not ended yet is as long as it has lasted. */
export function pointsOf(runs: readonly Run[], today = now.peek()) {
  return runs.flatMap((run) => {
    if (run.started === null) return [];
    const seconds = run.seconds ?? (run.ended ?? today) - run.started;
    return [{ id: run.id, name: run.name, at: run.started, seconds: Math.max(0, seconds), state: run.state }];
  });
}

function Nothing({ filtered }: { filtered: boolean }) {
  if (filtered) {
    return (
      <Empty title="No run matches">
        <p>
          <a href="/runs">Clear the filters</a> to see all.
        </p>
      </Empty>
    );
  }
  return (
    <Empty title="No run yet">
      <p>Run a flow with the same store, and it appears here at once:</p>
      <pre>millrace run my_module:my_flow</pre>
      <p>
        or start one from <a href="/flows">Flows</a>.
      </p>
    </Empty>
  );
}
