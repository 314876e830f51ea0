package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const heartbeatVersion = 1

// runHeartbeats has -members members join one consumer group (KIP-848) at once, each over a connection of its own and
// with nothing but heartbeats, as often as the broker wants them and at once when there is something to confirm. It times
// until every partition has exactly one owner and every member owns something, and stays so for half a second.
func runHeartbeats(ctx context.Context, o options, m *marks) (figures, error) {
	admin, err := connect(o)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	if err := ensureTopic(ctx, admin, o.topic, o.partitions); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	group := fmt.Sprintf("heartbeats-%d", time.Now().UnixNano())
	if err := findCoordinator(ctx, o, group); err != nil {
		return nil, err
	}
	owners := ownership{every: 20 * time.Millisecond, held: map[int]map[int32]bool{}}
	var members []*heartbeater
	defer func() {
		for _, member := range members {
			member.conn.close()
		}
	}()
	for i := range o.members {
		conn, err := dialRaw(ctx, o)
		if err != nil {
			return nil, err
		}
		owners.held[i] = map[int32]bool{}
		members = append(members, &heartbeater{number: i, id: memberID(), group: group, topic: o.topic, conn: conn, owners: &owners})
	}
	m.begin()
	begun := time.Now()
	var heartbeats atomic.Int64
	for _, member := range members {
		go func() {
			if err := member.run(ctx, &heartbeats); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("member %d: %w", member.number, err))
			}
		}()
	}
	settled, err := owners.await(ctx, o.members, o.partitions)
	if err != nil {
		return nil, errors.Join(err, context.Cause(ctx))
	}
	m.end()
	joined := settled.Sub(begun).Seconds()
	return figures{"seconds": joined, "join_s": joined, "heartbeats": heartbeats.Load()}, nil
}

// findCoordinator has the broker make what groups are kept in, and waits until that is there.
func findCoordinator(ctx context.Context, o options, group string) error {
	client, err := connect(o)
	if err != nil {
		return err
	}
	defer client.Close()
	request := kmsg.NewPtrDescribeGroupsRequest()
	request.Groups = []string{group}
	_, err = request.RequestWith(ctx, client)
	for err != nil && ctx.Err() == nil {
		wait(ctx, 100*time.Millisecond)
		_, err = request.RequestWith(ctx, client)
	}
	return err
}

func memberID() string {
	var id [16]byte
	_, _ = rand.Read(id[:])
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// heartbeater is one member.
type heartbeater struct {
	number    int
	id        string
	group     string
	topic     string
	conn      *rawConn
	owners    *ownership
	epoch     int32
	topicID   [16]byte
	owned     []int32
	confirmed bool // the broker knows what is owned
}

func (h *heartbeater) run(ctx context.Context, heartbeats *atomic.Int64) error {
	for ctx.Err() == nil {
		interval, err := h.beat()
		if err != nil {
			return err
		}
		heartbeats.Add(1)
		if h.confirmed {
			wait(ctx, interval)
		}
	}
	return nil
}

func (h *heartbeater) beat() (time.Duration, error) {
	request := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	request.Version = heartbeatVersion
	request.Group, request.MemberID, request.MemberEpoch = h.group, h.id, h.epoch
	request.RebalanceTimeoutMillis = -1
	if h.epoch == 0 {
		request.RebalanceTimeoutMillis = 300_000
		request.SubscribedTopicNames = []string{h.topic}
		request.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	} else if !h.confirmed {
		request.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
		if len(h.owned) > 0 {
			topic := kmsg.NewConsumerGroupHeartbeatRequestTopic()
			topic.TopicID, topic.Partitions = h.topicID, h.owned
			request.Topics = append(request.Topics, topic)
		}
	}
	if err := h.conn.send(formatter.AppendRequest(nil, request, 1)); err != nil {
		return 0, err
	}
	body, err := h.conn.receiveFlexible()
	if err != nil {
		return 0, err
	}
	response := kmsg.ConsumerGroupHeartbeatResponse{Version: heartbeatVersion}
	if err := response.ReadFrom(body); err != nil {
		return 0, err
	}
	if response.ErrorCode != 0 {
		return 0, fmt.Errorf("heartbeat error code %d", response.ErrorCode)
	}
	h.epoch, h.confirmed = response.MemberEpoch, true
	if response.Assignment != nil {
		h.adopt(response.Assignment)
	}
	return time.Duration(response.HeartbeatIntervalMillis) * time.Millisecond, nil
}

// adopt takes over an assignment, which the next heartbeat confirms if it is another one than before.
func (h *heartbeater) adopt(assignment *kmsg.ConsumerGroupHeartbeatResponseAssignment) {
	assigned := map[int32]bool{}
	for _, topic := range assignment.Topics {
		h.topicID = topic.TopicID
		for _, partition := range topic.Partitions {
			assigned[partition] = true
		}
	}
	var kept, lost []int32
	for _, partition := range h.owned {
		if assigned[partition] {
			kept = append(kept, partition)
			delete(assigned, partition)
		} else {
			lost = append(lost, partition)
		}
	}
	var gained []int32
	for partition := range assigned {
		gained = append(gained, partition)
	}
	h.owners.change(h.number, lost, false)
	h.owners.change(h.number, gained, true)
	h.owned, h.confirmed = append(kept, gained...), len(lost)+len(gained) == 0
}
