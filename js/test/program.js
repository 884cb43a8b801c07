// A user's program, for Node and browsers alike: it tells what it gets, and ends when it gets a trade of END.

import { connect } from "../ibfast.js";

const END = 999;

function told(row) {
  // JSON has neither BigInt nor NaN.
  const values = Object.entries(row).map(([name, value]) => [name, typeof value === "bigint" ? String(value) : value]);
  return Object.fromEntries(values.map(([name, value]) => [name, Number.isNaN(value) ? "NaN" : value]));
}

/**
 * Subscribe to trades and quotes of AAPL.
 *
 * @param {string} url of the server
 * @param {string | undefined} token for it
 * @param {(said: object) => void} report gets everything
 */
export async function program(url, token, report) {
  const client = await connect(url, {
    token,
    reconnect: { baseMs: 20, capMs: 100 },
    onEvent: ({ type, state, error }) => report({ client: state ?? type, error: error && String(error) }),
  });
  const onEvent = (event) =>
    report({ quotes: event.type, snapshot: event.snapshot, rows: event.rows?.map(told), ...stateOf(event) });
  const quotes = await client.subscribe(
    { symbol: "AAPL", data_type: "QUOTES", mode: "conflate", interval_ms: 50 },
    { onEvent },
  );
  const request = { symbol: "AAPL", data_type: "TRADES", interval_ms: 10, times: "ns", ordered: true };
  const trades = await client.subscribe(request, { bigint: true });
  report({ subscribed: [quotes.symbol, trades.symbol] });
  for await (const event of trades.events()) {
    report({ trades: event.type, snapshot: event.snapshot, rows: event.rows?.map(told), ...stateOf(event) });
    if (event.rows?.some(({ price, snapshot }) => price === END && !snapshot)) break;
  }
  const subscriptions = await client.list();
  const { data } = await client.ping("there?");
  await trades.update(100);
  await trades.unsubscribe();
  let refusal;
  await client.subscribe("NOBODY").catch(({ code }) => {
    refusal = code;
  });
  report({ listed: subscriptions.length, data, refusal });
  await client.close();
  report({ done: true });
}

function stateOf({ type, state, from_seq, to_seq }) {
  return type === "state" ? { state } : { from_seq, to_seq };
}
