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

interface LogLinesProps {
  run: string;
  lines: readonly LogLine[];
  /** What the task run of a line is called. Without it lines do not tell whose they are. */
  name?: (line: LogLine, task: string | null) => string;
}

export function LogLines({ run, lines, name }: LogLinesProps) {
  return (
    <ol class="log">
      {lines.map((line) => (
        <li key={line.seq} data-level={levelName(line.level)}>
          <time>{clock(line.at)}</time>
          <span class="level">{levelName(line.level)}</span>
          <span>
            {name && line.node >= 0 && (
              <a href={at("runs", run, "items", line.node, line.index)}>{name(line, line.task)}</a>
            )} {line.message}
          </span>
        </li>
      ))}
    </ol>
  );
}
