// BullMQ's own package: `queue.add`, `queue.addBulk`, and its worker. Run by bullmq_node.py; contract.py says what is
// in the environment.

import { openSync, writeSync } from 'node:fs'
import { createRequire } from 'node:module'
import { setTimeout as sleep } from 'node:timers/promises'

const { PEERS_URL, PEERS_MODE, PEERS_RECORD, PEERS_HOLD = '0', PEERS_PACE = '0', PEERS_NODE } = process.env
const { Job, Queue, Worker } = createRequire(`${PEERS_NODE}/`)('bullmq')
const path = PEERS_URL.replace('unix://', '')
const modes = PEERS_MODE.split(', ')
const [what, first, count] = process.argv.slice(2)

function * numbers () {
  for (let item = Number(first); item < Number(first) + Number(count); item++) yield item
}

async function addOneByOne (queue, options, items) {
  for (const item of items) {
    await queue.add('handle', { item }, options)
    if (Number(PEERS_PACE)) await sleep(1000 * Number(PEERS_PACE))
  }
}

async function addHundreds (queue, opts, items) {
  let piece = []
  for (const item of items) {
    piece.push({ name: 'handle', data: { item }, opts })
    if (piece.length < 100) continue
    await queue.addBulk(piece)
    piece = []
  }
  if (piece.length) await queue.addBulk(piece)
}

async function push () {
  const queue = new Queue('bench', { connection: { path } })
  const options = modes.includes('removeOnComplete') ? { removeOnComplete: true } : {}
  await queue.getJobCounts('waiting')
  const start = performance.now()
  if (modes.includes('addBulk of 100')) {
    await addHundreds(queue, options, numbers())
  } else {
    const items = numbers() // which the tasks share
    const tasks = modes.includes('pushed by 50 tasks') ? 50 : 1
    await Promise.all(Array.from({ length: tasks }, () => addOneByOne(queue, options, items)))
  }
  console.log(JSON.stringify({ seconds: (performance.now() - start) / 1000 }))
  await queue.close()
}

async function work () {
  const file = openSync(PEERS_RECORD, 'a')
  const handle = async job => {
    const entry = Buffer.alloc(16)
    entry.writeDoubleLE(Number(process.hrtime.bigint()) / 1e9, 0)
    entry.writeBigInt64LE(BigInt(job.data.item), 8)
    writeSync(file, entry)
    if (Number(PEERS_HOLD)) await sleep(Math.min(1000 * Number(PEERS_HOLD), 2 ** 31 - 1))
  }
  const byHand = modes.includes('by hand')
  const concurrency = Number(/concurrency=(\d+)/.exec(PEERS_MODE)?.[1] ?? 1)
  const connection = { path, maxRetriesPerRequest: null }
  const worker = new Worker('bench', byHand ? null : handle, { connection, concurrency })
  worker.on('error', console.error)
  process.once('SIGTERM', () => worker.close())
  if (byHand) await loop(worker, handle)
}

async function loop (worker, handle) {
  const token = 'bench'
  await worker.startStalledCheckTimer()
  while (true) {
    let job = await worker.getNextJob(token)
    while (job) {
      await handle(job)
      const [data, id] = await job.moveToCompleted(null, token, true) ?? []
      job = data && Job.fromJSON(worker, data, id)
    }
  }
}

await (what === 'push' ? push() : work())
