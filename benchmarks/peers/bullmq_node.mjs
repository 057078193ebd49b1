// BullMQ's own package: `queue.add`, and its worker, one job at a time. Run by bullmq_node.py, which says how.

import { openSync, writeSync } from 'node:fs'
import { createRequire } from 'node:module'

const { Queue, Worker } = createRequire(`${process.env.PEERS_NODE}/`)('bullmq')
const connection = { path: process.env.PEERS_URL.replace('unix://', ''), maxRetriesPerRequest: null }
const [what, first, count] = process.argv.slice(2)

if (what === 'push') {
  const queue = new Queue('bench', { connection })
  await queue.getJobCounts('waiting')
  const start = performance.now()
  for (let item = Number(first); item < Number(first) + Number(count); item++) {
    await queue.add('handle', { item })
  }
  console.log(JSON.stringify({ seconds: (performance.now() - start) / 1000 }))
  await queue.close()
} else {
  const file = openSync(process.env.PEERS_RECORD, 'a')
  const worker = new Worker('bench', async job => {
    const entry = Buffer.alloc(16)
    entry.writeDoubleLE(Number(process.hrtime.bigint()) / 1e9, 0)
    entry.writeBigInt64LE(BigInt(job.data.item), 8)
    writeSync(file, entry)
  }, { connection })
  process.once('SIGTERM', () => worker.close())
}
