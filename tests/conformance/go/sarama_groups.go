package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

func (s *shopify) registerGroups(all *suite) {
	strategies := []sarama.BalanceStrategy{
		sarama.NewBalanceStrategyRange(), sarama.NewBalanceStrategyRoundRobin(), sarama.NewBalanceStrategySticky(),
	}
	for _, name := range []string{"default", "newest"} {
		for _, strategy := range strategies {
			all.add("members come and go, "+strategy.Name()+", "+name, func() {
				s.membersComeAndGo(version(name), func(config *sarama.Config) {
					config.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{strategy}
				})
			})
		}
		all.add("every record reaches one member, "+name, func() { s.everyRecordOnce(name) })
		all.add("commits survive a restart of the member, "+name, func() { s.commitsSurvive(name) })
		all.add("offset manager, "+name, func() { s.offsetManager(name) })
	}
	all.add("static member", s.staticMember)
	all.add("groups listed, described, deleted", s.groupsDescribed)
	all.add("offsets of a group", s.groupOffsets)
	all.add("member removed by an administrator", s.memberRemoved)
}

// member is one that polls and marks what it gets until it is closed.
type member struct {
	group  sarama.ConsumerGroup
	cancel context.CancelFunc
	done   chan struct{}
	each   func(*sarama.ConsumerMessage)
	lock   sync.Mutex
	claims map[string][]int32
}

func (s *shopify) member(
	group, topic string, each func(*sarama.ConsumerMessage), changes ...func(*sarama.Config),
) *member {
	config := saramaConfig(append([]func(*sarama.Config){func(config *sarama.Config) {
		config.Consumer.Offsets.Initial = sarama.OffsetOldest
		config.Consumer.Group.Heartbeat.Interval = 200 * time.Millisecond
	}}, changes...)...)
	joined, err := sarama.NewConsumerGroup(s.bootstrap, group, config)
	must(err)
	ctx, cancel := context.WithCancel(background)
	one := &member{group: joined, cancel: cancel, done: make(chan struct{}), each: each}
	go func() {
		defer close(one.done)
		for ctx.Err() == nil {
			if err := joined.Consume(ctx, []string{topic}, one); errors.Is(err, sarama.ErrClosedConsumerGroup) {
				return
			}
		}
	}()
	return one
}

func (m *member) Setup(session sarama.ConsumerGroupSession) error {
	m.lock.Lock()
	defer m.lock.Unlock()
	m.claims = session.Claims()
	return nil
}

func (m *member) Cleanup(sarama.ConsumerGroupSession) error {
	m.lock.Lock()
	defer m.lock.Unlock()
	m.claims = nil
	return nil
}

func (m *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		m.each(message)
		session.MarkMessage(message, "")
	}
	return nil
}

// Close leaves the group, unless the member is a static one.
func (m *member) Close() {
	m.cancel()
	<-m.done
	must(m.group.Close())
}

func (m *member) held(topic string) int {
	m.lock.Lock()
	defer m.lock.Unlock()
	return len(m.claims[topic])
}

func awaitShares(topic string, share int, members ...*member) {
	eventually("a fair share for each member", func() bool {
		for _, one := range members {
			if one.held(topic) != share {
				return false
			}
		}
		return true
	})
}

func overlook(*sarama.ConsumerMessage) {}

func (s *shopify) membersComeAndGo(changes ...func(*sarama.Config)) {
	topic, group := s.topic(6, nil), fresh("group")
	first := s.member(group, topic, overlook, changes...)
	awaitShares(topic, 6, first)
	second := s.member(group, topic, overlook, changes...)
	awaitShares(topic, 3, first, second)
	third := s.member(group, topic, overlook, changes...)
	awaitShares(topic, 2, first, second, third)
	second.Close()
	awaitShares(topic, 3, first, third)
	first.Close()
	awaitShares(topic, 6, third)
	third.Close()
}

func (s *shopify) everyRecordOnce(name string) {
	topic, group := s.topic(4, nil), fresh("group")
	got := make(chan string, 10_000)
	keep := func(message *sarama.ConsumerMessage) { got <- string(message.Value) }
	first := s.member(group, topic, keep, version(name))
	defer first.Close()
	awaitShares(topic, 4, first)
	producer := s.producer(version(name))
	defer producer.Close()
	values := numbered(400)
	for number, value := range values {
		_, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder(value)})
		must(err)
		if number == 100 {
			second := s.member(group, topic, keep, version(name))
			defer second.Close()
		}
	}
	seen := map[string]bool{}
	eventually("every record", func() bool {
		for len(got) > 0 {
			seen[<-got] = true
		}
		return len(seen) == len(values)
	})
}

