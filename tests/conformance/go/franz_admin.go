package main

import (
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func (f *franz) registerAdmin(all *suite) {
	all.add("topics created, described, deleted", f.topics)
	all.add("topics that cannot be created", f.badTopics)
	all.add("partitions added", f.partitions)
	all.add("settings of a topic", f.topicSettings)
	all.add("settings of the broker", f.brokerSettings)
	all.add("records deleted", f.recordsDeleted)
	all.add("offsets listed", f.offsetsListed)
	all.add("cluster and log directories", f.cluster)
	all.add("leader epochs", f.epochs)
	all.add("producers described", f.producers)
	all.add("elections and reassignments", f.replicas)
	all.add("topics paged", f.paged)
}

func (f *franz) topics() {
	topic := fresh("admin")
	created, err := f.admin.CreateTopic(background, 4, -1, map[string]*string{"retention.ms": text("1234567")}, topic)
	must(err)
	same("partitions", int32(4), created.NumPartitions)
	same("setting", "1234567", *created.Configs["retention.ms"].Value)
	holds(created.ID != kadm.TopicID{}, "the topic has no id")
	listed, err := f.admin.ListTopics(background, topic)
	must(err)
	same("partitions", numbers(4), listed[topic].Partitions.Numbers())
	for _, partition := range listed[topic].Partitions {
		must(partition.Err)
		holds(partition.Leader >= 0 && len(partition.ISR) == len(partition.Replicas), "partition %v", partition)
	}
	all, err := f.admin.ListTopics(background)
	must(err)
	holds(all.Has(topic), "the topic is not listed")
	_, err = f.admin.CreateTopic(background, 1, 1, nil, topic)
	isError(kerr.TopicAlreadyExists, err)
	_, err = f.admin.DeleteTopic(background, topic)
	must(err)
	_, err = f.admin.DeleteTopic(background, topic)
	isError(kerr.UnknownTopicOrPartition, err)
	eventually("the topic being gone", func() bool {
		listed, err := f.admin.ListTopics(background, topic)
		return err == nil && listed[topic].Err == kerr.UnknownTopicOrPartition
	})
}

func (f *franz) badTopics() {
	create := func(partitions int32, replicas int16, configs map[string]*string, name string) error {
		_, err := f.admin.CreateTopic(background, partitions, replicas, configs, name)
		return err
	}
	isError(kerr.InvalidTopicException, create(1, 1, nil, "a/b"))
	isError(kerr.InvalidTopicException, create(1, 1, nil, strings.Repeat("x", 250)))
	isError(kerr.InvalidPartitions, create(0, 1, nil, fresh("bad")))
	isError(kerr.InvalidReplicationFactor, create(1, 0, nil, fresh("bad")))
	isError(kerr.InvalidConfig, create(1, 1, map[string]*string{"no.such": text("1")}, fresh("bad")))
	isError(kerr.InvalidConfig, create(1, 1, map[string]*string{"retention.ms": text("soon")}, fresh("bad")))
	planned := fresh("planned")
	validated, err := f.admin.ValidateCreateTopics(background, 2, 1, nil, planned)
	must(err)
	must(validated[planned].Err)
	listed, err := f.admin.ListTopics(background, planned)
	must(err)
	isError(kerr.UnknownTopicOrPartition, listed[planned].Err)
}

func (f *franz) partitions() {
	topic := f.topic(2, nil)
	added, err := f.admin.CreatePartitions(background, 3, topic)
	must(err)
	must(added.Error())
	eventually("five partitions", func() bool {
		listed, err := f.admin.ListTopics(background, topic)
		return err == nil && len(listed[topic].Partitions) == 5
	})
	fewer, err := f.admin.UpdatePartitions(background, 3, topic)
	must(err)
	isError(kerr.InvalidPartitions, fewer.Error())
	missing, err := f.admin.CreatePartitions(background, 1, topic)
	must(err)
	must(missing.Error())
}

func (f *franz) setting(topic, key string) *kadm.Config {
	described, err := f.admin.DescribeTopicConfigs(background, topic)
	must(err)
	of, err := described.On(topic, nil)
	must(err)
	must(of.Err)
	for _, entry := range of.Configs {
		if entry.Key == key {
			return &entry
		}
	}
	fail("%s has no setting %s", topic, key)
	return nil
}

func (f *franz) topicSettings() {
	topic := f.topic(1, nil)
	same("default", "604800000", f.setting(topic, "retention.ms").MaybeValue())
	same("source", kmsg.ConfigSourceDefaultConfig, f.setting(topic, "retention.ms").Source)
	alter := func(operation kadm.IncrementalOp, key string, value *string) error {
		changed, err := f.admin.AlterTopicConfigs(
			background, []kadm.AlterConfig{{Op: operation, Name: key, Value: value}}, topic)
		must(err)
		return changed[0].Err
	}
	must(alter(kadm.SetConfig, "retention.ms", text("5000")))
	same("set", "5000", f.setting(topic, "retention.ms").MaybeValue())
	same("source", kmsg.ConfigSourceDynamicTopicConfig, f.setting(topic, "retention.ms").Source)
	must(alter(kadm.AppendConfig, "cleanup.policy", text("compact")))
	same("appended", "delete,compact", f.setting(topic, "cleanup.policy").MaybeValue())
	must(alter(kadm.SubtractConfig, "cleanup.policy", text("compact")))
	same("subtracted", "delete", f.setting(topic, "cleanup.policy").MaybeValue())
	must(alter(kadm.DeleteConfig, "retention.ms", nil))
	same("deleted", "604800000", f.setting(topic, "retention.ms").MaybeValue())
	isError(kerr.InvalidConfig, alter(kadm.SetConfig, "no.such", text("1")))
	isError(kerr.InvalidConfig, alter(kadm.AppendConfig, "retention.ms", text("1")))
	isError(kerr.InvalidConfig, alter(kadm.SetConfig, "retention.ms", text("soon")))
	replaced, err := f.admin.AlterTopicConfigsState(
		background, []kadm.AlterConfig{{Name: "max.message.bytes", Value: text("2000")}}, topic)
	must(err)
	must(replaced[0].Err)
	same("replaced", "2000", f.setting(topic, "max.message.bytes").MaybeValue())
}

func (f *franz) brokerSettings() {
	brokers, err := f.admin.ListBrokers(background)
	must(err)
	described, err := f.admin.DescribeBrokerConfigs(background, brokers.NodeIDs()...)
	must(err)
	values := map[string]string{}
	for _, entry := range described[0].Configs {
		values[entry.Key] = entry.MaybeValue()
	}
	same("auto.create.topics.enable", "true", values["auto.create.topics.enable"])
	same("delete.topic.enable", "true", values["delete.topic.enable"])
}

func (f *franz) recordsDeleted() {
	topic := f.topic(1, nil)
	f.produce(topic, numbered(10)...)
	drop := func(to int64) (int64, error) {
		var offsets kadm.Offsets
		offsets.Add(kadm.Offset{Topic: topic, Partition: 0, At: to})
		deleted, err := f.admin.DeleteRecords(background, offsets)
		must(err)
		one, _ := deleted.Lookup(topic, 0)
		return one.LowWatermark, one.Err
	}
	low, err := drop(4)
	must(err)
	same("low watermark", int64(4), low)
	same("values", numbered(10)[4:], texts(f.readAll(topic, 0, 6)))
	low, err = drop(2)
	must(err)
	same("a lower offset", int64(4), low)
	_, err = drop(11)
	isError(kerr.OffsetOutOfRange, err)
	low, err = drop(-1)
	must(err)
	same("everything", int64(10), low)
}

func (f *franz) offsetsListed() {
	topic := f.topic(1, nil)
	producer := f.client(kgo.DefaultProduceTopic(topic))
	defer producer.Close()
	start := int64(1_700_000_000_000)
	for number, value := range numbered(10) {
		send(producer, &kgo.Record{Value: []byte(value), Timestamp: time.UnixMilli(start + int64(number)*1000)})
	}
	at := func(offsets kadm.ListedOffsets, err error) kadm.ListedOffset {
		must(err)
		one, _ := offsets.Lookup(topic, 0)
		must(one.Err)
		return one
	}
	same("start", int64(0), at(f.admin.ListStartOffsets(background, topic)).Offset)
	same("end", int64(10), at(f.admin.ListEndOffsets(background, topic)).Offset)
	same("committed", int64(10), at(f.admin.ListCommittedOffsets(background, topic)).Offset)
	same("maximum", int64(9), at(f.admin.ListMaxTimestampOffsets(background, topic)).Offset)
	same("local start", int64(0), at(f.admin.ListLocalLogStartOffsets(background, topic)).Offset)
	same("remote", int64(-1), at(f.admin.ListLatestRemoteOffsets(background, topic)).Offset)
	after := at(f.admin.ListOffsetsAfterMilli(background, start+4500, topic))
	same("after", int64(5), after.Offset)
	same("its timestamp", start+5000, after.Timestamp)
	same("past the end", int64(10), at(f.admin.ListOffsetsAfterMilli(background, start+1_000_000, topic)).Offset)
}

func (f *franz) cluster() {
	metadata, err := f.admin.BrokerMetadata(background)
	must(err)
	holds(metadata.Cluster != "", "the cluster has no id")
	holds(slices.Contains(metadata.Brokers.NodeIDs(), metadata.Controller), "controller %d", metadata.Controller)
	topic := f.topic(2, nil)
	f.produce(topic, string(noise(50_000)))
	var set kadm.TopicsSet
	set.Add(topic, 0, 1)
	directories, err := f.admin.DescribeAllLogDirs(background, set)
	must(err)
	directories.Each(func(directory kadm.DescribedLogDir) {
		must(directory.Err)
		holds(directory.Size() >= 50_000, "the size is %d", directory.Size())
	})
	versions, err := f.admin.ApiVersions(background)
	must(err)
	for _, one := range versions {
		must(one.Err)
	}
	coordinators := f.admin.FindGroupCoordinators(background, "a", "b")
	must(coordinators.Error())
	cluster, err := kmsg.NewPtrDescribeClusterRequest().RequestWith(background, f.client())
	must(err)
	same("cluster id", metadata.Cluster, cluster.ClusterID)
}

func (f *franz) epochs() {
	topic := f.topic(1, nil)
	f.produce(topic, "a", "b", "c")
	var request kadm.OffsetForLeaderEpochRequest
	request.Add(topic, 0, 0)
	got, err := f.admin.OffsetForLeaderEpoch(background, request)
	must(err)
	same("end", int64(3), got[topic][0].EndOffset)
	must(got[topic][0].Err)
}

func (f *franz) producers() {
	topic := f.topic(1, nil)
	f.produce(topic, "a", "b", "c")
	var set kadm.TopicsSet
	set.Add(topic, 0)
	described, err := f.admin.DescribeProducers(background, set)
	must(err)
	partition := described[topic].Partitions[0]
	must(partition.Err)
	same("producers", 1, len(partition.ActiveProducers))
	for _, producer := range partition.ActiveProducers {
		same("last sequence", int32(2), producer.LastSequence)
	}
}

func (f *franz) replicas() {
	topic := f.topic(1, nil)
	var set kadm.TopicsSet
	set.Add(topic, 0)
	elected, err := f.admin.ElectLeaders(background, kadm.ElectPreferredReplica, set)
	must(err)
	isError(kerr.ElectionNotNeeded, elected[topic][0].Err)
	listed, err := f.admin.ListPartitionReassignments(background, set)
	must(err)
	same("reassignments", 0, len(listed))
	var cancel kadm.AlterPartitionAssignmentsReq
	cancel.CancelAssign(topic, 0)
	cancelled, err := f.admin.AlterPartitionAssignments(background, cancel)
	must(err)
	isError(kerr.NoReassignmentInProgress, cancelled.Error())
}

func (f *franz) paged() {
	topic := f.topic(5, nil)
	client := f.client()
	defer client.Close()
	request := kmsg.NewPtrDescribeTopicPartitionsRequest()
	asked := kmsg.NewDescribeTopicPartitionsRequestTopic()
	asked.Topic = topic
	request.Topics = append(request.Topics, asked)
	request.ResponsePartitionLimit = 2
	var found []int32
	for {
		page, err := request.RequestWith(background, client)
		must(err)
		for _, partition := range page.Topics[0].Partitions {
			found = append(found, partition.Partition)
		}
		if page.NextCursor == nil {
			break
		}
		cursor := kmsg.NewDescribeTopicPartitionsRequestCursor()
		cursor.Topic, cursor.Partition = page.NextCursor.Topic, page.NextCursor.Partition
		request.Cursor = &cursor
	}
	same("partitions", numbers(5), found)
}
