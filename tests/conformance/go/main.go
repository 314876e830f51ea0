// Checks of the Go clients franz-go, sarama and kafka-go against one broker; one JSON object per line and check.
//
//	checks CLIENT BOOTSTRAP           every check
//	checks CLIENT BOOTSTRAP PATTERN   those whose name matches
//	checks CLIENT BOOTSTRAP --restart produce, wait for a line on stdin (the broker went down and came back
//	                                  meanwhile), go on with the same clients
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"runtime/debug"
	"sync"
	"time"
)

const (
	checkTimeout = 60 * time.Second
	checksAtOnce = 4
)

// A check fails by panicking with a failure; anything else it panics with is reported with its stack.
type check struct {
	name string
	run  func()
}

type suite struct {
	checks  []check
	restart func(restarted func())
}

type outcome struct {
	Name    string  `json:"name"`
	Error   *string `json:"error"`
	Seconds float64 `json:"seconds"`
}

func (s *suite) add(name string, run func()) { s.checks = append(s.checks, check{name, run}) }

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: checks franz-go|sarama|kafka-go BOOTSTRAP [PATTERN|--restart]")
		os.Exit(2)
	}
	suites := map[string]func(string) *suite{"franz-go": franzSuite, "sarama": saramaSuite, "kafka-go": kafkaGoSuite}
	make, known := suites[os.Args[1]]
	if !known {
		fmt.Fprintln(os.Stderr, "no such client:", os.Args[1])
		os.Exit(2)
	}
	checks, pattern := make(os.Args[2]), ""
	if len(os.Args) > 3 {
		pattern = os.Args[3]
	}
	if pattern == "--restart" {
		report("going on after a restart of the broker", func() { checks.restart(awaitRestart) })
		return
	}
	runAll(checks.checks, regexp.MustCompile(pattern))
}

// runAll runs several checks at a time: most of them wait most of the time.
func runAll(checks []check, wanted *regexp.Regexp) {
	var running sync.WaitGroup
	places := make(chan struct{}, checksAtOnce)
	for _, one := range checks {
		if wanted.MatchString(one.name) {
			places <- struct{}{}
			running.Add(1)
			go func() {
				defer running.Done()
				report(one.name, one.run)
				<-places
			}()
		}
	}
	running.Wait()
}

func awaitRestart() {
	fmt.Println(`{"ready": true}`)
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		fail("nobody said that the broker is back: %v", err)
	}
}

func report(name string, run func()) {
	began := time.Now()
	done := make(chan *string, 1)
	go func() {
		defer func() {
			switch problem := recover().(type) {
			case nil:
				done <- nil
			case failure:
				text := string(problem)
				done <- &text
			default:
				text := fmt.Sprintf("%v\n%s", problem, debug.Stack())
				done <- &text
			}
		}()
		run()
	}()
	result := outcome{Name: name}
	select {
	case result.Error = <-done:
	case <-time.After(checkTimeout):
		text := fmt.Sprintf("not done within %v", checkTimeout)
		result.Error = &text
	}
	result.Seconds = time.Since(began).Seconds()
	line, err := json.Marshal(result)
	must(err)
	fmt.Println(string(line))
}
