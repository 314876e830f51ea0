// Administration.

import kafkajs from 'kafkajs'
import { eventually, fails, fresh, holds, numbered, same, values } from './kit.mjs'

const { ConfigResourceTypes } = kafkajs

export default (kit) => ({
  'topics created, described, deleted': () => topics(kit),
  'topics that cannot be created': () => badTopics(kit),
  'partitions added': () => partitions(kit),
  settings: () => settings(kit),
  'records deleted': () => recordsDeleted(kit),
  'offsets listed': () => offsetsListed(kit),
  cluster: () => cluster(kit),
  reassignments: () => reassignments(kit),
})

async function topics(kit) {
  const topic = fresh('admin')
  const wanted = { topics: [{ topic, numPartitions: 4, replicationFactor: 1 }] }
  same('created', await kit.admin.createTopics(wanted), true)
  same('created again', await kit.admin.createTopics(wanted), false)
  const { topics: [found] } = await kit.admin.fetchTopicMetadata({ topics: [topic] })
  same('partitions', found.partitions.map(({ partitionId }) => partitionId).sort(), [0, 1, 2, 3])
  holds((await kit.admin.listTopics()).includes(topic), 'the topic is not listed')
  await kit.admin.deleteTopics({ topics: [topic] })
  await eventually('the topic being gone', async () => !(await kit.admin.listTopics()).includes(topic))
  await fails('UNKNOWN_TOPIC_OR_PARTITION', () => kit.admin.deleteTopics({ topics: [topic] }))
}

async function badTopics(kit) {
  const create = (topic, rest = {}) => kit.admin.createTopics({ topics: [{ topic, ...rest }], ...rest })
  await fails('INVALID_TOPIC_EXCEPTION', () => create('a/b'))
  await fails('INVALID_PARTITIONS', () => create(fresh('bad'), { numPartitions: 0 }))
  await fails('INVALID_REPLICATION_FACTOR', () => create(fresh('bad'), { replicationFactor: 0 }))
  const configEntries = [{ name: 'retention.ms', value: 'soon' }]
  await fails('INVALID_CONFIG', () => create(fresh('bad'), { configEntries }))
  const planned = fresh('planned')
  await create(planned, { validateOnly: true, waitForLeaders: false })
  holds(!(await kit.admin.listTopics()).includes(planned), 'the topic was created')
}

async function partitions(kit) {
  const topic = await kit.topic(2)
  await kit.admin.createPartitions({ topicPartitions: [{ topic, count: 5 }] })
  const { topics: [found] } = await kit.admin.fetchTopicMetadata({ topics: [topic] })
  same('partitions', found.partitions.length, 5)
  await fails('INVALID_PARTITIONS', () => kit.admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] }))
}

async function settings(kit) {
  const topic = await kit.topic(1)
  const read = async (name) => {
    const asked = [{ type: ConfigResourceTypes.TOPIC, name: topic, configNames: [name] }]
    const { resources } = await kit.admin.describeConfigs({ includeSynonyms: true, resources: asked })
    return resources[0].configEntries[0].configValue
  }
  const alter = (value) => {
    const configEntries = [{ name: 'retention.ms', value }]
    const resources = [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries }]
    return kit.admin.alterConfigs({ validateOnly: false, resources })
  }
  same('default', await read('retention.ms'), '604800000')
  await alter('777')
  same('altered', await read('retention.ms'), '777')
  await fails('INVALID_CONFIG', () => alter('soon'))
}

async function recordsDeleted(kit) {
  const topic = await kit.topic(1)
  await kit.produce(topic, numbered(10))
  await kit.administering(async (admin) => {
    await admin.fetchTopicOffsets(topic) // The call after it only knows leaders that were looked up before.
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '4' }] })
    same('values', values(await kit.read(topic, 6)), numbered(10).slice(4))
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '-1' }] })
    const [ends] = await admin.fetchTopicOffsets(topic)
    same('ends', [ends.low, ends.high], ['10', '10'])
  })
}

async function offsetsListed(kit) {
  const topic = await kit.topic(1)
  const start = 1_700_000_000_000
  const messages = numbered(10).map((value, number) => ({ value, timestamp: String(start + number * 1000) }))
  await kit.producing({}, (producer) => producer.send({ topic, messages }))
  await kit.administering(async (admin) => {
    const [ends] = await admin.fetchTopicOffsets(topic)
    same('ends', [ends.offset, ends.low, ends.high], ['10', '0', '10'])
    const at = async (time) => (await admin.fetchTopicOffsetsByTimestamp(topic, time))[0].offset
    same('at a time', await at(start + 4500), '5')
    same('past the end', await at(start + 1_000_000), '10')
  })
}

async function cluster(kit) {
  const { brokers, controller, clusterId } = await kit.admin.describeCluster()
  holds(clusterId, 'the cluster has no id')
  holds(brokers.some(({ nodeId }) => nodeId === controller), 'the controller is not one of the brokers')
}

async function reassignments(kit) {
  const topic = await kit.topic(1)
  const listed = await kit.admin.listPartitionReassignments({ topics: [{ topic, partitions: [0] }] })
  same('reassignments', listed.topics, [])
}
