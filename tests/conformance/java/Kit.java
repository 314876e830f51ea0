import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Properties;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** What the checks share: clients with their defaults, fresh names, assertions, waiting. */
final class Kit {
    final String bootstrap;
    final Admin admin;

    Kit(String bootstrap) {
        this.bootstrap = bootstrap;
        this.admin = Admin.create(connection());
    }

    /** How to connect: the address, and what the file in CHECKS_PROPERTIES says a broker asks for. */
    Map<String, Object> connection() {
        Map<String, Object> all = new HashMap<>();
        String file = System.getenv("CHECKS_PROPERTIES");
        if (file != null) {
            Properties properties = new Properties();
            try (var reader = Files.newBufferedReader(Path.of(file))) {
                properties.load(reader);
            } catch (IOException problem) {
                throw new UncheckedIOException(problem);
            }
            properties.forEach((name, value) -> all.put((String) name, value));
        }
        all.put("bootstrap.servers", bootstrap);
        return all;
    }

    static String fresh(String prefix) {
        return prefix + "-" + UUID.randomUUID().toString().substring(0, 13);
    }

    String topic(int partitions, String... settings) throws Exception {
        String name = fresh("java");
        create(name, partitions, settings);
        return name;
    }

    void create(String name, int partitions, String... settings) throws Exception {
        NewTopic topic = new NewTopic(name, partitions, (short) 1).configs(map(settings));
        admin.createTopics(List.of(topic)).all().get();
        eventually("topic " + name, () -> admin.describeTopics(List.of(name)).allTopicNames().get()
                .get(name).partitions().stream().allMatch(partition -> partition.leader() != null));
    }

    KafkaProducer<String, String> producer(String... settings) {
        Map<String, Object> all = new HashMap<>(map(settings));
        all.putAll(connection());
        all.putIfAbsent("max.block.ms", "20000");
        return new KafkaProducer<>(all, new StringSerializer(), new StringSerializer());
    }

    KafkaConsumer<String, String> consumer(String... settings) {
        Map<String, Object> all = new HashMap<>(map(settings));
        all.putAll(connection());
        all.putIfAbsent("auto.offset.reset", "earliest");
        return new KafkaConsumer<>(all, new StringDeserializer(), new StringDeserializer());
    }

    /** Produces these values to partition 0, in order, and waits for all acknowledgements. */
    void produce(String topic, String... values) throws Exception {
        try (var producer = producer()) {
            for (String value : values) {
                producer.send(new ProducerRecord<>(topic, 0, null, value));
            }
            producer.flush();
        }
    }

    /** Every record of the partition, read by a consumer without a group. */
    List<ConsumerRecord<String, String>> readAll(String topic, int partition, int count) {
        try (var consumer = consumer("isolation.level", "read_committed")) {
            consumer.assign(List.of(new TopicPartition(topic, partition)));
            consumer.seekToBeginning(consumer.assignment());
            return poll(consumer, count);
        }
    }

    /** Polls until this many records came; fails after 30 s. */
    static List<ConsumerRecord<String, String>> poll(KafkaConsumer<String, String> consumer, int count) {
        List<ConsumerRecord<String, String>> found = new ArrayList<>();
        long deadline = System.nanoTime() + Duration.ofSeconds(30).toNanos();
        while (found.size() < count) {
            consumer.poll(Duration.ofMillis(100)).forEach(found::add);
            check(System.nanoTime() < deadline, "only " + found.size() + " of " + count + " records came");
        }
        return found;
    }

    static List<String> values(Collection<ConsumerRecord<String, String>> records) {
        return records.stream().map(ConsumerRecord::value).toList();
    }

    static Map<String, String> map(String... pairs) {
        Map<String, String> map = new HashMap<>();
        for (int index = 0; index < pairs.length; index += 2) {
            map.put(pairs[index], pairs[index + 1]);
        }
        return map;
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    static void same(Object expected, Object got) {
        check(Objects.equals(expected, got), "expected " + expected + ", got " + got);
    }

    /** The cause with which the call fails, which must be of this class. */
    static <T extends Throwable> T fails(Class<T> with, Callable<?> call) throws Exception {
        try {
            call.call();
        } catch (Exception problem) {
            Throwable cause = problem instanceof ExecutionException ? problem.getCause() : problem;
            if (with.isInstance(cause)) {
                return with.cast(cause);
            }
            throw new AssertionError("expected " + with.getSimpleName() + ", got " + cause, cause);
        }
        throw new AssertionError("expected " + with.getSimpleName() + ", but it went well");
    }

    static void eventually(String what, Callable<Boolean> holds) throws Exception {
        long deadline = System.nanoTime() + Duration.ofSeconds(30).toNanos();
        Exception last = null;
        while (System.nanoTime() < deadline) {
            try {
                if (holds.call()) {
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
