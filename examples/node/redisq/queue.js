/** What both structures share: how a script is called, and how a batch is waited for and settled. */

import { isUtf8 } from 'node:buffer';
import { randomBytes } from 'node:crypto';
import { closeSync, openSync, readSync } from 'node:fs';
import { hostname } from 'node:os';
import { sender } from './client.js';
import { CodecError, InvalidArgument } from './errors.js';

/**
 * A batch that was handed out, yours until its deadline.
 *
 * @template T
 * @typedef {object} Batch
 * @property {string} id the lease's
 * @property {string | Buffer | null} group null for members of a priority queue
 * @property {T[]} items oldest first; members lowest score first
 * @property {number[] | null} priorities of members
 * @property {any[] | null} payloads of members, null where one has none
 * @property {number} attempts times handed out, this one included; of members the highest
 * @property {string} reason why it came back last time
 * @property {string} holder
 * @property {number} deadline ms, by the server's clock; of a delayed batch the time at which it is due, of a dead
 *   letter that of its death
 * @property {Buffer[]} raw the items as they are stored
 */

/**
 * A dead letter that a reserve has made: a batch by its id, with the rest, or a member by itself.
 *
 * @typedef {{ name: any, group?: string | Buffer, attempts?: number, reason?: string }} Buried
 */

/**
 * The answer of one reserve: a batch; or in how many ms to ask again (0: at once); or that the lease of that id is
 * over, so that nothing will come under it. `buried` may come with any of them.
 *
 * @template T
 * @typedef {{ batch: Batch<T> | null, retry: number, buried: Buried[], ended: boolean }} Reserved
 */

/**
 * @typedef {object} Options what all workers of a queue must agree on
 * @property {number} [lease]
 * @property {number} [maxAttempts] hand-overs after which a batch or member is a dead letter; 0: never
 * @property {number} [maxDead] dead letters to keep; 0: all
 * @property {[limit: number, per: number][]} [rates] at most `limit` batches in any span of `per`
 * @property {number} [window] how long an id is remembered
 * @property {string} [prefix]
 * @property {import('./client.js').Client} [blocking] a client of its own, to wait with
 * @property {(buried: Buried) => void} [onBuried] is called with each dead letter that a `reserve` here makes
 */

const WINDOW = 60_000; // ms that the scripts remember an id; how a lease ended also where `window` is 0

/** @template T */
export class Queue {
  #structure;
  #scripts;
  #prefix;
  #size;
  #lease;
  #memory;
  #settings;
  #block;
  #onBuried;

  /**
   * @param {string} structure
   * @param {import('./scripts.js').Scripts} scripts
   * @param {string} name
   * @param {Options} options
   * @param {number} size of a batch, if a reserve says nothing else
   * @param {import('./scripts.js').Values} settings of this structure, by the names in the headers
   */
  constructor(structure, scripts, name, options, size, settings) {
    const { lease = 30_000, maxAttempts = 0, maxDead = 10_000, rates = [], window = WINDOW } = options;
    const { prefix = 'redisq', blocking, onBuried } = options;
    [prefix, name].forEach(checkName);
    this.#structure = structure;
    this.#scripts = scripts;
    this.#prefix = `${prefix}:{${name}}:`;
    this.#size = size;
    this.#lease = lease;
    this.#memory = window || WINDOW;
    this.#settings = { ...settings, window, max_attempts: maxAttempts, max_dead: maxDead, rates: rates.flat() };
    this.#block = blocking && sender(blocking);
    this.#onBuried = onBuried;
  }

  /**
   * Run any script of this structure with what its header names, and give the reply as it is. What the queue was made
   * with need not be repeated: `call('purge', { limit: 100, cursor: 0 })`.
   *
   * @param {string} verb
   * @param {import('./scripts.js').Values} [values]
   * @returns {Promise<any>}
   */
  async call(verb, values = {}) {
    const name = `${this.#structure}/${verb}`;
    const { keys, args } = this.#scripts.get(name).command(this.#prefix, { ...this.#settings, ...values });
    return this.#scripts.run(name, keys, args);
  }

  /**
   * Give the most that an argument of a script may be, or how many of them there may be.
   *
   * @param {string} verb
   * @param {string} argument
   */
  limit(verb, argument) {
    return this.#scripts.get(`${this.#structure}/${verb}`).limit(argument);
  }

