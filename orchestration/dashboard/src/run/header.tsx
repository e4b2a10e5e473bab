import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useMemo } from "preact/hooks";
import { api, Problem } from "../api.ts";
import type { RunFeed } from "../feed.ts";
import { at } from "../router.ts";
import { number } from "../time.ts";
import type { Action, RunDetail } from "../types.ts";
import { Badge, Bar } from "../ui/state.tsx";
import { Lasting, Moment } from "../ui/text.tsx";

export function RunHeader({ feed, run }: { feed: RunFeed; run: RunDetail }) {
  return (
    <header class="stack">
      <p class="crumbs">
        <a href="/runs">Runs</a> / <a href={at("flows", run.flow)}>{run.flow}</a>
        {run.parent && (
          <>
            {" "}/ part of <a href={at("runs", run.parent)}>another run</a>
          </>
        )}
      </p>
      <div class="pagehead">
        <h1>{run.name}</h1>
        <Badge state={run.state} name={run.state_name} />
        <span class={`live ${feed.live.value ? "" : "off"}`}>{feed.live.value ? "live" : "not live"}</span>
        <Actions feed={feed} run={run} />
      </div>
      <Bar counts={run.counts} />
      <Facts run={run} />
      {run.stuck.length > 0 && (
        <div class="note">
          <b>Waiting.</b> {run.stuck.map((sentence) => <p key={sentence}>{sentence}</p>)}
        </div>
      )}
      {run.message && (
        <div class={`note ${run.state === "Failed" || run.state === "Crashed" ? "bad" : ""}`}>
          {run.message}
        </div>
      )}
      {run.detail && (
        <details class="card pad">
          <summary>
            <b>Traceback</b>
          </summary>
          <pre class="block inner">{run.detail}</pre>
        </details>
      )}
    </header>
  );
}

function Facts({ run }: { run: RunDetail }) {
  return (
    <dl class="facts card pad">
      <Fact name="Started">
        <Moment at={run.started} />
      </Fact>
      <Fact name="Duration">
        <Lasting started={run.started} ended={run.ended} seconds={run.seconds} />
      </Fact>
      <Fact name="Runner">
        {run.runner ?? "–"}{" "}
        {run.engine_url && <a href={run.engine_url} rel="noreferrer" target="_blank">its dashboard ↗</a>}
      </Fact>
      {run.retries !== undefined && <Fact name="Retries">{number(run.retries)}</Fact>}
      <Fact name="Host">{run.host ? `${run.host} (${run.pid ?? "–"})` : "–"}</Fact>
      {run.tags.length > 0 && (
        <Fact name="Tags">{run.tags.map((tag) => <span key={tag} class="tag">{tag}</span>)}</Fact>
      )}
    </dl>
  );
}

function Fact({ name, children }: { name: string; children: ComponentChildren }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

const LABELS: Record<Action, string> = { cancel: "Cancel", pause: "Pause", resume: "Resume", retry: "Retry" };

function Actions({ feed, run }: { feed: RunFeed; run: RunDetail }) {
  const busy = useMemo(() => signal(""), []);
  const failed = useMemo(() => signal(""), []);
  async function act(action: Action | "unpause", body = {}): Promise<void> {
    busy.value = action;
    failed.value = "";
    try {
      await api.act(run.id, action, body);
      feed.refresh();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      failed.value = error.message;
    } finally {
      busy.value = "";
    }
  }
  const offered = (Object.keys(LABELS) as Action[]).filter((action) => run.can[action]);
  return (
    <div class="end">
      {run.requests.cancel && <span class="muted">cancelling…</span>}
      {run.requests.pause && (
        <button
          type="button"
          disabled={busy.value !== ""}
          onClick={() => act("unpause")}
        >
          Go on
        </button>
      )}
      {offered.map((action) => (
        <button
          key={action}
          type="button"
          class={action === "cancel" ? "danger" : ""}
          disabled={busy.value !== ""}
          onClick={() => act(action)}
        >
          {LABELS[action]}
        </button>
      ))}
      {failed.value && <p class="note bad" role="alert">{failed.value}</p>}
    </div>
  );
}
