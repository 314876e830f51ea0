package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// runLatency produces -rate records per second and reads them back in the same process, so that one clock
// stamps and reads. End to end is from Produce to the arrival in the reader.
func runLatency(ctx context.Context, o options, m *marks) (figures, error) {
	clients, err := connectProducers(ctx, o)
	if err != nil {
		return nil, err
	}
	defer closeAll(clients)
	offsets := map[int32]kgo.Offset{}
	for partition := range int32(o.partitions) {
		offsets[partition] = kgo.NewOffset().AtEnd()
	}
	var readers followers
	defer readers.close()
	if err := readers.add(o, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{o.topic: offsets})); err != nil {
		return nil, err
	}
	return timeArrivals(ctx, o, m, clients, &readers, 1)
}

// timeArrivals warms up, then times a paced load until every reader has every record.
func timeArrivals(
	ctx context.Context, o options, m *marks, clients []*kgo.Client, readers *followers, copies int64,
) (figures, error) {
	time.Sleep(time.Second) // the readers find their offsets
	warm := newPump(o, clients)
	warm.stamped = true
	if err := warm.run(ctx, time.Now().Add(o.warmup)); err != nil {
		return nil, err
	}
	time.Sleep(500 * time.Millisecond) // the last of the warm-up arrives and is not counted
	load := newPump(o, clients)
	load.stamped = true
	readers.counting.Store(true)
	m.begin()
	byWindow := newWindows(time.Now(), o.duration, o.window)
	readers.byWindow.Store(byWindow)
	if err := load.run(ctx, time.Now().Add(o.duration)); err != nil {
		return nil, err
	}
	produced := load.acked.Load()
	readers.await(produced*copies, 10*time.Second)
	seconds := m.end()
	if received := readers.received.Load(); received < produced*copies {
		return nil, fmt.Errorf("only %d of %d records arrived", received, produced*copies)
	}
	out := volume(produced, produced*int64(o.size), seconds)
	out["received"] = readers.received.Load()
	readers.ages.into(out, "e2e_")
	out["e2e_typical_p99_ms"] = byWindow.typical(0.99)
	load.acks.into(out, "ack_")
	return out, nil
}
