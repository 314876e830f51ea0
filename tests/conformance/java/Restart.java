import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.Future;
import java.util.stream.IntStream;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;

/** The same producer and the same member of a group, before and after the broker was away. */
final class Restart {
    private Restart() {
    }

    static void run(Kit kit) throws Exception {
        String topic = kit.topic(3);
        List<String> values = IntStream.range(0, 300).mapToObj(number -> "value " + number).toList();
        try (var producer = kit.producer();
                var member = kit.consumer("group.id", Kit.fresh("group"), "enable.auto.commit", "false")) {
            member.subscribe(List.of(topic));
            Set<String> seen = new HashSet<>();
            send(producer, topic, values.subList(0, 100));
            receive(member, seen, 100);
            member.commitSync();
            System.out.println("{\"ready\": true}");
            new BufferedReader(new InputStreamReader(System.in)).readLine();
            send(producer, topic, values.subList(100, 300));
            receive(member, seen, 300);
            member.commitSync();
            Kit.same(new HashSet<>(values), seen);
        }
    }

    private static void send(KafkaProducer<String, String> producer, String topic, List<String> values)
            throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (String value : values) {
            sent.add(producer.send(new ProducerRecord<>(topic, value)));
        }
        for (Future<RecordMetadata> one : sent) {
            one.get();
        }
    }

    private static void receive(KafkaConsumer<String, String> member, Set<String> seen, int count) {
        long deadline = System.nanoTime() + Duration.ofSeconds(40).toNanos();
        while (seen.size() < count) {
            member.poll(Duration.ofMillis(100)).forEach(record -> seen.add(record.value()));
            Kit.check(System.nanoTime() < deadline, "only " + seen.size() + " of " + count + " records came");
        }
    }
}
