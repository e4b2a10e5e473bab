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

  private cursor: string | null = null;
  private abort = new AbortController();
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
    this.runs.value = page.items;
    this.cursor = page.next;
    this.more.value = page.next !== null;
    this.states.value = summary.states;
    this.ofNewest.value = summary.of_newest;
    this.problem.value = null;
  }

  async older(): Promise<void> {
    if (!this.cursor) return;
    const { signal } = this.abort;
    const page = await api.runs(this.filter, { limit: FIRST_PAGE, cursor: this.cursor }, signal);
    if (signal.aborted) return;
    this.runs.value = [...this.runs.value ?? [], ...page.items];
    this.cursor = page.next;
    this.more.value = page.next !== null;
  }

  close(): void {
    clearTimeout(this.timer);
    this.stop();
    this.persistence.stop();
    this.abort.abort();
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
