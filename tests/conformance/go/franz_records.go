package main

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func (f *franz) registerRecords(all *suite) {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	for _, name := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		all.add("compression "+name, func() { f.roundTrip(kgo.ProducerBatchCompression(codecs[name])) })
	}
	all.add("defaults", func() { f.roundTrip() })
	all.add("not idempotent", func() { f.roundTrip(kgo.DisableIdempotentWrite()) })
	all.add("acks 1", func() { f.roundTrip(kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.LeaderAck())) })
	all.add("acks 0", func() { f.roundTrip(kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.NoAck())) })
	all.add("record comes back as sent", f.wholeRecord)
	all.add("nulls and empties", f.nulls)
	all.add("order of pipelined requests", f.order)
	all.add("start, end, offset and timestamp", f.positions)
	all.add("reset when out of range", f.outOfRange)
	all.add("long poll", f.longPoll)
	all.add("records of a megabyte", f.large)
	all.add("too large record", f.tooLarge)
	all.add("many partitions", f.manyPartitions)
	all.add("unknown topic", f.unknownTopic)
	all.add("automatic topic", f.automaticTopic)
	all.add("recreated topic", f.recreatedTopic)
	all.add("regular expression", f.expression)
	all.add("producers at once", f.producersAtOnce)
	all.add("keyless record for a compacted topic", f.compacted)
}

func (f *franz) roundTrip(options ...kgo.Opt) {
	topic := f.topic(1, nil)
	producer := f.client(append(options, kgo.DefaultProduceTopic(topic))...)
	defer producer.Close()
	values := numbered(500)
	for _, value := range values {
		producer.Produce(background, kgo.StringRecord(value), nil)
	}
	must(producer.Flush(background))
	records := f.readAll(topic, 0, 500)
	same("values", values, texts(records))
	for number, record := range records {
		same("offset", int64(number), record.Offset)
	}
}

func (f *franz) wholeRecord() {
	topic := f.topic(2, nil)
	producer := f.client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer producer.Close()
	headers := []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "a", Value: []byte{}}, {Key: "é", Value: nil}}
	at := time.UnixMilli(1_700_000_000_123)
	send(producer, &kgo.Record{
		Topic: topic, Partition: 1, Key: []byte("key"), Value: []byte("välue"), Headers: headers, Timestamp: at,
	})
	record := f.readAll(topic, 1, 1)[0]
	same("key", "key", string(record.Key))
	same("value", "välue", string(record.Value))
	same("timestamp", at.UnixMilli(), record.Timestamp.UnixMilli())
	same("timestamp type", int8(0), record.Attrs.TimestampType())
	same("headers", 3, len(record.Headers))
	same("header", "1", string(record.Headers[0].Value))
	holds(record.Headers[1].Value != nil && len(record.Headers[1].Value) == 0, "the empty header is %v", record.Headers[1])
	holds(record.Headers[2].Value == nil, "the null header is %v", record.Headers[2])
}

func (f *franz) nulls() {
	topic := f.topic(1, nil)
	producer := f.client(kgo.DefaultProduceTopic(topic))
	defer producer.Close()
	send(producer, &kgo.Record{Key: []byte("k")}, &kgo.Record{Value: []byte{}}, &kgo.Record{Key: []byte{}})
	records := f.readAll(topic, 0, 3)
	holds(records[0].Value == nil && string(records[0].Key) == "k", "the tombstone is %v", records[0])
	holds(records[1].Key == nil && records[1].Value != nil, "the empty value is %v", records[1])
	holds(records[2].Key != nil && records[2].Value == nil, "the empty key is %v", records[2])
}

func (f *franz) order() {
	topic := f.topic(1, nil)
	producer := f.client(kgo.DefaultProduceTopic(topic), kgo.ProducerBatchMaxBytes(1000), kgo.ProducerLinger(0))
	defer producer.Close()
	values := numbered(3000)
	for _, value := range values {
		producer.Produce(background, kgo.StringRecord(value), func(_ *kgo.Record, err error) { _ = err })
	}
	must(producer.Flush(background))
	same("values", values, texts(f.readAll(topic, 0, 3000)))
}

