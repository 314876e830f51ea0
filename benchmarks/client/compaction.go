package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	sizeEvery  = 100 * time.Millisecond
	sizeStays  = 3 * time.Second
	recordMost = 1.25 // of a record's value: what a record takes in the log at most
)

// runConfigure creates -topic if it is absent and gives it -configs.
func runConfigure(ctx context.Context, o options, _ *marks) (figures, error) {
	client, err := connect(o)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	if err := ensureTopic(ctx, client, o.topic, o.partitions); err != nil {
		return nil, err
	}
	return figures{}, alter(ctx, client, kmsg.ConfigResourceTypeTopic, o.topic, o.settings())
}

// settings are -configs.
func (o options) settings() map[string]string {
	settings := map[string]string{}
	for setting := range strings.SplitSeq(o.configs, ",") {
		name, value, _ := strings.Cut(setting, "=")
		settings[name] = value
	}
	return settings
}

func alter(ctx context.Context, client *kgo.Client, kind kmsg.ConfigResourceType, name string, settings map[string]string) error {
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kind, name
	for setting, value := range settings {
		config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		config.Name, config.Value = setting, &value
		resource.Configs = append(resource.Configs, config)
	}
	request := kmsg.NewPtrIncrementalAlterConfigsRequest()
	request.Resources = append(request.Resources, resource)
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	if len(response.Resources) != 1 || response.Resources[0].ErrorCode != 0 {
		return fmt.Errorf("configuration of %s: %+v", name, response.Resources)
	}
	return nil
}

// runCompaction gives -configs to a topic that is full of records of -keys keys, which have it compacted, and times until
// its log has stopped shrinking where it holds little more than a record for each key and two segments.
func runCompaction(ctx context.Context, o options, m *marks) (figures, error) {
	client, err := connect(o)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	before, err := sizeOf(ctx, admin, o.topic)
	if err != nil {
		return nil, err
	}
	enough := int64(float64(o.keys*o.size)*recordMost) + 2*int64(o.batchBytes)
	m.begin()
	begun := time.Now()
	if err := alter(ctx, client, kmsg.ConfigResourceTypeTopic, o.topic, o.settings()); err != nil {
		return nil, err
	}
	size, changed := before, begun
	for size > enough || time.Since(changed) < sizeStays {
		wait(ctx, sizeEvery)
		now, err := sizeOf(ctx, admin, o.topic)
		if err != nil {
			return nil, fmt.Errorf("of %d bytes %d are left, not %d: %w", before, size, enough, err)
		}
		if now != size {
			size, changed = now, time.Now()
		}
	}
	m.end()
	seconds := changed.Sub(begun).Seconds()
	out := volume(o.records, before, seconds)
	out["compaction_s"], out["left_bytes"] = seconds, size
	return out, nil
}

func sizeOf(ctx context.Context, admin *kadm.Client, topic string) (int64, error) {
	all, err := admin.DescribeAllLogDirs(ctx, nil)
	if err != nil {
		return 0, err
	}
	var size int64
	for _, dirs := range all {
		dirs.EachPartition(func(partition kadm.DescribedLogDirPartition) {
			if partition.Topic == topic {
				size += partition.Size
			}
		})
	}
	return size, nil
}
