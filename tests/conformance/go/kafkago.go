package main

import (
	"context"
	"errors"
	"time"

	"github.com/segmentio/kafka-go"
)

// segment is what the checks of kafka-go share. The library has no transactions and no idempotent producer.
type segment struct {
	bootstrap string
	client    *kafka.Client
}

func kafkaGoSuite(bootstrap string) *suite {
	own := &segment{bootstrap: bootstrap, client: &kafka.Client{Addr: kafka.TCP(bootstrap), Timeout: 20 * time.Second}}
	all := &suite{restart: own.restart}
	codecs := map[string]kafka.Compression{
		"none": 0, "gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd,
	}
	for name, codec := range codecs {
		all.add("compression "+name, func() { own.roundTrip(func(w *kafka.Writer) { w.Compression = codec }) })
	}
	acks := map[string]kafka.RequiredAcks{"0": kafka.RequireNone, "1": kafka.RequireOne, "all": kafka.RequireAll}
	for name, required := range acks {
		all.add("acks "+name, func() { own.roundTrip(func(w *kafka.Writer) { w.RequiredAcks = required }) })
	}
	all.add("record comes back as sent", own.wholeRecord)
	all.add("group commits and resumes", own.group)
	all.add("members part the partitions", own.members)
	all.add("offsets", own.offsets)
	all.add("topics", own.topics)
	all.add("connection of its own", own.connection)
	return all
}

func soon() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 30*time.Second)
}

func (s *segment) topic(partitions int) string {
	ctx, done := soon()
	defer done()
	name := fresh("kafka-go")
	made, err := s.client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
		Topic: name, NumPartitions: partitions, ReplicationFactor: 1,
		ConfigEntries: []kafka.ConfigEntry{{ConfigName: "retention.ms", ConfigValue: "600000"}},
	}}})
	must(err)
	must(made.Errors[name])
	return name
}

func (s *segment) writer(topic string, changes ...func(*kafka.Writer)) *kafka.Writer {
	writer := &kafka.Writer{
		Addr: kafka.TCP(s.bootstrap), Topic: topic, BatchTimeout: 5 * time.Millisecond, RequiredAcks: kafka.RequireAll,
	}
	for _, change := range changes {
		change(writer)
	}
	return writer
}

func (s *segment) produce(topic string, values []string, changes ...func(*kafka.Writer)) {
	ctx, done := soon()
	defer done()
	writer := s.writer(topic, changes...)
	var messages []kafka.Message
	for _, value := range values {
		messages = append(messages, kafka.Message{Key: []byte("key"), Value: []byte(value)})
	}
	must(writer.WriteMessages(ctx, messages...))
	must(writer.Close())
}

func (s *segment) reader(topic, group string, changes ...func(*kafka.ReaderConfig)) *kafka.Reader {
	config := kafka.ReaderConfig{
		Brokers: []string{s.bootstrap}, Topic: topic, GroupID: group, StartOffset: kafka.FirstOffset,
		MaxWait: 500 * time.Millisecond,
	}
	for _, change := range changes {
		change(&config)
	}
	return kafka.NewReader(config)
}

func segmentFetch(reader *kafka.Reader, count int) []kafka.Message {
	ctx, done := soon()
	defer done()
	var messages []kafka.Message
	for len(messages) < count {
		message, err := reader.FetchMessage(ctx)
		must(err)
		messages = append(messages, message)
	}
	return messages
}

func segmentTexts(messages []kafka.Message) []string {
	values := []string{}
	for _, message := range messages {
		values = append(values, string(message.Value))
	}
	return values
}

func (s *segment) roundTrip(changes ...func(*kafka.Writer)) {
	topic, values := s.topic(1), numbered(200)
	s.produce(topic, values, changes...)
	reader := s.reader(topic, "")
	defer reader.Close()
	same("values", values, segmentTexts(segmentFetch(reader, 200)))
}

func (s *segment) wholeRecord() {
	ctx, done := soon()
	defer done()
	topic, at := s.topic(1), time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	writer := s.writer(topic)
	must(writer.WriteMessages(ctx, kafka.Message{
		Key: []byte("key"), Value: []byte("välue"), Time: at,
		Headers: []kafka.Header{{Key: "a", Value: []byte("1")}, {Key: "a", Value: []byte("2")}},
	}, kafka.Message{Key: []byte("key")}))
	must(writer.Close())
	reader := s.reader(topic, "")
	defer reader.Close()
	got := segmentFetch(reader, 2)
	same("key", "key", string(got[0].Key))
	same("value", "välue", string(got[0].Value))
	same("timestamp", at.UnixMilli(), got[0].Time.UnixMilli())
	same("headers", 2, len(got[0].Headers))
	same("second header", "2", string(got[0].Headers[1].Value))
	same("offset", int64(1), got[1].Offset)
	holds(len(got[1].Value) == 0, "the tombstone has the value %v", got[1].Value)
}

func (s *segment) group() {
	ctx, done := soon()
	defer done()
	topic, group, values := s.topic(1), fresh("group"), numbered(100)
	s.produce(topic, values)
	reader := s.reader(topic, group)
	first := segmentFetch(reader, 40)
	same("first", values[:40], segmentTexts(first))
	must(reader.CommitMessages(ctx, first...))
	must(reader.Close())
	reader = s.reader(topic, group)
	same("rest", values[40:], segmentTexts(segmentFetch(reader, 60)))
	must(reader.Close())
	found, err := s.client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{
		GroupID: group, Topics: map[string][]int{topic: {0}},
	})
	must(err)
	same("committed", int64(40), found.Topics[topic][0].CommittedOffset)
}

