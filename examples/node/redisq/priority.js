import { json, text } from './codecs.js';
import { InvalidArgument } from './errors.js';
import { Queue, decode, nameStats, newId, pairs } from './queue.js';

const PLACES = 10 ** 12; // fifo: score = (priority + 1024) * PLACES + place
const STATS = ['waiting', 'delayed', 'leased', 'dead', 'batches', 'due', 'nextExpiry'];

/** @typedef {'added' | 'raised' | 'changed' | 'kept'} Outcome @type {Record<string, Outcome>} */
const OUTCOMES = { A: 'added', R: 'raised', C: 'changed', K: 'kept' };

/**
 * A member with what is known of it. `attempts` counts the hand-overs, a pop included; `payload` is null where there is
 * none; `reason` says why it came back, or died; `time`, in a listing of such, is when it is due, or died, in ms.
 *
 * @template T
 * @typedef {{ member: T, priority: number, attempts: number, payload: any, reason: string, time?: number }} Item
 */

/**
 * The unique priority queue: the lowest priority leaves first, and a member that is pushed again keeps its lowest.
 * All times are in ms.
 *
 * @template [T=string]
 * @extends {Queue<T>}
 */
export class PriorityQueue extends Queue {
  #codec;
  #payloads;
  #order;

  /**
   * What all workers of a queue must agree on stands here, not in the calls.
   *
   * @param {import('./scripts.js').Scripts} scripts
   * @param {string} name
   * @param {import('./queue.js').Options & {
   *   order?: 'fifo' | 'score', codec?: import('./codecs.js').Codec<T>,
   *   payloadCodec?: import('./codecs.js').Codec<any>,
   * }} [options] order fifo: whole priorities from -1024 to 1023, equals in the order of their coming; score: any
   *   finite number, equals in byte order. codec: equal members must have equal bytes, so mind the order of keys
   */
  constructor(scripts, name, options = {}) {
    const { order = 'fifo', codec = /** @type {any} */ (text), payloadCodec = json } = options;
    super('priority', scripts, name, options, 1, { order });
    this.#codec = codec;
    this.#payloads = payloadCodec;
    this.#order = order;
  }

