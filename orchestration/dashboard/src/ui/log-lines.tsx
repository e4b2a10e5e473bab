import { at } from "../router.ts";
import { clock } from "../time.ts";
import type { LogLine } from "../types.ts";

const NAMES: [number, string][] = [[50, "CRITICAL"], [40, "ERROR"], [30, "WARNING"], [20, "INFO"], [
  0,
  "DEBUG",
]];

export function levelName(level: number): string {
  return NAMES.find(([least]) => level >= least)?.[1] ?? String(level);
}

export function LogLines({ run, lines }: { run: string; lines: readonly LogLine[] }) {
  return (
    <ol class="log">
      {lines.map((line) => (
        <li key={line.seq} data-level={levelName(line.level)}>
          <time>{clock(line.at)}</time>
          <span class="level">{levelName(line.level)}</span>
          <span>
            {line.node >= 0 && (
              <a href={at("runs", run, "items", line.node, line.index)}>
                {line.task ?? "task"}[{line.index}]
              </a>
            )} {line.message}
          </span>
        </li>
      ))}
    </ol>
  );
}
