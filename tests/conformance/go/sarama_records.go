package main

import (
	"time"

	"github.com/IBM/sarama"
)

func (s *shopify) registerRecords(all *suite) {
	codecs := []sarama.CompressionCodec{
		sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4,
		sarama.CompressionZSTD,
	}
	for _, name := range []string{"default", "newest"} {
		for _, codec := range codecs {
			compress := func(config *sarama.Config) { config.Producer.Compression = codec }
			all.add("compression "+codec.String()+", "+name, func() { s.roundTrip(version(name), compress) })
		}
		for acks, label := range map[sarama.RequiredAcks]string{0: "0", 1: "1", -1: "all"} {
			require := func(config *sarama.Config) { config.Producer.RequiredAcks = acks }
			all.add("acks "+label+", "+name, func() { s.roundTrip(version(name), require) })
		}
		all.add("idempotent, "+name, func() { s.roundTrip(version(name), idempotent) })
		all.add("record comes back as sent, "+name, func() { s.wholeRecord(name) })
		all.add("start, end and offset, "+name, func() { s.positions(name) })
		all.add("offsets for times, "+name, func() { s.offsetsForTimes(name) })
		all.add("many partitions, "+name, func() { s.manyPartitions(name) })
	}
	all.add("asynchronous producer keeps the order", s.asynchronous)
	all.add("long poll", s.longPoll)
	all.add("records of a megabyte", s.large)
	all.add("too large record", s.tooLarge)
	all.add("unknown topic", s.unknownTopic)
	all.add("automatic topic", s.automaticTopic)
	all.add("offset out of range", s.outOfRange)
}

func (s *shopify) roundTrip(changes ...func(*sarama.Config)) {
	topic := s.topic(1, nil)
	s.produce(topic, 0, "first") // Without acknowledgements, a topic that is not quite there loses records.
	producer := s.producer(changes...)
	values := numbered(200)
	var messages []*sarama.ProducerMessage
	for _, value := range values {
		messages = append(messages, &sarama.ProducerMessage{
			Topic: topic, Key: sarama.StringEncoder("key"), Value: sarama.StringEncoder(value),
		})
	}
	must(producer.SendMessages(messages))
	must(producer.Close())
	got := s.read(topic, 0, 0, 201, changes...)
	same("values", append([]string{"first"}, values...), contents(got))
	for number, message := range got {
		same("offset", int64(number), message.Offset)
	}
}

func (s *shopify) wholeRecord(name string) {
	topic := s.topic(2, nil)
	producer := s.producer(version(name), manual)
	defer producer.Close()
	at := time.UnixMilli(1_700_000_000_123)
	partition, offset, err := producer.SendMessage(&sarama.ProducerMessage{
		Topic: topic, Partition: 1, Key: sarama.StringEncoder("key"), Value: sarama.StringEncoder("välue"),
		Timestamp: at, Headers: []sarama.RecordHeader{{Key: []byte("a"), Value: []byte("1")}, {Key: []byte("a")}},
	})
	must(err)
	same("partition", int32(1), partition)
	same("offset", int64(0), offset)
	_, _, err = producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Partition: 1, Key: sarama.StringEncoder("k")})
	must(err)
	got := s.read(topic, 1, sarama.OffsetOldest, 2, version(name))
	same("key", "key", string(got[0].Key))
	same("value", "välue", string(got[0].Value))
	same("timestamp", at.UnixMilli(), got[0].Timestamp.UnixMilli())
	same("headers", 2, len(got[0].Headers))
	same("header", "1", string(got[0].Headers[0].Value))
	holds(got[1].Value == nil, "the tombstone has the value %v", got[1].Value)
}

func (s *shopify) positions(name string) {
	topic := s.topic(1, nil)
	s.produce(topic, 0, numbered(10)...)
	same("start", numbered(10), contents(s.read(topic, 0, sarama.OffsetOldest, 10, version(name))))
	same("offset", numbered(10)[5:], contents(s.read(topic, 0, 5, 5, version(name))))
	committed := func(config *sarama.Config) { config.Consumer.IsolationLevel = sarama.ReadCommitted }
	same("read committed", numbered(10), contents(s.read(topic, 0, 0, 10, version(name), committed)))
	consumer, err := sarama.NewConsumer(s.bootstrap, saramaConfig(version(name)))
	must(err)
	defer consumer.Close()
	reader, err := consumer.ConsumePartition(topic, 0, sarama.OffsetNewest)
	must(err)
	defer reader.Close()
	s.produce(topic, 0, "new")
	same("new", []string{"new"}, contents(takeMessages(reader, 1)))
	eventually("the high watermark", func() bool { return reader.HighWaterMarkOffset() == 11 })
}

