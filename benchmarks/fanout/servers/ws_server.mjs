// A server of Node's `ws`: `send` of the same buffer for every client, without compression.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const { WebSocketServer } = createRequire(`${process.argv[2]}/`)("ws");
const SEQ_NBYTES = 8;
const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: false });
let awaited = 0;
let seq, roundsLeft, nbytes, batch;

server.on("listening", () => console.log(server.address().port));
server.on("connection", () => setImmediate(tellIfAllAreThere));

function tellIfAllAreThere() {
  if (awaited && server.clients.size >= awaited) {
    awaited = 0;
    console.log("ready");
  }
}

function message(number) {
  const bytes = Buffer.alloc(nbytes);
  bytes.writeBigUInt64LE(BigInt(number));
  for (let i = SEQ_NBYTES; i < nbytes; i++) bytes[i] = i;
  return bytes;
}

function round() {
  for (let i = 0; i < batch; i++) {
    const data = message(seq++);
    for (const client of server.clients) client.send(data);
  }
  if (--roundsLeft > 0) setImmediate(round);
  else console.log("done");
}

const commands = createInterface({ input: process.stdin });
commands.on("line", (line) => {
  const [word, ...numbers] = line.split(" ");
  if (word === "await") {
    awaited = Number(numbers[0]);
    tellIfAllAreThere();
  } else {
    [seq, roundsLeft, nbytes, batch] = numbers.map(Number);
    setImmediate(round);
  }
});
commands.on("close", () => process.exit(0));
