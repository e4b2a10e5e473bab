// What the server sends in bytes, as typed arrays; all of it little-endian.

export interface Timeline {
  workers: string[];
  /** What to ask with for what comes after this. */
  next: number;
  /** Seconds since the epoch. */
  started: Float64Array;
  seconds: Float32Array;
  node: Uint32Array;
  index: Uint32Array;
  /** Positions in `workers`. */
  worker: Uint16Array;
  attempt: Uint8Array;
  state: Uint8Array;
}

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
    started: column(Float64Array, 8),
    seconds: column(Float32Array, 4),
    node: column(Uint32Array, 4),
    index: column(Uint32Array, 4),
    worker: column(Uint16Array, 2),
    attempt: column(Uint8Array, 1),
    state: column(Uint8Array, 1),
  };
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
