// A subscription: what is wanted, whatever happens to connections, and what a user holds of it.

import { CLASSES } from "../codec/spec.js";
import { StreamError } from "../errors.js";
import { Queue } from "./event_queue.js";

const DEFAULT_MAX_ROWS = 65_536;

/** Call a user's function; what it throws is the trouble of `report` and of nobody else. */
export function tell(report, callback, ...values) {
  try {
    callback?.(...values);
  } catch (error) {
    report(error);
  }
}

export function reportUncaught(error) {
  queueMicrotask(() => {
    throw error;
  });
}

/** A subscription that is wanted, whatever happens to connections. */
export class Wish {
  number = null;
  /** Of the current connection: what is known of its channel. */
  owner = null;
  channels = [];
  /** From where it can go on: `resume`, and the interval_ms that was asked for then. null: only its state can come. */
  seen = null;
  state = "PENDING";
  reason = "";
  wasLive = false;
  isOver = false;

  constructor(body, options, report) {
    this.body = body;
    this.options = options;
    this.report = report;
    this.queue = options.onEvent === undefined ? new Queue(options.maxRows ?? DEFAULT_MAX_ROWS) : null;
    this.face = null;
    this.answer = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
  }

  deliver(event, state) {
    if (this.isOver) return;
    if (this.queue === null) tell(this.report, this.options.onEvent, event, this.face);
    else this.queue.push(event, state);
  }

  /** Nothing of it follows. */
  end(error) {
    if (this.isOver) return;
    this.isOver = true;
    this.state = "ENDED";
    this.queue?.end(error);
    this.reject(error ?? new StreamError("CLOSED", "the subscription was given up"));
  }

  /** Before the connection's channel is forgotten, note up to where everything has come, if it has its state. */
  remember() {
    if (this.owner === null || !this.owner.isReady) return;
    const { epoch, seq, class: cls } = this.owner;
    this.seen = { resume: { epoch, position: CLASSES * seq + cls }, interval_ms: this.body.interval_ms };
  }
}

/** A subscription: an async iterable of its rows. */
export class Subscription {
  #wish;
  #acts;

  constructor(wish, acts) {
    this.#wish = wish;
    this.#acts = acts;
  }

  get symbol() {
    return this.#wish.channels[0]?.symbol ?? this.#wish.body.symbol ?? this.#wish.body.contract?.symbol;
  }

  get state() {
    return this.#wish.state;
  }

  get reason() {
    return this.#wish.reason;
  }

  /** The channels as the server describes them. */
  get channels() {
    return this.#wish.channels;
  }

  update(interval_ms) {
    return this.#acts.update(interval_ms);
  }

  unsubscribe() {
    return this.#acts.unsubscribe();
  }

  async *events() {
    const { queue } = this.#wish;
    if (queue === null) throw new TypeError("this subscription's events go to its onEvent");
    for (let event = await queue.next(); event !== undefined; event = await queue.next()) yield event;
  }

  async *[Symbol.asyncIterator]() {
    for await (const event of this.events()) {
      if (event.type !== "rows") continue;
      if (event.rows === undefined) yield event;
      else yield* event.rows;
    }
  }
}
