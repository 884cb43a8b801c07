// A client: one session, the next one after it, and the subscriptions that outlive both.

import { ProtocolError, StreamError } from "../errors.js";
import { call, reportUncaught } from "./callbacks.js";
import { Deferred } from "./deferred.js";
import { Pacing } from "./pacing.js";
import { Reconnection } from "./reconnection.js";
import { Session } from "./session.js";
import { Desired, Subscription } from "./subscription.js";
import { Timers } from "./timers.js";

/**
 * @import * as api from "../../ibfast.js"
 * @import { Op } from "./requests.js"
 */

const SUBPROTOCOL = "ibfast.v1.binary";
const CLOSE_TIMEOUT_MS = 2_000;
/** Status codes of a WebSocket. */
const NORMAL = 1000;
const NOT_THE_PROTOCOL = 4002;

/** A client of a server: one connection, and the next one after it. Made by `connect`. */
export class Client {
  /** @type {api.ClientState} */
  state = "connecting";
  /** @type {api.Welcome | null} */
  welcome = null;
  #url;
  #options;
  #WebSocket;
  /** @type {Reconnection | null} */
  #reconnection;
  #pacing = new Pacing();
  #timers = new Timers();
  /** @type {Set<Desired>} */
  #desired = new Set();
  #limit = 0;
  /** null when it has been settled. */
  #opened;
  /** @type {Session | null} */
  #session = null;

  /**
   * @param {string} url
   * @param {api.ConnectOptions} options
   * @param {Deferred<api.Client>} opened is settled when the server has bidden welcome, or the first try has failed
   */
  constructor(url, options, opened) {
    this.#url = url;
    this.#options = options;
    this.#opened = /** @type {typeof opened | null} */ (opened);
    this.#reconnection = options.reconnect === false ? null : new Reconnection(options.reconnect);
    this.#WebSocket = options.WebSocket ?? /** @type {api.WebSocketClass} */ (globalThis.WebSocket);
    if (this.#WebSocket === undefined)
      throw new TypeError("there is no WebSocket here: give a class as options.WebSocket");
    this.#connect();
  }

  /**
   * Want data. Resolve when the server has accepted it.
   *
   * @param {string | api.SubscribeRequest} request a stock's symbol, or the fields of the protocol
   * @param {api.SubscribeOptions} [options]
   * @returns {Promise<api.Subscription>}
   */
  async subscribe(request, options = {}) {
    this.#requireUse();
    const desired = new Desired(
      typeof request === "string" ? { symbol: request } : { ...request },
      options,
      (error) => this.#report(error),
      (made) =>
        new Subscription(made, {
          update: (interval_ms) => this.#update(made, interval_ms),
          unsubscribe: () => this.#unsubscribe(made),
        }),
    );
    this.#desired.add(desired);
    if (this.state === "open") this.#session?.subscribe(desired);
    return desired.accepted.promise;
  }

  /**
   * Return what the server has of this connection's subscriptions.
   *
   * @returns {Promise<Record<string, unknown>[]>}
   */
  async list() {
    return (await this.#ask("list")).subscriptions;
  }

  /**
   * Have at most so many bytes a second, 0: as many as there are. It holds for later connections too.
   *
   * @param {number} max_bytes_per_s
   * @returns {Promise<unknown>}
   */
  async limit(max_bytes_per_s) {
    this.#requireUse();
    this.#limit = max_bytes_per_s;
    return this.#ask("limit", { max_bytes_per_s });
  }

  /**
   * Ask for an answer with the same data.
   *
   * @param {unknown} [data]
   * @returns {Promise<api.Pong>}
   */
  async ping(data) {
    const startMs = performance.now();
    const pong = await this.#ask("ping", { data });
    return { ...pong, round_trip_ms: performance.now() - startMs };
  }

  /**
   * End everything; resolve when the connection is closed.
   *
   * @returns {Promise<void>}
   */
  async close() {
    const session = this.#session;
    this.#finish(null);
    if (session === null) return;
    let timer;
    const timeout = new Promise((resolve) => {
      timer = setTimeout(resolve, CLOSE_TIMEOUT_MS);
    });
    await Promise.race([session.closed, timeout]);
    clearTimeout(timer);
  }

  async #connect() {
    let { token } = this.#options;
    try {
      if (typeof token === "function") token = await token();
    } catch (error) {
      this.#lose(new StreamError("DISCONNECTED", `there is no token: ${error}`, { cause: error }));
      return;
    }
    if (this.#isClosed) return;
    try {
      const protocols = token === undefined ? [SUBPROTOCOL] : [SUBPROTOCOL, `ibfast.token.${token}`];
      this.#session = new Session(new this.#WebSocket(this.#url, protocols), {
        desired: this.#desired,
        pacing: this.#pacing,
        limit: () => this.#limit,
        onWelcome: (welcome) => this.#begin(welcome),
        onEvent: (event) => this.#emit(event),
        onLost: (error) => this.#lose(error),
      });
    } catch (error) {
      // An address or a token that can't be: another try would fail as well.
      this.#finish(/** @type {Error} */ (error));
    }
  }

