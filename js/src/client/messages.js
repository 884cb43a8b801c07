// Control messages of the server: JSON objects with an op, and the values that a client relies on.

import { fail } from "../errors.js";

/** @typedef {{ op: string, [field: string]: any }} ControlMessage */

/**
 * Return a control message.
 *
 * @param {string} text
 * @returns {ControlMessage}
 */
export function parseControl(text) {
  const message = JSON.parse(text);
  if (typeof message !== "object" || message === null || typeof message.op !== "string") fail("a message without op");
  return message;
}

/**
 * Return a field that is a whole number, 0 or more.
 *
 * @param {ControlMessage} message
 * @param {string} name
 * @returns {number}
 */
export function requireWhole(message, name) {
  const value = message[name];
  if (!Number.isInteger(value) || value < 0) fail(`${message.op}: ${name} is ${value}`);
  return value;
}

/**
 * Return a field that is a text.
 *
 * @param {ControlMessage} message
 * @param {string} name
 * @returns {string}
 */
export function requireText(message, name) {
  if (typeof message[name] !== "string") fail(`${message.op}: ${name} is ${message[name]}`);
  return message[name];
}
