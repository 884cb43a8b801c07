// Timers that end together.

/** The timers of one owner. */
export class Timers {
  /** @type {Set<ReturnType<typeof setTimeout>>} */
  #timers = new Set();

  /**
   * Call a function later, unless `clear` comes first.
   *
   * @param {number} delayMs
   * @param {() => void} act
   */
  after(delayMs, act) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      act();
    }, delayMs);
    this.#timers.add(timer);
  }

  clear() {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }
}
