// The cells of a map, one for each item, in rows. Drawn as an image of one pixel per cell that is then enlarged:
// 100,000 cells take less than a millisecond, where a rectangle each would take 60.

/** Edge lengths of a cell in pixels, from far away to near. */
export const ZOOMS = [2, 3, 4, 6, 8, 12, 16, 24] as const;
const COMFORTABLE = 16;

export interface Layout {
  count: number;
  /** The edge of a cell in pixels, its gap included. */
  cell: number;
  columns: number;
  rows: number;
}

export function layoutOf(count: number, width: number, cell: number): Layout {
  const columns = Math.max(1, Math.min(count, Math.floor(width / cell)));
  return { count, cell, columns, rows: Math.ceil(count / columns) };
}

/** The largest zoom at which all cells are seen at once, or the smallest readable one where none does that. */
export function fitting(count: number, width: number, height: number): number {
  const fits = ZOOMS.filter((cell) =>
    cell <= COMFORTABLE && layoutOf(count, width, cell).rows * cell <= height
  );
  return fits.at(-1) ?? ZOOMS[1];
}

/** The next zoom nearer (`by` 1) or farther (`by` -1), the same where there is none. */
export function zoomed(cell: number, by: 1 | -1): number {
  const level = ZOOMS.findIndex((one) => one >= cell);
  return ZOOMS[Math.max(0, Math.min(ZOOMS.length - 1, level + by))] ?? cell;
}

/** The cell at a place of the whole picture, -1 where there is none. */
export function cellAt(layout: Layout, x: number, y: number): number {
  const column = Math.floor(x / layout.cell);
  const row = Math.floor(y / layout.cell);
  if (column < 0 || column >= layout.columns || row < 0) return -1;
  const index = row * layout.columns + column;
  return index < layout.count ? index : -1;
}

/** The left and upper edge of a cell. */
export function placeOf(layout: Layout, index: number): { x: number; y: number } {
  return {
    x: index % layout.columns * layout.cell,
    y: Math.floor(index / layout.columns) * layout.cell,
  };
}

/** The cell that a key leads to, null where the key is none of the grid's. */
export function moved(layout: Layout, index: number, key: string, pageRows: number): number | null {
  const { columns, count } = layout;
  const steps: Record<string, number> = {
    ArrowLeft: -1,
    ArrowRight: 1,
    ArrowUp: -columns,
    ArrowDown: columns,
    PageUp: -columns * pageRows,
    PageDown: columns * pageRows,
    Home: -count,
    End: count,
  };
  const step = steps[key];
  if (step === undefined) return null;
  const next = index + step;
  if (key === "ArrowUp" || key === "ArrowDown") return next < 0 || next >= count ? index : next;
  return Math.max(0, Math.min(count - 1, next));
}

/** States of a map's items, and how many are in which. It grows where a change tells of an item beyond its end. */
export class Cells {
  states: Uint8Array;
  readonly counts: Uint32Array;
  /** The items that have changed since `clean`, from `first` up to `last`, exclusive. */
  first = Infinity;
  last = 0;

  constructor(snapshot: Uint8Array, kinds: number) {
    this.states = snapshot;
    this.counts = new Uint32Array(kinds);
    for (const state of snapshot) this.counts[state]!++;
  }

  set(index: number, state: number): void {
    if (index >= this.states.length) this.grow(index + 1);
    const before = this.states[index]!;
    if (before === state) return;
    this.counts[before]!--;
    this.counts[state]!++;
    this.states[index] = state;
    this.first = Math.min(this.first, index);
    this.last = Math.max(this.last, index + 1);
  }

  clean(): void {
    this.first = Infinity;
    this.last = 0;
  }

  private grow(length: number): void {
    const longer = new Uint8Array(length);
    longer.set(this.states);
    this.counts[0]! += length - this.states.length;
    this.states = longer;
  }
}

/**
 * Write colours of items `first` up to `last` into the pixels of an image as wide as the layout.
 *
 * Args:
 *   colours: by state, as 0xAABBGGRR.
 *   only: the state that is not dimmed, -1 for all of them.
 */
export function paint(
  pixels: Uint32Array,
  states: Uint8Array,
  colours: Uint32Array,
  first: number,
  last: number,
  only = -1,
): void {
  for (let i = first; i < last; i++) {
    const colour = colours[states[i]!] ?? 0;
    pixels[i] = only < 0 || states[i] === only ? colour : (colour & 0xffffff) | 0x26000000;
  }
}
