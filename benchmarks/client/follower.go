package main

import (
	"context"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// followers read stamped records as they come and note how old each is on arrival.
type followers struct {
	counting atomic.Bool // only what arrives while set is counted
	received atomic.Int64
	ages     histogram
	byWindow atomic.Pointer[windows] // the same by time, if wanted
	running  sync.WaitGroup
	clients  []*kgo.Client
}

func (f *followers) add(o options, extra ...kgo.Opt) error {
	client, err := connect(o, append(extra, kgo.FetchMaxWait(500*time.Millisecond), kgo.FetchMinBytes(1))...)
	if err != nil {
		return err
	}
	f.clients = append(f.clients, client)
	f.running.Go(func() { f.follow(client) })
	return nil
}

func (f *followers) follow(client *kgo.Client) {
	for {
		fetches := client.PollFetches(context.Background())
		if fetches.IsClientClosed() {
			return
		}
		now := time.Now().UnixNano()
		if !f.counting.Load() {
			continue
		}
		byWindow := f.byWindow.Load()
		fetches.EachRecord(func(record *kgo.Record) {
			produced := int64(binary.BigEndian.Uint64(record.Value))
			f.ages.add(time.Duration(now - produced))
			if byWindow != nil {
				byWindow.add(produced, time.Duration(now-produced))
			}
			f.received.Add(1)
		})
	}
}

// await waits until so many records were received, or the patience is used up.
func (f *followers) await(records int64, patience time.Duration) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline) && f.received.Load() < records; {
		time.Sleep(time.Millisecond)
	}
}

func (f *followers) close() {
	closeAll(f.clients)
	f.running.Wait()
}
