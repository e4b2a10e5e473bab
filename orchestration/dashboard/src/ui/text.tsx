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

const SPECIAL = /(`[^`]+`|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)/;

/** Take what the server says apart: words, commands in backticks, and moments. */
export function partsOf(text: string): (string | { command: string } | { at: number })[] {
  return text.split(SPECIAL).filter(Boolean).map((part) => {
    if (!SPECIAL.test(part)) return part;
    return part.startsWith("`") ? { command: part.slice(1, -1) } : { at: Date.parse(part) / 1000 };
  });
}

/** What the server says, with commands as such and moments in the viewer's zone. */
export function Told({ text }: { text: string }) {
  const parts = partsOf(text).map((part, i) => {
    if (typeof part === "string") return part;
    return "at" in part ? <Moment key={i} at={part.at} /> : <code key={i}>{part.command}</code>;
  });
  return <>{parts}</>;
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
