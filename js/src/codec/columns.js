// How the columns of a row are coded against those of the last row: times, integers, prices against prices, doubles.

import { fail } from "../errors.js";
import { scratch, unzigzag, within } from "./bits.js";

/**
 * @import { Bits } from "./bits.js"
 * @import { Channel } from "./channel.js"
 * @import { Place } from "./grid.js"
 */

const POWERS_OF_1000 = [1n, 1000n, 1000_000n, 1000_000_000n];

/** @param {bigint} ns */
function checkedEvent(ns) {
  if (BigInt.asIntN(64, ns) !== ns) fail("event_ns is out of range");
  return ns;
}

/**
 * Read event_ns.
 *
 * @param {Bits} bits
 * @param {Channel} channel
 * @param {bigint} last event_ns of the last row
 */
export function eventOf(bits, channel, last) {
  const unit = bits.bits(3);
  if (unit < 4) return checkedEvent(last + BigInt(unzigzag(bits.eg(4))) * POWERS_OF_1000[unit]);
  if (unit === 7) return bits.i64();
  const d = BigInt(unzigzag(bits.eg(channel.k[7])));
  const size = POWERS_OF_1000[unit - 3];
  const recv = channel.recvNs();
  const floor = recv / size - (recv < 0n && recv % size !== 0n ? 1n : 0n);
  return checkedEvent((floor - d) * size);
}

/**
 * Read an integer of a row.
 *
 * @param {Bits} bits
 * @param {Channel} channel
 * @param {number} last
 * @param {number} least
 * @param {number} most
 */
export function integer(bits, channel, last, least, most) {
  return within(last + unzigzag(bits.eg(channel.k[7])), least, most, "an integer");
}

/**
 * Read an integer of a state.
 *
 * @param {Bits} bits
 * @param {number} least
 * @param {number} most
 */
export function restoredInteger(bits, least, most) {
  return within(unzigzag(bits.eg(3)), least, most, "an integer");
}

/**
 * Return a time in microseconds, with a fraction.
 *
 * @param {bigint} ns
 */
export function toMicroseconds(ns) {
  return Number(ns / 1000n) + Number(ns % 1000n) / 1000;
}

/**
 * Read a price that is coded against the price of another column.
 *
 * @param {Bits} bits
 * @param {Channel} channel
 * @param {Place} place
 * @param {Place} other
 */
export function relate(bits, channel, place, other) {
  const v = bits.eg(channel.k[2]);
  if (v === 0) bits.double(place);
  else channel.price.put(place, other.n + unzigzag(v - 1));
}

/**
 * Read a double by the bytes in which it differs from the last one.
 *
 * @param {Bits} bits
 * @param {Place} place
 */
export function xor(bits, place) {
  const leading = bits.bits(3);
  const trailing = bits.bits(3);
  if (leading + trailing > 7) fail("a double of no bytes");
  place.toScratch();
  for (let i = trailing; i < 8 - leading; i++) scratch.setUint8(i, scratch.getUint8(i) ^ bits.bits(8));
  place.takeScratch();
}
