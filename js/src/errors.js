// What can go wrong: what the protocol does not permit, and what a server refuses.

/** The server, or whoever speaks in its place, has sent what the protocol does not permit. */
export class ProtocolError extends Error {
  name = "ProtocolError";
}

/** Something was refused or has ended; `code` is one of the protocol's, or CLOSED, DISCONNECTED, TIMEOUT. */
export class StreamError extends Error {
  name = "StreamError";

  constructor(code, message, options) {
    super(`${code}: ${message}`, options);
    this.code = code;
  }
}

export function fail(message) {
  throw new ProtocolError(message);
}