func (s *shopify) offsetsForTimes(name string) {
	topic := s.topic(1, nil)
	producer := s.producer()
	defer producer.Close()
	start := time.UnixMilli(1_700_000_000_000)
	for number, value := range numbered(10) {
		_, _, err := producer.SendMessage(&sarama.ProducerMessage{
			Topic: topic, Value: sarama.StringEncoder(value), Timestamp: start.Add(time.Duration(number) * time.Second),
		})
		must(err)
	}
	client := s.client(version(name))
	defer client.Close()
	for at, expected := range map[int64]int64{
		sarama.OffsetOldest: 0, sarama.OffsetNewest: 10, start.UnixMilli() + 4500: 5, start.UnixMilli() + 1_000_000: -1,
	} {
		offset, err := client.GetOffset(topic, 0, at)
		must(err)
		same("offset", expected, offset)
	}
}

func (s *shopify) manyPartitions(name string) {
	topic := s.topic(60, nil)
	producer := s.producer(version(name), manual)
	defer producer.Close()
	var messages []*sarama.ProducerMessage
	for partition := range numbers(60) {
		messages = append(messages, &sarama.ProducerMessage{
			Topic: topic, Partition: int32(partition), Value: sarama.StringEncoder(numbered(60)[partition]),
		})
	}
	must(producer.SendMessages(messages))
	got := make(chan string, 60)
	one := s.member(fresh("group"), topic, func(message *sarama.ConsumerMessage) { got <- string(message.Value) }, version(name))
	defer one.Close()
	var values []string
	for range 60 {
		values = append(values, <-got)
	}
	same("values", sorted(numbered(60)), sorted(values))
}

func (s *shopify) asynchronous() {
	topic := s.topic(1, nil)
	producer, err := sarama.NewAsyncProducer(s.bootstrap, saramaConfig(idempotent))
	must(err)
	values := numbered(2000)
	go func() {
		for _, value := range values {
			producer.Input() <- &sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder(value)}
		}
	}()
	for range values {
		select {
		case <-producer.Successes():
		case problem := <-producer.Errors():
			must(problem.Err)
		}
	}
	must(producer.Close())
	same("values", values, contents(s.read(topic, 0, 0, 2000)))
}

func (s *shopify) longPoll() {
	topic := s.topic(1, nil)
	consumer, err := sarama.NewConsumer(s.bootstrap, saramaConfig(func(config *sarama.Config) {
		config.Consumer.MaxWaitTime = 20 * time.Second
	}))
	must(err)
	defer consumer.Close()
	reader, err := consumer.ConsumePartition(topic, 0, sarama.OffsetNewest)
	must(err)
	time.Sleep(300 * time.Millisecond)
	began := time.Now()
	s.produce(topic, 0, "new")
	same("value", []string{"new"}, contents(takeMessages(reader, 1)))
	holds(time.Since(began) < 5*time.Second, "the record took %v", time.Since(began))
	reader.AsyncClose()
}

func (s *shopify) large() {
	topic := s.topic(1, nil)
	producer := s.producer()
	defer producer.Close()
	value := noise(1_000_000)
	for range 3 {
		_, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Value: sarama.ByteEncoder(value)})
		must(err)
	}
	for _, message := range s.read(topic, 0, 0, 3) {
		holds(string(message.Value) == string(value), "the value changed")
	}
}

func (s *shopify) tooLarge() {
	topic := s.topic(1, nil)
	producer := s.producer(func(config *sarama.Config) { config.Producer.MaxMessageBytes = 5 << 20 })
	defer producer.Close()
	_, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Value: sarama.ByteEncoder(noise(1_048_600))})
	isKError(sarama.ErrMessageSizeTooLarge, err)
	_, _, err = producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder("fits")})
	must(err)
	same("values", []string{"fits"}, contents(s.read(topic, 0, 0, 1)))
}

func (s *shopify) unknownTopic() {
	client := s.client(func(config *sarama.Config) {
		config.Metadata.AllowAutoTopicCreation = false
		config.Metadata.Retry.Max = 0
	})
	defer client.Close()
	_, err := client.Partitions(fresh("missing"))
	isKError(sarama.ErrUnknownTopicOrPartition, err)
	_, err = client.Partitions("bad/name")
	isKError(sarama.ErrInvalidTopic, err)
}

func (s *shopify) automaticTopic() {
	topic := fresh("automatic")
	s.produce(topic, 0, "first")
	same("values", []string{"first"}, contents(s.read(topic, 0, sarama.OffsetOldest, 1)))
}

func (s *shopify) outOfRange() {
	topic := s.topic(1, nil)
	s.produce(topic, 0, "a")
	consumer, err := sarama.NewConsumer(s.bootstrap, saramaConfig())
	must(err)
	defer consumer.Close()
	_, err = consumer.ConsumePartition(topic, 0, 999)
	isKError(sarama.ErrOffsetOutOfRange, err)
}
