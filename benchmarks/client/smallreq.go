package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// runSmallRequests sends ready-made Produce requests of one record each over -producers connections in a
// closed loop with -inflight requests under way on each. Connections share the topic's partitions.
func runSmallRequests(ctx context.Context, o options, m *marks) (figures, error) {
	client, err := connect(o)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	if err := ensureTopic(ctx, client, o.topic, o.partitions); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var load smallRequests
	var running sync.WaitGroup
	for i := range o.producers {
		conn, err := dialRaw(ctx, o)
		if err != nil {
			return nil, errors.Join(err, context.Cause(ctx))
		}
		value := randomValues(1, o.size, int64(i))[0]
		batch := recordBatch(value, time.Now().UnixMilli(), nobody)
		request := produceRequest(o.topic, int32(i%o.partitions), batch)
		running.Go(func() {
			defer conn.close()
			if err := load.loop(conn, request, o.inflight); err != nil {
				cancel(fmt.Errorf("connection %d: %w", i, err))
			}
		})
	}
	wait(ctx, o.warmup)
	m.begin()
	load.counting.Store(true)
	wait(ctx, o.duration)
	load.stopping.Store(true)
	running.Wait()
	seconds := m.end()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	done := load.latencies.samples.Load()
	out := volume(done, done*int64(o.size), seconds)
	load.latencies.into(out, "ack_")
	return out, nil
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

type smallRequests struct {
	counting, stopping atomic.Bool
	latencies          histogram
}

func (s *smallRequests) loop(conn *rawConn, request []byte, inflight int) error {
	sentAt := make([]time.Time, 0, inflight)
	for !s.stopping.Load() || len(sentAt) > 0 {
		for len(sentAt) < inflight && !s.stopping.Load() {
			sentAt = append(sentAt, time.Now())
			if err := conn.send(request); err != nil {
				return err
			}
		}
		body, err := conn.receiveFlexible()
		if err != nil {
			return err
		}
		if err := checkProduced(body); err != nil {
			return err
		}
		if s.counting.Load() {
			s.latencies.add(time.Since(sentAt[0]))
		}
		sentAt = append(sentAt[:0], sentAt[1:]...)
	}
	return nil
}

func checkProduced(body []byte) error {
	response := kmsg.ProduceResponse{Version: produceVersion}
	if err := response.ReadFrom(body); err != nil {
		return err
	}
	if len(response.Topics) != 1 || len(response.Topics[0].Partitions) != 1 {
		return errors.New("produce response without the partition")
	}
	if code := response.Topics[0].Partitions[0].ErrorCode; code != 0 {
		return fmt.Errorf("produce error code %d", code)
	}
	return nil
}
