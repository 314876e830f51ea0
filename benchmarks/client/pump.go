package main

import (
	"context"
	"encoding/binary"
	"math/rand"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// pump produces through franz-go clients until a time or a number of records, and counts what was
// acknowledged. With a rate it spaces records evenly, without one it goes as fast as it is let.
type pump struct {
	clients []*kgo.Client
	rate    float64 // records per second of all clients; 0: unbounded
	limit   int64   // records of all clients; 0: none
	stamped bool    // the first 8 bytes of each value are the time it was produced at
	values  [][]byte
	topics  []string // when set, each record goes to a random one of them
	spread  int      // when set, each record goes to a random partition below it
	keys    int      // when set, so many keys take turns

	sent, acked, failed atomic.Int64
	acks                histogram // Produce to acknowledgement; sampled when unbounded
	once                sync.Once
	err                 error
}

func newPump(o options, clients []*kgo.Client) *pump {
	return &pump{clients: clients, rate: o.rate, keys: o.keys, values: randomValues(256, max(o.size, 8), 1)}
}

// run returns when all that was produced is acknowledged or failed; the first failure is its error.
func (p *pump) run(ctx context.Context, until time.Time) error {
	var producing sync.WaitGroup
	for i, client := range p.clients {
		producing.Go(func() { p.produce(ctx, client, until, int64(i)) })
	}
	producing.Wait()
	for _, client := range p.clients {
		if err := client.Flush(ctx); err != nil {
			return err
		}
	}
	return p.err
}

func (p *pump) produce(ctx context.Context, client *kgo.Client, until time.Time, seed int64) {
	random := rand.New(rand.NewSource(seed))
	rate := p.rate / float64(len(p.clients))
	started := time.Now()
	for n := int64(0); ctx.Err() == nil; n++ {
		if (n%16 == 0 || rate > 0) && time.Now().After(until) {
			return
		}
		if p.limit > 0 && p.sent.Add(1) > p.limit {
			return
		}
		if rate > 0 {
			time.Sleep(time.Duration(float64(n)/rate*1e9) - time.Since(started))
		}
		var begun time.Time
		if rate > 0 || n%64 == 0 {
			begun = time.Now()
		}
		client.Produce(ctx, p.record(n, random), func(_ *kgo.Record, err error) { p.done(begun, err) })
	}
}

func (p *pump) record(n int64, random *rand.Rand) *kgo.Record {
	record := &kgo.Record{Value: p.values[n%int64(len(p.values))]}
	if p.stamped {
		value := make([]byte, len(record.Value))
		copy(value, record.Value)
		binary.BigEndian.PutUint64(value, uint64(time.Now().UnixNano()))
		record.Value = value
	}
	if p.keys > 0 {
		record.Key = binary.BigEndian.AppendUint64(nil, uint64(n)%uint64(p.keys))
	}
	if len(p.topics) > 0 {
		record.Topic = p.topics[random.Intn(len(p.topics))]
	}
	if p.spread > 0 {
		record.Partition = int32(random.Intn(p.spread))
	}
	return record
}

func (p *pump) done(begun time.Time, err error) {
	if err != nil {
		p.failed.Add(1)
		p.once.Do(func() { p.err = err })
		return
	}
	p.acked.Add(1)
	if !begun.IsZero() {
		p.acks.add(time.Since(begun))
	}
}

// volume reports records and value bytes moved in so many seconds.
func volume(records int64, bytes int64, seconds float64) figures {
	return figures{
		"seconds":       seconds,
		"records":       records,
		"bytes":         bytes,
		"records_per_s": float64(records) / seconds,
		"mb_per_s":      float64(bytes) / seconds / 1e6,
	}
}
