// Events on their way to a consumer that iterates; bounded in rows.

/** @import { Batch, Lag, SubscriptionEvent } from "../../ibfast.js" */

const MOST_KEPT_EVENTS = 256;

/** The events of one subscription. Rows that do not fit are left out and reported; the state takes their place. */
export class EventQueue {
  #maxRows;
  /** @type {SubscriptionEvent[]} */
  #events = [];
  #head = 0;
  #size = 0;
  /** The last seq that the consumer has got, and the last that has come. */
  #takenSeq = 0;
  #newestSeq = 0;
  /** @type {(() => void)[]} */
  #waiting = [];
  /** @type {{ error: Error | null } | null} */
  #end = null;

  /** @param {number} maxRows that may wait */
  constructor(maxRows) {
    this.#maxRows = maxRows;
  }

  /**
   * Append an event.
   *
   * @param {SubscriptionEvent} event
   * @param {() => Batch[]} state returns what stands for all rows so far
   */
  push(event, state) {
    if (event.type === "rows") this.#newestSeq = Math.max(this.#newestSeq, event.seq);
    const isFull = this.#size > 0 && this.#size + sizeOf(event) > this.#maxRows;
    for (const one of isFull ? this.#replace(event, state()) : [event]) {
      this.#events.push(one);
      this.#size += sizeOf(one);
    }
    this.#wake();
  }

  /**
   * Let nothing follow the events that are here.
   *
   * @param {Error | null} error that the consumer gets after them
   */
  end(error) {
    this.#end ??= { error };
    this.#wake();
  }

  /** Resolve to the next event, or to undefined after the last one. Reject where the queue was ended by an error. */
  async next() {
    while (this.#head === this.#events.length) {
      if (this.#end?.error) throw this.#end.error;
      if (this.#end) return undefined;
      await new Promise((resolve) => this.#waiting.push(() => resolve(undefined)));
    }
    const event = this.#events[this.#head++];
    if (this.#head > 1024 && this.#head * 2 > this.#events.length) {
      this.#events = this.#events.slice(this.#head);
      this.#head = 0;
    }
    this.#size -= sizeOf(event);
    if (event.type === "rows") this.#takenSeq = Math.max(this.#takenSeq, event.seq);
    return event;
  }

  /**
   * Remove all events and return what takes their place and that of `event`.
   *
   * @param {SubscriptionEvent} event
   * @param {Batch[]} state
   */
  #replace(event, state) {
    /** @type {number | null} */
    let rows = 0;
    const kept = [];
    for (const old of [...this.#events.slice(this.#head), event]) {
      if (old.type !== "rows" && old.type !== "lag") kept.push(old);
      else if (old.type === "lag" && old.rows === null) rows = null;
      else if (rows !== null) rows += old.type === "lag" ? (old.rows ?? 0) : old.snapshot ? 0 : old.length;
    }
    this.#events = [];
    this.#head = this.#size = 0;
    /** @type {Lag} */
    const lag = { type: "lag", reason: "queue", from_seq: this.#takenSeq, to_seq: this.#newestSeq, rows };
    return [...kept.slice(-MOST_KEPT_EVENTS), lag, ...state];
  }

  #wake() {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

/** @param {SubscriptionEvent} event */
function sizeOf(event) {
  return event.type === "rows" ? Math.max(1, event.length) : 1;
}
