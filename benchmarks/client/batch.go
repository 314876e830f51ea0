package main

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	batchHeaderBytes = 61
	// Version 9 is the oldest flexible Produce, and like every version before 13 it names its topics.
	produceVersion = 9
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// producer is who a batch says it is from.
type producer struct {
	id    int64
	epoch int16
}

// nobody is a producer without an id.
var nobody = producer{id: -1, epoch: -1}

// recordBatch is a v2 batch of one record, the first of its producer.
func recordBatch(value []byte, timestampMs int64, from producer) []byte {
	sequence := uint32(0)
	if from.id < 0 {
		sequence--
	}
	body := []byte{0}                    // attributes
	body = binary.AppendVarint(body, 0)  // timestamp delta
	body = binary.AppendVarint(body, 0)  // offset delta
	body = binary.AppendVarint(body, -1) // no key
	body = binary.AppendVarint(body, int64(len(value)))
	body = append(body, value...)
	body = binary.AppendVarint(body, 0) // headers

	checked := binary.BigEndian.AppendUint16(nil, 0)                     // attributes
	checked = binary.BigEndian.AppendUint32(checked, 0)                  // last offset delta
	checked = appendInt64(checked, timestampMs)                          // first timestamp
	checked = appendInt64(checked, timestampMs)                          // max timestamp
	checked = appendInt64(checked, from.id)                              // producer id
	checked = binary.BigEndian.AppendUint16(checked, uint16(from.epoch)) // producer epoch
	checked = binary.BigEndian.AppendUint32(checked, sequence)           // base sequence
	checked = binary.BigEndian.AppendUint32(checked, 1)                  // records
	checked = binary.AppendVarint(checked, int64(len(body)))
	checked = append(checked, body...)

	batch := appendInt64(nil, 0) // base offset
	batch = binary.BigEndian.AppendUint32(batch, uint32(4+1+4+len(checked)))
	batch = append(batch, 255, 255, 255, 255, 2) // no leader epoch, magic 2
	batch = binary.BigEndian.AppendUint32(batch, crc32.Checksum(checked, castagnoli))
	return append(batch, checked...)
}

func appendInt64(to []byte, value int64) []byte {
	return binary.BigEndian.AppendUint64(to, uint64(value))
}

// span is what a raw reader needs of a batch.
type span struct {
	bytes, records int
	nextOffset     int64
}

// nextBatch reads the header of the first batch in data; false when it is not there in full.
func nextBatch(data []byte) (span, bool) {
	if len(data) < batchHeaderBytes {
		return span{}, false
	}
	length := 12 + int(binary.BigEndian.Uint32(data[8:]))
	if length > len(data) {
		return span{}, false
	}
	next := int64(binary.BigEndian.Uint64(data)) + int64(binary.BigEndian.Uint32(data[23:])) + 1
	return span{bytes: length, records: int(binary.BigEndian.Uint32(data[57:])), nextOffset: next}, true
}

// produceRequest is the whole frame of a request with one batch for one partition, acks=all.
func produceRequest(topic string, partition int32, batch []byte) []byte {
	inPartition := kmsg.NewProduceRequestTopicPartition()
	inPartition.Partition = partition
	inPartition.Records = batch
	inTopic := kmsg.NewProduceRequestTopic()
	inTopic.Topic = topic
	inTopic.Partitions = append(inTopic.Partitions, inPartition)
	request := kmsg.NewPtrProduceRequest()
	request.Version = produceVersion
	request.Acks = -1
	request.TimeoutMillis = 30_000
	request.Topics = append(request.Topics, inTopic)
	return formatter.AppendRequest(nil, request, 1)
}
