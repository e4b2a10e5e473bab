// Runs over time: x is when a run started, y how long it took, on a logarithmic axis.

export interface Point {
  id: string;
  at: number;
  seconds: number;
  state: string;
}

export interface Extent {
  from: number;
  to: number;
  /** Logarithms to base 10 of the shortest and the longest duration shown. */
  low: number;
  high: number;
}

export interface Box {
  left: number;
  top: number;
  width: number;
  height: number;
}

const SHORTEST_SECONDS = 0.001;
export const RADIUS = 4;

/** What the axes span: every point, with room at the edges, whole decades of durations. */
export function extentOf(points: readonly Point[]): Extent {
  let [from, to, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
  for (const point of points) {
    from = Math.min(from, point.at);
    to = Math.max(to, point.at);
    const y = logarithm(point.seconds);
    low = Math.min(low, y);
    high = Math.max(high, y);
  }
  if (points.length === 0) return { from: 0, to: 1, low: 0, high: 1 };
  const room = Math.max((to - from) * 0.02, 1);
  low = Math.floor(low);
  return { from: from - room, to: to + room, low, high: Math.max(Math.ceil(high), low + 1) };
}

function logarithm(seconds: number): number {
  return Math.log10(Math.max(seconds, SHORTEST_SECONDS));
}

export function place(point: Point, extent: Extent, box: Box): { x: number; y: number } {
  const across = (point.at - extent.from) / (extent.to - extent.from);
  const up = (logarithm(point.seconds) - extent.low) / (extent.high - extent.low);
  return { x: box.left + across * box.width, y: box.top + (1 - up) * box.height };
}

/** The point nearest to a place, at most `reach` pixels away. Of equally near ones, that which is drawn last. */
export function nearest(
  points: readonly Point[],
  extent: Extent,
  box: Box,
  x: number,
  y: number,
  reach = 14,
): Point | null {
  let best: Point | null = null;
  let least = reach * reach;
  for (const point of points) {
    const there = place(point, extent, box);
    const distance = (there.x - x) ** 2 + (there.y - y) ** 2;
    if (distance <= least) [best, least] = [point, distance];
  }
  return best;
}

/** Round durations between the extent's ends, one for each decade: 0.001 s, 0.01 s, ... */
export function decades(extent: Extent): number[] {
  const found: number[] = [];
  for (let power = extent.low; power <= extent.high; power++) found.push(10 ** power);
  return found;
}

/** A round duration in few letters: "1 ms", "100 s", "2.8 h". */
export function tick(seconds: number): string {
  if (seconds < 0.999) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 999) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 86400
    ? `${Number((seconds / 3600).toPrecision(2))} h`
    : `${Math.round(seconds / 86400)} d`;
}

const STEPS = [1, 5, 15, 60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86400, 7 * 86400, 30 * 86400];

/** Round moments between two times, about `wanted` of them; `offsetSeconds` is the zone's distance from UTC. */
export function moments(from: number, to: number, wanted: number, offsetSeconds: number): number[] {
  const step = STEPS.find((one) => (to - from) / one <= wanted) ??
    Math.ceil((to - from) / wanted / 86400) * 86400;
  const found: number[] = [];
  const first = Math.ceil((from + offsetSeconds) / step) * step - offsetSeconds;
  for (let at = first; at <= to; at += step) found.push(at);
  return found;
}
