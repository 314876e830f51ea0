package main

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func (f *franz) registerGroups(all *suite) {
	balancers := map[string]kgo.GroupBalancer{
		"range": kgo.RangeBalancer(), "roundrobin": kgo.RoundRobinBalancer(), "sticky": kgo.StickyBalancer(),
		"cooperative-sticky": kgo.CooperativeStickyBalancer(),
	}
	for _, name := range []string{"range", "roundrobin", "sticky", "cooperative-sticky"} {
		all.add("members come and go, "+name, func() { f.membersComeAndGo(balancers[name]) })
	}
	all.add("cooperative members keep consuming", f.cooperativeKeeps)
	all.add("every record reaches one member", f.everyRecordOnce)
	all.add("commits survive a restart of the member", f.commitsSurvive)
	all.add("automatic commits", f.automaticCommits)
	all.add("static member", f.staticMember)
	all.add("fenced static member", f.fencedStaticMember)
	all.add("offsets of a group", f.groupOffsets)
	all.add("groups listed, described, deleted", f.groupsDescribed)
	all.add("member removed by an administrator", f.memberRemoved)
}

func (f *franz) member(group, topic string, options ...kgo.Opt) *kgo.Client {
	return f.client(append([]kgo.Opt{
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.HeartbeatInterval(200 * time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	}, options...)...)
}

// held is how many partitions each member of a stable group has; nil while it rebalances.
func (f *franz) held(group string) []int {
	described, err := f.admin.DescribeGroups(background, group)
	if err != nil || described[group].Err != nil || described[group].State != "Stable" {
		return nil
	}
	counts := []int{}
	for _, member := range described[group].Members {
		assigned, known := member.Assigned.AsConsumer()
		if !known {
			return nil
		}
		count := 0
		for _, topic := range assigned.Topics {
			count += len(topic.Partitions)
		}
		counts = append(counts, count)
	}
	return counts
}

func (f *franz) awaitShares(group string, members, partitions int) {
	eventually("a fair share for each member", func() bool {
		counts, total := f.held(group), 0
		if len(counts) != members {
			return false
		}
		for _, count := range counts {
			if count < partitions/members || count > (partitions+members-1)/members {
				return false
			}
			total += count
		}
		return total == partitions
	})
}

// poll keeps a member polling, as an application does, until it is closed.
func poll(member *kgo.Client, each func(*kgo.Record)) {
	go func() {
		for {
			fetches := member.PollFetches(background)
			if fetches.IsClientClosed() {
				return
			}
			fetches.EachRecord(each)
		}
	}()
}

func ignore(*kgo.Record) {}

func (f *franz) membersComeAndGo(balancer kgo.GroupBalancer) {
	topic, group := f.topic(6, nil), fresh("group")
	var members []*kgo.Client
	for number := range 3 {
		members = append(members, f.member(group, topic, kgo.Balancers(balancer)))
		poll(members[number], ignore)
		f.awaitShares(group, number+1, 6)
	}
	members[1].Close()
	f.awaitShares(group, 2, 6)
	members[0].Close()
	f.awaitShares(group, 1, 6)
	members[2].Close()
}

// cooperativeKeeps: the partitions that stay with a member are not taken away when another joins.
func (f *franz) cooperativeKeeps() {
	topic, group := f.topic(6, nil), fresh("group")
	lost := make(chan int, 10)
	revoked := kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
		if len(parts) > 0 {
			lost <- len(parts[topic])
		}
	})
	first := f.member(group, topic, revoked)
	defer first.Close()
	poll(first, ignore)
	f.awaitShares(group, 1, 6)
	second := f.member(group, topic)
	defer second.Close()
	poll(second, ignore)
	f.awaitShares(group, 2, 6)
	same("partitions that moved", 3, <-lost)
}

func (f *franz) everyRecordOnce() {
	topic, group := f.topic(4, nil), fresh("group")
	got := make(chan string, 10_000)
	keep := func(record *kgo.Record) { got <- string(record.Value) }
	first := f.member(group, topic)
	defer first.Close()
	poll(first, keep)
	f.awaitShares(group, 1, 4)
	producer := f.client(kgo.DefaultProduceTopic(topic))
	defer producer.Close()
	values := numbered(400)
	for number, value := range values {
		send(producer, kgo.KeyStringRecord(value, value))
		if number == 100 {
			second := f.member(group, topic)
			defer second.Close()
			poll(second, keep)
		}
	}
	f.awaitShares(group, 2, 4)
	seen := map[string]bool{}
	eventually("every record", func() bool {
		for len(got) > 0 {
			seen[<-got] = true
		}
		return len(seen) == len(values)
	})
}

func (f *franz) commitsSurvive() {
	topic, group := f.topic(1, nil), fresh("group")
	f.produce(topic, numbered(20)...)
	first := f.member(group, topic, kgo.DisableAutoCommit())
	records := take(first, 20)
	must(first.CommitRecords(background, records[:8]...))
	first.Close()
	second := f.member(group, topic, kgo.DisableAutoCommit())
	defer second.Close()
	same("values", numbered(20)[8:], texts(take(second, 12)))
}

func (f *franz) automaticCommits() {
	topic, group := f.topic(1, nil), fresh("group")
	f.produce(topic, "a", "b", "c")
	member := f.member(group, topic, kgo.AutoCommitInterval(200*time.Millisecond))
	take(member, 3)
	poll(member, ignore)
	eventually("a commit", func() bool {
		offsets, err := f.admin.FetchOffsets(background, group)
		if err != nil {
			return false
		}
		committed, found := offsets.Lookup(topic, 0)
		return found && committed.At == 3
	})
	member.Close()
}

