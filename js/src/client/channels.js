// Channels of one connection: what of each has come, and which subscription gets it.

import { FrameDecoder } from "../codec/frame_decoder.js";
import { CLASSES } from "../codec/spec.js";
import { fail } from "../errors.js";
import { requireWhole } from "./messages.js";

/**
 * @import { Batch, Lag } from "../../ibfast.js"
 * @import { ControlMessage } from "./messages.js"
 * @import { Desired, ResumePoint } from "./subscription.js"
 */

/** A channel's place on this connection: its subscription, and up to which seq everything has come. */
export class ChannelSlot {
  seq = 0;
  /** Whether the user has its state, to which rows can be added. */
  isReady = false;
  /** Whether rows may be missing that no `lag` has reported. */
  isGapUnreported = false;
  /** Whether the next snapshot is what missed rows are coded against, and no state. */
  isBaseToCome = false;

  /**
   * @param {Desired} desired
   * @param {string} epoch
   * @param {number} cls
   */
  constructor(desired, epoch, cls) {
    this.desired = desired;
    this.epoch = epoch;
    this.class = cls;
  }
}

/** The channels of one connection, and the decoder of their messages. */
export class Channels {
  #decoder = new FrameDecoder();
  /** @type {Map<number, ChannelSlot>} */
  #slots = new Map();
  /** @type {Map<number, Desired>} */
  #byNumber = new Map();

  /**
   * Return the subscription with a number, undefined where there is none.
   *
   * @param {number} number
   */
  subscription(number) {
    return this.#byNumber.get(number);
  }

  /**
   * Begin a subscription, as `subscribed` describes it. Return whether it goes on from where it was.
   *
   * @param {Desired} desired
   * @param {ControlMessage} message
   * @param {ResumePoint | null} seen from where it was asked to go on
   */
  begin(desired, message, seen) {
    const number = requireWhole(message, "subscription");
    if (this.#byNumber.has(number)) fail(`subscription ${number} is there already`);
    desired.number = number;
    this.#byNumber.set(number, desired);
    const slot = this.#open(desired, message);
    if (seen !== null && message.resumed === true) {
      slot.seq = Math.floor(seen.resume.position / CLASSES);
      slot.isReady = slot.isBaseToCome = true;
      return true;
    }
    slot.isGapUnreported = desired.wasLive && desired.request.mode !== "snapshot";
    return false;
  }

  /**
   * Replace a subscription's channel, as its interval is another one. Until the new channel has its state, the
   * subscription can go on from the old one.
   *
   * @param {Desired} desired
   * @param {ControlMessage} message
   */
  change(desired, message) {
    desired.remember();
    this.#close(desired);
    this.#open(desired, message);
  }

  /**
   * End a subscription of this connection.
   *
   * @param {Desired} desired
   */
  end(desired) {
    this.#close(desired);
    if (desired.number !== null) this.#byNumber.delete(desired.number);
    desired.number = null;
  }

  /** Leave all subscriptions to the next connection, with what it needs to go on. */
  abandon() {
    for (const desired of this.#byNumber.values()) {
      desired.remember();
      desired.number = null;
      desired.slot = null;
    }
  }

  /**
   * Return the subscription that has a channel.
   *
   * @param {number} channel
   */
  ownerOf(channel) {
    return this.#slotOf(channel).desired;
  }

  /**
   * Deliver what a binary message says.
   *
   * @param {ArrayBuffer | Uint8Array} data
   */
  receive(data) {
    const message = this.#decoder.decode(data);
    if (message.type === "window") {
      this.#complete(message.class, message.seq);
      for (const batch of message.batches) this.ownerOf(batch.channel).deliver(batch);
    } else if (message.type === "snapshot") {
      this.#receiveSnapshot(message);
    } else if (message.type === "lag") {
      this.#receiveLag(message);
    }
  }

  /**
   * Note positions: up to each, everything of its class has come.
   *
   * @param {ControlMessage} message
   */
  receivePositions(message) {
    if (!Array.isArray(message.positions)) fail(`${message.op} without positions`);
    for (const position of message.positions) {
      if (!Number.isSafeInteger(position) || position < 0) fail(`${message.op}: a position is ${position}`);
      this.#complete(position % CLASSES, Math.floor(position / CLASSES));
    }
  }

  /**
   * @param {Desired} desired
   * @param {ControlMessage} message with the description of its channel
   */
  #open(desired, message) {
    if (!Array.isArray(message.channels) || message.channels.length !== 1) fail(`${message.op} without its channel`);
    desired.channels = message.channels;
    const [described] = desired.channels;
    this.#decoder.open(described, desired.options);
    const { channel, epoch, class: cls } = described;
    if (typeof epoch !== "string") fail(`${message.op}: epoch is ${epoch}`);
    const slot = new ChannelSlot(desired, epoch, cls);
    this.#slots.set(channel, slot);
    desired.slot = slot;
    desired.currentRows = () => this.#decoder.state(channel, slot.seq);
    return slot;
  }

  /** @param {Desired} desired */
  #close(desired) {
    for (const { channel } of desired.channels) {
      this.#decoder.close(channel);
      this.#slots.delete(channel);
    }
    desired.slot = null;
    desired.currentRows = () => [];
  }

  /** @param {number} channel */
  #slotOf(channel) {
    return this.#slots.get(channel) ?? fail(`channel ${channel} is not open`);
  }

  /**
   * @param {number} cls
   * @param {number} seq
   */
  #complete(cls, seq) {
    for (const slot of this.#slots.values()) if (slot.class === cls && slot.isReady) slot.seq = Math.max(slot.seq, seq);
  }

  /** @param {{ channel: number, seq: number, batches: Batch[] }} snapshot */
  #receiveSnapshot({ channel, seq, batches }) {
    const slot = this.#slotOf(channel);
    if (slot.isBaseToCome) {
      slot.isBaseToCome = false;
      return;
    }
    if (slot.isGapUnreported) {
      slot.desired.deliver({ type: "lag", channel, reason: "resume", from_seq: 0, to_seq: seq, rows: null });
      slot.isGapUnreported = false;
    }
    slot.isReady = true;
    slot.seq = Math.max(slot.seq, seq);
    for (const batch of batches) slot.desired.deliver(batch);
  }

  /** @param {Lag & { channel: number }} lag */
  #receiveLag(lag) {
    const slot = this.#slotOf(lag.channel);
    slot.isReady = slot.isGapUnreported = false;
    slot.desired.seen = null; // The state is void: rows could not be added to it.
    slot.desired.deliver(lag);
  }
}
