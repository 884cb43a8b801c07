// The client against a peer on a real socket that does what servers should not.

import assert from "node:assert/strict";
import { test } from "node:test";

import { backoffMs, connect, ProtocolError, StreamError } from "../ibfast.js";
import { clock, described, message, quotesState, quotesWindow, START_NS } from "./bitwriter.js";
import { Peer } from "./peer.js";

const RECONNECT = { baseMs: 1, capMs: 20 };

/** A client, its peer's connection, and what the client has told. */
async function open(t, options = {}) {
  const peer = await Peer.start(t);
  const told = [];
  const opening = connect(peer.url, { reconnect: RECONNECT, onEvent: (event) => told.push(event), ...options });
  const connection = await peer.accept();
  connection.welcome(options.welcome);
  const client = await opening;
  t.after(() => client.close());
  return { peer, connection, client, told };
}

/** A subscription to quotes, whose snapshot has come. */
async function subscribe({ connection, client }, request = {}, options = {}) {
  const asking = client.subscribe({ symbol: "AAPL", data_type: "QUOTES", ...request }, options);
  const { id } = await connection.hear("subscribe");
  connection.send(
    { op: "subscribed", id, subscription: 1, resumed: false, channels: [described()] },
    clock(),
    quotesState(),
  );
  return asking;
}

/** The position of a class at a sequence number. */
function at(seq, cls = 2) {
  return 16 * seq + cls;
}

async function take(events, count) {
  const taken = [];
  while (taken.length < count) taken.push((await events.next()).value);
  return taken;
}

test("rows come as objects, the snapshot first", async (t) => {
  const opened = await open(t, { token: "abc.def" });
  assert.equal(opened.connection.request.headers["sec-websocket-protocol"], "ibfast.v1.binary, ibfast.token.abc.def");
  const subscription = await subscribe(opened);
  opened.connection.send(quotesWindow(1001), quotesWindow(1003, -2, 5));
  const rows = await take(subscription[Symbol.asyncIterator](), 3);
  const quote = {
    family: "quotes",
    symbol: "AAPL",
    seq: 0,
    kind: 11,
    attribs: 0,
    event_us: 0,
    bid: 231.05,
    ask: 231.06,
    ask_size: 500,
  };
  const startUs = Number(START_NS / 1000n);
  assert.deepEqual(rows, [
    { ...quote, snapshot: true, recv_us: startUs, bid_size: 300 },
    { ...quote, snapshot: false, recv_us: startUs + 7, bid_size: 400 },
    { ...quote, snapshot: false, recv_us: startUs + 50_007, bid_size: 200 },
  ]);
  assert.equal(subscription.symbol, "AAPL");
});

test("columns and 64-bit times on request", async (t) => {
  const opened = await open(t);
  const subscription = await subscribe(opened, {}, { columns: true, bigint: true });
  opened.connection.send(quotesWindow(1001));
  const [, batch] = await take(subscription[Symbol.asyncIterator](), 2);
  assert.equal(batch.family, "quotes");
  assert.deepEqual(batch.columns.recv_ns, new BigInt64Array([START_NS + 7000n]));
  assert.deepEqual(batch.columns.bid, new Float64Array([231.05]));
  assert.deepEqual(batch.columns.kind, new Uint8Array([11]));
});

test("events come in their order", async (t) => {
  const opened = await open(t);
  const subscription = await subscribe(opened);
  opened.connection.send(
    quotesWindow(1001),
    message(0x30).varint(0).u8(0).u64(1001).u64(1010).varint(5).bytes(),
    {
      op: "gap",
      channel: 0,
      scope: "FARM",
      cause: "FARM_BROKEN",
      recovered: true,
      first_seq: 3,
      last_seq: 9,
      first_ns: 1,
      last_ns: 2,
    },
    { op: "state", subscription: 1, state: "STALE", reason: "silence" },
    quotesState(1010),
    { op: "ended", subscription: 1, code: "DONE", message: "the state was all" },
  );
  const events = [];
  for await (const event of subscription.events()) events.push(event);
  assert.deepEqual(
    events.map(({ type, snapshot, state, scope, reason, from_seq, to_seq }) => [
      type,
      snapshot ?? state ?? scope ?? reason,
      from_seq,
      to_seq,
    ]),
    [
      ["state", "SUBSCRIBED", undefined, undefined],
      ["rows", true, undefined, undefined],
      ["rows", false, undefined, undefined],
      ["lag", "slow", 1001, 1010],
      ["gap", "FARM", undefined, undefined],
      ["state", "STALE", undefined, undefined],
      ["rows", true, undefined, undefined],
      ["ended", undefined, undefined, undefined],
    ],
  );
  assert.equal(subscription.state, "ENDED");
});

