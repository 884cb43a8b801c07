// The texts of a connection: a message brings each before the first row that names its id.

import { fail } from "../errors.js";

/**
 * Texts by id. Id 0 is "".
 *
 * @extends {Map<number, string>}
 */
export class Texts extends Map {
  /**
   * Return the text of an id that a row names.
   *
   * @param {number} id
   * @returns {string}
   */
  of(id) {
    if (id === 0) return "";
    return this.get(id) ?? fail(`text ${id}, which has not come`);
  }
}
