import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useMemo } from "preact/hooks";
import { api, Problem } from "../api.ts";
import type { RunFeed } from "../feed.ts";
import { at, go } from "../router.ts";
import { may } from "../session.ts";
import { figures, total } from "../states.ts";
import { duration, number } from "../time.ts";
import type { Action, Json, RunDetail } from "../types.ts";
import { Dialog } from "../ui/dialog.tsx";
import { Badge, Bar } from "../ui/state.tsx";
import { Lasting, Moment, Told } from "../ui/text.tsx";

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
        {run.ended === null && (
          <span class={`live ${feed.live.value ? "" : "off"}`}>{feed.live.value ? "live" : "not live"}</span>
        )}
        {may("run") && <Actions feed={feed} run={run} />}
      </div>
      {total(run.counts) > 0 && (
        <div class="progress">
          <Bar counts={run.counts} /> <span class="muted small">{figures(run.counts)}</span>
        </div>
      )}
      <Facts run={run} />
      <Parameters parameters={run.parameters} />
      {run.stuck.length > 0 && (
        <div class="note">
          <b>Held up:</b> {run.stuck.map((sentence) => (
            <p key={sentence}>
              <Told text={sentence} />
            </p>
          ))}
        </div>
      )}
      {run.message && (
        <div class={`note ${run.state === "Failed" || run.state === "Crashed" ? "bad" : ""}`}>
          <Told text={run.message} />
        </div>
      )}
      {run.detail && (
        <details class="card pad" open={!run.counts.Failed && !run.counts.Crashed}>
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
        {run.runner || "–"}{" "}
        {run.engine_url && <a href={run.engine_url} rel="noreferrer" target="_blank">its dashboard ↗</a>}
      </Fact>
      {run.retries > 0 && (
        <Fact name="Retries">
          {number(run.retries)}, {duration(run.retry_seconds)} of work
        </Fact>
      )}
      <Fact name="Host">{run.host ? `${run.host} (${run.pid ?? "–"})` : "–"}</Fact>
      {run.tags.length > 0 && (
        <Fact name="Tags">{run.tags.map((tag) => <span key={tag} class="tag">{tag}</span>)}</Fact>
      )}
    </dl>
  );
}

function Parameters({ parameters }: { parameters: Record<string, Json> }) {
  const named = Object.entries(parameters);
  if (named.length === 0) return null;
  return (
    <section class="card pad params" aria-label="Parameters">
      {named.map(([name, value]) => (
        <span key={name} class="mono">
          <span class="muted">{name} =</span> {JSON.stringify(value)}
        </span>
      ))}
    </section>
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

interface Offer {
  label: string;
  action: Action;
  body?: Record<string, Json>;
}

/** What may be done with a run, as the API says; of what failed alone only where something failed. */
export function offersOf(run: RunDetail): Offer[] {
  const offers: Offer[] = [];
  if (run.can.pause) offers.push({ label: "Pause", action: "pause" });
  if (run.can.resume) offers.push({ label: "Resume", action: "resume" });
  if (run.can.retry) offers.push({ label: "Retry", action: "retry" });
  if (run.can.retry && (run.counts.Failed || run.counts.Crashed)) {
    offers.push({ label: "Retry failed only", action: "retry", body: { failed_only: true } });
  }
  return offers;
}

function Actions({ feed, run }: { feed: RunFeed; run: RunDetail }) {
  const busy = useMemo(() => signal(false), []);
  const failed = useMemo(() => signal(""), []);
  const asking = useMemo(() => signal(false), []);
  async function act(action: Action, body: Record<string, Json> = {}): Promise<void> {
    busy.value = true;
    failed.value = "";
    asking.value = false;
    try {
      const answer = await api.act(run.id, action, body);
      if (answer && answer.run !== run.id) go(at("runs", answer.run));
      else feed.refresh();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      failed.value = error.message;
    } finally {
      busy.value = false;
    }
  }
  return (
    <div class="end">
      {run.requests.cancel && <span class="muted">cancelling…</span>}
      {run.can.cancel && !run.requests.cancel && (
        <button type="button" class="danger" disabled={busy.value} onClick={() => (asking.value = true)}>
          Cancel
        </button>
      )}
      {offersOf(run).map(({ label, action, body }) => (
        <button
          key={label}
          type="button"
          disabled={busy.value}
          onClick={() => act(action, body)}
        >
          {label}
        </button>
      ))}
      {failed.value && <p class="note bad" role="alert">{failed.value}</p>}
      {asking.value && (
        <Dialog title={`Cancel ${run.name}?`} close={() => (asking.value = false)}>
          <p>What runs now is stopped, what waits never starts, what has completed stays recorded.</p>
          <div class="actions">
            <button type="button" onClick={() => (asking.value = false)}>Let it run</button>
            <button type="button" class="danger" onClick={() => act("cancel")}>Cancel the run</button>
          </div>
        </Dialog>
      )}
    </div>
  );
}
