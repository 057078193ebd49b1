/** The classes through both clients, on the server whose socket REDISQ_SOCKET names. It is emptied. */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { connect as open, createServer } from 'node:net';
import { hostname, tmpdir } from 'node:os';
import { after, afterEach, before, beforeEach, describe, mock, test } from 'node:test';
import { CLIENTS, connect } from './connect.js';
import { sender } from './redisq/client.js';
import * as redisq from './redisq/index.js';
import { GroupedBuffer, LeaseLost, PriorityQueue, Scripts } from './redisq/index.js';
import { newId } from './redisq/queue.js';

const SOCKET = process.env.REDISQ_SOCKET ?? assert.fail('set REDISQ_SOCKET to the path of a server\'s unix socket');

/** Stand between a client and the server, and break the connection in the place of one reply. */
class Proxy {
  #server = createServer((client) => {
    const server = open(SOCKET);
    client.pipe(server);
    server.on('data', (reply) => {
      if (this.#cutting && !reply.toString('latin1').startsWith('-NOSCRIPT')) {
        this.#cutting = false;
        server.destroy();
        client.destroy();
      } else {
        client.write(reply);
      }
    });
    for (const [one, other] of [[client, server], [server, client]]) {
      one.on('close', () => other.destroy()).on('error', () => {});
    }
  });
  #cutting = false;

  async start() {
    this.directory = await mkdtemp(`${tmpdir()}/redisq-`);
    this.path = `${this.directory}/proxy.sock`;
    await new Promise((listening) => this.#server.listen(this.path, listening));
  }

  /** Lose the next reply, NOSCRIPT apart: what it answers has been done. */
  cut() {
    this.#cutting = true;
  }

  get cutting() {
    return this.#cutting;
  }

  async stop() {
    this.#server.close();
    await rm(this.directory, { recursive: true });
  }
}

const proxy = new Proxy();
before(() => proxy.start());
after(() => proxy.stop());

test('ids come from the operating system', () => {
  const read = mock.method(fs, 'readSync', (file, bytes) => bytes.fill(0xab).length);
  const open = mock.method(fs, 'openSync');
  syncBuiltinESMExports();
  try {
    assert.equal(newId(), 'ab'.repeat(16));
    assert.deepEqual(open.mock.calls.map((call) => call.arguments[0]), ['/dev/urandom']);
  } finally {
    read.mock.restore();
    open.mock.restore();
    syncBuiltinESMExports();
  }
  assert.notEqual(newId(), newId());
});

/**
 * Give a client whose waits nothing but a wake-up ends, however long they were to be.
 *
 * @param {any} client
 */
function sleeping(client) {
  const send = sender(client);
  return {
    async callBuffer(command, key) {
      return (await send([command, key, '30'])) ?? assert.fail('no wake-up came');
    },
  };
}

