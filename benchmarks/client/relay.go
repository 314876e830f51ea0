package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// relayTarget is where a relay writes to.
const relayTarget = "-relayed"

// runRelay reads -topic, which was filled before, in a consumer group, writes every record to another topic, and commits
// the offsets with them: one transaction for at most -batch-records records. It ends after -duration, or where the input
// does.
func runRelay(ctx context.Context, o options, m *marks) (figures, error) {
	name := fmt.Sprintf("%s-%d", o.topic, time.Now().UnixNano())
	target := o
	target.topic += relayTarget
	session, err := kgo.NewGroupTransactSession(append(producerOptions(target),
		kgo.SeedBrokers(o.broker),
		kgo.ClientID("penstock-benchmark"),
		kgo.TransactionalID(name),
		kgo.ConsumerGroup(name),
		kgo.ConsumeTopics(o.topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.RequireStableFetchOffsets(),
	)...)
	if err != nil {
		return nil, err
	}
	defer session.Close()
	if err := ensureTopic(ctx, session.Client(), target.topic, o.partitions); err != nil {
		return nil, err
	}
	relay := relay{o: o, session: session}
	if err := relay.run(ctx, time.Now().Add(o.warmup)); err != nil {
		return nil, err
	}
	relay.records, relay.transactions, relay.whole = 0, 0, histogram{}
	m.begin()
	if err := relay.run(ctx, time.Now().Add(o.duration)); err != nil {
		return nil, err
	}
	seconds := m.end()
	out := volume(relay.records, relay.records*int64(o.size), seconds)
	out["transactions"] = relay.transactions
	out["transactions_per_s"] = float64(relay.transactions) / seconds
	relay.whole.into(out, "transaction_")
	return out, nil
}

type relay struct {
	o                     options
	session               *kgo.GroupTransactSession
	records, transactions int64
	whole                 histogram
}

// run goes on until a time, or until nothing has come for a second.
func (r *relay) run(ctx context.Context, until time.Time) error {
	for time.Now().Before(until) {
		patience := 5 * time.Second
		if r.transactions == 0 {
			patience = 30 * time.Second // The group is made meanwhile.
		}
		polled, cancel := context.WithTimeout(ctx, patience)
		fetches := r.session.PollRecords(polled, r.o.batchRecords)
		cancel()
		if err := fetches.Err0(); err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("the input has ended after %d records", r.records)
			}
			return err
		}
		if err := r.relay(ctx, fetches.Records()); err != nil {
			return err
		}
	}
	return nil
}

func (r *relay) relay(ctx context.Context, records []*kgo.Record) error {
	begun := time.Now()
	if err := r.session.Begin(); err != nil {
		return err
	}
	for _, record := range records {
		r.session.Produce(ctx, &kgo.Record{Value: record.Value}, nil)
	}
	committed, err := r.session.End(ctx, kgo.TryCommit)
	if err != nil {
		return err
	}
	if !committed {
		return errors.New("a transaction was aborted")
	}
	r.whole.add(time.Since(begun))
	r.records += int64(len(records))
	r.transactions++
	return nil
}
