// A client: one connection, the next one after it, and the subscriptions that outlive both.

import { FrameDecoder } from "../codec/frame_decoder.js";
import { CLASSES } from "../codec/spec.js";
import { fail, ProtocolError, StreamError } from "../errors.js";
import { backoffMs, DEFAULT_RECONNECT } from "./reconnection.js";
import { reportUncaught, Subscription, tell, Wish } from "./subscription.js";

const SUBPROTOCOL = "ibfast.v1.binary";
const PROTOCOL_VERSION = 1;

const MOST_UNANSWERED = 64;
const WELCOME_TIMEOUT_MS = 10_000;
const CLOSE_TIMEOUT_MS = 2_000;
const PAUSE_MS = 2;
const MOST_PAUSE_MS = 1_000;
const SILENT_HEARTBEATS = 3;
const STABLE_MS = 30_000;
/** What need not last: after how many milliseconds to ask again for what the server has had before. */
const PASSING_CODES_MS = { TOO_FAST: 1_000, NO_GATEWAY: 5_000, TOO_MANY: 5_000 };

// A WebSocket's readyState.
const OPEN = 1;
const CLOSING = 2;

const ANSWERS = {
  subscribed: "subscribe",
  updated: "update",
  unsubscribed: "unsubscribe",
  limited: "limit",
  subscriptions: "list",
  pong: "ping",
};

function requireWhole(said, name) {
  if (!Number.isInteger(said[name]) || said[name] < 0) fail(`${said.op}: ${name} is ${said[name]}`);
  return said[name];
}

function requireText(said, name) {
  if (typeof said[name] !== "string") fail(`${said.op}: ${name} is ${said[name]}`);
  return said[name];
}

/** A client of a server: one connection, and the next one after it. Made by `connect`. */
export class Client {
  state = "connecting";
  welcome = null;
  #url;
  #options;
  #reconnect;
  #WebSocket;
  #attempt = 0;
  #wishes = new Set();
  #limit = 0;
  #pauseMs = PAUSE_MS;
  #lastId = 0;
  #timers = new Set();
  #opened = null;
  #gone = null;

  // What dies with a connection.
  #socket = null;
  #decoder = null;
  #requests = new Map();
  #outbox = [];
  #early = new Set();
  #pauses = 0;
  #owners = new Map();
  #byNumber = new Map();
  #heardMs = 0;
  #welcomedMs = 0;
  #closing = null;
  #trouble = "";

