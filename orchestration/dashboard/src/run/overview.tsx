import type { VNode } from "preact";
import { useMemo } from "preact/hooks";
import { lineOf } from "../names.ts";
import { at } from "../router.ts";
import { finished } from "../states.ts";
import { number } from "../time.ts";
import { Bar } from "../ui/state.tsx";
import { Empty, Lasting } from "../ui/text.tsx";
import type { RunNode } from "../types.ts";
import type { TabProps } from "./tabs.ts";

/** What the run consists of. */
export function Overview({ feed, run }: TabProps) {
  return <NodeTable run={run.id} nodes={feed.nodes.value} over={run.ended !== null} />;
}

function NodeTable({ run, nodes, over }: { run: string; nodes: RunNode[]; over: boolean }) {
  // A run may have thousands of nodes, of which a few have changed: what is the same as before is not looked at.
  const rows = useMemo(() => new WeakMap<RunNode, VNode>(), [run]);
  function rowOf(node: RunNode): VNode {
    const row = rows.get(node) ?? <Row key={node.node} run={run} node={node} />;
    rows.set(node, row);
    return row;
  }
  if (nodes.length === 0) {
    return (
      <Empty title={over ? "This run had no task" : "No task yet"}>
        {!over && <p>A node is listed here as soon as the flow submits or maps a task.</p>}
      </Empty>
    );
  }
  return (
    <div class="card scroll">
      <table>
        <thead>
          <tr>
            <th>Task</th>
            <th class="num">Done</th>
            <th>Progress</th>
            <th class="num">Duration</th>
          </tr>
        </thead>
        <tbody>
          {nodes.map(rowOf)}
        </tbody>
      </table>
    </div>
  );
}

function Row({ run, node }: { run: string; node: RunNode }) {
  return (
    <tr>
      <td>
        <a href={at("runs", run, "nodes", node.node)}>{lineOf(node.path)}</a>
        {node.kind === "map" && " "}
        {node.kind === "map" && <span class="muted">× {number(node.width)}</span>}
      </td>
      <td class="num">{number(finished(node.counts))} / {number(node.width)}</td>
      <td>
        <Bar counts={node.counts} />
      </td>
      <td class="num">
        <Lasting started={node.started} ended={node.ended} seconds={span(node)} />
      </td>
    </tr>
  );
}

function span(node: RunNode): number | null {
  return node.started !== null && node.ended !== null ? node.ended - node.started : null;
}
