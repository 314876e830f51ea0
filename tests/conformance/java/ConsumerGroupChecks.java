import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.InvalidRegularExpression;
import org.apache.kafka.common.errors.UnreleasedInstanceIdException;
import org.apache.kafka.common.errors.WakeupException;

/** Consumer groups of KIP-848, mixed with classic members too. */
final class ConsumerGroupChecks {
    private ConsumerGroupChecks() {
    }

    static void register(Kit kit, Map<String, Main.Check> checks) {
        checks.put("consumer protocol: one consumes and commits", () -> one(kit));
        checks.put("consumer protocol: members join and leave", () -> rebalance(kit, "uniform"));
        checks.put("consumer protocol: range assignor", () -> rebalance(kit, "range"));
        checks.put("consumer protocol: regular expression", () -> regex(kit));
        checks.put("consumer protocol: bad regular expression", () -> badRegex(kit));
        checks.put("consumer protocol: topic grows", () -> topicGrows(kit));
        checks.put("consumer protocol: static member comes back", () -> staticMember(kit));
        checks.put("consumer protocol: instance id in use", () -> unreleased(kit));
        checks.put("consumer protocol: offsets in a transaction", () -> transaction(kit));
        checks.put("consumer protocol: admin sees groups", () -> admin(kit));
        checks.put("consumer protocol: upgrade and downgrade while running", () -> migrate(kit));
    }

    /** A member that polls on its own thread until closed. */
    private static final class Member implements AutoCloseable {
        final ConcurrentLinkedQueue<ConsumerRecord<String, String>> records = new ConcurrentLinkedQueue<>();
        final AtomicInteger revoked = new AtomicInteger();
        volatile Set<TopicPartition> assignment = Set.of();
        volatile Throwable problem;
        private final KafkaConsumer<String, String> consumer;
        private final Thread thread;

