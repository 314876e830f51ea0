package main

import (
	"bufio"
	"fmt"
	"os"
	"time"
)

// marks tells the harness when the timed part begins and ends, so that the server's CPU is read at
// just these moments. With -attended each mark is a line on standard output, and the client goes on
// when a line is answered on standard input; a closed input ends the client, so that none outlives
// its harness.
type marks struct {
	lines   chan string
	started time.Time
}

func newMarks(attended bool) *marks {
	if !attended {
		return &marks{}
	}
	m := &marks{lines: make(chan string)}
	go func() {
		input := bufio.NewScanner(os.Stdin)
		for input.Scan() {
			m.lines <- input.Text()
		}
		fmt.Fprintln(os.Stderr, "client: the harness is gone")
		os.Exit(3)
	}()
	return m
}

func (m *marks) tell(name string) {
	if m.lines == nil {
		return
	}
	fmt.Println("mark " + name)
	<-m.lines
}

// begin starts the timed part.
func (m *marks) begin() {
	m.tell("begin")
	m.started = time.Now()
}

// end closes the timed part and returns its length in seconds, which leaves the harness's reading out.
func (m *marks) end() float64 {
	seconds := time.Since(m.started).Seconds()
	m.tell("end")
	return seconds
}

// hold announces that a standing load is up and keeps it until the harness answers.
// Unattended it holds for the given time.
func (m *marks) hold(unattended time.Duration) {
	if m.lines == nil {
		time.Sleep(unattended)
		return
	}
	m.tell("hold")
}
