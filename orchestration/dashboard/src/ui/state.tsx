import { BAR_ORDER, glyph, words } from "../states.ts";
import { number } from "../time.ts";
import type { Counts } from "../types.ts";

/** A state as glyph and word; `name` is the finer one, such as "TimedOut". */
export function Badge({ state, name }: { state: string; name?: string | null }) {
  return (
    <span class="badge" data-state={state}>
      <span class="dot" aria-hidden="true">{glyph(state)}</span>
      {words(name || state)}
    </span>
  );
}

export function Dot({ state }: { state: string }) {
  return <span class="dot" data-state={state} role="img" aria-label={words(state)}>{glyph(state)}</span>;
}

/** How much of a whole is in which state. */
export function Bar({ counts }: { counts: Counts }) {
  const parts = BAR_ORDER.flatMap((state) => counts[state] ? [{ state, count: counts[state] }] : []);
  const label = parts.map(({ state, count }) => `${number(count)} ${words(state).toLowerCase()}`).join(", ");
  return (
    <div class="bar" role="img" aria-label={label || "nothing yet"} title={label}>
      {parts.map(({ state, count }) => <i key={state} data-state={state} style={{ flexGrow: count }} />)}
    </div>
  );
}
