// The graph of a run's nodes: a map is one node, so there are tens of them, whatever the number of task runs.
import { Graph, layout } from "@dagrejs/dagre";

/** What the layout needs to know of a node. */
export interface GraphNode {
  node: number;
  task: string;
  upstream: readonly number[];
}

/** One or several nodes drawn as one box: single task runs of one task with the same upstream are together. */
export interface Box {
  key: string;
  nodes: number[];
  x: number;
  y: number;
}

export interface Drawing {
  boxes: Box[];
  /** From a box's right edge to another one's left edge, as an SVG path. */
  edges: { key: string; path: string }[];
  width: number;
  height: number;
}

export const BOX_WIDTH = 190;
export const BOX_HEIGHT = 62;
export const MOST_BOXES = 1000;
const MARGIN = 12;

/** Put together what cannot be told apart: nodes of one task whose upstream is in the same boxes. */
export function grouped(nodes: readonly GraphNode[]): { key: string; nodes: number[]; upstream: string[] }[] {
  const groups = new Map<string, { key: string; nodes: number[]; upstream: string[] }>();
  const of = new Map<number, string>();
  for (const one of nodes) {
    const upstream = [...new Set(one.upstream.flatMap((node) => of.get(node) ?? []))].sort();
    const key = JSON.stringify([one.task, upstream.map((name) => [...groups.keys()].indexOf(name))]);
    const group = groups.get(key) ?? { key, nodes: [], upstream };
    groups.set(key, group);
    group.nodes.push(one.node);
    of.set(one.node, key);
  }
  return [...groups.values()];
}

/** Place boxes from left to right, each behind what it waits for. */
export function laidOut(groups: ReturnType<typeof grouped>): Drawing {
  const graph = new Graph();
  graph.setGraph({ rankdir: "LR", nodesep: 18, ranksep: 46, marginx: MARGIN, marginy: MARGIN });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const { key } of groups) graph.setNode(key, { width: BOX_WIDTH, height: BOX_HEIGHT });
  for (const { key, upstream } of groups) for (const before of upstream) graph.setEdge(before, key);
  layout(graph);
  const boxes = groups.map(({ key, nodes }) => {
    const { x = 0, y = 0 } = graph.node(key) as { x?: number; y?: number };
    return { key, nodes, x: x - BOX_WIDTH / 2, y: y - BOX_HEIGHT / 2 };
  });
  const places = new Map(boxes.map((box) => [box.key, box]));
  const edges = groups.flatMap(({ key, upstream }) =>
    upstream.map((before) => ({
      key: `${before} ${key}`,
      path: curve(places.get(before)!, places.get(key)!),
    }))
  );
  return {
    boxes,
    edges,
    width: Math.max(0, ...boxes.map((box) => box.x + BOX_WIDTH)) + MARGIN,
    height: Math.max(0, ...boxes.map((box) => box.y + BOX_HEIGHT)) + MARGIN,
  };
}

function curve(from: Box, to: Box): string {
  const [x, y] = [from.x + BOX_WIDTH, from.y + BOX_HEIGHT / 2];
  const [end, down] = [to.x, to.y + BOX_HEIGHT / 2];
  const bend = Math.max(20, (end - x) / 2);
  return `M${x} ${y}C${x + bend} ${y} ${end - bend} ${down} ${end} ${down}`;
}
