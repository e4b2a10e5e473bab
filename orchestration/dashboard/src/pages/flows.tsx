import { api } from "../api.ts";
import { useLoad } from "../load.ts";
import { at } from "../router.ts";
import { duration, number } from "../time.ts";
import type { Flow } from "../types.ts";
import { Badge } from "../ui/state.tsx";
import { Empty, Failure, Loading, Moment } from "../ui/text.tsx";

/** Every flow that has run on this store. */
export function FlowsPage() {
  const loaded = useLoad("flows", (signal) => api.flows(signal), 10);
  const flows = loaded.value.value;
  const problem = loaded.problem.value;
  return (
    <>
      <h1>Flows</h1>
      {problem && !flows && <Failure problem={problem} again={loaded.again} />}
      {!flows && !problem && <Loading />}
      {flows?.length === 0 && (
        <Empty title="No flow has run yet">
          <p>A flow is known from its first run on:</p>
          <pre>millrace run my_module:my_flow</pre>
        </Empty>
      )}
      {flows && flows.length > 0 && (
        <div class="card scroll">
          <table>
            <thead>
              <tr>
                <th>Flow</th>
                <th>Last run</th>
                <th class="wide">Recent</th>
                <th class="num wide">Runs</th>
                <th class="num">Failed</th>
                <th class="num">Median</th>
              </tr>
            </thead>
            <tbody>{flows.map((flow) => <Row key={flow.flow} flow={flow} />)}</tbody>
          </table>
        </div>
      )}
    </>
  );
}

function Row({ flow }: { flow: Flow }) {
  return (
    <tr>
      <td>
        <a href={at("flows", flow.flow)}>
          <b>{flow.flow}</b>
        </a>
        {flow.entrypoint && <div class="muted small mono wide">{flow.entrypoint}</div>}
      </td>
      <td>
        {flow.last && (
          <>
            <a href={at("runs", flow.last.id)}>
              <Badge state={flow.last.state} name={flow.last.state_name} />
            </a>
            <div class="muted small">
              <Moment at={flow.last.started ?? flow.last.created} relative />
            </div>
          </>
        )}
      </td>
      <td class="wide">
        <Spark recent={flow.recent} />
      </td>
      <td class="num wide">{number(flow.runs)}</td>
      <td class="num">{rate(flow.failure_rate)}</td>
      <td class="num">{duration(flow.median_seconds)}</td>
    </tr>
  );
}

export function rate(share: number | null): string {
  return share === null ? "–" : `${Number((share * 100).toPrecision(2))} %`;
}

/** The last runs as bars, oldest first: height is duration, colour is state. */
function Spark({ recent }: { recent: Flow["recent"] }) {
  const shown = [...recent].sort((a, b) => (a.started ?? 0) - (b.started ?? 0)).slice(-24);
  const longest = Math.max(...shown.map((run) => run.seconds ?? 0), 1e-9);
  return (
    <div class="spark">
      {shown.map((run) => (
        <a
          key={run.id}
          href={at("runs", run.id)}
          data-state={run.state}
          aria-label={`${run.state}, ${duration(run.seconds)}`}
          title={`${run.state}, ${duration(run.seconds)}`}
          style={{ height: `${Math.max(4, Math.round((run.seconds ?? 0) / longest * 28))}px` }}
        />
      ))}
    </div>
  );
}
