/**
 * Push to a queue that Ruby and Python push to, or work on it beside them: what `tests/languages/test_interop.py` starts and
 * kills.
 *
 *     node interop.js [--client ioredis|node-redis] SOCKET QUEUE buffer|priority push|work|pause|resume|wait COUNT SEED
 *
 * A worker writes `BEGIN <items>` before it acks these and `DONE <how many>` after it, and goes on until its input
 * ends. Who waits writes why the queue is paused, waits for a batch, woken by nothing but a wake-up, and writes its
 * items.
 */

import assert from 'node:assert/strict';
import { writeSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { connect } from './connect.js';
import { sender } from './redisq/client.js';
import { GroupedBuffer, LeaseLost, PriorityQueue, Scripts } from './redisq/index.js';

const LEASE = 2_000;
const WINDOW = 600_000; // longer than a test runs: it reads there how each lease ended

/** Give numbers from 0 to 1, for one seed always the same (mulberry32). @param {number} seed */
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), seed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** @param {string} line */
function write(line) {
  writeSync(1, `${line}\n`); // not console.log: the line is out when this returns, whatever comes next
}

/** @param {GroupedBuffer | PriorityQueue} queue @param {number} count @param {() => number} next */
async function push(queue, count, next) {
  for (let first = 0; first < count; ) {
    const size = Math.min(1 + Math.floor(next() * 50), count - first);
    const numbers = Array.from({ length: size }, (_, i) => first + i);
    if (queue instanceof GroupedBuffer) {
      const items = numbers.map((n) => ({ from: 'node', n }));
      await queue.push(items, { group: `g${Math.floor(next() * 10)}` });
    } else {
      await queue.push(numbers.map((n) => [`node-${n}`, n % 7, { n }]));
    }
    first += size;
  }
}

/** @param {GroupedBuffer | PriorityQueue} queue @param {() => number} next @param {() => boolean} ended */
async function work(queue, next, ended) {
  while (!ended()) {
    const batch = await queue.reserve(1 + Math.floor(next() * 50), { timeout: 500 });
    if (!batch) continue;
    if (batch.payloads) {
      assert.deepEqual(batch.payloads, batch.items.map((member) => ({ n: Number(member.split('-')[1]) })));
    }
    const chance = next();
    if (chance < 0.1) {
      await settled(queue.release(batch, { count: chance < 0.05, reason: 'node' }));
    } else if (chance >= 0.15) {
      const failed = chance < 0.25 && batch.items.length > 1 ? [0] : [];
      write(`BEGIN ${JSON.stringify(batch.items.slice(failed.length))}`);
      write(`DONE ${await settled(queue.ack(batch, { failed, reason: 'node' }))}`);
    } // else it is left to its lease, as if this worker had died
  }
}

/** @param {GroupedBuffer | PriorityQueue} queue */
async function wait(queue) {
  write((await queue.stats()).pauseReason);
  const batch = await queue.reserve(1, { timeout: 60_000 });
  write(JSON.stringify(batch.items));
}

/** Give a client whose waits nothing but a wake-up ends. @param {import('./redisq/client.js').Client} client */
function sleeping(client) {
  const send = sender(client);
  return {
    /** @param {string} command @param {string} key */
    callBuffer: async (command, key) => (await send([command, key, '60'])) ?? assert.fail('no wake-up came'),
  };
}

/**
 * Wait for how many items were settled: none, if this process was stopped for longer than the lease.
 *
 * @param {Promise<number>} answer
 */
async function settled(answer) {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof LeaseLost) return 0;
    throw error;
  }
}

const { values, positionals } = parseArgs({ options: { client: { type: 'string' } }, allowPositionals: true });
const [socket, name, structure, role, count, seed] = positionals;
const client = await connect(values.client ?? 'ioredis', socket);
const blocking = await connect(values.client ?? 'ioredis', socket);
const Class = structure === 'buffer' ? GroupedBuffer : PriorityQueue;
const waits = role === 'wait' ? sleeping(blocking) : blocking;
const queue = new Class(new Scripts(client), name, { lease: LEASE, window: WINDOW, blocking: waits });

if (role === 'push') await push(queue, Number(count), random(Number(seed)));
else if (role === 'pause') await queue.pause(null, { reason: 'node: é' });
else if (role === 'resume') write(String(await queue.resume()));
else if (role === 'wait') await wait(queue);
else {
  let ended = false;
  process.stdin.on('end', () => (ended = true)).resume();
  await work(queue, random(Number(seed)), () => ended);
}
client.close();
blocking.close();