test("a callback gets the events, and its errors are nobody else's", async (t) => {
  const opened = await open(t);
  const types = [];
  const ended = new Promise((resolve) => {
    const onEvent = (event) => {
      types.push(event.type);
      if (event.type === "ended") resolve();
      if (event.snapshot) throw new Error("the user's own");
    };
    subscribe(opened, {}, { onEvent }).then(() =>
      opened.connection.send(quotesWindow(1001), { op: "ended", subscription: 1, code: "REFUSED", message: "no" }),
    );
  });
  await ended;
  assert.deepEqual(
    opened.told.filter(({ type }) => type === "error").map(({ error }) => error.message),
    ["the user's own"],
  );
  assert.deepEqual(types, ["state", "rows", "rows", "ended"]);
});

test("an ended subscription throws at its iterator, with the code", async (t) => {
  const opened = await open(t);
  const subscription = await subscribe(opened);
  opened.connection.send({ op: "ended", subscription: 1, code: "REFUSED", message: "IB says 354" });
  await assert.rejects(
    async () => {
      for await (const _ of subscription);
    },
    { name: "StreamError", code: "REFUSED" },
  );
});

test("a request that is refused rejects with its code", async (t) => {
  const { connection, client } = await open(t);
  const asking = client.subscribe({ symbol: "NOPE" });
  connection.send({
    op: "error",
    id: (await connection.hear("subscribe")).id,
    code: "UNKNOWN_CONTRACT",
    message: "none",
  });
  await assert.rejects(asking, { code: "UNKNOWN_CONTRACT" });
});

test("list, limit and ping are answered", async (t) => {
  const { connection, client } = await open(t);
  const asking = Promise.all([client.list(), client.limit(5000), client.ping({ a: 1 })]);
  const list = await connection.hear("list");
  const limit = await connection.hear("limit");
  const ping = await connection.hear("ping");
  assert.equal(limit.max_bytes_per_s, 5000);
  connection.send({ op: "pong", id: ping.id, data: ping.data, positions: [], time_ns: 7 });
  connection.send({ op: "limited", id: limit.id });
  connection.send({ op: "subscriptions", id: list.id, subscriptions: [{ subscription: 4 }] });
  const [subscriptions, , pong] = await asking;
  assert.deepEqual(subscriptions, [{ subscription: 4 }]);
  assert.deepEqual(pong.data, { a: 1 });
  assert.ok(pong.round_trip_ms >= 0);
});

test("update changes the channels, unsubscribe ends the rows", async (t) => {
  const opened = await open(t);
  const { connection } = opened;
  const subscription = await subscribe(opened);
  const updating = subscription.update(50);
  const update = await connection.hear("update");
  assert.deepEqual([update.subscription, update.interval_ms], [1, 50]);
  const channels = [described({ class: 4, span_ns: 50_000_000 })];
  connection.send({ op: "updated", id: update.id, channels }, clock(4), quotesState(1005));
  await updating;
  assert.equal(subscription.channels[0].class, 4);
  const leaving = subscription.unsubscribe();
  const { id } = await connection.hear("unsubscribe");
  connection.send({ op: "unsubscribed", id });
  await leaving;
  const rows = [];
  for await (const row of subscription) rows.push(row);
  assert.ok(rows.every((row) => row.snapshot));
});

test("after a loss it comes back with epoch and seq of its own, not of other classes", async (t) => {
  const opened = await open(t);
  const { peer, connection, client, told } = opened;
  const subscription = await subscribe(opened);
  const slow = client.subscribe({ symbol: "MSFT", mode: "conflate" });
  const { id } = await connection.hear("subscribe");
  const channels = [described({ channel: 1, symbol: "MSFT", epoch: "e1", class: 5, span_ns: 250_000_000 })];
  connection.send(
    { op: "subscribed", id, subscription: 2, resumed: false, channels },
    quotesState(1002, 1),
    quotesWindow(1009),
  );
  await slow;
  await take(subscription[Symbol.asyncIterator](), 2);
  connection.drop();
  const next = await peer.accept();
  next.welcome();
  const asked = [await next.hear("subscribe"), await next.hear("subscribe")];
  assert.deepEqual(
    asked.map(({ symbol, resume }) => [symbol, resume]),
    [
      ["AAPL", { epoch: "e0", position: at(1009) }],
      ["MSFT", { epoch: "e1", position: at(1002, 5) }],
    ],
  );
  next.send({ op: "subscribed", id: asked[0].id, subscription: 1, resumed: true, channels: [described()] });
  next.send(clock(), quotesState(1009), quotesWindow(1011), quotesState(1012));
  const [, resumed, row, state] = await take(subscription.events(), 4);
  assert.equal(resumed.state, "RESUMED");
  assert.deepEqual([row.snapshot, row.seq], [false, 1011]); // What the rows are coded against is no state.
  assert.deepEqual([state.snapshot, state.seq], [true, 1012]);
  assert.deepEqual(
    told.map((event) => event.state),
    ["open", "reconnecting", "open"],
  );
});