func (f *franz) staticMember() {
	topic, group := f.topic(4, nil), fresh("group")
	revoked := make(chan bool, 10)
	other := f.member(group, topic, kgo.InstanceID("other"),
		kgo.OnPartitionsRevoked(func(context.Context, *kgo.Client, map[string][]int32) { revoked <- true }))
	defer other.Close()
	poll(other, ignore)
	f.awaitShares(group, 1, 4)
	first := f.member(group, topic, kgo.InstanceID("one"))
	poll(first, ignore)
	f.awaitShares(group, 2, 4)
	for len(revoked) > 0 {
		<-revoked
	}
	generation := f.generation(group)
	first.Close() // A static member does not leave.
	again := f.member(group, topic, kgo.InstanceID("one"))
	defer again.Close()
	poll(again, ignore)
	f.produce(topic, "x")
	f.awaitShares(group, 2, 4)
	same("revocations", 0, len(revoked))
	same("members", generation, f.generation(group))
}

// generation stands for one round of the group: who has what.
func (f *franz) generation(group string) map[string]int {
	described, err := f.admin.DescribeGroups(background, group)
	must(err)
	shares := map[string]int{}
	for _, member := range described[group].Members {
		assigned, _ := member.Assigned.AsConsumer()
		for _, topic := range assigned.Topics {
			for _, partition := range topic.Partitions {
				shares[*member.InstanceID] += 1 << partition
			}
		}
	}
	return shares
}

func (f *franz) fencedStaticMember() {
	topic, group := f.topic(1, nil), fresh("group")
	fenced := make(chan error, 10)
	first := f.member(group, topic, kgo.InstanceID("one"))
	defer first.Close()
	go func() {
		for {
			fetches := first.PollFetches(background)
			if fetches.IsClientClosed() {
				return
			}
			if err := fetches.Err(); err != nil {
				fenced <- err
				return
			}
		}
	}()
	f.awaitShares(group, 1, 1)
	second := f.member(group, topic, kgo.InstanceID("one"))
	defer second.Close()
	poll(second, ignore)
	select {
	case err := <-fenced:
		isError(kerr.FencedInstanceID, err)
	case <-time.After(30 * time.Second):
		fail("the first member was not fenced")
	}
}

func (f *franz) groupOffsets() {
	topic, group := f.topic(2, nil), fresh("group")
	f.produce(topic, numbered(10)...)
	var offsets kadm.Offsets
	offsets.Add(kadm.Offset{Topic: topic, Partition: 0, At: 7, LeaderEpoch: -1, Metadata: "note"})
	must(f.admin.CommitAllOffsets(background, group, offsets))
	fetched, err := f.admin.FetchOffsets(background, group)
	must(err)
	committed, found := fetched.Lookup(topic, 0)
	holds(found && committed.At == 7 && committed.Metadata == "note", "committed %v", committed)
	_, found = fetched.Lookup(topic, 1)
	holds(!found, "partition 1 has an offset")
	lags, err := f.admin.Lag(background, group)
	must(err)
	same("lag", int64(3), lags[group].Lag.Total())
	fetchedMany := f.admin.FetchManyOffsets(background, group, fresh("nobody"))
	must(fetchedMany.Error())
	var set kadm.TopicsSet
	set.Add(topic, 0)
	deleted, err := f.admin.DeleteOffsets(background, group, set)
	must(err)
	must(deleted.Error())
	fetched, err = f.admin.FetchOffsets(background, group)
	must(err)
	_, found = fetched.Lookup(topic, 0)
	holds(!found, "the offset is still there")
	offsets = kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: fresh("missing"), Partition: 0, At: 7, LeaderEpoch: -1})
	isError(kerr.UnknownTopicOrPartition, f.admin.CommitAllOffsets(background, group, offsets))
}

func (f *franz) groupsDescribed() {
	topic, group := f.topic(2, nil), fresh("group")
	member := f.member(group, topic, kgo.ClientID("described"))
	poll(member, ignore)
	f.awaitShares(group, 1, 2)
	described, err := f.admin.DescribeGroups(background, group)
	must(err)
	one := described[group]
	same("state", "Stable", one.State)
	same("protocol type", "consumer", one.ProtocolType)
	same("protocol", "cooperative-sticky", one.Protocol)
	same("client id", "described", one.Members[0].ClientID)
	listed, err := f.admin.ListGroups(background, "Stable")
	must(err)
	same("listed", "consumer", listed[group].ProtocolType)
	_, err = f.admin.DeleteGroup(background, group)
	isError(kerr.NonEmptyGroup, err)
	member.Close()
	eventually("an empty group", func() bool {
		described, err := f.admin.DescribeGroups(background, group)
		return err == nil && described[group].State == "Empty"
	})
	_, err = f.admin.DeleteGroup(background, group)
	must(err)
	_, err = f.admin.DeleteGroup(background, group)
	isError(kerr.GroupIDNotFound, err)
	described, err = f.admin.DescribeGroups(background, group)
	must(err)
	isError(kerr.GroupIDNotFound, described[group].Err)
	listed, err = f.admin.ListGroups(background)
	must(err)
	_, found := listed[group]
	holds(!found, "the group is still listed")
}

func (f *franz) memberRemoved() {
	topic, group := f.topic(2, nil), fresh("group")
	member := f.member(group, topic, kgo.InstanceID("one"))
	poll(member, ignore)
	f.awaitShares(group, 1, 2)
	member.Close()
	left, err := f.admin.LeaveGroup(background, kadm.LeaveGroup(group).InstanceIDs("one"))
	must(err)
	must(left.Error())
	eventually("an empty group", func() bool {
		described, err := f.admin.DescribeGroups(background, group)
		return err == nil && described[group].State == "Empty"
	})
}
