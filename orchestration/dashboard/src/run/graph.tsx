import { useMemo } from "preact/hooks";
import { type Box, BOX_HEIGHT, BOX_WIDTH, grouped, laidOut, MOST_BOXES } from "../canvas/graph.ts";
import { at } from "../router.ts";
import { BAR_ORDER, finished, total, words } from "../states.ts";
import { number } from "../time.ts";
import type { Counts, RunNode } from "../types.ts";
import { Empty } from "../ui/text.tsx";
import type { TabProps } from "./tabs.ts";

const ROOM = BOX_WIDTH - 24;

/** The run's nodes as boxes, each behind what it waits for, with its progress. */
export function Graph({ feed, run }: TabProps) {
  const nodes = feed.nodes.value;
  const shape = nodes.map((node) => `${node.node}:${node.upstream}`).join(" ");
  const groups = useMemo(() => grouped(nodes), [shape]);
  const drawing = useMemo(() => groups.length <= MOST_BOXES ? laidOut(groups) : null, [groups]);
  if (nodes.length === 0) {
    return (
      <Empty title="No task yet">
        <p>A node appears here as soon as the flow submits or maps a task.</p>
      </Empty>
    );
  }
  if (!drawing) {
    return (
      <Empty title={`${number(groups.length)} nodes are too many to draw`}>
        <a href={at("runs", run.id)}>See them as a list</a>
      </Empty>
    );
  }
  const byId = new Map(nodes.map((node) => [node.node, node]));
  const { width, height, edges, boxes } = drawing;
  return (
    <section class="card scroll" aria-label="Graph">
      <svg class="graph" viewBox={`0 0 ${width} ${height}`} width={width} height={height}>
        {edges.map((edge) => <path key={edge.key} d={edge.path} />)}
        {boxes.map((box) => (
          <NodeBox
            key={box.key}
            box={box}
            run={run.id}
            nodes={box.nodes.flatMap((node) => byId.get(node) ?? [])}
          />
        ))}
      </svg>
    </section>
  );
}

function NodeBox({ box, run, nodes }: { box: Box; run: string; nodes: RunNode[] }) {
  const counts = summed(nodes);
  const [first] = nodes;
  if (!first) return null;
  const all = Math.max(total(counts), nodes.reduce((sum, node) => sum + (node.width ?? 0), 0));
  const told = `${number(finished(counts))} of ${number(all)} done`;
  const states = BAR_ORDER.filter((state) => counts[state])
    .map((state) => `${number(counts[state]!)} ${words(state).toLowerCase()}`).join(", ");
  const many = nodes.length > 1 ? ` × ${number(nodes.length)}` : "";
  let x = 12;
  return (
    <a href={at("runs", run, "nodes", first.node)} aria-label={`${first.task}${many}: ${states || told}`}>
      <g transform={`translate(${box.x} ${box.y})`}>
        <title>{`${first.path}\n${states || told}`}</title>
        <rect class="box" width={BOX_WIDTH} height={BOX_HEIGHT} rx={8} />
        <text class="name" x={12} y={22}>{shortened(first.task + many)}</text>
        <text class="count" x={12} y={39}>{told}</text>
        <rect class="ground" x={12} y={47} width={ROOM} height={6} rx={3} />
        {BAR_ORDER.map((state) => {
          const width = ROOM * (counts[state] ?? 0) / Math.max(1, all);
          x += width;
          return width > 0 && (
            <rect key={state} class="part" data-state={state} x={x - width} y={47} width={width} height={6} />
          );
        })}
      </g>
    </a>
  );
}

function summed(nodes: RunNode[]): Counts {
  const counts: Counts = {};
  for (const node of nodes) {
    for (const [state, count] of Object.entries(node.counts)) {
      counts[state] = (counts[state] ?? 0) + (count ?? 0);
    }
  }
  return counts;
}

function shortened(name: string): string {
  return name.length <= 24 ? name : `${name.slice(0, 23)}…`;
}
