package main

// workloads.go is what is measured: for each workload the stores that take part and
// what one round of it does. Preparation and checks are outside the timed parts.

import (
	"cmp"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"
)

// sample is what one round of one contender took.
type sample struct {
	ops      int
	elapsed  time.Duration
	mallocs  uint64
	fileSize int64 // after the round, 0 where it doesn't matter
}

func (s *sample) nsPerOp() float64     { return float64(s.elapsed.Nanoseconds()) / float64(s.ops) }
func (s *sample) allocsPerOp() float64 { return float64(s.mallocs) / float64(s.ops) }

// time adds a run of fn, which does ops operations, to the sample.
func (s *sample) time(ops int, fn func() error) error {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	err := fn()
	s.elapsed += time.Since(start)
	runtime.ReadMemStats(&after)
	s.mallocs += after.Mallocs - before.Mallocs
	s.ops += ops
	return err
}

// contender is one store, or one way of using it, in a workload.
type contender struct {
	name  string
	round func(n int) (sample, error)
	done  func() error // checks what the store holds, and closes it
}

// workload is one thing to measure.
type workload struct {
	name, title string
	unit        string // what one operation is
	maxRounds   int    // where a round is long; 0 for no limit
	prepare     func(b *bench) ([]contender, error)
}

var workloads = []workload{
	{"get", "Random gets inside one transaction", "get", 0, prepareGets},
	{"viewget", "Random gets, each in its own read transaction", "get", 0, prepareViewGets},
	{"scan", "Full scan in key order, every value looked at", "pair", 0, prepareScans},
	{"commit", "Durable commits of one put to a random existing key, one goroutine", "commit", 0, prepareCommits},
	{"load", "Load in key order, durable transactions of 10,000 puts", "pair", 3, prepareLoad(true)},
	{"randload", "Load in random order, durable transactions of 10,000 puts", "pair", 3, prepareLoad(false)},
	{"churn", "Random puts and deletes, half and half, durable transactions of 1,000", "change", 0, prepareChurn},
}

const (
	loadBatch    = 10_000
	churnBatch   = 1_000
	churnBatches = 30 // per round
	scanPasses   = 5  // per round
)

// bench is one run of the benchmark.
type bench struct {
	pairs   int
	commits int  // per round
	sorted  bool // the order in which base stores are filled
	dir     string
	log     io.Writer
	filled  *model            // what the base stores hold
	bases   map[string]string // per engine, a closed store with all pairs
}

// base returns the path of a store of kind e that holds all pairs.
func (b *bench) base(e engine) (string, error) {
	if path := b.bases[e.name]; path != "" {
		return path, nil
	}
	fmt.Fprintf(b.log, "building a %s store of %d pairs\n", e.name, b.pairs)
	path := filepath.Join(b.dir, fmt.Sprintf("base-%d", len(b.bases)))
	s, err := e.open(path, openOptions{npairs: b.pairs, sorted: b.sorted})
	if err != nil {
		return "", err
	}
	m := newModel(b.pairs)
	if err := fill(s, m, b.order(b.sorted), func(fn func() error) error { return fn() }); err != nil {
		return "", err
	}
	b.filled, b.bases[e.name] = m, path
	return path, s.close()
}

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

// order returns the numbers of all pairs, sorted by key or as they come: since keys
// are scrambled, that is a random order of keys.
func (b *bench) order(sorted bool) []int {
	order := make([]int, b.pairs)
	for i := range order {
		order[i] = i
	}
	if sorted {
		slices.SortFunc(order, func(i, j int) int { return cmp.Compare(scramble(uint64(i)), scramble(uint64(j))) })
	}
	return order
}

// opened is a store that is open for a workload, and what it must hold.
type opened struct {
	store
	model *model
	path  string
}

// openBase opens the base store of kind e for reading.
func (b *bench) openBase(e engine) (*opened, error) {
	path, err := b.base(e)
	if err != nil {
		return nil, err
	}
	return b.open(e, path, b.filled)
}

// openCopy opens a copy of the base store of kind e, to be changed.
func (b *bench) openCopy(e engine) (*opened, error) {
	from, err := b.base(e)
	if err != nil {
		return nil, err
	}
	to := from + "-copy"
	if err := copyFile(from, to); err != nil {
		return nil, err
	}
	return b.open(e, to, b.filled.clone())
}

func (b *bench) open(e engine, path string, m *model) (*opened, error) {
	s, err := e.open(path, openOptions{durable: true, npairs: b.pairs})
	if err != nil {
		return nil, err
	}
	// Besides, this brings every page into memory before anything is timed.
	if err := m.verify(s); err != nil {
		return nil, fmt.Errorf("%s, before the start: %w", e.name, err)
	}
	return &opened{s, m, path}, nil
}

// finish checks that the store holds what it must and closes it.
func (o *opened) finish() error {
	if err := o.model.verify(o.store); err != nil {
		return err
	}
	return o.store.close()
}

// discard is finish for a store that is of no more use.
func (o *opened) discard() error {
	if err := o.finish(); err != nil {
		return err
	}
	return removeStore(o.path)
}

func removeStore(path string) error {
	if err := os.RemoveAll(path + "-lock"); err != nil { // Folio's lock file
		return err
	}
	return os.RemoveAll(path)
}

func copyFile(from, to string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.Create(to)
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := io.Copy(w, r); err != nil {
		return err
	}
	return w.Sync()
}

// roundRand gives every contender of a round the same random numbers.
func roundRand(round int) *rand.Rand { return rand.New(rand.NewPCG(2026, uint64(round))) }

// --- reads

func prepareGets(b *bench) ([]contender, error) {
	return b.readers([]engine{folioEngine, bboltEngine}, store.gets)
}

