package main

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// runReady waits until a record is acknowledged and then until it is read back. Times count from -since, the
// server's start.
func runReady(ctx context.Context, o options, _ *marks) (figures, error) {
	begun := time.Now()
	if o.since > 0 {
		begun = time.Unix(0, o.since)
	}
	if err := awaitPort(ctx, o); err != nil {
		return nil, err
	}
	out := figures{"port_s": time.Since(begun).Seconds()}
	var last error
	for ctx.Err() == nil {
		var record *kgo.Record
		if record, last = produceOne(ctx, o); last == nil {
			out["ready_s"] = time.Since(begun).Seconds()
			err := readBack(ctx, o, record)
			out["read_s"] = time.Since(begun).Seconds()
			return out, err
		}
		wait(ctx, 5*time.Millisecond)
	}
	return nil, errors.Join(ctx.Err(), last)
}

func awaitPort(ctx context.Context, o options) error {
	for {
		conn, err := dialRaw(ctx, o)
		if err == nil {
			conn.close()
			return nil
		}
		wait(ctx, 5*time.Millisecond)
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), err)
		}
	}
}

// produceOne uses a client of its own, so that nothing learnt from a broker still starting is kept.
func produceOne(ctx context.Context, o options) (*kgo.Record, error) {
	client, err := connect(o, append(producerOptions(o), kgo.MetadataMinAge(10*time.Millisecond), kgo.ProducerLinger(0))...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	if err := ensureTopic(ctx, client, o.topic, o.partitions); err != nil {
		return nil, err
	}
	return client.ProduceSync(ctx, &kgo.Record{Value: randomValues(1, o.size, 1)[0]}).First()
}

func readBack(ctx context.Context, o options, record *kgo.Record) error {
	conn, err := dialRaw(ctx, o)
	if err != nil {
		return err
	}
	defer conn.close()
	reader := rawReader{conn: conn, topic: o.topic}
	return reader.pass([]bound{{partition: record.Partition, start: record.Offset, end: record.Offset + 1}})
}
