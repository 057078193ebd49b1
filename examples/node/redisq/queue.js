/** What both structures share: the names of their keys, new ids, and waiting. */

import { randomUUID } from 'node:crypto';
import { isUtf8 } from 'node:buffer';
import { sender } from './client.js';
import { InvalidArgument } from './errors.js';

/**
 * A batch that was handed out, yours until its deadline. `attempts`: times handed out; of members the highest.
 *
 * @template T
 * @typedef {object} Batch
 * @property {string} id the lease's
 * @property {string | Buffer | null} group null for members of a priority queue
 * @property {T[]} items oldest first; members lowest score first
 * @property {Buffer[]} raw the items as they are stored
 * @property {number} attempts
 * @property {number} deadline ms, by the server's clock
 */

/** @typedef {string | (string | Buffer)[]} Key a noun, or [noun, id] */

export const WINDOW = 60_000; // ms that the scripts remember an id

export class Queue {
  #structure;
  #scripts;
  #prefix;
  #block;

  /**
   * @param {string} structure
   * @param {import('./scripts.js').Scripts} scripts
   * @param {string} name
   * @param {{ prefix?: string, blocking?: import('./client.js').Client }} options
   */
  constructor(structure, scripts, name, { prefix = 'redisq', blocking }) {
    if (!name || /[{}]/.test(prefix + name)) {
      throw new InvalidArgument('BADARG', `queue name is '${name}': not empty, and without { and }, a hash tag's`);
    }
    this.#structure = structure;
    this.#scripts = scripts;
    this.#prefix = `${prefix}:{${name}}:`;
    this.#block = blocking && sender(blocking);
  }

  /**
   * Run a script of this structure.
   *
   * @protected
   * @param {string} verb
   * @param {Key[]} keys
   * @param {import('./scripts.js').Arg[]} args
   */
  run(verb, keys, args) {
    const named = keys.map((key) => (Array.isArray(key) ? this.#key(`${key[0]}:`, key[1]) : this.#key(key)));
    return this.#scripts.run(`${this.#structure}/${verb}`, named, args);
  }

  /** @param {string} noun @param {string | Buffer} id */
  #key(noun, id = '') {
    return Buffer.concat([Buffer.from(this.#prefix + noun), Buffer.from(id)]);
  }

  /**
   * Ask until there is a batch or the time is over.
   *
   * @template B
   * @protected
   * @param {number} timeout ms
   * @param {() => Promise<{ retry: number, batch: B | null }>} ask always with the same lease id, so that a lost
   *   reply costs nothing
   */
  async waitFor(timeout, ask) {
    if (timeout > 0 && !this.#block) {
      // BLPOP holds up its whole connection, and with it all that others send over it.
      throw new InvalidArgument('BADARG', 'to wait, give a client of its own as `blocking`: client.duplicate()');
    }
    const end = performance.now() + timeout;
    for (;;) {
      const { retry, batch } = await ask();
      const left = end - performance.now();
      if (batch || left <= 0) return batch;
      if (retry !== 0) await this.#wake(retry < 0 ? left : Math.min(left, retry));
    }
  }

  /**
   * Wait for a push, in a short piece: a lease that another worker lets run out leaves no token.
   *
   * @param {number} ms
   */
  async #wake(ms) {
    const seconds = Math.max(0.002, Math.min(ms / 1000, 2.5)).toFixed(3); // 0 would be for ever
    await this.#block?.(['BLPOP', this.#key('wake'), seconds]);
  }
}

/** Make the id of one call: outside of every retry, so that what is sent again carries the same. */
export const newId = () => randomUUID();

/** Read a group's name. One that is not UTF-8 stays a Buffer, so that it goes back unchanged. @param {Buffer} name */
export const nameOf = (name) => (isUtf8(name) ? name.toString() : name);
