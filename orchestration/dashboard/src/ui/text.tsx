import type { ComponentChildren } from "preact";
import type { Problem } from "../api.ts";
import { trouble } from "../health.ts";
import { ago, clock, duration, exact, now } from "../time.ts";

/** A moment: the time of day in the viewer's zone, exact to the second with its zone on hover. */
export function Moment({ at, relative }: { at: number | null | undefined; relative?: boolean }) {
  if (at === null || at === undefined) return <span class="muted">–</span>;
  const text = relative ? ago(at) : clock(at);
  return <time class="nowrap" dateTime={new Date(at * 1000).toISOString()} title={exact(at)}>{text}</time>;
}

/** A duration that grows while `ended` is open. */
export function Lasting(
  { started, ended, seconds }: { started: number | null; ended: number | null; seconds: number | null },
) {
  const open = started !== null && ended === null;
  const passed = open ? now.value - started : 0;
  // The clock that is shown moves on once a second, and this machine's may be behind the worker's.
  return <span class="nowrap">{open ? passed < 1 ? "< 1 s" : duration(passed) : duration(seconds)}</span>;
}

/** What an error says, without its traceback. */
export function lastLine(error: string): string {
  return error.trimEnd().split("\n").at(-1) ?? "";
}

/** Nothing to show: says why, and what to do next. */
export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <b>{title}</b>
      {children}
    </div>
  );
}

/** What the server says, with commands as such: "Start it with `millrace server start`". */
export function Told({ text }: { text: string }) {
  return <>{text.split("`").map((part, i) => i % 2 ? <code key={i}>{part}</code> : part)}</>;
}

/** What went wrong; where the banner tells it already, only what becomes of this page. */
export function Failure({ problem, again }: { problem: Problem; again?: () => void }) {
  if (problem.message === trouble.value?.message) {
    return (
      <Empty title="Not loaded yet">
        <p>This appears by itself as soon as there is an answer.</p>
        {again && <button type="button" onClick={again}>Try again</button>}
      </Empty>
    );
  }
  return (
    <div class="note bad" role="alert">
      <Told text={problem.message} /> {again && <button type="button" onClick={again}>Try again</button>}
    </div>
  );
}

export function Loading() {
  return <p class="muted" role="status">Loading…</p>;
}
