package main

import (
	"errors"
	"io"
	"log"
	"time"

	"github.com/IBM/sarama"
)

// shopify is what the checks of sarama share. The library speaks the protocol of the Kafka version it is told;
// what every check can run with is its default and the newest it knows.
type shopify struct {
	bootstrap []string
}

var saramaVersions = map[string]sarama.KafkaVersion{"default": sarama.DefaultVersion, "newest": sarama.MaxVersion}

func saramaSuite(bootstrap string) *suite {
	sarama.Logger = log.New(io.Discard, "", 0)
	own := &shopify{bootstrap: []string{bootstrap}}
	all := &suite{restart: own.restart}
	own.registerRecords(all)
	own.registerGroups(all)
	own.registerAdmin(all)
	own.registerTransactions(all)
	return all
}

func saramaConfig(changes ...func(*sarama.Config)) *sarama.Config {
	config := sarama.NewConfig()
	config.Producer.Return.Successes = true // The synchronous producer demands it.
	credentialsFromEnvironment().sarama(config)
	for _, change := range changes {
		change(config)
	}
	return config
}

func version(name string) func(*sarama.Config) {
	return func(config *sarama.Config) { config.Version = saramaVersions[name] }
}

func idempotent(config *sarama.Config) {
	config.Producer.Idempotent = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Net.MaxOpenRequests = 1
}

func (s *shopify) admin() sarama.ClusterAdmin {
	admin, err := sarama.NewClusterAdmin(s.bootstrap, saramaConfig(version("newest")))
	must(err)
	return admin
}

func (s *shopify) topic(partitions int32, entries map[string]*string) string {
	admin, name := s.admin(), fresh("sarama")
	defer admin.Close()
	must(admin.CreateTopic(name, &sarama.TopicDetail{
		NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: entries,
	}, false))
	eventually("topic "+name, func() bool {
		described, err := admin.DescribeTopics([]string{name})
		return err == nil && described[0].Err == sarama.ErrNoError && len(described[0].Partitions) == int(partitions)
	})
	return name
}

func (s *shopify) producer(changes ...func(*sarama.Config)) sarama.SyncProducer {
	producer, err := sarama.NewSyncProducer(s.bootstrap, saramaConfig(changes...))
	must(err)
	return producer
}

func manual(config *sarama.Config) { config.Producer.Partitioner = sarama.NewManualPartitioner }

// produce sends values to a partition, in order.
func (s *shopify) produce(topic string, partition int32, values ...string) {
	producer := s.producer(manual)
	defer producer.Close()
	for _, value := range values {
		_, _, err := producer.SendMessage(
			&sarama.ProducerMessage{Topic: topic, Partition: partition, Value: sarama.StringEncoder(value)})
		must(err)
	}
}

func (s *shopify) client(changes ...func(*sarama.Config)) sarama.Client {
	client, err := sarama.NewClient(s.bootstrap, saramaConfig(changes...))
	must(err)
	return client
}

// read takes so many messages of a partition.
func (s *shopify) read(
	topic string, partition int32, from int64, count int, changes ...func(*sarama.Config),
) []*sarama.ConsumerMessage {
	consumer, err := sarama.NewConsumer(s.bootstrap, saramaConfig(changes...))
	must(err)
	defer consumer.Close()
	reader, err := consumer.ConsumePartition(topic, partition, from)
	must(err)
	defer reader.Close()
	return takeMessages(reader, count)
}

func takeMessages(reader sarama.PartitionConsumer, count int) []*sarama.ConsumerMessage {
	var messages []*sarama.ConsumerMessage
	deadline := time.After(30 * time.Second)
	for len(messages) < count {
		select {
		case message, open := <-reader.Messages():
			holds(open, "the partition ended after %d of %d messages", len(messages), count)
			messages = append(messages, message)
		case <-deadline:
			fail("%d of %d messages came", len(messages), count)
		}
	}
	return messages
}

func contents(messages []*sarama.ConsumerMessage) []string {
	values := []string{}
	for _, message := range messages {
		values = append(values, string(message.Value))
	}
	return values
}

func isKError(expected sarama.KError, got error) {
	if !errors.Is(got, expected) {
		fail("expected %v, got %v", expected, got)
	}
}

// restart goes on with the same producer and group member after the broker was away.
func (s *shopify) restart(restarted func()) {
	topic, group := s.topic(3, nil), fresh("group")
	producer := s.producer(idempotent, func(config *sarama.Config) { config.Producer.Retry.Max = 50 })
	defer producer.Close()
	got := make(chan string, 10_000)
	member := s.member(group, topic, func(message *sarama.ConsumerMessage) { got <- string(message.Value) })
	defer member.Close()
	send := func(values []string) {
		for _, value := range values {
			_, _, err := producer.SendMessage(
				&sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder(value)})
			must(err)
		}
	}
	values, seen := numbered(300), map[string]bool{}
	seeing := func(count int) {
		eventually("every record", func() bool {
			for len(got) > 0 {
				seen[<-got] = true
			}
			return len(seen) == count
		})
	}
	send(values[:100])
	seeing(100)
	restarted()
	send(values[100:])
	seeing(300)
}
