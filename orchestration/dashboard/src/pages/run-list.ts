// The runs that match a filter, newest first, kept up to date by the list's stream.
import { signal } from "@preact/signals";
import { api, Problem, type RunFilter } from "../api.ts";
import { storeAway } from "../health.ts";
import { Persistence } from "../persist.ts";
import { listen } from "../stream.ts";
import type { Run } from "../types.ts";

export const FIRST_PAGE = 300;
const SETTLE_MS = 700;

export class RunList {
  readonly runs = signal<readonly Run[] | null>(null);
  readonly states = signal<Record<string, number>>({});
  /** How many runs were counted, if not all that there are. */
  readonly ofNewest = signal<number | null>(null);
  readonly problem = signal<Problem | null>(null);
  readonly live = signal(false);
  readonly more = signal(false);
  /** How many runs were looked at, of the newest ones on. */
  readonly searched = signal(0);
  /** Older ones are being read; why they could not be. */
  readonly busy = signal(false);
  readonly failed = signal("");

  private cursor: string | null = null;
  private further = false;
  private abort = new AbortController();
  private readonly closed = new AbortController();
  private timer: ReturnType<typeof setTimeout> | undefined;
  private readonly stop: () => void;
  private readonly persistence = new Persistence(() => this.refresh());

  constructor(private readonly filter: RunFilter) {
    this.refresh();
    this.stop = listen("/api/stream", {
      onReset: () => this.refresh(),
      onState: (live) => (this.live.value = live),
      on: { problem: storeAway, runs: (data) => this.take(JSON.parse(data) as Run[]) },
    });
  }

  refresh(): void {
    this.abort.abort();
    this.persistence.stop();
    const { signal } = this.abort = new AbortController();
    this.read(signal).catch((error) => {
      if (signal.aborted) return;
      this.persistence.failed(error);
      if (error instanceof Problem) this.problem.value = error;
    });
  }

  private async read(signal: AbortSignal): Promise<void> {
    const counted = { ...this.filter, state: [] }; // the chips count what choosing them would show
    const [page, summary] = await Promise.all([
      api.runs(this.filter, { limit: FIRST_PAGE }, signal),
      api.summary(counted, signal),
    ]);
    if (signal.aborted) return;
    this.persistence.succeeded();
    if (this.further) this.runs.value = withOlder(page.items, this.runs.value ?? []);
    else {
      this.runs.value = page.items;
      this.goOnFrom(page.next);
      this.searched.value = page.searched;
    }
    this.states.value = summary.states;
    this.ofNewest.value = summary.of_newest;
    this.problem.value = null;
  }

  /** Read the next page; what was read stays when the list is read again. */
  async older(): Promise<void> {
    if (!this.cursor || this.busy.value) return;
    const stopped = this.closed.signal;
    this.busy.value = true;
    try {
      const page = await api.runs(this.filter, { limit: FIRST_PAGE, cursor: this.cursor }, stopped);
      this.further = true;
      this.runs.value = [...this.runs.value ?? [], ...page.items];
      this.goOnFrom(page.next);
      this.searched.value += page.searched;
      this.failed.value = "";
    } catch (error) {
      if (!stopped.aborted && error instanceof Problem) this.failed.value = error.message;
    } finally {
      this.busy.value = false;
    }
  }

  private goOnFrom(cursor: string | null): void {
    this.cursor = cursor;
    this.more.value = cursor !== null;
  }

  close(): void {
    clearTimeout(this.timer);
    this.stop();
    this.persistence.stop();
    this.abort.abort();
    this.closed.abort();
  }

  /** Known runs change at once; what is new, or moves between states, is read, once for a burst of news. */
  private take(news: Run[]): void {
    const { runs, moved } = mergeRuns(this.runs.value ?? [], news);
    this.runs.value = runs;
    if (moved && this.timer === undefined) {
      this.timer = setTimeout(() => {
        this.timer = undefined;
        this.refresh();
      }, SETTLE_MS);
    }
  }
}

/** The newest runs as they were read again, and behind them those that were listed and are older. */
export function withOlder(newest: readonly Run[], before: readonly Run[]): readonly Run[] {
  const known = new Set(newest.map((run) => run.id));
  const end = newest.at(-1)?.created ?? Infinity;
  return [...newest, ...before.filter((run) => run.created <= end && !known.has(run.id))];
}

/** The list with the news in it, and whether the list itself or its counts have to be read again. */
export function mergeRuns(
  runs: readonly Run[],
  news: readonly Run[],
): { runs: readonly Run[]; moved: boolean } {
  const changed = new Map(news.map((run) => [run.id, run]));
  let moved = false;
  const merged = runs.map((run) => {
    const change = changed.get(run.id);
    if (!change) return run;
    changed.delete(run.id);
    moved ||= change.state !== run.state;
    return change;
  });
  return { runs: merged, moved: moved || changed.size > 0 };
}
