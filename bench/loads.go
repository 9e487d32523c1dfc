package main

// loads.go measures durable transactions of many changes: loads into an empty store,
// and changes all over a full one.

import (
	"math/rand/v2"
	"time"
)

const smallBatch = 1_000

func loadWorkload(sorted bool) func(*bench, *contender, int) (sample, error) {
	return func(b *bench, c *contender, round int) (sample, error) { return b.loadTurn(c, sorted) }
}

// loadTurn loads all pairs into an empty store.
func (b *bench) loadTurn(c *contender, sorted bool) (sample, error) {
	o, err := b.openEmpty(c.engine, b.loadPairs, sorted)
	if err != nil {
		return nil, err
	}
	order := fillOrder(b.loadPairs, sorted)
	var elapsed time.Duration
	u, err := b.writeTurn(o, func() error {
		return fill(o.store, o.model, order, func(put func() error) error { return addTime(&elapsed, put) })
	})
	if err != nil {
		return nil, err
	}
	s := sample{pairRate: float64(b.loadPairs) / elapsed.Seconds(), spaceOnDisk: float64(u.onDisk)}
	if u.known {
		s[deviceTotal] = float64(u.whole)
	}
	return s, nil
}

// addTime adds to elapsed how long fn takes.
func addTime(elapsed *time.Duration, fn func() error) error {
	start := time.Now()
	err := fn()
	*elapsed += time.Since(start)
	return err
}

func (b *bench) churnWorkload(c *contender, round int) (sample, error) {
	o, err := b.openCopy(c.engine)
	if err != nil {
		return nil, err
	}
	rnd := roundRand(b.seed, round)
	var elapsed time.Duration
	u, err := b.writeTurn(o, func() error {
		for range b.churnBatches {
			ops := churn(o.model, rnd)
			if err := addTime(&elapsed, func() error { return o.store.apply(ops) }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	nchanges := float64(b.churnBatches * smallBatch)
	s := sample{changeRate: nchanges / elapsed.Seconds()}
	if u.known {
		s[deviceChange] = float64(u.whole) / nchanges
	}
	return s, nil
}

// churn makes the changes of one transaction: two updates, a delete and an insert, and
// so on. A pair may be changed more than once.
func churn(m *model, rnd *rand.Rand) []op {
	ops := make([]op, smallBatch)
	for at := range ops {
		switch at % 4 {
		case 0, 1:
			ops[at] = m.put(m.random(rnd, true))
		case 2:
			ops[at] = m.remove(m.random(rnd, true))
		case 3:
			ops[at] = m.put(m.random(rnd, false))
		}
	}
	return ops
}
