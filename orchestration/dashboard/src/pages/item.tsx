import { api } from "../api.ts";
import { useLoad } from "../load.ts";
import { nameOf } from "../names.ts";
import { at } from "../router.ts";
import { may } from "../session.ts";
import { isTerminal } from "../states.ts";
import { duration } from "../time.ts";
import type { Attempt, HistoryEntry, TaskRunDetail } from "../types.ts";
import { LogLines } from "../ui/log-lines.tsx";
import { Badge } from "../ui/state.tsx";
import { SampleTable } from "../ui/sample.tsx";
import { Empty, Failure, lastLine, Loading, Moment } from "../ui/text.tsx";

interface Place {
  run: string;
  node: number;
  index: number;
}

/** One task run: its story in words, its attempts, what went wrong, what it logged. */
export function ItemPage({ run, node, index }: Place) {
  const key = `item ${run} ${node} ${index}`;
  const loaded = useLoad(key, (signal) =>
    Promise.all([
      api.taskRun(run, node, index, signal),
      api.logs(run, { node, index, limit: 1000 }, signal),
      api.run(run, signal),
    ]), 3);
  const value = loaded.value.value;
  const problem = loaded.problem.value;
  if (!value) {
    if (problem?.status === 404) {
      return (
        <Empty title="There is no such task run">
          <p>{problem.message}</p>
          <a href={at("runs", run)}>To the run</a>
        </Empty>
      );
    }
    return problem ? <Failure problem={problem} again={loaded.again} /> : <Loading />;
  }
  const [item, logs, parent] = value;
  const failure = item.attempts.findLast((attempt) => attempt.error)?.error ?? item.error;
  return (
    <>
      <p class="crumbs">
        <a href="/runs">Runs</a> / <a href={at("runs", run)}>{parent.name}</a> /{" "}
        <a href={at("runs", run, "nodes", node)}>{item.task}</a>
      </p>
      <Head item={item} place={{ run, node, index }} />
      {item.story.length > 0 && (
        <section class="card pad stack" aria-label="Story">
          <h2>What happened</h2>
          <ol class="story">{item.story.map((sentence, i) => <li key={i}>{sentence}</li>)}</ol>
        </section>
      )}
      {failure && (
        <section class="card pad stack" aria-label="Error">
          <h2>
            {isTerminal(item.state) && item.state === "Completed"
              ? "The last error before it succeeded"
              : "Error"}
          </h2>
          <pre class="block">{failure}</pre>
        </section>
      )}
      <Attempts attempts={item.attempts} />
      <History history={item.history} />
      {item.stored && may("run") && <Result run={run} node={node} index={index} />}
      <section class="stack" aria-label="Logs">
        <h2>Logs</h2>
        {logs.items.length > 0
          ? (
            <div class="card logbox" tabIndex={0}>
              <LogLines run={run} lines={logs.items} />
            </div>
          )
          : <p class="muted">It logged nothing.</p>}
      </section>
    </>
  );
}

/** What was returned, where result storage has it: a file that is not going to change. */
function Result({ run, node, index }: Place) {
  const loaded = useLoad(`result ${run} ${node} ${index}`, (signal) => api.result(run, node, index, signal));
  const value = loaded.value.value;
  const problem = loaded.problem.value;
  return (
    <section class="card pad stack" aria-label="Result">
      <h2>Result</h2>
      {problem && <Failure problem={problem} again={loaded.again} />}
      {value?.table
        ? <SampleTable sample={value.table} said={value.text ?? ""} />
        : value?.text != null && <pre class="block">{value.text}</pre>}
      {value?.why && <p class="muted">{value.why}</p>}
    </section>
  );
}

function Head({ item, place }: { item: TaskRunDetail; place: Place }) {
  return (
    <>
      <div class="pagehead">
        <h1>{item.name || nameOf(item.task, item.kind, place.index)}</h1>
        <Badge state={item.state} name={item.state_name} />
        <div class="end">
          {place.index > 0 && (
            <a class="button" href={at("runs", place.run, "items", place.node, place.index - 1)}>
              ← previous
            </a>
          )}
          {place.index + 1 < (item.width ?? Infinity) && (
            <a class="button" href={at("runs", place.run, "items", place.node, place.index + 1)}>next →</a>
          )}
        </div>
      </div>
      {item.reason && <p class="note">{item.reason}</p>}
      <dl class="facts card pad">
        <div>
          <dt>Started</dt>
          <dd>
            <Moment at={item.started} />
          </dd>
        </div>
        <div>
          <dt>Duration</dt>
          <dd>{duration(item.seconds)}</dd>
        </div>
        <div>
          <dt>Attempts</dt>
          <dd>{item.attempts.length}</dd>
        </div>
        <div>
          <dt>Worker</dt>
          <dd class="mono small">{item.worker ?? "–"}</dd>
        </div>
      </dl>
    </>
  );
}

function Attempts({ attempts }: { attempts: Attempt[] }) {
  if (attempts.length === 0) return null;
  return (
    <section class="card scroll" aria-label="Attempts">
      <h2>Attempts</h2>
      <table>
        <thead>
          <tr>
            <th class="num">No.</th>
            <th>State</th>
            <th class="wide">Started</th>
            <th class="num">Duration</th>
            <th class="wide">Worker</th>
          </tr>
        </thead>
        <tbody>
          {attempts.map((attempt) => (
            <tr key={attempt.attempt}>
              <td class="num">{attempt.attempt}</td>
              <td>
                <Badge state={attempt.state} />
                {attempt.error && <div class="muted small clip">{lastLine(attempt.error)}</div>}
              </td>
              <td class="wide">
                <Moment at={attempt.started} />
              </td>
              <td class="num">{duration(attempt.seconds)}</td>
              <td class="wide mono small">{attempt.worker ?? "–"}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function History({ history }: { history: HistoryEntry[] }) {
  if (history.length === 0) return null;
  return (
    <details class="card pad">
      <summary>
        <b>History of states</b> <span class="muted">{history.length}</span>
      </summary>
      <ol class="story inner">
        {history.map((entry, i) => (
          <li key={i}>
            <Moment at={entry.at} /> <Badge state={entry.state} /> {entry.reason}
          </li>
        ))}
      </ol>
    </details>
  );
}
