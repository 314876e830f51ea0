package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// runTopics creates -count topics, one per request, one after the other, and deletes them untimed.
func runTopics(ctx context.Context, o options, m *marks) (figures, error) {
	client, err := connect(o)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	if _, err := admin.Metadata(ctx); err != nil { // connects, and is not what is timed
		return nil, err
	}
	var names []string
	var latencies histogram
	m.begin()
	for i := range o.count {
		name := fmt.Sprintf("%s-%05d", o.topic, i)
		begun := time.Now()
		created, err := admin.CreateTopics(ctx, int32(o.partitions), 1, nil, name)
		if err == nil {
			err = created.Error()
		}
		if err != nil {
			return nil, fmt.Errorf("create %s: %w", name, err)
		}
		latencies.add(time.Since(begun))
		names = append(names, name)
	}
	seconds := m.end()
	out := figures{"seconds": seconds, "topics": o.count, "topics_per_s": float64(o.count) / seconds}
	latencies.into(out, "create_")
	return out, deleteTopics(ctx, admin, names)
}

// runDelete deletes the topics whose names begin with -topic.
func runDelete(ctx context.Context, o options, m *marks) (figures, error) {
	client, err := connect(o)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	topics, err := admin.ListTopics(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, name := range topics.Names() {
		if len(name) >= len(o.topic) && name[:len(o.topic)] == o.topic {
			names = append(names, name)
		}
	}
	return figures{"topics": len(names)}, deleteTopics(ctx, admin, names)
}

func deleteTopics(ctx context.Context, admin *kadm.Client, names []string) error {
	deleted, err := admin.DeleteTopics(ctx, names...)
	if err != nil {
		return err
	}
	return deleted.Error()
}
