import type { ComponentChildren } from "preact";
import { api } from "../api.ts";
import { useLoad } from "../load.ts";
import { namer } from "../names.ts";
import { at } from "../router.ts";
import { number } from "../time.ts";
import type { ErrorGroup, Origin } from "../types.ts";
import { Empty, Failure, Loading, Moment } from "../ui/text.tsx";
import type { TabProps } from "./tabs.ts";

/** Failures that are alike as one, root causes first. */
export function Errors({ run, feed }: TabProps) {
  const name = namer(feed.nodes.value);
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
      <Empty title="No task run has ended in an error">
        <p>
          {run.detail
            ? "The flow itself failed: its traceback is above."
            : "What failed and was made good by a retry is told on the task run's own page."}
        </p>
      </Empty>
    );
  }
  const where = (place: Origin & { at?: number }) => (
    <>
      <a href={at("runs", run.id, "items", place.node, place.index)}>{name(place)}</a>{" "}
      {place.at !== undefined && <Moment at={place.at} />}
    </>
  );
  return (
    <div class="stack">
      {groups.map((group, i) => <Group key={i} group={group} open={i === 0} where={where} />)}
    </div>
  );
}

interface GroupProps {
  group: ErrorGroup;
  open: boolean;
  where: (place: Origin) => ComponentChildren;
}

function Group({ group, open, where }: GroupProps) {
  return (
    <details class="card pad" open={open}>
      <summary>
        <b>{group.type}</b> {group.message} <span class="muted nowrap">× {number(group.count)}</span>{" "}
        {group.root && <span class="tag">root cause</span>}
      </summary>
      <div class="stack inner">
        {group.first && group.last && (
          <p class="muted">
            {group.count > 1 ? <>first {where(group.first)}, last {where(group.last)}</> : where(group.first)}
          </p>
        )}
        {group.cause && (
          <p class="muted">
            {group.count > 1 ? "The first of them" : "It"} never ran because of {where(group.cause)}
          </p>
        )}
        {group.traceback && <pre class="block">{group.traceback}</pre>}
      </div>
    </details>
  );
}
