import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import java.util.regex.Pattern;
import java.util.stream.IntStream;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.InvalidRecordException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidTimestampException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.TimestampType;

/** Producing and consuming without groups. */
final class RecordChecks {
    private RecordChecks() {
    }

    static void register(Kit kit, Map<String, Main.Check> checks) {
        checks.put("record comes back as sent", () -> wholeRecord(kit));
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            checks.put("compression " + codec, () -> compression(kit, codec));
        }
        for (String acks : List.of("0", "1", "all")) {
            checks.put("acks " + acks, () -> acknowledgements(kit, acks));
        }
        checks.put("order of a pipelining idempotent producer", () -> order(kit));
        checks.put("records of a megabyte", () -> large(kit));
        checks.put("too large record", () -> tooLarge(kit));
        checks.put("too large batch is split", () -> split(kit));
        checks.put("keyless record for a compacted topic", () -> compacted(kit));
        checks.put("record from the future", () -> future(kit));
        checks.put("log append time", () -> appendTime(kit));
        checks.put("broker compresses", () -> recompression(kit));
        checks.put("automatic topic", () -> automaticTopic(kit));
        checks.put("bad topic name", () -> badName(kit));
        checks.put("unknown partition", () -> unknownPartition(kit));
        checks.put("seek and offsets", () -> seek(kit));
        checks.put("offsets for times", () -> offsetsForTimes(kit));
        checks.put("reset out of range", () -> outOfRange(kit));
        checks.put("many partitions in one session", () -> manyPartitions(kit));
        checks.put("pattern subscription", () -> pattern(kit));
        checks.put("recreated topic", () -> recreated(kit));
    }

    private static void wholeRecord(Kit kit) throws Exception {
        String topic = kit.topic(2);
        try (var producer = kit.producer()) {
            var record = new ProducerRecord<>(topic, 1, 1_700_000_000_123L, "k\u00e9y", "v\u00e4lue",
                    List.of(new RecordHeader("a", "1".getBytes(StandardCharsets.UTF_8)), new RecordHeader("a", null)));
            RecordMetadata sent = producer.send(record).get();
            Kit.same(0L, sent.offset());
            Kit.same(1, sent.partition());
            Kit.same(1L, producer.send(new ProducerRecord<>(topic, 1, null, null)).get().offset());
        }
        List<ConsumerRecord<String, String>> got = kit.readAll(topic, 1, 2);
        Kit.same("k\u00e9y", got.get(0).key());
        Kit.same("v\u00e4lue", got.get(0).value());
        Kit.same(1_700_000_000_123L, got.get(0).timestamp());
        Kit.same(TimestampType.CREATE_TIME, got.get(0).timestampType());
        Kit.same(2, got.get(0).headers().toArray().length);
        Kit.same(null, got.get(0).headers().toArray()[1].value());
        Kit.same(null, got.get(1).key());
        Kit.same(null, got.get(1).value());
    }

    private static void compression(Kit kit, String codec) throws Exception {
        String topic = kit.topic(1);
        try (var producer = kit.producer("compression.type", codec, "linger.ms", "20")) {
            for (int number = 0; number < 500; number++) {
                producer.send(new ProducerRecord<>(topic, "k" + number, "value ".repeat(20) + number));
            }
        }
        List<ConsumerRecord<String, String>> got = kit.readAll(topic, 0, 500);
        Kit.same("value ".repeat(20) + 499, got.get(499).value());
        Kit.same(499L, got.get(499).offset());
    }

    private static void acknowledgements(Kit kit, String acks) throws Exception {
        String topic = kit.topic(1);
        try (var producer = kit.producer("acks", acks, "enable.idempotence", String.valueOf(acks.equals("all")))) {
            RecordMetadata sent = producer.send(new ProducerRecord<>(topic, "x")).get();
            Kit.same(acks.equals("0") ? -1L : 0L, sent.offset());
        }
        Kit.same(List.of("x"), Kit.values(kit.readAll(topic, 0, 1)));
    }

    private static void order(Kit kit) throws Exception {
        String topic = kit.topic(1);
        int count = 5000;
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (var producer = kit.producer("linger.ms", "0", "batch.size", "200")) {
            for (int number = 0; number < count; number++) {
                sent.add(producer.send(new ProducerRecord<>(topic, String.valueOf(number))));
            }
            producer.flush();
        }
        for (int number = 0; number < count; number++) {
            Kit.same((long) number, sent.get(number).get().offset());
        }
        Kit.same(IntStream.range(0, count).mapToObj(String::valueOf).toList(), Kit.values(kit.readAll(topic, 0, count)));
    }

    private static void large(Kit kit) throws Exception {
        String topic = kit.topic(1);
        String value = "x".repeat(1_000_000);
        try (var producer = kit.producer()) {
            for (int number = 0; number < 8; number++) {
                producer.send(new ProducerRecord<>(topic, number + value));
            }
        }
        var got = kit.readAll(topic, 0, 8);
        for (int number = 0; number < 8; number++) {
            Kit.check(got.get(number).value().equals(number + value), "record " + number + " came back changed");
        }
        // A consumer that asks for less than a record still gets it.
        try (var consumer = kit.consumer("max.partition.fetch.bytes", "1000", "fetch.max.bytes", "1000")) {
            consumer.assign(List.of(new TopicPartition(topic, 0)));
            Kit.same(8, Kit.poll(consumer, 8).size());
        }
    }

    private static void tooLarge(Kit kit) throws Exception {
        String topic = kit.topic(1, "max.message.bytes", "10000");
        try (var producer = kit.producer()) {
            Kit.fails(RecordTooLargeException.class,
                    () -> producer.send(new ProducerRecord<>(topic, "x".repeat(20_000))).get());
            Kit.same(0L, producer.send(new ProducerRecord<>(topic, "small")).get().offset());
        }
    }

    private static void split(Kit kit) throws Exception {
        String topic = kit.topic(1, "max.message.bytes", "5000");
        try (var producer = kit.producer("batch.size", "50000", "linger.ms", "200")) {
            for (int number = 0; number < 40; number++) {
                producer.send(new ProducerRecord<>(topic, number + "x".repeat(1000)));
            }
        }
        var got = kit.readAll(topic, 0, 40);
        for (int number = 0; number < 40; number++) {
            Kit.same(number + "x".repeat(1000), got.get(number).value());
        }
    }

    private static void compacted(Kit kit) throws Exception {
        String topic = kit.topic(1, "cleanup.policy", "compact");
        try (var producer = kit.producer()) {
            Kit.fails(InvalidRecordException.class, () -> producer.send(new ProducerRecord<>(topic, "no key")).get());
            Kit.same(0L, producer.send(new ProducerRecord<>(topic, "key", "value")).get().offset());
        }
    }

    private static void future(Kit kit) throws Exception {
        String topic = kit.topic(1);
        long tomorrow = System.currentTimeMillis() + Duration.ofDays(1).toMillis();
        try (var producer = kit.producer()) {
            Kit.fails(InvalidTimestampException.class,
                    () -> producer.send(new ProducerRecord<>(topic, 0, tomorrow, null, "x")).get());
        }
    }

    private static void appendTime(Kit kit) throws Exception {
        String topic = kit.topic(1, "message.timestamp.type", "LogAppendTime");
        long before = System.currentTimeMillis();
        try (var producer = kit.producer()) {
            RecordMetadata sent = producer.send(new ProducerRecord<>(topic, 0, 1L, null, "x")).get();
            Kit.check(Math.abs(sent.timestamp() - before) < 60_000, "timestamp " + sent.timestamp());
            var record = kit.readAll(topic, 0, 1).get(0);
            Kit.same(TimestampType.LOG_APPEND_TIME, record.timestampType());
            Kit.same(sent.timestamp(), record.timestamp());
        }
    }

    private static void recompression(Kit kit) throws Exception {
        String topic = kit.topic(1, "compression.type", "zstd");
        try (var producer = kit.producer("compression.type", "gzip", "linger.ms", "50")) {
            for (int number = 0; number < 50; number++) {
                producer.send(new ProducerRecord<>(topic, "value " + number));
            }
        }
        Kit.same("value 49", kit.readAll(topic, 0, 50).get(49).value());
    }

    private static void automaticTopic(Kit kit) throws Exception {
        String topic = Kit.fresh("java-auto");
        try (var producer = kit.producer()) {
            Kit.same(0L, producer.send(new ProducerRecord<>(topic, "x")).get().offset());
        }
        Kit.same(List.of("x"), Kit.values(kit.readAll(topic, 0, 1)));
    }

    private static void badName(Kit kit) throws Exception {
        try (var producer = kit.producer()) {
            Kit.fails(InvalidTopicException.class, () -> producer.send(new ProducerRecord<>("a b", "x")).get());
        }
    }

    private static void unknownPartition(Kit kit) throws Exception {
        String topic = kit.topic(1);
        try (var producer = kit.producer("max.block.ms", "500")) {
            Kit.fails(TimeoutException.class, () -> producer.send(new ProducerRecord<>(topic, 7, null, "x")).get());
        }
    }

    private static void seek(Kit kit) throws Exception {
        String topic = kit.topic(1);
        kit.produce(topic, IntStream.range(0, 100).mapToObj(String::valueOf).toArray(String[]::new));
        TopicPartition partition = new TopicPartition(topic, 0);
        try (var consumer = kit.consumer()) {
            consumer.assign(List.of(partition));
            consumer.seek(partition, 42);
            Kit.same("42", Kit.poll(consumer, 1).get(0).value());
            Kit.same(Map.of(partition, 0L), consumer.beginningOffsets(List.of(partition)));
            Kit.same(Map.of(partition, 100L), consumer.endOffsets(List.of(partition)));
            consumer.seekToEnd(List.of(partition));
            Kit.same(100L, consumer.position(partition));
            Kit.check(consumer.poll(Duration.ofMillis(200)).isEmpty(), "records after the end");
            kit.produce(topic, "new");
            Kit.same(List.of("new"), Kit.values(Kit.poll(consumer, 1)));
            consumer.pause(List.of(partition));
            consumer.seek(partition, 0);
            Kit.check(consumer.poll(Duration.ofMillis(200)).isEmpty(), "records of a paused partition");
            consumer.resume(List.of(partition));
            Kit.same("0", Kit.poll(consumer, 1).get(0).value());
            Kit.same(0L, 101L - consumer.endOffsets(List.of(partition)).get(partition));
        }
    }

    private static void offsetsForTimes(Kit kit) throws Exception {
        String topic = kit.topic(1);
        long base = 1_700_000_000_000L;
        try (var producer = kit.producer()) {
            for (int number = 0; number < 50; number++) {
                producer.send(new ProducerRecord<>(topic, 0, base + number * 1000L, null, "x"));
            }
        }
        TopicPartition partition = new TopicPartition(topic, 0);
        try (var consumer = kit.consumer()) {
            OffsetAndTimestamp middle = consumer.offsetsForTimes(Map.of(partition, base + 19_500)).get(partition);
            Kit.same(20L, middle.offset());
            Kit.same(base + 20_000, middle.timestamp());
            Kit.same(0L, consumer.offsetsForTimes(Map.of(partition, 0L)).get(partition).offset());
            Kit.same(null, consumer.offsetsForTimes(Map.of(partition, base + 100_000)).get(partition));
        }
    }

    private static void outOfRange(Kit kit) throws Exception {
        String topic = kit.topic(1);
        kit.produce(topic, "a", "b");
        TopicPartition partition = new TopicPartition(topic, 0);
        try (var consumer = kit.consumer("auto.offset.reset", "earliest")) {
            consumer.assign(List.of(partition));
            consumer.seek(partition, 1000);
            Kit.same(List.of("a", "b"), Kit.values(Kit.poll(consumer, 2)));
        }
    }

    private static void manyPartitions(Kit kit) throws Exception {
        int partitions = 40;
        String topic = kit.topic(partitions);
        try (var consumer = kit.consumer(); var producer = kit.producer()) {
            consumer.assign(IntStream.range(0, partitions).mapToObj(number -> new TopicPartition(topic, number)).toList());
            for (int round = 0; round < 3; round++) {
                for (int number = round; number < partitions; number += round + 1) {
                    producer.send(new ProducerRecord<>(topic, number, null, round + "/" + number));
                }
                producer.flush();
                int expected = (int) IntStream.range(0, partitions).filter(round == 0 ? n -> true : everyFrom(round)).count();
                var got = Kit.poll(consumer, expected);
                Kit.same(expected, got.size());
                for (var record : got) {
                    Kit.same(round + "/" + record.partition(), record.value());
                }
            }
        }
    }

    private static java.util.function.IntPredicate everyFrom(int round) {
        return number -> number >= round && (number - round) % (round + 1) == 0;
    }

    private static void pattern(Kit kit) throws Exception {
        String prefix = Kit.fresh("pattern");
        kit.create(prefix + "-a", 1);
        try (var consumer = kit.consumer("group.id", prefix, "metadata.max.age.ms", "500")) {
            consumer.subscribe(Pattern.compile(prefix + "-.*"));
            kit.produce(prefix + "-a", "a");
            Kit.same(List.of("a"), Kit.values(Kit.poll(consumer, 1)));
            kit.create(prefix + "-b", 1);
            kit.produce(prefix + "-b", "b");
            Kit.same(List.of("b"), Kit.values(Kit.poll(consumer, 1)));
        }
    }

    private static void recreated(Kit kit) throws Exception {
        String topic = kit.topic(1);
        try (var producer = kit.producer("metadata.max.age.ms", "1000")) {
            producer.send(new ProducerRecord<>(topic, "old")).get();
            kit.admin.deleteTopics(List.of(topic)).all().get();
            Kit.eventually("the name being free", () -> {
                try {
                    kit.create(topic, 1);
                    return true;
                } catch (java.util.concurrent.ExecutionException problem) {
                    return false;
                }
            });
            Kit.eventually("producing to the new topic", () -> {
                try {
                    return producer.send(new ProducerRecord<>(topic, "new")).get().offset() >= 0;
                } catch (java.util.concurrent.ExecutionException problem) {
                    return false;
                }
            });
        }
        Kit.same("new", kit.readAll(topic, 0, 1).get(0).value());
    }
}
