// Requests of one connection: sent with a pause between two, so many without an answer at a time.

import { StreamError } from "../errors.js";

/**
 * @import { Pacing } from "./pacing.js"
 * @import { Desired, ResumePoint } from "./subscription.js"
 * @import { Timers } from "./timers.js"
 * @typedef {"subscribe" | "update" | "unsubscribe" | "limit" | "list" | "ping"} Op
 */

const MOST_UNANSWERED = 64;
/** Errors that may pass, and after how many milliseconds to ask again for a subscription that was live before. */
const PASSING_CODES_MS = { TOO_FAST: 1_000, NO_GATEWAY: 5_000, TOO_MANY: 5_000 };

/** @typedef {keyof typeof PASSING_CODES_MS} PassingCode */

/**
 * Return whether an error may pass.
 *
 * @param {string} code
 * @returns {code is PassingCode}
 */
export function mayPass(code) {
  return Object.hasOwn(PASSING_CODES_MS, code);
}

/** A request, and the promise of its answer. */
export class Request {
  /**
   * From where the subscription was asked to go on.
   *
   * @type {ResumePoint | null}
   */
  seen = null;
  /**
   * The interval that was asked for.
   *
   * @type {number | undefined}
   */
  interval_ms = undefined;

  /**
   * @param {Op} op
   * @param {Desired | null} desired the subscription that it is about
   * @param {Record<string, any>} fields
   * @param {(answer: any) => void} resolve
   * @param {(error: unknown) => void} reject
   */
  constructor(op, desired, fields, resolve, reject) {
    this.op = op;
    this.desired = desired;
    this.fields = fields;
    this.resolve = resolve;
    this.reject = reject;
  }

  /** Return whether its subscription has ended before the request was sent. */
  get isVoid() {
    const { desired } = this;
    if (desired === null) return false;
    return this.op === "subscribe" ? desired.isOver : desired.number === null;
  }

  /** Return the fields of the message. A `subscribe` goes on from what has been seen by now. */
  body() {
    const { desired, op } = this;
    const body = { ...this.fields };
    if (op === "subscribe" && desired !== null) {
      this.seen = desired.request.mode === "snapshot" ? null : desired.seen;
      Object.assign(body, desired.request, this.seen);
    } else if (desired !== null) body.subscription = desired.number;
    this.interval_ms = body.interval_ms;
    return body;
  }

  /** Settle it, as the connection is lost. What asks for an end has got it; an interval is asked for again. */
  abandon() {
    const { op, desired, fields } = this;
    if (op === "update" && desired !== null && !desired.isOver) desired.request.interval_ms = fields.interval_ms;
    if (op === "update" || op === "unsubscribe") this.resolve(undefined);
    else this.reject(new StreamError("DISCONNECTED", `the connection was lost before ${op} was answered`));
  }
}

/** The requests of one connection. Its owner removes each when its answer comes, and then calls `send`. */
export class Requests {
  #transmit;
  #timers;
  #pacing;
  #lastId = 0;
  /** @type {Map<unknown, Request>} */
  #unanswered = new Map();
  /** @type {Request[]} */
  #outbox = [];
  /**
   * Requests that are sent again when their code may have passed.
   *
   * @type {Set<Request>}
   */
  #delayed = new Set();
  #pauses = 0;

  /**
   * @param {(text: string) => void} transmit
   * @param {Timers} timers of the connection
   * @param {Pacing} pacing
   */
  constructor(transmit, timers, pacing) {
    this.#transmit = transmit;
    this.#timers = timers;
    this.#pacing = pacing;
  }

  /**
   * Send a request as soon as it may be sent; resolve to its answer.
   *
   * @param {Op} op
   * @param {Desired | null} [desired]
   * @param {Record<string, any>} [fields]
   * @returns {Promise<any>}
   */
  ask(op, desired = null, fields = {}) {
    return new Promise((resolve, reject) => {
      this.#outbox.push(new Request(op, desired, fields, resolve, reject));
      this.send();
    });
  }

  /**
   * Send a request whose failure shows by the events of its subscription.
   *
   * @param {Op} op
   * @param {Desired | null} [desired]
   * @param {Record<string, any>} [fields]
   */
  askQuietly(op, desired, fields) {
    this.ask(op, desired, fields).catch(() => {});
  }

  /**
   * Return the request with an id, if it has no answer yet.
   *
   * @param {unknown} id
   */
  get(id) {
    return this.#unanswered.get(id);
  }

  /**
   * Note that a request has its answer.
   *
   * @param {unknown} id
   */
  remove(id) {
    this.#unanswered.delete(id);
  }

  /** Send what may be sent now. */
  send() {
    while (this.#pauses === 0 && this.#unanswered.size < MOST_UNANSWERED) {
      const request = this.#outbox.shift();
      if (request === undefined) return;
      if (request.isVoid) {
        request.resolve(undefined);
        continue;
      }
      const id = ++this.#lastId;
      const body = request.body();
      this.#unanswered.set(id, request);
      this.#transmit(JSON.stringify({ ...body, op: request.op, id }));
      this.#pause(this.#pacing.pauseMs);
    }
  }

  /**
   * Send a request again in a while. After TOO_FAST nothing else is sent before.
   *
   * @param {Request} request
   * @param {PassingCode} code
   */
  repeat(request, code) {
    const delayMs = PASSING_CODES_MS[code];
    this.#delayed.add(request);
    this.#timers.after(delayMs, () => {
      this.#delayed.delete(request);
      this.#outbox.push(request);
      this.send();
    });
    if (code === "TOO_FAST") this.#pause(delayMs);
  }

  /** Settle all requests, as the connection is lost. */
  abandon() {
    const requests = [...this.#unanswered.values(), ...this.#outbox, ...this.#delayed];
    this.#unanswered.clear();
    this.#outbox = [];
    this.#delayed.clear();
    for (const request of requests) request.abandon();
  }

  /** @param {number} delayMs in which nothing is sent */
  #pause(delayMs) {
    this.#pauses++;
    this.#timers.after(delayMs, () => {
      this.#pauses--;
      this.send();
    });
  }
}