  constructor(url, options) {
    this.#url = url;
    this.#options = options;
    this.#reconnect = options.reconnect === false ? null : { ...DEFAULT_RECONNECT, ...options.reconnect };
    this.#WebSocket = options.WebSocket ?? globalThis.WebSocket;
    if (this.#WebSocket === undefined)
      throw new TypeError("there is no WebSocket here: give a class as options.WebSocket");
  }

  /** Resolve when the server has bidden welcome; reject if the first try fails. */
  open() {
    return new Promise((resolve, reject) => {
      this.#opened = { resolve, reject };
      this.#connect();
    });
  }

  // What users ask.

  async subscribe(request, options = {}) {
    this.#requireUse();
    const wish = new Wish(typeof request === "string" ? { symbol: request } : { ...request }, options, (error) =>
      this.#options.onEvent === undefined ? reportUncaught(error) : this.#tell({ type: "error", error }),
    );
    wish.face = new Subscription(wish, {
      update: (interval_ms) => this.#update(wish, interval_ms),
      unsubscribe: () => this.#unsubscribe(wish),
    });
    this.#wishes.add(wish);
    if (this.state === "open") this.#ask("subscribe", wish).catch(() => {});
    return wish.answer;
  }

  async list() {
    return (await this.#askAnything("list")).subscriptions;
  }

  async limit(max_bytes_per_s) {
    this.#requireUse();
    this.#limit = max_bytes_per_s; // It holds for all connections to come, whatever becomes of this question.
    return this.#askAnything("limit", { max_bytes_per_s });
  }

  async ping(data) {
    const startMs = performance.now();
    const pong = await this.#askAnything("ping", { data });
    return { ...pong, round_trip_ms: performance.now() - startMs };
  }

  /** End everything; resolve when the connection is closed. */
  async close() {
    if (this.state === "closed") return;
    const socket = this.#socket;
    const gone = new Promise((resolve) => {
      this.#gone = resolve;
    });
    this.#finish(null);
    if (socket === null) return;
    const timer = setTimeout(this.#gone, CLOSE_TIMEOUT_MS);
    await gone;
    clearTimeout(timer);
  }

  // Connections.

  async #connect() {
    let { token } = this.#options;
    try {
      if (typeof token === "function") token = await token();
    } catch (error) {
      this.#drop(new StreamError("DISCONNECTED", `there is no token: ${error}`, { cause: error }));
      return;
    }
    if (this.state === "closed") return;
    try {
      const protocols = token === undefined ? [SUBPROTOCOL] : [SUBPROTOCOL, `ibfast.token.${token}`];
      this.#begin(new this.#WebSocket(this.#url, protocols));
    } catch (error) {
      // An address or a token that can't be: nothing to try again with.
      this.#finish(error);
    }
  }

  #begin(socket) {
    this.#socket = socket;
    this.#decoder = new FrameDecoder();
    this.#heardMs = performance.now();
    this.#closing = null;
    this.#trouble = "";
    socket.binaryType = "arraybuffer";
    const own = (handle) => (event) => {
      if (socket === this.#socket) handle(event);
    };
    socket.onmessage = own((event) => this.#take(event.data));
    socket.onerror = (event) => {
      if (socket === this.#socket) this.#trouble = event.error?.message ?? event.message ?? "";
      // Some tell no close where a connection could not be made.
      if (socket.readyState !== OPEN) socket.onclose({ code: 1006 });
    };
    socket.onclose = (event) => {
      if (socket === this.#socket) this.#drop(this.#reasonOf(event));
      this.#gone?.();
    };
    this.#after(WELCOME_TIMEOUT_MS, () => {
      if (socket === this.#socket && this.state !== "open")
        this.#drop(new StreamError("TIMEOUT", "the server said nothing"));
    });
  }

  #reasonOf({ code, reason }) {
    if (this.#closing !== null) {
      if (this.#closing.code === "TOO_FAST") this.#slowDown();
      return new StreamError(this.#closing.code, this.#closing.message);
    }
    const why = [code, reason, this.#trouble].filter(Boolean).join(", ");
    return new StreamError("DISCONNECTED", `the connection ended, or could not be made (${why})`);
  }

  /** Give up the connection, and try again in a while. */
  #drop(error) {
    if (this.state === "closed") return;
    const wasOpen = this.state === "open";
    this.#forgetConnection(error instanceof ProtocolError ? 4002 : 1000);
    const isFinal = error.code === "EXPIRED" && typeof this.#options.token !== "function";
    if (this.#opened !== null || this.#reconnect === null || isFinal) {
      this.#finish(error);
      return;
    }
    if (wasOpen && performance.now() - this.#welcomedMs >= STABLE_MS) this.#attempt = 0;
    if (error instanceof ProtocolError) this.#tell({ type: "error", error });
    this.#become("reconnecting", error.message);
    for (const wish of this.#wishes) {
      if (wish.wasLive) this.#changeState(wish, "RECONNECTING", error.message);
    }
    this.#after(backoffMs(this.#attempt++, this.#reconnect), () => this.#connect());
  }

  #forgetConnection(closeCode) {
    this.#clearTimers();
    const socket = this.#socket;
    this.#socket = null;
    for (const wish of this.#wishes) {
      if (wish.number === null) continue;
      wish.remember();
      wish.number = null;
      wish.owner = null;
    }
    const unanswered = [...this.#requests.values(), ...this.#outbox, ...this.#early];
    this.#early.clear();
    this.#requests.clear();
    this.#outbox = [];
    this.#owners.clear();
    this.#byNumber.clear();
    this.#pauses = 0;
    for (const request of unanswered) this.#abandon(request);
    if (socket !== null && socket.readyState < CLOSING) socket.close(closeCode);
  }

  /** A request whose answer can't come any more. */
  #abandon({ op, wish, fields, resolve, reject }) {
    if (op === "update" && !wish.isOver) wish.body.interval_ms = fields.interval_ms;
    if (op === "update" || op === "unsubscribe") resolve();
    else reject(new StreamError("DISCONNECTED", `the connection was lost before ${op} was answered`));
  }

  #finish(error) {
    if (this.state === "closed") return;
    this.state = "closed";
    this.#forgetConnection(1000);
    for (const wish of this.#wishes) wish.end(error);
    this.#wishes.clear();
    this.#opened?.reject(error ?? new StreamError("CLOSED", "the client was closed"));
    this.#opened = null;
    this.#tell({ type: "state", state: "closed", reason: error?.message ?? "" });
  }

  #after(delayMs, act) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      act();
    }, delayMs);
    this.#timers.add(timer);
  }

  #clearTimers() {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }

  #watch(heartbeatMs) {
    this.#after(heartbeatMs / 2, () => {
      if (performance.now() - this.#heardMs > SILENT_HEARTBEATS * heartbeatMs) {
        this.#drop(new StreamError("TIMEOUT", "the server has fallen silent"));
      } else {
        this.#watch(heartbeatMs);
      }
    });
  }

  #become(state, reason) {
    this.state = state;
    this.#tell({ type: "state", state, reason });
  }

  #tell(event) {
    tell(reportUncaught, this.#options.onEvent, event);
  }

  #requireUse() {
    if (this.state === "closed") throw new StreamError("CLOSED", "the client was closed");
  }

  // Requests.

  async #update(wish, interval_ms) {
    this.#requireUse();
    if (wish.isOver) throw new StreamError("CLOSED", "the subscription is over");
    if (wish.number === null) wish.body.interval_ms = interval_ms;
    else await this.#ask("update", wish, { interval_ms });
  }

  async #unsubscribe(wish) {
    if (wish.isOver) return;
    this.#wishes.delete(wish);
    wish.end(null);
    if (wish.number !== null) await this.#ask("unsubscribe", wish);
  }

  async #askAnything(op, fields) {
    this.#requireUse();
    if (this.state !== "open") throw new StreamError("DISCONNECTED", "there is no connection now");
    return this.#ask(op, null, fields);
  }

  #ask(op, wish, fields = {}) {
    return new Promise((resolve, reject) => {
      this.#outbox.push({ op, wish, fields, resolve, reject });
      this.#send();
    });
  }

  #send() {
    while (this.#pauses === 0 && this.#outbox.length > 0 && this.#requests.size < MOST_UNANSWERED) {
      const request = this.#outbox.shift();
      const { op, wish } = request;
      if (wish !== null && (op === "subscribe" ? wish.isOver : wish.number === null)) {
        request.resolve(); // It has ended meanwhile.
        continue;
      }
      const id = ++this.#lastId;
      request.seen = op === "subscribe" && wish.body.mode !== "snapshot" ? wish.seen : null;
      const fields = { ...request.fields };
      if (op === "subscribe") Object.assign(fields, wish.body, request.seen);
      else if (wish !== null) fields.subscription = wish.number;
      request.interval_ms = fields.interval_ms;
      this.#requests.set(id, request);
      this.#socket.send(JSON.stringify({ ...fields, op, id }));
      this.#pause(this.#pauseMs);
    }
  }

  /** Ask for nothing in a while. */
  #pause(delayMs) {
    this.#pauses++;
    this.#after(delayMs, () => {
      this.#pauses--;
      this.#send();
    });
  }

  /** Ask again in a while; if that was too fast, until then for nothing else. */
  #repeat(request, code) {
    const delayMs = PASSING_CODES_MS[code];
    this.#early.add(request);
    this.#after(delayMs, () => {
      this.#early.delete(request);
      this.#outbox.push(request);
      this.#send();
    });
    if (code === "TOO_FAST") this.#pause(delayMs);
  }

  // Messages.

  #take(data) {
    this.#heardMs = performance.now();
    try {
      if (typeof data === "string") this.#takeControl(data);
      else if (this.state !== "open") fail("data before the welcome");
      else this.#takeData(this.#decoder.decode(data));
    } catch (error) {
      // Whatever can't be read leaves a decoder of unknown state.
      this.#drop(
        error instanceof ProtocolError
          ? error
          : new ProtocolError(`a message that can't be: ${error}`, { cause: error }),
      );
    }
  }

  #takeControl(text) {
    const said = JSON.parse(text);
    if (typeof said !== "object" || said === null || typeof said.op !== "string") fail("a message without op");
    if (this.state !== "open" && said.op !== "welcome" && said.op !== "closing") fail(`${said.op} before the welcome`);
    if (Object.hasOwn(ANSWERS, said.op)) this.#takeAnswer(said);
    else if (said.op === "welcome") this.#takeWelcome(said);
    else if (said.op === "heartbeat") this.#note(said);
    else if (said.op === "error") this.#takeError(said);
    else if (said.op === "state") this.#takeState(said);
    else if (said.op === "slowed") this.#takeSlowed(said);
    else if (said.op === "gap") this.#takeGap(said);
    else if (said.op === "ended") this.#takeEnded(said);
    else if (said.op === "closing")
      this.#closing = { code: requireText(said, "code"), message: String(said.message ?? "") };
    // Else a newer server has more to say.
  }

  #takeWelcome(said) {
    if (this.state === "open") fail("a second welcome");
    if (said.protocol !== PROTOCOL_VERSION)
      fail(`the server speaks protocol ${said.protocol}: use a client of its release`);
    if (!(said.heartbeat_s > 0)) fail(`heartbeat_s is ${said.heartbeat_s}`);
    this.welcome = said;
    this.#welcomedMs = performance.now();
    this.#become("open", "");
    this.#watch(said.heartbeat_s * 1000);
    if (this.#limit > 0) this.#ask("limit", null, { max_bytes_per_s: this.#limit }).catch(() => {});
    for (const wish of this.#wishes) this.#ask("subscribe", wish).catch(() => {});
    this.#opened?.resolve(this);
    this.#opened = null;
  }

  #takeAnswer(said) {
    const request = this.#requests.get(said.id);
    if (request?.op !== ANSWERS[said.op]) fail(`${said.op} with id ${said.id}, which was not asked`);
    this.#requests.delete(said.id);
    const { op, wish, fields } = request;
    if (op === "subscribe") this.#begun(wish, said, request);
    else if (op === "update") {
      this.#change(wish, said);
      wish.body.interval_ms = fields.interval_ms;
    } else if (op === "unsubscribe") this.#endChannel(wish);
    else if (op === "ping") this.#note(said);
    request.resolve(said);
    this.#send();
  }

  #begun(wish, said, { seen, interval_ms: asked_ms }) {
    wish.number = requireWhole(said, "subscription");
    if (this.#byNumber.has(wish.number)) fail(`subscription ${wish.number} is there already`);
    this.#byNumber.set(wish.number, wish);
    const isResumed = seen !== null && said.resumed === true;
    this.#openChannel(wish, said);
    if (isResumed) {
      wish.owner.seq = Math.floor(seen.resume.position / CLASSES);
      wish.owner.isReady = wish.owner.isBaseToCome = true;
    } else {
      wish.owner.isUntold = wish.wasLive && wish.body.mode !== "snapshot";
    }
    if (wish.isOver) {
      this.#ask("unsubscribe", wish).catch(() => {});
      return;
    }
    wish.wasLive = true;
    if (asked_ms !== wish.body.interval_ms)
      this.#ask("update", wish, { interval_ms: wish.body.interval_ms }).catch(() => {});
    this.#changeState(wish, isResumed ? "RESUMED" : "SUBSCRIBED", String(said.reason ?? ""));
    wish.resolve(wish.face);
  }

  #takeError(said) {
    const error = new StreamError(requireText(said, "code"), String(said.message ?? ""));
    if (said.id === undefined || said.id === null) {
      // Which of the requests was not taken is not said: only a new connection makes it good.
      if (error.code !== "TOO_FAST") fail(`the server did not understand this client: ${error.message}`);
      this.#slowDown();
      this.#drop(error);
      return;
    }
    const request = this.#requests.get(said.id);
    if (request === undefined) return;
    this.#requests.delete(said.id);
    const { op, wish } = request;
    const mayPass = op === "subscribe" && wish.wasLive && Object.hasOwn(PASSING_CODES_MS, error.code);
    if (wish !== null && (error.code === "TOO_FAST" || mayPass)) {
      if (op === "subscribe") wish.reason = error.message;
      this.#repeat(request, error.code);
      this.#send();
    } else {
      if (op === "subscribe") this.#end(wish, error);
      if (op === "unsubscribe") {
        this.#endChannel(wish);
        request.resolve();
      } else request.reject(error);
      this.#send();
    }
  }

  /** Have requests come more slowly, as a session has ended because they were too fast. */
  #slowDown() {
    this.#pauseMs = Math.min(2 * this.#pauseMs, MOST_PAUSE_MS);
  }

  #takeState(said) {
    const wish = this.#byNumber.get(said.subscription);
    if (wish !== undefined) this.#changeState(wish, requireText(said, "state"), String(said.reason ?? ""));
  }

  #takeSlowed(said) {
    const wish = this.#byNumber.get(said.subscription);
    if (wish === undefined) return;
    this.#change(wish, said);
    this.#deliver(wish, { type: "slowed", interval_ms: requireWhole(said, "interval_ms") });
  }

  #takeGap({ op: _op, ...gap }) {
    const event = { type: "gap", ...gap };
    if (gap.channel === undefined || gap.channel === null) this.#tell(event);
    else this.#deliver(this.#ownerOf(gap.channel).wish, event);
  }

  #takeEnded(said) {
    const wish = this.#byNumber.get(said.subscription);
    if (wish === undefined) return;
    const error = new StreamError(requireText(said, "code"), String(said.message ?? ""));
    this.#endChannel(wish);
    this.#end(wish, error);
  }

  #end(wish, error) {
    this.#wishes.delete(wish);
    wish.reason = error.message;
    this.#deliver(wish, { type: "ended", code: error.code, message: error.message });
    wish.end(error.code === "DONE" ? null : error);
  }

  // Channels.

  #openChannel(wish, said) {
    if (!Array.isArray(said.channels) || said.channels.length !== 1) fail(`${said.op} without its channel`);
    wish.channels = said.channels;
    const [described] = said.channels;
    this.#decoder.open(described, wish.options);
    const { channel, epoch, class: cls } = described;
    if (typeof epoch !== "string") fail(`${said.op}: epoch is ${epoch}`);
    wish.owner = { wish, epoch, class: cls, seq: 0, isReady: false, isUntold: false, isBaseToCome: false };
    this.#owners.set(channel, wish.owner);
  }

  #closeChannel(wish) {
    for (const { channel } of wish.channels) {
      this.#decoder.close(channel);
      this.#owners.delete(channel);
    }
    wish.owner = null;
  }

  /** Have another channel where the interval is another one; until its state comes, it can go on from the old one. */
  #change(wish, said) {
    wish.remember();
    this.#closeChannel(wish);
    this.#openChannel(wish, said);
  }

  #endChannel(wish) {
    this.#closeChannel(wish);
    this.#byNumber.delete(wish.number);
    wish.number = null;
  }

  #ownerOf(channel) {
    return this.#owners.get(channel) ?? fail(`channel ${channel} is not open`);
  }

  #takeData(message) {
    if (message.type === "window") {
      this.#complete(message.class, message.seq);
      for (const batch of message.batches) this.#deliver(this.#ownerOf(batch.channel).wish, batch);
    } else if (message.type === "snapshot") {
      this.#takeSnapshot(message);
    } else if (message.type === "lag") {
      const owner = this.#ownerOf(message.channel);
      owner.isReady = owner.isUntold = false;
      owner.wish.seen = null; // What it was is not known any more: rows could not be added to it.
      this.#deliver(owner.wish, message);
    }
  }

  /** Everything of some classes has come up to positions. */
  #note(said) {
    if (!Array.isArray(said.positions)) fail(`${said.op} without positions`);
    for (const position of said.positions) {
      if (!Number.isSafeInteger(position) || position < 0) fail(`${said.op}: a position is ${position}`);
      this.#complete(position % CLASSES, Math.floor(position / CLASSES));
    }
  }

  #complete(cls, seq) {
    for (const owner of this.#owners.values())
      if (owner.class === cls && owner.isReady) owner.seq = Math.max(owner.seq, seq);
  }

  #takeSnapshot({ channel, seq, batches }) {
    const owner = this.#ownerOf(channel);
    if (owner.isBaseToCome) {
      owner.isBaseToCome = false; // What the missed rows are coded against, and no state.
      return;
    }
    if (owner.isUntold) {
      // The server has not said so itself: nothing may be left out unseen.
      this.#deliver(owner.wish, {
        type: "lag",
        channel,
        reason: "resume",
        from_seq: 0,
        to_seq: seq,
        rows: null,
      });
      owner.isUntold = false;
    }
    owner.isReady = true;
    owner.seq = Math.max(owner.seq, seq);
    for (const batch of batches) this.#deliver(owner.wish, batch);
  }

  #changeState(wish, state, reason) {
    wish.state = state;
    wish.reason = reason;
    this.#deliver(wish, { type: "state", state, reason });
  }

  #deliver(wish, event) {
    wish.deliver(event, () =>
      wish.channels.flatMap(({ channel }) => this.#decoder.state(channel, this.#owners.get(channel)?.seq ?? 0)),
    );
  }
}

/** Connect to a server; resolves to a `Client` when it has bidden welcome, and rejects where the first try fails. */
export async function connect(url, options = {}) {
  return new Client(url, options).open();
}