func prepareViewGets(b *bench) ([]contender, error) {
	return b.readers([]engine{folioEngine, folioBucketEngine, bboltEngine}, store.viewGets)
}

// readers are contenders that look up as many pairs as there are in each round.
func (b *bench) readers(engines []engine, get func(store, []lookup) error) ([]contender, error) {
	var cs []contender
	for _, e := range engines {
		o, err := b.openBase(e)
		if err != nil {
			return nil, err
		}
		round := func(n int) (s sample, err error) {
			ls := o.model.lookups(roundRand(n), b.pairs)
			runtime.GC()
			err = s.time(len(ls), func() error { return get(o.store, ls) })
			return s, err
		}
		cs = append(cs, contender{e.name, round, o.finish})
	}
	return cs, nil
}

func prepareScans(b *bench) ([]contender, error) {
	f, err := b.openBase(folioEngine)
	if err != nil {
		return nil, err
	}
	o, err := b.openBase(bboltEngine)
	if err != nil {
		return nil, err
	}
	nothing := func() error { return nil }
	return []contender{
		{"folio", b.scanner(f, f.store.scan), f.finish},
		{"folio, iterator", b.scanner(f, f.store.(*folioStore).iterate), nothing},
		{"bbolt", b.scanner(o, o.store.scan), o.finish},
	}, nil
}

// scanner is the round of a contender that scans.
func (b *bench) scanner(o *opened, scan func() (tally, error)) func(int) (sample, error) {
	want := tally{o.model.present, o.model.sum()}
	return func(int) (s sample, err error) {
		runtime.GC()
		for range scanPasses {
			var got tally
			err = s.time(want.pairs, func() (err error) { got, err = scan(); return err })
			if err == nil && got != want {
				err = fmt.Errorf("scan saw %d pairs (sum of stamps %x), want %d (%x)", got.pairs, got.sum, want.pairs, want.sum)
			}
			if err != nil {
				return s, err
			}
		}
		return s, nil
	}
}

// --- writes

func prepareCommits(b *bench) ([]contender, error) {
	var cs []contender
	for _, e := range []engine{folioEngine, folioBucketEngine, bboltEngine} {
		o, err := b.openCopy(e)
		if err != nil {
			return nil, err
		}
		cs = append(cs, contender{e.name, func(n int) (sample, error) { return b.commitRound(o, n) }, o.discard})
	}
	path := filepath.Join(b.dir, "bare")
	bare, err := openBare(path)
	if err != nil {
		return nil, err
	}
	round := func(int) (s sample, err error) {
		err = s.time(b.commits, func() error {
			for range b.commits {
				if err := bare.commit(); err != nil {
					return err
				}
			}
			return nil
		})
		return s, err
	}
	done := func() error { bare.f.Close(); return os.Remove(path) }
	return append(cs, contender{bareName, round, done}), nil
}

const bareName = "bare 4 KiB pwrite + fdatasync"

func (b *bench) commitRound(o *opened, n int) (s sample, err error) {
	rnd := roundRand(n)
	ops := make([]op, b.commits)
	for at := range ops {
		ops[at] = o.model.put(rnd.IntN(b.pairs))
	}
	runtime.GC()
	err = s.time(len(ops), func() error {
		for at := range ops {
			if err := o.store.apply(ops[at : at+1]); err != nil {
				return err
			}
		}
		return nil
	})
	return s, err
}

// prepareLoad prepares loads of all pairs into an empty store, a new one each round.
func prepareLoad(sorted bool) func(b *bench) ([]contender, error) {
	return func(b *bench) ([]contender, error) {
		order := b.order(sorted)
		var cs []contender
		for _, e := range []engine{folioEngine, bboltEngine} {
			round := func(int) (sample, error) { return b.loadRound(e, order, sorted) }
			cs = append(cs, contender{e.name, round, func() error { return nil }})
		}
		return cs, nil
	}
}

func (b *bench) loadRound(e engine, order []int, sorted bool) (s sample, err error) {
	path := filepath.Join(b.dir, "load")
	st, err := e.open(path, openOptions{durable: true, sorted: sorted, npairs: b.pairs})
	if err != nil {
		return s, err
	}
	o := &opened{st, newModel(b.pairs), path}
	runtime.GC()
	timed := func(fn func() error) error { return s.time(0, fn) }
	if err := fill(st, o.model, order, timed); err != nil {
		return s, err
	}
	s.ops = b.pairs
	if err := o.finish(); err != nil {
		return s, err
	}
	if s.fileSize, err = sizeOf(path); err != nil {
		return s, err
	}
	return s, removeStore(path)
}

func sizeOf(path string) (int64, error) {
	st, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func prepareChurn(b *bench) ([]contender, error) {
	var cs []contender
	for _, e := range []engine{folioEngine, bboltEngine} {
		o, err := b.openCopy(e)
		if err != nil {
			return nil, err
		}
		cs = append(cs, contender{e.name, func(n int) (sample, error) { return b.churnRound(o, n) }, o.discard})
	}
	return cs, nil
}

// churnRound deletes pairs and puts others, or puts them anew, all over the store.
func (b *bench) churnRound(o *opened, n int) (s sample, err error) {
	rnd := roundRand(n)
	runtime.GC()
	for range churnBatches {
		ops := make([]op, churnBatch)
		for at := range ops {
			if i := rnd.IntN(b.pairs); at%2 == 0 {
				ops[at] = o.model.put(i)
			} else {
				ops[at] = o.model.remove(i)
			}
		}
		if err := s.time(len(ops), func() error { return o.store.apply(ops) }); err != nil {
			return s, err
		}
	}
	s.fileSize, err = sizeOf(o.path)
	return s, err
}
