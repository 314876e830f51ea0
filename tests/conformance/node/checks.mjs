// Checks of KafkaJS against one broker; one JSON object per line and check.
//
//   node checks.mjs BOOTSTRAP [PATTERN]
//   node checks.mjs BOOTSTRAP --restart   produce, wait for a line on stdin (the broker went down and came back
//                                         meanwhile), go on with the same clients

import { once } from 'node:events'
import adminChecks from './admin.mjs'
import groupChecks from './groups.mjs'
import { Kit, eventually, fresh, messages, numbered, report, run, same, values } from './kit.mjs'
import recordChecks from './records.mjs'
import transactionChecks from './transactions.mjs'

const [bootstrap, pattern = ''] = process.argv.slice(2)
const kit = new Kit(bootstrap)
await kit.admin.connect()
if (pattern === '--restart') {
  await report('going on after a restart of the broker', restart)
} else {
  const checks = { ...recordChecks(kit), ...groupChecks(kit), ...adminChecks(kit), ...transactionChecks(kit) }
  await run(checks, pattern)
}
process.exit(0)

async function restart() {
  const topic = await kit.topic(3)
  const producer = kit.kafka.producer()
  await producer.connect()
  const { got } = await kit.member(fresh('group'), topic)
  const all = numbered(300)
  await producer.send({ topic, messages: messages(all.slice(0, 100)) })
  await eventually('every record', () => got.length >= 100)
  process.stdout.write('{"ready": true}\n')
  await once(process.stdin, 'data')
  for (const value of all.slice(100)) await producer.send({ topic, messages: [{ value }] })
  const seen = () => new Set(values(got))
  // A member that comes back under another id waits for its former self to be given up: 30 s, its session.
  await eventually('every record', () => seen().size >= 300, 60_000)
  same('values', [...seen()].sort(), [...all].sort())
}
