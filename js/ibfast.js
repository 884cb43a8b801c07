// Market data from an ibfast fan-out server, for browsers and Node: the public names of the stream protocol's client.

export { Client, connect } from "./src/client/client.js";
export { backoffMs } from "./src/client/reconnection.js";
export { Subscription } from "./src/client/subscription.js";
export { Bits } from "./src/codec/bits.js";
export { FrameDecoder } from "./src/codec/frame_decoder.js";
export { Kind } from "./src/codec/spec.js";
export { ProtocolError, StreamError } from "./src/errors.js";