  /** @param {api.Welcome} welcome */
  #begin(welcome) {
    this.welcome = welcome;
    this.state = "open";
    this.#emit({ type: "state", state: "open", reason: "" });
    this.#opened?.resolve(this);
    this.#opened = null;
  }

  /**
   * Give up the session, and connect again in a while.
   *
   * @param {ProtocolError | StreamError} error
   */
  #lose(error) {
    if (this.#isClosed) return;
    const isProtocolError = error instanceof ProtocolError;
    const openMs = this.#session?.openMs ?? 0;
    this.#endSession(isProtocolError ? NOT_THE_PROTOCOL : NORMAL);
    const hasExpired = !isProtocolError && error.code === "EXPIRED" && typeof this.#options.token !== "function";
    if (this.#opened !== null || this.#reconnection === null || hasExpired) {
      this.#finish(error);
      return;
    }
    this.state = "reconnecting";
    this.#timers.after(this.#reconnection.nextMs(openMs), () => this.#connect());
    // The user may close the client in each of these calls.
    if (isProtocolError) this.#emit({ type: "error", error });
    if (!this.#isClosed) this.#emit({ type: "state", state: "reconnecting", reason: error.message });
    for (const desired of this.#desired) if (desired.wasLive) desired.changeState("RECONNECTING", error.message);
  }

  /** @param {number} closeCode */
  #endSession(closeCode) {
    this.#timers.clear();
    const session = this.#session;
    this.#session = null;
    session?.end(closeCode);
  }

  /** @param {Error | null} error null: the user closes the client */
  #finish(error) {
    if (this.#isClosed) return;
    this.state = "closed";
    this.#endSession(NORMAL);
    for (const desired of this.#desired) desired.end(error);
    this.#desired.clear();
    this.#opened?.reject(error ?? new StreamError("CLOSED", "the client was closed"));
    this.#opened = null;
    this.#emit({ type: "state", state: "closed", reason: error?.message ?? "" });
  }

  /**
   * @param {Desired} desired
   * @param {number} interval_ms
   */
  async #update(desired, interval_ms) {
    this.#requireUse();
    if (desired.isOver) throw new StreamError("CLOSED", "the subscription is over");
    if (desired.number === null) desired.request.interval_ms = interval_ms;
    else await this.#session?.ask("update", desired, { interval_ms });
  }

  /** @param {Desired} desired */
  async #unsubscribe(desired) {
    if (desired.isOver) return;
    this.#desired.delete(desired);
    desired.end(null);
    if (desired.number !== null) await this.#session?.ask("unsubscribe", desired);
  }

  /**
   * @param {Op} op
   * @param {Record<string, unknown>} [fields]
   */
  async #ask(op, fields) {
    this.#requireUse();
    if (this.state !== "open" || this.#session === null)
      throw new StreamError("DISCONNECTED", "there is no connection now");
    return this.#session.ask(op, null, fields);
  }

  get #isClosed() {
    return this.state === "closed";
  }

  #requireUse() {
    if (this.#isClosed) throw new StreamError("CLOSED", "the client was closed");
  }

  /** @param {api.ClientEvent} event */
  #emit(event) {
    call(reportUncaught, this.#options.onEvent, event);
  }

  /** @param {unknown} error that a subscription's onEvent has thrown */
  #report(error) {
    if (this.#options.onEvent === undefined) reportUncaught(error);
    else this.#emit({ type: "error", error: /** @type {Error} */ (error) });
  }
}

/**
 * Connect to a server; resolve to a `Client` when it has bidden welcome, reject if the first try fails.
 *
 * @param {string} url
 * @param {api.ConnectOptions} [options]
 * @returns {Promise<api.Client>}
 */
export async function connect(url, options = {}) {
  /** @type {Deferred<api.Client>} */
  const opened = new Deferred();
  new Client(url, options, opened);
  return opened.promise;
}
