// States of runs and task runs: their order is core.states.State's, whose values come as bytes.
import { number } from "./time.ts";

export const STATES = [
  "Pending",
  "Ready",
  "AwaitingLimit",
  "Submitted",
  "Running",
  "AwaitingRetry",
  "Paused",
  "Completed",
  "Skipped",
  "Failed",
  "UpstreamFailed",
  "Crashed",
  "Cancelled",
] as const;
export type State = typeof STATES[number];

/** Each state has a glyph, so that nobody has to tell them apart by colour. */
export const GLYPHS: Record<State, string> = {
  Pending: "○",
  Ready: "◔",
  AwaitingLimit: "⧗",
  Submitted: "◑",
  Running: "▶",
  AwaitingRetry: "↻",
  Paused: "‖",
  Completed: "✓",
  Skipped: "»",
  Failed: "✕",
  UpstreamFailed: "⤬",
  Crashed: "↯",
  Cancelled: "⊘",
};

/** States of a flow run, in the order of their chips. */
export const RUN_STATES = [
  "Running",
  "Pending",
  "AwaitingRetry",
  "Paused",
  "Cancelling",
  "Completed",
  "Failed",
  "Crashed",
  "Cancelled",
] as const;

const TERMINAL: ReadonlySet<string> = new Set<State>([
  "Completed",
  "Skipped",
  "Failed",
  "UpstreamFailed",
  "Crashed",
  "Cancelled",
]);

/** Bars show what is done first and what waits last. */
export const BAR_ORDER: readonly State[] = [
  "Completed",
  "Skipped",
  "Failed",
  "Crashed",
  "UpstreamFailed",
  "Cancelled",
  "Running",
  "Submitted",
  "AwaitingRetry",
  "AwaitingLimit",
  "Paused",
  "Ready",
  "Pending",
];

export function isState(name: string): name is State {
  return (STATES as readonly string[]).includes(name);
}

export function isTerminal(name: string): boolean {
  return TERMINAL.has(name);
}

export function glyph(name: string): string {
  if (isState(name)) return GLYPHS[name];
  return name === "Cancelling" ? GLYPHS.Cancelled : "•";
}

/** "AwaitingLimit" as people read it: "Awaiting limit". */
export function words(name: string): string {
  return name.replaceAll(/(?<=[a-z])[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}

export function total(counts: Partial<Record<string, number>>): number {
  return Object.values(counts).reduce<number>((sum, count) => sum + (count ?? 0), 0);
}

export function finished(counts: Partial<Record<string, number>>): number {
  return Object.entries(counts).reduce((sum, [name, count]) => sum + (isTerminal(name) ? count ?? 0 : 0), 0);
}

/** What somebody wants to know beside how much has succeeded; what only waits for its turn is the rest. */
const TOLD = BAR_ORDER.filter((state) =>
  !["Completed", "Skipped", "Submitted", "Ready", "Pending"].includes(state)
);

/** "39 of 40 · 1 failed": how much has succeeded of how much, and what has not or is under way. */
export function figures(counts: Partial<Record<string, number>>): string {
  const succeeded = (counts.Completed ?? 0) + (counts.Skipped ?? 0);
  const others = TOLD.filter((state) => counts[state])
    .map((state) => `${number(counts[state]!)} ${words(state).toLowerCase()}`);
  return [`${number(succeeded)} of ${number(total(counts))}`, ...others].join(" · ");
}