test("heartbeats and pongs tell up to where everything has come", async (t) => {
  const opened = await open(t);
  const subscription = await subscribe(opened);
  await take(subscription[Symbol.asyncIterator](), 1);
  opened.connection.send({ op: "heartbeat", time_ns: 1, positions: [at(1500), at(1600, 5)] });
  const ping = opened.client.ping();
  const { id } = await opened.connection.hear("ping");
  opened.connection.send({ op: "pong", id, time_ns: 1, positions: [at(1400)] });
  await ping;
  opened.connection.drop();
  const next = await opened.peer.accept();
  next.welcome();
  assert.deepEqual((await next.hear("subscribe")).resume, { epoch: "e0", position: at(1500) });
});

test("where it can't be resumed, that is told even if the server does not", async (t) => {
  const opened = await open(t);
  const subscription = await subscribe(opened);
  await take(subscription[Symbol.asyncIterator](), 1);
  opened.connection.drop();
  const next = await opened.peer.accept();
  next.welcome();
  const { id, resume } = await next.hear("subscribe");
  assert.deepEqual(resume, { epoch: "e0", position: at(1000) });
  next.send({
    op: "subscribed",
    id,
    subscription: 7,
    resumed: false,
    reason: "another epoch",
    channels: [described()],
  });
  next.send(clock(), quotesState(2000));
  const events = await take(subscription.events(), 4);
  assert.deepEqual(events.map(({ type, reason }) => [type, reason]).slice(1), [
    ["state", "another epoch"],
    ["lag", "resume"],
    ["rows", undefined],
  ]);
  assert.deepEqual([events[2].from_seq, events[2].to_seq], [0, 2000]);
});

test("after a lag there is nothing to go on from until the state has come", async (t) => {
  const opened = await open(t);
  const subscription = await subscribe(opened);
  await take(subscription[Symbol.asyncIterator](), 1);
  // Rows can't be added to a state that is void.
  opened.connection.send(message(0x30).varint(0).u8(0).u64(1000).u64(1040).varint(0).bytes());
  await take(subscription.events(), 1);
  opened.connection.send({ op: "heartbeat", time_ns: 1, positions: [at(1500)] });
  const ping = opened.client.ping();
  const { id } = await opened.connection.hear("ping");
  opened.connection.send({ op: "pong", id, time_ns: 1, positions: [at(1500)] });
  await ping;
  opened.connection.drop();
  const next = await opened.peer.accept();
  next.welcome();
  assert.equal((await next.hear("subscribe")).resume, undefined);
});

for (const [what, garbage] of [
  ["an unknown binary message", message(0x99).bytes()],
  ["an empty binary message", new Uint8Array(0)],
  ["a window without its clock", message(0x83).varint(0).varint(0).bytes()],
  ["a piece of a channel that is not open", message(0x82).varint(0).varint(1).bits(3, 3).eg(0, 0).bytes()],
  ["text that is no JSON", "{"],
  ["JSON that is no object", "[1]"],
  ["an answer that nobody asked for", { op: "pong", id: 99 }],
  ["a heartbeat without its positions", { op: "heartbeat" }],
  [
    "two channels of one subscription",
    {
      op: "slowed",
      subscription: 1,
      interval_ms: 50,
      channels: [described({ channel: 1 }), described({ channel: 2 })],
    },
  ],
  ["a description that can't be", { op: "slowed", subscription: 1, interval_ms: 50, channels: [{ channel: 0 }] }],
]) {
  test(`${what} ends the connection, and there is another one`, async (t) => {
    const opened = await open(t);
    const subscription = await subscribe(opened);
    await take(subscription[Symbol.asyncIterator](), 1);
    opened.connection.send(garbage);
    const next = await opened.peer.accept();
    await opened.connection.closed;
    assert.equal(opened.connection.closeCode, 4002);
    next.welcome();
    assert.deepEqual((await next.hear("subscribe")).resume, { epoch: "e0", position: at(1000) });
    const { error } = opened.told.find((event) => event.type === "error");
    assert.ok(error instanceof ProtocolError);
  });
}

