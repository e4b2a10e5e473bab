import { at } from "../router.ts";
import { figures, total } from "../states.ts";
import type { Run } from "../types.ts";
import { Badge, Bar } from "./state.tsx";
import { Lasting, Moment } from "./text.tsx";

export function RunTable({ runs }: { runs: readonly Run[] }) {
  return (
    <div class="card scroll">
      <table class="runs">
        <thead>
          <tr>
            <th>Run</th>
            <th>State</th>
            <th class="wide">Task runs</th>
            <th class="wide">Started</th>
            <th class="num">Duration</th>
          </tr>
        </thead>
        <tbody>{runs.map((run) => <Row key={run.id} run={run} />)}</tbody>
      </table>
    </div>
  );
}

function Row({ run }: { run: Run }) {
  return (
    <tr>
      <td>
        <a href={at("runs", run.id)}>
          <b>{run.name}</b>
        </a>
        <div class="muted small">
          {run.flow} {run.tags.map((tag) => <span key={tag} class="tag">{tag}</span>)}
          <div class="narrow">
            <Moment at={run.started ?? run.created} relative />
          </div>
        </div>
      </td>
      <td>
        <Badge state={run.state} name={run.state_name} />
        {run.message && <div class="muted small clip wide" title={run.message}>{run.message}</div>}
      </td>
      <td class="wide">
        {total(run.counts) > 0 && (
          <>
            <Bar counts={run.counts} />
            <span class="muted small">{figures(run.counts)}</span>
          </>
        )}
      </td>
      <td class="wide">
        <Moment at={run.started ?? run.created} relative />
      </td>
      <td class="num">
        <Lasting started={run.started} ended={run.ended} seconds={run.seconds} />
      </td>
    </tr>
  );
}
