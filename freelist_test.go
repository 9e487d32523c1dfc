package folio

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// freelistSeed returns the seed of a random test: FREELIST_SEED, or a new one. It
// is logged, so that a failure can be repeated.
func freelistSeed(t testing.TB) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("FREELIST_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
		seed = n
	}
	t.Logf("repeat with: FREELIST_SEED=%d go test -run '^%s$'", seed, t.Name())
	return rand.New(rand.NewPCG(seed, 1))
}

// --- bitmap

// naiveBitmap is the model: what a bitmap says, told slowly.
type naiveBitmap map[pgno]bool

func (m naiveBitmap) runs() (n uint64) {
	for p := range m {
		if p == 0 || !m[p-1] {
			n++
		}
	}
	return n
}

func (m naiveBitmap) runLen(p pgno, limit uint64) (n uint64) {
	for n < limit && m[p+pgno(n)] {
		n++
	}
	return n
}

func (m naiveBitmap) all(e extent, set bool) bool {
	for p := e.start; p < e.end(); p++ {
		if m[p] != set {
			return false
		}
	}
	return true
}

func TestBitmapAgainstModel(t *testing.T) {
	for _, size := range []int{70, 500, 5000, 300_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			r := freelistSeed(t)
			var b bitmap
			m := naiveBitmap{}
			for range 4000 {
				e := extent{pgno(r.IntN(size)), uint64(1 + r.IntN(1+r.IntN(200)))}
				switch {
				case m.all(e, false):
					b.setRange(e)
					for p := e.start; p < e.end(); p++ {
						m[p] = true
					}
				case m.all(e, true):
					b.clearRange(e)
					for p := e.start; p < e.end(); p++ {
						delete(m, p)
					}
				}
				compareBitmap(t, r, &b, m, size)
			}
			require.Equal(t, m.runs(), b.runs)
			for p := range pgno(size + 300) {
				require.Equal(t, m[p], b.test(p), "page %d", p)
			}
		})
	}
}

func compareBitmap(t *testing.T, r *rand.Rand, b *bitmap, m naiveBitmap, size int) {
	t.Helper()
	require.EqualValues(t, len(m), b.count)
	if size <= 500 {
		require.Equal(t, m.runs(), b.runs)
	}
	p := pgno(r.IntN(size + 300))
	if size <= 5000 {
		top := pgno(size + 400)
		next, prev := p, p
		for ; next < top && !m[next]; next++ {
		}
		for ; prev > 0 && !m[prev]; prev-- {
		}
		got, ok := b.next(p)
		require.Equal(t, next < top, ok, "next of %d", p)
		require.True(t, !ok || got == next, "next of %d: %d, want %d", p, got, next)
		got, ok = b.prev(p)
		require.Equal(t, m[prev], ok, "prev of %d", p)
		require.True(t, !ok || got == prev, "prev of %d: %d, want %d", p, got, prev)
	}
	limit := uint64(r.IntN(300))
	require.Equal(t, m.runLen(p, limit), b.runLen(p, limit), "run at %d", p)
	before := uint64(0)
	for pgno(before) < p && m[p-1-pgno(before)] {
		before++
	}
	require.Equal(t, before, b.runBefore(p), "run before %d", p)
	e := extent{p, uint64(r.IntN(100))}
	require.Equal(t, m.all(e, false), b.none(e), "none of %v", e)
}

func TestBitmapPanicsOnItsOwnRules(t *testing.T) {
	var b bitmap
	b.setRange(extent{10, 100})
	assert.Panics(t, func() { b.setRange(extent{100, 20}) })
	assert.Panics(t, func() { b.clearRange(extent{0, 20}) })
	assert.Panics(t, func() { b.clearRange(extent{1000, 1}) })
}

// --- allocation

func TestAllocate(t *testing.T) {
	holes := []extent{{10, 2}, {20, 5}, {40, 1}, {50, 3}}
	for _, tc := range []struct {
		name string
		hint pgno
		low  bool
		n    uint64
		want []extent
	}{
		{"one run", 0, false, 5, []extent{{20, 5}}},
		{"part of a run", 0, false, 2, []extent{{10, 2}}},
		{"from the hint", 21, false, 3, []extent{{21, 3}}},
		{"wraps", 53, false, 5, []extent{{20, 5}}},
		{"wraps into a run across the hint", 22, false, 5, []extent{{20, 5}}},
		{"several runs", 0, false, 7, []extent{{10, 2}, {20, 5}}},
		{"several runs from the hint on", 40, false, 8, []extent{{40, 1}, {50, 3}, {10, 2}, {20, 2}}},
		{"too few", 0, false, 20, []extent{{10, 2}, {20, 5}, {40, 1}, {50, 3}}},
		{"lowest first", 45, true, 1, []extent{{10, 1}}},
		{"nothing asked", 0, false, 0, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := emptyFreelist(60, 1)
			for _, e := range holes {
				f.giveBack(e)
			}
			f.hint, f.lowFirst = tc.hint, tc.low
			got := f.allocate(tc.n)
			assert.Equal(t, tc.want, got)
			for _, e := range got {
				f.giveBack(e)
			}
			assert.Equal(t, holes, slices.Collect(f.freeExtents()))
		})
	}
}

