/**
 * One way to send a command through either client: bytes go out, and replies come as Buffers and numbers, never
 * decoded.
 *
 * What becomes of a command whose connection breaks before its reply came, be it done or not:
 *
 * - ioredis sends it again, word for word, until it has tried to connect `maxRetriesPerRequest` times.
 * - node-redis rejects it, and sends again only what it had not written yet. So here it is sent again, as often as
 *   redis-py does.
 *
 * Either way the words are the same, and among them the id that was made once: the script knows the call again.
 */

const RESENDS = 10;
const BLOB_STRING = 36; // node-redis's RESP_TYPES.BLOB_STRING, written out so that ioredis's users need not install it

/**
 * @typedef {string | Buffer} Word
 * @typedef {(words: Word[], resend?: boolean) => Promise<any>} Send resend: false for what may not be done twice
 * @typedef {{ callBuffer(command: any, ...words: any[]): Promise<any> }} Ioredis
 * @typedef {{ isOpen: boolean, sendCommand(words: any[], options?: any): Promise<any> }} NodeRedis
 * @typedef {Ioredis | NodeRedis} Client
 */

/**
 * @param {Client} client
 * @returns {Send}
 */
export function sender(client) {
  return 'callBuffer' in client ? ioredis(client) : nodeRedis(client);
}

/** @param {Ioredis} client @returns {Send} */
function ioredis(client) {
  return ([command, ...words]) => client.callBuffer(String(command), ...words);
}

/** @param {NodeRedis} client @returns {Send} */
function nodeRedis(client) {
  const options = { typeMapping: { [BLOB_STRING]: Buffer } };
  return async (words, resend = true) => {
    for (let left = resend ? RESENDS : 0; ; left--) {
      try {
        return await client.sendCommand(words, options);
      } catch (error) {
        // Open means that it is connecting again: what is sent now waits for that.
        if (left === 0 || !client.isOpen || !isBroken(error)) throw error;
      }
    }
  };
}

/** Tell a connection that broke from an answer, a closed client and a caller's own time limit. @param {any} error */
function isBroken(error) {
  return 'syscall' in error || ['SocketClosedUnexpectedlyError', 'SocketTimeoutError'].includes(error.constructor.name);
}
