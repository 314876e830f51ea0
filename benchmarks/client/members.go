package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// runMembers starts -members consumers of one classic group at once and times until every partition has
// exactly one owner and every member owns something, and stays so for half a second. Then one leaves.
func runMembers(ctx context.Context, o options, m *marks) (figures, error) {
	admin, err := connect(o)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	if err := ensureTopic(ctx, admin, o.topic, o.partitions); err != nil {
		return nil, err
	}
	group := fmt.Sprintf("members-%d", time.Now().UnixNano())
	owners := ownership{every: 2 * time.Millisecond, held: map[int]map[int32]bool{}}
	var clients []*kgo.Client
	defer func() { leaveTogether(clients) }()
	m.begin()
	begun := time.Now()
	for i := range o.members {
		client, err := connect(o, owners.options(i, group, o.topic)...)
		if err != nil {
			return nil, err
		}
		clients = append(clients, client)
		go poll(client)
	}
	settled, err := owners.await(ctx, o.members, o.partitions)
	if err != nil {
		return nil, err
	}
	m.end()
	out := figures{"seconds": settled.Sub(begun).Seconds(), "join_s": settled.Sub(begun).Seconds(), "assignments": owners.assignments}
	begun = time.Now()
	owners.forget(0)
	clients[0].Close()
	clients = clients[1:]
	if settled, err = owners.await(ctx, o.members-1, o.partitions); err != nil {
		return nil, err
	}
	out["leave_s"] = settled.Sub(begun).Seconds()
	return out, nil
}

func poll(client *kgo.Client) {
	for !client.PollFetches(context.Background()).IsClientClosed() {
	}
}

func leaveTogether(clients []*kgo.Client) {
	var leaving sync.WaitGroup
	for _, client := range clients {
		leaving.Go(client.Close)
	}
	leaving.Wait()
}

// ownership follows who holds which partition.
type ownership struct {
	mutex       sync.Mutex
	every       time.Duration // how often it is looked at
	held        map[int]map[int32]bool
	assignments int
}

func (w *ownership) options(member int, group, topic string) []kgo.Opt {
	w.held[member] = map[int32]bool{}
	lose := func(_ context.Context, _ *kgo.Client, lost map[string][]int32) { w.change(member, lost[topic], false) }
	return []kgo.Opt{
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topic),
		kgo.Balancers(kgo.RangeBalancer()),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, gained map[string][]int32) {
			w.change(member, gained[topic], true)
		}),
		kgo.OnPartitionsRevoked(lose),
		kgo.OnPartitionsLost(lose),
	}
}

func (w *ownership) change(member int, partitions []int32, gained bool) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if gained {
		w.assignments++
	}
	held, known := w.held[member]
	if !known {
		return
	}
	for _, partition := range partitions {
		if gained {
			held[partition] = true
		} else {
			delete(held, partition)
		}
	}
}

func (w *ownership) forget(member int) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	delete(w.held, member)
}

func (w *ownership) complete(members, partitions int) bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	owned := map[int32]int{}
	busy := 0
	for _, held := range w.held {
		if len(held) > 0 {
			busy++
		}
		for partition := range held {
			owned[partition]++
		}
	}
	owners := slices.Collect(maps.Values(owned))
	return len(owned) == partitions && busy == members && slices.Max(owners) == 1
}

// await returns the moment from which the ownership was complete and stayed so for half a second.
func (w *ownership) await(ctx context.Context, members, partitions int) (time.Time, error) {
	var since time.Time
	for ctx.Err() == nil {
		if !w.complete(members, partitions) {
			since = time.Time{}
		} else if since.IsZero() {
			since = time.Now()
		} else if time.Since(since) > 500*time.Millisecond {
			return since, nil
		}
		time.Sleep(w.every)
	}
	return since, fmt.Errorf("the group of %d did not settle: %w", members, ctx.Err())
}
