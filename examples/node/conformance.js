/**
 * Run the cases of `lua/conformance` (its README has the format) through a client, on an empty server.
 *
 *     node conformance.js [--client ioredis|node-redis] SOCKET [LUA]
 *
 * LUA is the folder of the scripts, and of their cases.
 */

import { readFileSync, readdirSync } from 'node:fs';
import { isUtf8 } from 'node:buffer';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { sender } from './redisq/client.js';
import { connect } from './connect.js';
import { Scripts } from './redisq/index.js';

const SLACK = 10_000; // ms: how much later a TTL or the clock may be read than it was set

// One call for the whole key space, whatever a client makes of maps and doubles in replies.
const STATE = `
  local function read(type, key)
    if type == 'list' then return redis.call('LRANGE', key, 0, -1) end
    if type == 'zset' then return redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end
    if type == 'hash' then return redis.call('HGETALL', key) end
    if type == 'set' then return redis.call('SMEMBERS', key) end
    return redis.call('GET', key)
  end
  local found = {}
  for i, key in ipairs(redis.call('KEYS', '*')) do
    local type = redis.call('TYPE', key).ok
    found[i] = { key, type, redis.call('PTTL', key), read(type, key) }
  end
  return found
`;

/**
 * @typedef {{ type: string, value: any, ttl: number }} Key
 * @typedef {Map<string, Key>} State by the keys' bytes, in latin1
 */

/** Write out every `repeat`. @param {any} value @returns {any} */
function expanded(value) {
  if (Array.isArray(value)) return value.flatMap((each) => repeated(each)).map(expanded);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, expanded(each)]));
}

/** @param {any} element @returns {any[]} */
function repeated(element) {
  if (element === null || typeof element !== 'object' || !('repeat' in element)) return [element];
  return Array.from({ length: element.times }, (_, i) => numbered(element.repeat, String(i + 1))).flat();
}

/** @param {any} value @param {string} number @returns {any} */
function numbered(value, number) {
  if (typeof value === 'string') return value.replaceAll('#', number);
  if (Array.isArray(value)) return value.map((each) => numbered(each, number));
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, numbered(each, number)]));
}

/** Give strings as bytes; what stands for more than one value is left as it is. @param {any} value @returns {any} */
function plain(value) {
  if (typeof value === 'string') return Buffer.from(value);
  if (Array.isArray(value)) return value.map(plain);
  return value?.base64 === undefined ? value : Buffer.from(value.base64, 'base64');
}

/**
 * Hold a value that came to the one that should.
 *
 * @param {any} expected
 * @param {any} got
 * @param {number} clock
 * @returns {boolean}
 */
function agree(expected, got, clock) {
  if (Array.isArray(expected)) {
    return Array.isArray(got) && got.length === expected.length && expected.every((e, i) => agree(e, got[i], clock));
  }
  if (Buffer.isBuffer(expected)) return Buffer.isBuffer(got) && got.equals(expected);
  if (expected?.clock !== undefined) return Math.abs(Number(got) - clock - expected.clock) < SLACK;
  if (expected?.unordered !== undefined) return agreeInAnyOrder(plain(expected.unordered), got, clock);
  if (expected?.match !== undefined) return new RegExp(expected.match).test(String(got));
  return expected === got;
}

/** @param {any[]} expected @param {any} got @param {number} clock */
function agreeInAnyOrder(expected, got, clock) {
  if (!Array.isArray(got) || got.length !== expected.length) return false;
  const left = [...got];
  return expected.every((one) => {
    const place = left.findIndex((each) => agree(one, each, clock));
    return place >= 0 && left.splice(place, 1);
  });
}

/** @param {Key} expected @param {Key} got @param {number} clock */
function agreeOnKey(expected, got, clock) {
  if (expected.type !== got.type) return false;
  if (expected.ttl < 0 !== got.ttl < 0 || Math.abs(got.ttl - expected.ttl) >= SLACK) return false;
  if (expected.type === 'hash') return agree(byField(expected.value), byField(got.value), clock);
  if (expected.type === 'set') return agreeInAnyOrder(expected.value, got.value, clock);
  if (expected.type !== 'zset') return agree(expected.value, got.value, clock);
  return agree(withScores(expected.value), withScores(got.value), clock);
}

/** @param {any[]} flat member, score, member, score: the scores as numbers */
function withScores(flat) {
  return flat.map((one, i) => (i % 2 && Buffer.isBuffer(one) ? Number(String(one).replace('inf', 'Infinity')) : one));
}

