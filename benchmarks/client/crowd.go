package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	crowdConnections      = 32
	offsetCommitVersion   = 8
	initProducerIDVersion = 4
	loadingPause          = 5 * time.Millisecond
)

// runCrowd makes -groups groups that have committed an offset, and -producers idempotent producers that have each written
// one record, and leaves them.
func runCrowd(ctx context.Context, o options, _ *marks) (figures, error) {
	client, err := connect(o)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	if err := ensureTopic(ctx, client, o.topic, o.partitions); err != nil {
		return nil, err
	}
	var first kadm.Offsets
	first.Add(kadm.Offset{Topic: o.topic, LeaderEpoch: -1})
	if err := kadm.NewClient(client).CommitAllOffsets(ctx, groupName(o, 0), first); err != nil { // its topic is there now
		return nil, err
	}
	begun := time.Now()
	if err := shared(ctx, o, o.groups, func(conn *rawConn, i int) error { return commitOffset(conn, o, i) }); err != nil {
		return nil, err
	}
	if err := shared(ctx, o, o.producers, func(conn *rawConn, i int) error { return writeOnce(conn, o, i) }); err != nil {
		return nil, err
	}
	return figures{"groups": o.groups, "producer_ids": o.producers, "create_s": time.Since(begun).Seconds()}, nil
}

func groupName(o options, i int) string { return fmt.Sprintf("%s-%06d", o.topic, i) }

// shared does something count times, over a few connections.
func shared(ctx context.Context, o options, count int, do func(conn *rawConn, i int) error) error {
	var next atomic.Int64
	var running sync.WaitGroup
	failures := make(chan error, crowdConnections)
	for range crowdConnections {
		conn, err := dialRaw(ctx, o)
		if err != nil {
			return err
		}
		defer conn.close()
		running.Go(func() {
			for i := next.Add(1) - 1; i < int64(count); i = next.Add(1) - 1 {
				err := do(conn, int(i))
				for ; errors.Is(err, kerr.CoordinatorLoadInProgress) && ctx.Err() == nil; err = do(conn, int(i)) {
					wait(ctx, loadingPause) // Apache Kafka fetches producer ids by the thousand.
				}
				if err != nil {
					failures <- fmt.Errorf("number %d: %w", i, err)
					return
				}
			}
		})
	}
	running.Wait()
	close(failures)
	return <-failures
}

func (c *rawConn) ask(request kmsg.Request) ([]byte, error) {
	if err := c.send(formatter.AppendRequest(nil, request, 1)); err != nil {
		return nil, err
	}
	return c.receiveFlexible()
}

func commitOffset(conn *rawConn, o options, i int) error {
	partition := kmsg.NewOffsetCommitRequestTopicPartition()
	partition.Partition = int32(i % o.partitions)
	topic := kmsg.NewOffsetCommitRequestTopic()
	topic.Topic = o.topic
	topic.Partitions = append(topic.Partitions, partition)
	request := kmsg.NewPtrOffsetCommitRequest()
	request.Version, request.Group, request.Generation = offsetCommitVersion, groupName(o, i), -1
	request.Topics = append(request.Topics, topic)
	body, err := conn.ask(request)
	if err != nil {
		return err
	}
	response := kmsg.OffsetCommitResponse{Version: offsetCommitVersion}
	if err := response.ReadFrom(body); err != nil {
		return err
	}
	return kerr.ErrorForCode(response.Topics[0].Partitions[0].ErrorCode)
}

func writeOnce(conn *rawConn, o options, i int) error {
	request := kmsg.NewPtrInitProducerIDRequest()
	request.Version, request.TransactionTimeoutMillis = initProducerIDVersion, 60_000
	body, err := conn.ask(request)
	if err != nil {
		return err
	}
	response := kmsg.InitProducerIDResponse{Version: initProducerIDVersion}
	if err := response.ReadFrom(body); err != nil {
		return err
	}
	if err := kerr.ErrorForCode(response.ErrorCode); err != nil {
		return err
	}
	from := producer{id: response.ProducerID, epoch: response.ProducerEpoch}
	batch := recordBatch([]byte("one"), time.Now().UnixMilli(), from)
	if err := conn.send(produceRequest(o.topic, int32(i%o.partitions), batch)); err != nil {
		return err
	}
	if body, err = conn.receiveFlexible(); err != nil {
		return err
	}
	return checkProduced(body)
}
