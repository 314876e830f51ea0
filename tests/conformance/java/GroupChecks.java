import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentLinkedQueue;
import org.apache.kafka.clients.admin.MemberToRemove;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.ClassicGroupState;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.FencedInstanceIdException;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.GroupSubscribedToTopicException;
import org.apache.kafka.common.errors.WakeupException;

/** Consumer groups of the classic protocol, and their administration. */
final class GroupChecks {
    private GroupChecks() {
    }

    static void register(Kit kit, Map<String, Main.Check> checks) {
        checks.put("group of one consumes and commits", () -> one(kit));
        checks.put("members join and leave", () -> rebalance(kit, "org.apache.kafka.clients.consumer.RangeAssignor"));
        checks.put("cooperative members join and leave", () -> rebalance(kit, CooperativeStickyAssignor.class.getName()));
        checks.put("static member comes back", () -> staticMember(kit));
        checks.put("fenced static member", () -> fenced(kit));
        checks.put("commit of a member that was removed", () -> removed(kit));
        checks.put("auto commit", () -> autoCommit(kit));
        checks.put("commits without membership", () -> simpleCommits(kit));
        checks.put("admin sees groups", () -> describe(kit));
        checks.put("admin alters, lists and deletes offsets", () -> offsets(kit));
        checks.put("admin deletes groups", () -> delete(kit));
    }

    /** A member that polls on its own thread until closed. */
    private static final class Member implements AutoCloseable {
        final ConcurrentLinkedQueue<ConsumerRecord<String, String>> records = new ConcurrentLinkedQueue<>();
        volatile Set<TopicPartition> assignment = Set.of();
        private final KafkaConsumer<String, String> consumer;
        private final Thread thread;

        Member(Kit kit, String group, String topic, String... settings) {
            List<String> all = new ArrayList<>(List.of(settings));
            all.addAll(List.of("group.id", group, "heartbeat.interval.ms", "300", "session.timeout.ms", "6000"));
            consumer = kit.consumer(all.toArray(String[]::new));
            consumer.subscribe(List.of(topic));
            thread = new Thread(this::run, "member");
            thread.start();
        }

        private void run() {
            try (consumer) {
                while (true) {
                    consumer.poll(Duration.ofMillis(100)).forEach(records::add);
                    assignment = Set.copyOf(consumer.assignment());
                }
            } catch (WakeupException closing) {
                assignment = Set.of();
            }
        }

        @Override
        public void close() throws InterruptedException {
            consumer.wakeup();
            thread.join();
        }
    }

    private static void one(Kit kit) throws Exception {
        String topic = kit.topic(1);
        String group = Kit.fresh("group");
        kit.produce(topic, "a", "b", "c");
        TopicPartition partition = new TopicPartition(topic, 0);
        try (var consumer = kit.consumer("group.id", group, "enable.auto.commit", "false")) {
            consumer.subscribe(List.of(topic));
            Kit.same(3, Kit.poll(consumer, 3).size());
            Kit.same(null, consumer.committed(Set.of(partition)).get(partition));
            consumer.commitSync(Map.of(partition, new OffsetAndMetadata(2, "note")));
            consumer.commitAsync((offsets, problem) -> Kit.check(problem == null, "commit: " + problem));
        }
        try (var consumer = kit.consumer("group.id", group, "enable.auto.commit", "false")) {
            Kit.same(3L, consumer.committed(Set.of(partition)).get(partition).offset());
            consumer.subscribe(List.of(topic));
            kit.produce(topic, "d");
            Kit.same(List.of("d"), Kit.values(Kit.poll(consumer, 1)));
        }
    }

