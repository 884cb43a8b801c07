// The client's manners, as docs/stream-protocol.md has them: its table of errors, line by line.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { connect } from "../ibfast.js";
import { described } from "./bitwriter.js";
import { Peer } from "./peer.js";

const PAGE = readFileSync(new URL("../../docs/stream-protocol.md", import.meta.url), "utf8");
const [head, , ...lines] = PAGE.match(/^\| code \| first `subscribe`.*\n(?:\|.*\n)+/m)[0]
  .trim()
  .split("\n")
  .map((line) => line.slice(2, -2).split(" | "));
const CASES = lines.flatMap(([codes, ...outcomes]) =>
  outcomes.map((outcome, i) => [codes.match(/\w+/)[0].replace("any", "NEWS"), head[i + 1], outcome]),
);

/** Have a request refused; tell what became of it, and what is asked next on this connection. */
const ASKED = {
  "first `subscribe`": (client) => [client.subscribe("MSFT"), "subscribe"],
  "`subscribe` of what was live before": null,
  "`update`": (_client, subscription) => [subscription.update(50), "update"],
  "`unsubscribe`": (_client, subscription) => [subscription.unsubscribe(), "unsubscribe"],
  "`list`, `ping`, `limit`": (client) => [client.list(), "list"],
};

async function live(t) {
  const peer = await Peer.start(t);
  const opening = connect(peer.url, { reconnect: { baseMs: 1, capMs: 2 } });
  const connection = await peer.accept();
  connection.welcome();
  const client = await opening;
  t.after(() => client.close());
  const asking = client.subscribe("AAPL");
  const { id } = await connection.hear("subscribe");
  connection.send({ op: "subscribed", id, subscription: 1, resumed: false, channels: [described()] });
  return { peer, connection, client, subscription: await asking };
}

test("the table has every kind of request", () => assert.deepEqual(head.slice(1), Object.keys(ASKED)));

for (const [code, what, outcome] of CASES) {
  test(`${code} of ${what}: ${outcome}`, async (t) => {
    const opened = await live(t);
    const { client, subscription } = opened;
    let { connection } = opened;
    let answer;
    let op = "subscribe";
    if (ASKED[what] !== null) {
      [answer, op] = ASKED[what](client, subscription);
    } else {
      connection.drop();
      connection = await opened.peer.accept();
      connection.welcome();
      answer = (async () => {
        for await (const _ of subscription);
      })();
    }
    const settled = Promise.allSettled([answer]);
    const request = await connection.hear(op);
    const again = outcome.match(/^again after (\d+) s$/);
    const next = again && connection.hear(op);
    const { setTimeout } = globalThis; // From here on no wait takes its time, but each is noted.
    const delays = [];
    globalThis.setTimeout = (act, delayMs) => setTimeout(act, delays.push(delayMs) && 0);
    t.after(() => {
      globalThis.setTimeout = setTimeout;
    });
    connection.send({ op: "error", id: request.id, code, message: "no" });
    if (again) {
      const { id: _, ...asked } = await next;
      const { id: __, ...before } = request;
      assert.deepEqual(asked, before);
      assert.ok(delays.includes(1000 * again[1]));
    } else {
      const [{ status, reason }] = await settled;
      assert.deepEqual([status, reason?.code], outcome === "done" ? ["fulfilled", undefined] : ["rejected", code]);
      assert.equal(subscription.state === "ENDED", outcome === "ends" || outcome === "done");
    }
  });
}