func (s *shopify) commitsSurvive(name string) {
	topic, group := s.topic(1, nil), fresh("group")
	s.produce(topic, 0, numbered(10)...)
	got := make(chan string, 100)
	keep := func(message *sarama.ConsumerMessage) { got <- string(message.Value) }
	first := s.member(group, topic, keep, version(name))
	for _, value := range numbered(10) {
		same("value", value, <-got)
	}
	first.Close() // Commits what was marked.
	s.produce(topic, 0, "new")
	second := s.member(group, topic, keep, version(name))
	defer second.Close()
	same("value", "new", <-got)
}

func (s *shopify) offsetManager(name string) {
	topic, group := s.topic(1, nil), fresh("group")
	client := s.client(version(name))
	defer client.Close()
	next := func() (int64, string) {
		manager, err := sarama.NewOffsetManagerFromClient(group, client)
		must(err)
		defer manager.Close()
		partition, err := manager.ManagePartition(topic, 0)
		must(err)
		defer partition.Close()
		offset, metadata := partition.NextOffset()
		partition.MarkOffset(7, "note")
		manager.Commit()
		return offset, metadata
	}
	offset, _ := next()
	same("before", int64(sarama.OffsetNewest), offset)
	offset, metadata := next()
	same("committed", int64(7), offset)
	same("metadata", "note", metadata)
}

func instance(name string) func(*sarama.Config) {
	return func(config *sarama.Config) {
		config.Version = sarama.MaxVersion
		config.Consumer.Group.InstanceId = name
	}
}

func (s *shopify) staticMember() {
	topic, group := s.topic(4, nil), fresh("group")
	other := s.member(group, topic, overlook, instance("other"))
	awaitShares(topic, 4, other)
	first := s.member(group, topic, overlook, instance("one"))
	awaitShares(topic, 2, other, first)
	first.Close() // A static member does not leave.
	same("the other's partitions", 2, other.held(topic))
	again := s.member(group, topic, overlook, instance("one"))
	awaitShares(topic, 2, other, again)
	again.Close()
	other.Close()
}

func (s *shopify) state(admin sarama.ClusterAdmin, group string) *sarama.GroupDescription {
	described, err := admin.DescribeConsumerGroups([]string{group})
	must(err)
	return described[0]
}

func (s *shopify) groupsDescribed() {
	topic, group := s.topic(2, nil), fresh("group")
	admin := s.admin()
	defer admin.Close()
	one := s.member(group, topic, overlook)
	awaitShares(topic, 2, one)
	described := s.state(admin, group)
	same("state", "Stable", described.State)
	same("members", 1, len(described.Members))
	for _, member := range described.Members {
		assignment, err := member.GetMemberAssignment()
		must(err)
		same("assigned", 2, len(assignment.Topics[topic]))
	}
	listed, err := admin.ListConsumerGroups()
	must(err)
	same("listed", "consumer", listed[group])
	isKError(sarama.ErrNonEmptyGroup, admin.DeleteConsumerGroup(group))
	one.Close()
	eventually("an empty group", func() bool { return s.state(admin, group).State == "Empty" })
	must(admin.DeleteConsumerGroup(group))
	isKError(sarama.ErrGroupIDNotFound, admin.DeleteConsumerGroup(group))
}

func (s *shopify) groupOffsets() {
	topic, group := s.topic(2, nil), fresh("group")
	admin := s.admin()
	defer admin.Close()
	altered, err := admin.AlterConsumerGroupOffsets(
		group, map[string]map[int32]sarama.OffsetAndMetadata{topic: {0: {Offset: 7, LeaderEpoch: -1}}}, nil)
	must(err)
	same("error", sarama.ErrNoError, altered.Errors[topic][0])
	offset := func() int64 {
		fetched, err := admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: {0, 1}})
		must(err)
		same("error", sarama.ErrNoError, fetched.Err)
		same("other partition", int64(-1), fetched.GetBlock(topic, 1).Offset)
		return fetched.GetBlock(topic, 0).Offset
	}
	same("committed", int64(7), offset())
	must(admin.DeleteConsumerGroupOffset(group, topic, 0))
	same("deleted", int64(-1), offset())
}

func (s *shopify) memberRemoved() {
	topic, group := s.topic(2, nil), fresh("group")
	admin := s.admin()
	defer admin.Close()
	one := s.member(group, topic, overlook, instance("one"))
	awaitShares(topic, 2, one)
	one.Close()
	left, err := admin.RemoveMemberFromConsumerGroup(group, []string{"one"})
	must(err)
	same("error", sarama.ErrNoError, left.Err)
	same("error of the member", sarama.ErrNoError, left.Members[0].Err)
	eventually("an empty group", func() bool { return s.state(admin, group).State == "Empty" })
}
