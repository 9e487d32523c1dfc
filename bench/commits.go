package main

// commits.go measures durable commits of one put: the bare disk beside them, one
// goroutine, many, and a long run in which checkpoints and compactions fall.

import (
	"errors"
	"path/filepath"
	"sync"
	"time"
)

func (b *bench) bareWorkload(*contender, int) (sample, error) { return b.bareTurn(b.bareWrites) }

// bareTurn measures n synced writes of the bare disk.
func (b *bench) bareTurn(n int) (sample, error) {
	bare, err := openBare(filepath.Join(b.dir, "bare"))
	if err != nil {
		return nil, err
	}
	if err := b.disk.sync(); err != nil {
		return nil, errors.Join(err, bare.close())
	}
	before, known := b.disk.writtenBytes()
	latencies := make([]time.Duration, n)
	start := time.Now()
	for at := range latencies {
		begin := time.Now()
		if err := bare.commit(); err != nil {
			return nil, errors.Join(err, bare.close())
		}
		latencies[at] = time.Since(begin)
	}
	elapsed := time.Since(start)
	s := latencySample(latencies, elapsed)
	after, _ := b.disk.writtenBytes()
	if err := errors.Join(bare.close(), b.disk.sync()); err != nil {
		return nil, err
	}
	end, _ := b.disk.writtenBytes()
	s.addCommitBytes(use{inRun: after - before, whole: end - before, known: known}, n)
	return s, nil
}

func latencySample(latencies []time.Duration, elapsed time.Duration) sample {
	return sample{
		commitRate: float64(len(latencies)) / elapsed.Seconds(),
		median:     float64(percentile(latencies, 50)),
		tail:       float64(percentile(latencies, 99)),
	}
}

// addCommitBytes notes what the device wrote for n commits.
func (s sample) addCommitBytes(u use, n int) {
	if u.known {
		s[deviceInRun] = float64(u.inRun) / float64(n)
		s[deviceWhole] = float64(u.whole) / float64(n)
	}
}

func (b *bench) singleWorkload(c *contender, round int) (sample, error) {
	if c.engine == nil {
		return b.bareTurn(b.singleCommits)
	}
	return b.commitTurn(c, round, 1, b.singleCommits)
}

func groupWorkload(goroutines int) func(*bench, *contender, int) (sample, error) {
	return func(b *bench, c *contender, round int) (sample, error) {
		n := b.groupCommits
		if c.engine.alone && !c.batch { // or its turn would take minutes
			n /= 10
		}
		return b.commitTurn(c, round, goroutines, max(n, goroutines))
	}
}

// commitTurn measures ncommits commits, or the next multiple of goroutines.
func (b *bench) commitTurn(c *contender, round, goroutines, ncommits int) (sample, error) {
	o, err := b.openCopy(c.engine)
	if err != nil {
		return nil, err
	}
	commit := o.store.apply
	if c.batch {
		commit = o.store.(batcher).batch
	}
	shares := b.shares(o.model, round, goroutines, ncommits)
	var latencies []time.Duration
	var elapsed time.Duration
	u, err := b.writeTurn(o, func() (err error) {
		start := time.Now()
		latencies, err = commitTogether(commit, shares)
		elapsed = time.Since(start)
		return err
	})
	if err != nil {
		return nil, err
	}
	s := latencySample(latencies, elapsed)
	s.addCommitBytes(u, len(latencies))
	return s, nil
}

// shares makes the puts of each goroutine. No pair is in two shares, so the order in
// which they are committed does not matter to what the store holds in the end.
func (b *bench) shares(m *model, round, goroutines, ncommits int) [][]op {
	rnd := roundRand(b.seed, round)
	shares := make([][]op, goroutines)
	for len(shares[goroutines-1])*goroutines < ncommits {
		for g := range shares {
			i := m.random(rnd, true)
			for i%goroutines != g && b.Pairs >= goroutines {
				i = m.random(rnd, true)
			}
			shares[g] = append(shares[g], m.put(i))
		}
	}
	return shares
}

// commitTogether commits each share's puts one by one, the shares at the same time.
func commitTogether(commit func([]op) error, shares [][]op) ([]time.Duration, error) {
	latencies := make([][]time.Duration, len(shares))
	errs := make([]error, len(shares))
	var wg sync.WaitGroup
	for g, ops := range shares {
		latencies[g] = make([]time.Duration, len(ops))
		wg.Go(func() { errs[g] = commitEach(commit, ops, latencies[g]) })
	}
	wg.Wait()
	var all []time.Duration
	for _, part := range latencies {
		all = append(all, part...)
	}
	return all, errors.Join(errs...)
}

// commitEach commits puts one by one and notes how long each took.
func commitEach(commit func([]op) error, ops []op, latencies []time.Duration) error {
	for at := range ops {
		begin := time.Now()
		if err := commit(ops[at : at+1]); err != nil {
			return err
		}
		latencies[at] = time.Since(begin)
	}
	return nil
}

func (b *bench) tailWorkload(c *contender, round int) (sample, error) {
	o, err := b.openCopy(c.engine)
	if err != nil {
		return nil, err
	}
	var latencies []time.Duration
	_, err = b.writeTurn(o, func() (err error) {
		latencies, err = b.tailCommits(o, round)
		return err
	})
	if err != nil {
		return nil, err
	}
	var busy time.Duration // the making of puts is not in it
	for _, d := range latencies {
		busy += d
	}
	s := latencySample(latencies, busy)
	s[tailFactor] = s[tail] / s[median]
	s[longest] = float64(percentile(latencies, 100))
	return s, nil
}

// tailCommits makes what is not timed, and then commits single puts for the set time.
func (b *bench) tailCommits(o *opened, round int) ([]time.Duration, error) {
	rnd := roundRand(b.seed, round)
	for range b.tailPreload / smallBatch {
		if err := o.store.apply(o.model.puts(rnd, smallBatch)); err != nil {
			return nil, err
		}
	}
	var latencies []time.Duration
	for start := time.Now(); time.Since(start) < seconds(b.tailSeconds); {
		ops := o.model.puts(rnd, 1)
		begin := time.Now()
		if err := o.store.apply(ops); err != nil {
			return nil, err
		}
		latencies = append(latencies, time.Since(begin))
	}
	return latencies, nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
