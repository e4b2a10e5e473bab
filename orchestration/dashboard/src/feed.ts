// One run as it is now: read once, then kept up to date by the run's stream. All tabs of the run's page share it.
import { computed, type ReadonlySignal, signal } from "@preact/signals";
import { api, Problem } from "./api.ts";
import { storeAway } from "./health.ts";
import { Persistence } from "./persist.ts";
import { listen } from "./stream.ts";
import type { LogLine, NodeChange, RunDetail, RunNode } from "./types.ts";

export interface LogNews {
  items: LogLine[];
  skipped: number;
}

type Listener<T> = (news: T) => void;

export class RunFeed {
  readonly run = signal<RunDetail | null>(null);
  readonly nodes = signal<RunNode[]>([]);
  readonly problem = signal<Problem | null>(null);
  readonly live = signal(false);
  /** Grows whenever deltas may have been missed: whoever builds on them takes a new snapshot. */
  readonly generation = signal(0);
  readonly node: (node: number) => ReadonlySignal<RunNode | undefined>;

  private readonly itemListeners = new Set<Listener<Uint8Array>>();
  private readonly logListeners = new Set<Listener<LogNews>>();
  private readonly stop: () => void;
  private readonly persistence = new Persistence(() => this.refresh());
  private abort = new AbortController();
  private reading = false;
  private again = false;

  constructor(readonly id: string) {
    const byNode = computed(() => new Map(this.nodes.value.map((node) => [node.node, node])));
    this.node = (node) => computed(() => byNode.value.get(node));
    this.refresh();
    this.stop = listen(`/api/runs/${encodeURIComponent(id)}/stream`, {
      onReset: (missed) => missed ? this.refresh() : this.confirm(),
      onState: (live) => (this.live.value = live),
      on: {
        problem: storeAway,
        run: (data) => this.takeRun(JSON.parse(data) as RunDetail),
        nodes: (data) => this.takeNodes(JSON.parse(data) as NodeChange[]),
        items: (data) => this.itemListeners.size && this.tell(this.itemListeners, bytesOf(data)),
        logs: (data) => this.logListeners.size && this.tell(this.logListeners, logsOf(data)),
      },
    });
  }

  /** Hear of binary deltas: per node u32 node, u32 count, then count times (u32 index, u8 state). */
  onItems(listener: Listener<Uint8Array>): () => void {
    this.itemListeners.add(listener);
    return () => this.itemListeners.delete(listener);
  }

  onLogs(listener: Listener<LogNews>): () => void {
    this.logListeners.add(listener);
    return () => this.logListeners.delete(listener);
  }

  /** Read the run and its nodes anew. */
  refresh(): void {
    this.abort.abort();
    this.persistence.stop();
    const { signal } = this.abort = new AbortController();
    this.reading = true;
    this.again = false;
    Promise.all([api.run(this.id, signal), api.nodes(this.id, signal)]).then(
      ([run, nodes]) => {
        if (signal.aborted) return;
        this.persistence.succeeded();
        this.run.value = run;
        this.nodes.value = nodes;
        this.problem.value = null;
        this.generation.value++;
        this.reading = false;
        if (this.again && run.ended === null) this.refresh();
      },
      (error) => {
        if (signal.aborted) return;
        this.reading = false;
        this.persistence.failed(error);
        if (error instanceof Problem) this.problem.value = error;
      },
    );
  }

  /** The stream has begun: what was read before it may be older, unless the run had ended by then. */
  private confirm(): void {
    if (this.reading) this.again = true;
    else if (this.run.value?.ended == null) this.refresh();
  }

  close(): void {
    this.stop();
    this.persistence.stop();
    this.abort.abort();
  }

  private tell<T>(listeners: Set<Listener<T>>, news: T): void {
    for (const listener of listeners) listener(news);
  }

  private takeRun(news: RunDetail): void {
    const before = this.run.value;
    if (before) this.run.value = { ...before, ...news };
  }

  private takeNodes(news: NodeChange[]): void {
    const merged = mergeNodes(this.nodes.value, news);
    if (merged) this.nodes.value = merged;
    else this.refresh();
  }
}

/** The nodes with their changes, or null where one is new, of which only a full reading tells enough. */
export function mergeNodes(nodes: readonly RunNode[], news: readonly NodeChange[]): RunNode[] | null {
  const changed = new Map(news.map((change) => [change.node, change]));
  const merged = nodes.map((node) => {
    const change = changed.get(node.node);
    changed.delete(node.node);
    return change ? { ...node, ...change } : node;
  });
  return changed.size === 0 ? merged : null;
}

export function bytesOf(base64: string): Uint8Array {
  const text = atob(base64.startsWith('"') ? JSON.parse(base64) as string : base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

export function logsOf(data: string): LogNews {
  const news = JSON.parse(data) as LogLine[] | Partial<LogNews>;
  return Array.isArray(news)
    ? { items: news, skipped: 0 }
    : { items: news.items ?? [], skipped: news.skipped ?? 0 };
}
