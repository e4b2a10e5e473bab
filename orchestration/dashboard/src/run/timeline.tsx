import { signal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { api } from "../api.ts";
import { decodeTimeline, joined, type Timeline } from "../canvas/codec.ts";
import {
  attemptAt,
  columnsOf,
  extentOf,
  isLost,
  type Lane,
  pack,
  shifted,
  type Span,
  tallyOf,
  ticksOf,
  zoomed,
} from "../canvas/lanes.ts";
import { useLoad } from "../load.ts";
import { namer } from "../names.ts";
import { at, go } from "../router.ts";
import { BAR_ORDER, STATES, words } from "../states.ts";
import { type Palette, palette } from "../theme.ts";
import { duration, number } from "../time.ts";
import { Empty, Failure, Loading } from "../ui/text.tsx";
import type { TabProps } from "./tabs.ts";

const LANE = 20;
const BAR = 15;
const AXIS = 24;
const MOST_LANES = 400;
const REACH_PIXELS = 4;

/** Workers as lanes, each attempt that has ended as a bar. */
export function TimelineTab({ feed, run }: TabProps) {
  const kept = useRef<Timeline | null>(null);
  const loaded = useLoad(
    `timeline ${run.id}`,
    async (signal) => kept.current = await continued(run.id, kept.current, signal),
    run.ended === null ? 3 : 0,
  );
  const timeline = loaded.value.value;
  const ended = run.ended;
  useEffect(() => {
    if (ended !== null && timeline) loaded.again(); // what ended after the last look
  }, [ended]);
  if (!timeline) {
    return loaded.problem.value
      ? <Failure problem={loaded.problem.value} again={loaded.again} />
      : <Loading />;
  }
  if (timeline.started.length === 0) {
    return (
      <Empty title="Nothing has run yet">
        <p>A bar appears here for each attempt that has ended.</p>
      </Empty>
    );
  }
  const name = namer(feed.nodes.value);
  return (
    <section class="card pad" aria-label="Timeline">
      <Lanes timeline={timeline} run={run.id} name={name} />
      <Legend timeline={timeline} />
    </section>
  );
}

/** What is known with what has ended since; the same object where nothing has. */
async function continued(run: string, before: Timeline | null, signal: AbortSignal): Promise<Timeline> {
  const more = decodeTimeline((await api.timeline(run, before?.next ?? null, signal)).bytes);
  if (!before || more.whole) return more;
  return more.started.length ? joined(before, more) : before;
}

/** What colours and marks mean, and how many there are of each. */
function Legend({ timeline }: { timeline: Timeline }) {
  const { states, retries, losses } = useMemo(() => tallyOf(timeline), [timeline]);
  const shown = BAR_ORDER.map((state) => STATES.indexOf(state)).filter((state) => states[state]);
  return (
    <ul class="legend muted small" aria-label="Legend">
      {shown.map((state) => (
        <li key={state}>
          <i class="swatch" data-state={STATES[state]} aria-hidden="true" />
          {number(states[state]!)} {told(state)}
        </li>
      ))}
      {losses > 0 && (
        <li>
          <i class="mark-loss" aria-hidden="true" /> {number(losses)} lost with their worker
        </li>
      )}
      {retries > 0 && (
        <li>
          <i class="mark-retry" aria-hidden="true" />{" "}
          {retries === 1 ? "1 retry" : `${number(retries)} retries`}
        </li>
      )}
    </ul>
  );
}

interface LanesProps {
  timeline: Timeline;
  run: string;
  name: ReturnType<typeof namer>;
}

function Lanes({ timeline, run, name }: LanesProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const width = useMemo(() => signal(0), []);
  const chosen = useMemo(() => signal<Span | null>(null), []);
  const marked = useMemo(() => signal({ lane: 0, row: -1 }), []);
  const all = useMemo(() => pack(timeline), [timeline]);
  const lanes = all.slice(0, MOST_LANES);
  const extent = useMemo(() => extentOf(timeline)!, [timeline]);
  const view = chosen.value ?? extent;
  const colours = palette.value;
  const height = lanes.length * LANE + AXIS;

  useEffect(() => {
    const observer = new ResizeObserver((
      [entry],
    ) => (width.value = Math.floor(entry?.contentRect.width ?? 0)));
    if (canvas.current?.parentElement) observer.observe(canvas.current.parentElement);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    const context = prepared(canvas.current, width.value, height);
    if (context && colours) {
      draw(context, { timeline, lanes, view, origin: extent.from, width: width.value }, colours);
    }
  }, [timeline, view, width.value, colours]);

  const secondsPerPixel = (view.to - view.from) / Math.max(1, width.value);
  const timeAt = (x: number) => view.from + x * secondsPerPixel;
  function show(next: Span): void {
    chosen.value = next.to - next.from >= extent.to - extent.from ? null : next;
  }
  function hover(event: MouseEvent): void {
    if (event.buttons === 1) {
      marked.value = { lane: 0, row: -1 }; // so that the end of a drag is no click on a bar
      if (event.movementX) show(shifted(view, extent, -event.movementX * secondsPerPixel));
      return;
    }
    const lane = Math.floor(event.offsetY / LANE);
    const there = lanes[lane];
    const reach = REACH_PIXELS * secondsPerPixel;
    const row = there ? attemptAt(timeline, there, timeAt(event.offsetX), reach) : -1;
    marked.value = { lane: there ? lane : 0, row };
  }
  function wheel(event: WheelEvent): void {
    if (!event.ctrlKey && !event.shiftKey) return; // the page scrolls
    event.preventDefault();
    show(zoomed(view, extent, timeAt(event.offsetX), (event.deltaY || event.deltaX) > 0 ? 1.25 : 0.8));
  }
  function open(): void {
    const { row } = marked.value;
    if (row >= 0) go(at("runs", run, "items", timeline.node[row]!, timeline.index[row]!));
  }
  function magnify(factor: number): void {
    show(zoomed(view, extent, (view.from + view.to) / 2, factor));
  }
  function press(event: KeyboardEvent): void {
    if (event.key === "Enter") return open();
    if (event.key === "+" || event.key === "-") return magnify(event.key === "+" ? 0.5 : 2);
    const next = neighbour(timeline, lanes, marked.value, event.key);
    if (!next) return;
    event.preventDefault();
    marked.value = next;
    const at = timeline.started[next.row] ?? view.from;
    if (at < view.from || at > view.to) show(shifted(view, extent, at - (view.from + view.to) / 2));
  }
  const workers = timeline.workers.length === 1 ? "1 worker" : `${number(timeline.workers.length)} workers`;
  const told = describe(timeline, name, marked.value.row) ??
    `${number(timeline.started.length)} attempts on ${workers}; arrows move, Enter opens, + and − zoom`;
  return (
    <>
      <div class="lanes-view">
        <ul aria-hidden="true">
          {lanes.map((lane, k) => (
            <li key={k} title={timeline.workers[lane.worker]}>
              <bdi>{timeline.workers[lane.worker] || "?"}</bdi>
            </li>
          ))}
        </ul>
        <div>
          <canvas
            ref={canvas}
            tabIndex={0}
            role="application"
            aria-roledescription="timeline"
            aria-label={told}
            class={marked.value.row >= 0 ? "pointing" : ""}
            onMouseMove={hover}
            onMouseLeave={() => (marked.value = { lane: 0, row: -1 })}
            onWheel={wheel}
            onClick={open}
            onKeyDown={press}
          />
          {marked.value.row >= 0 && width.value > 0 && (
            <i
              class="cell-mark"
              style={markStyle(timeline, marked.value, view, width.value)}
            />
          )}
        </div>
      </div>
      {all.length > lanes.length && (
        <p class="muted">The first {number(lanes.length)} of {number(all.length)} lanes.</p>
      )}
      <div class="cells-foot">
        <span aria-live="polite">{told}</span>
        <button type="button" onClick={() => (chosen.value = null)} disabled={!chosen.value}>All</button>
        <button type="button" aria-label="Zoom out" onClick={() => magnify(2)}>−</button>
        <button type="button" aria-label="Zoom in" onClick={() => magnify(0.5)}>+</button>
      </div>
    </>
  );
}

interface Marked {
  lane: number;
  row: number;
}

function describe(timeline: Timeline, name: ReturnType<typeof namer>, row: number): string | null {
  if (row < 0 || row >= timeline.started.length) return null;
  const whose = name({ node: timeline.node[row]!, index: timeline.index[row]! });
  const state = isLost(timeline, row) ? "lost with its worker" : told(timeline.state[row]!);
  const attempt = timeline.attempt[row]! > 1 ? `, attempt ${timeline.attempt[row]}` : "";
  return `${whose}: ${state} after ${duration(timeline.seconds[row])}${attempt}`;
}

/** How an attempt ended, by what its task run was then. */
function told(state: number): string {
  const name = STATES[state] ?? "";
  return name === "AwaitingRetry" ? "failed, with a retry" : words(name).toLowerCase();
}

/** Where an arrow leads: along the lane, or to what ran at that time in the next one. */
function neighbour(timeline: Timeline, lanes: Lane[], { lane, row }: Marked, key: string): Marked | null {
  const here = lanes[lane];
  if (!here || !/^Arrow/.test(key)) return null;
  if (row < 0) return { lane, row: here.rows[0] ?? -1 };
  if (key === "ArrowLeft" || key === "ArrowRight") {
    const next = here.rows[here.rows.indexOf(row) + (key === "ArrowRight" ? 1 : -1)];
    return { lane, row: next ?? row };
  }
  const to = lane + (key === "ArrowDown" ? 1 : -1);
  const there = lanes[to];
  return there
    ? { lane: to, row: attemptAt(timeline, there, timeline.started[row]!, Infinity) }
    : { lane, row };
}

function markStyle(
  timeline: Timeline,
  { lane, row }: Marked,
  view: Span,
  width: number,
): Record<string, string> {
  const scale = width / (view.to - view.from);
  const left = Math.max(0, (timeline.started[row]! - view.from) * scale);
  const right = Math.min(width, left + Math.max(2, timeline.seconds[row]! * scale));
  return {
    left: `${left - 1}px`,
    top: `${lane * LANE}px`,
    width: `${Math.max(2, right - left) + 2}px`,
    height: `${BAR + 2}px`,
  };
}

function prepared(canvas: HTMLCanvasElement | null, width: number, height: number) {
  const context = canvas?.getContext("2d");
  if (!canvas || !context || !width) return null;
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  context.scale(ratio, ratio);
  return context;
}

interface Drawn {
  timeline: Timeline;
  lanes: Lane[];
  view: Span;
  origin: number;
  width: number;
}

function draw(context: CanvasRenderingContext2D, drawn: Drawn, colours: Palette): void {
  const { timeline, lanes, view, origin, width } = drawn;
  for (const [k, lane] of lanes.entries()) {
    const columns = columnsOf(timeline, lane, view, width);
    const top = k * LANE + 1;
    context.fillStyle = colours.line;
    context.fillRect(0, top + BAR, width, 1);
    for (let x = 0; x < width;) {
      const row = columns[x]!;
      let end = x + 1;
      while (end < width && columns[end] === row) end++;
      if (row >= 0) bar(context, timeline, row, x, end, top, colours);
      x = end;
    }
  }
  context.font = "11px system-ui, sans-serif";
  context.fillStyle = colours.muted;
  context.textBaseline = "top";
  const scale = width / (view.to - view.from);
  for (const seconds of ticksOf(view, origin, width / 90)) {
    const x = (origin + seconds - view.from) * scale;
    context.fillRect(Math.round(x), lanes.length * LANE, 1, 5);
    context.textAlign = x < 20 ? "left" : x > width - 30 ? "right" : "center";
    context.fillText(seconds ? duration(seconds) : "0", x, lanes.length * LANE + 8);
  }
}

/** A bar in the colour of what it led to; a second or later attempt and a loss have marks of their own. */
function bar(
  context: CanvasRenderingContext2D,
  timeline: Timeline,
  row: number,
  from: number,
  to: number,
  top: number,
  colours: Palette,
): void {
  const lost = isLost(timeline, row);
  context.fillStyle = colours.state[lost ? "Crashed" : STATES[timeline.state[row]!] ?? "Pending"];
  const gap = to - from > 4 ? 1 : 0; // so that wide neighbours stay two
  context.fillRect(from, top, to - from - gap, BAR);
  context.fillStyle = colours.text;
  if (timeline.attempt[row]! > 1) context.fillRect(from, top, 2, 5);
  if (lost) cross(context, to - gap, top + BAR / 2, colours);
}

/** Where an attempt was cut off. */
function cross(context: CanvasRenderingContext2D, x: number, y: number, colours: Palette): void {
  context.strokeStyle = colours.text;
  context.lineWidth = 1.5;
  context.beginPath();
  context.moveTo(x - 3, y - 3);
  context.lineTo(x + 3, y + 3);
  context.moveTo(x + 3, y - 3);
  context.lineTo(x - 3, y + 3);
  context.stroke();
}
