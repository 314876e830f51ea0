package main

import (
	"github.com/IBM/sarama"
)

func (s *shopify) registerAdmin(all *suite) {
	all.add("topics created, described, deleted", s.topics)
	all.add("topics that cannot be created", s.badTopics)
	all.add("partitions added", s.partitions)
	all.add("settings", s.settings)
	all.add("records deleted", s.recordsDeleted)
	all.add("offsets listed", s.offsetsListed)
	all.add("cluster and log directories", s.cluster)
	all.add("elections and reassignments", s.replicas)
}

func (s *shopify) topics() {
	admin, topic := s.admin(), fresh("admin")
	defer admin.Close()
	detail := &sarama.TopicDetail{
		NumPartitions: 4, ReplicationFactor: 1, ConfigEntries: map[string]*string{"retention.ms": text("1234567")},
	}
	must(admin.CreateTopic(topic, detail, false))
	isKError(sarama.ErrTopicAlreadyExists, admin.CreateTopic(topic, detail, false))
	listed, err := admin.ListTopics()
	must(err)
	same("partitions", int32(4), listed[topic].NumPartitions)
	same("setting", "1234567", *listed[topic].ConfigEntries["retention.ms"])
	described, err := admin.DescribeTopics([]string{topic, fresh("missing")})
	must(err)
	errors := map[sarama.KError]int{}
	for _, one := range described {
		errors[one.Err]++
	}
	same("errors", map[sarama.KError]int{sarama.ErrNoError: 1, sarama.ErrUnknownTopicOrPartition: 1}, errors)
	must(admin.DeleteTopic(topic))
	isKError(sarama.ErrUnknownTopicOrPartition, admin.DeleteTopic(topic))
}

func (s *shopify) badTopics() {
	admin := s.admin()
	defer admin.Close()
	create := func(name string, detail sarama.TopicDetail, validateOnly bool) error {
		return admin.CreateTopic(name, &detail, validateOnly)
	}
	isKError(sarama.ErrInvalidTopic, create("a/b", sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false))
	isKError(sarama.ErrInvalidPartitions, create(fresh("bad"), sarama.TopicDetail{ReplicationFactor: 1}, false))
	isKError(sarama.ErrInvalidReplicationFactor, create(fresh("bad"), sarama.TopicDetail{NumPartitions: 1}, false))
	planned := fresh("planned")
	must(create(planned, sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, true))
	described, err := admin.DescribeTopics([]string{planned})
	must(err)
	same("error", sarama.ErrUnknownTopicOrPartition, described[0].Err)
}

func (s *shopify) partitions() {
	topic, admin := s.topic(2, nil), s.admin()
	defer admin.Close()
	must(admin.CreatePartitions(topic, 5, nil, false))
	described, err := admin.DescribeTopics([]string{topic})
	must(err)
	same("partitions", 5, len(described[0].Partitions))
	isKError(sarama.ErrInvalidPartitions, admin.CreatePartitions(topic, 3, nil, false))
	isKError(sarama.ErrUnknownTopicOrPartition, admin.CreatePartitions(fresh("missing"), 3, nil, false))
}

func (s *shopify) settings() {
	topic, admin := s.topic(1, nil), s.admin()
	defer admin.Close()
	read := func(name string) string {
		entries, err := admin.DescribeConfig(sarama.ConfigResource{
			Type: sarama.TopicResource, Name: topic, ConfigNames: []string{name},
		})
		must(err)
		same("entries", 1, len(entries))
		return entries[0].Value
	}
	same("default", "604800000", read("retention.ms"))
	must(admin.AlterConfig(sarama.TopicResource, topic, map[string]*string{"retention.ms": text("777")}, false))
	same("altered", "777", read("retention.ms"))
	must(admin.AlterConfig(sarama.TopicResource, topic, map[string]*string{"max.message.bytes": text("2000")}, false))
	same("replaced", "604800000", read("retention.ms"))
	change := map[string]sarama.IncrementalAlterConfigsEntry{
		"retention.ms": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: text("888")},
	}
	must(admin.IncrementalAlterConfig(sarama.TopicResource, topic, change, false))
	same("incremental", "888", read("retention.ms"))
	same("kept", "2000", read("max.message.bytes"))
	bad := map[string]*string{"retention.ms": text("soon")}
	isKError(sarama.ErrInvalidConfig, admin.AlterConfig(sarama.TopicResource, topic, bad, false))
}

func (s *shopify) recordsDeleted() {
	topic, admin := s.topic(1, nil), s.admin()
	defer admin.Close()
	s.produce(topic, 0, numbered(10)...)
	must(admin.DeleteRecords(topic, map[int32]int64{0: 4}))
	same("values", numbered(10)[4:], contents(s.read(topic, 0, sarama.OffsetOldest, 6)))
	holds(admin.DeleteRecords(topic, map[int32]int64{0: 11}) != nil, "an offset past the end was accepted")
}

func (s *shopify) offsetsListed() {
	topic, admin := s.topic(1, nil), s.admin()
	defer admin.Close()
	s.produce(topic, 0, numbered(10)...)
	for at, expected := range map[int64]int64{sarama.OffsetOldest: 0, sarama.OffsetNewest: 10} {
		listed, err := admin.ListOffsets(map[string]map[int32]int64{topic: {0: at}}, nil)
		must(err)
		same("offset", expected, listed[topic][0].Offset)
	}
}

func (s *shopify) cluster() {
	topic, admin := s.topic(1, nil), s.admin()
	defer admin.Close()
	s.produce(topic, 0, string(noise(50_000)))
	brokers, controller, err := admin.DescribeCluster()
	must(err)
	var ids []int32
	found := false
	for _, broker := range brokers {
		ids = append(ids, broker.ID())
		found = found || broker.ID() == controller
	}
	holds(found, "the controller %d is not one of the brokers %v", controller, ids)
	directories, err := admin.DescribeLogDirs(ids)
	must(err)
	var size int64
	for _, one := range directories[ids[0]] {
		for _, entry := range one.Topics {
			if entry.Topic == topic {
				size += entry.Partitions[0].Size
			}
		}
	}
	holds(size >= 50_000, "the topic has %d bytes", size)
}

func (s *shopify) replicas() {
	topic, admin := s.topic(1, nil), s.admin()
	defer admin.Close()
	elected, err := admin.ElectLeaders(sarama.PreferredElection, map[string][]int32{topic: {0}})
	must(err)
	same("error", sarama.ErrElectionNotNeeded, elected[topic][0].ErrorCode)
	listed, err := admin.ListPartitionReassignments(topic, []int32{0})
	must(err)
	same("reassignments", 0, len(listed))
}
