import { api } from "../api.ts";
import { useLoad } from "../load.ts";
import { nameOf } from "../names.ts";
import { at } from "../router.ts";
import { Empty, Failure, Lasting, Loading } from "../ui/text.tsx";

/** What each worker does at this moment. */
export function WorkersPage() {
  const loaded = useLoad("workers", (signal) => api.workers(signal), 2);
  const workers = loaded.value.value;
  const problem = loaded.problem.value;
  return (
    <>
      <h1>Workers</h1>
      {problem && !workers && <Failure problem={problem} again={loaded.again} />}
      {!workers && !problem && <Loading />}
      {workers?.length === 0 && (
        <Empty title="No worker is busy">
          <p>
            A worker is listed while it runs something. What waits, and for what, is told on the run's own
            page.
          </p>
          <a href="/runs?state=Running">Running runs</a>
        </Empty>
      )}
      {workers && workers.length > 0 && (
        <div class="card scroll">
          <table>
            <thead>
              <tr>
                <th>Worker</th>
                <th>Task run</th>
                <th>Run</th>
                <th class="num">For</th>
              </tr>
            </thead>
            <tbody>
              {workers.map((worker) => (
                <tr key={`${worker.worker} ${worker.run} ${worker.node} ${worker.index}`}>
                  <td>
                    <span class="mono">{worker.worker}</span>
                    {worker.host && !worker.worker.startsWith(worker.host) && (
                      <div class="muted small">{worker.host}</div>
                    )}
                  </td>
                  <td>
                    <a href={at("runs", worker.run, "items", worker.node, worker.index)}>
                      {nameOf(worker.task, worker.kind, worker.index)}
                    </a>
                  </td>
                  <td>
                    <a href={at("runs", worker.run)}>{worker.run_name}</a>
                  </td>
                  <td class="num">
                    <Lasting started={worker.since} ended={null} seconds={null} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </>
  );
}
