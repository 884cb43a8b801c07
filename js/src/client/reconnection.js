// When to connect again: after a random time, up to a bound that doubles with each try.

const DEFAULT_RECONNECT = { baseMs: 1_000, capMs: 60_000 };
const STABLE_MS = 30_000;

/**
 * Return the milliseconds to wait before the next try: any time up to the bound of this attempt ("full jitter").
 *
 * @param {number} attempt 0, 1, 2 …
 * @param {{ baseMs: number, capMs: number }} [policy]
 * @param {() => number} [random]
 * @returns {number}
 */
export function backoffMs(attempt, { baseMs, capMs } = DEFAULT_RECONNECT, random = Math.random) {
  return random() * Math.min(capMs, baseMs * 2 ** Math.min(attempt, 30));
}

/** The waits of one client. */
export class Reconnection {
  #policy;
  #attempt = 0;

  /** @param {{ baseMs?: number, capMs?: number }} [options] */
  constructor(options) {
    this.#policy = { ...DEFAULT_RECONNECT, ...options };
  }

  /**
   * Return the milliseconds to wait before the next try.
   *
   * @param {number} openMs how long the last connection was open
   */
  nextMs(openMs) {
    if (openMs >= STABLE_MS) this.#attempt = 0;
    return backoffMs(this.#attempt++, this.#policy);
  }
}