  /**
   * Add members with their priorities, at most `limit('push', 'item')`, none twice, and say of each: added, raised,
   * changed or kept.
   *
   * @param {Iterable<[member: T, priority: number, payload?: any]>} members a Map, or pairs, or all of them with a
   *   payload; null is none, and leaves the one that is kept with the member
   * @param {{ delay?: number, replace?: boolean, token?: string }} [options] replace: priority and delay become exactly
   *   these. token: an id of your own, to call again with when you cannot know whether the first call took effect
   * @returns {Promise<Outcome[]>}
   */
  async push(members, { delay = 0, replace = false, token = newId() } = {}) {
    const rows = [...members].map(([member, priority, payload = null]) => {
      const pair = [priority, this.#codec.encode(member)];
      return payload === null ? pair : [...pair, this.#payloads.encode(payload)];
    });
    const fields = rows[0]?.length ?? 2;
    if (rows.some((row) => row.length !== fields)) {
      throw new InvalidArgument('BADARG', 'give all members of a call a payload, or none');
    }
    const values = { how: replace ? 'set' : 'min', delay, fields, once: token, item: rows.flat() };
    const letters = await this.call('push', values);
    return Array.from(letters.toString(), (letter) => OUTCOMES[letter]);
  }

  /**
   * Remove the most urgent members at once; nothing to ack. At most once: what is in a lost reply is gone.
   *
   * @param {number} [count]
   * @returns {Promise<Item<T>[]>}
   */
  async pop(count = 1) {
    const [, ...found] = await this.call('pop', { count });
    return this.#decode(this.#items(found, 1));
  }

  /**
   * Show the members that would leave next, and take none.
   *
   * @param {number} [count]
   * @param {{ after?: number }} [options] after: how many to pass over
   * @returns {Promise<Item<T>[]>}
   */
  async peek(count = 1, { after = 0 } = {}) {
    const found = await this.call('members', { state: 'ready', limit: count, start: after, after: [] });
    return this.#decode(this.#items(found, 0));
  }

  /**
   * Give a page of batches that are out, the first to run out first, `limit` at most. Go on after the last one's id,
   * until none come.
   *
   * @param {{ limit?: number, after?: string }} [options]
   * @returns {Promise<import('./queue.js').Batch<T>[]>}
   */
  async leased({ limit = 100, after = '' } = {}) {
    /** @type {any[][]} */
    const page = await this.call('batches', { limit, after });
    return page.map(([id, deadline, holder, ...found]) =>
      this.#batch(String(id), deadline, this.#items(found, 1), String(holder)),
    );
  }

  /**
   * Give a page of members that wait for their time, the first to be due first, `limit` at most. Go on after the last
   * one, until none come.
   *
   * @param {{ limit?: number, after?: T }} [options]
   */
  delayed(options) {
    return this.#members('delayed', options);
  }

  /**
   * Give a page of dead members, as `delayed` does, the earliest first.
   *
   * @param {{ limit?: number, after?: T }} [options]
   */
  dead(options) {
    return this.#members('dead', options);
  }

  /**
   * Let dead members be ready again, at their old place; give how many of them were dead.
   *
   * @param {T[]} members
   * @param {{ token?: string }} [options]
   * @returns {Promise<number>}
   */
  redrive(members, options) {
    return this.#byMember('redrive', members, options);
  }

  /**
   * Throw dead members away; give how many of them were dead.
   *
   * @param {T[]} members
   * @param {{ token?: string }} [options]
   * @returns {Promise<number>}
   */
  discard(members, options) {
    return this.#byMember('discard', members, options);
  }

  /**
   * Take members out, whatever their state; give how many were there.
   *
   * @param {T[]} members
   * @param {{ token?: string }} [options]
   * @returns {Promise<number>}
   */
  remove(members, options) {
    return this.#byMember('remove', members, options);
  }

  /** Count: members in each state, leases, and what was done so far. */
  async stats() {
    return nameStats(STATS, await this.call('stats'));
  }

  /**
   * @param {string} state
   * @param {{ limit?: number, after?: T }} [options]
   * @returns {Promise<Item<T>[]>}
   */
  async #members(state, { limit = 100, after } = {}) {
    const last = after === undefined ? [] : [this.#codec.encode(after)];
    const found = await this.call('members', { state, limit, start: 0, after: last });
    return this.#decode(this.#items(found, 0, true));
  }

  /**
   * @param {string} verb
   * @param {T[]} members
   * @param {{ token?: string }} [options]
   * @returns {Promise<number>}
   */
  async #byMember(verb, members, { token = newId() } = {}) {
    return this.call(verb, { once: token, member: members.map((member) => this.#codec.encode(member)) });
  }

  /**
   * @protected
   * @param {number[]} places
   * @param {string} reason
   */
  failures(places, reason) {
    return { failed: places.flatMap((place) => [place, reason]) };
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
    if (event === 'none') return { retry: rest[0], buried: this.#buried(rest[1]) };
    if (event !== 'batch') return {};
    const [deadline, flat, rows, payloads, buried] = rest;
    const found = this.#items([flat, rows, payloads], 1);
    return { batch: this.#batch(id, deadline, found, holder), buried: this.#buried(buried) };
  }

  /**
   * What died is among the dead, whatever its bytes: a member that cannot be decoded is named by them.
   *
   * @param {Buffer[]} members
   * @returns {import('./queue.js').Buried[]}
   */
  #buried(members) {
    return members.map((member) => {
      try {
        return { name: this.#codec.decode(member) };
      } catch {
        return { name: member };
      }
    });
  }

  /**
   * @param {string} id
   * @param {number} deadline
   * @param {Item<Buffer>[]} found
   * @param {string} holder
   * @returns {import('./queue.js').Batch<T>}
   */
  #batch(id, deadline, found, holder) {
    const raw = found.map(({ member }) => member);
    const attempts = Math.max(1, ...found.map((item) => item.attempts));
    const reason = found.map((item) => item.reason).find((one) => one !== '') ?? '';
    const priorities = found.map(({ priority }) => priority);
    const batch = { id, group: null, priorities, attempts, reason, holder, deadline, raw };
    const items = this.#decode(found, { ...batch, items: raw, payloads: found.map(({ payload }) => payload) });
    return { ...batch, items: items.map(({ member }) => member), payloads: items.map(({ payload }) => payload) };
  }

  /**
   * Read members with their numbers, rows ("score attempts reason") and payloads; the last two lists are empty where
   * nothing is known of any. A row's attempts are those before this hand-over. In a listing by time the number is a
   * time, and the score is in the row.
   *
   * @param {any[]} found
   * @param {number} handedOut
   * @param {boolean} [timed]
   * @returns {Item<Buffer>[]}
   */
  #items([flat, rows, payloads], handedOut, timed = false) {
    return pairs(flat).map(([member, number], i) => {
      const [, score = '0', attempts = '0', reason = ''] = String(rows[i] ?? '').match(/^(\S+) (\d+) (.*)$/s) ?? [];
      const item = {
        member,
        priority: this.#priority(Number(timed ? score : number)),
        attempts: Number(attempts) + handedOut,
        payload: payloads[i] ?? null,
        reason,
      };
      return timed ? { ...item, time: Number(number) } : item;
    });
  }

  /** @param {Item<Buffer>[]} items @param {any} [raw] @returns {Item<T>[]} */
  #decode(items, raw = items) {
    return items.map((item) => ({
      ...item,
      member: decode(this.#codec, item.member, raw),
      payload: item.payload && decode(this.#payloads, item.payload, raw),
    }));
  }

  /** @param {number} score */
  #priority(score) {
    return this.#order === 'fifo' ? Math.floor(score / PLACES) - 1024 : score;
  }
}
