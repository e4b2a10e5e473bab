// The parts of a run's page, in the order of their tabs.
import type { ComponentType } from "preact";
import type { RunFeed } from "../feed.ts";
import type { RunDetail } from "../types.ts";
import { Errors } from "./errors.tsx";
import { Graph } from "./graph.tsx";
import { Logs } from "./logs.tsx";
import { MapGrid } from "./map.tsx";
import { Overview } from "./overview.tsx";
import { TaskRuns } from "./task-runs.tsx";
import { TimelineTab } from "./timeline.tsx";

export interface TabProps {
  feed: RunFeed;
  run: RunDetail;
  /** The last part of the address: /runs/:id/nodes/:node. */
  node?: string;
}

interface Tab {
  /** The part of the address after the run's id; "" is what a bare /runs/:id shows. */
  id: string;
  title: string;
  component: ComponentType<TabProps>;
}

export const TABS: readonly Tab[] = [
  { id: "", title: "Overview", component: Overview },
  { id: "graph", title: "Graph", component: Graph },
  { id: "nodes", title: "Items", component: MapGrid },
  { id: "timeline", title: "Timeline", component: TimelineTab },
  { id: "tasks", title: "Task runs", component: TaskRuns },
  { id: "logs", title: "Logs", component: Logs },
  { id: "errors", title: "Errors", component: Errors },
];
