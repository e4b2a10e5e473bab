// The frame of a run's page: header, actions and tabs. What a tab shows is its own file, listed in tabs.ts.
import { useEffect, useMemo, useRef } from "preact/hooks";
import { RunFeed } from "../feed.ts";
import { at } from "../router.ts";
import { Empty, Failure, Loading } from "../ui/text.tsx";
import { RunHeader } from "./header.tsx";
import { TABS } from "./tabs.ts";

export function RunPage({ id, tab, node }: { id: string; tab: string; node?: string }) {
  const feed = useMemo(() => new RunFeed(id), [id]);
  useEffect(() => () => feed.close(), [feed]);
  const run = feed.run.value;
  const problem = feed.problem.value;
  if (!run) {
    if (problem?.status === 404) {
      return (
        <Empty title="There is no such run">
          <p>{problem.message}</p>
          <a href="/runs">All runs</a>
        </Empty>
      );
    }
    return problem ? <Failure problem={problem} again={() => feed.refresh()} /> : <Loading />;
  }
  const shown = TABS.find((one) => one.id === tab);
  return (
    <>
      <RunHeader feed={feed} run={run} />
      <Tabs run={id} tab={tab} />
      {shown
        ? <shown.component feed={feed} run={run} node={node} />
        : (
          <Empty title="This run has no such part">
            <a href={at("runs", id)}>To the run</a>
          </Empty>
        )}
    </>
  );
}

function Tabs({ run, tab }: { run: string; tab: string }) {
  const nav = useRef<HTMLElement>(null);
  useEffect(() => {
    const link = nav.current?.querySelector<HTMLElement>("[aria-current]");
    if (!nav.current || !link) return;
    const { left, width } = link.getBoundingClientRect();
    const middle = nav.current.getBoundingClientRect().left + nav.current.clientWidth / 2;
    nav.current.scrollLeft += left + width / 2 - middle; // where not all tabs have room
  }, [tab]);
  return (
    <nav class="tabs" aria-label="Parts of this run" ref={nav}>
      {TABS.map((one) => (
        <a
          key={one.id}
          href={one.id ? at("runs", run, one.id) : at("runs", run)}
          aria-current={one.id === tab ? "page" : undefined}
        >
          {one.title}
        </a>
      ))}
    </nav>
  );
}
