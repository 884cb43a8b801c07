// A program that must compile: `npm run types` (with TypeScript installed) checks the types by it.

import { connect, FrameDecoder, Kind, type Row, StreamError, type SubscriptionEvent } from "../ibfast.js";

function midpoint(row: Row): number {
  return row.family === "quotes" ? (row.bid + row.ask) / 2 : NaN;
}

function show(event: SubscriptionEvent): string {
  switch (event.type) {
    case "rows":
      return event.rows === undefined ? Object.keys(event.columns).join() : event.rows.map(midpoint).join();
    case "lag":
      return `${event.reason}: ${event.to_seq - event.from_seq}`;
    case "ended":
      return event.code;
    default:
      return event.type;
  }
}

export async function main(): Promise<void> {
  const client = await connect("ws://127.0.0.1:8765/stream", { token: async () => "abc", WebSocket });
  const trades = await client.subscribe({ symbol: "AAPL", data_type: "TRADES" }, { bigint: true });
  try {
    for await (const row of trades) if ("kind" in row && row.kind === Kind.LAST) console.log(row.recv_ns);
  } catch (error) {
    if (error instanceof StreamError) console.log(error.code);
  }
  await client.subscribe("MSFT", { onEvent: (event) => console.log(show(event)) });
  await client.close();
  new FrameDecoder().decode(new Uint8Array(1));
}

// @ts-expect-error: there is no such data type
export const wrong = (await connect("ws://localhost")).subscribe({ symbol: "AAPL", data_type: "CANDLES" });