func TestAllocateRunObeysLimit(t *testing.T) {
	f := emptyFreelist(60, 1)
	f.giveBack(extent{10, 4})
	f.giveBack(extent{30, 10})
	_, ok := f.allocateRun(5, 34)
	assert.False(t, ok)
	p, ok := f.allocateRun(5, 35)
	assert.True(t, ok)
	assert.Equal(t, pgno(30), p)
}

func TestAllocateRunIsBounded(t *testing.T) {
	f := emptyFreelist(1<<20, 1)
	for p := pgno(4); p < 1<<19; p += 2 {
		f.giveBack(extent{p, 1})
	}
	f.giveBack(extent{1 << 19, 8})
	_, ok := f.allocateRun(8, 0)
	assert.False(t, ok, "a search through all of a scattered set")
	f.hint = 1<<19 - 100
	_, ok = f.allocateRun(8, 0)
	assert.True(t, ok)
}

func TestTailAndTruncate(t *testing.T) {
	f := emptyFreelist(100, 1)
	f.giveBack(extent{50, 10})
	f.giveBack(extent{70, 30})
	assert.EqualValues(t, 30, f.tail(100))
	assert.EqualValues(t, 0, f.tail(99+30))
	assert.EqualValues(t, 10, f.tail(60))
	f.truncate(80)
	assert.Equal(t, []extent{{50, 10}, {70, 10}}, slices.Collect(f.freeExtents()))
	f.giveBack(extent{80, 20})
	assert.EqualValues(t, 30, f.tail(100))
}

func TestReserve(t *testing.T) {
	f := emptyFreelist(100, 5)
	f.giveBack(extent{10, 10})
	f.addWaiting(extent{20, 10}, waitingPages{a: 2, t: 4, pin: 3})
	assert.False(t, f.reserve(extent{8, 4}))
	assert.EqualValues(t, 10, f.freePages())
	assert.True(t, f.reserve(extent{18, 5}))
	assert.True(t, f.reserve(extent{25, 2}))
	assert.Equal(t, []extent{{10, 8}}, slices.Collect(f.freeExtents()))
	assert.Equal(t, []waitingExtent{{extent{23, 2}, 2, 4}, {extent{27, 3}, 2, 4}}, slices.Collect(f.waitingExtents()))
	assert.EqualValues(t, 5, f.heldBy(3))
	f.release([]txid{1, 5})
	assert.EqualValues(t, 13, f.freePages())
	assert.Zero(t, f.waitingPages())
	assert.Zero(t, f.heldBy(3))
}

// --- a simulated store

type life struct{ a, t txid }

type simMeta struct {
	state   freelogState
	npages  uint64
	durable txid
}

// simStore is a store without trees: it knows which pages are in use, from when to
// when each was, and who is looking. It holds the freelist to the rule for reuse.
type simStore struct {
	t       testing.TB
	r       *rand.Rand
	f       *freelist
	psize   int
	tailCap int

	live   []pgno
	where  map[pgno]int  // index in live
	born   map[pgno]txid // of live pages and freelog pages
	chain  map[pgno]bool
	past   map[pgno][]life // earlier lives of a page that a pin may still see
	disk   map[pgno]page
	npages uint64
	meta   simMeta

	last, newest, published, durable, target txid
	commits                                  []txid // those that succeeded, from published to newest
	readers                                  []txid
	failEvery                                int // one in so many commits fails
}

func newSimStore(t testing.TB, r *rand.Rand, tailCap int) *simStore {
	s := &simStore{
		t: t, r: r, psize: minPageSize, tailCap: tailCap,
		where: map[pgno]int{}, born: map[pgno]txid{}, chain: map[pgno]bool{}, past: map[pgno][]life{}, disk: map[pgno]page{},
		npages: numMetas, last: 1, newest: 1, published: 1, durable: 1, failEvery: 10,
	}
	s.f = newFreelist(numMetas, 1)
	s.commits = []txid{1}
	s.meta = simMeta{s.f.state(), numMetas, 1}
	return s
}

func (s *simStore) pins() []txid {
	pins := append(slices.Clone(s.readers), s.durable)
	if s.target != 0 {
		pins = append(pins, s.target)
	}
	for _, p := range s.commits {
		if p >= s.published {
			pins = append(pins, p)
		}
	}
	slices.Sort(pins)
	return slices.Compact(pins)
}

// turn lets time pass: readers come and go, syncs begin and end.
func (s *simStore) turn() {
	switch s.r.IntN(8) {
	case 0:
		if len(s.readers) < 5 {
			s.readers = append(s.readers, s.published)
		}
	case 1, 2:
		if n := len(s.readers); n > 0 {
			s.readers = slices.Delete(s.readers, s.r.IntN(n), n)
		}
	case 3:
		if s.target == 0 {
			s.target = s.newest
		}
	case 4:
		if s.target != 0 {
			s.durable, s.target = s.target, 0
			s.published = max(s.published, s.durable)
		}
	case 5:
		i, _ := slices.BinarySearch(s.commits, s.published)
		s.published = s.commits[i+s.r.IntN(len(s.commits)-i)]
	default:
		s.published = s.newest
	}
}

