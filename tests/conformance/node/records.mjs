// Producing and consuming.

import { randomBytes } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import kafkajs from 'kafkajs'
import { eventually, fails, fresh, holds, leave, messages, numbered, same, values } from './kit.mjs'

const { CompressionTypes } = kafkajs

export default (kit) => ({
  defaults: () => roundTrip(kit),
  'compression gzip': () => roundTrip(kit, {}, { compression: CompressionTypes.GZIP }),
  'acks 1': () => roundTrip(kit, {}, { acks: 1 }),
  'acks 0': () => roundTrip(kit, {}, { acks: 0 }),
  idempotent: () => roundTrip(kit, { idempotent: true }),
  'record comes back as sent': () => wholeRecord(kit),
  'nulls and empties': () => nulls(kit),
  'batches for several topics': () => batches(kit),
  'start, end and offset': () => positions(kit),
  'read uncommitted': () => uncommitted(kit),
  'long poll': () => longPoll(kit),
  'records of a megabyte': () => large(kit),
  'too large record': () => tooLarge(kit),
  'many partitions': () => manyPartitions(kit),
  'unknown topic': () => unknownTopic(kit),
  'automatic topic': () => automaticTopic(kit),
  'offset out of range': () => outOfRange(kit),
  'regular expression': () => expression(kit),
  'keyless record for a compacted topic': () => compacted(kit),
})

async function roundTrip(kit, options = {}, sending = {}) {
  const topic = await kit.topic(1)
  const sent = numbered(200)
  await kit.producing(options, async (producer) => {
    const own = sent.map((value) => ({ key: 'key', value }))
    await producer.send({ topic, messages: own.slice(0, 100), ...sending })
    await producer.send({ topic, messages: own.slice(100), ...sending })
  })
  const got = await kit.read(topic, 200)
  same('values', values(got), sent)
  same('offsets', got.map(({ offset }) => offset), sent.map((_, number) => String(number)))
}

async function wholeRecord(kit) {
  const topic = await kit.topic(2)
  const message = {
    key: 'key', value: 'välue', partition: 1, timestamp: '1700000000123', headers: { a: ['1', '2'], é: '3' },
  }
  await kit.producing({}, async (producer) => {
    const [sent] = await producer.send({ topic, messages: [message] })
    same('acknowledged', [sent.partition, sent.errorCode, sent.baseOffset], [1, 0, '0'])
  })
  const [got] = await kit.read(topic, 1)
  same('partition', got.partition, 1)
  same('key', got.key.toString(), 'key')
  same('value', got.value.toString(), 'välue')
  same('timestamp', got.timestamp, '1700000000123')
  same('headers', got.headers, { a: [Buffer.from('1'), Buffer.from('2')], é: Buffer.from('3') })
}

async function nulls(kit) {
  const topic = await kit.topic(1)
  await kit.producing({}, (producer) =>
    producer.send({ topic, messages: [{ key: 'k', value: null }, { key: null, value: '' }] }),
  )
  const [tombstone, empty] = await kit.read(topic, 2)
  same('tombstone', [tombstone.key.toString(), tombstone.value], ['k', null])
  same('empty', [empty.key, empty.value.length], [null, 0])
}

async function batches(kit) {
  const [first, second] = [await kit.topic(2), await kit.topic(1)]
  await kit.producing({}, (producer) =>
    producer.sendBatch({
      topicMessages: [
        { topic: first, messages: messages(numbered(10)) },
        { topic: second, messages: messages(['other']) },
      ],
    }),
  )
  same('first', values(await kit.read(first, 10)).sort(), numbered(10))
  same('second', values(await kit.read(second, 1)), ['other'])
}

async function positions(kit) {
  const topic = await kit.topic(1)
  await kit.produce(topic, numbered(10))
  same('start', values(await kit.read(topic, 10)), numbered(10))
  same('offset', values(await kit.read(topic, 5, { seek: 5 })), numbered(10).slice(5))
  const { consumer, got } = await kit.member(fresh('group'), topic, { fromBeginning: false })
  try {
    // The end is looked up when the member has joined: produce until it is seen, and nothing older is.
    await eventually('a new record', async () => {
      await kit.produce(topic, ['new'])
      await pause(200)
      return got.length > 0
    })
    same('values', [...new Set(values(got))], ['new'])
  } finally {
    leave(consumer)
  }
}

