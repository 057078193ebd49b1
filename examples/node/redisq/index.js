/** redisq's queues from Node, through ioredis or node-redis. */

export { GroupedBuffer } from './buffer.js';
export { bytes, json, text } from './codecs.js';
export * from './errors.js';
export { PriorityQueue } from './priority.js';
export { queues } from './queues.js';
export { Scripts } from './scripts.js';
