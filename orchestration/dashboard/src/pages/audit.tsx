import { signal } from "@preact/signals";
import { useMemo } from "preact/hooks";
import { api, Problem } from "../api.ts";
import { useLoad } from "../load.ts";
import type { AuditRow, Page } from "../types.ts";
import { Empty, Failure, Loading, Moment } from "../ui/text.tsx";

/** Who did what by way of the server, for admins. */
export function AuditPage() {
  const loaded = useLoad("audit", (signal) => api.audit(null, signal), 5);
  const further = useMemo(() => signal<Page<AuditRow> | null>(null), []);
  const failed = useMemo(() => signal<Problem | null>(null), []);
  const first = loaded.value.value;
  const problem = failed.value ?? (first ? null : loaded.problem.value);
  const next = further.value ? further.value.next : first?.next;
  const oldest = first?.items.at(-1)?.seq ?? 0;
  async function more(): Promise<void> {
    try {
      const page = await api.audit(next ?? null);
      further.value = { items: [...further.value?.items ?? [], ...page.items], next: page.next };
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      failed.value = error;
    }
  }
  // What is new moves rows from the first page on: none twice, and none left out.
  const rows = [...first?.items ?? [], ...(further.value?.items ?? []).filter((row) => row.seq < oldest)];
  return (
    <>
      <h1>Audit</h1>
      {problem && <Failure problem={problem} again={loaded.again} />}
      {!first && !problem && <Loading />}
      {first?.items.length === 0 && (
        <Empty title="Nothing was done yet">
          <p>Each action by way of the server is listed here, and each that was refused.</p>
        </Empty>
      )}
      {rows.length > 0 && <Rows rows={rows} />}
      {next && (
        <div class="centred">
          <button type="button" onClick={more}>More</button>
        </div>
      )}
    </>
  );
}

function Rows({ rows }: { rows: AuditRow[] }) {
  return (
    <div class="card scroll">
      <table>
        <thead>
          <tr>
            <th>When</th>
            <th>Who</th>
            <th>Action</th>
            <th>On</th>
            <th>Outcome</th>
            <th class="wide">From</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row.seq}>
              <td>
                <Moment at={row.at} />
              </td>
              <td>{row.who ?? <span class="muted">–</span>}</td>
              <td>{row.action}</td>
              <td class="mono small">{row.target}</td>
              <td>{row.outcome}</td>
              <td class="wide mono small">{row.client}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
