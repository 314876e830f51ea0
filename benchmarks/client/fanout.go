package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// runFanout has -groups consumer groups of one member each read what is produced at -rate.
func runFanout(ctx context.Context, o options, m *marks) (figures, error) {
	clients, err := connectProducers(ctx, o)
	if err != nil {
		return nil, err
	}
	defer closeAll(clients)
	var readers followers
	defer readers.close()
	var assigned atomic.Int64
	for i := range o.groups {
		err := readers.add(o,
			kgo.ConsumerGroup(fmt.Sprintf("fanout-%d-%d", i, time.Now().UnixNano())),
			kgo.ConsumeTopics(o.topic),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()),
			kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { assigned.Add(1) }))
		if err != nil {
			return nil, err
		}
	}
	for deadline := time.Now().Add(60 * time.Second); assigned.Load() < int64(o.groups); {
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("only %d of %d groups got their partitions", assigned.Load(), o.groups)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return timeArrivals(ctx, o, m, clients, &readers, int64(o.groups))
}