// use notes that the transaction uses page p, and checks that nobody else can.
func (s *simStore) use(p pgno) {
	_, inUse := s.born[p]
	require.False(s.t, inUse, "page %d is allocated while in use", p)
	pins := s.pins()
	for _, l := range s.past[p] {
		for _, pin := range pins {
			require.False(s.t, l.a <= pin && pin < l.t, "page %d, used in [%d, %d), is reused under pin %d", p, l.a, l.t, pin)
		}
	}
	delete(s.past, p)
}

func (s *simStore) end(p pgno, a, t txid) {
	s.past[p] = append(s.past[p], life{a, t})
	delete(s.born, p)
}

func (s *simStore) addLive(p pgno, t txid) {
	s.where[p] = len(s.live)
	s.live = append(s.live, p)
	s.born[p] = t
}

func (s *simStore) dropLive(p pgno) {
	i := s.where[p]
	q := s.live[len(s.live)-1]
	s.live[i], s.where[q] = q, i
	s.live = s.live[:len(s.live)-1]
	delete(s.where, p)
}

// simTx is a commit under way.
type simTx struct {
	s         *simStore
	taken     []extent // from the free set
	allocated []extent // taken and grown
	npages    uint64
}

func (x *simTx) grow(n uint64) extent {
	e := extent{pgno(x.npages), n}
	x.npages += n
	x.allocated = append(x.allocated, e)
	return e
}

func (x *simTx) allocate(n uint64) {
	for _, e := range x.s.f.allocate(n) {
		x.taken = append(x.taken, e)
		x.allocated = append(x.allocated, e)
		n -= e.npages
	}
	if n > 0 {
		x.grow(n)
	}
}

var errSimNoSpace = errors.New("no space")

func (x *simTx) allocPage() (pgno, error) {
	if x.s.failEvery > 0 && x.s.r.IntN(x.s.failEvery*3) == 0 {
		return 0, errSimNoSpace
	}
	if p, ok := x.s.f.allocateRun(1, 0); ok {
		x.taken = append(x.taken, extent{p, 1})
		return p, nil
	}
	x.npages++
	return pgno(x.npages - 1), nil
}

// rollback undoes what the commit took; pages grown stay, free, or go.
func (x *simTx) rollback(truncated extent) {
	s := x.s
	bound := pgno(s.npages)
	if truncated.npages > 0 {
		bound = truncated.start
	}
	s.f.truncate(bound) // grown pages that the commit had given back
	for _, e := range x.taken {
		s.f.giveBack(e.clip(0, bound))
	}
	s.f.giveBack(truncated)
	if x.npages > s.npages && s.r.IntN(2) == 0 {
		s.f.giveBack(extent{pgno(s.npages), x.npages - s.npages})
		s.npages = x.npages
	}
}

// commit frees nfree random pages and allocates nalloc. It returns how many
// freelog pages that wrote, -1 where it failed.
func (s *simStore) commit(nfree, nalloc int) int {
	if s.r.IntN(4) > 0 {
		s.f.release(s.pins())
	}
	s.last++
	tx := s.last
	x := &simTx{s: s, npages: s.npages}
	var truncated extent
	if n := s.f.tail(pgno(s.npages)); n > 0 && s.r.IntN(20) == 0 {
		cut := 1 + uint64(s.r.Int64N(int64(n)))
		x.npages -= cut
		s.f.truncate(pgno(x.npages))
		truncated = extent{pgno(x.npages), cut}
	}
	for nalloc > 0 {
		n := min(nalloc, 1+s.r.IntN(4))
		x.allocate(uint64(n))
		nalloc -= n
	}
	if s.r.IntN(10) == 0 {
		// Pages that come and go within the transaction.
		e := x.grow(2)
		x.allocated = x.allocated[:len(x.allocated)-1]
		s.f.giveBack(e)
	}
	var freed []freedExtent
	var p pgno
	for range min(nfree, len(s.live)) {
		// Often the next page too, so that there are extents of many pages.
		p++
		if _, ok := s.where[p]; !ok || s.r.IntN(2) == 0 {
			p = s.live[s.r.IntN(len(s.live))]
		}
		s.dropLive(p)
		a := s.born[p]
		if s.r.IntN(5) == 0 {
			a = 0
		}
		freed = append(freed, freedExtent{extent: extent{p, 1}, A: a})
	}
	undo := func() {
		for _, e := range freed {
			s.addLive(e.start, s.born[e.start])
		}
		x.rollback(truncated)
	}
	fc, err := s.f.plan(commitPlan{
		txid: tx, durable: s.durable, freed: freed, allocated: x.allocated,
		alloc: x.allocPage, npages: func() uint64 { return x.npages }, tailCap: s.tailCap, psize: s.psize,
	})
	if err != nil {
		require.ErrorIs(s.t, err, errSimNoSpace)
		undo()
		return -1
	}
	if s.failEvery > 0 && s.r.IntN(s.failEvery) == 0 {
		s.f.abandon(fc)
		undo()
		return -1
	}
	s.applied(tx, x, freed, fc)
	return len(fc.pages)
}

