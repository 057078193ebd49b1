import { json } from './codecs.js';
import { Queue, decode, nameOf, nameStats, newId, pairs, pauseLength } from './queue.js';

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
   * Show items that wait in a group, oldest first, and take none.
   *
   * @param {number} [count]
   * @param {{ group?: string | Buffer, after?: number }} [options] after: how many of the oldest to pass over
   * @returns {Promise<T[]>}
   */
  async peek(count = 1, { group = 'default', after = 0 } = {}) {
    const raw = await this.call('peek', { group, start: after, count });
    return this.#decode(raw, raw);
  }

  /**
   * Name groups with their lengths, longest first.
   *
   * @param {number} [limit]
   * @param {{ state?: 'waiting' | 'busy' | 'paused' }} [options]
   * @returns {Promise<Map<string | Buffer, number>>}
   */
  async groups(limit = 100, { state = 'waiting' } = {}) {
    /** @type {Map<string, [string | Buffer, number]>} */
    const found = new Map(); // a page may name a busy group once more
    for (let cursor = 0, flat; ; ) {
      const values = { state, limit: Math.min(limit, this.limit('groups', 'limit')), cursor };
      [cursor, flat] = await this.call('groups', values);
      for (const [group, size] of pairs(flat)) found.set(group.toString('latin1'), [nameOf(group), Number(size)]);
      if (cursor === 0 || (state === 'waiting' && found.size >= limit)) break; // the others come in no order
    }
    return new Map([...found.values()].sort(([, one], [, other]) => other - one).slice(0, limit));
  }

  /**
   * Give no new batch of a group, until `resumeGroup`, or for so many ms. What was handed out is still retried.
   *
   * @param {string | Buffer} group
   * @param {number | null} [duration]
   * @param {{ token?: string }} [options]
   * @returns {Promise<void>}
   */
  async pauseGroup(group, duration = null, { token = newId() } = {}) {
    await this.call('pause_group', { group, once: token, duration: pauseLength(duration) });
  }

  /**
   * End the pause of a group, wake a worker that waits, and say whether there was one.
   *
   * @param {string | Buffer} group
   * @param {{ token?: string }} [options]
   */
  async resumeGroup(group, { token = newId() } = {}) {
    return (await this.call('resume_group', { group, once: token })) === 1;
  }

  /**
   * Throw away what waits in a group and its delayed and dead batches, and give how many items that is. What is leased,
   * or pushed meanwhile, stays. When it is stopped half-way, the same call drops the rest.
   *
   * @param {string | Buffer} group
   * @param {{ token?: string }} [options]
   * @returns {Promise<number>}
   */
  async dropGroup(group, { token = newId() } = {}) {
    let [cursor, dropped] = ['0 0', 0];
    for (let page = 0; cursor !== ''; page += 1) {
      const values = { group, once: `${token}:${page}`, cursor, limit: this.limit('drop_group', 'limit') };
      const [following, items] = await this.call('drop_group', values);
      [cursor, dropped] = [String(following), dropped + items];
    }
    return dropped;
  }

  /**
   * Give a page of batches that are out, the first to run out first, `limit` at most. Go on after the last one's id,
   * until none come.
   *
   * @param {{ limit?: number, after?: string }} [options]
   */
  leased(options) {
    return this.#batches('leases', options);
  }

  /**
   * Give a page of batches that wait for a retry, as `leased` does, the first to be due first.
   *
   * @param {{ limit?: number, after?: string }} [options]
   */
  delayed(options) {
    return this.#batches('delayed', options);
  }

  /**
   * Give a page of dead letters, as `leased` does, the earliest first.
   *
   * @param {{ limit?: number, after?: string }} [options]
   */
  dead(options) {
    return this.#batches('dead', options);
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
   * @param {string} state
   * @param {{ limit?: number, after?: string }} [options]
   * @returns {Promise<import('./queue.js').Batch<T>[]>}
   */
  async #batches(state, { limit = 100, after = '' } = {}) {
    /** @type {any[][]} */
    const page = await this.call('batches', { state, limit, after });
    return page.map(([id, time, group, attempts, holder, reason, items]) =>
      this.#batch(String(id), time, group, attempts, reason, items, String(holder)),
    );
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
