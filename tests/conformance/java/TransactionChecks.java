import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.AbortTransactionSpec;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.TransactionState;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.ProducerFencedException;

/** Transactions of version 2, as the Java producer makes them. */
final class TransactionChecks {
    private TransactionChecks() {
    }

    static void register(Kit kit, Map<String, Main.Check> checks) {
        checks.put("transactions commit and abort", () -> endings(kit));
        checks.put("a transaction over several partitions", () -> severalPartitions(kit));
        checks.put("offsets sent to a transaction", () -> relay(kit));
        checks.put("a second producer fences the first", () -> fencing(kit));
        checks.put("fenced by an administrator", () -> fencedByAdmin(kit));
        checks.put("transactions are described and listed", () -> described(kit));
        checks.put("a hanging transaction is aborted", () -> abortedByAdmin(kit));
        checks.put("a transaction that takes too long", () -> timedOut(kit));
        checks.put("many transactions in a row", () -> many(kit));
    }

    private static KafkaProducer<String, String> producer(Kit kit, String id, String... settings) {
        Map<String, String> all = Kit.map(settings);
        all.put("transactional.id", id);
        String[] flat = all.entrySet().stream().flatMap(entry -> List.of(entry.getKey(), entry.getValue()).stream())
                .toArray(String[]::new);
        var producer = kit.producer(flat);
        producer.initTransactions();
        return producer;
    }

    private static void send(KafkaProducer<String, String> producer, String topic, int partition, String... values) {
        for (String value : values) {
            producer.send(new ProducerRecord<>(topic, partition, null, value));
        }
    }

    private static void endings(Kit kit) throws Exception {
        String topic = kit.topic(1);
        try (var producer = producer(kit, Kit.fresh("txn"))) {
            for (int turn = 0; turn < 4; turn++) {
                producer.beginTransaction();
                send(producer, topic, 0, turn + "a", turn + "b");
                if (turn % 2 == 0) {
                    producer.commitTransaction();
                } else {
                    producer.flush();
                    producer.abortTransaction();
                }
            }
            producer.beginTransaction();
            producer.commitTransaction();
            producer.beginTransaction();
            producer.abortTransaction();
        }
        Kit.same(List.of("0a", "0b", "2a", "2b"), Kit.values(kit.readAll(topic, 0, 4)));
    }

    private static void severalPartitions(Kit kit) throws Exception {
        String topic = kit.topic(5);
        var ends = new ListOffsetsOptions(IsolationLevel.READ_COMMITTED);
        try (var producer = producer(kit, Kit.fresh("txn"))) {
            producer.beginTransaction();
            for (int partition = 0; partition < 5; partition++) {
                send(producer, topic, partition, "x");
            }
            producer.flush();
            for (int partition = 0; partition < 5; partition++) {
                var place = new TopicPartition(topic, partition);
                Kit.same(0L, kit.admin.listOffsets(Map.of(place, OffsetSpec.latest()), ends).all().get().get(place)
                        .offset());
            }
            producer.commitTransaction();
        }
        for (int partition = 0; partition < 5; partition++) {
            Kit.same(List.of("x"), Kit.values(kit.readAll(topic, partition, 1)));
        }
    }

    private static void relay(Kit kit) throws Exception {
        String from = kit.topic(1);
        String to = kit.topic(1);
        String group = Kit.fresh("group");
        kit.produce(from, "1", "2", "3");
        var place = new TopicPartition(from, 0);
        try (var consumer = kit.consumer("group.id", group, "enable.auto.commit", "false",
                    "isolation.level", "read_committed");
                var producer = producer(kit, Kit.fresh("txn"))) {
            consumer.subscribe(List.of(from));
            var records = Kit.poll(consumer, 3);
            for (boolean commit : new boolean[] {false, true}) {
                producer.beginTransaction();
                for (var record : records) {
                    send(producer, to, 0, record.value() + "!");
                }
                producer.sendOffsetsToTransaction(Map.of(place, new OffsetAndMetadata(3)), consumer.groupMetadata());
                if (commit) {
                    producer.commitTransaction();
                } else {
                    producer.abortTransaction();
                    Kit.check(kit.admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get()
                            .get(place) == null, "an aborted offset was committed");
                }
            }
        }
        Kit.same(3L, kit.admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(place).offset());
        Kit.same(List.of("1!", "2!", "3!"), Kit.values(kit.readAll(to, 0, 3)));
    }

