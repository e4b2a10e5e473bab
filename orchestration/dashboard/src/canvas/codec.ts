// What the server sends in bytes, as typed arrays; all of it little-endian.

export interface Timeline {
  workers: string[];
  /** What to ask with for what comes after this. */
  next: string;
  /** All there is; else it comes after what was asked with. */
  whole: boolean;
  /** Seconds since the epoch. */
  started: Float64Array;
  seconds: Float32Array;
  node: Uint32Array;
  index: Uint32Array;
  /** Positions in `workers`. */
  worker: Uint16Array;
  attempt: Uint8Array;
  /** Of the task run after it. */
  state: Uint8Array;
  /** Its own: LOST, or a number of the server's. */
  outcome: Uint8Array;
}

/** Its worker died or left. */
export const LOST = 255;
const MAGIC = "MRTL";
const HEAD_BYTES = 12;

/** Take a timeline apart without copying its columns. Throws where the bytes are not one. */
export function decodeTimeline(buffer: ArrayBuffer): Timeline {
  const bytes = new Uint8Array(buffer);
  if (buffer.byteLength < HEAD_BYTES || String.fromCharCode(...bytes.subarray(0, 4)) !== MAGIC) {
    throw new RangeError(
      "The server sent no timeline. Its version may be another one: load this page again.",
    );
  }
  const head = new DataView(buffer);
  const n = head.getUint32(4, true);
  const length = head.getUint32(8, true);
  const told = JSON.parse(new TextDecoder().decode(bytes.subarray(HEAD_BYTES, HEAD_BYTES + length)));
  let at = padded(HEAD_BYTES + length);
  function column<T>(make: new (buffer: ArrayBuffer, at: number, n: number) => T, width: number): T {
    const made = new make(buffer, at, n);
    at += padded(n * width);
    return made;
  }
  return {
    workers: told.workers,
    next: told.next,
    whole: told.whole,
    started: column(Float64Array, 8),
    seconds: column(Float32Array, 4),
    node: column(Uint32Array, 4),
    index: column(Uint32Array, 4),
    worker: column(Uint16Array, 2),
    attempt: column(Uint8Array, 1),
    state: column(Uint8Array, 1),
    outcome: column(Uint8Array, 1),
  };
}

/** One timeline behind another; workers that both know are the same. */
export function joined(before: Timeline, more: Timeline): Timeline {
  const workers = [...before.workers];
  const places = more.workers.map((name) => {
    const place = workers.indexOf(name);
    return place >= 0 ? place : workers.push(name) - 1;
  });
  return {
    workers,
    next: more.next,
    whole: before.whole,
    started: both(before.started, more.started),
    seconds: both(before.seconds, more.seconds),
    node: both(before.node, more.node),
    index: both(before.index, more.index),
    worker: both(before.worker, more.worker.map((place) => places[place] ?? place)),
    attempt: both(before.attempt, more.attempt),
    state: both(before.state, more.state),
    outcome: both(before.outcome, more.outcome),
  };
}

type Column = Float64Array | Float32Array | Uint32Array | Uint16Array | Uint8Array;

function both<T extends Column>(before: T, more: T): T {
  const made = new (before.constructor as new (length: number) => T)(before.length + more.length);
  made.set(before);
  made.set(more, before.length);
  return made;
}

function padded(bytes: number): number {
  return Math.ceil(bytes / 8) * 8;
}

/**
 * Tell each change in a stream's `items` event: per node u32 node, u32 count, then count times (u32 index, u8 state).
 *
 * Bytes that end too early are told as far as they go.
 */
export function eachChange(
  bytes: Uint8Array,
  tell: (node: number, index: number, state: number) => void,
): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  while (at + 8 <= bytes.length) {
    const node = view.getUint32(at, true);
    const count = view.getUint32(at + 4, true);
    at += 8;
    for (let i = 0; i < count && at + 5 <= bytes.length; i++, at += 5) {
      tell(node, view.getUint32(at, true), view.getUint8(at + 4));
    }
  }
}
