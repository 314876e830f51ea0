import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.AlterConfigOp.OpType;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConfigEntry.ConfigSource;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.ElectionNotNeededException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicaAssignmentException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.NoReassignmentInProgressException;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicIdException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;

/** The administrator's client: topics, settings, records, cluster. */
final class AdminChecks {
    private AdminChecks() {
    }

    static void register(Kit kit, Map<String, Main.Check> checks) {
        checks.put("topic is created with its settings", () -> create(kit));
        checks.put("topic that must be refused", () -> refused(kit));
        checks.put("topic is deleted", () -> delete(kit));
        checks.put("partitions are added", () -> addPartitions(kit));
        checks.put("topic settings are altered", () -> settings(kit));
        checks.put("broker settings are described", () -> brokerSettings(kit));
        checks.put("records are deleted", () -> deleteRecords(kit));
        checks.put("every kind of offset", () -> offsets(kit));
        checks.put("cluster is described", () -> cluster(kit));
        checks.put("log directories", () -> logDirectories(kit));
        checks.put("producers are described", () -> producers(kit));
        checks.put("election is not needed", () -> election(kit));
        checks.put("reassignment has nothing to do", () -> reassignment(kit));
        checks.put("many topics are described in pages", () -> pages(kit));
    }

    private static void create(Kit kit) throws Exception {
        String name = Kit.fresh("java");
        NewTopic topic = new NewTopic(name, Optional.of(3), Optional.empty()).configs(Map.of("retention.ms", "60000"));
        var created = kit.admin.createTopics(List.of(topic));
        created.all().get();
        Kit.same(3, created.numPartitions(name).get());
        Kit.same("60000", created.config(name).get().get("retention.ms").value());
        Kit.check(kit.admin.listTopics().names().get().contains(name), "the topic is not listed");
        var found = kit.admin.describeTopics(List.of(name)).allTopicNames().get().get(name);
        Kit.same(created.topicId(name).get(), found.topicId());
        Kit.same(List.of(0, 1, 2), found.partitions().stream().map(partition -> partition.partition()).toList());
        found.partitions().forEach(partition -> Kit.same(partition.replicas(), partition.isr()));
        var dry = new CreateTopicsOptions().validateOnly(true);
        String other = Kit.fresh("java");
        kit.admin.createTopics(List.of(new NewTopic(other, 1, (short) 1)), dry).all().get();
        Kit.check(!kit.admin.listTopics().names().get().contains(other), "validateOnly created the topic");
    }

    private static void refused(Kit kit) throws Exception {
        String name = kit.topic(1);
        refuse(kit, TopicExistsException.class, new NewTopic(name, 1, (short) 1));
        refuse(kit, InvalidTopicException.class, new NewTopic("a b", 1, (short) 1));
        refuse(kit, InvalidPartitionsException.class, new NewTopic(Kit.fresh("java"), 0, (short) 1));
        refuse(kit, InvalidConfigurationException.class,
                new NewTopic(Kit.fresh("java"), 1, (short) 1).configs(Map.of("retention.ms", "soon")));
        refuse(kit, InvalidConfigurationException.class,
                new NewTopic(Kit.fresh("java"), 1, (short) 1).configs(Map.of("no.such.thing", "1")));
        refuse(kit, InvalidReplicaAssignmentException.class, new NewTopic(Kit.fresh("java"), Map.of(0, List.of(12345))));
    }

    private static void refuse(Kit kit, Class<? extends Exception> with, NewTopic topic) throws Exception {
        Kit.fails(with, () -> kit.admin.createTopics(List.of(topic)).all().get());
    }

    private static void delete(Kit kit) throws Exception {
        String name = kit.topic(1);
        var id = kit.admin.describeTopics(List.of(name)).allTopicNames().get().get(name).topicId();
        kit.admin.deleteTopics(List.of(name)).all().get();
        Kit.eventually("the topic being gone", () -> !kit.admin.listTopics().names().get().contains(name));
        Kit.fails(UnknownTopicOrPartitionException.class, () -> kit.admin.deleteTopics(List.of(name)).all().get());
        Kit.fails(UnknownTopicIdException.class, () -> kit.admin.deleteTopics(
                org.apache.kafka.common.TopicCollection.ofTopicIds(List.of(id))).all().get());
    }

