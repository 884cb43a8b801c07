// Events on their way to a consumer that iterates.

const MOST_KEPT_EVENTS = 256;

/** Events on their way to whoever iterates; bounded. What does not fit is left out, told, and replaced by the state. */
export class Queue {
  #maxRows;
  #events = [];
  #head = 0;
  #size = 0;
  #takenSeq = 0;
  #newestSeq = 0;
  #waiting = [];
  #end = null;

  constructor(maxRows) {
    this.#maxRows = maxRows;
  }

  /** Take in an event; `state()` returns the events that stand for all before. */
  push(event, state) {
    if (event.type === "rows") this.#newestSeq = Math.max(this.#newestSeq, event.seq);
    const isFull = this.#size > 0 && this.#size + sizeOf(event) > this.#maxRows;
    for (const one of isFull ? this.#replace(event, state()) : [event]) {
      this.#events.push(one);
      this.#size += sizeOf(one);
    }
    this.#wake();
  }

  end(error) {
    this.#end ??= { error };
    this.#wake();
  }

  /** Resolve to the next event; undefined: there is none any more. Rejects where it ended by an error. */
  async next() {
    while (this.#head === this.#events.length) {
      if (this.#end?.error) throw this.#end.error;
      if (this.#end) return undefined;
      await new Promise((resolve) => this.#waiting.push(resolve));
    }
    const event = this.#events[this.#head++];
    if (this.#head > 1024 && this.#head * 2 > this.#events.length) {
      this.#events = this.#events.slice(this.#head);
      this.#head = 0;
    }
    this.#size -= sizeOf(event);
    if (event.seq !== undefined) this.#takenSeq = Math.max(this.#takenSeq, event.seq);
    return event;
  }

  /** Leave out all that waits, and `event`; return what takes its place. */
  #replace(event, state) {
    let rows = 0;
    const kept = [];
    for (const old of [...this.#events.slice(this.#head), event]) {
      if (old.type === "rows") rows += old.snapshot ? 0 : old.length;
      else if (old.type === "lag") rows += old.rows ?? NaN;
      else kept.push(old);
    }
    this.#events = [];
    this.#head = this.#size = 0;
    const lag = { type: "lag", reason: "queue", from_seq: this.#takenSeq, to_seq: this.#newestSeq };
    lag.rows = Number.isNaN(rows) ? null : rows;
    return [...kept.slice(-MOST_KEPT_EVENTS), lag, ...state];
  }

  #wake() {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

function sizeOf(event) {
  return event.type === "rows" ? Math.max(1, event.length) : 1;
}
