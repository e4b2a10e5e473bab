// Times in the viewer's zone, durations in words. `now` moves on once a second, and only while somebody looks.
import { signal } from "@preact/signals";

export const now = signal(Date.now() / 1000);

export function startClock(): void {
  setInterval(() => {
    if (!document.hidden) now.value = Date.now() / 1000;
  }, 1000);
  document.addEventListener("visibilitychange", () => (now.value = Date.now() / 1000));
}

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const YEAR = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "numeric" });
const EXACT = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

/** "14:03:07", with the day where it is not today's, with the year where it is not this one. */
export function clock(seconds: number, today = now.peek()): string {
  const date = new Date(seconds * 1000);
  const reference = new Date(today * 1000);
  const time = CLOCK.format(date);
  if (date.toDateString() === reference.toDateString()) return time;
  return `${(date.getFullYear() === reference.getFullYear() ? DAY : YEAR).format(date)}, ${time}`;
}

export function exact(seconds: number): string {
  return EXACT.format(new Date(seconds * 1000));
}

/** "just now", "40 s ago", "3 min ago", "5 h ago", "12 d ago". */
export function ago(seconds: number, reference = now.value): string {
  const passed = Math.max(0, reference - seconds);
  if (passed < 5) return "just now";
  if (passed < 60) return `${Math.floor(passed)} s ago`;
  if (passed < 3600) return `${Math.floor(passed / 60)} min ago`;
  if (passed < 2 * 86400) return `${Math.floor(passed / 3600)} h ago`;
  return `${Math.floor(passed / 86400)} d ago`;
}

/** Three digits that matter: "412 µs", "8.31 ms", "4.2 s", "3 min 07 s", "2 h 05 min", "3 d 4 h". */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${Number((seconds * 1000).toPrecision(3))} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 59.5) return `${Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.floor(minutes / 1440)} d ${Math.floor(minutes / 60) % 24} h`;
}

const NUMBER = new Intl.NumberFormat();

export function number(value: number): string {
  return NUMBER.format(value);
}
