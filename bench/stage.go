package main

// stage.go provides the stores that workloads need: filled ones, copies of those, empty
// ones; and what a turn that writes has around it: what the device wrote, and a check
// of everything after the store was closed and opened again.

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
)

const (
	loadBatch  = 10_000
	sampleSize = 10_000 // pairs that a check reads by key
)

// bench is one run of the benchmark.
type bench struct {
	sizes
	seed  uint64
	dir   string
	disk  *disk
	log   io.Writer
	bases map[string]string // per engine, a closed store with all pairs
	turns int               // made so far; names their directories
}

// sizes say how much is done.
type sizes struct {
	Pairs  int
	Sorted bool // the order in which stores are filled
	Aging  int  // durable transactions of 1,000 puts after that

	bareWrites    int
	singleCommits int
	groupCommits  int // of all goroutines together
	loadPairs     int
	churnBatches  int
	mixedSeconds  float64
	gets          int
	ranges        int
	killedCommits int
	coldBatches   int
	tailPreload   int // puts
	tailSeconds   float64
}

// roundRand gives every contender of a round the same random numbers.
func roundRand(seed uint64, round int) *rand.Rand { return rand.New(rand.NewPCG(seed, uint64(round))) }

// universe is how many pairs a model knows: those that a store is filled with, and a
// quarter more that can be put besides.
func universe(npairs int) int { return npairs + max(npairs/4, 1) }

// fillOrder returns the numbers of npairs pairs, sorted by key or as they come: since
// keys are scrambled, that is a random order of keys.
func fillOrder(npairs int, sorted bool) []int {
	order := make([]int, npairs)
	for i := range order {
		order[i] = i
	}
	if sorted {
		sortByKey(order)
	}
	return order
}

// filledModel is what a store holds that was filled with npairs pairs, and then aged.
func filledModel(seed uint64, npairs int, sorted bool, aging int) *model {
	m := newModel(seed, universe(npairs))
	for _, i := range fillOrder(npairs, sorted) {
		m.note(i)
	}
	rnd := agingRand(seed)
	for range aging * smallBatch {
		m.note(m.random(rnd, true))
	}
	return m
}

// agingRand gives every store the same past.
func agingRand(seed uint64) *rand.Rand { return roundRand(seed, -1) }

// fill puts pairs in batches; each batch is made first and then put inside timed.
func fill(s store, m *model, order []int, timed func(func() error) error) error {
	for batch := range slices.Chunk(order, loadBatch) {
		ops := make([]op, len(batch))
		for at, i := range batch {
			ops[at] = m.put(i)
		}
		if err := timed(func() error { return s.apply(ops) }); err != nil {
			return err
		}
	}
	return nil
}

