/** What a script refuses. Errors of the client (connection, OOM, read-only, ACL) pass through untouched. */

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
