// Subscribe to quotes of a fan-out server from Node, at most four a second.

import { connect } from "../js/ibfast.js";

const url = process.env.IBFAST_STREAM_URL ?? "ws://127.0.0.1:8765/stream";
const token = process.env.IBFAST_STREAM_TOKEN;
const client = await connect(url, token ? { token } : {});
const quotes = await client.subscribe({
  symbol: process.argv[2] ?? "AAPL",
  data_type: "QUOTES",
  mode: "conflate",
  interval_ms: 250,
});
let count = 0;
for await (const { symbol, bid, ask, snapshot } of quotes) {
  console.log(`${symbol} ${bid} ${ask} ${snapshot ? "state" : "news"}`);
  if (++count === 5) break;
}
await client.close();
