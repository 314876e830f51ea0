import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.ListShareGroupOffsetsSpec;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.serialization.StringDeserializer;

/** Share groups: KafkaShareConsumer in both modes of acknowledgement, many of them at once, and administration. */
final class ShareChecks {
    private ShareChecks() {
    }

    static void register(Kit kit, Map<String, Main.Check> checks) {
        checks.put("share consumer acknowledges by polling on", () -> implicit(kit));
        checks.put("share consumer accepts, releases and rejects", () -> explicit(kit));
        checks.put("share consumer renews", () -> renew(kit));
        checks.put("share consumers part the records of one partition", () -> many(kit));
        checks.put("share consumer that is closed releases what it had", () -> closed(kit));
        checks.put("share consumer reads committed records", () -> committed(kit));
        checks.put("share consumer takes no more than asked for", () -> limited(kit));
        checks.put("admin sees, alters and deletes share groups", () -> admin(kit));
    }

    private static String group(Kit kit, String... settings) throws Exception {
        String group = Kit.fresh("share");
        Map<String, String> all = new HashMap<>(Kit.map(settings));
        all.putIfAbsent("share.auto.offset.reset", "earliest");
        Collection<AlterConfigOp> changes = new ArrayList<>();
        all.forEach((name, value) ->
                changes.add(new AlterConfigOp(new ConfigEntry(name, value), AlterConfigOp.OpType.SET)));
        kit.admin.incrementalAlterConfigs(
                Map.of(new ConfigResource(ConfigResource.Type.GROUP, group), changes)).all().get();
        return group;
    }

    private static KafkaShareConsumer<String, String> consumer(Kit kit, String group, String... settings) {
        Map<String, Object> all = new HashMap<>(Kit.map(settings));
        all.putAll(kit.connection());
        all.put("group.id", group);
        return new KafkaShareConsumer<>(all, new StringDeserializer(), new StringDeserializer());
    }

    private static List<String> numbers(int from, int to) {
        return IntStream.range(from, to).mapToObj(Integer::toString).toList();
    }

    /** Polls, acknowledging by that, until so many different values came; how often each came. */
    private static Map<String, Integer> drain(KafkaShareConsumer<String, String> consumer, int count) {
        Map<String, Integer> seen = new HashMap<>();
        long deadline = System.nanoTime() + Duration.ofSeconds(30).toNanos();
        while (seen.size() < count) {
            consumer.poll(Duration.ofMillis(200)).forEach(record -> seen.merge(record.value(), 1, Integer::sum));
            Kit.check(System.nanoTime() < deadline, "only " + seen.size() + " of " + count + " records came");
        }
        return seen;
    }

    private static List<ConsumerRecord<String, String>> pollSome(KafkaShareConsumer<String, String> consumer) {
        List<ConsumerRecord<String, String>> found = new ArrayList<>();
        long deadline = System.nanoTime() + Duration.ofSeconds(30).toNanos();
        while (found.isEmpty()) {
            consumer.poll(Duration.ofMillis(200)).forEach(found::add);
            Kit.check(System.nanoTime() < deadline, "no records came");
        }
        return found;
    }

    private static void implicit(Kit kit) throws Exception {
        String topic = kit.topic(3);
        String group = group(kit);
        try (var producer = kit.producer(); var consumer = consumer(kit, group)) {
            consumer.subscribe(List.of(topic));
            for (String value : numbers(0, 3000)) {
                producer.send(new ProducerRecord<>(topic, value));
            }
            producer.flush();
            Map<String, Integer> seen = drain(consumer, 3000);
            Kit.same(new HashSet<>(numbers(0, 3000)), seen.keySet());
            Kit.check(seen.values().stream().allMatch(times -> times == 1), "a record came twice");
            consumer.commitSync().values().forEach(error -> Kit.check(error.isEmpty(), "" + error));
        }
        try (var consumer = consumer(kit, group)) {
            consumer.subscribe(List.of(topic));
            for (int tries = 0; tries < 5; tries++) {
                Kit.check(consumer.poll(Duration.ofMillis(300)).isEmpty(), "an acknowledged record came again");
            }
        }
    }

