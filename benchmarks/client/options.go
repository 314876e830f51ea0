package main

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"os"
	"time"
)

// options are the same for every mode; each mode's file says which it reads.
type options struct {
	mode            string
	broker          string
	topic           string
	partitions      int
	topics          int
	size            int
	rate            float64
	transactionRate float64
	records         int64
	duration        time.Duration
	warmup          time.Duration
	window          time.Duration
	timeout         time.Duration
	linger          time.Duration
	batchBytes      int
	batchRecords    int
	producers       int
	inflight        int
	groups          int
	members         int
	count           int
	since           int64
	keys            int
	configs         string
	ca              string
	attended        bool
}

func parseOptions(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("client", flag.ContinueOnError)
	f.StringVar(&o.mode, "mode", "produce", modeNames())
	f.StringVar(&o.broker, "broker", "127.0.0.1:9092", "address of the broker")
	f.StringVar(&o.topic, "topic", "bench", "topic, or the prefix of topics; created if absent")
	f.IntVar(&o.partitions, "partitions", 6, "partitions of a topic")
	f.IntVar(&o.topics, "topics", 50, "topics of -mode sparse")
	f.IntVar(&o.size, "size", 1024, "bytes of a record's value")
	f.Float64Var(&o.rate, "rate", 0, "records per second in all (0: as fast as possible)")
	f.Float64Var(&o.transactionRate, "transaction-rate", 0, "transactions per second in all (0: as fast as possible)")
	f.Int64Var(&o.records, "records", 0, "stop after so many records (0: by duration alone)")
	f.DurationVar(&o.duration, "duration", 10*time.Second, "timed part")
	f.DurationVar(&o.warmup, "warmup", 2*time.Second, "untimed load before it")
	f.DurationVar(&o.window, "window", 2*time.Second, "-mode latency and fanout: parts of the timed part, each with a p99 of its own")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "give up after this long in all")
	f.DurationVar(&o.linger, "linger", 5*time.Millisecond, "how long a producer waits to fill a batch")
	f.IntVar(&o.batchBytes, "batch-bytes", 16384, "largest batch of a producer")
	f.IntVar(&o.batchRecords, "batch-records", 10, "records of a transaction in -mode transactions, at most as many in -mode relay")
	f.IntVar(&o.producers, "producers", 1, "producer clients, or connections in -mode smallreq and connections")
	f.IntVar(&o.inflight, "inflight", 1, "requests in flight per connection in -mode smallreq")
	f.IntVar(&o.groups, "groups", 8, "consumer groups in -mode fanout")
	f.IntVar(&o.members, "members", 50, "members in -mode members")
	f.IntVar(&o.count, "count", 100, "topics to create in -mode topics")
	f.Int64Var(&o.since, "since", 0, "-mode ready: unix nanoseconds at which the server was started")
	f.IntVar(&o.keys, "keys", 0, "different keys that records get in -mode produce and compaction (0: none)")
	f.StringVar(&o.configs, "configs", "", "name=value,… of the topic in -mode configure and compaction")
	f.StringVar(&o.ca, "ca", "", "connect by TLS and trust the authorities in this file (PEM)")
	f.BoolVar(&o.attended, "attended", false, "announce marks and wait for them to be answered")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if o.window <= 0 {
		return o, fmt.Errorf("-window must be more than 0")
	}
	if modes[o.mode] == nil {
		return o, fmt.Errorf("no mode %q: one of %s", o.mode, modeNames())
	}
	return o, nil
}

// trust is how connections by TLS know the broker.
func (o options) trust() (*tls.Config, error) {
	text, err := os.ReadFile(o.ca)
	if err != nil {
		return nil, err
	}
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate", o.ca)
	}
	return &tls.Config{RootCAs: authorities, MinVersion: tls.VersionTLS12}, nil
}