for (const name of CLIENTS) {
  describe(name, () => {
    /** @type {any[]} */
    let clients;
    let send;
    let scripts;

    /** @param {string} path */
    async function client(path = SOCKET) {
      clients.push(await connect(name, path));
      return clients.at(-1);
    }

    beforeEach(async () => {
      clients = [];
      const direct = await client();
      send = sender(direct);
      scripts = new Scripts(direct);
      await send(['FLUSHALL']);
      await send(['SCRIPT', 'FLUSH']); // so that every first call meets NOSCRIPT
    });
    afterEach(() => clients.forEach((one) => one.close()));

    /** Wait until a client is blocked. */
    async function blocked() {
      while (!/^blocked_clients:1\r$/m.test(String(await send(['INFO', 'clients']))));
    }

    /** Give the scripts through a connection that can break. */
    async function breakable() {
      const far = await client(proxy.path);
      await sender(far)(['PING']); // it has said all that it says by itself
      return new Scripts(far);
    }

    test('a buffer hands out the longest group, and takes back what failed', async () => {
      const buffer = new GroupedBuffer(scripts, 'q');
      assert.equal(await buffer.push([{ n: 1 }, { n: 2 }, { n: 3 }], { group: 'eu' }), 3);
      assert.equal(await buffer.push([{ n: 4 }], { group: 'us' }), 1);
      assert.deepEqual([...(await buffer.groups())], [['eu', 3], ['us', 1]]);

      const batch = await buffer.reserve(2);
      assert.deepEqual([batch.group, batch.items, batch.attempts], ['eu', [{ n: 1 }, { n: 2 }], 1]);
      assert.ok((await buffer.extend(batch, 90_000)) > batch.deadline);
      assert.equal(await buffer.ack(batch, { failed: [1] }), 1);
      await assert.rejects(buffer.release(batch), (error) => error instanceof LeaseLost && error.code === 'LEASELOST');

      const again = await buffer.reserve(2);
      assert.deepEqual([again.items, again.attempts], [[{ n: 2 }], 2]);
      assert.equal(await buffer.release(again, { delay: 60_000 }), 1);
      assert.equal(await buffer.push([{ n: 0 }], { group: 'us', front: true }), 2);
      assert.deepEqual([...(await buffer.popLongest(1))], [['us', [{ n: 0 }, { n: 4 }]]]);
      assert.deepEqual(await buffer.pop(10, { group: 'eu' }), [{ n: 3 }]);
      assert.equal(await buffer.reserve(), null);
    });

    test('a batch says why it came back, and who holds it', async () => {
      const buffer = new GroupedBuffer(scripts, 'q');
      await buffer.push([1, 2]);
      const batch = await buffer.reserve(1);
      assert.deepEqual([batch.reason, batch.holder], ['', `${hostname()}:${process.pid}`]);
      await buffer.release(batch, { reason: 'déjà vu' });
      const again = await buffer.reserve(1, { holder: 'me' });
      assert.deepEqual([again.reason, again.holder, again.attempts], ['déjà vu', 'me', 2]);
      await buffer.release(again, { count: false });
      const last = await buffer.reserve(1);
      assert.deepEqual([last.reason, last.attempts], ['déjà vu', 2]);
      await buffer.push([3, 4], { front: true });
      await buffer.release(last);
      await buffer.ack(await buffer.reserve(1));
      const three = await buffer.reserve(3);
      await buffer.ack(three, { failed: [2, 0, 2], reason: 'bad' });
      const failed = await buffer.reserve(1);
      assert.deepEqual([failed.items, failed.reason], [[3, 2], 'bad']);
    });

    test('each event of a reserve', async () => {
      const buffer = new GroupedBuffer(scripts, 'q', { maxAttempts: 1 });
      await buffer.push([1, 2]);
      const { batch, ...rest } = await buffer.reserveOnce(1, { id: 'a' });
      assert.deepEqual([batch.items, rest], [[1], { retry: 0, buried: [], ended: false }]);
      await buffer.release(batch, { reason: 'no' });
      const dead = { name: 'a', group: 'default', attempts: 1, reason: 'no' };
      assert.deepEqual(await buffer.reserveOnce(), { batch: null, retry: 0, buried: [dead], ended: false });
      await buffer.reserveOnce();
      const none = await buffer.reserveOnce(1, { lease: 500 }); // never later than a lease of this length would end
      assert.deepEqual(none, { batch: null, retry: 500, buried: [], ended: false });
      assert.deepEqual(await buffer.reserveOnce(1, { id: 'a' }), { batch: null, retry: 0, buried: [], ended: true });
      assert.equal(await buffer.reserve(1, { id: 'a' }), null);
    });

    test('a burial is told of, and the next batch comes at once', async () => {
      const told = [];
      const buffer = new GroupedBuffer(scripts, 'q', { maxAttempts: 1, onBuried: ({ name }) => told.push(name) });
      await buffer.push([1, 2]);
      await buffer.release(await buffer.reserve(1, { id: 'a' }));
      assert.deepEqual((await buffer.reserve()).items, [2]);
      assert.deepEqual(told, ['a']);
    });

    test('dead letters of a buffer', async () => {
      const buffer = new GroupedBuffer(scripts, 'q');
      await buffer.push([1, 2, 3]);
      const ids = ['a', 'b', 'c'];
      const started = Date.now();
      for (const id of ids) await buffer.bury(await buffer.reserve(1, { id }), { reason: `${id}!` });
      const page = await buffer.dead({ limit: 2 });
      assert.deepEqual(page.map(({ id, items, reason }) => [id, items, reason]), [['a', [1], 'a!'], ['b', [2], 'b!']]);
      assert.equal(page[0].holder, `${hostname()}:${process.pid}`);
      assert.ok(started <= page[0].deadline && page[0].deadline <= Date.now());
      assert.deepEqual((await buffer.dead({ after: 'b' })).map(({ id }) => id), ['c']);
      assert.equal(await buffer.discard(['b', 'none']), 1);
      assert.equal(await buffer.redrive(['c', 'a', 'b']), 2);
      assert.deepEqual(await buffer.pop(), [3, 1]);
      assert.deepEqual(await buffer.dead(), []);
    });

    test('any number of groups and dead letters', async () => {
      const buffer = new GroupedBuffer(scripts, 'q');
      const ids = Array.from({ length: 600 }, (_, i) => String(i));
      await buffer.push(ids);
      for (const id of ids) await buffer.bury(await buffer.reserve(1, { id }));
      assert.equal(await buffer.redrive(ids), 600);
      assert.deepEqual(await buffer.pop(), ids);
      const [most, large] = [buffer.limit('reserve', 'size'), ['a', 'b', 'c', 'd']];
      for (const id of large) {
        await buffer.push(Array(most).fill(id));
        await buffer.bury(await buffer.reserve(most, { id }));
      }
      assert.equal(await buffer.redrive(large), 4); // more items than one call takes
      for (const id of large) assert.deepEqual([...new Set(await buffer.pop(most))], [id]);
      await Promise.all(Array.from({ length: 2_100 }, (_, i) => buffer.push([1], { group: `g${i}` })));
      assert.equal((await buffer.groups(3_000)).size, 2_100);
      assert.equal((await buffer.groups(1_500)).size, 1_500);
      assert.equal((await buffer.stats()).waiting, 2_100);
    });

    test('what a buffer holds is counted', async () => {
      const buffer = new GroupedBuffer(scripts, 'q');
      const started = Date.now();
      await buffer.push([1, 2, 3, 4]);
      await buffer.bury(await buffer.reserve(1));
      await buffer.ack(await buffer.reserve(1));
      const batch = await buffer.reserve(1);
      const { oldestWait, ...stats } = await buffer.stats();
      assert.deepEqual(stats, {
        waiting: 1, groups: 1, busyGroups: 0, pausedGroups: 0, leased: 1, delayed: 0, dead: 1, due: 0,
        nextExpiry: batch.deadline, done: 1, failed: 0, buried: 1, trimmed: 0,
        paused: false, pauseReason: '', pausedUntil: null,
      });
      assert.ok(0 <= oldestWait && oldestWait <= Date.now() - started);
      const empty = await new GroupedBuffer(scripts, 'r').stats();
      assert.deepEqual([empty.oldestWait, empty.nextExpiry], [null, null]);
    });

    test('what the constructor says is sent', async () => {
      const ordered = new GroupedBuffer(scripts, 'o', { ordered: true });
      await ordered.push([1, 2]);
      const first = await ordered.reserve(1);
      assert.equal(await ordered.reserve(1), null);
      await ordered.ack(first);
      assert.deepEqual((await ordered.reserve(1)).items, [2]);
      const isolating = new GroupedBuffer(scripts, 'i', { maxAttempts: 1, isolate: true });
      await isolating.push([1, 2]);
      await isolating.release(await isolating.reserve());
      assert.deepEqual((await isolating.reserve()).items, [1]);
      const capped = new GroupedBuffer(scripts, 'c', { maxDead: 1 });
      await capped.push([1, 2]);
      for (let i = 0; i < 2; i++) await capped.bury(await capped.reserve(1));
      assert.deepEqual((await capped.dead()).map(({ items }) => items), [[2]]);
      const slow = new GroupedBuffer(scripts, 's', { minSize: 2, rates: [[1, 3_600_000], [5, 90_000]] });
      await slow.push([1]);
      assert.equal(await slow.reserve(), null);
      await slow.push(['22', '33']);
      assert.deepEqual((await slow.reserve(3, { maxBytes: 6 })).items, [1, '22']);
      await slow.push([4]);
      assert.ok((await slow.reserveOnce()).retry > 60_000); // the rate: more than a lease
    });

    test('any other script, by the names in its header', async () => {
      const buffer = new GroupedBuffer(scripts, 'q');
      await buffer.push([1, 2]);
      assert.deepEqual(await buffer.call('purge', { limit: 10, cursor: 0 }), [-1, 2]);
      await assert.rejects(buffer.call('purge', { limit: 10 }), /buffer\/purge needs cursor/);
    });

    test('nothing leaves a queue that is paused', async () => {
      const [buffer, queue] = [new GroupedBuffer(scripts, 'q'), new PriorityQueue(scripts, 'p')];
      await buffer.push([1, 2]);
      await queue.push([['a', 1], ['b', 2]]);
      for (const [paused, more] of [[buffer, [3]], [queue, [['c', 1]]]]) {
        const batch = await paused.reserve(1);
        assert.equal(await paused.pause(null, { reason: 'déjà vu' }), undefined);
        const stats = await paused.stats();
        assert.deepEqual([stats.paused, stats.pauseReason, stats.pausedUntil], [true, 'déjà vu', null]);
        assert.deepEqual([await paused.reserve(), await paused.pop()], [null, []]);
        assert.ok(await paused.push(more));
        assert.equal(await paused.ack(batch), 1);
        assert.deepEqual([await paused.resume(), await paused.resume()], [true, false]);
        assert.equal((await paused.reserve(5)).items.length, 2);
        const before = Date.now();
        await paused.pause(60_000);
        const { pausedUntil } = await paused.stats();
        assert.ok(before + 60_000 <= pausedUntil && pausedUntil <= Date.now() + 60_000);
        await assert.rejects(paused.pause(0.1), redisq.InvalidArgument); // the script would take 0 for no end
      }
      const waiting = new GroupedBuffer(scripts, 'q', { blocking: await client() });
      await waiting.pause(50); // the last one counts
      await waiting.push([4]);
      assert.deepEqual((await waiting.reserve(1, { timeout: 30_000 })).items, [4]);
    });

    test('a resume wakes a client that waits', async () => {
      const blocking = sleeping(await client());
      const [buffer, queue] = [
        new GroupedBuffer(scripts, 'q', { blocking }),
        new PriorityQueue(scripts, 'p', { blocking }),
      ];
      await buffer.pause();
      await buffer.push([1]);
      await queue.pause();
      await queue.push([['a', 1]]);
      await buffer.pauseGroup('eu');
      for (const [waiting, resume, items] of [
        [buffer, () => buffer.resume(), [1]],
        [queue, () => queue.resume(), ['a']],
        [buffer, () => buffer.resumeGroup('eu'), [2]],
      ]) {
        const batch = waiting.reserve(1, { timeout: 60_000 });
        await blocked();
        assert.ok(await resume());
        assert.deepEqual((await batch).items, items);
        await buffer.push([2], { group: 'eu' });
      }
    });

    test('a group that is paused gives no new batch', async () => {
      const buffer = new GroupedBuffer(scripts, 'q');
      const group = Buffer.from([0xff]);
      await buffer.push([1, 2], { group });
      await buffer.release(await buffer.reserve(1));
      await buffer.push([3], { group: 'us' });
      assert.equal(await buffer.pauseGroup(group), undefined);
      assert.deepEqual([...(await buffer.groups())], [['us', 1]]);
      assert.deepEqual([...(await buffer.groups(10, { state: 'paused' }))], [[group, 1]]);
      assert.deepEqual((await buffer.reserve()).items, [1]); // what was handed out is retried
      assert.deepEqual((await buffer.reserve()).items, [3]);
      assert.deepEqual([await buffer.reserve(), await buffer.pop(1, { group })], [null, []]);
      assert.deepEqual([await buffer.resumeGroup(group), await buffer.resumeGroup(group)], [true, false]);
      assert.deepEqual((await buffer.reserve()).items, [2]);
      const waiting = new GroupedBuffer(scripts, 'q', { blocking: await client() });
      await waiting.pauseGroup('eu', 50);
      await waiting.push([4], { group: 'eu' });
      assert.deepEqual((await waiting.reserve(1, { timeout: 30_000 })).items, [4]);
      await assert.rejects(buffer.pauseGroup('eu', 0), redisq.InvalidArgument);
      await Promise.all(Array.from({ length: 1_100 }, (_, i) => buffer.pauseGroup(`g${i}`)));
      await buffer.push([5], { group: 'g1050' });
      await buffer.push([6, 7], { group: 'g7' });
      assert.deepEqual([...(await buffer.groups(2, { state: 'paused' }))], [['g7', 2], ['g1050', 1]]);
      assert.equal((await buffer.groups(2_000, { state: 'paused' })).size, 1_100);
    });

    test('a group is dropped', async () => {
      const buffer = new GroupedBuffer(scripts, 'q');
      const group = Buffer.from([0xff]);
      await buffer.push(Array(605).fill(0), { group });
      for (let i = 0; i < 600; i++) await buffer.bury(await buffer.reserve(1));
      await buffer.release(await buffer.reserve(2), { delay: 60_000 });
      const batch = await buffer.reserve(1);
      await buffer.push([7], { group: 'us' });
      assert.equal(await buffer.dropGroup(group, { token: 'mine' }), 604); // more batches than one call looks at
      assert.equal(await buffer.dropGroup(group, { token: 'mine' }), 604);
      assert.equal(await buffer.ack(batch), 1);
      assert.equal(await buffer.dropGroup(group), 0);
      const { dead, delayed, waiting } = await buffer.stats();
      assert.deepEqual([dead, delayed, waiting], [0, 0, 1]);
    });

    test('what waits, is out, or waits for a retry is shown', async () => {
      const buffer = new GroupedBuffer(scripts, 'q');
      await buffer.push([1, 2, 3, 4]);
      assert.deepEqual([await buffer.peek(), await buffer.peek(2, { after: 1 })], [[1], [2, 3]]);
      assert.deepEqual(await buffer.peek(buffer.limit('peek', 'count'), { group: 'eu' }), []);
      const batch = await buffer.reserve(1, { id: 'a', lease: 10_000, holder: 'me' });
      await buffer.reserve(1, { id: 'b', lease: 20_000 });
      for (const [id, delay] of [['c', 50_000], ['d', 60_000]]) {
        await buffer.release(await buffer.reserve(1, { id, holder: 'me' }), { delay, reason: `${id}!` });
      }
      assert.deepEqual(await buffer.leased({ limit: 1 }), [batch]);
      const ids = (page) => page.map(({ id }) => id);
      assert.deepEqual(ids(await buffer.leased({ after: 'a' })), ['b']);
      assert.deepEqual(ids(await buffer.leased({ after: 'b' })), []);
      assert.deepEqual(ids(await buffer.delayed()), ['c', 'd']);
      const [{ items, attempts, reason, holder, deadline }] = await buffer.delayed({ after: 'c' });
      assert.deepEqual([items, attempts, reason, holder], [[4], 1, 'd!', 'me']);
      assert.ok(Math.abs(deadline - Date.now() - 60_000) < 10_000);
    });

    test('members in each state are shown', async () => {
      const queue = new PriorityQueue(scripts, 'q');
      await queue.push([['a', -3, 'p'], ['b', 7, 'q'], ['c', 9, 'r'], ['d', 9, 's']]);
      await queue.ack(await queue.reserve(2), { failed: [0], reason: 'no', delay: 60_000 });
      await queue.release(await queue.reserve());
      const batch = await queue.reserve(1, { id: 'l1', lease: 10_000, holder: 'me' });
      assert.deepEqual([batch.items, batch.attempts], [['c'], 2]);
      const d = { member: 'd', priority: 9, attempts: 0, payload: 's', reason: '' };
      assert.deepEqual([await queue.peek(), await queue.peek(5), await queue.peek(1, { after: 1 })], [[d], [d], []]);
      assert.deepEqual(await queue.leased(), [batch]);
      await queue.reserve(1, { id: 'l2', lease: 20_000 });
      const ids = (page) => page.map(({ id }) => id);
      assert.deepEqual(ids(await queue.leased({ limit: 1 })), ['l1']);
      assert.deepEqual(ids(await queue.leased({ after: 'l1' })), ['l2']);
      await send(['DEL', 'redisq:{q}:lease:l2']); // as a server does that evicts
      const [, { items, attempts, holder }] = await queue.leased();
      assert.deepEqual([items, attempts, holder], [[], 1, '']);
      await queue.push([['e', 5]], { delay: 90_000 });
      const [{ time, ...a }] = await queue.delayed({ limit: 1 });
      assert.deepEqual(a, { member: 'a', priority: -3, attempts: 1, payload: 'p', reason: 'no' });
      assert.ok(Math.abs(time - Date.now() - 60_000) < 10_000);
      assert.deepEqual((await queue.delayed({ after: 'a' })).map(({ member }) => member), ['e']);
    });

    test('the queues of a server', async () => {
      const direct = await client();
      assert.deepEqual(await redisq.queues(direct), []);
      await new GroupedBuffer(scripts, 'ö\n*').push([1]);
      for (const order of ['fifo', 'score']) await new PriorityQueue(scripts, order, { order }).push([['a', 1]]);
      await new GroupedBuffer(scripts, 'one', { prefix: 'é[b]*?\\' }).push([1]);
      await new GroupedBuffer(scripts, 'other', { prefix: 'ébxx' }).push([1]);
      await send(['SET', 'redisq:{text}:meta', 'x']);
      for (const odd of ['{more}:{braces}', '{}']) await send(['HSET', `redisq:${odd}:meta`, 'queue', '2 buffer']);
      await send(['HSET', 'redisq:{mine}:meta', 'queue', 'mine']);
      await send(['HSET', Buffer.from('redisq:{\xff}:meta', 'latin1'), 'queue', '3 buffer']);
      assert.deepEqual(await redisq.queues(direct), [
        { name: 'fifo', kind: 'fifo', layout: 2 },
        { name: 'score', kind: 'score', layout: 2 },
        { name: 'ö\n*', kind: 'buffer', layout: 2 },
        { name: Buffer.from([0xff]), kind: 'buffer', layout: 3 },
      ]);
      assert.deepEqual((await redisq.queues(direct, { prefix: 'é[b]*?\\' })).map((one) => one.name), ['one']);
      const marks = Array.from({ length: 2_500 }, (_, i) => ['HSET', `redisq:{q${i}}:meta`, 'queue', '2 buffer']);
      await Promise.all(marks.map((mark) => send(mark)));
      assert.equal((await redisq.queues(direct)).length, 2_504);
      const twice = [Buffer.from('0'), [1, 2].map(() => Buffer.from('redisq:{fifo}:meta'))]; // as a scan may give it
      const callBuffer = async (...words) => (words[0] === 'SCAN' ? twice : send(words));
      assert.deepEqual((await redisq.queues({ callBuffer })).map((one) => one.name), ['fifo']);
      await assert.rejects(redisq.queues(direct, { prefix: '{q}' }), redisq.InvalidArgument);
    });

    test('a priority queue keeps the lowest, and hands each member to one', async () => {
      const queue = new PriorityQueue(scripts, 'q');
      assert.deepEqual(await queue.push(new Map([['a', 10], ['b', 10], ['c', 10]])), ['added', 'added', 'added']);
      assert.deepEqual(await queue.push([['c', -1], ['a', 500]]), ['raised', 'kept']);

      const batch = await queue.reserve(2);
      assert.deepEqual([batch.items, batch.priorities, batch.attempts], [['c', 'a'], [-1, 10], 1]);
      assert.deepEqual(await queue.push([['a', 3]]), ['added']); // comes once more
      assert.ok((await queue.extend(batch, 90_000)) > batch.deadline);
      assert.equal(await queue.ack(batch), 2);
      await assert.rejects(queue.release(batch), LeaseLost);

      const bare = { attempts: 1, payload: null, reason: '' };
      assert.deepEqual(await queue.pop(), [{ member: 'a', priority: 3, ...bare }]);
      const last = await queue.reserve(5);
      assert.deepEqual(last.items, ['b']);
      assert.equal(await queue.release(last, { reason: 'no' }), 1);
      assert.deepEqual(await queue.pop(5), [{ member: 'b', priority: 10, attempts: 2, payload: null, reason: 'no' }]);

      const scores = new PriorityQueue(scripts, 's', { order: 'score' });
      await scores.push([['x', 0.1], ['y', -2.5e30]]);
      assert.deepEqual((await scores.reserve(2)).priorities, [-2.5e30, 0.1]);
    });

    test('members that failed come back, each with the reason', async () => {
      const queue = new PriorityQueue(scripts, 'q');
      await queue.push([['a', 1], ['b', 2], ['c', 3]]);
      const batch = await queue.reserve(3);
      assert.equal(await queue.ack(batch, { failed: [2, 0], reason: 'bad' }), 1);
      assert.equal(await queue.ack(batch, { failed: [2, 0], reason: 'bad' }), 1);
      const again = await queue.reserve(3);
      assert.deepEqual([again.items, again.attempts, again.reason], [['a', 'c'], 2, 'bad']);
      assert.equal(await queue.release(again, { count: false }), 2);
      assert.equal((await queue.reserve()).attempts, 2);
      assert.equal(await queue.remove(['a', 'c', 'd']), 2);
    });

    test('a payload stays with its member, and replace sets it anew', async () => {
      const queue = new PriorityQueue(scripts, 'q');
      assert.deepEqual(await queue.push([['a', 1, { v: 1 }], ['b', 2, '']]), ['added', 'added']);
      assert.deepEqual(await queue.push([['a', 5]]), ['kept']);
      await assert.rejects(queue.push([['c', 1], ['d', 2, 5], ['7', 3, 6]]), redisq.InvalidArgument);
      const batch = await queue.reserve(1);
      assert.deepEqual([batch.payloads, batch.priorities], [[{ v: 1 }], [1]]);
      await queue.release(batch);
      assert.deepEqual(await queue.push([['a', 9]], { replace: true }), ['changed']);
      const taken = await queue.pop(2);
      assert.deepEqual(taken.map(({ member, payload }) => [member, payload]), [['b', ''], ['a', { v: 1 }]]);
    });

    test('dead members, and the events of a reserve', async () => {
      const told = [];
      const onBuried = ({ name }) => told.push(name);
      const queue = new PriorityQueue(scripts, 'q', { maxAttempts: 1, onBuried });
      const started = Date.now();
      await queue.push([['a', -3, 'p'], ['b', 7, 'q']]);
      await queue.release(await queue.reserve(), { reason: 'no' });
      const { batch, ...rest } = await queue.reserveOnce();
      assert.deepEqual([batch.items, rest], [['b'], { retry: 0, buried: [{ name: 'a' }], ended: false }]);
      await queue.release(batch, { reason: 'no' });
      const none = { batch: null, retry: 500, buried: [{ name: 'b' }], ended: false };
      assert.deepEqual(await queue.reserveOnce(1, { lease: 500 }), none);
      const [{ time, ...first }] = await queue.dead();
      assert.deepEqual(first, { member: 'a', priority: -3, attempts: 1, payload: 'p', reason: 'no' });
      assert.ok(started <= time && time <= Date.now());
      const names = async (options) => (await queue.dead(options)).map(({ member }) => member);
      assert.deepEqual([await names({ after: 'a' }), await names({ limit: 1 })], [['b'], ['a']]);
      assert.deepEqual([await queue.redrive(['a', 'none']), await queue.discard(['b', 'a'])], [1, 1]);
      await queue.bury(await queue.reserve(1, { id: 'l' }), { reason: 'broken' });
      assert.equal((await queue.dead())[0].reason, 'broken');
      assert.ok((await queue.reserveOnce(1, { id: 'l' })).ended);
      await queue.redrive(['a']);
      await queue.release(await queue.reserve());
      assert.equal(await queue.reserve(), null);
      assert.deepEqual(told, ['a']);
      assert.deepEqual(await queue.stats(), {
        waiting: 0, delayed: 0, leased: 0, dead: 1, batches: 0, due: 0, nextExpiry: null, done: 0, failed: 3, buried: 4,
        trimmed: 0, paused: false, pauseReason: '', pausedUntil: null,
      });
    });

    test('what cannot be decoded is not lost', async () => {
      const bytes = new GroupedBuffer(scripts, 'q', { codec: redisq.bytes });
      const buffer = new GroupedBuffer(scripts, 'q');
      /** @type {any} */
      let raw;
      const caught = async (call) => {
        const error = await call.then(() => assert.fail(), (why) => why);
        assert.ok(error instanceof redisq.CodecError);
        raw = error.raw;
      };
      await bytes.push([Buffer.from('1'), Buffer.from('{')]);
      await caught(buffer.reserve());
      assert.deepEqual(raw.items.map(String), ['1', '{']);
      await buffer.release(raw);
      const members = new PriorityQueue(scripts, 'p', { codec: redisq.bytes });
      await members.push([[Buffer.from([0xff]), 1], [Buffer.from([0xfe]), 1]]);
      await caught(new PriorityQueue(scripts, 'p').pop());
      assert.deepEqual(raw[0].member, Buffer.from([0xff]));
      await members.release(await members.reserve());
      const { buried } = await new PriorityQueue(scripts, 'p', { maxAttempts: 1 }).reserveOnce();
      assert.deepEqual(buried, [{ name: Buffer.from([0xfe]) }]);
    });

    test('whole calls and odd bytes cross', async () => {
      const buffer = new GroupedBuffer(scripts, 'q', { codec: redisq.bytes });
      const group = Buffer.from([0xff, 0, 0x7d]);
      const most = buffer.limit('push', 'item');
      const items = Array.from({ length: most }, (_, i) => Buffer.from([i >> 8, i & 255]));
      assert.equal(await buffer.push(items, { group }), most);
      await assert.rejects(buffer.push([...items, items[0]]), redisq.InvalidArgument);
      assert.deepEqual([...(await buffer.groups()).keys()], [group]);
      const batch = await buffer.reserve(buffer.limit('reserve', 'size'));
      assert.deepEqual(batch.items, items.slice(0, batch.items.length));
      assert.ok(batch.items.length > 1_000);
    });

    test('a refusal is an error of its own class', async () => {
      const buffer = new GroupedBuffer(scripts, 'q');
      const refuses = (call, Class, code) =>
        assert.rejects(call, (error) => error instanceof Class && error.code === code);
      await refuses(buffer.reserve(0), redisq.InvalidArgument, 'BADARG');
      await refuses(buffer.reserve(1, { timeout: 1 }), redisq.InvalidArgument, 'BADARG'); // nothing to wait with
      await send(['HSET', 'redisq:{q}:meta', 'queue', '3 buffer']);
      await refuses(buffer.push([1]), redisq.WrongLayout, 'LAYOUT');
      await send(['SET', 'redisq:{t}:groups', 'text']);
      await refuses(new GroupedBuffer(scripts, 't').push([1]), redisq.WrongType, 'WRONGTYPE');
      await new PriorityQueue(scripts, 'p').push([['a', 1]]);
      await refuses(new PriorityQueue(scripts, 'p', { order: 'score' }).reserve(), redisq.WrongOrder, 'WRONGORDER');
      assert.throws(() => new GroupedBuffer(scripts, '{q}'), redisq.InvalidArgument);
      assert.throws(() => new GroupedBuffer(scripts, 'q', { prefix: '' }), redisq.InvalidArgument);
      assert.throws(() => redisq.text.encode('\ud800'), TypeError);
      assert.throws(() => redisq.text.decode(Buffer.from([0xff])), TypeError);
    });

    test('what is sent again when a reply is lost takes effect once', async () => {
      const far = await breakable();
      const buffer = new GroupedBuffer(far, 'q');
      proxy.cut();
      assert.equal(await buffer.push([1, 2]), 2);
      proxy.cut();
      const batch = await buffer.reserve(1);
      assert.deepEqual(batch.items, [1]);
      proxy.cut();
      assert.equal(await buffer.ack(batch), 1);
      const queue = new PriorityQueue(far, 'p');
      proxy.cut();
      assert.deepEqual(await queue.push([['a', 1]]), ['added']);
      for (const paused of [buffer, queue]) {
        await paused.pause();
        proxy.cut();
        assert.equal(await paused.resume(), true);
      }
      await buffer.pauseGroup('eu');
      proxy.cut();
      assert.equal(await buffer.resumeGroup('eu'), true);
      await buffer.push([3, 4], { group: 'eu' });
      proxy.cut();
      assert.equal(await buffer.dropGroup('eu'), 2);
      assert.ok(!proxy.cutting);

      const left = new GroupedBuffer(scripts, 'q');
      assert.deepEqual([...(await left.groups())], [['default', 1]]);
      assert.deepEqual((await left.reserve(10)).items, [2]);
    });

    test('a caller can send a call again by its own id', async () => {
      const buffer = new GroupedBuffer(scripts, 'q');
      assert.equal(await buffer.push([1], { token: 'mine' }), 1);
      assert.equal(await buffer.push([1], { token: 'mine' }), 1);
      assert.deepEqual((await buffer.reserve(10, { id: 'l' })).items, [1]);
      assert.deepEqual((await buffer.reserve(10, { id: 'l' })).items, [1]);
      assert.equal(await buffer.reserve(10), null);
    });

    test('a push wakes a client that waits', async () => {
      const impatient = new GroupedBuffer(scripts, 'q', { blocking: await client() });
      assert.equal(await impatient.reserve(1, { timeout: 10 }), null);
      const buffer = new GroupedBuffer(scripts, 'q', { blocking: sleeping(await client()) });
      const waiting = buffer.reserve(1, { timeout: 60_000 });
      await blocked();
      await buffer.push(['here']);
      assert.deepEqual((await waiting).items, ['here']);
      assert.equal(await send(['LLEN', 'redisq:{q}:wake']), 0); // it took the wake-up
    });

    const again = name === 'ioredis' && 'ioredis sends it again';
    test('a pop whose reply is lost is not sent again', { skip: again }, async () => {
      const buffer = new GroupedBuffer(scripts, 'q');
      await buffer.push([1, 2]);
      const far = new GroupedBuffer(await breakable(), 'q');
      proxy.cut();
      await assert.rejects(far.pop(1));
      assert.deepEqual(await buffer.pop(), [2]);
    });
  });
}
