/** The scripts of one folder, run through one client. All that redisq needs of a language; the rest is convenience. */

import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { sender } from './client.js';
import { refusal } from './errors.js';

/** @typedef {string | number | Buffer} Arg */

export class Scripts {
  /** @type {Map<string, { sha: string, text: Buffer, resend: boolean }>} */
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
      const text = readFileSync(new URL(path, folder));
      const sha = createHash('sha1').update(text).digest('hex');
      // The header says it: a second run of these takes more.
      const resend = !/^-- REPLAY +no\b/m.test(text.toString());
      this.#scripts.set(path.slice(0, -'.lua'.length), { sha, text, resend });
    }
  }

  /** @type {string[]} */
  get names() {
    return [...this.#scripts.keys()].sort();
  }

  /**
   * Run one script, such as `buffer/push`, on the keys and arguments that its header names.
   *
   * @param {string} name
   * @param {Arg[]} keys
   * @param {Arg[]} args an id among them is the caller's, made once: what is sent again carries the same
   * @returns {Promise<any>}
   */
  async run(name, keys, args) {
    const script = this.#scripts.get(name);
    if (!script) throw new Error(`no script is named ${name}`);
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
