import { json } from './codecs.js';
import { Queue, decode, nameOf, nameStats, newId, pairs } from './queue.js';

const STATS = ['groups', 'busyGroups', 'pausedGroups', 'oldestWait', 'leased', 'delayed', 'dead', 'due', 'nextExpiry'];

/**
 * The grouped batch buffer: items pile up per group, and leave in batches of one group. All times are in ms.
 *
 * @template [T=any]
 * @extends {Queue<T>}
 */
export class GroupedBuffer extends Queue {
  #codec;

  /**
   * What all workers of a queue must agree on stands here, not in the calls.
   *
   * @param {import('./scripts.js').Scripts} scripts
   * @param {string} name
   * @param {import('./queue.js').Options & {
   *   codec?: import('./codecs.js').Codec<T>, minSize?: number, maxWait?: number, ordered?: boolean, isolate?: boolean,
   * }} [options] minSize: a shorter group waits, but no longer than maxWait. ordered: one batch of a group at a time.
   *   isolate: a batch that has used its attempts is split, so that in the end only the item that fails is dead
   */
  constructor(scripts, name, options = {}) {
    const { codec = json, minSize = 1, maxWait = 60_000, ordered = false, isolate = false } = options;
    const settings = { min_size: minSize, max_wait: maxWait, ordered: Number(ordered), isolate: Number(isolate) };
    super('buffer', scripts, name, options, 2000, settings);
    this.#codec = codec;
  }

  /**
   * Add items to one group, at most `limit('push', 'item')`, and give its waiting length.
   *
   * @param {T[]} items
   * @param {{ group?: string | Buffer, front?: boolean, token?: string }} [options] front: put back, the order kept;
   *   token: an id of your own, to call again with when you cannot know whether the first call took effect
   * @returns {Promise<number>}
   */
  async push(items, { group = 'default', front = false, token = newId() } = {}) {
    const item = items.map((one) => this.#codec.encode(one));
    return this.call('push', { group, side: front ? 'front' : 'back', once: token, item });
  }

  /**
   * Remove the oldest items of one group at once; nothing to ack. At most once: what is in a lost reply is gone.
   *
   * @param {number} [size]
   * @param {{ group?: string | Buffer }} [options]
   * @returns {Promise<T[]>}
   */
  async pop(size = 2000, { group = 'default' } = {}) {
    const raw = await this.call('pop', { group, size });
    return this.#decode(raw, raw);
  }

  /**
   * Remove the oldest items of the groups that have waited longest, then of the longest ones, as `pop` does.
   *
   * @param {number} [groups]
   * @param {number} [size]
   * @returns {Promise<Map<string | Buffer, T[]>>}
   */
  async popLongest(groups = 2, size = 2000) {
    /** @type {[Buffer, Buffer[]][]} */
    const raw = await this.call('pop_longest', { count: groups, size });
    return new Map(raw.map(([group, items]) => [nameOf(group), this.#decode(items, raw)]));
  }

  /**
   * Name the longest groups, longest first, with their lengths.
   *
   * @param {number} [limit]
   * @returns {Promise<Map<string | Buffer, number>>}
   */
  async groups(limit = 100) {
    const found = new Map();
    for (let cursor = 0, flat; ; ) {
      const values = { state: 'waiting', limit: Math.min(limit - found.size, this.limit('groups', 'limit')), cursor };
      [cursor, flat] = await this.call('groups', values);
      for (const [group, length] of pairs(flat)) found.set(nameOf(group), Number(length));
      if (cursor === 0 || found.size >= limit) return found;
    }
  }

  /**
   * Give a page of dead letters, the earliest first, `limit` at most. Go on after the last one's id, until none come.
   *
   * @param {{ limit?: number, after?: string }} [options]
   * @returns {Promise<import('./queue.js').Batch<T>[]>}
   */
  async dead({ limit = 100, after = '' } = {}) {
    /** @type {any[][]} */
    const page = await this.call('batches', { state: 'dead', limit, after });
    return page.map(([id, time, group, attempts, holder, reason, items]) =>
      this.#batch(String(id), time, group, attempts, reason, items, String(holder)),
    );
  }

  /**
   * Let the items of dead letters wait again, at the front of their group; give how many of these ids were dead.
   *
   * @param {string[]} ids
   * @param {{ token?: string }} [options]
   * @returns {Promise<number>}
   */
  async redrive(ids, { token = newId() } = {}) {
    let redriven = 0;
    for (let part = 0; ; part += 1) {
      // From the last on, so that in the end the first id's items come first.
      const chosen = ids.slice(-this.limit('redrive', 'id'));
      const [done, left] = await this.call('redrive', { once: `${token}:${part}`, id: chosen });
      redriven += done;
      ids = ids.slice(0, ids.length - chosen.length + left);
      if (ids.length === 0) return redriven;
    }
  }

  /**
   * Throw dead letters away; give how many of these ids were dead.
   *
   * @param {string[]} ids
   * @param {{ token?: string }} [options]
   * @returns {Promise<number>}
   */
  discard(ids, { token = newId() } = {}) {
    return this.call('discard', { once: token, id: ids });
  }

  /** Count: items that wait, batches that are out or dead, and what was done so far, in items. */
  async stats() {
    let [waiting, cursor, counted, rest] = [0, '0 0 0', 0, /** @type {any[]} */ ([])];
    while (String(cursor) !== '') {
      [cursor, counted, ...rest] = await this.call('stats', { cursor, limit: this.limit('stats', 'limit') });
      waiting += counted;
    }
    return { waiting, ...nameStats(STATS, rest) };
  }

  /**
   * @protected
   * @param {string} event
   * @param {any[]} rest
   * @param {string} id
   * @param {string} holder
   * @returns {Partial<import('./queue.js').Reserved<T>>}
   */
  readEvent(event, rest, id, holder) {
    if (event === 'none') return { retry: rest[0] };
    if (event === 'buried') {
      const [name, group, attempts, reason] = rest;
      return { buried: [{ name: String(name), group: nameOf(group), attempts, reason: String(reason) }] };
    }
    if (event !== 'batch') return {};
    const [deadline, group, attempts, reason, items] = rest;
    return { batch: this.#batch(id, deadline, group, attempts, reason, items, holder) };
  }

  /**
   * @param {string} id
   * @param {number} deadline
   * @param {Buffer} group
   * @param {number} attempts
   * @param {Buffer} reason
   * @param {Buffer[]} raw
   * @param {string} holder
   */
  #batch(id, deadline, group, attempts, reason, raw, holder) {
    const told = { attempts, reason: String(reason), holder, deadline, raw };
    const batch = { id, group: nameOf(group), items: raw, priorities: null, payloads: null, ...told };
    return { ...batch, items: this.#decode(raw, batch) };
  }

  /** @param {Buffer[]} items @param {any} raw */
  #decode(items, raw) {
    return items.map((item) => decode(this.#codec, item, raw));
  }
}
