// Transactions.

import { fails, fresh, messages, same, values } from './kit.mjs'

export default (kit) => ({
  'transactions commit and abort': () => endings(kit),
  'offsets go with the transaction': () => relay(kit),
  'a second producer fences the first': () => fencing(kit),
})

const transactional = (transactionalId = fresh('txn')) => ({ transactionalId, idempotent: true, maxInFlightRequests: 1 })

async function endings(kit) {
  const topic = await kit.topic(1)
  await kit.producing(transactional(), async (producer) => {
    for (let turn = 0; turn < 5; turn += 1) {
      const transaction = await producer.transaction()
      await transaction.send({ topic, messages: messages([`${turn}a`, `${turn}b`]) })
      await (turn % 2 === 0 ? transaction.commit() : transaction.abort())
    }
  })
  same('committed', values(await kit.read(topic, 6)), ['0a', '0b', '2a', '2b', '4a', '4b'])
  same('everything', values(await kit.read(topic, 10, { readUncommitted: true })), [
    '0a', '0b', '1a', '1b', '2a', '2b', '3a', '3b', '4a', '4b',
  ])
}

async function relay(kit) {
  const [source, target] = [await kit.topic(1), await kit.topic(1)]
  const groupId = fresh('group')
  await kit.produce(source, ['1', '2', '3'])
  const taken = values(await kit.read(source, 3))
  await kit.administering(async (admin) => {
    const committed = async () => {
      const [{ partitions }] = await admin.fetchOffsets({ groupId, topics: [source] })
      return partitions[0].offset
    }
    await kit.producing(transactional(), async (producer) => {
      for (const commit of [false, true]) {
        const transaction = await producer.transaction()
        await transaction.send({ topic: target, messages: messages(taken.map((value) => `${value}!`)) })
        const topics = [{ topic: source, partitions: [{ partition: 0, offset: '3' }] }]
        await transaction.sendOffsets({ consumerGroupId: groupId, topics })
        await (commit ? transaction.commit() : transaction.abort())
        same('offset', await committed(), commit ? '3' : '-1')
      }
    })
  })
  same('relayed', values(await kit.read(target, 3)), ['1!', '2!', '3!'])
}

async function fencing(kit) {
  const topic = await kit.topic(1)
  const options = transactional()
  await kit.producing({ ...options, retry: { retries: 1 } }, async (first) => {
    const lost = await first.transaction()
    await lost.send({ topic, messages: messages(['lost']) })
    await kit.producing(options, async (second) => {
      const kept = await second.transaction()
      await kept.send({ topic, messages: messages(['kept']) })
      await kept.commit()
    })
    await fails('INVALID_PRODUCER_EPOCH', () => lost.commit())
  })
  same('committed', values(await kit.read(topic, 1)), ['kept'])
}
