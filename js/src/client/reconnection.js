// When to try again.

export const DEFAULT_RECONNECT = { baseMs: 1_000, capMs: 60_000 };

/** Return the milliseconds to wait before the next try: any time up to a bound that doubles ("full jitter"). */
export function backoffMs(attempt, { baseMs, capMs } = DEFAULT_RECONNECT, random = Math.random) {
  return random() * Math.min(capMs, baseMs * 2 ** Math.min(attempt, 30));
}