async function uncommitted(kit) {
  const topic = await kit.topic(1)
  await kit.produce(topic, numbered(10))
  same('values', values(await kit.read(topic, 10, { readUncommitted: true })), numbered(10))
}

/** A record that comes while a fetch waits is delivered at once, not when the wait is over. */
async function longPoll(kit) {
  const topic = await kit.topic(1)
  await kit.produce(topic, ['first'])
  const { consumer, got } = await kit.member(fresh('group'), topic, { maxWaitTimeInMs: 20_000 })
  try {
    await eventually('the first record', () => got.length === 1)
    await pause(300)
    const began = Date.now()
    await kit.produce(topic, ['second'])
    await eventually('the second record', () => got.length === 2)
    holds(Date.now() - began < 5000, `the record took ${Date.now() - began} ms`)
  } finally {
    leave(consumer)
  }
}

async function large(kit) {
  const topic = await kit.topic(1)
  const value = randomBytes(1_000_000)
  await kit.producing({}, async (producer) => {
    for (let number = 0; number < 3; number += 1) await producer.send({ topic, messages: [{ value }] })
  })
  for (const message of await kit.read(topic, 3)) holds(message.value.equals(value), 'the value changed')
}

async function tooLarge(kit) {
  const topic = await kit.topic(1)
  await kit.producing({ retry: { retries: 0 } }, async (producer) => {
    await fails('MESSAGE_TOO_LARGE', () => producer.send({ topic, messages: [{ value: randomBytes(1_048_600) }] }))
    await producer.send({ topic, messages: [{ value: 'fits' }] })
  })
  same('values', values(await kit.read(topic, 1)), ['fits'])
}

async function manyPartitions(kit) {
  const topic = await kit.topic(100)
  const sent = numbered(100).map((value, partition) => ({ value, partition }))
  await kit.producing({}, (producer) => producer.send({ topic, messages: sent }))
  const got = await kit.read(topic, 100)
  same('values', values(got).sort(), numbered(100).sort())
}

async function unknownTopic(kit) {
  const producer = kit.kafka.producer({ allowAutoTopicCreation: false, retry: { retries: 1 } })
  await producer.connect()
  await fails('UNKNOWN_TOPIC_OR_PARTITION', () =>
    producer.send({ topic: fresh('missing'), messages: messages(['x']) }),
  )
  await producer.disconnect()
}

async function automaticTopic(kit) {
  const topic = fresh('automatic')
  await kit.produce(topic, ['first'])
  same('values', values(await kit.read(topic, 1)), ['first'])
}

async function outOfRange(kit) {
  const topic = await kit.topic(1)
  await kit.produce(topic, ['a', 'b'])
  same('values', values(await kit.read(topic, 2, { seek: 999 })).slice(-2), ['a', 'b'])
}

async function expression(kit) {
  const prefix = fresh('expression')
  const topics = [`${prefix}-a`, `${prefix}-b`]
  await kit.create(...topics.map((topic) => ({ topic })))
  for (const topic of topics) await kit.produce(topic, [topic])
  same('values', values(await kit.read(new RegExp(`^${prefix}-.*`), 2)).sort(), topics)
}

async function compacted(kit) {
  const topic = await kit.topic(1, { 'cleanup.policy': 'compact' })
  await kit.producing({ retry: { retries: 0 } }, async (producer) => {
    // The library is older than the code and reports it as one it does not know.
    const problem = await producer.send({ topic, messages: messages(['keyless']) }).then(
      () => undefined,
      (caught) => caught,
    )
    holds(problem !== undefined, 'the keyless record was accepted')
    await producer.send({ topic, messages: [{ key: 'key', value: 'value' }] })
  })
  same('values', values(await kit.read(topic, 1)), ['value'])
}
