import { signal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { namer } from "../names.ts";
import { address, setQuery } from "../router.ts";
import { number } from "../time.ts";
import { LogLines } from "../ui/log-lines.tsx";
import { SearchField } from "../ui/search-field.tsx";
import { Empty, Failure } from "../ui/text.tsx";
import { KEPT, LogStore } from "./log-store.ts";
import type { TabProps } from "./tabs.ts";

const LEVELS: [number, string][] = [[0, "All levels"], [20, "Info"], [30, "Warnings"], [40, "Errors"]];

/** The run's log with a live tail; level and search are in the address. */
export function Logs({ feed, run }: TabProps) {
  const query = address.value.query;
  const [search, minLevel] = [query.get("search") ?? "", Number(query.get("level") ?? 0)];
  const generation = feed.generation.value;
  const logs = useMemo(() => new LogStore(feed, { minLevel, search }), [feed, minLevel, search, generation]);
  const follow = useMemo(() => signal(true), [feed]);
  const box = useRef<HTMLDivElement>(null);
  const nodes = feed.nodes.value;
  const name = useMemo(() => namer(nodes), [nodes]);
  const lines = logs.lines.value;
  useEffect(() => () => logs.close(), [logs]);
  useEffect(() => {
    if (follow.value && box.current) showEnd(box.current);
  }, [lines, follow.value]);

  /** Who scrolls up wants to read; who is at the end again wants to follow. */
  function scrolled(): void {
    const element = box.current;
    if (element) follow.value = element.scrollHeight - element.scrollTop - element.clientHeight < 40;
  }
  return (
    <section class="stack" aria-label="Logs">
      <form class="filters" role="search" onSubmit={(event) => event.preventDefault()}>
        <SearchField label="Search the log" placeholder="Search the log ( / )" />
        <select
          aria-label="Level"
          value={String(minLevel)}
          onChange={(event) => setQuery({ level: event.currentTarget.value })}
        >
          {LEVELS.map(([level, title]) => (
            <option key={level} value={level ? String(level) : "0"}>{title}</option>
          ))}
        </select>
        <label class="check">
          <input
            type="checkbox"
            checked={follow.value}
            onChange={(event) => (follow.value = event.currentTarget.checked)}
          />{" "}
          Follow
        </label>
      </form>
      {logs.problem.value && <Failure problem={logs.problem.value} />}
      {logs.dropped.value > 0 && (
        <p class="muted small">
          The newest {number(KEPT)} lines; {number(logs.dropped.value)} older ones are left out.{" "}
          <code>millrace runs logs {run.name}</code> has all.
        </p>
      )}
      {lines.length === 0 && !logs.reading.value ? <NoLine filtered={search !== "" || minLevel > 0} /> : (
        <div
          class="card logbox"
          ref={box}
          onScroll={scrolled}
          tabIndex={0}
          role="log"
          aria-label="Log lines"
        >
          <LogLines run={run.id} lines={lines} name={name} />
        </div>
      )}
    </section>
  );
}

/** Scroll to the end, with as much room below it that no line is cut at the top. */
function showEnd(box: HTMLElement): void {
  const list = box.querySelector<HTMLElement>(".log");
  if (!list) return;
  list.style.paddingBottom = "0";
  const hidden = box.scrollHeight - box.clientHeight;
  const lines = list.children as HTMLCollectionOf<HTMLElement>;
  let [low, high] = [0, lines.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (lines[middle]!.offsetTop < hidden) low = middle + 1;
    else high = middle;
  }
  const top = lines[low]?.offsetTop ?? 0;
  if (hidden > 0 && top > hidden) list.style.paddingBottom = `${top - hidden}px`;
  box.scrollTop = box.scrollHeight;
}

function NoLine({ filtered }: { filtered: boolean }) {
  return filtered
    ? (
      <Empty title="No line matches">
        <button type="button" onClick={() => setQuery({ search: null, level: null })}>Show all lines</button>
      </Empty>
    )
    : (
      <Empty title="Nothing logged">
        <p>
          Lines of <code>get_run_logger()</code> in flows and tasks appear here while they are written.
        </p>
      </Empty>
    );
}
