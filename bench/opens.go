package main

// opens.go measures the opening of a store whose process was killed, and checks that it
// holds everything that was acknowledged, and nothing that is half done.

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"
)

func (b *bench) openKilledWorkload(c *contender, round int) (sample, error) {
	return b.openTurn(c, round, 1, b.killedCommits, warmCache)
}

func (b *bench) openColdWorkload(c *contender, round int) (sample, error) {
	return b.openTurn(c, round, smallBatch, b.coldBatches, coolCache)
}

// openTurn has a child commit batches and kills it after ncommits of them; prepare sees
// to the page cache; then the store is opened.
func (b *bench) openTurn(c *contender, round, batch, ncommits int, prepare func(dir string) error) (sample, error) {
	dir, err := b.copyBase(c.engine)
	if err != nil {
		return nil, err
	}
	if err := b.disk.sync(); err != nil {
		return nil, err
	}
	order := childOrder{Engine: c.engine.name, Dir: dir, Seed: b.seed, Round: round, Pairs: b.Pairs, Sorted: b.Sorted, Aging: b.Aging, Batch: batch}
	nacked, err := runAndKill(order, ncommits)
	if err != nil {
		return nil, err
	}
	if err := prepare(dir); err != nil {
		return nil, err
	}
	m, rnd := order.start()
	pair := 0 // the last that an acknowledged commit put
	for range nacked * batch {
		pair = m.random(rnd, true)
		m.note(pair)
	}
	get := []lookup{m.lookup(pair, true)}
	runtime.GC()
	begin := time.Now()
	o, err := openIn(c.engine, dir, m, openOptions{npairs: b.Pairs})
	if err != nil {
		return nil, fmt.Errorf("open after the kill: %w", err)
	}
	if err := o.store.gets(get); err != nil {
		return nil, fmt.Errorf("get after the kill: %w", err)
	}
	elapsed := time.Since(begin)
	if err := o.noteUnacknowledged(rnd, batch); err != nil {
		return nil, err
	}
	return sample{openTime: float64(elapsed)}, b.verifyAndRemove(o)
}

// noteUnacknowledged looks whether the commit that was under way at the kill is there,
// as it may be, and if so notes it in the model.
func (o *opened) noteUnacknowledged(rnd *rand.Rand, batch int) error {
	next := o.model.clone()
	ops := next.puts(rnd, batch)
	last := ops[len(ops)-1]
	return o.store.view(func(get func(key []byte) ([]byte, error)) error {
		got, err := get(last.key)
		if err == nil && bytes.Equal(got, last.value) {
			o.model = next
		}
		return err
	})
}
