// Consumer groups.

import { eventually, fails, fresh, holds, numbered, same, values } from './kit.mjs'

export default (kit) => ({
  'members come and go': () => comeAndGo(kit),
  'every record reaches one member': () => everyRecordOnce(kit),
  'commits survive a restart of the member': () => commitsSurvive(kit),
  'commits by hand': () => byHand(kit),
  'offsets of a group': () => offsets(kit),
  'groups listed, described, deleted': () => described(kit),
})

// A member waits for its fetch before it rejoins or leaves: with the default of five seconds these checks would wait
// for little else.
const member = (kit, group, topic, options = {}) => kit.member(group, topic, { maxWaitTimeInMs: 300, ...options })

const shares = (what, share, ...members) =>
  eventually(what, () => members.every(({ held }) => held.length === share))

async function comeAndGo(kit) {
  const [topic, group] = [await kit.topic(6), fresh('group')]
  const first = await member(kit, group, topic)
  await shares('one member', 6, first)
  const second = await member(kit, group, topic)
  await shares('two members', 3, first, second)
  const third = await member(kit, group, topic)
  await shares('three members', 2, first, second, third)
  await second.consumer.disconnect()
  await shares('the other two', 3, first, third)
  await first.consumer.disconnect()
  await shares('the last one', 6, third)
  await third.consumer.disconnect()
}

async function everyRecordOnce(kit) {
  const [topic, group] = [await kit.topic(4), fresh('group')]
  const members = [await member(kit, group, topic)]
  await kit.producing({}, async (producer) => {
    for (const [number, value] of numbered(300).entries()) {
      await producer.send({ topic, messages: [{ key: value, value }] })
      if (number === 100) members.push(await member(kit, group, topic))
    }
  })
  const seen = () => new Set(members.flatMap(({ got }) => values(got)))
  await eventually('every record', () => seen().size === 300)
  for (const { consumer } of members) await consumer.disconnect()
}

async function commitsSurvive(kit) {
  const [topic, group] = [await kit.topic(1), fresh('group')]
  await kit.produce(topic, numbered(10))
  const first = await member(kit, group, topic)
  await eventually('every record', () => first.got.length === 10)
  await first.consumer.disconnect() // Commits what was handled.
  await kit.produce(topic, ['new'])
  const second = await member(kit, group, topic)
  await eventually('the new record', () => second.got.length > 0)
  same('values', values(second.got), ['new'])
  await second.consumer.disconnect()
}

async function byHand(kit) {
  const [topic, group] = [await kit.topic(1), fresh('group')]
  await kit.produce(topic, numbered(10))
  const first = await member(kit, group, topic, { run: { autoCommit: false } })
  await eventually('every record', () => first.got.length === 10)
  await first.consumer.commitOffsets([{ topic, partition: 0, offset: '4', metadata: 'note' }])
  const [committed] = await kit.admin.fetchOffsets({ groupId: group, topics: [topic] })
  same('committed', committed.partitions[0], { partition: 0, offset: '4', metadata: 'note' })
  await first.consumer.disconnect()
  const second = await member(kit, group, topic, { run: { autoCommit: false } })
  await eventually('the rest', () => second.got.length === 6)
  same('values', values(second.got), numbered(10).slice(4))
  await second.consumer.disconnect()
}

async function offsets(kit) {
  const [topic, groupId] = [await kit.topic(1), fresh('group')]
  await kit.produce(topic, numbered(10))
  await kit.administering(async (admin) => {
    const committed = async () => {
      const [of] = await admin.fetchOffsets({ groupId, topics: [topic] })
      return of.partitions[0].offset
    }
    same('nothing', await committed(), '-1')
    await admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: '7' }] })
    same('set', await committed(), '7')
    await admin.resetOffsets({ groupId, topic, earliest: true })
    same('earliest', await committed(), '-2') // KafkaJS commits the special offset itself.
    const resolved = await admin.fetchOffsets({ groupId, topics: [topic], resolveOffsets: true })
    same('resolved', resolved[0].partitions[0].offset, '0')
  })
}

async function described(kit) {
  const [topic, group] = [await kit.topic(2), fresh('group')]
  const one = await member(kit, group, topic)
  await shares('one member', 2, one)
  const [description] = (await kit.admin.describeGroups([group])).groups
  same('described', [description.state, description.protocolType, description.members.length], ['Stable', 'consumer', 1])
  const { groups } = await kit.admin.listGroups()
  holds(groups.some(({ groupId }) => groupId === group), 'the group is not listed')
  await fails('NON_EMPTY_GROUP', () => kit.admin.deleteGroups([group]).catch(firstOf))
  await one.consumer.disconnect()
  await kit.admin.deleteGroups([group])
  await fails('GROUP_ID_NOT_FOUND', () => kit.admin.deleteGroups([group]).catch(firstOf))
}

const firstOf = (problem) => {
  throw problem.groups?.[0]?.error ?? problem
}