        Member(Kit kit, String group, Object topics, String... settings) {
            List<String> all = new ArrayList<>(List.of(settings));
            all.addAll(List.of("group.id", group));
            if (!all.contains("group.protocol")) {
                all.addAll(List.of("group.protocol", "consumer"));
            }
            consumer = kit.consumer(all.toArray(String[]::new));
            ConsumerRebalanceListener counts = new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                    revoked.addAndGet(partitions.size());
                }

                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                }
            };
            if (topics instanceof SubscriptionPattern pattern) {
                consumer.subscribe(pattern, counts);
            } else {
                consumer.subscribe(List.of((String) topics), counts);
            }
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
            } catch (RuntimeException failed) {
                problem = failed;
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
        String[] settings = {"group.id", group, "group.protocol", "consumer", "enable.auto.commit", "false"};
        try (var consumer = kit.consumer(settings)) {
            consumer.subscribe(List.of(topic));
            Kit.same(3, Kit.poll(consumer, 3).size());
            consumer.commitSync(Map.of(partition, new OffsetAndMetadata(2, "note")));
            Kit.same(2L, consumer.committed(Set.of(partition)).get(partition).offset());
            consumer.commitSync();
        }
        try (var consumer = kit.consumer(settings)) {
            consumer.subscribe(List.of(topic));
            kit.produce(topic, "d");
            Kit.same(List.of("d"), Kit.values(Kit.poll(consumer, 1)));
        }
    }

    private static void rebalance(Kit kit, String assignor) throws Exception {
        String topic = kit.topic(6);
        String group = Kit.fresh("group");
        String[] settings = {"group.remote.assignor", assignor};
        try (Member first = new Member(kit, group, topic, settings)) {
            Kit.eventually("the first having everything", () -> first.assignment.size() == 6);
            try (Member second = new Member(kit, group, topic, settings);
                    Member third = new Member(kit, group, topic, settings)) {
                List<Member> all = List.of(first, second, third);
                Kit.eventually("a fair share each", () -> fair(all, 6));
                try (var producer = kit.producer()) {
                    for (int number = 0; number < 600; number++) {
                        producer.send(new ProducerRecord<>(topic, number % 6, null, String.valueOf(number)));
                    }
                }
                Kit.eventually("every record at one member", () -> total(all) >= 600);
                Kit.same(600, total(all));
                // One after the other they may be given their shares; the range assignor then goes by their ids anew.
                int most = assignor.equals("range") ? 5 : 4;
                int revoked = first.revoked.get();
                Kit.check(revoked >= 4 && revoked <= most, "the first gave back " + revoked);
            }
            Kit.eventually("the first having everything again", () -> first.assignment.size() == 6);
        }
        Kit.eventually("an empty group", () -> described(kit, group).groupState() == GroupState.EMPTY);
    }

    /** All partitions are at one member each, in shares that differ by one at most. */
    private static boolean fair(List<Member> members, int partitions) {
        Set<TopicPartition> together = new HashSet<>();
        int sum = 0;
        int least = Integer.MAX_VALUE;
        int most = 0;
        for (Member member : members) {
            Set<TopicPartition> has = member.assignment;
            together.addAll(has);
            sum += has.size();
            least = Math.min(least, has.size());
            most = Math.max(most, has.size());
        }
        return sum == partitions && together.size() == partitions && most - least <= 1;
    }

    private static int total(Collection<Member> members) {
        return members.stream().mapToInt(member -> member.records.size()).sum();
    }

    private static void regex(Kit kit) throws Exception {
        String group = Kit.fresh("group");
        String prefix = Kit.fresh("regex");
        kit.create(prefix + "-one", 1);
        try (Member member = new Member(kit, group, new SubscriptionPattern(prefix + "-(one|two)"))) {
            Kit.eventually("the topic that is there", () -> member.assignment.size() == 1);
            kit.create(prefix + "-three", 1);
            kit.create(prefix + "-two", 2);
            Kit.eventually("the topic that came", () -> member.assignment.size() == 3);
            var described = described(kit, group).members().iterator().next();
            Kit.same(3, described.assignment().topicPartitions().size());
            kit.admin.deleteTopics(List.of(prefix + "-two")).all().get();
            Kit.eventually("the topic that went", () -> member.assignment.size() == 1);
        }
    }

    private static void badRegex(Kit kit) throws Exception {
        try (Member member = new Member(kit, Kit.fresh("group"), new SubscriptionPattern("(unclosed"))) {
            Kit.eventually("the refusal", () -> member.problem instanceof InvalidRegularExpression);
        }
    }

    private static void topicGrows(Kit kit) throws Exception {
        String topic = kit.topic(1);
        try (Member member = new Member(kit, Kit.fresh("group"), topic)) {
            Kit.eventually("its partition", () -> member.assignment.size() == 1);
            kit.admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(3))).all().get();
            Kit.eventually("the new partitions", () -> member.assignment.size() == 3);
        }
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
            int revoked = other.revoked.get();
            try (Member restarting = new Member(kit, group, topic, "group.instance.id", "restarting")) {
                Kit.eventually("its partition being back", () -> !restarting.assignment.isEmpty());
                Kit.same(before, restarting.assignment);
                Kit.same(revoked, other.revoked.get());
            }
        }
    }

    private static void unreleased(Kit kit) throws Exception {
        String topic = kit.topic(1);
        String group = Kit.fresh("group");
        try (Member first = new Member(kit, group, topic, "group.instance.id", "same")) {
            Kit.eventually("its partition", () -> first.assignment.size() == 1);
            try (Member second = new Member(kit, group, topic, "group.instance.id", "same")) {
                Kit.eventually("the refusal", () -> second.problem instanceof UnreleasedInstanceIdException);
            }
            Kit.same(1, first.assignment.size());
        }
    }

    private static void transaction(Kit kit) throws Exception {
        String topic = kit.topic(1);
        String group = Kit.fresh("group");
        kit.produce(topic, "a", "b");
        TopicPartition partition = new TopicPartition(topic, 0);
        try (var consumer = kit.consumer("group.id", group, "group.protocol", "consumer", "enable.auto.commit", "false");
                var producer = kit.producer("transactional.id", Kit.fresh("id"))) {
            consumer.subscribe(List.of(topic));
            Kit.poll(consumer, 2);
            producer.initTransactions();
            producer.beginTransaction();
            producer.sendOffsetsToTransaction(Map.of(partition, new OffsetAndMetadata(2)), consumer.groupMetadata());
            producer.commitTransaction();
            Kit.same(2L, consumer.committed(Set.of(partition)).get(partition).offset());
        }
    }

    private static ConsumerGroupDescription described(Kit kit, String group) throws Exception {
        return kit.admin.describeConsumerGroups(List.of(group)).all().get().get(group);
    }

    private static void admin(Kit kit) throws Exception {
        String topic = kit.topic(2);
        String group = Kit.fresh("group");
        try (Member member = new Member(kit, group, topic, "client.rack", "zone-a", "client.id", "somebody")) {
            Kit.eventually("its partitions", () -> member.assignment.size() == 2);
            Kit.eventually("a stable group", () -> described(kit, group).groupState() == GroupState.STABLE);
            var found = described(kit, group);
            Kit.same(GroupType.CONSUMER, found.type());
            Kit.same("uniform", found.partitionAssignor());
            Kit.same(found.groupEpoch(), found.targetAssignmentEpoch());
            var one = found.members().iterator().next();
            Kit.same("somebody", one.clientId());
            Kit.same(2, one.assignment().topicPartitions().size());
            Kit.same(2, one.targetAssignment().get().topicPartitions().size());
            Kit.same(found.groupEpoch().get(), one.memberEpoch().get());
            Kit.same(false, one.upgraded().map(upgraded -> !upgraded).orElse(false));
            var options = new ListGroupsOptions().withTypes(Set.of(GroupType.CONSUMER));
            var listed = kit.admin.listGroups(options).all().get().stream().filter(it -> it.groupId().equals(group)).toList();
            Kit.same(GroupState.STABLE, listed.get(0).groupState().get());
            Kit.same(GroupType.CONSUMER, listed.get(0).type().get());
            Kit.fails(GroupNotEmptyException.class, () -> kit.admin.deleteConsumerGroups(List.of(group)).all().get());
        }
        Kit.eventually("an empty group", () -> described(kit, group).groupState() == GroupState.EMPTY);
        kit.admin.deleteConsumerGroups(List.of(group)).all().get();
    }

    private static void migrate(Kit kit) throws Exception {
        String topic = kit.topic(4);
        String group = Kit.fresh("group");
        String[] classic = {"group.protocol", "classic", "heartbeat.interval.ms", "300", "session.timeout.ms", "6000",
            "partition.assignment.strategy", "org.apache.kafka.clients.consumer.CooperativeStickyAssignor"};
        try (Member old = new Member(kit, group, topic, classic)) {
            Kit.eventually("everything at the classic member", () -> old.assignment.size() == 4);
            Kit.same(GroupType.CLASSIC, described(kit, group).type());
            try (Member modern = new Member(kit, group, topic)) {
                Kit.eventually("half for each", () -> fair(List.of(old, modern), 4));
                Kit.same(GroupType.CONSUMER, described(kit, group).type());
                kit.produce(topic, "a", "b");
                Kit.eventually("the records", () -> total(List.of(old, modern)) == 2);
            }
            Kit.eventually("everything at the classic member again", () -> old.assignment.size() == 4);
            Kit.same(GroupType.CLASSIC, described(kit, group).type());
            Kit.same(null, old.problem);
        }
    }
}
