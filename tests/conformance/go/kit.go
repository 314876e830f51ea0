package main

import (
	"crypto/rand"
	"fmt"
	"reflect"
	"sort"
	"time"
)

// failure is what a check that does not hold panics with.
type failure string

func fail(format string, values ...any) { panic(failure(fmt.Sprintf(format, values...))) }

func must(err error) {
	if err != nil {
		panic(failure(fmt.Sprintf("%v\n(%T)", err, err)))
	}
}

func same(what string, expected, got any) {
	if !reflect.DeepEqual(expected, got) {
		fail("%s: expected %v, got %v", what, expected, got)
	}
}

func holds(condition bool, format string, values ...any) {
	if !condition {
		fail(format, values...)
	}
}

// eventually polls until the condition is true, for at most 30 seconds.
func eventually(what string, condition func() bool) {
	deadline := time.Now().Add(30 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			fail("%s did not come true", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func fresh(prefix string) string { return prefix + "-" + rand.Text()[:12] }

// noise is what no codec makes smaller.
func noise(size int) []byte {
	data := make([]byte, size)
	_, err := rand.Read(data)
	must(err)
	return data
}

func numbered(count int) []string {
	values := make([]string, count)
	for number := range values {
		values[number] = fmt.Sprintf("value %d", number)
	}
	return values
}

func sorted(values []string) []string {
	ordered := append([]string(nil), values...)
	sort.Strings(ordered)
	return ordered
}

func numbers(count int) []int32 {
	all := make([]int32, count)
	for number := range all {
		all[number] = int32(number)
	}
	return all
}
