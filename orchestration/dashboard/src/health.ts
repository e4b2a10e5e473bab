// Whether the server and its store answer. One signal that the banner shows; pages read again when `epoch` moves on.
import { signal } from "@preact/signals";
import type { Health } from "./types.ts";

export interface Trouble {
  what: "server" | "store" | "token";
  message: string;
}

export const trouble = signal<Trouble | null>(null);
export const health = signal<Health | null>(null);
/** Grows whenever an outage is over: what was read before it may be stale. */
export const epoch = signal(0);

const PATIENT_MS = 5000;
const EAGER_MS = 1000;

export function report(found: Trouble | null): void {
  const before = trouble.value;
  if (before?.what === found?.what && before?.message === found?.message) return;
  trouble.value = found;
  if (before && !found) epoch.value++;
}

let lookNow = (): void => {};

/** A connection was lost: find out at once whether the server has gone with it. */
export function suspect(): void {
  lookNow();
}

/** Ask for the server's health for as long as the page is looked at. */
export function startHealth(): void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  async function look(): Promise<void> {
    clearTimeout(timer);
    if (!document.hidden) await check();
    timer = setTimeout(look, trouble.value ? EAGER_MS : PATIENT_MS);
  }
  lookNow = () => void look();
  document.addEventListener("visibilitychange", () => document.hidden || look());
  look();
}

async function check(): Promise<void> {
  try {
    const response = await fetch("/api/health", { cache: "no-store", signal: AbortSignal.timeout(4000) });
    const answer = await response.json();
    if (response.ok) {
      health.value = answer as Health;
      if (trouble.value?.what !== "token") report(null);
    } else report(describe(response.status, answer));
  } catch {
    report({ what: "server", message: away() });
  }
}

export function away(): string {
  return "The server does not answer. Runs go on without it. Start it again with `millrace server start`; " +
    "this page goes on by itself.";
}

/** A stream's `problem` event: the server lives and cannot reach its store. */
export function storeAway(data: string): void {
  report(describe(503, JSON.parse(data)));
}

/** The trouble that an answer tells of, or null where the answer is only about what was asked. */
export function describe(status: number, answer: unknown): Trouble | null {
  const told = answer as { error?: { message?: string }; message?: string } | null;
  const error = told?.error ?? told;
  if (status === 503) {
    return {
      what: "store",
      message: error?.message ?? "The server cannot reach its store. This page goes on as soon as it can.",
    };
  }
  if (status === 401) {
    return { what: "token", message: error?.message ?? "This server wants a token." };
  }
  return status >= 502 ? { what: "server", message: away() } : null;
}