func (s *simStore) applied(tx txid, x *simTx, freed []freedExtent, fc freelogCommit) {
	for _, e := range x.allocated {
		for p := e.start; p < e.end(); p++ {
			s.use(p)
			s.addLive(p, tx)
		}
	}
	for _, e := range freed {
		s.end(e.start, e.A, tx)
	}
	for _, pg := range fc.pages {
		s.use(pg.pgno())
		s.born[pg.pgno()] = tx
		s.disk[pg.pgno()] = pg
		require.Equal(s.t, pg.computeSum(), pg.sum())
	}
	before := s.chain
	s.f.apply(fc)
	s.chain = map[pgno]bool{}
	for _, p := range s.f.chainPages() {
		s.chain[p] = true
	}
	for p := range before {
		if !s.chain[p] {
			s.end(p, s.born[p], tx)
		}
	}
	s.npages, s.newest = x.npages, tx
	for s.commits[0] < s.published {
		s.commits = s.commits[1:]
	}
	s.commits = append(s.commits, tx)
	for p := range s.past {
		if uint64(p) >= s.npages {
			delete(s.past, p)
		}
	}
	s.meta = simMeta{fc.state, x.npages, s.durable}
	require.LessOrEqual(s.t, len(fc.state.tail), s.tailCap)
}

// check compares the freelist with the brute-force model: every page below the
// high-water mark is in use, reusable, or held by a pin in [A, T).
func (s *simStore) check() {
	pins := s.pins()
	s.f.release(pins)
	held := map[txid]uint64{}
	state := freelistPages(s.f)
	nfree, nwait := uint64(0), uint64(0)
	for p := pgno(numMetas); p < pgno(s.npages); p++ {
		got, isFree := state[p]
		_, inUse := s.born[p]
		require.NotEqual(s.t, inUse, isFree, "page %d: in use %v, free or waiting %v", p, inUse, isFree)
		if inUse {
			continue
		}
		var blocker, t txid
		for _, l := range s.past[p] {
			for _, pin := range pins {
				if l.a <= pin && pin < l.t {
					blocker, t = pin, l.t
				}
			}
		}
		require.Equal(s.t, t, got.t, "page %d: past %v, pins %v", p, s.past[p], pins)
		if t == 0 {
			nfree++
			delete(s.past, p)
			continue
		}
		nwait++
		held[blocker]++
	}
	require.Equal(s.t, nfree, s.f.freePages())
	require.Equal(s.t, nwait, s.f.waitingPages())
	for _, pin := range pins {
		require.Equal(s.t, held[pin], s.f.heldBy(pin), "held by %d", pin)
	}
}

// freelistPages returns every reusable page with T 0 and every waiting one with its A and T.
func freelistPages(f *freelist) map[pgno]life {
	m := map[pgno]life{}
	for e := range f.freeExtents() {
		for p := e.start; p < e.end(); p++ {
			m[p] = life{}
		}
	}
	for e := range f.waitingExtents() {
		for p := e.start; p < e.end(); p++ {
			m[p] = life{e.A, e.T}
		}
	}
	return m
}

func (s *simStore) load() (*freelist, error) {
	return loadBoth(s.t, s.meta.state, 2, s.meta.npages, s.newest, s.meta.durable, s.psize, func(n pgno, sum uint64) (page, error) {
		pg := s.disk[n]
		if pg == nil || pg.sum() != sum || pg.computeSum() != sum {
			return nil, corrupt(n, "wrong sum")
		}
		return pg, nil
	})
}

// loadBoth loads the freelog, and compares what loadReusable makes of it: where it can be
// loaded, the same pages, and nothing waits.
func loadBoth(t testing.TB, st freelogState, metaPage pgno, npages uint64, newest, since txid, psize int, read func(n pgno, sum uint64) (page, error)) (*freelist, error) {
	f, err := loadFreelist(st, metaPage, npages, newest, psize, read)
	g, gerr := loadReusable(st, metaPage, npages, newest, since, psize, read)
	if err != nil {
		return f, err // g may do: it does not compare since when a page waits
	}
	require.NoError(t, gerr)
	require.Zero(t, g.waitingPages())
	require.Equal(t, f.freePages()+f.waitingPages(), g.freePages())
	for e := range f.freeExtents() {
		require.True(t, g.covered(e))
	}
	for w := range f.waitingExtents() {
		require.True(t, g.covered(w.extent))
	}
	require.Equal(t, f.chain, g.chain)
	require.Equal(t, f.allocatedSince(since), g.allocatedSince(since))
	for _, r := range g.records {
		require.Greater(t, r.txid, since, "it is not needed")
	}
	return f, nil
}

