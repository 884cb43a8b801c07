// Rows of depth, and the book that they make.

import { within } from "./bits.js";
import { integer, restoredInteger } from "./columns.js";
import { forgetPlaces, Place } from "./grid.js";
import { Keyed, MOST_REMEMBERED, Remembered, restoredCount } from "./remembered.js";
import { I32_MAX, I32_MIN, Kind, U32, U8 } from "./spec.js";

const INSERT = 0;
const UPDATE = 1;
const DELETE = 2;

class DepthRow extends Remembered {
  family = "depth";
  operation = 255;
  side = 255;
  position = 0;
  market_maker = 0;
  price = new Place();
  size = new Place();

  takeLevel(level) {
    this.price.take(level.price);
    this.size.take(level.size);
    this.market_maker = level.market_maker;
  }

  level() {
    return { price: this.price.copy(), size: this.size.copy(), market_maker: this.market_maker };
  }
}

export class Depth extends Keyed {
  #sides = [[], []];
  #last = new DepthRow();

  create() {
    return new DepthRow();
  }

  key(bits) {
    const side = shortOrByte(bits);
    const operation = shortOrByte(bits);
    const row = this.at(Math.min(side, 2) * 2 + (operation === DELETE ? 1 : 0));
    row.side = side;
    row.operation = operation;
    return row;
  }

  change(bits, channel, row) {
    const news = bits.bits(6);
    if (news & 1) row.kind = integer(bits, channel, row.kind, 0, U8);
    if (news & 2) row.attribs = integer(bits, channel, row.attribs, 0, U8);
    if (news & 4) row.position = integer(bits, channel, row.position, I32_MIN, I32_MAX);
    const level = row.operation === UPDATE ? this.#sides[row.side]?.[row.position] : undefined;
    if (level !== undefined) row.takeLevel(level);
    if (news & 8) channel.price.change(bits, row.price, channel.k[2], false);
    if (news & 16) channel.size.change(bits, row.size, channel.k[3], false);
    if (news & 32) row.market_maker = integer(bits, channel, row.market_maker, 0, U32);
    this.#apply(row, channel);
  }

  restoreRow(bits, channel, row) {
    row.kind = restoredInteger(bits, 0, U8);
    row.attribs = restoredInteger(bits, 0, U8);
    row.position = restoredInteger(bits, I32_MIN, I32_MAX);
    channel.price.restore(bits, row.price);
    channel.size.restore(bits, row.size);
    row.market_maker = restoredInteger(bits, 0, U32);
  }

  restore(bits, channel) {
    super.restore(bits, channel);
    this.#last.kind = bits.bits(8);
    this.#last.attribs = bits.bits(8);
    this.#last.restoreTime(bits);
    for (const levels of this.#sides) {
      for (let left = restoredCount(bits); left > 0; left--) {
        const row = new DepthRow();
        channel.price.restore(bits, row.price);
        channel.size.restore(bits, row.size);
        row.market_maker = within(bits.eg(3), 0, U32, "market_maker");
        levels.push(row.level());
      }
    }
  }

  forget(grid) {
    super.forget(grid);
    for (const level of this.#sides.flat()) forgetPlaces(this.on[grid].map((name) => level[name]));
  }

  /** The book, as inserts. */
  records() {
    return this.#sides.flatMap((levels, side) =>
      levels.map((level, position) => {
        const row = Object.assign(new DepthRow(), { operation: INSERT, side, position });
        row.takeLevel(level);
        row.kind = this.#last.kind;
        row.attribs = this.#last.attribs;
        row.recv_us = this.#last.recv_us;
        row.recv_ns = this.#last.recv_ns;
        return row;
      }),
    );
  }

  #apply(row, channel) {
    if (row.kind === Kind.DEPTH_RESET) {
      this.#sides = [[], []];
      return;
    }
    this.#last.kind = row.kind;
    this.#last.attribs = row.attribs;
    this.#last.arrive(channel);
    const levels = this.#sides[row.side];
    const { position } = row;
    if (levels === undefined || position < 0) return;
    if (row.operation === INSERT && position <= levels.length) {
      levels.splice(position, 0, row.level());
      if (levels.length > MOST_REMEMBERED) levels.pop();
    } else if (row.operation === UPDATE && position <= levels.length && position < MOST_REMEMBERED) {
      levels[position] = row.level();
    } else if (row.operation === DELETE && position < levels.length) {
      levels.splice(position, 1);
    }
  }
}

function shortOrByte(bits) {
  const value = bits.bits(2);
  return value === 3 ? bits.bits(8) : value;
}
