// Calls of a user's functions. What such a function throws must not harm the client.

/**
 * Call a user's function, if there is one.
 *
 * @template {unknown[]} Values
 * @param {(error: unknown) => void} report gets what the function throws
 * @param {((...values: Values) => void) | undefined} callback
 * @param {Values} values
 */
export function call(report, callback, ...values) {
  try {
    callback?.(...values);
  } catch (error) {
    report(error);
  }
}

/**
 * Throw an error where only the environment's handler of uncaught errors sees it.
 *
 * @param {unknown} error
 */
export function reportUncaught(error) {
  queueMicrotask(() => {
    throw error;
  });
}
