/** The scripts of one folder, run through one client. All that redisq needs of a language; the rest is convenience. */

import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { sender } from './client.js';
import { refusal } from './errors.js';

/** @typedef {string | number | Buffer} Arg */
/** @typedef {Record<string, Arg | Arg[]>} Values by the names in a script's header; an array where several may stand */

/** One script. Its header names its keys and arguments in the order in which they are sent, so no list is kept here. */
class Script {
  /** @param {string} name @param {Buffer} text */
  constructor(name, text) {
    this.name = name;
    this.text = text;
    this.sha = createHash('sha1').update(text).digest('hex');
    const [header] = text.toString('latin1').match(/^(?:--.*\n)+/) ?? [''];
    this.header = header;
    // `{queue}:items:<group>` becomes { noun: 'items:', value: 'group' }; `{queue}:meta` has no value.
    this.keys = [...header.matchAll(/^-- KEYS\S+ +\w+ +\w+ +\{queue\}:(\w*:?)(?:<(\w+)>)?/gm)].map(
      ([, noun, value]) => ({ noun, value: noun === 'once:' ? 'once' : value }),
    );
    // The numbers that share an argument have a line each, below it.
    this.args = [...header.matchAll(/^-- ARGV\S+ +(\w+) +(\w+).*\n((?:-- {3,}.*\n)*)/gm)].map(
      ([, name, type, below]) => ({
        name,
        fields: type === 'ints' ? [...below.matchAll(/^-- +(\w+) +\d+\.\./gm)].map(([, field]) => field) : [],
      }),
    );
    /** Whether it may be sent again when its reply was lost: a second run of the others takes more. */
    this.resend = !/^-- REPLAY +no\b/m.test(header);
  }

  /**
   * Give the keys and arguments of a call on the queue whose keys begin with `queue`.
   *
   * @param {string} queue
   * @param {Values} values `once`: the id of a call that has one of its own; `now`, left out, is the server's clock
   * @returns {{ keys: Arg[], args: Arg[] }}
   */
  command(queue, values) {
    /** @param {string} name */
    const take = (name) => {
      const value = name === 'now' ? (values.now ?? '') : values[name];
      if (value === undefined || value === null) throw new TypeError(`${this.name} needs ${name}`);
      return value;
    };
    const keys = this.keys.map(({ noun, value }) =>
      value ? Buffer.concat([Buffer.from(queue + noun), Buffer.from(/** @type {any} */ (take(value)))]) : queue + noun,
    );
    const args = this.args.flatMap(({ name, fields }) =>
      fields.length === 0 || name in values ? take(name) : fields.map(take).join(' '),
    );
    return { keys, args };
  }

  /** Give the most that an argument may be, or how many of them there may be. @param {string} argument */
  limit(argument) {
    const found = this.header.match(new RegExp(`^-- (?:ARGV\\S+)? +${argument} +(?:\\w+ +)?\\d+\\.\\.(\\d+)`, 'm'));
    return Number(found?.[1]);
  }
}

export class Scripts {
  /** @type {Map<string, Script>} */
  #scripts = new Map();
  #send;

  /**
   * @param {import('./client.js').Client} client yours; it is neither configured nor closed
   * @param {URL} [folder] where the scripts are, with a slash at its end; by default the checkout's
   */
  constructor(client, folder = new URL('../../../lua/', import.meta.url)) {
    this.#send = sender(client);
    for (const path of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
      if (!path.endsWith('.lua')) continue;
      const name = path.slice(0, -'.lua'.length);
      this.#scripts.set(name, new Script(name, readFileSync(new URL(path, folder))));
    }
  }

  /** @type {string[]} */
  get names() {
    return [...this.#scripts.keys()].sort();
  }

  /** Give one script, such as `buffer/push`. @param {string} name */
  get(name) {
    const script = this.#scripts.get(name);
    if (!script) throw new Error(`no script is named ${name}`);
    return script;
  }

  /**
   * Run one script on the keys and arguments that its header names.
   *
   * @param {string} name
   * @param {Arg[]} keys
   * @param {Arg[]} args an id among them is the caller's, made once: what is sent again carries the same
   * @returns {Promise<any>}
   */
  async run(name, keys, args) {
    const script = this.get(name);
    const words = [keys.length, ...keys, ...args].map((word) => (Buffer.isBuffer(word) ? word : String(word)));
    try {
      return await this.#send(['EVALSHA', script.sha, ...words], script.resend).catch((error) => {
        if (!error.message.startsWith('NOSCRIPT')) throw error;
        // Not SCRIPT LOAD and EVALSHA again: between the two the server may forget once more.
        return this.#send(['EVAL', script.text, ...words], script.resend);
      });
    } catch (error) {
      throw refusal(name, error);
    }
  }
}
