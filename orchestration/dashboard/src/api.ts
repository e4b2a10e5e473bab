// The typed client of the API. Every failure is a Problem whose message can be shown as it is.
import { away, describe, report } from "./health.ts";
import type {
  Action,
  AuditRow,
  ErrorGroup,
  Flow,
  Json,
  LaunchForm,
  Limit,
  LogLine,
  Me,
  Page,
  ResultPreview,
  Run,
  RunDetail,
  RunNode,
  Searched,
  TaskRun,
  TaskRunDetail,
  Worker,
} from "./types.ts";

export class Problem extends Error {
  constructor(readonly status: number, readonly type: string, message: string) {
    super(message);
  }
}

type Query = Record<string, string | number | boolean | readonly string[] | null | undefined>;

export function url(path: string, query: Query = {}): string {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "") params.append(name, String(one));
    }
  }
  const text = params.toString();
  return `/api${path}${text && `?${text}`}`;
}

/** What comes over the network; that it broke off, also in the middle of an answer, is a Problem of status 0. */
async function arrival<T>(coming: Promise<T>, signal?: AbortSignal | null): Promise<T> {
  try {
    return await coming;
  } catch (error) {
    if (signal?.aborted) throw error;
    report({ what: "server", message: away() });
    throw new Problem(0, "Unreachable", away());
  }
}

async function send(target: string, init: RequestInit = {}): Promise<Response> {
  const response = await arrival(fetch(target, { credentials: "same-origin", ...init }), init.signal);
  if (response.ok) return response;
  const answer = await response.json().catch(() => null);
  init.signal?.throwIfAborted(); // then the answer was not read, and nobody waits for it
  const trouble = describe(response.status, answer);
  if (trouble) report(trouble);
  const error = answer?.error ?? {};
  throw new Problem(
    response.status,
    error.type ?? "Error",
    error.message ?? trouble?.message ?? `The server answered ${response.status} to ${target}.`,
  );
}

export async function get<T>(path: string, query?: Query, signal?: AbortSignal): Promise<T> {
  const response = await send(url(path, query), { headers: { Accept: "application/json" }, signal });
  return await arrival(response.json() as Promise<T>, signal);
}

/** Bytes and the headers they came with. */
export async function getBytes(
  path: string,
  query?: Query,
  signal?: AbortSignal,
): Promise<{ bytes: ArrayBuffer; headers: Headers }> {
  const response = await send(url(path, query), { signal });
  return { bytes: await arrival(response.arrayBuffer(), signal), headers: response.headers };
}

/** The header tells the server that a script of this site asks: no other site's form can set it. */
async function change<T>(method: string, path: string, body?: unknown): Promise<T | null> {
  const response = await send(url(path), {
    method,
    headers: { "Content-Type": "application/json", "Millrace-Request": "1" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await arrival(response.text());
  return text ? JSON.parse(text) as T : null;
}

export interface RunFilter {
  state?: readonly string[];
  flow?: string | null;
  tag?: readonly string[];
  search?: string | null;
  since?: number | null;
  until?: number | null;
}

const run = (id: string) => `/runs/${encodeURIComponent(id)}`;

export const api = {
  me: (signal?: AbortSignal) => get<Me>("/me", {}, signal),
  login: (token: string) => change<Me>("POST", "/login", { token }),
  logout: () => change("POST", "/logout"),
  audit: (cursor: string | null, signal?: AbortSignal) => get<Page<AuditRow>>("/audit", { cursor }, signal),
  runs: (filter: RunFilter, page: { limit?: number; cursor?: string | null }, signal?: AbortSignal) =>
    get<Searched<Run>>("/runs", { ...filter, ...page }, signal),
  summary: (filter: RunFilter, signal?: AbortSignal) =>
    get<{ states: Record<string, number>; of_newest: number | null }>("/runs/summary", { ...filter }, signal),
  run: (id: string, signal?: AbortSignal) => get<RunDetail>(run(id), {}, signal),
  nodes: (id: string, signal?: AbortSignal) => get<RunNode[]>(`${run(id)}/nodes`, {}, signal),
  taskRuns: (
    id: string,
    query: {
      node?: number;
      state?: readonly string[];
      search?: string;
      limit?: number;
      cursor?: string | null;
    },
    signal?: AbortSignal,
  ) => get<Searched<TaskRun>>(`${run(id)}/task-runs`, query, signal),
  taskRun: (id: string, node: number, index: number, signal?: AbortSignal) =>
    get<TaskRunDetail>(`${run(id)}/nodes/${node}/items/${index}`, {}, signal),
  result: (id: string, node: number, index: number, signal?: AbortSignal) =>
    get<ResultPreview>(`${run(id)}/nodes/${node}/items/${index}/result`, {}, signal),
  states: (id: string, node: number, signal?: AbortSignal) =>
    getBytes(`${run(id)}/nodes/${node}/states`, {}, signal),
  timeline: (id: string, after: number | string | null, signal?: AbortSignal) =>
    getBytes(`${run(id)}/timeline`, { after }, signal),
  logs: (
    id: string,
    query: {
      after?: number;
      min_level?: number;
      node?: number;
      index?: number;
      search?: string;
      limit?: number;
    },
    signal?: AbortSignal,
  ) => get<{ items: LogLine[]; next: number }>(`${run(id)}/logs`, query, signal),
  errors: (id: string, signal?: AbortSignal) => get<ErrorGroup[]>(`${run(id)}/errors`, {}, signal),
  timing: (id: string, signal?: AbortSignal) => get<Json>(`${run(id)}/timing`, {}, signal),
  act: (id: string, action: Action, body: Record<string, Json> = {}) =>
    change<{ run: string }>("POST", `${run(id)}/${action}`, body),
  launch: (entrypoint: string, parameters: Record<string, Json>) =>
    change<{ run: string }>("POST", "/runs", { entrypoint, parameters }),
  limits: (signal?: AbortSignal) => get<Limit[]>("/limits", {}, signal),
  setLimit: (name: string, slots: number, perSecond: number | null) =>
    change("PUT", `/limits/${encodeURIComponent(name)}`, { slots, per_second: perSecond }),
  deleteLimit: (name: string) => change("DELETE", `/limits/${encodeURIComponent(name)}`),
  flows: (signal?: AbortSignal) => get<Flow[]>("/flows", {}, signal),
  form: (flow: string, signal?: AbortSignal) =>
    get<LaunchForm>(`/flows/${encodeURIComponent(flow)}/form`, {}, signal),
  workers: (signal?: AbortSignal) => get<Worker[]>("/workers", {}, signal),
};
