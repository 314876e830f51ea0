// Command client puts one kind of load on a Kafka-compatible broker and prints what came of it
// as one JSON object. It measures only what a client can see: counts, times, latencies. What the
// load cost the server is read by the harness, which is told through marks (see marks.go) when the
// timed part begins and ends.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"
)

// figures is what a mode reports; keys end in their unit.
type figures map[string]any

// mode runs one load. It calls marks.begin and marks.end around the timed part.
type mode func(ctx context.Context, o options, m *marks) (figures, error)

var modes = map[string]mode{
	"compaction":   runCompaction,
	"configure":    runConfigure,
	"connections":  runConnections,
	"consume":      runConsume,
	"crowd":        runCrowd,
	"delete":       runDelete,
	"fanout":       runFanout,
	"heartbeats":   runHeartbeats,
	"latency":      runLatency,
	"members":      runMembers,
	"produce":      runProduce,
	"ready":        runReady,
	"relay":        runRelay,
	"share":        runShare,
	"smallreq":     runSmallRequests,
	"sparse":       runSparse,
	"topics":       runTopics,
	"transactions": runTransactions,
}

func modeNames() string {
	var names []string
	for name := range modes {
		names = append(names, name)
	}
	sort.Strings(names)
	return strings.Join(names, "|")
}

func run() error {
	o, err := parseOptions(os.Args[1:])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.timeout)
	defer cancel()
	m := newMarks(o.attended)
	out, err := modes[o.mode](ctx, o, m)
	if err != nil {
		return fmt.Errorf("%s: %w", o.mode, err)
	}
	text, err := json.Marshal(out)
	if err != nil {
		return err
	}
	_, err = fmt.Println(string(text))
	return err
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(1)
	}
}
