package main

// mixed.go measures readers beside a durable writer.

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

const (
	mixedReaders = 2
	mixedBatch   = 100
	mixedLookups = 1 << 15 // prepared for each reader, read over and over
	mixedChunk   = 16      // gets between two looks at the clock
)

// reader is one goroutine that gets pairs until it is told to stop.
type reader struct {
	lookups []lookup
	gets    int
	err     error
}

func (r *reader) run(s store, stop *atomic.Bool) {
	for at := 0; !stop.Load(); at = (at + mixedChunk) % len(r.lookups) {
		if r.err = s.viewGets(r.lookups[at : at+mixedChunk]); r.err != nil {
			return
		}
		r.gets += mixedChunk
	}
}

func (b *bench) mixedWorkload(c *contender, round int) (sample, error) {
	o, err := b.openCopy(c.engine)
	if err != nil {
		return nil, err
	}
	rnd := roundRand(b.seed, round)
	readers := make([]reader, mixedReaders)
	for at := range readers {
		readers[at].lookups = o.model.lookups(rnd, mixedLookups, true)
	}
	var puts int
	var elapsed time.Duration
	_, err = b.writeTurn(o, func() error {
		var stop atomic.Bool
		var wg sync.WaitGroup
		start := time.Now()
		for at := range readers {
			wg.Go(func() { readers[at].run(o.store, &stop) })
		}
		var errs []error
		for time.Since(start) < seconds(b.mixedSeconds) {
			if err := o.store.apply(o.model.puts(rnd, mixedBatch)); err != nil {
				errs = append(errs, err)
				break
			}
			puts += mixedBatch
		}
		stop.Store(true)
		elapsed = time.Since(start)
		wg.Wait()
		for at := range readers {
			errs = append(errs, readers[at].err)
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return nil, err
	}
	gets := 0
	for at := range readers {
		gets += readers[at].gets
	}
	return sample{
		writeRate: float64(puts) / elapsed.Seconds(),
		readRate:  float64(gets) / elapsed.Seconds(),
	}, nil
}
