package main

import (
	"math"
	"testing"
	"time"
)

func TestOneBadWindowDoesNotMoveTheTypicalQuantile(t *testing.T) {
	began := time.Unix(1_700_000_000, 0)
	w, whole := newWindows(began, 5*time.Second, time.Second), histogram{}
	for i := range 5_000 {
		produced, age := began.Add(time.Duration(i)*time.Millisecond), time.Millisecond
		if i >= 2_000 && i < 2_100 {
			age = 100 * time.Millisecond
		}
		w.add(produced.UnixNano(), age)
		whole.add(age)
	}
	if got := w.typical(0.99); math.Abs(got-1) > 0.02 {
		t.Errorf("the typical p99 is %v ms, want 1", got)
	}
	if got := whole.quantile(0.99); math.Abs(got-100) > 2 {
		t.Errorf("the p99 of all is %v ms, want 100", got)
	}
}

func TestWhatComesEarlyOrLateCountsInTheOutermostWindows(t *testing.T) {
	began := time.Unix(1_700_000_000, 0)
	w := newWindows(began, 2500*time.Millisecond, time.Second)
	for _, ms := range []int{-1, 0, 999, 1_000, 2_400, 9_000} {
		w.add(began.Add(time.Duration(ms)*time.Millisecond).UnixNano(), time.Millisecond)
	}
	if first, second := w.ages[0].samples.Load(), w.ages[1].samples.Load(); first != 3 || second != 3 {
		t.Errorf("%d and %d records, want 3 and 3", first, second)
	}
}

func TestWindowsWithoutRecordsDoNotCount(t *testing.T) {
	began := time.Unix(1_700_000_000, 0)
	w := newWindows(began, 3*time.Second, time.Second)
	if got := w.typical(0.99); got != 0 {
		t.Errorf("without records the typical p99 is %v, want 0", got)
	}
	w.add(began.UnixNano(), 4*time.Millisecond)
	if got := w.typical(0.99); math.Abs(got-4) > 0.07 {
		t.Errorf("the typical p99 is %v ms, want 4", got)
	}
}