    private static void rebalance(Kit kit, String assignor) throws Exception {
        String topic = kit.topic(6);
        String group = Kit.fresh("group");
        String[] settings = {"partition.assignment.strategy", assignor};
        try (Member first = new Member(kit, group, topic, settings)) {
            Kit.eventually("the first having everything", () -> first.assignment.size() == 6);
            try (Member second = new Member(kit, group, topic, settings);
                    Member third = new Member(kit, group, topic, settings)) {
                List<Member> all = List.of(first, second, third);
                Kit.eventually("a fair share each", () -> all.stream().allMatch(member -> member.assignment.size() == 2));
                Set<TopicPartition> together = new HashSet<>();
                all.forEach(member -> together.addAll(member.assignment));
                Kit.same(6, together.size());
                try (var producer = kit.producer()) {
                    for (int number = 0; number < 600; number++) {
                        producer.send(new org.apache.kafka.clients.producer.ProducerRecord<>(
                                topic, number % 6, null, String.valueOf(number)));
                    }
                }
                Kit.eventually("every record at one member", () -> total(all) >= 600);
                Kit.same(600, total(all));
            }
            Kit.eventually("the first having everything again", () -> first.assignment.size() == 6);
        }
    }

    private static int total(Collection<Member> members) {
        return members.stream().mapToInt(member -> member.records.size()).sum();
    }

    private static void staticMember(Kit kit) throws Exception {
        String topic = kit.topic(2);
        String group = Kit.fresh("group");
        try (Member other = new Member(kit, group, topic, "group.instance.id", "other")) {
            Set<TopicPartition> before;
            try (Member restarting = new Member(kit, group, topic, "group.instance.id", "restarting")) {
                Kit.eventually("one each", () -> restarting.assignment.size() == 1 && other.assignment.size() == 1);
                before = restarting.assignment;
            }
            Set<TopicPartition> others = other.assignment;
            try (Member restarting = new Member(kit, group, topic, "group.instance.id", "restarting")) {
                Kit.eventually("its partition being back", () -> !restarting.assignment.isEmpty());
                Kit.same(before, restarting.assignment);
                Kit.same(others, other.assignment);
            }
        }
        var gone = List.of(new MemberToRemove("other"), new MemberToRemove("restarting"));
        kit.admin.removeMembersFromConsumerGroup(group, new RemoveMembersFromConsumerGroupOptions(gone)).all().get();
        Kit.eventually("an empty group", () -> state(kit, group) == ClassicGroupState.EMPTY);
    }

    private static void fenced(Kit kit) throws Exception {
        String topic = kit.topic(1);
        String group = Kit.fresh("group");
        try (var first = kit.consumer("group.id", group, "group.instance.id", "same");
                var second = kit.consumer("group.id", group, "group.instance.id", "same")) {
            first.subscribe(List.of(topic));
            Kit.eventually("an assignment", () -> assigned(first));
            second.subscribe(List.of(topic));
            Kit.eventually("the assignment of its successor", () -> assigned(second));
            TopicPartition partition = new TopicPartition(topic, 0);
            Kit.fails(FencedInstanceIdException.class, () -> {
                first.commitSync(Map.of(partition, new OffsetAndMetadata(1)));
                return null;
            });
        }
    }

    private static boolean assigned(KafkaConsumer<?, ?> consumer) {
        consumer.poll(Duration.ofMillis(50));
        return !consumer.assignment().isEmpty();
    }

