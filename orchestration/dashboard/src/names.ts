// What task runs and nodes are called: as in the terminal and in messages.
import type { RunNode } from "./types.ts";

interface Item {
  node: number;
  index: number;
  /** Its own name, where its task gives one. */
  name?: string | null;
}

/** "fetch[5]" for an item of a map, "fetch" for a task run that is alone in its node. */
export function nameOf(task: string, kind: string, index: number): string {
  return kind === "map" ? `${task}[${index}]` : task;
}

/** Return what names task runs of these nodes; one whose node is not known yet goes by the task that is told of it. */
export function namer(nodes: readonly RunNode[]): (item: Item, task?: string | null) => string {
  const known = new Map(nodes.map((node) => [node.node, node]));
  return (item, task) => {
    const node = known.get(item.node);
    return item.name || nameOf(node?.task ?? task ?? `node ${item.node}`, node?.kind ?? "map", item.index);
  };
}

/** What a node is called among others: its path, without the number where it is the first of its task. */
export function lineOf(path: string): string {
  return path.endsWith("-0") ? path.slice(0, -2) : path;
}
