import { signal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import {
  type Box,
  decades,
  extentOf,
  moments,
  nearest,
  place,
  type Point,
  RADIUS,
  tick,
} from "../canvas/scatter.ts";
import { at, go } from "../router.ts";
import { isState, words } from "../states.ts";
import { type Palette, palette } from "../theme.ts";
import { clock, duration } from "../time.ts";

const TICK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const SECONDS = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DATE = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });

const LEFT = 62; // room for durations
const BESIDE = 14;

interface Named extends Point {
  name: string;
}

/** Runs as points; a click opens one. The table beside it has the same runs for the keyboard. */
export function Scatter({ points }: { points: readonly Named[] }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const width = useMemo(() => signal(0), []);
  const hovered = useMemo(() => signal<{ point: Named; x: number; y: number } | null>(null), []);
  const extent = useMemo(() => extentOf(points), [points]);
  const colours = palette.value;
  const box: Box = { left: LEFT, top: 10, width: Math.max(40, width.value - LEFT - BESIDE), height: 142 };

  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => (width.value = entry?.contentRect.width ?? 0));
    if (canvas.current?.parentElement) observer.observe(canvas.current.parentElement);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    const element = canvas.current;
    if (!element || !colours || !width.value) return;
    const ratio = devicePixelRatio || 1;
    element.width = Math.round(width.value * ratio);
    element.height = Math.round(180 * ratio);
    const context = element.getContext("2d");
    if (!context) return;
    context.scale(ratio, ratio);
    drawAxes(context, extent, box, colours);
    drawPoints(context, points, extent, box, colours);
  }, [points, colours, width.value]);

  function find(event: MouseEvent): void {
    const point = nearest(points, extent, box, event.offsetX, event.offsetY) as Named | null;
    hovered.value = point && { point, ...place(point, extent, box) };
  }
  const over = hovered.value;
  return (
    <div class="scatter">
      <canvas
        ref={canvas}
        role="img"
        aria-label={`${points.length} runs by start and duration`}
        class={over ? "pointing" : ""}
        onMouseMove={find}
        onMouseLeave={() => (hovered.value = null)}
        onClick={() => over && go(at("runs", over.point.id))}
      />
      {over && (
        <div
          class="tip"
          style={{
            left: `${Math.min(over.x + 10, Math.max(0, width.value - 200))}px`,
            top: `${over.y + 12}px`,
          }}
        >
          <b>{over.point.name}</b>
          <span>{words(over.point.state)}, {duration(over.point.seconds)}, {clock(over.point.at)}</span>
        </div>
      )}
    </div>
  );
}

function drawAxes(
  context: CanvasRenderingContext2D,
  extent: ReturnType<typeof extentOf>,
  box: Box,
  colours: Palette,
): void {
  context.font = "11px system-ui, sans-serif";
  context.fillStyle = colours.muted;
  context.strokeStyle = colours.line;
  context.lineWidth = 1;
  context.beginPath();
  context.textAlign = "right";
  context.textBaseline = "middle";
  const { left, top, width, height } = box;
  const ticks = decades(extent);
  const every = Math.ceil(ticks.length / 6);
  for (const [i, seconds] of ticks.entries()) {
    if (i % every) continue;
    const y = Math.round(place({ id: "", state: "", at: 0, seconds }, extent, box).y) + 0.5;
    context.moveTo(left, y);
    context.lineTo(left + width, y);
    context.fillText(tick(seconds), left - 8, y);
  }
  context.textAlign = "center";
  context.textBaseline = "top";
  const span = extent.to - extent.from;
  const format = span > 2 * 86400 ? DATE : span > 900 ? TICK : SECONDS;
  const offset = -new Date(extent.to * 1000).getTimezoneOffset() * 60;
  for (const at of moments(extent.from, extent.to, Math.max(2, width / 90), offset)) {
    const x = Math.round(left + (at - extent.from) / span * width) + 0.5;
    context.moveTo(x, top + height);
    context.lineTo(x, top + height + 4);
    const text = format.format(new Date(at * 1000));
    const half = context.measureText(text).width / 2;
    context.fillText(text, Math.min(x, left + width + BESIDE - half), top + height + 8);
  }
  context.stroke();
}

function drawPoints(
  context: CanvasRenderingContext2D,
  points: readonly Point[],
  extent: ReturnType<typeof extentOf>,
  box: Box,
  colours: Palette,
): void {
  context.globalAlpha = 0.85;
  for (const point of points) {
    const { x, y } = place(point, extent, box);
    context.fillStyle = isState(point.state) ? colours.state[point.state] : colours.muted;
    context.beginPath();
    context.arc(x, y, RADIUS, 0, 2 * Math.PI);
    context.fill();
  }
}
