/** What a script refuses, and what cannot be decoded. The client's own errors (connection, OOM, ACL) pass through. */

export class RedisqError extends Error {
  /**
   * @param {string} code the word that the script's reply began with
   * @param {string} message
   * @param {ErrorOptions} [options]
   */
  constructor(code, message, options) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** An argument cannot be used; nothing was written. */
export class InvalidArgument extends RedisqError {}

/** The batch was handed out again, buried, settled or purged. */
export class LeaseLost extends RedisqError {}

/** Other versions of the scripts keep this queue, in another layout; nothing was written. */
export class WrongLayout extends RedisqError {}

/** The priority queue is kept in the other order; nothing was written. */
export class WrongOrder extends RedisqError {}

/** A key of the queue holds another type; nothing was written. */
export class WrongType extends RedisqError {}

/** Stored bytes cannot be decoded. `raw` has all that the call took, as it is stored, so that nothing is lost. */
export class CodecError extends RedisqError {
  /**
   * @param {Buffer} data
   * @param {any} raw
   * @param {Error} cause
   */
  constructor(data, raw, cause) {
    super('CODEC', `cannot decode ${data.toString('latin1', 0, 100)}: ${cause.message}`, { cause });
    this.raw = raw;
  }
}

const CLASSES = new Map([
  ['BADARG', InvalidArgument],
  ['LEASELOST', LeaseLost],
  ['LAYOUT', WrongLayout],
  ['WRONGORDER', WrongOrder],
]);

/**
 * Give the error that a refusal stands for, or the client's own.
 *
 * @param {string} script
 * @param {any} error
 * @returns {any}
 */
export function refusal(script, error) {
  const [code] = error.message.split(' ', 1);
  const Class = CLASSES.get(code);
  if (Class) return new Class(code, `${script}: ${error.message.slice(code.length + 1)}`, { cause: error });
  // Not always the first word: Redis 6 wraps what a command inside a script says.
  const wrong = error.message.includes('WRONGTYPE');
  return wrong ? new WrongType('WRONGTYPE', `${script}: ${error.message}`, { cause: error }) : error;
}
