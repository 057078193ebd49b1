/** How items become bytes. All workers of a queue, in whatever language, must agree on it. */

import { isUtf8 } from 'node:buffer';

/**
 * @template T
 * @typedef {{ encode(item: T): Buffer, decode(data: Buffer): T }} Codec
 */

/**
 * As Python's `TEXT`, the default of its `PriorityQueue`: UTF-8, and an error for what is not.
 *
 * @type {Codec<string>}
 */
export const text = {
  encode(item) {
    // Buffer.from would put U+FFFD in their place, without a word.
    if (!item.isWellFormed()) throw new TypeError('a string with lone surrogates has no UTF-8');
    return Buffer.from(item);
  },
  decode(data) {
    if (!isUtf8(data)) throw new TypeError(`not UTF-8: ${data.toString('hex', 0, 32)}`);
    return data.toString();
  },
};

/** As Python's `JSON`, the default of its `Buffer`, but for the order of keys. @type {Codec<any>} */
export const json = {
  encode(item) {
    const written = JSON.stringify(item);
    if (written === undefined) throw new TypeError(`${typeof item} has no JSON`);
    return Buffer.from(written);
  },
  decode: (data) => JSON.parse(text.decode(data)),
};

/** As Python's `BYTES`. @type {Codec<Buffer>} */
export const bytes = { encode: (item) => item, decode: (data) => data };
