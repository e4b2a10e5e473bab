// Asking again for what could not be read for a reason that passes: a connection that broke, a server or store away.
import { Problem } from "./api.ts";

const FIRST_WAIT_MS = 300;
const LONGEST_WAIT_MS = 5000;

/** The wait before the n-th try in a row, in milliseconds. */
export function backoff(tries: number): number {
  return Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** tries);
}

/** Whether the same request may well succeed later: the server did not answer, or has trouble of its own. */
export function passes(error: unknown): boolean {
  return error instanceof Problem && (error.status === 0 || error.status >= 500);
}

/** Tries again after longer and longer waits. Browsers break off all requests when the network changes, for one. */
export class Persistence {
  private tries = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly again: () => void) {}

  /** A reading has failed: read again after a while, if that may help. */
  failed(error: unknown): void {
    this.stop();
    if (passes(error)) this.later();
  }

  /** Try again after a while. */
  later(): void {
    this.stop();
    this.timer = setTimeout(this.again, backoff(this.tries++));
  }

  succeeded(): void {
    this.stop();
    this.tries = 0;
  }

  /** Give up, or begin a reading for another reason. */
  stop(): void {
    clearTimeout(this.timer);
  }
}
