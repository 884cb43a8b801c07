// One connection as the protocol has it: from the welcome on, what the server says and what it is asked.

import { fail, ProtocolError, StreamError } from "../errors.js";
import { Channels } from "./channels.js";
import { parseControl, requireText, requireWhole } from "./messages.js";
import { mayPass, Requests } from "./requests.js";
import { Timers } from "./timers.js";
import { Transport } from "./transport.js";

/**
 * @import { ClientEvent, Gap, Welcome, WebSocketLike } from "../../ibfast.js"
 * @import { ControlMessage } from "./messages.js"
 * @import { Pacing } from "./pacing.js"
 * @import { Op, Request } from "./requests.js"
 * @import { Desired } from "./subscription.js"
 */

/**
 * The client, as its session sees it.
 *
 * @typedef {object} SessionOwner
 * @property {Set<Desired>} desired subscriptions that are not over
 * @property {Pacing} pacing
 * @property {() => number} limit max_bytes_per_s, 0: none
 * @property {(welcome: Welcome) => void} onWelcome
 * @property {(event: ClientEvent) => void} onEvent gets what concerns no single subscription
 * @property {(error: ProtocolError | StreamError) => void} onLost the session is of no use any more; must call `end`
 */

const PROTOCOL_VERSION = 1;
const WELCOME_TIMEOUT_MS = 10_000;
const SILENT_HEARTBEATS = 3;

/**
 * What each answer answers.
 *
 * @type {Record<string, Op>}
 */
const ANSWERS = {
  subscribed: "subscribe",
  updated: "update",
  unsubscribed: "unsubscribe",
  limited: "limit",
  subscriptions: "list",
  pong: "ping",
};

/** A session with a server, over one WebSocket. */
export class Session {
  #owner;
  #transport;
  #timers = new Timers();
  #channels = new Channels();
  #requests;
  #isOpen = false;
  #welcomedMs = 0;
  #receivedMs = performance.now();
  /**
   * Why the server ends the session, if it has said so.
   *
   * @type {{ code: string, message: string } | null}
   */
  #closing = null;

