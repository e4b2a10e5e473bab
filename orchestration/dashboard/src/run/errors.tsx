import { api } from "../api.ts";
import { useLoad } from "../load.ts";
import { at } from "../router.ts";
import { number } from "../time.ts";
import type { ErrorGroup, Place } from "../types.ts";
import { Empty, Failure, Loading, Moment } from "../ui/text.tsx";
import type { TabProps } from "./tabs.ts";

/** Failures by their traceback, each counted once, the root cause first. */
export function Errors({ run }: TabProps) {
  const loaded = useLoad(
    `errors ${run.id}`,
    (signal) => api.errors(run.id, signal),
    run.ended === null ? 4 : 0,
  );
  const groups = loaded.value.value;
  if (!groups) {
    return loaded.problem.value
      ? <Failure problem={loaded.problem.value} again={loaded.again} />
      : <Loading />;
  }
  if (groups.length === 0) {
    return (
      <Empty title="No error">
        <p>Attempts that failed would be here, also those that a retry made good.</p>
      </Empty>
    );
  }
  return (
    <div class="stack">
      {groups.map((group, i) => <Group key={i} run={run.id} group={group} open={i === 0} />)}
    </div>
  );
}

function Group({ run, group, open }: { run: string; group: ErrorGroup; open: boolean }) {
  return (
    <details class="card pad" open={open}>
      <summary>
        <b>{group.type}</b> {group.message} <span class="muted nowrap">× {number(group.count)}</span>{" "}
        {group.root && <span class="tag">root cause</span>}
      </summary>
      <div class="stack inner">
        <p class="muted">
          first <Where run={run} place={group.first} />, last <Where run={run} place={group.last} />
        </p>
        {group.traceback && <pre class="block">{group.traceback}</pre>}
      </div>
    </details>
  );
}

function Where({ run, place }: { run: string; place: Place }) {
  return (
    <>
      <a href={at("runs", run, "items", place.node, place.index)}>item {place.index} of node {place.node}</a>
      {" "}
      <Moment at={place.at} />
    </>
  );
}