test("a server that falls silent is left", async (t) => {
  const { peer, told } = await open(t, { welcome: { heartbeat_s: 0.05 } });
  (await peer.accept()).welcome();
  assert.match(told.find((event) => event.state === "reconnecting").reason, /TIMEOUT/);
});

test("heartbeats keep a silent connection", async (t) => {
  const { connection, client, told } = await open(t, { welcome: { heartbeat_s: 0.2 } });
  for (let i = 0; i < 8; i++) {
    connection.send({ op: "heartbeat", time_ns: 1, positions: [at(1000 + i)] });
    const ping = client.ping();
    await new Promise((resolve) => setTimeout(resolve, 100));
    connection.send({ op: "pong", id: (await connection.hear("ping")).id, data: null, time_ns: 1, positions: [] });
    await ping;
  }
  assert.deepEqual(
    told.map((event) => event.state),
    ["open"],
  );
});

test("what nobody reads is bounded: a lag and the state take its place", async (t) => {
  const opened = await open(t);
  const { connection, client } = opened;
  const subscription = await subscribe(opened, {}, { maxRows: 10 });
  await take(subscription[Symbol.asyncIterator](), 1);
  for (let i = 1; i <= 25; i++) connection.send(quotesWindow(1000 + i));
  const ping = client.ping();
  connection.send({ op: "pong", id: (await connection.hear("ping")).id, data: null, time_ns: 1, positions: [] });
  await ping;
  connection.send({ op: "ended", subscription: 1, code: "DONE", message: "" });
  const events = [];
  for await (const event of subscription.events()) events.push(event);
  const lags = events.filter(({ type }) => type === "lag");
  assert.equal(lags.length, 1);
  const [{ from_seq, to_seq, rows, reason }] = lags;
  assert.deepEqual([from_seq, reason], [1000, "queue"]);
  assert.equal(rows, to_seq - from_seq);
  const after = events.slice(events.indexOf(lags[0]) + 1);
  assert.equal(after[0].snapshot, true);
  assert.equal(after[0].rows[0].bid_size, 300 + 100 * rows);
  const rest = after.slice(1).filter(({ type }) => type === "rows");
  assert.deepEqual(
    rest.map(({ seq }) => seq),
    Array.from({ length: 1025 - to_seq }, (_, i) => to_seq + 1 + i),
  );
  assert.equal(rest.at(-1).rows[0].bid_size, 300 + 2500);
});

test("so many requests have no answer at a time; what was too fast is asked again", async (t) => {
  const { connection, client } = await open(t);
  const asking = Array.from({ length: 67 }, (_, i) => client.subscribe(`S${i}`));
  const settling = Promise.allSettled(asking);
  const refuse = ({ id }, code) => connection.send({ op: "error", id, code, message: "no" });
  const first = [];
  for (let i = 0; i < 64; i++) first.push(await connection.hear("subscribe"));
  refuse(first[0], "TOO_FAST");
  for (const request of first.slice(1)) refuse(request, "TOO_MANY");
  for (const symbol of ["S64", "S65", "S66", "S0"]) {
    const request = await connection.hear("subscribe");
    assert.equal(request.symbol, symbol);
    refuse(request, "TOO_MANY");
  }
  const answers = await settling;
  assert.ok(answers.every(({ reason }) => reason.code === "TOO_MANY"));
});

test("what is given up while it waits to be asked again is not asked again", async (t) => {
  const opened = await open(t);
  const subscription = await subscribe(opened);
  opened.connection.drop();
  const next = await opened.peer.accept();
  next.welcome();
  const { id } = await next.hear("subscribe");
  await subscription.unsubscribe();
  const answer = async (pinging, ...before) => {
    const ping = await next.hear("ping");
    next.send(...before, { op: "pong", id: ping.id, positions: [], time_ns: 1 });
    await pinging;
  };
  await answer(opened.client.ping(), { op: "error", id, code: "TOO_FAST", message: "wait" });
  await answer(opened.client.ping());
});

