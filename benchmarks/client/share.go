package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const configApplies = 2 * time.Second // until a broker goes by what a group's configuration was changed to

// runShare reads -topic, which was filled before, as the only member of a share group, which accepts what it has got with
// its next poll. It ends after -duration, or where the input does.
func runShare(ctx context.Context, o options, m *marks) (figures, error) {
	group := fmt.Sprintf("%s-%d", o.topic, time.Now().UnixNano())
	admin, err := connect(o)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	earliest := map[string]string{"share.auto.offset.reset": "earliest"}
	if err := alter(ctx, admin, kmsg.ConfigResourceTypeGroupConfig, group, earliest); err != nil {
		return nil, err
	}
	wait(ctx, configApplies)
	client, err := connect(o, kgo.ShareGroup(group), kgo.ConsumeTopics(o.topic))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	reader := shareReader{client: client}
	if err := reader.run(ctx, time.Now().Add(o.warmup)); err != nil {
		return nil, err
	}
	reader.records, reader.bytes = 0, 0
	m.begin()
	if err := reader.run(ctx, time.Now().Add(o.duration)); err != nil {
		return nil, err
	}
	return volume(reader.records, reader.bytes, m.end()), nil
}

type shareReader struct {
	client         *kgo.Client
	records, bytes int64
}

// run goes on until a time. The first records may take a while to come.
func (r *shareReader) run(ctx context.Context, until time.Time) error {
	for begun := r.records; time.Now().Before(until) || r.records == begun; {
		polled, cancel := context.WithTimeout(ctx, 15*time.Second)
		fetches := r.client.PollFetches(polled)
		cancel()
		if err := fetches.Err0(); err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("the input has ended after %d records", r.records)
			}
			return err
		}
		if err := fetches.Err(); err != nil {
			return err
		}
		fetches.EachRecord(func(record *kgo.Record) {
			r.records++
			r.bytes += int64(len(record.Value))
		})
	}
	return nil
}