  /**
   * @param {WebSocketLike} socket
   * @param {SessionOwner} owner
   */
  constructor(socket, owner) {
    this.#owner = owner;
    this.#transport = new Transport(
      socket,
      (data) => this.#receive(data),
      (reason) => owner.onLost(this.#endOf(reason)),
    );
    this.#requests = new Requests((text) => this.#transport.send(text), this.#timers, owner.pacing);
    this.#timers.after(WELCOME_TIMEOUT_MS, () => {
      if (!this.#isOpen) owner.onLost(new StreamError("TIMEOUT", "the server said nothing"));
    });
  }

  /** Return for how long the session has been open, in milliseconds. */
  get openMs() {
    return this.#isOpen ? performance.now() - this.#welcomedMs : 0;
  }

  /** Resolves when the connection has ended on both sides. */
  get closed() {
    return this.#transport.closed.promise;
  }

  /**
   * Send a request; resolve to its answer.
   *
   * @param {Op} op
   * @param {Desired | null} [desired]
   * @param {Record<string, any>} [fields]
   */
  ask(op, desired, fields) {
    return this.#requests.ask(op, desired, fields);
  }

  /** @param {Desired} desired */
  subscribe(desired) {
    this.#requests.askQuietly("subscribe", desired);
  }

  /**
   * End the session. Subscriptions keep what the next one needs to go on.
   *
   * @param {number} closeCode
   */
  end(closeCode) {
    this.#timers.clear();
    this.#channels.abandon();
    this.#requests.abandon();
    this.#transport.close(closeCode);
  }

  /** @param {string} reason */
  #endOf(reason) {
    if (this.#closing === null)
      return new StreamError("DISCONNECTED", `the connection ended, or could not be made (${reason})`);
    if (this.#closing.code === "TOO_FAST") this.#owner.pacing.slowDown();
    return new StreamError(this.#closing.code, this.#closing.message);
  }

  /**
   * Watch for silence.
   *
   * @param {number} heartbeatMs
   */
  #watch(heartbeatMs) {
    this.#timers.after(heartbeatMs / 2, () => {
      if (performance.now() - this.#receivedMs > SILENT_HEARTBEATS * heartbeatMs)
        this.#owner.onLost(new StreamError("TIMEOUT", "the server has fallen silent"));
      else this.#watch(heartbeatMs);
    });
  }

  /** @param {string | ArrayBuffer} data */
  #receive(data) {
    this.#receivedMs = performance.now();
    try {
      if (typeof data === "string") this.#receiveControl(parseControl(data));
      else if (!this.#isOpen) fail("data before the welcome");
      else this.#channels.receive(data);
    } catch (error) {
      // A message that could not be read leaves a decoder of unknown state.
      this.#owner.onLost(
        error instanceof ProtocolError
          ? error
          : new ProtocolError(`a message that can't be: ${error}`, { cause: error }),
      );
    }
  }

  /** @param {ControlMessage} message */
  #receiveControl(message) {
    const { op } = message;
    if (!this.#isOpen && op !== "welcome" && op !== "closing") fail(`${op} before the welcome`);
    if (Object.hasOwn(ANSWERS, op)) this.#receiveAnswer(message);
    else if (op === "welcome") this.#receiveWelcome(message);
    else if (op === "heartbeat") this.#channels.receivePositions(message);
    else if (op === "error") this.#receiveError(message);
    else if (op === "state") this.#receiveState(message);
    else if (op === "slowed") this.#receiveSlowed(message);
    else if (op === "gap") this.#receiveGap(message);
    else if (op === "ended") this.#receiveEnded(message);
    else if (op === "closing")
      this.#closing = { code: requireText(message, "code"), message: String(message.message ?? "") };
    // Else a newer server has more to say.
  }

  /** @param {ControlMessage} message */
  #receiveWelcome(message) {
    if (this.#isOpen) fail("a second welcome");
    if (message.protocol !== PROTOCOL_VERSION)
      fail(`the server speaks protocol ${message.protocol}: use a client of its release`);
    if (!(message.heartbeat_s > 0)) fail(`heartbeat_s is ${message.heartbeat_s}`);
    this.#isOpen = true;
    this.#welcomedMs = performance.now();
    this.#watch(message.heartbeat_s * 1000);
    const limit = this.#owner.limit();
    if (limit > 0) this.#requests.askQuietly("limit", null, { max_bytes_per_s: limit });
    for (const desired of this.#owner.desired) this.subscribe(desired);
    // Last: what the user's onEvent asks for now is asked for once.
    this.#owner.onWelcome(/** @type {Welcome & ControlMessage} */ (message));
  }

  /** @param {ControlMessage} message */
  #receiveAnswer(message) {
    const request = this.#requests.get(message.id);
    if (request === undefined || request.op !== ANSWERS[message.op])
      fail(`${message.op} with id ${message.id}, which was not asked`);
    this.#requests.remove(message.id);
    const { op, desired, fields } = request;
    if (op === "ping") this.#channels.receivePositions(message);
    if (desired !== null && op === "subscribe") this.#receiveSubscribed(desired, message, request);
    if (desired !== null && op === "unsubscribe") this.#channels.end(desired);
    if (desired !== null && op === "update") {
      this.#channels.change(desired, message);
      desired.request.interval_ms = fields.interval_ms;
    }
    request.resolve(message);
    this.#requests.send();
  }

  /**
   * @param {Desired} desired
   * @param {ControlMessage} message
   * @param {Request} request
   */
  #receiveSubscribed(desired, message, { seen, interval_ms }) {
    const isResumed = this.#channels.begin(desired, message, seen);
    if (desired.isOver) {
      this.#requests.askQuietly("unsubscribe", desired);
      return;
    }
    desired.wasLive = true;
    // To go on, it was asked for as it was; now it may be changed.
    const wanted = desired.request.interval_ms;
    if (interval_ms !== wanted) this.#requests.askQuietly("update", desired, { interval_ms: wanted });
    desired.changeState(isResumed ? "RESUMED" : "SUBSCRIBED", String(message.reason ?? ""));
    desired.accepted.resolve(desired.subscription);
  }

  /** @param {ControlMessage} message */
  #receiveError(message) {
    const code = requireText(message, "code");
    const error = new StreamError(code, String(message.message ?? ""));
    if (message.id === undefined || message.id === null) {
      // It names no request: only a new connection can repeat the one that failed.
      if (code !== "TOO_FAST") fail(`the server did not understand this client: ${error.message}`);
      this.#owner.pacing.slowDown();
      this.#owner.onLost(error);
      return;
    }
    const request = this.#requests.get(message.id);
    if (request === undefined) return;
    this.#requests.remove(message.id);
    this.#fail(request, error);
    this.#requests.send();
  }

  /**
   * Ask again, or settle a request that has failed.
   *
   * @param {Request} request
   * @param {StreamError} error
   */
  #fail(request, error) {
    const { op, desired } = request;
    const { code } = error;
    if (desired === null) request.reject(error);
    else if (mayPass(code) && (code === "TOO_FAST" || (op === "subscribe" && desired.wasLive))) {
      if (op === "subscribe") desired.reason = error.message;
      this.#requests.repeat(request, code);
    } else if (op === "unsubscribe") {
      this.#channels.end(desired);
      request.resolve(undefined);
    } else {
      if (op === "subscribe") this.#end(desired, error);
      request.reject(error);
    }
  }

  /** @param {ControlMessage} message */
  #receiveState(message) {
    const desired = this.#channels.subscription(message.subscription);
    desired?.changeState(requireText(message, "state"), String(message.reason ?? ""));
  }

  /** @param {ControlMessage} message */
  #receiveSlowed(message) {
    const desired = this.#channels.subscription(message.subscription);
    if (desired === undefined) return;
    this.#channels.change(desired, message);
    desired.deliver({ type: "slowed", interval_ms: requireWhole(message, "interval_ms") });
  }

  /** @param {ControlMessage} message */
  #receiveGap({ op: _op, ...fields }) {
    const event = /** @type {Gap} */ ({ type: "gap", ...fields });
    if (event.channel === undefined || event.channel === null) this.#owner.onEvent(event);
    else this.#channels.ownerOf(event.channel).deliver(event);
  }

  /** @param {ControlMessage} message */
  #receiveEnded(message) {
    const desired = this.#channels.subscription(message.subscription);
    if (desired === undefined) return;
    const error = new StreamError(requireText(message, "code"), String(message.message ?? ""));
    this.#channels.end(desired);
    this.#end(desired, error);
  }

  /**
   * @param {Desired} desired
   * @param {StreamError} error
   */
  #end(desired, error) {
    this.#owner.desired.delete(desired);
    desired.reason = error.message;
    desired.deliver({ type: "ended", code: error.code, message: error.message });
    desired.end(error.code === "DONE" ? null : error);
  }
}