// reload loads the freelog and compares what comes out with what is in memory.
func (s *simStore) reload() {
	g, err := s.load()
	require.NoError(s.t, err)

	want := map[pgno]txid{}
	for p, a := range s.born {
		if a > s.meta.durable {
			want[p] = a
		}
	}
	require.Equal(s.t, want, g.allocatedSince(s.meta.durable))
	g.forgetRecords()

	pins := s.pins()
	s.f.release(pins)
	g.release(pins)
	grown := extent{pgno(s.meta.npages), s.npages - s.meta.npages}
	g.giveBack(grown) // a failed commit grew the file and the free set
	a, b := freelistPages(s.f), freelistPages(g)
	for _, m := range []map[pgno]life{a, b} {
		for p, l := range m {
			if l.a <= pins[0] {
				m[p] = life{0, l.t}
			}
		}
	}
	require.Equal(s.t, a, b)
	f, h := s.f.chain, g.chain
	require.Equal(s.t, len(f.pages), len(h.pages))
	require.Equal(s.t, f.start, h.start)
	for i := range f.pages {
		if i < f.start {
			h.pages[i].maxTxid = f.pages[i].maxTxid // not read, not needed
		}
	}
	require.Equal(s.t, f.pages[:len(f.pages):len(f.pages)], h.pages)
	h.pages = f.pages
	if len(f.tail) == 0 {
		f.tail, h.tail = nil, nil
	}
	require.Equal(s.t, f, h)
	if s.r.IntN(2) == 0 {
		s.f = g
	}
}

func TestFreelistSimulation(t *testing.T) {
	for _, tc := range []struct {
		name          string
		tailCap       int
		pages         int
		commits, step int
	}{
		{"small", 3800, 500, 4000, 7},
		{"tiny tail", 100, 300, 3000, 11},
		{"scattered", 300, 12_000, 1500, 150},
		{"scattered, large tail", 3800, 8_000, 1500, 150},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newSimStore(t, freelistSeed(t), tc.tailCap)
			for s.commit(0, tc.pages) < 0 {
			}
			for s.commit(tc.pages/3, 0) < 0 {
			}
			snapshots := 0
			for i := range tc.commits {
				s.turn()
				nfree, nalloc := s.r.IntN(12), s.r.IntN(12)
				if len(s.live) < tc.pages/2 {
					nfree = 0
				}
				if len(s.live) > tc.pages {
					nalloc = 0
				}
				if s.r.IntN(100) == 0 {
					nfree, nalloc = s.r.IntN(tc.pages/4), s.r.IntN(tc.pages/4)
				}
				start := s.meta.state.start
				n := s.commit(nfree, nalloc)
				if nfree+nalloc <= 24 {
					require.LessOrEqual(t, n, 2, "freelog pages of a small commit")
				}
				if s.meta.state.start != start {
					snapshots++
				}
				if i%tc.step == 0 {
					s.check()
					s.reload()
					s.check()
				}
			}
			s.check()
			s.reload()
			t.Logf("chain %d pages, start moved %d times, %d pages", len(s.f.chain.pages), snapshots, s.npages)
		})
	}
}

// What a recovery holds back waits in memory, and is reusable in the freelog, whichever pieces
// of a snapshot are written meanwhile.
func TestHeldBackIsReusableInTheFreelog(t *testing.T) {
	s := newSimStore(t, freelistSeed(t), 300)
	s.failEvery = 0
	s.commit(0, 3000)
	s.commit(1000, 0)
	s.durable, s.published = s.newest, s.newest
	s.readers = []txid{s.newest}
	moved := 0
	for i := range 600 {
		s.f.release(s.pins())
		var held []extent
		for e := range s.f.freeExtents() {
			if held = append(held, extent{e.start, 1}); len(held) > i%3 {
				break
			}
		}
		for _, e := range held {
			require.True(t, s.f.reserve(e))
			s.f.holdBack(e, s.last+1)
			s.past[e.start] = append(s.past[e.start], life{0, s.last + 1})
		}
		start := s.meta.state.start
		s.commit(6, 6)
		if s.meta.state.start != start {
			moved++
		}
		_, err := s.load()
		require.NoError(t, err)
		s.published, s.durable = s.newest, s.newest
		if i%50 == 49 {
			s.readers = []txid{s.newest}
		}
	}
	require.Greater(t, moved, 3, "snapshots were completed")
}

// A chain that only grew would make opening slower with every commit.
func TestFreelogChainStaysBounded(t *testing.T) {
	s := newSimStore(t, freelistSeed(t), 3800)
	s.failEvery = 0
	s.commit(0, 10_000)
	for range 40 {
		s.commit(100, 0)
	}
	longest, fresh, wrote := 0, uint64(0), 0
	for i := range 20_000 {
		s.published, s.durable = s.newest, max(s.durable, s.newest-txid(i%50))
		n := s.commit(4, 4)
		require.LessOrEqual(t, n, 2)
		wrote += n
		size := s.f.free.runs*freeExtentEstimate + s.f.starts.count*waitExtentEstimate
		fresh = max(fresh, size/uint64(freelogCapacity(s.psize))+1)
		longest = max(longest, len(s.f.chain.pages))
	}
	s.check()
	s.reload()
	t.Logf("longest chain %d pages, fresh snapshot %d, %d freelog pages in 20,000 commits", longest, fresh, wrote)
	assert.LessOrEqual(t, longest, int(3*fresh)+12)
	assert.Less(t, wrote, 20_000/10)
}

