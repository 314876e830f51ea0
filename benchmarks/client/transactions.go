package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// runTransactions has -producers clients, each with a transactional id of its own, commit transactions of -batch-records
// records, one after the other: as fast as they can, or at -transaction-rate of all together. A commit is timed from when
// the records are acknowledged to the answer of EndTxn.
func runTransactions(ctx context.Context, o options, m *marks) (figures, error) {
	var clients []*kgo.Client
	defer func() { closeAll(clients) }()
	for i := range o.producers {
		id := kgo.TransactionalID(fmt.Sprintf("%s-%d", o.topic, i))
		client, err := connect(o, append(producerOptions(o), id, kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))...)
		if err != nil {
			return nil, err
		}
		clients = append(clients, client)
	}
	if err := ensureTopic(ctx, clients[0], o.topic, o.partitions); err != nil {
		return nil, err
	}
	warm := committers{o: o, clients: clients}
	if err := warm.run(ctx, time.Now().Add(o.warmup)); err != nil {
		return nil, err
	}
	load := committers{o: o, clients: clients}
	m.begin()
	if err := load.run(ctx, time.Now().Add(o.duration)); err != nil {
		return nil, err
	}
	seconds := m.end()
	transactions := load.committed.Load()
	out := volume(transactions*int64(o.batchRecords), transactions*int64(o.batchRecords*o.size), seconds)
	out["transactions"] = transactions
	out["transactions_per_s"] = float64(transactions) / seconds
	load.commits.into(out, "commit_")
	load.whole.into(out, "transaction_")
	return out, nil
}

// committers are producers at work, and what they have seen.
type committers struct {
	o         options
	clients   []*kgo.Client
	committed atomic.Int64
	commits   histogram // from the last acknowledgement to the answer of EndTxn
	whole     histogram // from the beginning of a transaction to that answer
}

// run returns when all have stopped; the first failure is its error.
func (c *committers) run(ctx context.Context, until time.Time) error {
	var working sync.WaitGroup
	failures := make(chan error, len(c.clients))
	values := randomValues(256, c.o.size, 1)
	started := time.Now()
	for i, client := range c.clients {
		working.Go(func() {
			for n := 0; time.Now().Before(until) && ctx.Err() == nil; n++ {
				if c.o.transactionRate > 0 {
					due := float64(n*len(c.clients)+i) / c.o.transactionRate
					time.Sleep(time.Duration(due*1e9) - time.Since(started))
				}
				if err := c.commit(ctx, client, values); err != nil {
					failures <- err
					return
				}
			}
		})
	}
	working.Wait()
	close(failures)
	return <-failures
}

func (c *committers) commit(ctx context.Context, client *kgo.Client, values [][]byte) error {
	begun := time.Now()
	if err := client.BeginTransaction(); err != nil {
		return err
	}
	var records []*kgo.Record
	for n := range c.o.batchRecords {
		records = append(records, &kgo.Record{Value: values[(int(c.committed.Load())+n)%len(values)]})
	}
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return err
	}
	acknowledged := time.Now()
	if err := client.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return err
	}
	c.commits.add(time.Since(acknowledged))
	c.whole.add(time.Since(begun))
	c.committed.Add(1)
	return nil
}
