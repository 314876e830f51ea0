package main

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// histogram counts durations in log-linear buckets, 64 per power of two, so within 1.6 %.
// Adding is safe from many goroutines.
type histogram struct {
	buckets [64 * 64]atomic.Int64
	samples atomic.Int64
	highest atomic.Int64
}

func bucketOf(ns int64) int {
	if ns < 64 {
		return int(max(ns, 0))
	}
	shift := bits.Len64(uint64(ns)) - 7
	return (shift+1)*64 + int(ns>>uint(shift)) - 64
}

// middleOf is the middle of a bucket in nanoseconds.
func middleOf(bucket int) int64 {
	if bucket < 64 {
		return int64(bucket)
	}
	shift := uint(bucket/64 - 1)
	low := int64(bucket%64+64) << shift
	return low + int64(1)<<shift/2
}

func (h *histogram) add(d time.Duration) {
	h.buckets[bucketOf(int64(d))].Add(1)
	h.samples.Add(1)
	for seen := h.highest.Load(); int64(d) > seen; seen = h.highest.Load() {
		if h.highest.CompareAndSwap(seen, int64(d)) {
			return
		}
	}
}

// quantile is in milliseconds.
func (h *histogram) quantile(q float64) float64 {
	want := int64(q*float64(h.samples.Load()) + 0.999999)
	var seen int64
	for i := range h.buckets {
		if seen += h.buckets[i].Load(); seen >= want {
			return float64(middleOf(i)) / 1e6
		}
	}
	return float64(h.highest.Load()) / 1e6
}

// into adds the usual quantiles to a report, under a prefix such as "e2e_".
func (h *histogram) into(out figures, prefix string) {
	if h.samples.Load() == 0 {
		return
	}
	out[prefix+"p50_ms"] = h.quantile(0.5)
	out[prefix+"p90_ms"] = h.quantile(0.9)
	out[prefix+"p99_ms"] = h.quantile(0.99)
	out[prefix+"p999_ms"] = h.quantile(0.999)
	out[prefix+"max_ms"] = float64(h.highest.Load()) / 1e6
	out[prefix+"samples"] = h.samples.Load()
}
