import { signal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import {
  cellAt,
  type Cells,
  fitting,
  type Layout,
  layoutOf,
  moved,
  paint,
  placeOf,
  zoomed,
} from "../canvas/grid.ts";
import { STATES, words } from "../states.ts";
import { palette } from "../theme.ts";
import { number } from "../time.ts";

const HEIGHT = 560;

interface CellGridProps {
  cells: Cells;
  /** Grows when the states have changed. */
  version: number;
  /** The state that is not dimmed, -1 for all of them. */
  only: number;
  name: (index: number) => string;
  open: (index: number) => void;
}

/** The cells of a map: a canvas that shows the part scrolled to, and one focused cell for the keyboard. */
export function CellGrid({ cells, version, only, name, open }: CellGridProps) {
  const scroller = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const view = useMemo(() => signal({ width: 0, top: 0, zoom: 0 }), []);
  const hovered = useMemo(() => signal(-1), []);
  const focused = useMemo(() => signal(-1), []);
  const image = useMemo(() => document.createElement("canvas"), []);
  const { width, top, zoom } = view.value;
  const count = cells.states.length;
  const cell = zoom || fitting(count, Math.max(width, 1), HEIGHT);
  const layout = layoutOf(count, Math.max(width, 1), cell);
  const height = Math.min(HEIGHT, Math.max(cell, layout.rows * cell));
  const colours = palette.value;

  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => {
      view.value = { ...view.value, width: Math.floor(entry?.contentRect.width ?? 0) };
    });
    if (scroller.current) observer.observe(scroller.current);
    return () => observer.disconnect();
  }, []);
  // Another width, theme or filter: every pixel anew. Else only the rows of what changed.
  useEffect(() => {
    if (!colours || !width) return;
    image.width = layout.columns;
    image.height = layout.rows;
    refresh(image, cells, layout, colours.bytes, only, 0, count);
  }, [cells, count, layout.columns, colours, only]);
  useEffect(() => {
    if (!colours || !width) return;
    if (cells.last > 0) refresh(image, cells, layout, colours.bytes, only, cells.first, cells.last);
    cells.clean();
    draw(canvas.current, image, layout, { width, height, top });
  }, [cells, version, layout.columns, cell, width, height, top, colours, only]);

  function hover(event: MouseEvent): void {
    hovered.value = cellAt(layout, event.offsetX, event.offsetY + top);
  }
  function press(event: KeyboardEvent): void {
    if (event.key === "Enter" && focused.value >= 0) return open(focused.value);
    if (event.key === "+" || event.key === "-") return magnify(event.key === "+" ? 1 : -1);
    const next = moved(layout, Math.max(0, focused.value), event.key, Math.floor(height / cell));
    if (next === null) return;
    event.preventDefault();
    focused.value = next;
    const { y } = placeOf(layout, next);
    if (y < top) scroller.current?.scrollTo(0, y);
    else if (y + cell > top + height) scroller.current?.scrollTo(0, y + cell - height);
  }
  function magnify(by: 1 | -1): void {
    view.value = { ...view.value, zoom: zoomed(cell, by) };
  }
  const marked = hovered.value >= 0 ? hovered.value : focused.value;
  const told = marked >= 0 && marked < count
    ? `${name(marked)}: ${words(STATES[cells.states[marked] ?? 0] ?? "")}`
    : `${number(count)} items; arrows move, Enter opens, + and − zoom`;
  return (
    <>
      <div
        class="cells"
        ref={scroller}
        tabIndex={0}
        role="application"
        aria-roledescription="grid of items"
        aria-label={told}
        style={{ height: `${height}px` }}
        onKeyDown={press}
        onFocus={() => (focused.value = Math.max(0, focused.value))}
        onBlur={() => (focused.value = -1)}
        onScroll={(event) => (view.value = { ...view.value, top: event.currentTarget.scrollTop })}
      >
        <div style={{ height: `${layout.rows * cell}px` }}>
          <canvas
            ref={canvas}
            class={hovered.value >= 0 ? "pointing" : ""}
            onMouseMove={hover}
            onMouseLeave={() => (hovered.value = -1)}
            onClick={() => hovered.value >= 0 && open(hovered.value)}
          />
          {marked >= 0 && marked < count && <Mark layout={layout} index={marked} />}
        </div>
      </div>
      <div class="cells-foot">
        <span aria-live="polite">{told}</span>
        <button type="button" aria-label="Zoom out" onClick={() => magnify(-1)}>−</button>
        <button type="button" aria-label="Zoom in" onClick={() => magnify(1)}>+</button>
      </div>
    </>
  );
}

function Mark({ layout, index }: { layout: Layout; index: number }) {
  const { x, y } = placeOf(layout, index);
  const edge = `${layout.cell + 2}px`;
  return <i class="cell-mark" style={{ left: `${x - 1}px`, top: `${y - 1}px`, width: edge, height: edge }} />;
}

/** Bring the rows of items `first` up to `last` into the image. */
function refresh(
  image: HTMLCanvasElement,
  cells: Cells,
  layout: Layout,
  colours: Uint32Array,
  only: number,
  first: number,
  last: number,
): void {
  const { columns, rows } = layout;
  const from = Math.floor(first / columns);
  const until = Math.min(rows, Math.ceil(last / columns));
  const data = new ImageData(columns, Math.max(1, until - from));
  const states = cells.states.subarray(from * columns, until * columns);
  paint(new Uint32Array(data.data.buffer), states, colours, 0, states.length, only);
  image.getContext("2d")?.putImageData(data, 0, from);
}

/** Enlarge the visible rows of the image; from 6 pixels on a gap separates the cells. */
function draw(
  canvas: HTMLCanvasElement | null,
  image: HTMLCanvasElement,
  { cell, columns, rows }: Layout,
  view: { width: number; height: number; top: number },
): void {
  const context = canvas?.getContext("2d");
  if (!canvas || !context) return;
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round(view.width * ratio);
  canvas.height = Math.round(view.height * ratio);
  canvas.style.width = `${view.width}px`;
  canvas.style.height = `${view.height}px`;
  context.scale(ratio, ratio);
  context.imageSmoothingEnabled = false;
  const from = Math.floor(view.top / cell);
  const shown = Math.min(rows - from, Math.ceil(view.height / cell) + 1);
  if (shown <= 0) return;
  const y = from * cell - view.top;
  context.drawImage(image, 0, from, columns, shown, 0, y, columns * cell, shown * cell);
  if (cell < 6) return;
  for (let i = 1; i <= columns; i++) context.clearRect(i * cell - 1, 0, 1, view.height);
  for (let i = 1; i <= shown; i++) context.clearRect(0, y + i * cell - 1, view.width, 1);
}
