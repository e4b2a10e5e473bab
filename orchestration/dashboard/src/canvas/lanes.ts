// The timeline of a run: workers as lanes, attempts as bars. Of a hundred thousand bars one pixel column holds
// many; each column shows the one that somebody must see.
import { LOST, type Timeline } from "./codec.ts";
import { STATES } from "../states.ts";

/** Positions of attempts by lane, in the order of their starts. No two of one lane overlap. */
export interface Lane {
  worker: number;
  rows: Uint32Array;
}

export interface Span {
  from: number;
  to: number;
}

/** Starts come from a clock and ends from a duration: they may disagree by as much. */
const SLACK_SECONDS = 1e-4;
const SHORTEST_SPAN_SECONDS = 1e-3;

/** From the first start to the last end; null where nothing has run. */
export function extentOf(timeline: Timeline): Span | null {
  let [from, to] = [Infinity, -Infinity];
  for (let i = 0; i < timeline.started.length; i++) {
    from = Math.min(from, timeline.started[i]!);
    to = Math.max(to, endOf(timeline, i));
  }
  return from === Infinity ? null : { from, to: Math.max(to, from + SHORTEST_SPAN_SECONDS) };
}

export function endOf(timeline: Timeline, row: number): number {
  return timeline.started[row]! + timeline.seconds[row]!;
}

/** Give each worker as many lanes as ran there at once, workers in the order of their names. */
export function pack(timeline: Timeline): Lane[] {
  const { worker, workers } = timeline;
  const byWorker = new Map<number, number[]>();
  for (let row = 0; row < worker.length; row++) {
    const mine = byWorker.get(worker[row]!);
    if (mine) mine.push(row);
    else byWorker.set(worker[row]!, [row]);
  }
  const order = [...byWorker.keys()].sort((a, b) =>
    (workers[a] ?? "").localeCompare(workers[b] ?? "", undefined, { numeric: true })
  );
  return order.flatMap((one) =>
    packed(timeline, byWorker.get(one)!).map((rows) => ({ worker: one, rows: Uint32Array.from(rows) }))
  );
}

/** Rows of one worker in lanes without overlap, each row in the first that has room. */
function packed({ started, seconds }: Timeline, rows: number[]): number[][] {
  // A worker's attempts of one node come in order: Array's sort, unlike a typed array's, is quick with what is sorted.
  rows.sort((a, b) => started[a]! - started[b]!);
  const lanes: number[][] = [];
  const ends: number[] = [];
  for (const row of rows) {
    const from = started[row]! + SLACK_SECONDS;
    let lane = 0;
    while (lane < lanes.length && ends[lane]! > from) lane++;
    ends[lane] = started[row]! + seconds[row]!;
    if (lane < lanes.length) lanes[lane]!.push(row);
    else lanes.push([row]);
  }
  return lanes;
}

/** Whether an attempt was lost with its worker: the task run may have gone on since. */
export function isLost(timeline: Timeline, row: number): boolean {
  return timeline.outcome[row] === LOST;
}

/** How many attempts are shown in the colour of which state, and how many with a mark. */
export function tallyOf(timeline: Timeline): { states: Uint32Array; retries: number; losses: number } {
  const states = new Uint32Array(STATES.length);
  let [retries, losses] = [0, 0];
  for (let row = 0; row < timeline.attempt.length; row++) {
    if (timeline.attempt[row]! > 1) retries++;
    if (isLost(timeline, row)) losses++;
    else states[timeline.state[row]!]!++;
  }
  return { states, retries, losses };
}

/** What is shown first where several meet in one column; losses come before all of them. */
const RANKS = ["Crashed", "Failed", "AwaitingRetry", "Cancelled", "UpstreamFailed", "Skipped"] as const;
const RANK = Uint8Array.from(STATES, (state) => {
  const rank = RANKS.indexOf(state as typeof RANKS[number]);
  return rank < 0 ? RANKS.length : rank;
});

function rankOf({ outcome, state }: Timeline, row: number): number {
  return outcome[row] === LOST ? -1 : RANK[state[row]!]!;
}

/** For each pixel column of a lane the attempt that is shown there, -1 for none. */
export function columnsOf(timeline: Timeline, lane: Lane, view: Span, width: number): Int32Array {
  const columns = new Int32Array(width).fill(-1);
  const scale = width / (view.to - view.from);
  for (let k = firstAfter(timeline, lane, view.from); k < lane.rows.length; k++) {
    const row = lane.rows[k]!;
    if (timeline.started[row]! >= view.to) break;
    const first = Math.max(0, Math.floor((timeline.started[row]! - view.from) * scale));
    const last = Math.min(width, Math.max(first + 1, Math.round((endOf(timeline, row) - view.from) * scale)));
    const rank = rankOf(timeline, row);
    for (let x = first; x < last; x++) {
      const there = columns[x]!;
      if (there < 0 || rank < rankOf(timeline, there)) columns[x] = row;
    }
  }
  return columns;
}

/** The attempt that ran in a lane at a time, or the nearest within `reach` seconds; -1 for none. */
export function attemptAt(timeline: Timeline, lane: Lane, at: number, reach: number): number {
  let best = -1;
  let least = reach;
  for (let k = firstAfter(timeline, lane, at - reach); k < lane.rows.length; k++) {
    const row = lane.rows[k]!;
    const distance = Math.max(timeline.started[row]! - at, at - endOf(timeline, row), 0);
    if (timeline.started[row]! > at + reach) break;
    if (distance < least || (best < 0 && distance <= least)) [best, least] = [row, distance];
    if (distance === 0) break;
  }
  return best;
}

/** The place in a lane of the first attempt that ends after a time; ends are in order, too. */
function firstAfter(timeline: Timeline, lane: Lane, at: number): number {
  let [low, high] = [0, lane.rows.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (endOf(timeline, lane.rows[middle]!) <= at) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Show `factor` times as much time, that at `at` staying where it is, never more than there is. */
export function zoomed(view: Span, extent: Span, at: number, factor: number): Span {
  const whole = extent.to - extent.from;
  const length = Math.min(whole, Math.max(SHORTEST_SPAN_SECONDS, (view.to - view.from) * factor));
  const from = at - (at - view.from) / (view.to - view.from) * length;
  return shifted({ from, to: from + length }, extent, 0);
}

/** Move what is shown, but not beyond the ends. */
export function shifted(view: Span, extent: Span, seconds: number): Span {
  const length = view.to - view.from;
  const from = Math.max(extent.from, Math.min(extent.to - length, view.from + seconds));
  return { from, to: from + length };
}

/** Round seconds since the start, at most `wanted` of them between the view's ends. */
export function ticksOf(view: Span, origin: number, wanted: number): number[] {
  const rough = (view.to - view.from) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough) ?? 10 * power;
  const found: number[] = [];
  for (let n = Math.ceil((view.from - origin) / step); n * step <= view.to - origin; n++) {
    found.push(n * step);
  }
  return found;
}
