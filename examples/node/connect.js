/** Connect to a unix socket with the client that `--client` names; the programs beside this file take either. */

export const CLIENTS = ['ioredis', 'node-redis'];

/**
 * @param {string} name
 * @param {string} path
 * @returns {Promise<import('./redisq/client.js').Client & { duplicate(): any, close(): void }>}
 */
export async function connect(name, path) {
  if (name === 'ioredis') {
    // Only the one that is wanted: loading either takes longer than Node itself.
    const { Redis } = await import('ioredis');
    const client = new Redis({ path });
    return Object.assign(client, { close: () => client.disconnect() });
  }
  if (name !== 'node-redis') throw new Error(`--client is ${name}: give one of ${CLIENTS.join(', ')}`);
  const { createClient } = await import('redis');
  const client = createClient({ socket: { path, tls: false } });
  client.on('error', () => {}); // without a listener, a connection that breaks ends the process
  await client.connect();
  return client;
}