    private static void addPartitions(Kit kit) throws Exception {
        String name = kit.topic(2);
        kit.admin.createPartitions(Map.of(name, NewPartitions.increaseTo(4))).all().get();
        Kit.eventually("four partitions", () -> kit.admin.describeTopics(List.of(name)).allTopicNames().get()
                .get(name).partitions().size() == 4);
        Kit.fails(InvalidPartitionsException.class,
                () -> kit.admin.createPartitions(Map.of(name, NewPartitions.increaseTo(4))).all().get());
        Kit.fails(InvalidPartitionsException.class,
                () -> kit.admin.createPartitions(Map.of(name, NewPartitions.increaseTo(1))).all().get());
        try (var producer = kit.producer()) {
            Kit.eventually("producing to the new partition",
                    () -> producer.send(new ProducerRecord<>(name, 3, null, "x")).get().offset() >= 0);
        }
    }

    private static void settings(Kit kit) throws Exception {
        ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, kit.topic(1));
        alter(kit, topic, OpType.SET, "retention.ms", "12345");
        alter(kit, topic, OpType.APPEND, "cleanup.policy", "compact");
        Config found = described(kit, topic, config -> "12345".equals(config.get("retention.ms").value()));
        Kit.same("delete,compact", found.get("cleanup.policy").value());
        Kit.same(ConfigSource.DYNAMIC_TOPIC_CONFIG, found.get("retention.ms").source());
        Kit.same(ConfigSource.DEFAULT_CONFIG, found.get("max.message.bytes").source());
        Kit.same("1048588", found.get("max.message.bytes").value());
        alter(kit, topic, OpType.SUBTRACT, "cleanup.policy", "delete");
        alter(kit, topic, OpType.DELETE, "retention.ms", null);
        Config back = described(kit, topic, config -> "604800000".equals(config.get("retention.ms").value()));
        Kit.same("compact", back.get("cleanup.policy").value());
        Kit.check(back.entries().size() >= 30, "only " + back.entries().size() + " settings");
        Kit.fails(InvalidConfigurationException.class, () -> alter(kit, topic, OpType.SET, "retention.ms", "soon"));
        Kit.fails(InvalidConfigurationException.class, () -> alter(kit, topic, OpType.APPEND, "retention.ms", "1"));
        Kit.fails(UnknownTopicOrPartitionException.class, () -> alter(kit,
                new ConfigResource(ConfigResource.Type.TOPIC, Kit.fresh("unknown")), OpType.SET, "retention.ms", "1"));
    }

    private static Void alter(Kit kit, ConfigResource on, OpType how, String name, String value) throws Exception {
        Collection<AlterConfigOp> change = List.of(new AlterConfigOp(new ConfigEntry(name, value), how));
        return kit.admin.incrementalAlterConfigs(Map.of(on, change)).all().get();
    }

    private static Config described(Kit kit, ConfigResource of, java.util.function.Predicate<Config> until)
            throws Exception {
        Kit.eventually("the change", () -> until.test(kit.admin.describeConfigs(List.of(of)).all().get().get(of)));
        return kit.admin.describeConfigs(List.of(of)).all().get().get(of);
    }

    private static void brokerSettings(Kit kit) throws Exception {
        Node node = kit.admin.describeCluster().nodes().get().iterator().next();
        ConfigResource broker = new ConfigResource(ConfigResource.Type.BROKER, node.idString());
        Config found = kit.admin.describeConfigs(List.of(broker)).all().get().get(broker);
        Kit.same("true", found.get("auto.create.topics.enable").value());
        Kit.same("true", found.get("delete.topic.enable").value());
        Kit.check(found.get("log.retention.ms") != null || found.get("log.retention.hours") != null, "no retention");
    }

    private static void deleteRecords(Kit kit) throws Exception {
        String name = kit.topic(1);
        kit.produce(name, "0", "1", "2", "3", "4");
        TopicPartition partition = new TopicPartition(name, 0);
        Kit.same(3L, trim(kit, partition, 3));
        Kit.same("3", kit.readAll(name, 0, 1).get(0).value());
        Kit.same(3L, trim(kit, partition, 1));
        Kit.fails(OffsetOutOfRangeException.class, () -> trim(kit, partition, 100));
        Kit.same(5L, trim(kit, partition, -1));
        Kit.same(5L, kit.admin.listOffsets(Map.of(partition, OffsetSpec.earliest())).all().get().get(partition).offset());
    }

    private static long trim(Kit kit, TopicPartition partition, long before) throws Exception {
        return kit.admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(before))).lowWatermarks()
                .get(partition).get().lowWatermark();
    }

    private static void offsets(Kit kit) throws Exception {
        String name = kit.topic(1);
        TopicPartition partition = new TopicPartition(name, 0);
        Kit.same(-1L, offset(kit, partition, OffsetSpec.maxTimestamp()));
        try (var producer = kit.producer()) {
            for (long timestamp : new long[] {1000, 3000, 2000}) {
                producer.send(new ProducerRecord<>(name, 0, timestamp, null, "x")).get();
            }
        }
        Kit.same(3L, offset(kit, partition, OffsetSpec.latest()));
        Kit.same(0L, offset(kit, partition, OffsetSpec.earliest()));
        Kit.same(1L, offset(kit, partition, OffsetSpec.maxTimestamp()));
        Kit.same(0L, offset(kit, partition, OffsetSpec.earliestLocal()));
        Kit.same(-1L, offset(kit, partition, OffsetSpec.latestTiered()));
        Kit.same(1L, offset(kit, partition, OffsetSpec.forTimestamp(1001)));
        Kit.same(-1L, offset(kit, partition, OffsetSpec.forTimestamp(3001)));
    }

    private static long offset(Kit kit, TopicPartition partition, OffsetSpec of) throws Exception {
        return kit.admin.listOffsets(Map.of(partition, of)).all().get().get(partition).offset();
    }

    private static void cluster(Kit kit) throws Exception {
        var cluster = kit.admin.describeCluster();
        Kit.check(!cluster.clusterId().get().isEmpty(), "no cluster id");
        Kit.check(cluster.nodes().get().contains(cluster.controller().get()), "the controller is no node");
        var features = kit.admin.describeFeatures().featureMetadata().get();
        features.finalizedFeatures().forEach((name, range) ->
                Kit.check(features.supportedFeatures().containsKey(name), name + " is not supported"));
    }

    private static void logDirectories(Kit kit) throws Exception {
        String name = kit.topic(1);
        kit.produce(name, "x".repeat(10_000));
        int node = kit.admin.describeCluster().nodes().get().iterator().next().id();
        Kit.eventually("the partition's size", () -> kit.admin.describeLogDirs(List.of(node)).allDescriptions().get()
                .get(node).values().stream().anyMatch(directory -> directory.replicaInfos()
                        .containsKey(new TopicPartition(name, 0))));
    }

    private static void producers(Kit kit) throws Exception {
        String name = kit.topic(1);
        kit.produce(name, "a", "b");
        TopicPartition partition = new TopicPartition(name, 0);
        var active = kit.admin.describeProducers(Set.of(partition)).partitionResult(partition).get().activeProducers();
        Kit.same(1, active.size());
        Kit.same(1, active.get(0).lastSequence());
    }

    private static void election(Kit kit) throws Exception {
        TopicPartition partition = new TopicPartition(kit.topic(1), 0);
        var elected = kit.admin.electLeaders(ElectionType.PREFERRED, Set.of(partition)).partitions().get();
        Kit.check(elected.get(partition).get() instanceof ElectionNotNeededException, "got " + elected);
    }

    private static void reassignment(Kit kit) throws Exception {
        TopicPartition partition = new TopicPartition(kit.topic(1), 0);
        int node = kit.admin.describeCluster().nodes().get().iterator().next().id();
        var here = Optional.of(new NewPartitionReassignment(List.of(node)));
        kit.admin.alterPartitionReassignments(Map.of(partition, here)).all().get();
        Kit.same(Map.of(), kit.admin.listPartitionReassignments().reassignments().get());
        Kit.fails(NoReassignmentInProgressException.class,
                () -> kit.admin.alterPartitionReassignments(Map.of(partition, Optional.empty())).all().get());
        var elsewhere = Optional.of(new NewPartitionReassignment(List.of(12345)));
        Kit.fails(InvalidReplicaAssignmentException.class,
                () -> kit.admin.alterPartitionReassignments(Map.of(partition, elsewhere)).all().get());
    }

    private static void pages(Kit kit) throws Exception {
        List<String> names = List.of(kit.topic(3), kit.topic(3), kit.topic(3));
        var options = new org.apache.kafka.clients.admin.DescribeTopicsOptions().partitionSizeLimitPerResponse(2);
        var found = kit.admin.describeTopics(names, options).allTopicNames().get();
        Kit.same(Set.copyOf(names), found.keySet());
        found.values().forEach(topic -> Kit.same(3, topic.partitions().size()));
    }
}
