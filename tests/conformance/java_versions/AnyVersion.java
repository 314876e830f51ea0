import java.io.InputStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.lang.reflect.Method;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Properties;
import java.util.UUID;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.AdminClient;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * What every Java client since 2.1 can do, with what all of them have in common; one JSON object per line and check.
 *
 * <p>{@code AnyVersion BOOTSTRAP VERSION}, the version that the client must be of.
 */
public final class AnyVersion {
    /** One thing that must hold; it throws if it does not. */
    interface Check {
        void run() throws Exception;
    }

    private static final Duration POLL = Duration.ofMillis(100);
    /** Which of them it is depends on the version of the client. */
    private static final List<String> FENCED = List.of("ProducerFencedException", "InvalidProducerEpochException");
    private final Map<String, Object> connection = new HashMap<>();
    private final AdminClient admin;

    private AnyVersion(String bootstrap) {
        connection.put("bootstrap.servers", bootstrap);
        admin = AdminClient.create(connection);
    }

    public static void main(String[] arguments) {
        AnyVersion all = new AnyVersion(arguments[0]);
        report("version", () -> same(arguments[1], version()));
        report("topics", all::topics);
        for (String compression : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            report("compression " + compression, () -> all.roundTrip("compression.type", compression));
        }
        report("idempotent producer", () -> all.roundTrip("enable.idempotence", "true", "acks", "all"));
        for (String acks : List.of("0", "1", "all")) {
            report("acks " + acks, () -> all.roundTrip("acks", acks, "enable.idempotence", "false"));
        }
        report("group commits and resumes", all::group);
        report("offsets for times", all::times);
        report("transactions commit and abort", all::transactions);
        report("relay in transactions", all::relay);
        report("fencing", all::fencing);
        System.exit(0);
    }

    private static void report(String name, Check check) {
        long began = System.nanoTime();
        String error = "null";
        try {
            check.run();
        } catch (Exception | LinkageError | AssertionError problem) {
            StringWriter text = new StringWriter();
            problem.printStackTrace(new PrintWriter(text));
            error = '"' + text.toString().replace("\\", "\\\\").replace("\"", "'").replace("\n", "\\n").replace("\t", " ")
                    + '"';
        }
        System.out.printf("{\"name\": \"%s\", \"error\": %s, \"seconds\": %.2f}%n",
                name, error, (System.nanoTime() - began) / 1e9);
    }

    /** What the client says it is, where each of them finds it for itself. */
    private static String version() throws Exception {
        Properties about = new Properties();
        try (InputStream file = KafkaProducer.class.getResourceAsStream("/kafka/kafka-version.properties")) {
            about.load(file);
        }
        return about.getProperty("version");
    }

    private void topics() throws Exception {
        String topic = topic(2);
        try {
            create(topic, 1);
            throw new AssertionError("it was created twice");
        } catch (ExecutionException problem) {
            check(problem.getCause() instanceof TopicExistsException, problem.toString());
        }
        admin.createPartitions(Collections.singletonMap(topic, NewPartitions.increaseTo(3))).all().get();
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        same("600000", admin.describeConfigs(List.of(resource)).all().get().get(resource).get("retention.ms").value());
        eventually("three partitions", () -> partitions(topic) == 3);
        admin.deleteTopics(List.of(topic)).all().get();
        eventually("it is gone", () -> !admin.listTopics().names().get().contains(topic));
    }

    private void roundTrip(String... settings) throws Exception {
        String topic = topic(1);
        List<String> values = numbered(200);
        try (KafkaProducer<String, String> producer = producer(settings)) {
            for (String value : values) {
                producer.send(new ProducerRecord<>(topic, 0, "key", value));
            }
        }
        try (KafkaConsumer<String, String> consumer = consumer()) {
            consumer.assign(List.of(new TopicPartition(topic, 0)));
            consumer.seekToBeginning(consumer.assignment());
            same(values, values(poll(consumer, 200)));
        }
    }

    private void group() throws Exception {
        String topic = topic(1);
        String group = fresh("group");
        List<String> values = numbered(100);
        produce(topic, values);
        try (KafkaConsumer<String, String> consumer = consumer("group.id", group, "max.poll.records", "40")) {
            consumer.subscribe(List.of(topic));
            same(values.subList(0, 40), values(poll(consumer, 40)));
            consumer.commitSync();
        }
        TopicPartition place = new TopicPartition(topic, 0);
        same(40L, admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(place).offset());
        try (KafkaConsumer<String, String> consumer = consumer("group.id", group, "max.poll.records", "60")) {
            consumer.subscribe(List.of(topic));
            same(values.subList(40, 100), values(poll(consumer, 60)));
        }
        eventually("every member left", () -> admin.describeConsumerGroups(List.of(group)).all().get().get(group)
                .members().isEmpty());
        admin.deleteConsumerGroups(List.of(group)).all().get();
    }

