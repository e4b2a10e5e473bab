import { useMemo } from "preact/hooks";
import { api } from "../api.ts";
import { useLoad } from "../load.ts";
import { may } from "../session.ts";
import { duration, number } from "../time.ts";
import { RunTable } from "../ui/run-table.tsx";
import { Scatter } from "../ui/scatter.tsx";
import { Empty, Failure, Loading } from "../ui/text.tsx";
import { rate } from "./flows.tsx";
import { LaunchPanel } from "./launch.tsx";
import { pointsOf } from "./runs.tsx";

/** One flow: its trend, a form that starts it, its last runs. */
export function FlowPage({ name }: { name: string }) {
  const loaded = useLoad(`flow ${name}`, (signal) =>
    Promise.all([
      api.flows(signal),
      api.runs({ flow: name }, { limit: 200 }, signal),
    ]), 5);
  const value = loaded.value.value;
  const points = useMemo(() => pointsOf(value?.[1].items ?? []), [value]);
  if (!value) {
    return loaded.problem.value
      ? <Failure problem={loaded.problem.value} again={loaded.again} />
      : <Loading />;
  }
  const [flows, { items: runs }] = value;
  const flow = flows.find((one) => one.flow === name);
  if (!flow) {
    return (
      <Empty title={`No flow ${name} has run on this store`}>
        <a href="/flows">All flows</a>
      </Empty>
    );
  }
  return (
    <>
      <p class="crumbs">
        <a href="/flows">Flows</a>
      </p>
      <h1>{name}</h1>
      <dl class="facts card pad">
        <div>
          <dt>Runs</dt>
          <dd>{number(flow.runs)}</dd>
        </div>
        <div>
          <dt>Failed</dt>
          <dd>{rate(flow.failure_rate)}</dd>
        </div>
        <div>
          <dt>Median duration</dt>
          <dd>{duration(flow.median_seconds)}</dd>
        </div>
        <div>
          <dt>Entry point</dt>
          <dd class="mono">{flow.entrypoint ?? "not importable"}</dd>
        </div>
      </dl>
      {points.length > 0 && (
        <section class="card" aria-label="Duration over time">
          <Scatter points={points} />
        </section>
      )}
      {may("run") && <LaunchPanel flow={flow} />}
      <RunTable runs={runs.slice(0, 50)} />
    </>
  );
}
