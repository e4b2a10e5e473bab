import { signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { api, Problem } from "../api.ts";
import { eachChange } from "../canvas/codec.ts";
import { Cells } from "../canvas/grid.ts";
import type { RunFeed } from "../feed.ts";
import { lineOf, nameOf } from "../names.ts";
import { at, go } from "../router.ts";
import { BAR_ORDER, GLYPHS, STATES, words } from "../states.ts";
import { number } from "../time.ts";
import type { RunNode } from "../types.ts";
import { CellGrid } from "../ui/cells.tsx";
import { Empty, Failure, Loading } from "../ui/text.tsx";
import type { TabProps } from "./tabs.ts";

/** The items of one node as cells, live. Without a node in the address, those of the widest one. */
export function MapGrid({ feed, run, node }: TabProps) {
  const nodes = feed.nodes.value;
  const shown = node === undefined
    ? nodes.reduce<RunNode | null>((widest, one) => widest && widest.width >= one.width ? widest : one, null)
    : nodes.find((one) => one.node === Number(node));
  if (!shown) {
    return (
      <Empty title={nodes.length ? "This run has no such node" : "No task yet"}>
        <p>{nodes.length ? "" : "Cells appear here as soon as the flow submits or maps a task."}</p>
        <a href={at("runs", run.id)}>To the run</a>
      </Empty>
    );
  }
  return (
    <section class="stack" aria-label="Items">
      <div class="filters">
        <span class="muted" aria-hidden="true">Items of</span>
        <select
          aria-label="Task"
          value={shown.node}
          onChange={(event) => go(at("runs", run.id, "nodes", event.currentTarget.value), { replace: true })}
        >
          {nodes.map((one) => (
            <option key={one.node} value={one.node}>
              {lineOf(one.path) + (one.kind === "map" ? ` × ${number(one.width)}` : "")}
            </option>
          ))}
        </select>
      </div>
      <LiveCells key={`${run.id} ${shown.node}`} feed={feed} node={shown} />
    </section>
  );
}

function LiveCells({ feed, node }: { feed: RunFeed; node: RunNode }) {
  const live = useMemo(() => new LiveMap(feed, node.node), []);
  const only = useMemo(() => signal(-1), []);
  useEffect(() => live.follow(), []);
  useEffect(() => live.load(), [feed.generation.value]);
  const version = live.version.value;
  if (live.problem.value && !live.cells) {
    return (
      <Failure
        problem={live.problem.value}
        again={() => live.load()}
      />
    );
  }
  if (!live.cells) return <Loading />;
  if (live.cells.states.length === 0) {
    return (
      <Empty title="No items yet">
        <p>How many there are is known as soon as what it maps over is.</p>
      </Empty>
    );
  }
  const { counts } = live.cells;
  const present = BAR_ORDER.map((state) => STATES.indexOf(state)).filter((state) => counts[state]);
  return (
    <>
      <div class="chips" role="group" aria-label="States">
        {present.map((state) => (
          <button
            key={state}
            type="button"
            class="chip"
            aria-pressed={only.value === state}
            onClick={() => (only.value = only.value === state ? -1 : state)}
          >
            <span class="dot" data-state={STATES[state]} aria-hidden="true">{GLYPHS[STATES[state]!]}</span>
            {words(STATES[state]!)} <b>{number(counts[state]!)}</b>
          </button>
        ))}
      </div>
      <div class="card pad">
        <CellGrid
          cells={live.cells}
          version={version}
          only={only.value}
          name={(index) => nameOf(node.task, node.kind, index)}
          open={(index) => go(at("runs", feed.id, "items", node.node, index))}
        />
      </div>
    </>
  );
}

/**
 * A node's states: a snapshot, and the stream's changes on top.
 *
 * Changes that come while the snapshot is on its way are put on top of it. Some may be older than it; the stream
 * then tells the newer state, too, since it compares with what it has told before.
 */
class LiveMap {
  cells: Cells | null = null;
  readonly version = signal(0);
  readonly problem = signal<Problem | null>(null);
  private waiting: Uint8Array[] | null = null;
  private frame = 0;
  private abort = new AbortController();

  constructor(private readonly feed: RunFeed, private readonly node: number) {}

  follow(): () => void {
    const stop = this.feed.onItems((bytes) => this.take(bytes));
    return () => {
      stop();
      this.abort.abort();
      cancelAnimationFrame(this.frame);
    };
  }

  load(): void {
    this.abort.abort();
    const { signal } = this.abort = new AbortController();
    this.waiting = [];
    api.states(this.feed.id, this.node, signal).then(
      ({ bytes }) => {
        if (signal.aborted) return;
        this.cells = new Cells(new Uint8Array(bytes), STATES.length);
        this.problem.value = null;
        const missed = this.waiting ?? [];
        this.waiting = null;
        for (const one of missed) this.take(one);
        this.version.value++;
      },
      (error) => {
        if (signal.aborted) return;
        this.problem.value = error instanceof Problem ? error : new Problem(0, "Error", String(error));
      },
    );
  }

  private take(bytes: Uint8Array): void {
    if (this.waiting) {
      this.waiting.push(bytes);
      return;
    }
    eachChange(bytes, (node, index, state) => node === this.node && this.cells?.set(index, state));
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.version.value++;
    });
  }
}
