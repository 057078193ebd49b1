/**
 * Hold what Python pushed to what it should be, and push the same: what `tests/languages/test_node.py` starts.
 *
 *     node payloads.js [--client ioredis|node-redis] SOCKET < PAYLOADS
 *
 * PAYLOADS is JSON in ASCII: {"json": [...], "texts": [...], "bytes": [base64, ...], "groups": [base64, ...]}.
 */

import assert from 'node:assert/strict';
import { text } from 'node:stream/consumers';
import { parseArgs } from 'node:util';
import { connect } from './connect.js';
import { GroupedBuffer, PriorityQueue, Scripts, bytes } from './redisq/index.js';

const { values, positionals } = parseArgs({ options: { client: { type: 'string' } }, allowPositionals: true });
const client = await connect(values.client ?? 'ioredis', positionals[0]);
const scripts = new Scripts(client);
const payloads = JSON.parse(await text(process.stdin));
const decode = (written) => Buffer.from(written, 'base64');

const fromPython = new GroupedBuffer(scripts, 'from python: json');
assert.deepEqual(await fromPython.pop(), payloads.json);
const members = new PriorityQueue(scripts, 'from python: texts');
assert.deepEqual((await members.pop(1000)).map(({ member }) => member), payloads.texts);
const raw = new GroupedBuffer(scripts, 'from python: bytes', { codec: bytes });
for (const group of payloads.groups.map(decode)) {
  const batch = await raw.reserve();
  assert.deepEqual(Buffer.from(batch.group), group);
  assert.deepEqual(batch.items, payloads.bytes.map(decode));
  await raw.ack(batch);
}

await new GroupedBuffer(scripts, 'from node: json').push(payloads.json);
await new PriorityQueue(scripts, 'from node: texts').push(payloads.texts.map((member) => [member, 0]));
const pushed = new GroupedBuffer(scripts, 'from node: bytes', { codec: bytes });
for (const group of payloads.groups.map(decode)) await pushed.push(payloads.bytes.map(decode), { group });
client.close();