    private static void explicit(Kit kit) throws Exception {
        String topic = kit.topic(1);
        kit.produce(topic, numbers(0, 10).toArray(String[]::new));
        Map<String, AcknowledgeType> said = Map.of("1", AcknowledgeType.RELEASE, "3", AcknowledgeType.REJECT);
        try (var consumer = consumer(kit, group(kit), "share.acknowledgement.mode", "explicit")) {
            consumer.subscribe(List.of(topic));
            AtomicInteger told = new AtomicInteger();
            consumer.setAcknowledgementCommitCallback((offsets, error) ->
                    offsets.values().forEach(found -> told.addAndGet(error == null ? found.size() : -1000)));
            List<ConsumerRecord<String, String>> first = new ArrayList<>();
            Map<String, Short> deliveries = new HashMap<>();
            Set<String> done = new HashSet<>();
            long deadline = System.nanoTime() + Duration.ofSeconds(30).toNanos();
            while (done.size() < 10) {
                Kit.check(System.nanoTime() < deadline, "only " + done + " came");
                for (var record : consumer.poll(Duration.ofMillis(200))) {
                    boolean again = record.deliveryCount().orElse((short) 0) > 1;
                    AcknowledgeType type = again
                            ? AcknowledgeType.ACCEPT : said.getOrDefault(record.value(), AcknowledgeType.ACCEPT);
                    deliveries.put(record.value(), record.deliveryCount().orElse((short) 0));
                    consumer.acknowledge(record, type);
                    if (type != AcknowledgeType.RELEASE) {
                        done.add(record.value());
                    }
                    first.add(record);
                }
                consumer.commitSync();
            }
            Kit.same(11, first.size());
            Kit.same((short) 2, deliveries.get("1"));
            Kit.same((short) 1, deliveries.get("3"));
            Kit.eventually("all acknowledgements to be confirmed", () -> {
                consumer.poll(Duration.ofMillis(50));
                return told.get() == 11;
            });
        }
    }

    private static void renew(Kit kit) throws Exception {
        String topic = kit.topic(1);
        kit.produce(topic, "a", "b");
        try (var consumer = consumer(kit, group(kit), "share.acknowledgement.mode", "explicit")) {
            consumer.subscribe(List.of(topic));
            List<ConsumerRecord<String, String>> found = pollSome(consumer);
            found.forEach(record -> consumer.acknowledge(record, AcknowledgeType.RENEW));
            consumer.commitSync().values().forEach(error -> Kit.check(error.isEmpty(), "" + error));
            // What was renewed is still the consumer's, and comes again from its own memory.
            List<ConsumerRecord<String, String>> again = pollSome(consumer);
            Kit.same(found.get(0).value(), again.get(0).value());
            again.forEach(record -> consumer.acknowledge(record, AcknowledgeType.ACCEPT));
            consumer.commitSync().values().forEach(error -> Kit.check(error.isEmpty(), "" + error));
        }
    }

    private static void many(Kit kit) throws Exception {
        String topic = kit.topic(1);
        String group = group(kit);
        int count = 5000;
        Map<String, Integer> seen = new ConcurrentHashMap<>();
        ConcurrentLinkedQueue<Throwable> failures = new ConcurrentLinkedQueue<>();
        AtomicBoolean done = new AtomicBoolean();
        int[] shares = new int[3];
        List<Thread> threads = IntStream.range(0, 3).mapToObj(number -> new Thread(() -> {
            try (var consumer = consumer(kit, group, "max.poll.records", "100")) {
                consumer.subscribe(List.of(topic));
                while (!done.get()) {
                    for (var record : consumer.poll(Duration.ofMillis(100))) {
                        seen.merge(record.value(), 1, Integer::sum);
                        shares[number]++;
                    }
                }
            } catch (Throwable failure) {
                failures.add(failure);
            }
        })).toList();
        threads.forEach(Thread::start);
        Kit.eventually("everybody to be assigned the partition", () -> {
            var members = kit.admin.describeShareGroups(List.of(group)).all().get().get(group).members();
            return members.stream().filter(one -> !one.assignment().topicPartitions().isEmpty()).count() == 3;
        });
        try (var producer = kit.producer("linger.ms", "1", "batch.size", "1000")) {
            for (String value : numbers(0, count)) {
                producer.send(new ProducerRecord<>(topic, value));
            }
            producer.flush();
            Kit.eventually("all records", () -> seen.size() == count);
        } finally {
            done.set(true);
        }
        for (Thread thread : threads) {
            thread.join();
        }
        Kit.check(failures.isEmpty(), "a consumer failed: " + failures);
        Kit.check(seen.values().stream().allMatch(times -> times == 1), "a record came twice");
        Kit.check(IntStream.of(shares).filter(share -> share > 0).count() > 1, "one consumer got everything");
    }

    private static void closed(Kit kit) throws Exception {
        String topic = kit.topic(1);
        kit.produce(topic, "a", "b", "c");
        String group = group(kit);
        try (var consumer = consumer(kit, group, "share.acknowledgement.mode", "explicit")) {
            consumer.subscribe(List.of(topic));
            pollSome(consumer);
        }
        try (var consumer = consumer(kit, group)) {
            consumer.subscribe(List.of(topic));
            Kit.same(Set.of("a", "b", "c"), drain(consumer, 3).keySet());
        }
    }