    private void times() throws Exception {
        String topic = topic(1);
        TopicPartition place = new TopicPartition(topic, 0);
        long start = System.currentTimeMillis() - 60_000;
        try (KafkaProducer<String, String> producer = producer()) {
            for (int number = 0; number < 10; number++) {
                producer.send(new ProducerRecord<>(topic, 0, start + number * 1000L, null, "x"));
            }
        }
        try (KafkaConsumer<String, String> consumer = consumer()) {
            same(5L, consumer.offsetsForTimes(Map.of(place, start + 4500)).get(place).offset());
            same(0L, consumer.beginningOffsets(List.of(place)).get(place));
            same(10L, consumer.endOffsets(List.of(place)).get(place));
        }
    }

    private void transactions() throws Exception {
        String topic = topic(1);
        try (KafkaProducer<String, String> producer = transactional(fresh("txn"))) {
            for (int turn = 0; turn < 4; turn++) {
                producer.beginTransaction();
                producer.send(new ProducerRecord<>(topic, 0, null, turn + "a"));
                producer.send(new ProducerRecord<>(topic, 0, null, turn + "b"));
                producer.flush();
                if (turn % 2 == 0) {
                    producer.commitTransaction();
                } else {
                    producer.abortTransaction();
                }
            }
        }
        try (KafkaConsumer<String, String> consumer = consumer("isolation.level", "read_committed")) {
            consumer.assign(List.of(new TopicPartition(topic, 0)));
            consumer.seekToBeginning(consumer.assignment());
            same(List.of("0a", "0b", "2a", "2b"), values(poll(consumer, 4)));
        }
        try (KafkaConsumer<String, String> consumer = consumer("isolation.level", "read_uncommitted")) {
            consumer.assign(List.of(new TopicPartition(topic, 0)));
            consumer.seekToBeginning(consumer.assignment());
            same(8, poll(consumer, 8).size());
        }
    }

    private void relay() throws Exception {
        String from = topic(1);
        String to = topic(1);
        String group = fresh("group");
        List<String> values = numbered(50);
        produce(from, values);
        try (KafkaProducer<String, String> producer = transactional(fresh("txn"));
                KafkaConsumer<String, String> consumer = consumer("group.id", group, "max.poll.records", "10")) {
            consumer.subscribe(List.of(from));
            for (int done = 0; done < 50;) {
                List<ConsumerRecord<String, String>> records = poll(consumer, 1);
                producer.beginTransaction();
                for (ConsumerRecord<String, String> record : records) {
                    producer.send(new ProducerRecord<>(to, 0, null, record.value()));
                }
                done = (int) records.get(records.size() - 1).offset() + 1;
                sendOffsets(producer, consumer, Map.of(new TopicPartition(from, 0), new OffsetAndMetadata(done)), group);
                producer.commitTransaction();
            }
        }
        try (KafkaConsumer<String, String> consumer = consumer("isolation.level", "read_committed")) {
            consumer.assign(List.of(new TopicPartition(to, 0)));
            consumer.seekToBeginning(consumer.assignment());
            same(values, values(poll(consumer, 50)));
        }
        same(50L, admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get()
                .get(new TopicPartition(from, 0)).offset());
    }

    /** Newer clients take the member of a group, older ones its name. */
    private static void sendOffsets(
            KafkaProducer<String, String> producer, KafkaConsumer<String, String> consumer,
            Map<TopicPartition, OffsetAndMetadata> offsets, String group) throws Exception {
        try {
            Object member = consumer.getClass().getMethod("groupMetadata").invoke(consumer);
            Class<?> kind = Class.forName("org.apache.kafka.clients.consumer.ConsumerGroupMetadata");
            producer.getClass().getMethod("sendOffsetsToTransaction", Map.class, kind).invoke(producer, offsets, member);
        } catch (NoSuchMethodException problem) {
            Method old = producer.getClass().getMethod("sendOffsetsToTransaction", Map.class, String.class);
            old.invoke(producer, offsets, group);
        }
    }

