package main

// figures.go is the arithmetic of the report: percentiles of latencies, spreads over
// rounds, and ratios of the rounds of two contenders.

import (
	"math"
	"slices"
	"time"
)

// sample is what one round of one contender came to: a figure for each metric, none
// for a metric that could not be measured.
type sample map[string]float64

// percentile returns the least latency that p per cent of all are not above; it sorts.
func percentile(latencies []time.Duration, p float64) time.Duration {
	if len(latencies) == 0 {
		return 0
	}
	slices.Sort(latencies)
	rank := int(math.Ceil(p / 100 * float64(len(latencies))))
	return latencies[max(rank, 1)-1]
}

// spread is the middle and the ends of some numbers.
type spread struct{ median, least, most float64 }

func spreadOf(xs []float64) spread {
	xs = slices.Sorted(slices.Values(xs))
	mid := len(xs) / 2
	median := xs[mid]
	if len(xs)%2 == 0 {
		median = (xs[mid-1] + xs[mid]) / 2
	}
	return spread{median, xs[0], xs[len(xs)-1]}
}

// figures are the samples of a workload: per contender one a round.
type figures map[string][]sample

// spread returns the spread of a contender's metric over the rounds that have it.
func (f figures) spread(contender, metric string) (spread, bool) {
	var xs []float64
	for _, s := range f[contender] {
		if x, ok := s[metric]; ok {
			xs = append(xs, x)
		}
	}
	if len(xs) == 0 {
		return spread{}, false
	}
	return spreadOf(xs), true
}

// ratio returns the spread of a contender's metric divided by another's of the same
// round, over the rounds in which both are known and the other is not 0.
func (f figures) ratio(contender, other, metric string) (spread, bool) {
	var xs []float64
	for round := range min(len(f[contender]), len(f[other])) {
		x, ok := f[contender][round][metric]
		y, known := f[other][round][metric]
		if ok && known && y != 0 {
			xs = append(xs, x/y)
		}
	}
	if len(xs) == 0 {
		return spread{}, false
	}
	return spreadOf(xs), true
}
