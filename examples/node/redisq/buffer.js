import { json } from './codecs.js';
import { Queue, WINDOW, nameOf, newId } from './queue.js';

/**
 * The grouped batch buffer: items pile up per group, and leave in batches of one group. All times are in ms.
 *
 * @template [T=any]
 */
export class GroupedBuffer extends Queue {
  #codec;
  #lease;
  #reserving;
  #window;

  /**
   * What all workers of a queue must agree on stands here, not in the calls.
   *
   * @param {import('./scripts.js').Scripts} scripts
   * @param {string} name
   * @param {object} [options]
   * @param {import('./codecs.js').Codec<T>} [options.codec]
   * @param {number} [options.lease]
   * @param {number} [options.minSize] a shorter group waits, but
   * @param {number} [options.maxWait] no longer than this
   * @param {number} [options.maxAttempts] hand-overs after which a batch is a dead letter; 0: never
   * @param {[limit: number, per: number][]} [options.rates] at most `limit` batches in any span of `per`
   * @param {number} [options.window] how long an id is remembered
   * @param {string} [options.prefix]
   * @param {import('./client.js').Client} [options.blocking] a client of its own, to wait with
   */
  constructor(scripts, name, options = {}) {
    const { codec = json, lease = 30_000, minSize = 1, maxWait = 60_000, maxAttempts = 0 } = options;
    const { rates = [], window = WINDOW } = options;
    super('buffer', scripts, name, options);
    this.#codec = codec;
    this.#lease = lease;
    this.#reserving = [minSize, maxWait, maxAttempts, window, '', ...rates.flat()];
    this.#window = window;
  }

  /**
   * Add items to one group, at most 10,000, and give its waiting length.
   *
   * @param {T[]} items
   * @param {{ group?: string | Buffer, front?: boolean, token?: string }} [options] front: put back, the order kept;
   *   token: an id of your own, to call again with when you cannot know whether the first call took effect
   * @returns {Promise<number>}
   */
  push(items, { group = 'default', front = false, token = newId() } = {}) {
    const keys = ['groups', 'since', ['items', group], ['once', token], 'wake', 'layout'];
    const encoded = items.map((item) => this.#codec.encode(item));
    return this.run('push', keys, [group, front ? 'front' : 'back', this.#window, '', ...encoded]);
  }

  /**
   * Take and forget the oldest items of one group: whatever becomes of this process, they do not come again.
   *
   * @param {number} [size]
   * @param {{ group?: string | Buffer }} [options]
   * @returns {Promise<T[]>}
   */
  async pop(size = 2000, { group = 'default' } = {}) {
    const keys = ['groups', 'since', ['items', group], 'layout', 'guard'];
    return this.#decode(await this.run('pop', keys, [group, size, '']));
  }

  /**
   * Name the longest groups, longest first, with their lengths.
   *
   * @param {number} [count]
   * @returns {Promise<Map<string | Buffer, number>>}
   */
  async longestGroups(count = 2) {
    const reply = await this.run('longest', ['groups', 'layout'], [count]);
    return new Map(pairs(reply).map(([group, length]) => [nameOf(group), length]));
  }

  /**
   * Choose the longest groups and take and forget the oldest items of each.
   *
   * @param {number} [groups]
   * @param {number} [size]
   * @returns {Promise<Map<string | Buffer, T[]>>}
   */
  async popLongest(groups = 2, size = 2000) {
    const reply = await this.run('pop_longest', ['groups', 'since', 'guard', 'layout'], [groups, size, '']);
    const taken = /** @type {[Buffer, Buffer[]][]} */ (reply);
    return new Map(taken.map(([group, items]) => [nameOf(group), this.#decode(items)]));
  }

  /**
   * Take a batch that is due or of the longest group, and lease it; null if there is none within the timeout.
   *
   * @param {number} [size] a batch that was given back comes whole, whatever this says
   * @param {{ lease?: number, timeout?: number, id?: string }} [options]
   * @returns {Promise<import('./queue.js').Batch<T> | null>}
   */
  reserve(size = 2000, { lease = this.#lease, timeout = 0, id = newId() } = {}) {
    const keys = ['groups', 'since', 'leases', 'delayed', 'dead', 'grants', ['batch', id], ['ended', id]];
    return this.waitFor(timeout, async () => {
      const args = [id, size, lease, ...this.#reserving];
      const [retry, , ...taken] = await this.run('reserve', [...keys, 'wake', 'guard', 'layout'], args);
      if (taken.length === 0) return { retry, batch: null };
      const [deadline, group, attempts, raw] = taken;
      return { retry, batch: { id, group: nameOf(group), items: this.#decode(raw), raw, attempts, deadline } };
    });
  }

  /**
   * Settle a batch, and give how many items are done. Those at the places `failed`, from 0, come back after `delay`.
   *
   * @param {{ id: string }} batch
   * @param {{ failed?: number[], delay?: number }} [options]
   * @returns {Promise<number>}
   */
  ack({ id }, { failed = [], delay = 0 } = {}) {
    return this.run('ack', this.#settling(id), [id, delay, this.#window, '', ...failed]);
  }

  /**
   * Give a batch back, whole, and give how many items it has.
   *
   * @param {{ id: string }} batch
   * @param {{ delay?: number, counted?: boolean }} [options] not counted: nobody began on it
   * @returns {Promise<number>}
   */
  release({ id }, { delay = 0, counted = true } = {}) {
    return this.run('release', this.#settling(id), [id, delay, counted ? 'count' : 'forget', this.#window, '']);
  }

  /**
   * Keep a batch longer, and give its deadline.
   *
   * @param {{ id: string }} batch
   * @param {number} [lease] from now
   * @returns {Promise<number>}
   */
  extend({ id }, lease = this.#lease) {
    return this.run('extend', ['leases', 'layout'], [id, lease, '']);
  }

  /** @param {string} id */
  #settling(id) {
    return ['leases', 'delayed', ['batch', id], ['ended', id], 'wake', 'layout'];
  }

  /** @param {Buffer[]} items */
  #decode(items) {
    return items.map((item) => this.#codec.decode(item));
  }
}

/** @param {any[]} flat @returns {[any, any][]} */
function pairs(flat) {
  return Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i], flat[2 * i + 1]]);
}
