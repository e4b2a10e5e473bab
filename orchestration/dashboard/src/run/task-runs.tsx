import { signal } from "@preact/signals";
import { useMemo } from "preact/hooks";
import { api, Problem } from "../api.ts";
import { useLoad } from "../load.ts";
import { lineOf, namer } from "../names.ts";
import { address, at, setQuery } from "../router.ts";
import { STATES, words } from "../states.ts";
import { duration, number } from "../time.ts";
import type { Searched, TaskRun } from "../types.ts";
import { SearchField } from "../ui/search-field.tsx";
import { Badge } from "../ui/state.tsx";
import { Empty, Failure, lastLine, Loading } from "../ui/text.tsx";
import type { TabProps } from "./tabs.ts";

const LIMIT = 200;

/** Task runs as a list, by words, state and task, which the address keeps. */
export function TaskRuns({ run, feed }: TabProps) {
  const query = address.value.query;
  const chosen = query.get("node");
  const filter = {
    state: query.getAll("state"),
    node: chosen ? Number(chosen) : undefined,
    search: query.get("search") ?? "",
  };
  const key = `task runs ${run.id} ${query}`;
  const loaded = useLoad(
    key,
    (signal) => api.taskRuns(run.id, { ...filter, limit: LIMIT }, signal),
    run.ended === null ? 3 : 0,
  );
  const page = loaded.value.value;
  return (
    <section class="stack" aria-label="Task runs">
      <form class="filters" role="search" onSubmit={(event) => event.preventDefault()}>
        <SearchField label="Search task runs" placeholder="Search names, workers, errors ( / )" />
        <select
          aria-label="State"
          value={filter.state[0] ?? ""}
          onChange={(event) => setQuery({ state: event.currentTarget.value })}
        >
          <option value="">Any state</option>
          {STATES.map((state) => <option key={state} value={state}>{words(state)}</option>)}
        </select>
        <select
          aria-label="Task"
          value={chosen ?? ""}
          onChange={(event) => setQuery({ node: event.currentTarget.value })}
        >
          <option value="">Any task</option>
          {feed.nodes.value.map((node) => (
            <option key={node.node} value={node.node}>{lineOf(node.path)}</option>
          ))}
        </select>
      </form>
      {loaded.problem.value && !page && <Failure problem={loaded.problem.value} again={loaded.again} />}
      {!page && !loaded.problem.value && <Loading />}
      {page?.items.length === 0 && !page.next && (
        <Empty title="No task run matches">
          <a href={at("runs", run.id, "tasks")}>Show all</a>
        </Empty>
      )}
      {page && (page.items.length > 0 || page.next) && (
        <Listed key={key} run={run.id} name={namer(feed.nodes.value)} filter={filter} first={page} />
      )}
    </section>
  );
}

interface ListedProps {
  run: string;
  name: ReturnType<typeof namer>;
  filter: { state: string[]; node: number | undefined; search: string };
  first: Searched<TaskRun>;
}

/** The first page is read again while the run goes on; further ones stay as they were read. */
function Listed({ run, name, filter, first }: ListedProps) {
  const further = useMemo(() => signal<Searched<TaskRun> | null>(null), []);
  const failed = useMemo(() => signal(""), []);
  const busy = useMemo(() => signal(false), []);
  // What has come into a live run's first page is not shown again from a further one.
  const last = first.items.at(-1);
  const beyond = (item: TaskRun) =>
    !last || item.node > last.node || (item.node === last.node && item.index > last.index);
  const items = [...first.items, ...(further.value?.items ?? []).filter(beyond)];
  const next = further.value ? further.value.next : first.next;
  const searched = first.searched + (further.value?.searched ?? 0);
  async function more(): Promise<void> {
    busy.value = true;
    try {
      const page = await api.taskRuns(run, { ...filter, limit: LIMIT, cursor: next });
      const { items = [], searched = 0 } = further.value ?? {};
      further.value = {
        items: [...items, ...page.items],
        next: page.next,
        searched: searched + page.searched,
      };
      failed.value = "";
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      failed.value = error.message;
    } finally {
      busy.value = false;
    }
  }
  return (
    <>
      {items.length === 0 && <p class="muted">No match among the first {number(searched)} task runs.</p>}
      <div class="card scroll" hidden={items.length === 0}>
        <table>
          <thead>
            <tr>
              <th>Task run</th>
              <th>State</th>
              <th class="num">Tries</th>
              <th class="num">Duration</th>
              <th class="wide">Worker</th>
            </tr>
          </thead>
          <tbody>
            {items.map((item) => (
              <tr key={`${item.node} ${item.index}`}>
                <td>
                  <a href={at("runs", run, "items", item.node, item.index)}>
                    {name(item, item.task)}
                  </a>
                </td>
                <td>
                  <Badge state={item.state} name={item.state_name} />
                  {(item.error ?? item.reason) && (
                    <div class="muted small clip">{lastLine(item.error ?? item.reason ?? "")}</div>
                  )}
                </td>
                <td class="num">{item.attempts}</td>
                <td class="num">{duration(item.seconds)}</td>
                <td class="wide mono small">{item.worker ?? "–"}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {failed.value && <p class="note bad" role="alert">{failed.value}</p>}
      {next && (
        <div class="centred">
          <button type="button" disabled={busy.value} onClick={more}>
            {busy.value ? "Reading…" : filter.search ? "Search on" : "More"}
          </button>
          {filter.search !== "" && items.length > 0 && (
            <p class="muted small">{number(searched)} task runs looked at so far</p>
          )}
        </div>
      )}
    </>
  );
}
