/** The classes through both clients, on the server whose socket REDISQ_SOCKET names. It is emptied. */

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect as open, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { CLIENTS, connect } from './connect.js';
import { sender } from './redisq/client.js';
import * as redisq from './redisq/index.js';
import { GroupedBuffer, LeaseLost, PriorityQueue, Scripts } from './redisq/index.js';

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
      assert.deepEqual([...(await buffer.longestGroups())], [['eu', 3], ['us', 1]]);

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

      assert.deepEqual(await queue.pop(), [{ member: 'a', priority: 3, attempts: 1 }]);
      const last = await queue.reserve(5);
      assert.deepEqual(last.items, ['b']);
      assert.equal(await queue.release(last), 1);
      assert.deepEqual(await queue.pop(5), [{ member: 'b', priority: 10, attempts: 2 }]);

      const scores = new PriorityQueue(scripts, 's', { order: 'score' });
      await scores.push([['x', 0.1], ['y', -2.5e30]]);
      assert.deepEqual((await scores.reserve(2)).priorities, [-2.5e30, 0.1]);
    });

    test('whole calls and odd bytes cross', async () => {
      const buffer = new GroupedBuffer(scripts, 'q', { codec: redisq.bytes });
      const group = Buffer.from([0xff, 0, 0x7d]);
      const items = Array.from({ length: 10_000 }, (_, i) => Buffer.from([i >> 8, i & 255]));
      assert.equal(await buffer.push(items, { group }), 10_000);
      assert.deepEqual([...(await buffer.longestGroups()).keys()], [group]);
      assert.deepEqual((await buffer.reserve(10_000)).items, items);
    });

    test('a refusal is an error of its own class', async () => {
      const buffer = new GroupedBuffer(scripts, 'q');
      const refuses = (call, Class, code) =>
        assert.rejects(call, (error) => error instanceof Class && error.code === code);
      await refuses(buffer.reserve(0), redisq.InvalidArgument, 'BADARG');
      await refuses(buffer.reserve(1, { timeout: 1 }), redisq.InvalidArgument, 'BADARG'); // nothing to wait with
      await send(['SET', 'redisq:{q}:layout', '2']);
      await refuses(buffer.push([1]), redisq.WrongLayout, 'LAYOUT');
      await send(['SET', 'redisq:{t}:groups', 'text']);
      await refuses(new GroupedBuffer(scripts, 't').push([1]), redisq.WrongType, 'WRONGTYPE');
      await new PriorityQueue(scripts, 'p').push([['a', 1]]);
      await refuses(new PriorityQueue(scripts, 'p', { order: 'score' }).reserve(), redisq.WrongOrder, 'WRONGORDER');
      assert.throws(() => new GroupedBuffer(scripts, '{q}'), redisq.InvalidArgument);
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
      assert.ok(!proxy.cutting);

      const left = new GroupedBuffer(scripts, 'q');
      assert.deepEqual([...(await left.longestGroups())], [['default', 1]]);
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

    test('who waits is woken by a push', async () => {
      const buffer = new GroupedBuffer(scripts, 'q', { blocking: await client() });
      assert.equal(await buffer.reserve(1, { timeout: 10 }), null);
      const waiting = buffer.reserve(1, { timeout: 30_000 });
      await buffer.push(['here']);
      assert.deepEqual((await waiting).items, ['here']);
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
