import { text } from './codecs.js';
import { Queue, WINDOW, newId } from './queue.js';

const PLACES = 2 ** 42; // fifo: score = priority * PLACES + place

/** @typedef {'added' | 'raised' | 'kept'} Outcome @type {Record<string, Outcome>} */
const OUTCOMES = { A: 'added', R: 'raised', K: 'kept' };

/**
 * @template T
 * @typedef {{ member: T, priority: number, attempts: number }} Item
 */

/**
 * The unique priority queue: the lowest priority leaves first, and a member that is pushed again keeps its lowest.
 * All times are in ms.
 *
 * @template [T=string]
 */
export class PriorityQueue extends Queue {
  #codec;
  #order;
  #lease;
  #maxAttempts;
  #rates;
  #window;

  /**
   * What all workers of a queue must agree on stands here, not in the calls.
   *
   * @param {import('./scripts.js').Scripts} scripts
   * @param {string} name
   * @param {object} [options]
   * @param {'fifo' | 'score'} [options.order] fifo: whole priorities from -1024 to 1023, equals in the order of their
   *   coming; score: any finite number, equals in byte order
   * @param {import('./codecs.js').Codec<T>} [options.codec] equal members must have equal bytes: mind the order of keys
   * @param {number} [options.lease]
   * @param {number} [options.maxAttempts] hand-overs after which a member is a dead letter; 0: never
   * @param {[limit: number, per: number][]} [options.rates] at most `limit` batches in any span of `per`
   * @param {number} [options.window] how long an id is remembered
   * @param {string} [options.prefix]
   * @param {import('./client.js').Client} [options.blocking] a client of its own, to wait with
   */
  constructor(scripts, name, options = {}) {
    const { order = 'fifo', codec = /** @type {any} */ (text), lease = 30_000, maxAttempts = 0 } = options;
    const { rates = [], window = WINDOW } = options;
    super('priority', scripts, name, options);
    this.#order = order;
    this.#codec = codec;
    this.#lease = lease;
    this.#maxAttempts = maxAttempts;
    this.#rates = rates.flat();
    this.#window = window;
  }

  /**
   * Add members with their priorities, at most 1,000, and say of each: added, raised or kept.
   *
   * @param {Iterable<[member: T, priority: number]>} members a Map, or pairs
   * @param {{ delay?: number, token?: string }} [options] token: an id of your own, to call again with when you cannot
   *   know whether the first call took effect
   * @returns {Promise<Outcome[]>}
   */
  async push(members, { delay = 0, token = newId() } = {}) {
    const keys = ['ready', 'later', 'rows', 'meta', ['once', token], 'wake', 'layout'];
    const encoded = [...members].flatMap(([member, priority]) => [priority, this.#codec.encode(member)]);
    const letters = await this.run('push', keys, [this.#order, delay, this.#window, '', ...encoded]);
    return Array.from(letters.toString(), (letter) => OUTCOMES[letter]);
  }

  /**
   * Take and forget the most urgent members: whatever becomes of this process, they do not come again.
   *
   * @param {number} [count]
   * @returns {Promise<Item<T>[]>}
   */
  async pop(count = 1) {
    const args = [this.#order, count, this.#maxAttempts, ''];
    const keys = ['ready', 'later', 'rows', 'meta', 'wake', 'layout', 'guard'];
    const [, , found] = await this.run('pop', keys, args);
    return this.#items(found);
  }

  /**
   * Take the most urgent members as one batch, and lease them; null if there are none within the timeout.
   *
   * @param {number} [size]
   * @param {{ lease?: number, timeout?: number, id?: string }} [options]
   * @returns {Promise<(import('./queue.js').Batch<T> & { priorities: number[] }) | null>}
   */
  reserve(size = 1, { lease = this.#lease, timeout = 0, id = newId() } = {}) {
    const keys = ['ready', 'later', 'rows', 'meta', ['lease', id], 'grants', 'wake', 'layout'];
    return this.waitFor(timeout, async () => {
      const args = [this.#order, id, size, lease, this.#maxAttempts, this.#window, '', ...this.#rates];
      const [retry, , deadline, found] = await this.run('reserve', keys, args);
      if (found.length === 0) return { retry, batch: null };
      const taken = this.#items(found);
      const items = taken.map(({ member }) => member);
      const priorities = taken.map(({ priority }) => priority);
      const attempts = Math.max(...taken.map((item) => item.attempts));
      const raw = taken.map((_, i) => found[3 * i]);
      return { retry, batch: { id, group: null, items, priorities, raw, attempts, deadline } };
    });
  }

  /**
   * Settle those members of a batch that are still held, and give how many; throws LeaseLost if none is.
   *
   * @param {{ id: string, raw: Buffer[] }} batch
   * @returns {Promise<number>}
   */
  ack({ id, raw }) {
    return this.run('ack', this.#settling(id), [id, this.#window, '', ...raw]);
  }

  /**
   * Give those members of a batch that are still held back, and give how many.
   *
   * @param {{ id: string, raw: Buffer[] }} batch
   * @param {{ delay?: number, counted?: boolean }} [options] not counted: nobody began on it
   * @returns {Promise<number>}
   */
  async release({ id, raw }, { delay = 0, counted = true } = {}) {
    const args = [id, this.#maxAttempts, delay, counted ? 'count' : 'forget', this.#window, '', ...raw];
    const [back] = await this.run('release', this.#settling(id), args);
    return back;
  }

  /**
   * Keep those members of a batch that are still held longer, and give the first's deadline.
   *
   * @param {{ id: string, raw: Buffer[] }} batch
   * @param {number} [lease] from now
   * @returns {Promise<number>}
   */
  async extend({ id, raw }, lease = this.#lease) {
    const args = [id, lease, this.#window, '', ...raw];
    const [, deadline] = await this.run('extend', ['later', 'rows', ['lease', id], 'layout'], args);
    return deadline;
  }

  /** @param {string} id */
  #settling(id) {
    return ['ready', 'later', 'rows', ['lease', id], 'wake', 'layout', 'guard'];
  }

  /** @param {any[]} triples @returns {Item<T>[]} */
  #items(triples) {
    return Array.from({ length: triples.length / 3 }, (_, i) => {
      const [member, score, attempts] = triples.slice(3 * i, 3 * i + 3);
      const number = Number(score);
      const priority = this.#order === 'fifo' ? Math.floor(number / PLACES) : number;
      return { member: this.#codec.decode(member), priority, attempts };
    });
  }
}