    private static void fencing(Kit kit) throws Exception {
        String topic = kit.topic(1);
        String id = Kit.fresh("txn");
        try (var first = producer(kit, id)) {
            first.beginTransaction();
            send(first, topic, 0, "lost");
            first.flush();
            try (var second = producer(kit, id)) {
                fails(() -> {
                    send(first, topic, 0, "late");
                    first.commitTransaction();
                });
                second.beginTransaction();
                send(second, topic, 0, "kept");
                second.commitTransaction();
            }
        }
        Kit.same(List.of("kept"), Kit.values(kit.readAll(topic, 0, 1)));
    }

    private static void fails(Main.Check action) throws Exception {
        try {
            action.run();
        } catch (ProducerFencedException fenced) {
            return;
        } catch (KafkaException wrapped) {
            return;
        }
        throw new AssertionError("a fenced producer went on");
    }

    private static void fencedByAdmin(Kit kit) throws Exception {
        String topic = kit.topic(1);
        String id = Kit.fresh("txn");
        try (var producer = producer(kit, id)) {
            producer.beginTransaction();
            send(producer, topic, 0, "lost");
            producer.flush();
            kit.admin.fenceProducers(List.of(id)).all().get();
            fails(producer::commitTransaction);
        }
        kit.produce(topic, "kept");
        Kit.same(List.of("kept"), Kit.values(kit.readAll(topic, 0, 1)));
    }

    private static void described(Kit kit) throws Exception {
        String topic = kit.topic(1);
        String id = Kit.fresh("txn");
        try (var producer = producer(kit, id, "transaction.timeout.ms", "12345")) {
            producer.beginTransaction();
            send(producer, topic, 0, "x");
            producer.flush();
            var found = kit.admin.describeTransactions(List.of(id)).description(id).get();
            Kit.same(TransactionState.ONGOING, found.state());
            Kit.same(12345L, found.transactionTimeoutMs());
            Kit.same(java.util.Set.of(new TopicPartition(topic, 0)), found.topicPartitions());
            Kit.check(kit.admin.listTransactions().all().get().stream()
                    .anyMatch(listed -> listed.transactionalId().equals(id)), "not listed");
            producer.commitTransaction();
            Kit.same(TransactionState.COMPLETE_COMMIT,
                    kit.admin.describeTransactions(List.of(id)).description(id).get().state());
        }
    }

    private static void abortedByAdmin(Kit kit) throws Exception {
        String topic = kit.topic(1);
        var place = new TopicPartition(topic, 0);
        try (var producer = producer(kit, Kit.fresh("txn"))) {
            producer.beginTransaction();
            send(producer, topic, 0, "lost");
            producer.flush();
            var state = kit.admin.describeProducers(List.of(place)).partitionResult(place).get().activeProducers()
                    .get(0);
            Kit.same(0L, state.currentTransactionStartOffset().getAsLong());
            kit.admin.abortTransaction(new AbortTransactionSpec(place, state.producerId(),
                    (short) state.producerEpoch(), 0)).all().get();
        }
        kit.produce(topic, "kept");
        Kit.same(List.of("kept"), Kit.values(kit.readAll(topic, 0, 1)));
    }

    private static void timedOut(Kit kit) throws Exception {
        String topic = kit.topic(1);
        try (var late = producer(kit, Kit.fresh("txn"), "transaction.timeout.ms", "1000");
                var patient = producer(kit, Kit.fresh("txn"), "transaction.timeout.ms", "1000")) {
            for (var producer : List.of(late, patient)) {
                producer.beginTransaction();
                send(producer, topic, 0, "lost");
                producer.flush();
            }
            kit.produce(topic, "kept");
            Kit.same(List.of("kept"), Kit.values(kit.readAll(topic, 0, 1)));
            fails(late::commitTransaction);
            patient.abortTransaction();
            patient.beginTransaction();
            send(patient, topic, 0, "kept too");
            patient.commitTransaction();
            Kit.same(List.of("kept", "kept too"), Kit.values(kit.readAll(topic, 0, 2)));
        }
    }

    private static void many(Kit kit) throws Exception {
        String topic = kit.topic(2);
        try (var producer = producer(kit, Kit.fresh("txn"))) {
            for (int turn = 0; turn < 200; turn++) {
                producer.beginTransaction();
                send(producer, topic, turn % 2, Integer.toString(turn));
                producer.commitTransaction();
            }
        }
        Kit.same(100, kit.readAll(topic, 0, 100).size());
        Kit.same(100, kit.readAll(topic, 1, 100).size());
    }
}
