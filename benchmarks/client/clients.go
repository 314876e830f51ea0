package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func connect(o options, extra ...kgo.Opt) (*kgo.Client, error) {
	opts := []kgo.Opt{
		kgo.SeedBrokers(o.broker),
		kgo.ClientID("penstock-benchmark"),
		kgo.MetadataMinAge(100 * time.Millisecond),
	}
	if o.ca != "" {
		trust, err := o.trust()
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.DialTLSConfig(trust))
	}
	return kgo.NewClient(append(opts, extra...)...)
}

// producerOptions are the Java client's defaults (idempotent, acks=all, 32 MiB of buffer), franz-go's own not being everyone's.
func producerOptions(o options) []kgo.Opt {
	return []kgo.Opt{
		kgo.DefaultProduceTopic(o.topic),
		kgo.ProducerLinger(o.linger),
		kgo.ProducerBatchMaxBytes(int32(max(o.batchBytes, o.size+1024))),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.MaxBufferedRecords(1 << 20),
		kgo.MaxBufferedBytes(32 << 20),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordDeliveryTimeout(60 * time.Second),
	}
}

// connectProducers makes the producer clients and the topic they write to.
func connectProducers(ctx context.Context, o options) ([]*kgo.Client, error) {
	var clients []*kgo.Client
	for range o.producers {
		client, err := connect(o, producerOptions(o)...)
		if err != nil {
			return nil, err
		}
		clients = append(clients, client)
	}
	return clients, ensureTopic(ctx, clients[0], o.topic, o.partitions)
}

func closeAll(clients []*kgo.Client) {
	for _, client := range clients {
		client.Close()
	}
}

// ensureTopic creates a topic if it is absent and waits until each partition has a leader that knows it is one.
func ensureTopic(ctx context.Context, client *kgo.Client, name string, partitions int) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second+time.Duration(partitions)*100*time.Millisecond)
	defer cancel()
	admin := kadm.NewClient(client)
	response, err := admin.CreateTopic(ctx, int32(partitions), 1, nil, name)
	if err == nil {
		err = response.Err
	}
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("create topic %s: %w", name, err)
	}
	for {
		metadata, err := admin.Metadata(ctx, name)
		if err == nil && led(metadata.Topics[name].Partitions, partitions) && leading(ctx, admin, name) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("topic %s has no leaders: %w", name, errors.Join(ctx.Err(), err))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func led(partitions kadm.PartitionDetails, wanted int) bool {
	for _, partition := range partitions {
		if partition.Leader < 0 {
			return false
		}
	}
	return len(partitions) >= wanted
}

// leading asks the leaders themselves: metadata may be ahead of them, and ready-made requests are not tried twice.
func leading(ctx context.Context, admin *kadm.Client, name string) bool {
	ends, err := admin.ListEndOffsets(ctx, name)
	return err == nil && ends.Error() == nil
}

// randomValues are record values no codec can shrink; the same few are sent again and again.
func randomValues(count, size int, seed int64) [][]byte {
	random := rand.New(rand.NewSource(seed))
	values := make([][]byte, count)
	for i := range values {
		values[i] = make([]byte, size)
		random.Read(values[i])
	}
	return values
}
