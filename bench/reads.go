package main

// reads.go measures reads of a store that nobody changes.

import (
	"errors"
	"fmt"
	"runtime"
	"time"
)

const rangeLength = 100 // pairs

func (b *bench) readsWorkload(c *contender, round int) (sample, error) {
	dir, err := b.base(c.engine)
	if err != nil {
		return nil, err
	}
	o, err := openIn(c.engine, dir, filledModel(b.seed, b.Pairs, b.Sorted, b.Aging), openOptions{npairs: b.Pairs})
	if err != nil {
		return nil, err
	}
	s, err := b.readAll(o, round)
	return s, errors.Join(err, o.store.close())
}

// readAll checks the store, which also warms its caches, and times reads of all kinds.
func (b *bench) readAll(o *opened, round int) (sample, error) {
	if err := b.verify(o); err != nil {
		return nil, fmt.Errorf("before the start: %w", err)
	}
	rnd := roundRand(b.seed, round)
	lookups := o.model.lookups(rnd, b.gets, false)
	if err := o.store.gets(lookups[:min(len(lookups), sampleSize)]); err != nil {
		return nil, err
	}
	ranges := o.model.ranges(rnd, b.ranges, rangeLength)
	npairs := 0 // in the ranges
	for _, r := range ranges {
		npairs += r.want.pairs
	}
	s, whole := sample{}, o.model.tally()
	err := errors.Join(
		s.timeEach(getTime, len(lookups), func() error { return o.store.gets(lookups) }),
		s.timeEach(viewGetTime, len(lookups), func() error { return o.store.viewGets(lookups) }),
		s.timeEach(rangeTime, npairs, func() error { return o.store.ranges(ranges) }),
		s.timeEach(scanTime, o.model.present, func() error { return scanWhole(o.store, whole) }),
	)
	return s, err
}

// timeEach notes how long each of the n operations of fn takes.
func (s sample) timeEach(metric string, n int, fn func() error) error {
	runtime.GC()
	start := time.Now()
	err := fn()
	s[metric] = float64(time.Since(start)) / float64(n)
	return err
}

// scanWhole scans the store and checks what it saw.
func scanWhole(s store, want tally) error {
	got, err := s.scan()
	if err != nil {
		return err
	}
	return got.check(want)
}