    private static void removed(Kit kit) throws Exception {
        String topic = kit.topic(1);
        String group = Kit.fresh("group");
        try (var consumer = kit.consumer("group.id", group, "enable.auto.commit", "false")) {
            consumer.subscribe(List.of(topic));
            Kit.eventually("an assignment", () -> assigned(consumer));
            kit.admin.removeMembersFromConsumerGroup(group, new RemoveMembersFromConsumerGroupOptions()).all().get();
            Kit.fails(CommitFailedException.class, () -> {
                consumer.commitSync(Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(1)));
                return null;
            });
            // It joins again by itself.
            Kit.eventually("a new assignment", () -> assigned(consumer) && state(kit, group) == ClassicGroupState.STABLE);
        }
    }

    private static void autoCommit(Kit kit) throws Exception {
        String topic = kit.topic(1);
        String group = Kit.fresh("group");
        kit.produce(topic, "a", "b");
        try (var consumer = kit.consumer("group.id", group, "auto.commit.interval.ms", "100")) {
            consumer.subscribe(List.of(topic));
            Kit.poll(consumer, 2);
        }
        Kit.same(2L, committed(kit, group).get(new TopicPartition(topic, 0)).offset());
    }

    private static void simpleCommits(Kit kit) throws Exception {
        String topic = kit.topic(1);
        String group = Kit.fresh("group");
        TopicPartition partition = new TopicPartition(topic, 0);
        try (var consumer = kit.consumer("group.id", group)) {
            consumer.assign(List.of(partition));
            consumer.commitSync(Map.of(partition, new OffsetAndMetadata(7)));
        }
        Kit.same(7L, committed(kit, group).get(partition).offset());
    }

    private static void describe(Kit kit) throws Exception {
        String topic = kit.topic(2);
        String group = Kit.fresh("group");
        try (Member member = new Member(kit, group, topic, "client.id", "me")) {
            Kit.eventually("an assignment", () -> member.assignment.size() == 2);
            var found = kit.admin.describeConsumerGroups(List.of(group)).all().get().get(group);
            Kit.same(GroupState.STABLE, found.groupState());
            Kit.same("range", found.partitionAssignor());
            Kit.same(1, found.members().size());
            var described = found.members().iterator().next();
            Kit.same("me", described.clientId());
            Kit.same("/127.0.0.1", described.host());
            Kit.same(member.assignment, described.assignment().topicPartitions());
            Kit.check(kit.admin.listGroups().all().get().stream().anyMatch(listed -> listed.groupId().equals(group)
                    && listed.protocol().equals("consumer")), "the group is not listed");
            Kit.same(ClassicGroupState.STABLE, kit.admin.describeClassicGroups(List.of(group)).all().get().get(group).state());
        }
        Kit.eventually("an empty group", () -> state(kit, group) == ClassicGroupState.EMPTY);
        String unknown = Kit.fresh("unknown");
        Kit.fails(GroupIdNotFoundException.class, () -> kit.admin.describeConsumerGroups(List.of(unknown)).all().get());
    }

    private static void offsets(Kit kit) throws Exception {
        String topic = kit.topic(2);
        String group = Kit.fresh("group");
        TopicPartition zero = new TopicPartition(topic, 0);
        TopicPartition one = new TopicPartition(topic, 1);
        kit.produce(topic, "a", "b", "c");
        long end = kit.admin.listOffsets(Map.of(zero, OffsetSpec.latest())).all().get().get(zero).offset();
        kit.admin.alterConsumerGroupOffsets(group,
                Map.of(zero, new OffsetAndMetadata(end, "by hand"), one, new OffsetAndMetadata(0))).all().get();
        Kit.same(3L, committed(kit, group).get(zero).offset());
        Kit.same("by hand", committed(kit, group).get(zero).metadata());
        kit.admin.deleteConsumerGroupOffsets(group, Set.of(one)).all().get();
        Kit.same(Set.of(zero), committed(kit, group).keySet());
        try (Member member = new Member(kit, group, topic)) {
            Kit.eventually("an assignment", () -> member.assignment.size() == 2);
            Kit.fails(GroupSubscribedToTopicException.class,
                    () -> kit.admin.deleteConsumerGroupOffsets(group, Set.of(zero)).partitionResult(zero).get());
        }
    }

    private static void delete(Kit kit) throws Exception {
        String topic = kit.topic(1);
        String group = Kit.fresh("group");
        try (Member member = new Member(kit, group, topic)) {
            Kit.eventually("an assignment", () -> !member.assignment.isEmpty());
            Kit.fails(GroupNotEmptyException.class, () -> kit.admin.deleteConsumerGroups(List.of(group)).all().get());
        }
        Kit.eventually("an empty group", () -> state(kit, group) == ClassicGroupState.EMPTY);
        kit.admin.deleteConsumerGroups(List.of(group)).all().get();
        Kit.fails(GroupIdNotFoundException.class, () -> kit.admin.deleteConsumerGroups(List.of(group)).all().get());
        Kit.check(kit.admin.listGroups().all().get().stream().noneMatch(found -> found.groupId().equals(group)),
                "the deleted group is still listed");
    }

    private static ClassicGroupState state(Kit kit, String group) throws Exception {
        return kit.admin.describeClassicGroups(List.of(group)).all().get().get(group).state();
    }

    private static Map<TopicPartition, OffsetAndMetadata> committed(Kit kit, String group) throws Exception {
        return kit.admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
    }
}
