import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartitionReplica;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidRequestException;
import org.apache.kafka.common.errors.LogDirNotFoundException;
import org.apache.kafka.common.errors.ThrottlingQuotaExceededException;
import org.apache.kafka.common.quota.ClientQuotaAlteration;
import org.apache.kafka.common.quota.ClientQuotaEntity;
import org.apache.kafka.common.quota.ClientQuotaFilter;
import org.apache.kafka.common.quota.ClientQuotaFilterComponent;

/** Quotas, and what else only an administrator asks: resources with configuration, the quorum, directories. */
final class LimitChecks {
    private LimitChecks() {
    }

    static void register(Kit kit, Map<String, Main.Check> checks) {
        checks.put("quotas are set, found and taken away", () -> quotas(kit));
        checks.put("quota that must be refused", () -> refused(kit));
        checks.put("changes over a quota are refused, or tried again", () -> mutations(kit));
        checks.put("producer is told to wait", () -> throttled(kit));
        checks.put("configuration resources are listed", () -> resources(kit));
        checks.put("quorum is described", () -> quorum(kit));
        checks.put("replicas stay in their directory", () -> directories(kit));
    }

    private static ClientQuotaEntity client(String name) {
        return new ClientQuotaEntity(Map.of(ClientQuotaEntity.CLIENT_ID, name));
    }

    private static Void alter(Kit kit, ClientQuotaEntity entity, String key, Double value) throws Exception {
        var change = new ClientQuotaAlteration(entity, List.of(new ClientQuotaAlteration.Op(key, value)));
        return kit.admin.alterClientQuotas(List.of(change)).all().get();
    }

    private static Map<ClientQuotaEntity, Map<String, Double>> found(Kit kit, ClientQuotaFilter filter)
            throws Exception {
        return kit.admin.describeClientQuotas(filter).entities().get();
    }

    private static void quotas(Kit kit) throws Exception {
        String user = Kit.fresh("u");
        String app = Kit.fresh("c");
        var pair = new ClientQuotaEntity(Map.of(ClientQuotaEntity.USER, user, ClientQuotaEntity.CLIENT_ID, app));
        var alone = new ClientQuotaEntity(Map.of(ClientQuotaEntity.USER, user));
        alter(kit, pair, "producer_byte_rate", 1000.0);
        alter(kit, alone, "request_percentage", 12.5);
        var ofUser = ClientQuotaFilterComponent.ofEntity(ClientQuotaEntity.USER, user);
        var both = Map.of(pair, Map.of("producer_byte_rate", 1000.0), alone, Map.of("request_percentage", 12.5));
        Kit.eventually("both quotas", () -> found(kit, ClientQuotaFilter.contains(List.of(ofUser))).equals(both));
        Kit.same(Set.of(alone), found(kit, ClientQuotaFilter.containsOnly(List.of(ofUser))).keySet());
        alter(kit, pair, "producer_byte_rate", null);
        alter(kit, alone, "request_percentage", null);
        Kit.eventually("no quotas", () -> found(kit, ClientQuotaFilter.contains(List.of(ofUser))).isEmpty());
    }

    private static void refused(Kit kit) throws Exception {
        Kit.fails(InvalidRequestException.class, () -> alter(kit, client("c"), "producer_byte_rate", -1.0));
        Kit.fails(InvalidRequestException.class, () -> alter(kit, client("c"), "no_such_key", 1.0));
        Kit.fails(InvalidRequestException.class, () -> alter(kit, client("c"), "connection_creation_rate", 1.0));
    }

    private static void mutations(Kit kit) throws Exception {
        String app = Kit.fresh("c");
        alter(kit, client(app), "controller_mutation_rate", 10.0);
        Map<String, Object> settings = kit.connection();
        settings.put("client.id", app);
        try (Admin admin = Admin.create(settings)) {
            admin.createTopics(List.of(new NewTopic(Kit.fresh("java"), 125, (short) 1))).all().get();
            var once = new CreateTopicsOptions().retryOnQuotaViolation(false);
            var refusal = Kit.fails(ThrottlingQuotaExceededException.class, () ->
                    admin.createTopics(List.of(new NewTopic(Kit.fresh("java"), 1, (short) 1)), once).all().get());
            Kit.check(refusal.throttleTimeMs() > 0, "no time to wait");
            long began = System.nanoTime();
            admin.createTopics(List.of(new NewTopic(Kit.fresh("java"), 1, (short) 1))).all().get();
            Kit.check(System.nanoTime() - began > 500_000_000L, "it did not wait");
        } finally {
            alter(kit, client(app), "controller_mutation_rate", null);
        }
    }

    private static void throttled(Kit kit) throws Exception {
        String app = Kit.fresh("c");
        String topic = kit.topic(1);
        alter(kit, client(app), "producer_byte_rate", 5_000.0);
        try (var producer = kit.producer("client.id", app)) {
            for (int number = 0; number < 3; number++) {
                producer.send(new ProducerRecord<>(topic, "x".repeat(20_000))).get();
            }
            double waited = producer.metrics().entrySet().stream()
                    .filter(metric -> metric.getKey().name().equals("produce-throttle-time-max"))
                    .mapToDouble(metric -> (Double) metric.getValue().metricValue()).max().orElse(0);
            Kit.check(waited > 0, "the producer does not know that it was throttled");
        } finally {
            alter(kit, client(app), "producer_byte_rate", null);
        }
    }

    private static void resources(Kit kit) throws Exception {
        String topic = kit.topic(1);
        var subscription = new ConfigResource(ConfigResource.Type.CLIENT_METRICS, Kit.fresh("m"));
        var interval = new ConfigEntry("interval.ms", "30000");
        kit.admin.incrementalAlterConfigs(Map.of(subscription,
                List.of(new AlterConfigOp(interval, AlterConfigOp.OpType.SET)))).all().get();
        Kit.eventually("both resources", () -> kit.admin.listConfigResources().all().get()
                .containsAll(List.of(subscription, new ConfigResource(ConfigResource.Type.TOPIC, topic))));
        var metrics = kit.admin.listConfigResources(Set.of(ConfigResource.Type.CLIENT_METRICS),
                new org.apache.kafka.clients.admin.ListConfigResourcesOptions()).all().get();
        Kit.check(metrics.contains(subscription), "the subscription is not listed");
        kit.admin.incrementalAlterConfigs(Map.of(subscription,
                List.of(new AlterConfigOp(interval, AlterConfigOp.OpType.DELETE)))).all().get();
    }

    private static void quorum(Kit kit) throws Exception {
        var quorum = kit.admin.describeMetadataQuorum().quorumInfo().get();
        Kit.check(quorum.voters().stream().anyMatch(voter -> voter.replicaId() == quorum.leaderId()), "no leader");
    }

    private static void directories(Kit kit) throws Exception {
        int node = kit.admin.describeCluster().nodes().get().iterator().next().id();
        var replica = new TopicPartitionReplica(kit.topic(1), 0, node);
        String here = kit.admin.describeLogDirs(List.of(node)).allDescriptions().get().get(node).keySet().iterator()
                .next();
        kit.admin.alterReplicaLogDirs(Map.of(replica, here)).all().get();
        Kit.fails(LogDirNotFoundException.class,
                () -> kit.admin.alterReplicaLogDirs(Map.of(replica, "/no/such/directory")).all().get());
    }
}