// base returns the directory of a closed store of kind e that holds all pairs.
func (b *bench) base(e *engine) (string, error) {
	if dir := b.bases[e.name]; dir != "" {
		return dir, nil
	}
	fmt.Fprintf(b.log, "filling %s with %d pairs\n", e.name, b.Pairs)
	dir := filepath.Join(b.dir, "base-"+e.name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	if err := b.fillBase(e, dir); err != nil {
		return "", fmt.Errorf("fill %s: %w", e.name, err)
	}
	b.bases[e.name] = dir
	return dir, b.disk.sync()
}

func (b *bench) fillBase(e *engine, dir string) error {
	s, err := e.open(dir, openOptions{create: true, npairs: b.Pairs, sorted: b.Sorted})
	if err != nil {
		return err
	}
	m := newModel(b.seed, universe(b.Pairs))
	if err := fill(s, m, fillOrder(b.Pairs, b.Sorted), func(fn func() error) error { return fn() }); err != nil {
		return err
	}
	if err := s.close(); err != nil {
		return err
	}
	o, err := openIn(e, dir, m, openOptions{npairs: b.Pairs})
	if err != nil {
		return err
	}
	return b.age(o)
}

// age makes durable changes all over a filled store, so that logs and free space are as in
// one that is in use, and closes it.
func (b *bench) age(o *opened) error {
	rnd := agingRand(b.seed)
	for range b.Aging {
		if err := o.store.apply(o.model.puts(rnd, smallBatch)); err != nil {
			return err
		}
	}
	if settler, ok := o.store.(settler); ok {
		if err := settler.settle(); err != nil {
			return err
		}
	}
	return o.store.close()
}

// opened is a store that is open for a turn, and what it must hold.
type opened struct {
	store
	engine *engine
	model  *model
	dir    string
}

// openIn opens the store in dir, to commit durably.
func openIn(e *engine, dir string, m *model, o openOptions) (*opened, error) {
	o.durable = true
	s, err := e.open(dir, o)
	if err != nil {
		return nil, err
	}
	return &opened{s, e, m, dir}, nil
}

// turnDir returns the name of a directory for a turn.
func (b *bench) turnDir() string {
	b.turns++
	return filepath.Join(b.dir, fmt.Sprintf("turn-%d", b.turns))
}

// copyBase makes a copy of the base store of kind e, to be changed.
func (b *bench) copyBase(e *engine) (dir string, err error) {
	from, err := b.base(e)
	if err != nil {
		return "", err
	}
	dir = b.turnDir()
	return dir, copyStore(from, dir)
}

// openCopy opens a copy of the base store of kind e. The check that it is whole also
// brings every page into memory before anything is timed.
func (b *bench) openCopy(e *engine) (*opened, error) {
	dir, err := b.copyBase(e)
	if err != nil {
		return nil, err
	}
	o, err := openIn(e, dir, filledModel(b.seed, b.Pairs, b.Sorted, b.Aging), openOptions{npairs: b.Pairs})
	if err != nil {
		return nil, err
	}
	if err := b.verify(o); err != nil {
		return nil, fmt.Errorf("before the start: %w", err)
	}
	return o, nil
}

// openEmpty opens a new store of kind e, for npairs pairs.
func (b *bench) openEmpty(e *engine, npairs int, sorted bool) (*opened, error) {
	dir := b.turnDir()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	return openIn(e, dir, newModel(b.seed, npairs), openOptions{create: true, npairs: npairs, sorted: sorted})
}

// verify checks that the store holds what it must.
func (b *bench) verify(o *opened) error {
	return o.model.verify(o.store, roundRand(b.seed, b.turns), min(sampleSize, len(o.model.versions)))
}

// use is what a turn took of the device.
type use struct {
	inRun, whole int64 // bytes written; whole: with closing the store and a sync of the file system
	known        bool
	onDisk       int64 // bytes that the closed store takes
}

// writeTurn runs work on the store, and then closes it, opens it again, checks
// everything in it, and removes it.
func (b *bench) writeTurn(o *opened, work func() error) (use, error) {
	if err := b.disk.sync(); err != nil {
		return use{}, err
	}
	runtime.GC()
	before, known := b.disk.writtenBytes()
	if err := work(); err != nil {
		return use{}, err
	}
	after, _ := b.disk.writtenBytes()
	if err := o.store.close(); err != nil {
		return use{}, fmt.Errorf("close: %w", err)
	}
	if err := b.disk.sync(); err != nil {
		return use{}, err
	}
	end, _ := b.disk.writtenBytes()
	u := use{inRun: after - before, whole: end - before, known: known}
	var err error
	if u.onDisk, err = allocatedIn(o.dir); err != nil {
		return u, err
	}
	return u, b.verifyClosed(o)
}

// verifyClosed opens a store that was closed, checks it and removes it.
func (b *bench) verifyClosed(o *opened) error {
	again, err := openIn(o.engine, o.dir, o.model, openOptions{npairs: len(o.model.versions)})
	if err != nil {
		return fmt.Errorf("open again: %w", err)
	}
	return b.verifyAndRemove(again)
}

// verifyAndRemove checks an open store, closes and removes it.
func (b *bench) verifyAndRemove(o *opened) error {
	if err := b.verify(o); err != nil {
		return fmt.Errorf("at the end: %w", err)
	}
	if err := o.store.close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return os.RemoveAll(o.dir)
}
