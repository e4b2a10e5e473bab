// How a table or an array begins, as its worker has written it down.
import type { Sample } from "../types.ts";

export function SampleTable({ sample, said }: { sample: Sample; said: string }) {
  const { shape, columns, types, index, rows } = sample;
  const numeric = types.map((type) => /^(u?int|float|complex)/i.test(type));
  const isNumeric = (column: number) => numeric[columns.length ? column : 0];
  const cut = more(sample);
  return (
    <>
      <p>{said}{cut && <span class="muted">; {cut}</span>}</p>
      {rows.length > 0 && (
        <div class="scroll sample" tabIndex={0}>
          <table>
            {columns.length > 0 && (
              <thead>
                <tr>
                  {index.length > 0 && <th />}
                  {columns.map((name, i) => (
                    <th key={i} class={isNumeric(i) ? "num" : undefined}>
                      {name || (shape.length === 1 ? "value" : "")} <span class="muted type">{types[i]}</span>
                    </th>
                  ))}
                </tr>
              </thead>
            )}
            <tbody>
              {rows.map((row, i) => (
                <tr key={i}>
                  {index.length > 0 && <td class="muted">{index[i]}</td>}
                  {row.map((cell, j) => <td key={j} class={isNumeric(j) ? "num" : undefined}>{cell}</td>)}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </>
  );
}

/** What of it is not here. */
export function more({ shape, rows, columns, index }: Sample): string {
  const plane = shape.length > 2 && !index.length ? shape.slice(-2) : shape;
  const parts = [];
  if ((plane[0] ?? 1) > rows.length) parts.push(`the first ${rows.length} rows`);
  const across = columns.length || rows[0]?.length || 0;
  if (plane.length === 2 && (plane[1] ?? 0) > across) parts.push(`the first ${across} columns`);
  const what = parts.join(", ");
  if (plane === shape) return what && `here are ${what}`;
  return what ? `here are ${what} of the first plane` : "here is the first plane";
}
