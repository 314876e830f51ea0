package main

import (
	"math"
	"testing"
	"time"
)

func TestQuantilesAreWithinTheBucketWidth(t *testing.T) {
	var h histogram
	for i := 1; i <= 100_000; i++ {
		h.add(time.Duration(i) * time.Microsecond)
	}
	for q, wantMs := range map[float64]float64{0.5: 50, 0.9: 90, 0.99: 99, 0.999: 99.9} {
		if got := h.quantile(q); math.Abs(got-wantMs) > 0.017*wantMs {
			t.Errorf("quantile %v is %v ms, want %v", q, got, wantMs)
		}
	}
}

func TestEveryDurationFallsIntoABucketThatHoldsIt(t *testing.T) {
	for ns := int64(1); ns < int64(time.Hour); ns = ns*9/8 + 1 {
		middle := middleOf(bucketOf(ns))
		if math.Abs(float64(middle-ns)) > 0.016*float64(ns)+1 {
			t.Errorf("%d ns is counted as %d", ns, middle)
		}
	}
}
