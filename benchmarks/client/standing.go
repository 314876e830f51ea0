package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// runConnections opens -producers connections that greet the broker and then keep silent until the harness is done.
func runConnections(ctx context.Context, o options, m *marks) (figures, error) {
	var conns []*rawConn
	defer func() {
		for _, conn := range conns {
			conn.close()
		}
	}()
	begun := time.Now()
	for i := range o.producers {
		conn, err := dialRaw(ctx, o)
		if err != nil {
			return nil, fmt.Errorf("connection %d: %w", i, err)
		}
		conns = append(conns, conn)
		if err := conn.greet(); err != nil {
			return nil, fmt.Errorf("connection %d: %w", i, err)
		}
	}
	out := figures{"connections": len(conns), "connect_s": time.Since(begun).Seconds()}
	m.hold(o.duration)
	for i, conn := range conns { // a connection that was dropped meanwhile is a failure, not a saving
		if err := conn.greet(); err != nil {
			return nil, fmt.Errorf("connection %d was lost: %w", i, err)
		}
	}
	return out, nil
}

// runSparse creates -topics topics of -partitions partitions and sends each record, at -rate in all, to a
// random one of them until the harness is done.
func runSparse(ctx context.Context, o options, m *marks) (figures, error) {
	client, err := connect(o, append(producerOptions(o), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	begun := time.Now()
	load := newPump(o, []*kgo.Client{client})
	load.spread = o.partitions
	if load.topics, err = createSpread(ctx, client, o); err != nil {
		return nil, err
	}
	created := time.Since(begun).Seconds()
	if err := touchAll(ctx, client, load); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	running.Go(func() { _ = load.run(ctx, time.Now().Add(o.timeout)) }) // cut off below, by cancelling
	m.hold(o.duration)
	acked := load.acked.Load()
	if load.failed.Load() > 0 {
		return nil, load.err
	}
	cancel()
	running.Wait()
	return figures{"create_s": created, "records": acked, "partitions": o.topics * o.partitions}, nil
}

func createSpread(ctx context.Context, client *kgo.Client, o options) ([]string, error) {
	var names []string
	for i := range o.topics {
		names = append(names, fmt.Sprintf("%s-%03d", o.topic, i))
	}
	admin := kadm.NewClient(client)
	admin.SetTimeoutMillis(90_000)
	created, err := admin.CreateTopics(ctx, int32(o.partitions), 1, nil, names...)
	if err == nil {
		err = created.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("create %d topics: %w", o.topics, err)
	}
	for _, name := range names {
		if err := ensureTopic(ctx, client, name, o.partitions); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// touchAll writes one record to each partition, so that all of them are in use.
func touchAll(ctx context.Context, client *kgo.Client, load *pump) error {
	var records []*kgo.Record
	for _, topic := range load.topics {
		for partition := range int32(load.spread) {
			records = append(records, &kgo.Record{Topic: topic, Partition: partition, Value: load.values[0]})
		}
	}
	return client.ProduceSync(ctx, records...).FirstErr()
}
