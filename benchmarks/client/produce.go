package main

import (
	"context"
	"time"
)

// runProduce writes as fast as the broker takes it, in batches of -batch-bytes, for -duration or -records.
func runProduce(ctx context.Context, o options, m *marks) (figures, error) {
	clients, err := connectProducers(ctx, o)
	if err != nil {
		return nil, err
	}
	defer closeAll(clients)
	if o.warmup > 0 {
		if err := newPump(o, clients).run(ctx, time.Now().Add(o.warmup)); err != nil {
			return nil, err
		}
	}
	load := newPump(o, clients)
	load.limit = o.records
	m.begin()
	if err := load.run(ctx, time.Now().Add(o.duration)); err != nil {
		return nil, err
	}
	seconds := m.end()
	out := volume(load.acked.Load(), load.acked.Load()*int64(o.size), seconds)
	load.acks.into(out, "ack_")
	return out, nil
}