test("a first try that fails rejects", async (t) => {
  const peer = await Peer.start(t);
  peer.refuse = 401;
  await assert.rejects(connect(peer.url), { name: "StreamError", code: "DISCONNECTED" });
  await assert.rejects(connect("nonsense"), { name: "SyntaxError" });
  await assert.rejects(connect(peer.url, { token: "not one" }), { name: "SyntaxError" });
});

test("a later refusal is tried again, with a new token each time", async (t) => {
  let tokens = 0;
  const { peer, connection } = await open(t, { token: () => `t${++tokens}` });
  peer.refuse = 503;
  connection.send({ op: "closing", code: "SHUTDOWN", message: "" });
  connection.drop();
  while (tokens < 4) await new Promise((resolve) => setTimeout(resolve, 5));
  peer.refuse = null;
  const next = await peer.accept();
  assert.match(next.request.headers["sec-websocket-protocol"], /ibfast\.token\.t[4-9]/);
});

test("an expired token is final, where there is no other", async (t) => {
  const opened = await open(t, { token: "abc" });
  const subscription = await subscribe(opened);
  opened.connection.send({ op: "closing", code: "EXPIRED", message: "its time is over" });
  opened.connection.drop();
  await assert.rejects(
    async () => {
      for await (const _ of subscription);
    },
    { code: "EXPIRED" },
  );
  assert.equal(opened.client.state, "closed");
  await assert.rejects(opened.client.subscribe("MSFT"), { code: "CLOSED" });
});

test("a subscription made as soon as the connection is open again is asked for once", async (t) => {
  let client;
  const opened = await open(t, {
    onEvent: ({ state }) => state === "open" && client?.subscribe("MSFT").catch(() => {}),
  });
  client = opened.client;
  opened.connection.drop();
  const connection = await opened.peer.accept();
  connection.welcome();
  await connection.hear("subscribe");
  const ping = client.ping();
  connection.send({ op: "pong", id: (await connection.hear("ping")).id, data: null, time_ns: 1, positions: [] });
  await ping;
});

test("a client that is closed while it reports a lost connection stays closed", async (t) => {
  const states = [];
  const opened = await open(t, {
    onEvent: ({ type, state }) => {
      states.push(state ?? type);
      if (type === "error") opened.client.close();
    },
  });
  opened.connection.send("no JSON");
  await opened.connection.closed;
  assert.deepEqual(states, ["open", "error", "closed"]);
  assert.equal(opened.client.state, "closed");
});

test("the state takes the place of unread rows, however many tries to connect fail", async (t) => {
  const opened = await open(t);
  const subscription = await subscribe(opened, {}, { maxRows: 1 });
  opened.peer.refuse = 503;
  opened.connection.send(quotesWindow(1001));
  opened.connection.drop();
  for (let tries = 0; tries < 3; tries++) await opened.peer.refused();
  opened.client.close();
  const events = [];
  for await (const event of subscription.events()) events.push(event);
  assert.deepEqual(
    events.filter(({ type }) => type === "rows").map(({ seq }) => seq),
    [1001],
  );
});

test("close ends the iterations and what was asked", async (t) => {
  const opened = await open(t);
  const subscription = await subscribe(opened);
  const asking = assert.rejects(opened.client.ping(), StreamError);
  const pending = assert.rejects(opened.client.subscribe("MSFT"), { code: "CLOSED" });
  await opened.client.close();
  await Promise.all([asking, pending]);
  const rows = [];
  for await (const row of subscription) rows.push(row);
  assert.ok(rows.length <= 1);
  await opened.connection.closed;
});

test("what is asked for while there is no connection is asked for on the next", async (t) => {
  const { peer, connection, client } = await open(t);
  connection.drop();
  while (client.state === "open") await new Promise((resolve) => setTimeout(resolve, 1));
  const asking = client.subscribe("AAPL");
  await assert.rejects(client.ping(), { code: "DISCONNECTED" });
  const next = await peer.accept();
  next.welcome();
  const { id } = await next.hear("subscribe");
  next.send({ op: "subscribed", id, subscription: 1, resumed: false, channels: [described()] });
  assert.equal((await asking).state, "SUBSCRIBED");
});

test("waits grow to a bound, and are of any length up to it", () => {
  const policy = { baseMs: 100, capMs: 1000 };
  const longest = [0, 1, 2, 3, 4, 5, 2000].map((attempt) => backoffMs(attempt, policy, () => 1));
  assert.deepEqual(longest, [100, 200, 400, 800, 1000, 1000, 1000]);
  assert.equal(
    backoffMs(3, policy, () => 0),
    0,
  );
});
