// Server-sent events that come back by themselves: after a lost connection, a server that was away, a hidden tab.
// A browser allows six connections to one origin over all its tabs, so a hidden tab holds none.

import { suspect } from "./health.ts";
import { Persistence } from "./persist.ts";

export interface StreamHandlers {
  /**
   * What was read before may be older than what is told from now on.
   *
   * Args:
   *   missed: events have been missed; else these are the first.
   */
  onReset: (missed: boolean) => void;
  /** By the event's name, with its data as sent. */
  on: Record<string, (data: string) => void>;
  onState?: (live: boolean) => void;
}

/** Listen until the returned function is called. */
export function listen(target: string, handlers: StreamHandlers): () => void {
  let source: EventSource | null = null;
  const persistence = new Persistence(open);
  let last = "";

  function close(): void {
    persistence.stop();
    source?.close();
    source = null;
    handlers.onState?.(false);
  }

  function open(): void {
    close();
    if (document.hidden) return;
    source = new EventSource(last ? `${target}?last_event_id=${encodeURIComponent(last)}` : target);
    source.onopen = () => {
      persistence.succeeded();
      handlers.onState?.(true);
      if (!last) handlers.onReset(false);
    };
    source.onerror = again;
    source.addEventListener("reset", () => handlers.onReset(true));
    source.addEventListener("bye", again);
    for (const [name, handle] of Object.entries(handlers.on)) {
      source.addEventListener(name, (event) => {
        last = event.lastEventId || last;
        handle(event.data);
      });
    }
  }

  /** EventSource gives up after an error answer, and keeps its own pace else: one rule for both. */
  function again(): void {
    close();
    suspect();
    persistence.later();
  }

  const shown = () => document.hidden ? close() : open();
  document.addEventListener("visibilitychange", shown);
  open();
  return () => {
    document.removeEventListener("visibilitychange", shown);
    close();
  };
}