func TestFreelogLargeCommits(t *testing.T) {
	s := newSimStore(t, freelistSeed(t), 3800)
	s.failEvery = 0
	s.commit(0, 150_000)
	s.check()
	// Free every third page: 50,000 extents in one record.
	var freed []freedExtent
	for i, p := range slices.Sorted(slices.Values(s.live)) {
		if i%3 == 0 {
			freed = append(freed, freedExtent{extent: extent{p, 1}, A: 2})
			s.dropLive(p)
		}
	}
	s.f.release(s.pins())
	s.last++
	x := &simTx{s: s, npages: s.npages}
	fc, err := s.f.plan(commitPlan{
		txid: s.last, durable: s.durable, freed: freed,
		alloc: x.allocPage, npages: func() uint64 { return x.npages }, tailCap: s.tailCap, psize: s.psize,
	})
	require.NoError(t, err)
	require.Greater(t, len(fc.pages), 20)
	s.applied(s.last, x, freed, fc)
	s.check()
	s.reload()
	longest := 0
	for range 60 {
		s.published, s.durable = s.newest, s.newest
		s.commit(10_000, 10_000)
		longest = max(longest, len(s.f.chain.pages))
	}
	t.Logf("longest chain %d pages", longest)
	assert.Less(t, longest, 200)
	s.check()
	s.reload()
}

func TestBuildFreelog(t *testing.T) {
	for _, n := range []int{0, 1, 100, 5000, 70_000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			var free []extent
			p := pgno(numMetas)
			for i := range n {
				free = append(free, extent{p + 1, uint64(1 + i%3)})
				p += 5
			}
			npages, next := uint64(p+5), p+5
			disk := map[pgno]page{}
			pages, st, npages := buildFreelog(free, npages, 9, minPageSize, 3800, func() pgno { next++; return next - 1 })
			for _, pg := range pages {
				disk[pg.pgno()] = pg
			}
			require.EqualValues(t, next, npages)
			f, err := loadFreelist(st, 0, npages, 9, minPageSize, func(n pgno, sum uint64) (page, error) {
				require.Equal(t, sum, disk[n].computeSum())
				return disk[n], nil
			})
			require.NoError(t, err)
			require.Equal(t, free, slices.Collect(f.freeExtents()))
			require.Len(t, f.chainPages(), len(pages))
			_, err = f.plan(commitPlan{
				txid: 10, durable: 9, alloc: func() (pgno, error) { t.Fatal("no page is needed"); return 0, nil },
				npages: func() uint64 { return npages }, tailCap: 3800, psize: minPageSize,
			})
			require.NoError(t, err)
		})
	}
}

// A piece may begin inside an extent: what lies below belongs to the piece before.
func TestSnapshotItems(t *testing.T) {
	f := emptyFreelist(100, 9)
	f.giveBack(extent{10, 4})
	f.giveBack(extent{50, 10})
	f.addWaiting(extent{20, 10}, waitingPages{a: 3, t: 5, pin: 4})
	f.addWaiting(extent{60, 5}, waitingPages{t: 9, pin: 4})
	freed := []freedExtent{{extent: extent{15, 5}, A: 7}, {extent: extent{40, 6}}, {extent: extent{70, 1}}}
	all := []waitingExtent{
		{extent{10, 4}, 0, 0}, {extent{15, 5}, 7, 10}, {extent{20, 10}, 3, 5}, {extent{40, 6}, 0, 10},
		{extent{50, 10}, 0, 0}, {extent{60, 5}, 0, 9}, {extent{70, 1}, 0, 10},
	}
	for lo := range pgno(100) {
		var want []waitingExtent
		for _, e := range all {
			if e.extent = e.clip(lo, allAbove); e.npages > 0 {
				want = append(want, e)
			}
		}
		require.Equal(t, want, slices.Collect(f.items(lo, 10, freed)), "from page %d", lo)
	}
}

// --- damage