    private void fencing() throws Exception {
        String topic = topic(1);
        String id = fresh("txn");
        try (KafkaProducer<String, String> first = transactional(id);
                KafkaProducer<String, String> second = transactional(id)) {
            second.beginTransaction();
            second.send(new ProducerRecord<>(topic, 0, null, "second"));
            second.commitTransaction();
            try {
                first.beginTransaction();
                first.send(new ProducerRecord<>(topic, 0, null, "first"));
                first.commitTransaction();
                throw new AssertionError("both went on");
            } catch (KafkaException problem) {
                Throwable cause = problem.getCause() == null ? problem : problem.getCause();
                check(FENCED.contains(cause.getClass().getSimpleName()), problem.toString());
            }
        }
    }

    private KafkaProducer<String, String> transactional(String id) {
        KafkaProducer<String, String> producer = producer("transactional.id", id);
        producer.initTransactions();
        return producer;
    }

    private void produce(String topic, Collection<String> values) {
        try (KafkaProducer<String, String> producer = producer()) {
            values.forEach(value -> producer.send(new ProducerRecord<>(topic, 0, null, value)));
        }
    }

    private String topic(int partitions) throws Exception {
        String name = fresh("java");
        create(name, partitions);
        eventually("the topic", () -> partitions(name) == partitions);
        return name;
    }

    private void create(String name, int partitions) throws Exception {
        NewTopic topic = new NewTopic(name, partitions, (short) 1).configs(Map.of("retention.ms", "600000"));
        admin.createTopics(List.of(topic)).all().get();
    }

    /** What answers by name is called so since 3.1, and nothing else is there since 4.0. */
    private int partitions(String topic) throws Exception {
        Object described = admin.describeTopics(List.of(topic));
        Method values;
        try {
            values = described.getClass().getMethod("topicNameValues");
        } catch (NoSuchMethodException problem) {
            values = described.getClass().getMethod("values");
        }
        KafkaFuture<?> found = (KafkaFuture<?>) ((Map<?, ?>) values.invoke(described)).get(topic);
        return ((TopicDescription) found.get()).partitions().size();
    }

    private KafkaProducer<String, String> producer(String... settings) {
        return new KafkaProducer<>(all(settings), new StringSerializer(), new StringSerializer());
    }

    private KafkaConsumer<String, String> consumer(String... settings) {
        Map<String, Object> all = all(settings);
        all.put("auto.offset.reset", "earliest");
        if (all.containsKey("group.id")) {
            all.put("enable.auto.commit", "false");
        }
        return new KafkaConsumer<>(all, new StringDeserializer(), new StringDeserializer());
    }

    private Map<String, Object> all(String... settings) {
        Map<String, Object> all = new HashMap<>(connection);
        for (int index = 0; index < settings.length; index += 2) {
            all.put(settings[index], settings[index + 1]);
        }
        return all;
    }

    private static List<ConsumerRecord<String, String>> poll(KafkaConsumer<String, String> consumer, int count) {
        List<ConsumerRecord<String, String>> found = new ArrayList<>();
        long deadline = System.nanoTime() + Duration.ofSeconds(30).toNanos();
        while (found.size() < count) {
            consumer.poll(POLL).forEach(found::add);
            check(System.nanoTime() < deadline, "only " + found.size() + " of " + count + " records came");
        }
        return found;
    }

    private static List<String> values(Collection<ConsumerRecord<String, String>> records) {
        List<String> values = new ArrayList<>();
        records.forEach(record -> values.add(record.value()));
        return values;
    }

    private static List<String> numbered(int count) {
        List<String> values = new ArrayList<>();
        for (int number = 0; number < count; number++) {
            values.add("value " + number);
        }
        return values;
    }

    private static String fresh(String prefix) {
        return prefix + "-" + UUID.randomUUID().toString().substring(0, 13);
    }

    private static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    private static void same(Object expected, Object got) {
        check(Objects.equals(expected, got), "expected " + expected + ", got " + got);
    }

    private interface Condition {
        boolean holds() throws Exception;
    }

    private static void eventually(String what, Condition condition) throws Exception {
        long deadline = System.nanoTime() + Duration.ofSeconds(30).toNanos();
        Exception last = null;
        while (System.nanoTime() < deadline) {
            try {
                if (condition.holds()) {
                    return;
                }
            } catch (ExecutionException problem) {
                last = problem;
            }
            Thread.sleep(50);
        }
        throw new AssertionError(what + " did not come true", last);
    }
}
