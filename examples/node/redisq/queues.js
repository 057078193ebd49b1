/** All queues of a server: their marks, found by a scan that does not hold it up. */

import { sender } from './client.js';
import { checkName, nameOf } from './queue.js';

/**
 * A queue as it was found. `kind` is that of its structure: a buffer, or a priority queue by its order.
 *
 * @typedef {{ name: string | Buffer, kind: 'buffer' | 'fifo' | 'score', layout: number }} QueueInfo
 */

/**
 * Find the queues of a server, by name; one that was emptied for seven days more. Of a cluster ask each master.
 *
 * @param {import('./client.js').Client} client
 * @param {{ prefix?: string }} [options]
 * @returns {Promise<QueueInfo[]>}
 */
export async function queues(client, { prefix = 'redisq' } = {}) {
  checkName(prefix);
  const send = sender(client);
  const pattern = `${prefix.replace(/[*?[\]\\]/g, '\\$&')}:{*}:meta`;
  const keys = new Map(); // a scan may give a key twice
  let cursor = '0';
  do {
    const [following, page] = await send(['SCAN', cursor, 'MATCH', pattern, 'COUNT', '1000', 'TYPE', 'hash']);
    for (const key of page) keys.set(key.toString('latin1'), key);
    cursor = String(following);
  } while (cursor !== '0');
  const sorted = [...keys.values()].sort(Buffer.compare);
  const marks = await Promise.all(sorted.map((key) => send(['HGET', key, 'queue'])));
  const [before, after] = [Buffer.byteLength(`${prefix}:{`), '}:meta'.length];
  return sorted.flatMap((key, i) => {
    const name = key.subarray(before, key.length - after);
    const [, layout, kind] = String(marks[i]).match(/^(\d+) (buffer|fifo|score)$/) ?? [];
    if (!layout || !/^[^{}]+$/.test(String(name))) return [];
    return [{ name: nameOf(name), kind: /** @type {QueueInfo['kind']} */ (kind), layout: Number(layout) }];
  });
}
