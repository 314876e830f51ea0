package main

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// franz is what the checks of franz-go share: the broker's address and an admin client.
type franz struct {
	bootstrap string
	admin     *kadm.Client
}

var background = context.Background()

func franzSuite(bootstrap string) *suite {
	own := &franz{bootstrap: bootstrap}
	// Administration reads metadata through a cache, which is to be as old as a check's patience at most.
	own.admin = kadm.NewClient(own.client(kgo.MetadataMinAge(50 * time.Millisecond)))
	all := &suite{restart: own.restart}
	own.registerRecords(all)
	own.registerGroups(all)
	own.registerAdmin(all)
	own.registerTransactions(all)
	return all
}

func (f *franz) client(options ...kgo.Opt) *kgo.Client {
	client, err := kgo.NewClient(f.options(options...)...)
	must(err)
	return client
}

// options are these and how to connect.
func (f *franz) options(options ...kgo.Opt) []kgo.Opt {
	connect := append([]kgo.Opt{kgo.SeedBrokers(f.bootstrap)}, credentialsFromEnvironment().franz()...)
	return append(connect, options...)
}

func (f *franz) topic(partitions int32, configs map[string]*string) string {
	name := fresh("franz")
	f.create(name, partitions, configs)
	return name
}

// create makes a topic and waits until the broker says that it is there.
func (f *franz) create(name string, partitions int32, configs map[string]*string) {
	created, err := f.admin.CreateTopic(background, partitions, 1, configs, name)
	must(err)
	must(created.Err)
	eventually("topic "+name, func() bool {
		listed, err := f.admin.ListTopics(background, name)
		return err == nil && listed[name].Err == nil && len(listed[name].Partitions) == int(partitions)
	})
}

func send(client *kgo.Client, records ...*kgo.Record) {
	must(client.ProduceSync(background, records...).FirstErr())
}

func valuesFor(topic string, partition int32, values ...string) []*kgo.Record {
	var records []*kgo.Record
	for _, value := range values {
		records = append(records, &kgo.Record{Topic: topic, Partition: partition, Value: []byte(value)})
	}
	return records
}

// produce sends values to partition 0, in order.
func (f *franz) produce(topic string, values ...string) {
	client := f.client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer client.Close()
	send(client, valuesFor(topic, 0, values...)...)
}

func (f *franz) reader(topic string, partition int32, from kgo.Offset, options ...kgo.Opt) *kgo.Client {
	where := kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: from}})
	return f.client(append(options, where)...)
}

// take polls until this many records came.
func take(client *kgo.Client, count int) []*kgo.Record {
	var records []*kgo.Record
	ctx, cancel := context.WithTimeout(background, 30*time.Second)
	defer cancel()
	for len(records) < count {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			fail("%d of %d records came, then: %v", len(records), count, err)
		}
		records = append(records, fetches.Records()...)
	}
	same("number of records", count, len(records))
	return records
}

// takeThroughErrors polls until this many different values came, whatever the client has to tell about its connections.
func takeThroughErrors(client *kgo.Client, count int) []string {
	seen, values := map[string]bool{}, []string{}
	ctx, cancel := context.WithTimeout(background, 40*time.Second)
	defer cancel()
	for len(values) < count && ctx.Err() == nil {
		client.PollFetches(ctx).EachRecord(func(record *kgo.Record) {
			if value := string(record.Value); !seen[value] {
				seen[value] = true
				values = append(values, value)
			}
		})
	}
	return values
}

func texts(records []*kgo.Record) []string {
	values := []string{}
	for _, record := range records {
		values = append(values, string(record.Value))
	}
	return values
}

func (f *franz) readAll(topic string, partition int32, count int) []*kgo.Record {
	reader := f.reader(topic, partition, kgo.NewOffset().AtStart())
	defer reader.Close()
	return take(reader, count)
}

func isError(expected *kerr.Error, got error) {
	if !errors.Is(got, expected) {
		fail("expected %s, got %v", expected.Message, got)
	}
}

func text(value string) *string { return &value }

// restart goes on with the same producer, consumer and group member after the broker was away.
func (f *franz) restart(restarted func()) {
	topic, group := f.topic(3, nil), fresh("group")
	producer := f.client(kgo.DefaultProduceTopic(topic))
	defer producer.Close()
	member := f.client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer member.Close()
	before, after := numbered(100), numbered(300)[100:]
	for _, value := range before {
		send(producer, kgo.StringRecord(value))
	}
	same("before the restart", sorted(before), sorted(texts(take(member, 100))))
	must(member.CommitUncommittedOffsets(background))
	restarted()
	for _, value := range after {
		send(producer, kgo.StringRecord(value))
	}
	same("after the restart", sorted(after), sorted(takeThroughErrors(member, 200)))
	// What meets a connection that died meanwhile is told so, and is to try again.
	eventually("a commit", func() bool { return member.CommitUncommittedOffsets(background) == nil })
	eventually("the commit being there", func() bool {
		offsets, err := f.admin.FetchOffsets(background, group)
		var committed int64
		offsets.Offsets().Each(func(offset kadm.Offset) { committed += offset.At })
		return err == nil && committed == 300
	})
}