func TestFreelogRefuses(t *testing.T) {
	rec := func(t txid, npages uint64, freed []freedExtent, allocated []extent) []byte {
		return (&freelogRecord{t, npages, freed, allocated}).appendTo(nil)
	}
	origin, _, _ := appendFreelogPiece(nil, math.MaxInt, 1, 4, 0, nil)
	grow := rec(2, 20, nil, []extent{{4, 16}})
	one := func(p pgno, n uint64) []freedExtent { return []freedExtent{{extent: extent{p, n}}} }
	for _, tc := range []struct {
		name string
		tail [][]byte
		rule string // "" where it is fine
	}{
		{"fine", [][]byte{origin, grow, rec(3, 20, one(5, 2), nil)}, ""},
		{"nothing at all", nil, "says nothing about pages from 0"},
		{"no origin", [][]byte{grow}, "says nothing"},
		{"page count differs", [][]byte{origin, grow, rec(3, 21, nil, nil)}, "page count 20 where"},
		{"meta slot", [][]byte{origin, grow, rec(3, 20, one(3, 2), nil)}, "malformed"},
		{"beyond the end", [][]byte{origin, grow, rec(3, 20, one(19, 2), nil)}, "malformed"},
		{"huge", [][]byte{origin, grow, rec(3, 20, one(19, 1<<60), nil)}, "malformed"},
		{"huge page count", [][]byte{origin, rec(2, 1<<60, nil, []extent{{4, 1<<60 - 4}})}, "page count 20 where"},
		{"huge page count, taken back", [][]byte{origin, rec(2, 1<<60, nil, []extent{{4, 16}}), rec(3, 20, nil, nil)}, ""},
		{"freed twice", [][]byte{origin, grow, rec(3, 20, one(5, 2), nil), rec(4, 20, one(6, 1), nil)}, "twice"},
		{"allocated in use", [][]byte{origin, grow, rec(3, 20, nil, []extent{{9, 1}})}, "in use"},
		{"cut off in use", [][]byte{origin, grow, rec(3, 15, nil, nil), rec(4, 20, nil, nil)}, "cuts off"},
		{"order of commits", [][]byte{origin, grow, rec(1, 20, nil, nil)}, "between"},
		{"newer than the meta", [][]byte{origin, grow, rec(8, 20, nil, nil)}, "between"},
		{"A after T", [][]byte{origin, grow, {1, 3, 20, 1, 5, 3, 9, 0}}, "malformed"},
		{"A is T", [][]byte{origin, grow, {1, 3, 20, 1, 5, 3, 0, 0}}, "malformed"},
		{"long uvarint", [][]byte{origin, grow, {1, 3, 20 | 0x80, 0, 0, 0}}, "malformed"},
		{"unknown kind", [][]byte{origin, grow, {7, 3, 20}}, "kind 7"},
		{"cut off", [][]byte{origin, grow, {1, 3, 20, 5}}, "malformed"},
		{"two page counts", [][]byte{origin, grow, rec(2, 21, nil, nil)}, "two page counts"},
		{"piece in part", [][]byte{origin, grow, {2, 3, 20, 0, 9, 0}}, "piece in the tail"},
		{"piece out of turn", [][]byte{origin, grow, {2, 3, 20, 5, 0, 0}}, "out of turn"},
		{"piece frees a page in use", [][]byte{origin, grow, {2, 3, 20, 0, 0, 1, 5, 1 << 2}}, "differ"},
		{"piece misses a free page", [][]byte{origin, grow, rec(3, 20, one(5, 2), nil), {2, 3, 20, 0, 0, 0}}, "differ"},
		{"piece with another T", [][]byte{origin, grow, rec(3, 20, one(5, 2), nil), {2, 4, 20, 0, 0, 1, 5, 2<<2 | 1, 2}}, "differ"},
		{"piece agrees", [][]byte{origin, grow, rec(3, 20, one(5, 2), nil), {2, 4, 20, 0, 0, 1, 5, 2<<2 | 1, 1}}, ""},
		{"piece of unknown state", [][]byte{origin, grow, {2, 3, 20, 0, 0, 1, 5, 1<<2 | 3}}, "malformed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := freelogState{tail: slices.Concat(tc.tail...)}
			_, err := loadFreelist(st, 3, 20, 7, minPageSize, nil)
			if tc.rule == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, ErrCorrupt)
			assert.ErrorContains(t, err, tc.rule)
			assert.ErrorContains(t, err, "page 3:")
		})
	}
}

func TestPlanRefusesDoubleFree(t *testing.T) {
	f := newFreelist(4, 1)
	plan := func(tx txid, npages uint64, freed []freedExtent, allocated ...extent) error {
		fc, err := f.plan(commitPlan{txid: tx, freed: freed, allocated: allocated, npages: func() uint64 { return npages }, tailCap: 3000, psize: minPageSize})
		if err == nil {
			f.apply(fc)
		}
		return err
	}
	require.NoError(t, plan(2, 20, nil, extent{4, 16}))
	require.NoError(t, plan(3, 20, []freedExtent{{extent: extent{7, 1}, A: 2}}))
	for _, freed := range [][]freedExtent{
		{{extent: extent{7, 1}, A: 2}},
		{{extent: extent{9, 2}, A: 2}, {extent: extent{10, 1}, A: 2}},
		{{extent: extent{3, 1}, A: 1}},
		{{extent: extent{19, 2}, A: 1}},
		{{extent: extent{19, math.MaxUint64 - 5}, A: 1}},
		{{extent: extent{9, 1}, A: 4}},
	} {
		require.ErrorIs(t, plan(4, 20, freed), ErrCorrupt, "%v", freed)
	}
	require.Panics(t, func() { _ = plan(4, 22, nil, extent{20, 1}) }, "a grown page is lost")
	require.Panics(t, func() { _ = plan(4, 20, nil, extent{8, 1}, extent{8, 1}) })
	require.Panics(t, func() { _ = plan(3, 20, nil) }, "a txid again")
	require.NoError(t, plan(5, 20, []freedExtent{{extent: extent{9, 1}, A: 4}}))
}

