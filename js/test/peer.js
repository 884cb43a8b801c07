// A WebSocket server on a real socket that says what a test tells it to say, however wrong.

import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const WAIT_MS = 5_000;

/** Values that come, for whoever waits for the next one. */
class Inbox {
  #values = [];
  #waiting = [];

  put(value) {
    const resolve = this.#waiting.shift();
    if (resolve) resolve(value);
    else this.#values.push(value);
  }

  async take(what) {
    if (this.#values.length > 0) return this.#values.shift();
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`${what} did not come`)), WAIT_MS);
    });
    try {
      return await Promise.race([new Promise((resolve) => this.#waiting.push(resolve)), late]);
    } finally {
      clearTimeout(timer);
    }
  }
}

/** One connection. */
class Connection {
  #socket;
  #rest = Buffer.alloc(0);
  #heard = new Inbox();

  constructor(socket, request) {
    this.#socket = socket;
    this.request = request;
    this.closed = once(socket, "close");
    socket.on("data", (data) => this.#take(data));
    socket.on("error", () => {});
  }

  /** Send an object as JSON, a string as text, bytes as a binary message. */
  send(...messages) {
    const frames = messages.map((message) => {
      if (message instanceof Uint8Array) return frame(2, message);
      return frame(1, Buffer.from(typeof message === "string" ? message : JSON.stringify(message)));
    });
    this.#socket.write(Buffer.concat(frames));
  }

  welcome(options = {}) {
    this.send({ op: "welcome", protocol: 1, server: "peer", heartbeat_s: 10, ...options });
  }

  /** Resolve to the next request. */
  async hear(op) {
    const said = JSON.parse(await this.#heard.take(op));
    if (said.op !== op) throw new Error(`${op} was expected, and not ${JSON.stringify(said)}`);
    return said;
  }

  drop() {
    this.#socket.destroy();
  }

  #take(data) {
    this.#rest = Buffer.concat([this.#rest, data]);
    for (;;) {
      if (this.#rest.length < 6) return;
      let size = this.#rest[1] & 127;
      let at = 2;
      if (size === 126) {
        size = this.#rest.readUInt16BE(2);
        at = 4;
      }
      if (this.#rest.length < at + 4 + size) return;
      const mask = this.#rest.subarray(at, at + 4);
      const payload = Buffer.from(this.#rest.subarray(at + 4, at + 4 + size)).map((byte, i) => byte ^ mask[i & 3]);
      const opcode = this.#rest[0] & 15;
      this.#rest = this.#rest.subarray(at + 4 + size);
      if (opcode === 1) this.#heard.put(payload.toString());
      if (opcode === 8) {
        this.closeCode = payload.length >= 2 ? payload.readUInt16BE(0) : null;
        this.#socket.end(frame(8, payload));
      }
    }
  }
}

function frame(opcode, payload) {
  const head =
    payload.length < 126
      ? [0x80 | opcode, payload.length]
      : [0x80 | opcode, 126, payload.length >> 8, payload.length & 255];
  return Buffer.concat([Buffer.from(head), payload]);
}

/** A listening peer; `t` is the test, with which it ends. */
export class Peer {
  #server = createServer((_, response) => response.writeHead(404).end());
  #connections = new Inbox();
  #refused = new Inbox();
  #sockets = new Set();
  /** Of a handshake that is refused. */
  refuse = null;

  static async start(t) {
    const peer = new Peer();
    peer.#server.on("connection", (socket) => peer.#sockets.add(socket));
    peer.#server.on("upgrade", (request, socket) => peer.#upgrade(request, socket));
    peer.#server.listen(0, "127.0.0.1");
    await once(peer.#server, "listening");
    t.after(() => {
      for (const socket of peer.#sockets) socket.destroy();
      peer.#server.close();
    });
    return peer;
  }

  get url() {
    return `ws://127.0.0.1:${this.#server.address().port}/stream`;
  }

  /** Resolve to the next connection. */
  accept() {
    return this.#connections.take("a connection");
  }

  /** Resolve after the next handshake that is refused. */
  refused() {
    return this.#refused.take("a handshake");
  }

  #upgrade(request, socket) {
    if (this.refuse !== null) {
      this.#refused.put(undefined);
      socket.end(`HTTP/1.1 ${this.refuse} Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
      return;
    }
    const accept = createHash("sha1")
      .update(request.headers["sec-websocket-key"] + GUID)
      .digest("base64");
    const lines = [
      "HTTP/1.1 101 Switching Protocols",
      "Upgrade: websocket",
      "Connection: Upgrade",
      `Sec-WebSocket-Accept: ${accept}`,
    ];
    const [protocol] = request.headers["sec-websocket-protocol"].split(",");
    socket.write(`${[...lines, `Sec-WebSocket-Protocol: ${protocol}`].join("\r\n")}\r\n\r\n`);
    this.#connections.put(new Connection(socket, request));
  }
}
