// The errors of the client: ProtocolError for what the protocol does not permit, StreamError for what a server refuses.

/** The peer sent a message that the protocol does not permit. */
export class ProtocolError extends Error {
  /** @override */
  name = "ProtocolError";
}

/** A request was refused, or something has ended. `code` is one of the protocol's, or CLOSED, DISCONNECTED, TIMEOUT. */
export class StreamError extends Error {
  /** @override */
  name = "StreamError";

  /**
   * @param {string} code
   * @param {string} message
   * @param {{ cause?: unknown }} [options]
   */
  constructor(code, message, options) {
    super(`${code}: ${message}`, options);
    this.code = code;
  }
}

/**
 * Throw a ProtocolError.
 *
 * @param {string} message
 * @returns {never}
 */
export function fail(message) {
  throw new ProtocolError(message);
}