// mutate damages the store's freelog in memory: bytes of the tail, or of a page,
// whose sums are made to match again, as a malicious file's would.
func (s *simStore) mutated() (freelogState, map[pgno]page) {
	st, disk := s.meta.state, maps.Clone(s.disk)
	st.tail = slices.Clone(st.tail)
	for range 1 + s.r.IntN(3) {
		chain := s.f.chainPages()
		b := []byte(st.tail)
		if len(chain) > 0 && s.r.IntN(3) > 0 {
			n := chain[s.r.IntN(len(chain))]
			pg := slices.Clone(disk[n])
			disk[n] = pg
			b = pg[offTxid:]
			if s.r.IntN(4) > 0 {
				b = pg[freelogPageHeader:min(len(pg), max(freelogPageHeader, pg.lower()))]
			}
		}
		if len(b) == 0 {
			continue
		}
		i := s.r.IntN(len(b))
		switch s.r.IntN(3) {
		case 0:
			b[i] = byte(s.r.Uint32())
		case 1:
			b[i] ^= 1 << s.r.IntN(8)
		case 2:
			b[i] += byte(1 - 2*s.r.IntN(2))
		}
	}
	return st, disk
}

func TestFreelogMutations(t *testing.T) {
	s := newSimStore(t, freelistSeed(t), 400)
	s.commit(0, 3000)
	s.commit(1000, 0)
	loaded, refused := 0, 0
	for range 6000 {
		if s.r.IntN(4) == 0 {
			s.turn()
			s.commit(s.r.IntN(12), s.r.IntN(12))
		}
		st, disk := s.mutated()
		f, err := loadBoth(t, st, 1, s.meta.npages, s.newest, s.meta.durable, s.psize, func(n pgno, _ uint64) (page, error) {
			if disk[n] == nil {
				return nil, corrupt(n, "no such page")
			}
			return disk[n], nil
		})
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			refused++
			continue
		}
		loaded++
		f.allocatedSince(s.meta.durable)
		exerciseLoaded(t, s.r, f, s.meta.npages, s.newest)
	}
	t.Logf("%d mutations refused, %d loaded", refused, loaded)
	assert.NotZero(t, refused)
}

// exerciseLoaded works with a freelist that came from damaged bytes: it stays in
// the file and never panics.
func exerciseLoaded(t *testing.T, r *rand.Rand, f *freelist, npages uint64, newest txid) {
	t.Helper()
	for p := range freelistPages(f) {
		require.True(t, p >= numMetas && p < pgno(npages), "page %d of %d", p, npages)
	}
	for _, p := range f.chainPages() {
		require.True(t, f.untouched(extent{p, 1}))
	}
	for tx := newest + 1; tx < newest+4; tx++ {
		f.release([]txid{newest, tx - 1})
		x := &simTx{s: &simStore{f: f, r: r}, npages: f.npages}
		x.allocate(uint64(r.IntN(9)))
		freed := []freedExtent{{extent: extent{pgno(r.Uint64N(npages)), 1}, A: txid(r.Uint64N(uint64(tx)))}}
		fc, err := f.plan(commitPlan{
			txid: tx, durable: newest, freed: freed, allocated: x.allocated,
			alloc: x.allocPage, npages: func() uint64 { return x.npages }, tailCap: 300, psize: minPageSize,
		})
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		f.apply(fc)
	}
}

// A crafted page or tail must be refused or be harmless.
func FuzzFreelogDecode(f *testing.F) {
	s := newSimStore(f, rand.New(rand.NewPCG(1, 2)), 200)
	s.failEvery = 0
	s.commit(0, 40)
	for range 60 {
		s.turn()
		s.commit(s.r.IntN(4), s.r.IntN(4))
		if chain := s.f.chainPages(); len(chain) > 0 {
			pg := s.disk[chain[len(chain)-1]]
			f.Add([]byte(pg[freelogPageHeader:pg.lower()]), s.meta.state.tail, uint16(s.npages), uint8(s.newest))
		}
	}
	f.Add([]byte{}, newFreelist(4, 1).state().tail, uint16(4), uint8(1))
	f.Fuzz(func(t *testing.T, entries, tail []byte, n uint16, last uint8) {
		npages, newest := uint64(n), txid(last)
		st := freelogState{tail: tail}
		pg := make(page, minPageSize)
		if len(entries) > 0 && len(entries) <= freelogCapacity(minPageSize) {
			st.head, st.oldest, st.start, st.chainLen = 4, 4, 4, 1
			pg.init(kindFreelog, 0, 0)
			copy(pg[freelogPageHeader:], entries)
			pg.setLower(freelogPageHeader + len(entries))
			pg.setCount(freelogEntryCount(entries, npages, newest))
			pg.seal(4, newest)
		}
		fl, err := loadBoth(t, st, 1, npages, newest, 0, minPageSize, func(pgno, uint64) (page, error) { return pg, nil })
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		fl.allocatedSince(0)
		exerciseLoaded(t, rand.New(rand.NewPCG(uint64(n), uint64(last))), fl, npages, newest)
	})
}

// freelogEntryCount returns how many entries decode, so that the fuzzer need not
// guess the header's count.
func freelogEntryCount(entries []byte, npages uint64, newest txid) int {
	r := freelogReader{f: emptyFreelist(npages, newest), newest: newest, limit: pgno(npages)}
	n, _ := r.entries(entries, newest)
	return n
}