/** @param {Buffer[]} flat field, value, field, value, in any order */
function byField(flat) {
  const fields = Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i], flat[2 * i + 1]]);
  return fields.sort(([a], [b]) => Buffer.compare(a, b));
}

class Conformance {
  /** @param {import('./redisq/client.js').Client} client @param {URL} folder */
  constructor(client, folder) {
    this.send = sender(client);
    this.scripts = new Scripts(client, folder);
  }

  /** @returns {Promise<State>} */
  async state() {
    /** @type {[Buffer, Buffer, number, any][]} */
    const found = await this.send(['EVAL', STATE, '0']);
    return new Map(found.map(([key, type, ttl, value]) => [name(key), { type: String(type), value, ttl }]));
  }

  /**
   * Run one case, and give what was otherwise than it says.
   *
   * @param {any} file
   * @param {any} one
   * @returns {Promise<string[]>}
   */
  async run(file, one) {
    const commands = [['FLUSHALL'], ...plain(one.given ?? []), ['TIME']];
    const [seconds, micros] = (await Promise.all(commands.map((command) => this.send(command)))).at(-1);
    const clock = Number(seconds) * 1000 + Math.floor(Number(micros) / 1000);
    const expected = changed(await this.state(), one.then ?? []);

    const wrong = [];
    for (const [i, step] of one.steps.entries()) {
      const answer = await this.answer(file, step);
      const reply = plain(step.reply);
      const right = step.error
        ? answer.error?.split(' ')[0] === step.error
        : !answer.error && agree(reply, answer.reply, clock);
      if (!right) wrong.push(`step ${i + 1}: ${show(answer)}, expected ${show({ reply, error: step.error })}`);
    }
    const got = await this.state();
    for (const key of new Set([...expected.keys(), ...got.keys()])) {
      const [e, g] = [expected.get(key), got.get(key)];
      if (!e || !g || !agreeOnKey(e, g, clock)) wrong.push(`key ${key}: ${show(g)}, expected ${show(e)}`);
    }
    return wrong;
  }

  /** @param {any} file @param {any} step @returns {Promise<{ reply?: any, error?: string }>} */
  async answer(file, step) {
    try {
      const { script = file.script, keys = file.keys, argv } = step;
      return { reply: await this.scripts.run(script, plain(keys), plain(argv)) };
    } catch (error) {
      const { code, message } = /** @type {any} */ (error);
      return { error: code ?? message };
    }
  }
}

/** Change a key space as a `then` says. @param {State} state @param {any[]} then @returns {State} */
function changed(state, then) {
  for (const { key, type, value, ttl = -1 } of then) {
    if (type === 'none') state.delete(name(plain(key)));
    else state.set(name(plain(key)), { type, value: plain(value), ttl });
  }
  return state;
}

/** Give bytes as what a Map can be searched for. @param {Buffer} key */
const name = (key) => key.toString('latin1');

/** Write bytes as text, or as hexadecimal digits where they are none. @param {any} value @returns {string} */
function show(value) {
  if (Buffer.isBuffer(value)) return isUtf8(value) ? JSON.stringify(value.toString()) : `<${value.toString('hex')}>`;
  if (Array.isArray(value)) return `[${value.slice(0, 20).map(show).join(', ')}${value.length > 20 ? ', ...' : ''}]`;
  if (value === undefined || value === null || typeof value !== 'object') return String(value);
  const known = Object.entries(value).filter(([, each]) => each !== undefined);
  return `{${known.map(([name, each]) => `${name}: ${show(each)}`).join(', ')}}`;
}

const { values, positionals } = parseArgs({ options: { client: { type: 'string' } }, allowPositionals: true });
const [socket, lua] = positionals;
const client = await connect(values.client ?? 'ioredis', socket);
const folder = lua ? pathToFileURL(`${lua}/`) : new URL('../../lua/', import.meta.url);
const cases = new URL('conformance/', folder);
const conformance = new Conformance(client, folder);
let count = 0;
let failed = 0;
for (const path of readdirSync(cases, { recursive: true, encoding: 'utf8' }).sort()) {
  if (!path.endsWith('.json')) continue;
  const file = expanded(JSON.parse(readFileSync(new URL(path, cases), 'utf8')));
  for (const one of file.cases) {
    count += 1;
    const wrong = await conformance.run(file, one);
    if (wrong.length === 0) continue;
    failed += 1;
    console.error(`${file.script}: ${one.name}\n  ${wrong.join('\n  ')}`);
  }
}
client.close();
console.log(`${values.client ?? 'ioredis'}: ${count} cases, ${failed} failed`);
process.exitCode = failed > 0 || count === 0 ? 1 : 0;
