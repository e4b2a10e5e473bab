// Reading from the API inside a component: value, failure and reading again after an outage.
import { type ReadonlySignal, signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { Problem } from "./api.ts";
import { epoch } from "./health.ts";
import { Persistence } from "./persist.ts";

export interface Loaded<T> {
  value: ReadonlySignal<T | null>;
  problem: ReadonlySignal<Problem | null>;
  /** Read again; a reading that is under way is given up. */
  again: () => void;
}

/**
 * Read when the component appears, when `key` changes, after an outage, and every `everySeconds`.
 *
 * An older value stays visible while a newer one is on its way, unless `key` has changed.
 */
export function useLoad<T>(
  key: string,
  read: (signal: AbortSignal) => Promise<T>,
  everySeconds?: number,
): Loaded<T> {
  const loader = useMemo(() => new Loader(read), [key]);
  loader.read = read;
  const outages = epoch.value;
  useEffect(() => {
    loader.again();
    return () => loader.stop();
  }, [loader, outages]);
  useEffect(() => {
    if (!everySeconds) return;
    const timer = setInterval(() => document.hidden || loader.again(), everySeconds * 1000);
    return () => clearInterval(timer);
  }, [loader, everySeconds]);
  return loader;
}

class Loader<T> implements Loaded<T> {
  readonly value = signal<T | null>(null);
  readonly problem = signal<Problem | null>(null);
  private current: AbortController | null = null;
  private readonly persistence = new Persistence(() => this.again());

  constructor(public read: (signal: AbortSignal) => Promise<T>) {}

  again = (): void => {
    this.stop();
    const mine = this.current = new AbortController();
    this.read(mine.signal).then(
      (value) => {
        if (mine.signal.aborted) return;
        this.persistence.succeeded();
        this.value.value = value;
        this.problem.value = null;
      },
      (error) => {
        if (mine.signal.aborted) return;
        this.persistence.failed(error);
        this.problem.value = error instanceof Problem ? error : new Problem(0, "Error", String(error));
      },
    );
  };

  stop(): void {
    this.current?.abort();
    this.persistence.stop();
  }
}
