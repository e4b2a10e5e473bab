// Log lines of one run under one filter: what was written so far, page by page, then what the stream brings.
import { signal } from "@preact/signals";
import { api, Problem } from "../api.ts";
import type { LogNews, RunFeed } from "../feed.ts";
import type { LogLine } from "../types.ts";

export const KEPT = 2000;
const PAGE = 1000;

export interface LogFilter {
  minLevel: number;
  search: string;
}

export class LogStore {
  readonly lines = signal<readonly LogLine[]>([]);
  /** Lines that exist and are not shown, because only the newest are kept. */
  readonly dropped = signal(0);
  readonly reading = signal(true);
  readonly problem = signal<Problem | null>(null);

  private after = 0;
  private again = false;
  private readonly abort = new AbortController();
  private readonly stop: () => void;

  constructor(private readonly feed: RunFeed, private readonly filter: LogFilter) {
    this.stop = feed.onLogs((news) => this.hear(news));
    this.catchUp();
  }

  close(): void {
    this.stop();
    this.abort.abort();
  }

  /** Read all pages from where we are; what is announced meanwhile is read by the same loop. */
  private async catchUp(): Promise<void> {
    const { signal } = this.abort;
    this.reading.value = true;
    try {
      do {
        this.again = false;
        const { minLevel, search } = this.filter;
        const query = { after: this.after, min_level: minLevel || undefined, search: search || undefined };
        const page = await api.logs(this.feed.id, { ...query, limit: PAGE }, signal);
        if (signal.aborted) return;
        this.add(page.items);
        this.after = Math.max(this.after, page.next ?? 0);
        if (page.items.length >= PAGE) this.again = true;
      } while (this.again);
      this.problem.value = null;
    } catch (error) {
      if (!signal.aborted && error instanceof Problem) this.problem.value = error;
    } finally {
      this.reading.value = false;
    }
  }

  /** The stream's lines are a hint: with a search, or after a gap, only the server knows which of them match. */
  private hear(news: LogNews): void {
    if (this.reading.value) {
      this.again = true;
      return;
    }
    if (this.filter.search || news.skipped > 0) {
      this.catchUp();
      return;
    }
    this.add(news.items.filter((line) => line.level >= this.filter.minLevel));
    for (const line of news.items) this.after = Math.max(this.after, line.seq);
  }

  private add(items: readonly LogLine[]): void {
    const { lines, dropped } = append(this.lines.value, items, KEPT);
    this.lines.value = lines;
    this.dropped.value += dropped;
  }
}

/** The lines with newer ones behind them, without repetitions, at most `kept` of them. */
export function append(
  lines: readonly LogLine[],
  items: readonly LogLine[],
  kept: number,
): { lines: readonly LogLine[]; dropped: number } {
  const last = lines.at(-1)?.seq ?? -1;
  const fresh = items.filter((line) => line.seq > last);
  if (fresh.length === 0) return { lines, dropped: 0 };
  const all = [...lines, ...fresh];
  const dropped = Math.max(0, all.length - kept);
  return { lines: all.slice(dropped), dropped };
}
