// One WebSocket: messages in, texts out, and why it ended.

import { Deferred } from "./deferred.js";

/** @import { WebSocketLike } from "../../ibfast.js" */

// A WebSocket's readyState.
const OPEN = 1;
const CLOSING = 2;

/** A WebSocket from its first moment on. After `close` its owner gets no message of it any more. */
export class Transport {
  /**
   * Resolves when the connection has ended on both sides.
   *
   * @type {Deferred<void>}
   */
  closed = new Deferred();
  #socket;
  #isReleased = false;
  #trouble = "";

  /**
   * @param {WebSocketLike} socket
   * @param {(data: string | ArrayBuffer) => void} onMessage
   * @param {(reason: string) => void} onLost is called once, unless `close` comes first
   */
  constructor(socket, onMessage, onLost) {
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    const ended = (/** @type {{ code: number, reason?: string }} */ { code, reason }) => {
      if (!this.#isReleased) onLost([code, reason, this.#trouble].filter(Boolean).join(", "));
      this.closed.resolve();
    };
    socket.onmessage = (event) => {
      if (!this.#isReleased) onMessage(event.data);
    };
    socket.onerror = (event) => {
      this.#trouble = event.error?.message ?? event.message ?? "";
      // Some environments report no close where a connection could not be made.
      if (socket.readyState !== OPEN) ended({ code: 1006 });
    };
    socket.onclose = ended;
  }

  /** @param {string} text */
  send(text) {
    this.#socket.send(text);
  }

  /** @param {number} code */
  close(code) {
    this.#isReleased = true;
    if (this.#socket.readyState < CLOSING) this.#socket.close(code);
  }
}
