// What the checks share: clients with their defaults, fresh names, waiting, and how checks are run and reported.

import { deepStrictEqual } from 'node:assert'
import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import kafkajs from 'kafkajs'

const { Kafka, logLevel } = kafkajs
const CHECK_TIMEOUT_MS = 100_000
const CHECKS_AT_ONCE = 6

export const fresh = (prefix) => `${prefix}-${randomUUID().slice(0, 13)}`
export const numbered = (count) => Array.from({ length: count }, (_, number) => `value ${number}`)
export const messages = (values) => values.map((value) => ({ value }))

export function same(what, got, expected) {
  try {
    deepStrictEqual(got, expected)
  } catch (problem) {
    throw new Error(`${what}: ${problem.message}`)
  }
}

export function holds(condition, what) {
  if (!condition) throw new Error(what)
}

export async function eventually(what, condition, withinMs = 30_000) {
  const deadline = Date.now() + withinMs
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`${what} did not come true`)
    await pause(20)
  }
}

/** The call must fail with this type of the protocol's errors. */
export async function fails(type, call) {
  const problem = await call().then(
    () => undefined,
    (caught) => caught,
  )
  holds(problem !== undefined, `expected ${type}, but it went well`)
  const types = [problem, problem.cause, ...(problem.errors ?? [])].map((one) => one?.type)
  holds(types.includes(type), `expected ${type}, got ${types.join(', ')}: ${problem.stack}`)
}

/** What the environment says a broker asks for; without CHECKS_MECHANISM it asks for nothing. */
function credentials({ CHECKS_CA, CHECKS_MECHANISM, CHECKS_USER, CHECKS_PASSWORD }) {
  if (!CHECKS_MECHANISM) return {}
  return {
    ssl: { ca: [readFileSync(CHECKS_CA, 'utf-8')] },
    sasl: { mechanism: CHECKS_MECHANISM.toLowerCase(), username: CHECKS_USER, password: CHECKS_PASSWORD },
    reauthenticationThreshold: 1_000, // Sessions are shorter than its default, and Kafka allows one a second.
  }
}

export class Kit {
  constructor(bootstrap) {
    this.kafka = new Kafka({ brokers: [bootstrap], logLevel: logLevel.NOTHING, ...credentials(process.env) })
    this.admin = this.kafka.admin()
  }

  async topic(numPartitions, settings = {}) {
    const topic = fresh('kafkajs')
    const configEntries = Object.entries(settings).map(([name, value]) => ({ name, value }))
    await this.create({ topic, numPartitions, configEntries })
    return topic
  }

  /** Creates topics and waits until the broker says that they are there. */
  async create(...topics) {
    await this.admin.createTopics({ topics, waitForLeaders: false })
    const names = topics.map(({ topic }) => topic)
    await eventually(`topics ${names}`, () =>
      this.admin.fetchTopicMetadata({ topics: names }).then(
        () => true,
        () => false,
      ),
    )
  }

  /**
   * Runs `use` with an admin client of its own. Calls that look up leaders need one: what a client of kafkajs knows of a
   * topic is gone for a moment when another call of the same client asks about another topic.
   */
  async administering(use) {
    const admin = this.kafka.admin()
    await admin.connect()
    try {
      return await use(admin)
    } finally {
      await admin.disconnect()
    }
  }

  /** Runs `use` with a connected producer. */
  async producing(options, use) {
    const producer = this.kafka.producer(options)
    await producer.connect()
    try {
      return await use(producer)
    } finally {
      await producer.disconnect()
    }
  }

  /** Produces to partition 0, in order. */
  async produce(topic, values) {
    const own = values.map((value) => ({ value, partition: 0 }))
    return this.producing({}, (producer) => producer.send({ topic, messages: own }))
  }

  /** A running member of a group: `got` is what it received. `seek` goes to an offset of partition 0 first. */
  async member(groupId, topic, { fromBeginning = true, seek, each = () => {}, run = {}, ...options } = {}) {
    const consumer = this.kafka.consumer({ groupId, heartbeatInterval: 200, ...options })
    const member = { consumer, got: [], held: [], rounds: 0 }
    consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
      member.held = payload.memberAssignment[topic] ?? []
      member.rounds += 1
    })
    await consumer.connect()
    await consumer.subscribe({ topics: [topic], fromBeginning })
    await consumer.run({
      ...run,
      eachMessage: async ({ message, partition }) => {
        member.got.push({ ...message, partition })
        each(member)
      },
    })
    if (seek !== undefined) consumer.seek({ topic, partition: 0, offset: String(seek) })
    return member
  }

  /** So many messages of a topic, read by a group of its own. */
  async read(topic, count, options = {}) {
    const { consumer, got } = await this.member(fresh('group'), topic, options)
    try {
      await eventually(`${count} messages`, () => got.length >= count)
      return got
    } finally {
      leave(consumer)
    }
  }
}

/** Leaves the group without waiting for the fetch that is under way, which takes five seconds at the end. */
export const leave = (consumer) => void consumer.disconnect().catch(() => {})

export const values = (got) => got.map(({ value }) => value?.toString())

export async function run(checks, pattern) {
  const waiting = Object.entries(checks).filter(([name]) => name.match(pattern))
  const worker = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) await report(...next)
  }
  await Promise.all(Array.from({ length: CHECKS_AT_ONCE }, worker))
}

export async function report(name, check) {
  const began = Date.now()
  const tooLong = pause(CHECK_TIMEOUT_MS, null, { ref: false }).then(() => {
    throw new Error(`not done within ${CHECK_TIMEOUT_MS} ms`)
  })
  const error = await Promise.race([check(), tooLong]).then(
    () => null,
    (problem) => problem.stack,
  )
  process.stdout.write(JSON.stringify({ name, error, seconds: (Date.now() - began) / 1000 }) + '\n')
}
