package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	fetchVersion      = 12 // The last that names topics.
	fetchMaxBytes     = 50 << 20
	partitionMaxBytes = 1 << 20
)

// runConsume reads a topic over one connection from start to end without decoding records,
// again and again until -duration is over (with 0: once). Whole passes are counted.
func runConsume(ctx context.Context, o options, m *marks) (figures, error) {
	client, err := connect(o)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	bounds, err := readBounds(ctx, client, o.topic)
	if err != nil {
		return nil, err
	}
	conn, err := dialRaw(ctx, o)
	if err != nil {
		return nil, err
	}
	defer conn.close()
	reader := rawReader{conn: conn, topic: o.topic}
	for until := time.Now().Add(o.warmup); time.Now().Before(until); {
		if err := reader.pass(bounds); err != nil {
			return nil, err
		}
	}
	reader.records, reader.bytes, reader.requests = 0, 0, 0
	passes := 0
	m.begin()
	for until := time.Now().Add(o.duration); passes == 0 || time.Now().Before(until); passes++ {
		if err := reader.pass(bounds); err != nil {
			return nil, err
		}
	}
	seconds := m.end()
	out := volume(reader.records, reader.bytes, seconds)
	out["requests"], out["passes"] = reader.requests, passes
	return out, nil
}

// bound is the stretch of a partition to be read.
type bound struct {
	partition  int32
	start, end int64
}

func readBounds(ctx context.Context, client *kgo.Client, topic string) ([]bound, error) {
	admin := kadm.NewClient(client)
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	if err := ends.Error(); err != nil {
		return nil, err
	}
	var bounds []bound
	for _, end := range ends.Offsets().Sorted() {
		start, _ := starts.Lookup(topic, end.Partition)
		if end.At > start.Offset {
			bounds = append(bounds, bound{partition: end.Partition, start: start.Offset, end: end.At})
		}
	}
	if len(bounds) == 0 {
		return nil, fmt.Errorf("topic %s is empty", topic)
	}
	return bounds, nil
}

type rawReader struct {
	conn                     *rawConn
	topic                    string
	records, bytes, requests int64
}

// pass reads everything once. Partitions rotate from request to request, as clients have them, so that none starves.
func (r *rawReader) pass(bounds []bound) error {
	next, end := map[int32]int64{}, map[int32]int64{}
	for _, b := range bounds {
		next[b.partition], end[b.partition] = b.start, b.end
	}
	for first := 0; len(next) > 0; first++ {
		wanted := kmsg.NewFetchRequestTopic()
		wanted.Topic = r.topic
		for i := range bounds {
			partition := bounds[(first+i)%len(bounds)].partition
			if offset, ok := next[partition]; ok {
				wanted.Partitions = append(wanted.Partitions, fetchPartition(partition, offset))
			}
		}
		partitions, err := r.fetch(wanted)
		if err != nil {
			return err
		}
		for _, partition := range partitions {
			if partition.ErrorCode != 0 {
				return fmt.Errorf("fetch error code %d", partition.ErrorCode)
			}
			r.count(partition, next)
			if next[partition.Partition] >= end[partition.Partition] {
				delete(next, partition.Partition)
			}
		}
	}
	return nil
}

func fetchPartition(partition int32, offset int64) kmsg.FetchRequestTopicPartition {
	wanted := kmsg.NewFetchRequestTopicPartition()
	wanted.Partition = partition
	wanted.FetchOffset = offset
	wanted.PartitionMaxBytes = partitionMaxBytes
	return wanted
}

func (r *rawReader) fetch(wanted kmsg.FetchRequestTopic) ([]kmsg.FetchResponseTopicPartition, error) {
	request := kmsg.NewPtrFetchRequest()
	request.Version = fetchVersion
	request.MaxWaitMillis = 500
	request.MinBytes = 1
	request.MaxBytes = fetchMaxBytes
	request.SessionEpoch = -1
	request.Topics = append(request.Topics, wanted)
	if err := r.conn.send(formatter.AppendRequest(nil, request, 1)); err != nil {
		return nil, err
	}
	body, err := r.conn.receiveFlexible()
	if err != nil {
		return nil, err
	}
	response := kmsg.FetchResponse{Version: fetchVersion}
	if err := response.UnsafeReadFrom(body); err != nil {
		return nil, err
	}
	if response.ErrorCode != 0 || len(response.Topics) != 1 {
		return nil, fmt.Errorf("fetch response with error code %d and %d topics", response.ErrorCode, len(response.Topics))
	}
	r.requests++
	return response.Topics[0].Partitions, nil
}

func (r *rawReader) count(partition kmsg.FetchResponseTopicPartition, next map[int32]int64) {
	data := partition.RecordBatches
	for batch, ok := nextBatch(data); ok; batch, ok = nextBatch(data) {
		r.records += int64(batch.records)
		r.bytes += int64(batch.bytes)
		next[partition.Partition] = batch.nextOffset
		data = data[batch.bytes:]
	}
}
