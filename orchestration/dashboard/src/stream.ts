// Server-sent events that come back by themselves: after a lost connection, a server that was away, a hidden tab.
// A browser allows six connections to one origin over all its tabs, so a hidden tab holds none.

import { suspect } from "./health.ts";

const FIRST_WAIT_MS = 300;
const LONGEST_WAIT_MS = 5000;

export interface StreamHandlers {
  /** Called when events flow (again): whatever was missed must be read anew. */
  onOpen: () => void;
  /** By the event's name, with its data as sent. */
  on: Record<string, (data: string) => void>;
  onState?: (live: boolean) => void;
}

/** The wait before the n-th try in a row, in milliseconds. */
export function backoff(tries: number): number {
  return Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** tries);
}

/** Listen until the returned function is called. */
export function listen(target: string, handlers: StreamHandlers): () => void {
  let source: EventSource | null = null;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let tries = 0;

  function close(): void {
    clearTimeout(timer);
    source?.close();
    source = null;
    handlers.onState?.(false);
  }

  function open(): void {
    close();
    if (document.hidden) return;
    source = new EventSource(target);
    source.onopen = () => {
      tries = 0;
      handlers.onState?.(true);
      handlers.onOpen();
    };
    source.onerror = again;
    source.addEventListener("bye", again);
    for (const [name, handle] of Object.entries(handlers.on)) {
      source.addEventListener(name, (event) => handle((event as MessageEvent<string>).data));
    }
  }

  /** EventSource gives up after an error answer, and keeps its own pace else: one rule for both. */
  function again(): void {
    close();
    suspect();
    timer = setTimeout(open, backoff(tries++));
  }

  const shown = () => document.hidden ? close() : open();
  document.addEventListener("visibilitychange", shown);
  open();
  return () => {
    document.removeEventListener("visibilitychange", shown);
    close();
  };
}
