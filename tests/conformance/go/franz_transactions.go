package main

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func (f *franz) registerTransactions(all *suite) {
	all.add("transactions commit and abort", f.transactionsEnd)
	all.add("a transaction over several partitions", f.transactionOverPartitions)
	all.add("offsets go with the transaction", f.relay)
	all.add("a second producer fences the first", f.fencedProducer)
}

func (f *franz) transactional(id string) *kgo.Client {
	return f.client(kgo.TransactionalID(id), kgo.RecordPartitioner(kgo.ManualPartitioner()))
}

func begin(producer *kgo.Client, records ...*kgo.Record) {
	must(producer.BeginTransaction())
	send(producer, records...)
}

func (f *franz) committed(topic string, partition int32, count int) []string {
	reader := f.reader(topic, partition, kgo.NewOffset().AtStart(), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	defer reader.Close()
	return texts(take(reader, count))
}

func (f *franz) transactionsEnd() {
	topic := f.topic(1, nil)
	producer := f.transactional(fresh("txn"))
	defer producer.Close()
	for turn, value := range []string{"0", "1", "2", "3", "4"} {
		begin(producer, valuesFor(topic, 0, value+"a", value+"b")...)
		must(producer.EndTransaction(background, kgo.TransactionEndTry(turn%2 == 0)))
	}
	same("committed", []string{"0a", "0b", "2a", "2b", "4a", "4b"}, f.committed(topic, 0, 6))
	same("everything", []string{"0a", "0b", "1a", "1b", "2a", "2b", "3a", "3b", "4a", "4b"}, texts(f.readAll(topic, 0, 10)))
}

// transactionOverPartitions: nothing of it is there for a reader of committed records until it is committed.
func (f *franz) transactionOverPartitions() {
	topic := f.topic(3, nil)
	producer := f.transactional(fresh("txn"))
	defer producer.Close()
	must(producer.BeginTransaction())
	for partition := range int32(3) {
		send(producer, valuesFor(topic, partition, "x")...)
	}
	ends, err := f.admin.ListCommittedOffsets(background, topic)
	must(err)
	for partition := range int32(3) {
		end, listed := ends.Lookup(topic, partition)
		holds(listed, "partition %d is not listed", partition)
		same("stable end", int64(0), end.Offset)
	}
	must(producer.EndTransaction(background, kgo.TryCommit))
	for partition := range int32(3) {
		same("committed", []string{"x"}, f.committed(topic, partition, 1))
	}
}

// relay consumes, transforms and produces; the first attempt it aborts, and gets the records again.
func (f *franz) relay() {
	source, target, group := f.topic(1, nil), f.topic(1, nil), fresh("group")
	f.produce(source, "1", "2", "3")
	session, err := kgo.NewGroupTransactSession(f.options(
		kgo.TransactionalID(fresh("txn")), kgo.DefaultProduceTopic(target),
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(source), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.RequireStableFetchOffsets(),
	)...)
	must(err)
	defer session.Close()
	for _, commit := range []kgo.TransactionEndTry{kgo.TryAbort, kgo.TryCommit} {
		ctx, cancel := context.WithTimeout(background, 30*time.Second)
		fetches := session.PollFetches(ctx)
		cancel()
		must(fetches.Err())
		same("taken", []string{"1", "2", "3"}, texts(fetches.Records()))
		must(session.Begin())
		for _, record := range fetches.Records() {
			must(session.ProduceSync(background, kgo.StringRecord(string(record.Value)+"!")).FirstErr())
		}
		committed, err := session.End(background, commit)
		must(err)
		same("committed", bool(commit), committed)
	}
	same("relayed", []string{"1!", "2!", "3!"}, f.committed(target, 0, 3))
	offsets, err := f.admin.FetchOffsets(background, group)
	must(err)
	offset, known := offsets.Lookup(source, 0)
	holds(known, "nothing is committed")
	same("offset", int64(3), offset.At)
}

func (f *franz) fencedProducer() {
	topic, id := f.topic(1, nil), fresh("txn")
	first := f.transactional(id)
	defer first.Close()
	begin(first, valuesFor(topic, 0, "lost")...)
	second := f.transactional(id)
	defer second.Close()
	begin(second, valuesFor(topic, 0, "kept")...)
	must(second.EndTransaction(background, kgo.TryCommit))
	late := first.ProduceSync(background, valuesFor(topic, 0, "late")...).FirstErr()
	if late == nil {
		late = first.EndTransaction(background, kgo.TryCommit)
	}
	isFenced(late)
	same("committed", []string{"kept"}, f.committed(topic, 0, 1))
}

// isFenced: which of the two a client meets depends on where it notices first.
func isFenced(got error) {
	holds(errors.Is(got, kerr.ProducerFenced) || errors.Is(got, kerr.InvalidProducerEpoch), "not fenced: %v", got)
}