func (s *segment) members() {
	topic, group := s.topic(4), fresh("group")
	s.produce(topic, numbered(100), func(w *kafka.Writer) { w.Balancer = &kafka.RoundRobin{}; w.BatchSize = 10 })
	got, ended := make(chan int, 100), make(chan struct{})
	defer close(ended)
	for range 2 {
		reader := s.reader(topic, group)
		defer reader.Close()
		go func() {
			for {
				ctx, done := soon()
				message, err := reader.ReadMessage(ctx)
				done()
				if err != nil {
					return
				}
				select {
				case got <- message.Partition:
				case <-ended:
					return
				}
			}
		}()
	}
	eventually("every record", func() bool { return len(got) == 100 })
}

func (s *segment) offsets() {
	ctx, done := soon()
	defer done()
	topic := s.topic(1)
	writer, start := s.writer(topic), time.Now().Add(-time.Minute)
	for number := range 10 {
		must(writer.WriteMessages(ctx, kafka.Message{
			Value: []byte("x"), Time: start.Add(time.Duration(number) * time.Second),
		}))
	}
	must(writer.Close())
	found, err := s.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{
		topic: {kafka.FirstOffsetOf(0), kafka.LastOffsetOf(0), kafka.TimeOffsetOf(0, start.Add(4500*time.Millisecond))},
	}})
	must(err)
	same("first", int64(0), found.Topics[topic][0].FirstOffset)
	same("last", int64(10), found.Topics[topic][0].LastOffset)
	for offset := range found.Topics[topic][0].Offsets {
		same("of a time", int64(5), offset)
	}
}

func (s *segment) topics() {
	ctx, done := soon()
	defer done()
	topic := s.topic(2)
	again, err := s.client.CreateTopics(ctx, &kafka.CreateTopicsRequest{
		Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: 1, ReplicationFactor: 1}},
	})
	must(err)
	holds(errors.Is(again.Errors[topic], kafka.TopicAlreadyExists), "it was created twice: %v", again.Errors)
	described, err := s.client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{
		{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic, ConfigNames: []string{"retention.ms"}},
	}})
	must(err)
	same("setting", "600000", described.Resources[0].ConfigEntries[0].ConfigValue)
	grown, err := s.client.CreatePartitions(ctx, &kafka.CreatePartitionsRequest{
		Topics: []kafka.TopicPartitionsConfig{{Name: topic, Count: 3}},
	})
	must(err)
	must(grown.Errors[topic])
	eventually("three partitions", func() bool { // The library remembers for some seconds what it saw.
		metadata, err := s.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
		return err == nil && len(metadata.Topics[0].Partitions) == 3
	})
	deleted, err := s.client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	must(err)
	must(deleted.Errors[topic])
}

// connection is the library's older interface, which speaks the oldest versions.
func (s *segment) connection() {
	ctx, done := soon()
	defer done()
	topic := s.topic(1)
	connection, err := kafka.DialLeader(ctx, "tcp", s.bootstrap, topic, 0)
	must(err)
	defer connection.Close()
	must(connection.SetDeadline(time.Now().Add(20 * time.Second)))
	_, err = connection.WriteMessages(kafka.Message{Value: []byte("a")}, kafka.Message{Value: []byte("b")})
	must(err)
	first, last, err := connection.ReadOffsets()
	must(err)
	same("offsets", []int64{0, 2}, []int64{first, last})
	_, err = connection.Seek(0, kafka.SeekAbsolute)
	must(err)
	batch := connection.ReadBatch(1, 1<<20)
	for _, expected := range []string{"a", "b"} {
		message, err := batch.ReadMessage()
		must(err)
		same("value", expected, string(message.Value))
	}
	must(batch.Close())
}

// restart goes on with the same writer and group member after the broker was away.
func (s *segment) restart(restarted func()) {
	topic, group, values := s.topic(1), fresh("group"), numbered(200)
	writer := s.writer(topic, func(w *kafka.Writer) { w.MaxAttempts = 50 })
	defer writer.Close()
	reader := s.reader(topic, group, func(config *kafka.ReaderConfig) {
		// It comes back as another member, and the one it was must be given up first.
		config.SessionTimeout, config.RebalanceTimeout, config.HeartbeatInterval = 6*time.Second, 6*time.Second, time.Second
	})
	defer reader.Close()
	send := func(values []string) {
		ctx, done := soon()
		defer done()
		for _, value := range values {
			// The library does not try again by itself what it fails at before it has sent anything.
			eventually("sending", func() bool {
				return writer.WriteMessages(ctx, kafka.Message{Value: []byte(value)}) == nil
			})
		}
	}
	send(values[:100])
	same("before", values[:100], segmentTexts(segmentFetch(reader, 100)))
	restarted()
	send(values[100:])
	awaited := map[string]bool{}
	for _, value := range values[100:] {
		awaited[value] = true
	}
	ctx, done := soon()
	defer done()
	for len(awaited) > 0 { // What is not committed may come again, and what failed is asked for again.
		message, err := reader.FetchMessage(ctx)
		holds(ctx.Err() == nil, "%d messages did not come: %v", len(awaited), err)
		delete(awaited, string(message.Value))
	}
}