    private static void committed(Kit kit) throws Exception {
        String topic = kit.topic(1);
        String group = group(kit, "share.isolation.level", "read_committed");
        try (var producer = kit.producer("transactional.id", Kit.fresh("share")); var consumer = consumer(kit, group)) {
            consumer.subscribe(List.of(topic));
            producer.initTransactions();
            for (int round = 0; round < 10; round++) {
                producer.beginTransaction();
                for (int number = 0; number < 5; number++) {
                    producer.send(new ProducerRecord<>(topic, 0, null, round + "/" + number));
                }
                producer.flush();
                if (round % 2 == 0) {
                    producer.commitTransaction();
                } else {
                    producer.abortTransaction();
                }
            }
            Map<String, Integer> seen = drain(consumer, 25);
            Kit.check(seen.keySet().stream().allMatch(value -> (value.charAt(0) - '0') % 2 == 0), "saw " + seen);
            Kit.check(seen.values().stream().allMatch(times -> times == 1), "a record came twice");
        }
    }

    private static void limited(Kit kit) throws Exception {
        String topic = kit.topic(1);
        kit.produce(topic, numbers(0, 25).toArray(String[]::new));
        try (var consumer = consumer(kit, group(kit), "max.poll.records", "10", "share.acquire.mode", "record_limit")) {
            consumer.subscribe(List.of(topic));
            Map<String, Integer> seen = new HashMap<>();
            long deadline = System.nanoTime() + Duration.ofSeconds(30).toNanos();
            while (seen.size() < 25) {
                var found = consumer.poll(Duration.ofMillis(200));
                Kit.check(found.count() <= 10, "more records than asked for: " + found.count());
                found.forEach(record -> seen.merge(record.value(), 1, Integer::sum));
                Kit.check(System.nanoTime() < deadline, "only " + seen.size() + " came");
            }
        }
    }

    private static void admin(Kit kit) throws Exception {
        String topic = kit.topic(1);
        String group = group(kit);
        TopicPartition partition = new TopicPartition(topic, 0);
        kit.produce(topic, numbers(0, 10).toArray(String[]::new));
        try (var consumer = consumer(kit, group)) {
            consumer.subscribe(List.of(topic));
            drain(consumer, 10);
            consumer.commitSync();
            var described = kit.admin.describeShareGroups(List.of(group)).all().get().get(group);
            Kit.same(GroupState.STABLE, described.groupState());
            Kit.same(1, described.members().size());
            Kit.same(Set.of(partition), described.members().iterator().next().assignment().topicPartitions());
            Kit.check(kit.admin.listGroups(ListGroupsOptions.forShareGroups()).all().get().stream()
                    .anyMatch(one -> one.groupId().equals(group) && one.type().equals(java.util.Optional.of(
                            GroupType.SHARE))), "the group is not listed");
            Kit.same(10L, offset(kit, group, partition));
            Kit.fails(GroupNotEmptyException.class,
                    () -> kit.admin.alterShareGroupOffsets(group, Map.of(partition, 3L)).all().get());
            Kit.fails(GroupNotEmptyException.class, () -> kit.admin.deleteShareGroups(List.of(group)).all().get());
        }
        Kit.eventually("the group to be empty", () -> kit.admin.describeShareGroups(List.of(group)).all().get()
                .get(group).groupState() == GroupState.EMPTY);
        kit.admin.alterShareGroupOffsets(group, Map.of(partition, 3L)).all().get();
        Kit.same(3L, offset(kit, group, partition));
        try (var consumer = consumer(kit, group)) {
            consumer.subscribe(List.of(topic));
            Kit.same(new HashSet<>(numbers(3, 10)), drain(consumer, 7).keySet());
        }
        kit.admin.deleteShareGroupOffsets(group, Set.of(topic)).all().get();
        kit.admin.deleteShareGroups(List.of(group)).all().get();
        Kit.fails(GroupIdNotFoundException.class, () -> kit.admin.describeShareGroups(List.of(group)).all().get());
    }

    private static long offset(Kit kit, String group, TopicPartition partition) throws Exception {
        var spec = new ListShareGroupOffsetsSpec().topicPartitions(List.of(partition));
        return kit.admin.listShareGroupOffsets(Map.of(group, spec)).partitionsToOffsetInfo(group).get()
                .get(partition).startOffset();
    }

    /** One consumer before and after the broker was away: what it acknowledged stays so, nothing else is lost. */
    static void restart(Kit kit) throws Exception {
        String topic = kit.topic(2);
        String group = group(kit);
        Map<String, Integer> seen = new HashMap<>();
        try (var producer = kit.producer(); var consumer = consumer(kit, group)) {
            consumer.subscribe(List.of(topic));
            for (String value : numbers(0, 1000)) {
                producer.send(new ProducerRecord<>(topic, value));
            }
            producer.flush();
            seen.putAll(drain(consumer, 1000));
            consumer.commitSync().values().forEach(error -> Kit.check(error.isEmpty(), "" + error));
            System.out.println("{\"ready\": true}");
            new BufferedReader(new InputStreamReader(System.in)).readLine();
            for (String value : numbers(1000, 2000)) {
                producer.send(new ProducerRecord<>(topic, value));
            }
            producer.flush();
            Map<String, Integer> later = drain(consumer, 1000);
            Kit.same(new HashSet<>(numbers(1000, 2000)), later.keySet());
        }
    }
}
