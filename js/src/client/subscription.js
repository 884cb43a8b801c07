// A subscription: Desired, what a client wants whatever happens to connections; Subscription, what a user holds of it.

import { CLASSES } from "../codec/spec.js";
import { StreamError } from "../errors.js";
import { call } from "./callbacks.js";
import { Deferred } from "./deferred.js";
import { EventQueue } from "./event_queue.js";

/**
 * @import * as api from "../../ibfast.js"
 * @import { ChannelSlot } from "./channels.js"
 * @typedef {{ resume: { epoch: string, position: number }, interval_ms: number | undefined }} ResumePoint
 */

const DEFAULT_MAX_ROWS = 65_536;

/** A subscription that is wanted. It outlives connections. */
export class Desired {
  /**
   * The server's number for it, null while no connection has it.
   *
   * @type {number | null}
   */
  number = null;
  /**
   * Its channel on the present connection.
   *
   * @type {ChannelSlot | null}
   */
  slot = null;
  /** @type {api.ChannelDescription[]} */
  channels = [];
  /**
   * From where it can go on, and the interval_ms that goes with that. null: only its state can come.
   *
   * @type {ResumePoint | null}
   */
  seen = null;
  state = "PENDING";
  reason = "";
  /** Whether the server has ever accepted it. */
  wasLive = false;
  isOver = false;
  /**
   * Returns the current rows of its channel.
   *
   * @type {() => api.Batch[]}
   */
  currentRows = () => [];

  /**
   * @param {api.SubscribeRequest} request
   * @param {api.SubscribeOptions} options
   * @param {(error: unknown) => void} report gets what the user's onEvent throws
   * @param {(desired: Desired) => api.Subscription} subscriptionOf makes what the user holds
   */
  constructor(request, options, report, subscriptionOf) {
    this.request = request;
    this.options = options;
    this.report = report;
    this.queue = options.onEvent === undefined ? new EventQueue(options.maxRows ?? DEFAULT_MAX_ROWS) : null;
    /** @type {Deferred<api.Subscription>} */
    this.accepted = new Deferred();
    this.subscription = subscriptionOf(this);
  }

  /** @param {api.SubscriptionEvent} event */
  deliver(event) {
    if (this.isOver) return;
    if (this.queue === null) call(this.report, this.options.onEvent, event, this.subscription);
    else this.queue.push(event, this.currentRows);
  }

  /**
   * @param {string} state
   * @param {string} reason
   */
  changeState(state, reason) {
    this.state = state;
    this.reason = reason;
    this.deliver({ type: "state", state, reason });
  }

  /**
   * Deliver nothing any more.
   *
   * @param {Error | null} error null: it ended as the user wished
   */
  end(error) {
    if (this.isOver) return;
    this.isOver = true;
    this.state = "ENDED";
    this.queue?.end(error);
    this.accepted.reject(error ?? new StreamError("CLOSED", "the subscription was given up"));
  }

  /** Note up to where everything has come, before the channel's slot is forgotten. */
  remember() {
    if (this.slot === null || !this.slot.isReady) return;
    const { epoch, seq, class: cls } = this.slot;
    this.seen = { resume: { epoch, position: CLASSES * seq + cls }, interval_ms: this.request.interval_ms };
  }
}

/** A subscription: an async iterable of its rows. */
export class Subscription {
  #desired;
  #acts;

  /**
   * @param {Desired} desired
   * @param {{ update: (interval_ms: number) => Promise<void>, unsubscribe: () => Promise<void> }} acts
   */
  constructor(desired, acts) {
    this.#desired = desired;
    this.#acts = acts;
  }

  /** @returns {string} */
  get symbol() {
    const { channels, request } = this.#desired;
    return /** @type {string} */ (channels[0]?.symbol ?? request.symbol ?? request.contract?.symbol);
  }

  /** @returns {string} */
  get state() {
    return this.#desired.state;
  }

  /** @returns {string} */
  get reason() {
    return this.#desired.reason;
  }

  /**
   * The channels as the server describes them.
   *
   * @returns {api.ChannelDescription[]}
   */
  get channels() {
    return this.#desired.channels;
  }

  /**
   * Have another interval, one of the welcome's `intervals_ms`.
   *
   * @param {number} interval_ms
   * @returns {Promise<void>}
   */
  update(interval_ms) {
    return this.#acts.update(interval_ms);
  }

  /** @returns {Promise<void>} */
  unsubscribe() {
    return this.#acts.unsubscribe();
  }

  /**
   * Yield rows, lags, gaps and states in order.
   *
   * @throws {StreamError} the subscription ended by it
   * @returns {AsyncGenerator<api.SubscriptionEvent, void, void>}
   */
  async *events() {
    const { queue } = this.#desired;
    if (queue === null) throw new TypeError("this subscription's events go to its onEvent");
    for (let event = await queue.next(); event !== undefined; event = await queue.next()) yield event;
  }

  /**
   * Yield rows, or batches of columns.
   *
   * @returns {AsyncGenerator<api.Row | api.ColumnBatch, void, void>}
   */
  async *[Symbol.asyncIterator]() {
    for await (const event of this.events()) {
      if (event.type !== "rows") continue;
      if (event.rows === undefined) yield event;
      else yield* event.rows;
    }
  }
}
