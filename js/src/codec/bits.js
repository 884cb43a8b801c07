// A bounded reader of bits, and the numbers that are made of them. It never reads beyond its message.

import { fail } from "../errors.js";
import { MAX_MESSAGE_BYTES } from "./spec.js";

const POWERS_OF_TWO = Array.from({ length: 54 }, (_, exponent) => Number(1n << BigInt(exponent)));

const TWO_32 = 4294967296;
const PADDING = 16;

/** A reader of the bits of a message, least significant first, a word at a time. */
export class Bits {
  #bytes = new Uint8Array(256 + PADDING);
  #view = new DataView(this.#bytes.buffer);
  /** In bits, as is `end`. */
  position = 0;
  end = 0;

  /**
   * Begin with a message. It is copied, with zeros after it, so that words can be read at its end.
   *
   * @param {Uint8Array} message
   */
  load(message) {
    const size = message.length;
    if (size > MAX_MESSAGE_BYTES) fail(`a message of ${size} bytes`);
    if (size + PADDING > this.#bytes.length) {
      this.#bytes = new Uint8Array(2 * size + PADDING);
      this.#view = new DataView(this.#bytes.buffer);
    }
    this.#bytes.set(message);
    this.#bytes.fill(0, size, size + PADDING);
    this.position = 0;
    this.end = size * 8;
  }

  get isAtEnd() {
    return this.position >= this.end;
  }

  /** Move to the next whole byte. */
  align() {
    this.position = (this.position + 7) & ~7;
  }

  /** Return the next bit. */
  bit() {
    const at = this.position;
    this.#advance(1);
    return (this.#bytes[at >>> 3] >>> (at & 7)) & 1;
  }

  /**
   * Return a number of 0 to 32 bits.
   *
   * @param {number} count
   */
  bits(count) {
    if (count === 0) return 0;
    const word = this.#word();
    this.#advance(count);
    return (word << (32 - count)) >>> (32 - count);
  }

  /**
   * Return an Exp-Golomb number, below 2^53.
   *
   * @param {number} k
   * @returns {number}
   */
  eg(k) {
    const word = this.#word();
    if (word !== 0) {
      const zeros = 31 - Math.clz32(word & -word);
      const size = zeros + k;
      if (zeros + size < 32) {
        this.#advance(zeros + 1 + size);
        const low = (word >>> (zeros + 1)) & ((1 << size) - 1);
        return zeros === 0 ? low : low + POWERS_OF_TWO[size] - POWERS_OF_TWO[k];
      }
    }
    return this.#longEg(k);
  }

  /**
   * Return a number below n, where 1 ≤ n < 2^31.
   *
   * @param {number} n
   */
  uniform(n) {
    if (n === 1) return 0;
    const size = 32 - Math.clz32(n - 1);
    const unused = POWERS_OF_TWO[size] - n;
    const low = this.bits(size - 1);
    return low < unused ? low : low * 2 + this.bit() - unused;
  }

  /**
   * Return a LEB128 number of whole bytes: a Number, or a BigInt where it is no safe integer.
   *
   * @returns {number | bigint}
   */
  varint() {
    let value = 0;
    for (let i = 0; i < 9; i++) {
      const byte = this.bits(8);
      value += (byte & 127) * 2 ** (7 * i);
      if (byte < 128) return Number.isSafeInteger(value) ? value : this.#longVarint(i + 1);
    }
    return fail("a varint of more than 63 bits");
  }

  /** Return 64 bits as a signed integer. */
  i64() {
    this.#load64();
    return scratch.getBigInt64(0, true);
  }

  /** Return 64 bits as an unsigned integer. */
  u64() {
    this.#load64();
    return scratch.getBigUint64(0, true);
  }

  /**
   * Put the 64 bits of a double into a place. The place's n stays.
   *
   * @param {import("./grid.js").Place} place
   */
  double(place) {
    this.#load64();
    place.takeScratch();
  }

  /**
   * Return the bytes that are left.
   *
   * @returns {Uint8Array}
   */
  rest() {
    const bytes = this.#bytes.subarray(this.position >>> 3, this.end >>> 3);
    this.position = this.end;
    return bytes;
  }

  #load64() {
    scratch.setUint32(0, this.bits(32), true);
    scratch.setUint32(4, this.bits(32), true);
  }

  /** Return the next 32 bits without moving on. Bits after the end are zeros. */
  #word() {
    const at = this.position >>> 3;
    const shift = this.position & 7;
    const low = this.#view.getUint32(at, true);
    return shift === 0 ? low | 0 : (low >>> shift) | (this.#bytes[at + 4] << (32 - shift));
  }

  /** @param {number} count */
  #advance(count) {
    this.position += count;
    if (this.position > this.end) fail("a message ends in the middle");
  }

  /** @param {number} k */
  #longEg(k) {
    let zeros = 0;
    let word = this.#word();
    while (word === 0) {
      zeros += 32;
      if (zeros + k > 52) fail("a number of more than 53 bits");
      this.#advance(32);
      word = this.#word();
    }
    const more = 31 - Math.clz32(word & -word);
    const size = zeros + more + k;
    if (size > 52) fail("a number of more than 53 bits");
    this.#advance(more + 1);
    const low = size > 32 ? this.bits(32) + this.bits(size - 32) * TWO_32 : this.bits(size);
    return low + (POWERS_OF_TWO[size] - POWERS_OF_TWO[k]);
  }

  /** @param {number} count */
  #longVarint(count) {
    this.position -= 8 * count;
    let value = 0n;
    for (let i = 0; i < count; i++) value |= BigInt(this.bits(8) & 127) << BigInt(7 * i);
    return value;
  }
}

/** Eight bytes in which doubles and integers are seen as each other's bits; nothing stays there between two calls. */
export const scratch = new DataView(new ArrayBuffer(8));

/**
 * Return the integer behind 0, 1, 2, 3, 4 …: 0, −1, 1, −2, 2 …
 *
 * @param {number} v
 */
export function unzigzag(v) {
  return v % 2 === 0 ? v / 2 : -(v + 1) / 2;
}

/**
 * Return a value that has to lie in a range.
 *
 * @template {number | bigint} T
 * @param {T} value
 * @param {number} least
 * @param {number} most
 * @param {string} what
 */
export function within(value, least, most, what) {
  if (!(value >= least && value <= most)) fail(`${what} is out of range`);
  return value;
}