func (f *franz) positions() {
	topic := f.topic(1, nil)
	producer := f.client(kgo.DefaultProduceTopic(topic))
	defer producer.Close()
	start := time.UnixMilli(1_700_000_000_000)
	for number, value := range numbered(10) {
		send(producer, &kgo.Record{Value: []byte(value), Timestamp: start.Add(time.Duration(number) * time.Second)})
	}
	read := func(from kgo.Offset, count int) []string {
		reader := f.reader(topic, 0, from)
		defer reader.Close()
		return texts(take(reader, count))
	}
	same("start", numbered(10), read(kgo.NewOffset().AtStart(), 10))
	same("offset", numbered(10)[5:], read(kgo.NewOffset().At(5), 5))
	same("before the end", numbered(10)[8:], read(kgo.NewOffset().AtEnd().Relative(-2), 2))
	same("after the start", numbered(10)[3:], read(kgo.NewOffset().AtStart().Relative(3), 7))
	same("timestamp", numbered(10)[5:], read(kgo.NewOffset().AfterMilli(start.UnixMilli()+4500), 5))
	same("read committed", numbered(10), func() []string {
		reader := f.reader(topic, 0, kgo.NewOffset().AtStart(), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
		defer reader.Close()
		return texts(take(reader, 10))
	}())
	end := f.reader(topic, 0, kgo.NewOffset().AtEnd(), kgo.FetchMaxWait(time.Second))
	defer end.Close()
	ctx, cancel := context.WithTimeout(background, time.Second)
	defer cancel()
	same("at the end", 0, len(end.PollFetches(ctx).Records()))
	send(producer, kgo.StringRecord("new"))
	same("new", []string{"new"}, texts(take(end, 1)))
}

func (f *franz) outOfRange() {
	topic := f.topic(1, nil)
	f.produce(topic, "a", "b")
	reader := f.reader(topic, 0, kgo.NewOffset().At(999), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer reader.Close()
	same("values", []string{"a", "b"}, texts(take(reader, 2)))
}

// longPoll: a record that comes while a fetch waits is delivered at once, not when the wait is over.
func (f *franz) longPoll() {
	topic := f.topic(1, nil)
	f.produce(topic, "first")
	reader := f.reader(topic, 0, kgo.NewOffset().AtStart(), kgo.FetchMaxWait(20*time.Second))
	defer reader.Close()
	take(reader, 1)
	time.Sleep(300 * time.Millisecond)
	began := time.Now()
	f.produce(topic, "second")
	same("value", []string{"second"}, texts(take(reader, 1)))
	holds(time.Since(began) < 5*time.Second, "the record took %v", time.Since(began))
}

func (f *franz) large() {
	topic := f.topic(1, nil)
	producer := f.client(kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(kgo.NoCompression()))
	defer producer.Close()
	value := noise(1_000_000 - 200)
	for range 5 {
		send(producer, &kgo.Record{Value: value})
	}
	for _, record := range f.readAll(topic, 0, 5) {
		holds(string(record.Value) == string(value), "the value changed")
	}
}

func (f *franz) tooLarge() {
	topic := f.topic(1, nil)
	producer := f.client(
		kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerBatchMaxBytes(5<<20),
	)
	defer producer.Close()
	isError(kerr.MessageTooLarge, producer.ProduceSync(background, &kgo.Record{Value: noise(1_048_600)}).FirstErr())
	send(producer, kgo.StringRecord("fits"))
	same("values", []string{"fits"}, texts(f.readAll(topic, 0, 1)))
}

func (f *franz) manyPartitions() {
	topic := f.topic(120, nil)
	producer := f.client(kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer producer.Close()
	reader := f.client(kgo.ConsumeTopics(topic))
	defer reader.Close()
	var sent []string
	for round := range 3 {
		var records []*kgo.Record
		for partition := range 120 {
			value := time.Duration(round*1000 + partition).String()
			sent = append(sent, value)
			records = append(records, &kgo.Record{Topic: topic, Partition: int32(partition), Value: []byte(value)})
		}
		send(producer, records...)
	}
	same("values", sorted(sent), sorted(texts(take(reader, 360))))
}

func (f *franz) unknownTopic() {
	producer := f.client(kgo.DefaultProduceTopic(fresh("missing")), kgo.UnknownTopicRetries(1))
	defer producer.Close()
	isError(kerr.UnknownTopicOrPartition, producer.ProduceSync(background, kgo.StringRecord("x")).FirstErr())
	metadata, err := f.admin.Metadata(background, "bad/name")
	must(err)
	isError(kerr.InvalidTopicException, metadata.Topics["bad/name"].Err)
}

func (f *franz) automaticTopic() {
	topic := fresh("automatic")
	producer := f.client(kgo.DefaultProduceTopic(topic), kgo.AllowAutoTopicCreation())
	defer producer.Close()
	send(producer, kgo.StringRecord("first"))
	same("values", []string{"first"}, texts(f.readAll(topic, 0, 1)))
}

// recreatedTopic: a topic of the same name is another topic, with another id and its own offsets.
func (f *franz) recreatedTopic() {
	topic := f.topic(1, nil)
	f.produce(topic, "old", "old")
	first, err := f.admin.Metadata(background, topic)
	must(err)
	_, err = f.admin.DeleteTopic(background, topic)
	must(err)
	eventually("the topic being gone", func() bool {
		created, err := f.admin.CreateTopic(background, 1, 1, nil, topic)
		return err == nil && created.Err == nil
	})
	f.produce(topic, "new")
	same("values", []string{"new"}, texts(f.readAll(topic, 0, 1)))
	eventually("another topic id", func() bool {
		second, err := f.admin.Metadata(background, topic)
		return err == nil && first.Topics[topic].ID != second.Topics[topic].ID
	})
}

func (f *franz) expression() {
	prefix := fresh("expression")
	for _, name := range []string{prefix + "-a", prefix + "-b"} {
		f.create(name, 1, nil)
		f.produce(name, name)
	}
	reader := f.client(kgo.ConsumeRegex(), kgo.ConsumeTopics("^"+prefix+"-.*"))
	defer reader.Close()
	same("values", []string{prefix + "-a", prefix + "-b"}, sorted(texts(take(reader, 2))))
}

func (f *franz) producersAtOnce() {
	topic := f.topic(3, nil)
	var group sync.WaitGroup
	problems := make(chan error, 8)
	for range 8 {
		group.Add(1)
		go func() {
			defer group.Done()
			client, err := kgo.NewClient(f.options(kgo.DefaultProduceTopic(topic))...)
			if err != nil {
				problems <- err
				return
			}
			defer client.Close()
			for _, value := range numbered(100) {
				if err := client.ProduceSync(background, kgo.StringRecord(value)).FirstErr(); err != nil {
					problems <- err
					return
				}
			}
		}()
	}
	group.Wait()
	close(problems)
	must(<-problems)
	ends, err := f.admin.ListEndOffsets(background, topic)
	must(err)
	var total int64
	ends.Each(func(offset kadm.ListedOffset) { total += offset.Offset })
	same("records", int64(800), total)
}

func (f *franz) compacted() {
	topic := f.topic(1, map[string]*string{"cleanup.policy": text("compact")})
	producer := f.client(kgo.DefaultProduceTopic(topic))
	defer producer.Close()
	isError(kerr.InvalidRecord, producer.ProduceSync(background, kgo.StringRecord("keyless")).FirstErr())
	send(producer, kgo.KeyStringRecord("key", "value"))
}