  /**
   * Take a batch and lease it; null if there is none within the timeout.
   *
   * @param {number} [size] a batch of a buffer that was given back comes whole, whatever this and `maxBytes` say
   * @param {{ timeout?: number, lease?: number, id?: string, maxBytes?: number, holder?: string }} [options] id: the
   *   lease's; with the same one the same batch comes, while it is held. maxBytes: but at least one item. holder: for
   *   people
   * @returns {Promise<Batch<T> | null>}
   */
  async reserve(size = this.#size, { timeout = 0, id = newId(), ...options } = {}) {
    if (timeout > 0 && !this.#block) {
      // BLPOP holds up its whole connection, and with it all that others send over it.
      throw new InvalidArgument('BADARG', 'to wait, give a client of its own as `blocking`: client.duplicate()');
    }
    const end = performance.now() + timeout;
    for (;;) {
      // All asks have one id, so that a lost reply costs nothing.
      const { batch, retry, buried, ended } = await this.reserveOnce(size, { id, ...options });
      buried.forEach((one) => this.#onBuried?.(one));
      if (batch || ended) return batch;
      if (retry === 0) continue; // as after a burial, however little time is left
      const left = end - performance.now();
      if (left <= 0) return null;
      await this.#wake(Math.min(left, retry));
    }
  }

  /**
   * Ask once, for a loop of your own.
   *
   * @param {number} [size]
   * @param {{ lease?: number, id?: string, maxBytes?: number, holder?: string }} [options]
   * @returns {Promise<Reserved<T>>}
   */
  async reserveOnce(size = this.#size, options = {}) {
    const { lease = this.#lease, id = newId(), maxBytes = 0, holder = thisProcess() } = options;
    const values = { id, size, lease, max_bytes: maxBytes, holder, window: this.#memory };
    const [event, ...rest] = await this.call('reserve', values);
    const found = this.readEvent(String(event), rest, id, holder);
    return { batch: null, retry: 0, buried: [], ended: String(event) === 'ended', ...found };
  }

  /**
   * Read what follows the first word of a reserve's reply.
   *
   * @protected
   * @param {string} event
   * @param {any[]} rest
   * @param {string} id
   * @param {string} holder
   * @returns {Partial<Reserved<T>>}
   */
  readEvent(event, rest, id, holder) {
    throw new Error('each structure reads its own');
  }

  /**
   * Settle a batch, and give how many items are done. Those at the places `failed`, from 0, come back after `delay`.
   *
   * @param {{ id: string }} batch
   * @param {{ failed?: Iterable<number>, delay?: number, reason?: string }} [options] reason: why they failed
   * @returns {Promise<number>}
   */
  ack({ id }, { failed = [], delay = 0, reason = '' } = {}) {
    const places = [...new Set(failed)].sort((a, b) => a - b);
    return this.call('ack', { id, delay, window: this.#memory, ...this.failures(places, reason) });
  }

  /**
   * Give the arguments that say what failed.
   *
   * @protected
   * @param {number[]} places
   * @param {string} reason
   * @returns {import('./scripts.js').Values}
   */
  failures(places, reason) {
    return { failed: places, reason };
  }

  /**
   * Give a batch back, whole, and give how many items that is.
   *
   * @param {{ id: string }} batch
   * @param {{ delay?: number, count?: boolean, reason?: string }} [options] count: false where this hand-over was no
   *   attempt
   * @returns {Promise<number>}
   */
  release({ id }, { delay = 0, count = true, reason = '' } = {}) {
    return this.call('release', { id, delay, window: this.#memory, attempt: count ? 'count' : 'forget', reason });
  }

  /**
   * Make a batch a dead letter, for a failure that is permanent, and give how many items that is.
   *
   * @param {{ id: string }} batch
   * @param {{ reason?: string }} [options]
   * @returns {Promise<number>}
   */
  bury({ id }, { reason = '' } = {}) {
    return this.call('bury', { id, window: this.#memory, reason });
  }

  /**
   * Keep a batch longer, and give its deadline.
   *
   * @param {{ id: string }} batch
   * @param {number} [lease] from now
   * @returns {Promise<number>}
   */
  extend({ id }, lease = this.#lease) {
    return this.call('extend', { id, lease });
  }

  /**
   * Hand nothing out, to any client in any language, until `resume`, or for so many ms. Pushes, acks and releases go on.
   *
   * @param {number | null} [duration]
   * @param {{ reason?: string, token?: string }} [options] reason: for people, see `stats`
   * @returns {Promise<void>}
   */
  async pause(duration = null, { reason = '', token = newId() } = {}) {
    await this.call('pause', { once: token, duration: pauseLength(duration), reason });
  }

  /**
   * End the pause, wake a worker that waits, and say whether there was one.
   *
   * @param {{ token?: string }} [options]
   */
  async resume({ token = newId() } = {}) {
    return (await this.call('resume', { once: token })) === 1;
  }

  /**
   * Wait for a push, in a short piece: what sends no wake-up, such as another client's crash, is seen by asking.
   *
   * @param {number} ms
   */
  async #wake(ms) {
    const seconds = Math.max(0.002, Math.min(ms / 1000, 2.5)).toFixed(3); // 0 would be forever
    await this.#block?.(['BLPOP', `${this.#prefix}wake`, seconds]);
  }
}

/**
 * Make the id of one call: outside of every retry, so that what is sent again carries the same.
 *
 * It is read from the operating system each time. node:crypto draws on OpenSSL's generator, whose state is kept in this
 * process (and randomUUID on a cache of its output besides): from a snapshot that is restored twice, two processes
 * would make the same ids, and lose each other's pushes.
 */
export function newId() {
  if (process.platform === 'win32') return randomBytes(16).toString('hex'); // it has no such file
  const bytes = Buffer.alloc(16);
  const file = openSync('/dev/urandom', 'r'); // not kept open: a snapshot could be restored without it
  try {
    readSync(file, bytes);
  } finally {
    closeSync(file);
  }
  return bytes.toString('hex');
}

/** Refuse a name or prefix that would not be the one hash tag of a cluster. @param {string} name */
export function checkName(name) {
  if (name && !/[{}]/.test(name)) return;
  throw new InvalidArgument('BADARG', `the name '${name}' cannot be used: give one without { and }`);
}

/** Give the duration of a pause as the scripts take it: 0 has no end. @param {number | null} ms */
export function pauseLength(ms) {
  if (ms === null) return 0;
  if (Math.round(ms) > 0) return Math.round(ms);
  throw new InvalidArgument('BADARG', `duration is ${ms}: give at least 1 ms, or null for no end`);
}

/** Say who holds a lease, for people. */
const thisProcess = () => `${hostname()}:${process.pid}`;

/** Read a group's name. One that is not UTF-8 stays a Buffer, so that it goes back unchanged. @param {Buffer} name */
export const nameOf = (name) => (isUtf8(name) ? name.toString() : name);

/** Take a flat list two by two. @param {any[]} flat @returns {[any, any][]} */
export function pairs(flat) {
  return Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i], flat[2 * i + 1]]);
}

/**
 * Decode what is stored, or throw an error that has all that the call took, so that nothing is lost.
 *
 * @template T
 * @param {import('./codecs.js').Codec<T>} codec
 * @param {Buffer} data
 * @param {any} raw
 * @returns {T}
 */
export function decode(codec, data, raw) {
  try {
    return codec.decode(data);
  } catch (error) {
    throw new CodecError(data, raw, /** @type {Error} */ (error));
  }
}

/**
 * Put names to a stats reply, of which the end is the same for both structures. -1 is none.
 *
 * @param {string[]} names
 * @param {any[]} reply
 * @returns {Record<string, number | null> & { paused: boolean, pauseReason: string, pausedUntil: number | null }}
 */
export function nameStats(names, reply) {
  const counters = ['done', 'failed', 'buried', 'trimmed'];
  const named = [...names, ...counters].map((name, i) => [name, reply[i] < 0 ? null : reply[i]]);
  const [, until = '', reason = ''] = String(reply.at(-1)).match(/^(\d*) ?(.*)$/s) ?? [];
  const pause = { paused: until !== '', pauseReason: reason, pausedUntil: Number(until) || null };
  return { ...Object.fromEntries(named), ...pause };
}
