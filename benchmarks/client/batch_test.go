package main

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestRecordBatchIsReadBackByAnotherCodec(t *testing.T) {
	written := recordBatch([]byte("value"), 1234, nobody)
	var read kmsg.RecordBatch
	if err := read.ReadFrom(written); err != nil {
		t.Fatal(err)
	}
	if read.Magic != 2 || read.NumRecords != 1 || read.FirstTimestamp != 1234 || read.ProducerID != -1 {
		t.Errorf("read back as %+v", read)
	}
	var record kmsg.Record
	if err := record.ReadFrom(read.Records); err != nil {
		t.Fatal(err)
	}
	if string(record.Value) != "value" || record.Key != nil {
		t.Errorf("record read back as %+v", record)
	}
}

func TestNextBatchWalksWholeBatchesOnly(t *testing.T) {
	one := recordBatch([]byte("value"), 1234, nobody)
	found, ok := nextBatch(append(one, one...))
	if !ok || found.bytes != len(one) || found.records != 1 || found.nextOffset != 1 {
		t.Errorf("found %+v, %v", found, ok)
	}
	if _, ok := nextBatch(one[:len(one)-1]); ok {
		t.Error("a cut batch was taken for a whole one")
	}
}
