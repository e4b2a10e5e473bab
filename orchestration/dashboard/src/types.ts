// What the API under /api gives; times are seconds since the epoch.

export type Counts = Partial<Record<string, number>>;
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

export interface Page<T> {
  items: T[];
  next: string | null;
}

/** A page of what may be searched; it tells how many rows it has looked at. */
export interface Searched<T> extends Page<T> {
  searched: number;
}

export interface Run {
  id: string;
  name: string;
  flow: string;
  state: string;
  state_name: string;
  message: string | null;
  created: number;
  started: number | null;
  ended: number | null;
  heartbeat: number | null;
  runner: string | null;
  engine_url: string | null;
  entrypoint: string | null;
  version: string | null;
  tags: string[];
  parameters: Record<string, Json>;
  parent: string | null;
  host: string | null;
  pid: number | null;
  counts: Counts;
  seconds: number | null;
  /** How many attempts did not end their task run, and the seconds of work that went into them. */
  retries: number;
  retry_seconds: number;
  can: Record<Action, boolean>;
}

export type Action = "cancel" | "pause" | "resume" | "retry";

export interface RunDetail extends Run {
  detail: string | null;
  requests: { cancel: boolean; pause: boolean };
  stuck: string[];
}

export interface RunNode {
  node: number;
  path: string;
  task: string;
  kind: string;
  width: number;
  counts: Counts;
  started: number | null;
  ended: number | null;
  upstream: number[];
  tags: string[];
  policy: Json;
  waited: Json;
  parent: Json;
}

/** What the `nodes` event of a run's stream tells of a node that changed. */
export type NodeChange = Pick<RunNode, "node" | "width" | "counts" | "started" | "ended">;

export interface TaskRun {
  node: number;
  index: number;
  task: string;
  name: string;
  state: string;
  state_name: string;
  attempts: number;
  started: number | null;
  seconds: number | null;
  worker: string | null;
  reason: string | null;
  /** The task run whose failure kept it from running. */
  root: Origin | null;
  error: string | null;
}

export interface Origin {
  node: number;
  index: number;
}

export interface Attempt {
  attempt: number;
  state: string;
  started: number | null;
  seconds: number | null;
  worker: string | null;
  reason: string | null;
  error: string | null;
}

export interface HistoryEntry {
  at: number;
  state: string;
  reason: string | null;
}

export interface TaskRunDetail extends Omit<TaskRun, "attempts"> {
  /** Of its node: "single", "map" or "call", and how many task runs it has, where that is known. */
  kind: string;
  width: number | null;
  attempts: Attempt[];
  history: HistoryEntry[];
  story: string[];
  /** Whether its result is kept in result storage: then `result` tells what it looks like. */
  stored: boolean;
}

export interface LogLine {
  seq: number;
  at: number;
  level: number;
  logger: string;
  message: string;
  task: string | null;
  /** -1: the flow itself. */
  node: number;
  index: number;
  attempt: number | null;
}

export interface Place extends Origin {
  name: string;
  at: number;
}

/** Task runs that failed alike. */
export interface ErrorGroup {
  type: string;
  state: string;
  message: string;
  traceback: string | null;
  count: number;
  /** By time; unknown where an earlier version has recorded the run. */
  first: Place | null;
  last: Place | null;
  root: boolean;
  /** Of failures that are no roots: the task run whose failure kept the first of them from running. */
  cause: Origin | null;
}

export interface Holder {
  run: string;
  run_name: string | null;
  label: string;
  slots: number;
  since: number | null;
  expires: number | null;
  left: boolean;
}

export interface Limit {
  name: string;
  slots: number;
  per_second: number | null;
  /** Slots. */
  held: number;
  /** How many hold it and wait for it, of which the first are listed. */
  holding: number;
  waiting: number;
  holders: Holder[];
  waiters: Holder[];
}

export interface Flow {
  flow: string;
  runs: number;
  last: Run | null;
  failure_rate: number | null;
  median_seconds: number | null;
  entrypoint: string | null;
  recent: { id: string; state: string; started: number | null; seconds: number | null }[];
}

export interface Worker {
  worker: string;
  host: string | null;
  run: string;
  run_name: string;
  task: string;
  node: number;
  index: number;
  kind: string;
  since: number | null;
}

export interface LaunchForm {
  entrypoint: string;
  schema: Schema;
}

/** The part of JSON schema that a signature's types become. */
export interface Schema {
  type?: string;
  title?: string;
  description?: string;
  default?: Json;
  enum?: Json[];
  format?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  anyOf?: Schema[];
  $ref?: string;
  $defs?: Record<string, Schema>;
}

/** Strangers are told the status only. */
export interface Health {
  status: string;
  version?: string;
  store?: string;
}

export type Role = "read" | "run" | "admin";

export interface Me {
  role: Role;
  /** The token's name; null where none is needed. */
  user: string | null;
}

export interface AuditRow {
  seq: number;
  at: number;
  who: string | null;
  token: string | null;
  client: string;
  action: string;
  target: string;
  outcome: string;
}

/** How a data frame, a series or an array begins; without columns or an index where it has none. */
export interface Sample {
  kind: string;
  shape: number[];
  columns: string[];
  types: string[];
  index: string[];
  rows: string[][];
}

export interface ResultPreview {
  text: string | null;
  table?: Sample | null;
  bytes?: number;
  why: string | null;
}
