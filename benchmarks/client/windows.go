package main

import (
	"slices"
	"time"
)

// windows are consecutive parts of a run, each with the ages of the records that were produced in it. What happens
// once, such as a disk that stands still for 100 ms, moves the p99 of a whole run, but of one window only.
type windows struct {
	began int64 // unix nanoseconds
	width time.Duration
	ages  []histogram
}

func newWindows(began time.Time, whole, width time.Duration) *windows {
	return &windows{began: began.UnixNano(), width: width, ages: make([]histogram, max(1, whole/width))}
}

// add counts a record that was produced at a time in unix nanoseconds. What follows the last whole window counts there.
func (w *windows) add(produced int64, age time.Duration) {
	number := int((produced - w.began) / int64(w.width))
	w.ages[min(max(number, 0), len(w.ages)-1)].add(age)
}

// typical is the median over the windows of a quantile, in milliseconds. Windows without records do not count.
func (w *windows) typical(q float64) float64 {
	var found []float64
	for i := range w.ages {
		if w.ages[i].samples.Load() > 0 {
			found = append(found, w.ages[i].quantile(q))
		}
	}
	if len(found) == 0 {
		return 0
	}
	slices.Sort(found)
	return (found[(len(found)-1)/2] + found[len(found)/2]) / 2
}
