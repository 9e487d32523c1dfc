package folio

// freelist.go knows which pages of the store are reusable, which wait, and how
// the freelog codes that. It does no I/O and allocates no page behind the
// caller's back. Everything here is used under the writer lock only.
//
// Invariants:
//   - a page is reusable, waiting, or neither (live, or part of the freelog), never two of them;
//   - a waiting extent was freed by commit T and allocated by A (0 unknown); it
//     becomes reusable when no pin p has A <= p < T, and is filed under the largest such pin;
//   - every pin that can still appear is one of the pins of the last release, or a
//     commit applied since: what was released once is never blocked again;
//   - plan changes nothing: only apply moves the state on, so a failed commit needs
//     only its allocations given back;
//   - replaying the freelog gives, page for page, the union of the reusable and the
//     waiting pages, and for each that still waits its T;
//   - the work of a commit grows with what it frees, allocates and releases, not
//     with what is free or waits.
//
// The freelog is a stream of entries, oldest first: a chain of freelog pages, each
// with the reference of the one before it, then the tail in the meta page.
//
//	record          what one commit (or a part of a large one) freed and allocated
//	snapshot piece  all that is reusable or waits in [lo, hi) after the entries before it
//
// Pages between the old and the new high-water mark of a record are reusable
// before its allocations are taken; pages above a smaller one are gone.

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"math/bits"
	"slices"

	"github.com/foliokv/folio/internal/seeded"
)

// extent is a range of consecutive pages.
type extent struct {
	start  pgno
	npages uint64
}

func (e extent) end() pgno { return e.start + pgno(e.npages) }

// clip returns the part of e that lies in [lo, hi); npages is 0 where none does.
func (e extent) clip(lo, hi pgno) extent {
	start, end := max(e.start, lo), min(e.end(), hi)
	if start >= end {
		return extent{}
	}
	return extent{start, uint64(end - start)}
}

// freedExtent is an extent that a commit frees.
type freedExtent struct {
	extent
	A   txid // the commit that allocated it; 0 unknown
	run bool // a redo record may name it
}

// waitingExtent is an extent that waits for its pins to go. T is 0 where a list
// holds reusable extents too, and this is one.
type waitingExtent struct {
	extent
	A, T txid
}

// --- bitmap

// bitmap is a set of page numbers. A bit of a level above the lowest is set where
// the word below it is not zero, so that a search skips what is empty. The highest
// level is a single word.
type bitmap struct {
	levels [][]uint64
	count  uint64 // set bits
	runs   uint64 // maximal runs of set bits
}

// size returns how many bits the bitmap has room for.
func (b *bitmap) size() uint64 {
	if len(b.levels) == 0 {
		return 0
	}
	return uint64(len(b.levels[0])) * 64
}

// grow makes room for bits [0, n).
func (b *bitmap) grow(n uint64) {
	if n <= b.size() {
		return
	}
	words := (n + 63) / 64
	for k := 0; ; k++ {
		if k == len(b.levels) {
			b.levels = append(b.levels, b.summary(k))
		}
		l := b.levels[k]
		if need := int(words) - len(l); need > 0 {
			l = slices.Grow(l, need)[:words]
			clear(l[len(b.levels[k]):])
			b.levels[k] = l
		}
		if words == 1 {
			return
		}
		words = (words + 63) / 64
	}
}

// summary returns the words of a new level k, computed from the level below.
func (b *bitmap) summary(k int) []uint64 {
	if k == 0 {
		return nil
	}
	below := b.levels[k-1]
	l := make([]uint64, (len(below)+63)/64)
	for i, w := range below {
		if w != 0 {
			l[i>>6] |= 1 << (i & 63)
		}
	}
	return l
}

// wordMask returns the bits of word w that lie in [lo, hi], both included.
func wordMask(w, lo, hi uint64) uint64 {
	m := ^uint64(0)
	if w == lo>>6 {
		m <<= lo & 63
	}
	if w == hi>>6 {
		m &= ^uint64(0) >> (63 - hi&63)
	}
	return m
}

// setRange sets the bits of e, all of which must be clear.
func (b *bitmap) setRange(e extent) {
	if e.npages == 0 {
		return
	}
	lo, hi := uint64(e.start), uint64(e.end())-1
	b.grow(hi + 1)
	for w := lo >> 6; w <= hi>>6; w++ {
		m := wordMask(w, lo, hi)
		if b.levels[0][w]&m != 0 {
			panic(fmt.Sprintf("folio: pages %d+%d enter a set that has some of them already", e.start, e.npages))
		}
		b.levels[0][w] |= m
	}
	b.count += e.npages
	b.runs += 1 - b.bit(lo-1) - b.bit(hi+1)
	for _, l := range b.levels[1:] {
		lo, hi = lo>>6, hi>>6
		for w := lo >> 6; w <= hi>>6; w++ {
			l[w] |= wordMask(w, lo, hi)
		}
	}
}

// clearRange clears the bits of e, all of which must be set.
func (b *bitmap) clearRange(e extent) {
	if e.npages == 0 {
		return
	}
	lo, hi := uint64(e.start), uint64(e.end())-1
	if hi >= b.size() {
		panic(fmt.Sprintf("folio: pages %d+%d leave a set that does not reach so far", e.start, e.npages))
	}
	b.count -= e.npages
	b.runs += b.bit(lo-1) + b.bit(hi+1) - 1
	for k, l := range b.levels {
		for w := lo >> 6; w <= hi>>6; w++ {
			m := wordMask(w, lo, hi)
			if k == 0 && l[w]&m != m {
				panic(fmt.Sprintf("folio: pages %d+%d leave a set that lacks some of them", e.start, e.npages))
			}
			l[w] &^= m
		}
		// The words in between are zero now; those at the ends may not be.
		lo, hi = lo>>6, hi>>6
		if l[lo] != 0 {
			lo++
		}
		if lo <= hi && l[hi] != 0 {
			hi--
		}
		if lo > hi {
			return
		}
	}
}

// bit returns bit i as a number; bits outside the bitmap, also -1, are 0.
func (b *bitmap) bit(i uint64) uint64 {
	if i >= b.size() {
		return 0
	}
	return b.levels[0][i>>6] >> (i & 63) & 1
}

func (b *bitmap) test(p pgno) bool { return b.bit(uint64(p)) != 0 }

// next returns the smallest set bit >= p.
func (b *bitmap) next(p pgno) (pgno, bool) {
	i := uint64(p)
	for k, l := range b.levels {
		if i>>6 >= uint64(len(l)) {
			return 0, false
		}
		if x := l[i>>6] >> (i & 63); x != 0 {
			i += uint64(bits.TrailingZeros64(x))
			for k--; k >= 0; k-- {
				i = i<<6 + uint64(bits.TrailingZeros64(b.levels[k][i]))
			}
			return pgno(i), true
		}
		i = i>>6 + 1
	}
	return 0, false
}

// prev returns the largest set bit <= p.
func (b *bitmap) prev(p pgno) (pgno, bool) {
	if b.size() == 0 {
		return 0, false
	}
	i := min(uint64(p), b.size()-1)
	for k, l := range b.levels {
		if x := l[i>>6] << (63 - i&63); x != 0 {
			i -= uint64(bits.LeadingZeros64(x))
			for k--; k >= 0; k-- {
				i = i<<6 + 63 - uint64(bits.LeadingZeros64(b.levels[k][i]))
			}
			return pgno(i), true
		}
		if i>>6 == 0 {
			return 0, false
		}
		i = i>>6 - 1
	}
	return 0, false
}

// runLen returns how many bits from p on are set, counting up to limit.
func (b *bitmap) runLen(p pgno, limit uint64) uint64 {
	i, n := uint64(p), uint64(0)
	for n < limit && i < b.size() {
		ones := uint64(bits.TrailingZeros64(^(b.levels[0][i>>6] >> (i & 63))))
		n += ones
		if ones < 64-i&63 {
			break
		}
		i += ones
	}
	return min(n, limit)
}

// runBefore returns how many bits just below p are set.
func (b *bitmap) runBefore(p pgno) uint64 {
	n := uint64(0)
	for i := uint64(p); i > 0 && i <= b.size(); {
		last := i - 1
		ones := uint64(bits.LeadingZeros64(^(b.levels[0][last>>6] << (63 - last&63))))
		n += ones
		if ones < last&63+1 {
			break
		}
		i -= ones
	}
	return n
}

// none reports whether no bit of e is set.
func (b *bitmap) none(e extent) bool {
	p, ok := b.next(e.start)
	return !ok || p >= e.end()
}

// --- the sets

// waitingPages is what is kept of a waiting extent, under its first page.
type waitingPages struct {
	npages   uint64
	a, t     txid
	pin      txid // it is filed under this pin
	unlisted bool // the freelog has it as reusable: see holdBack
}

// pinnedPages is what is filed under one pin. An entry of starts is void where the
// extent is gone, or filed elsewhere since.
type pinnedPages struct {
	starts []pgno
	npages uint64
}

// unfiled stands in for the pin of what a load found: no transaction has this
// number, so the first release looks at all of it.
const unfiled = txid(math.MaxUint64)

// runSearchLimit bounds how many words and runs a search for a run looks at.
const runSearchLimit = 1024

// freelist is the free space of a store as of its newest commit, with what the
// transaction under way has taken out of it.
type freelist struct {
	npages uint64 // high-water mark after the newest commit
	newest txid   // the newest commit applied

	free    bitmap // reusable pages
	starts  bitmap // first pages of the waiting extents
	waiting map[pgno]waitingPages
	nwait   uint64 // pages that wait
	held    map[txid]*pinnedPages
	pins    []txid // ascending: those of the last release, and commits applied since

	hint     pgno // where the next search for a run begins
	lowFirst bool // allocate from the lowest page: the file is to shrink

	chain   freelogChain
	records []freelogRecord // what a load read, for recovery; see allocatedSince
}

// newFreelist returns the free space of a new store of npages pages, all in use,
// that commit t creates.
func newFreelist(npages uint64, t txid) *freelist {
	f := emptyFreelist(npages, t)
	f.chain.tail, _, _ = appendFreelogPiece(nil, math.MaxInt, t, npages, 0, nil)
	f.chain.tailCount = 1
	f.chain.lastTxid = t
	return f
}

func emptyFreelist(npages uint64, t txid) *freelist {
	return &freelist{
		npages:  npages,
		newest:  t,
		waiting: map[pgno]waitingPages{},
		held:    map[txid]*pinnedPages{},
		pins:    []txid{t},
		chain:   freelogChain{snapFirst: -1},
	}
}

func (f *freelist) freePages() uint64    { return f.free.count }
func (f *freelist) waitingPages() uint64 { return f.nwait }

// heldBy returns how many pages are filed under a pin: the largest that keeps them.
func (f *freelist) heldBy(pin txid) uint64 {
	if h := f.held[pin]; h != nil {
		return h.npages
	}
	return 0
}

// freeExtents yields the reusable extents in page order.
func (f *freelist) freeExtents() iter.Seq[extent] {
	return func(yield func(extent) bool) {
		for p, ok := f.free.next(0); ok; {
			e := extent{p, f.free.runLen(p, math.MaxUint64)}
			if !yield(e) {
				return
			}
			p, ok = f.free.next(e.end())
		}
	}
}

// waitingExtents yields the waiting extents in page order.
func (f *freelist) waitingExtents() iter.Seq[waitingExtent] {
	return func(yield func(waitingExtent) bool) {
		for p, ok := f.starts.next(0); ok; p, ok = f.starts.next(p + 1) {
			w := f.waiting[p]
			if !yield(waitingExtent{extent{p, w.npages}, w.a, w.t}) {
				return
			}
		}
	}
}

// waitingAt returns the waiting extent that page p lies in.
func (f *freelist) waitingAt(p pgno) (start pgno, w waitingPages, ok bool) {
	if start, ok = f.starts.prev(p); !ok {
		return 0, w, false
	}
	w = f.waiting[start]
	return start, w, uint64(p-start) < w.npages
}

// untouched reports whether no page of e is reusable or waits.
func (f *freelist) untouched(e extent) bool {
	if e.npages == 0 {
		return true
	}
	_, _, inside := f.waitingAt(e.start)
	return !inside && f.free.none(e) && f.starts.none(e)
}

// covered reports whether every page of e is reusable or waits.
func (f *freelist) covered(e extent) bool {
	for p := e.start; p < e.end(); {
		if n := f.free.runLen(p, uint64(e.end()-p)); n > 0 {
			p += pgno(n)
			continue
		}
		start, w, ok := f.waitingAt(p)
		if !ok {
			return false
		}
		p = start + pgno(w.npages)
	}
	return true
}

// take removes the pages of e, which are covered, from the sets.
func (f *freelist) take(e extent) {
	for p := e.start; p < e.end(); {
		if n := f.free.runLen(p, uint64(e.end()-p)); n > 0 {
			f.free.clearRange(extent{p, n})
			p += pgno(n)
			continue
		}
		start, w, ok := f.waitingAt(p)
		if !ok {
			panic(fmt.Sprintf("folio: page %d is taken but was not free", p))
		}
		whole := extent{start, w.npages}
		f.dropWaiting(start, w)
		f.addWaiting(whole.clip(0, e.start), w)
		f.addWaiting(whole.clip(e.end(), whole.end()), w)
		p = whole.end()
	}
}

// reserve takes e out of the sets, also where it waits, for recovery, which finds
// in the redo log what is in use. It reports whether all of e was there to take;
// if not, nothing is taken. The next commit lists e as allocated.
func (f *freelist) reserve(e extent) bool {
	if !f.covered(e) {
		return false
	}
	f.take(e)
	return true
}

// holdBack has e, which was reserved, wait as if commit t, which is about to be planned,
// had let go of it. The freelog has it as reusable, in its records and in its pieces: once
// t is loaded from the file it is.
func (f *freelist) holdBack(e extent, t txid) {
	if pin, blocked := f.blocker(0, t); blocked && !seeded.Has(seeded.ReplayedRunsUnpinned) {
		f.addWaiting(e, waitingPages{t: t, pin: pin, unlisted: true})
	} else {
		f.giveBack(e)
	}
}

// addWaiting has e wait as w says.
func (f *freelist) addWaiting(e extent, w waitingPages) {
	if e.npages == 0 {
		return
	}
	f.starts.setRange(extent{e.start, 1})
	w.npages = e.npages
	f.waiting[e.start] = w
	f.nwait += e.npages
	f.hold(w.pin, e)
}

func (f *freelist) dropWaiting(start pgno, w waitingPages) {
	f.starts.clearRange(extent{start, 1})
	delete(f.waiting, start)
	f.nwait -= w.npages
	if h := f.held[w.pin]; h != nil {
		if h.npages -= w.npages; h.npages == 0 {
			delete(f.held, w.pin)
		}
	}
}

// hold files e under a pin.
func (f *freelist) hold(pin txid, e extent) {
	h := f.held[pin]
	if h == nil {
		h = &pinnedPages{}
		f.held[pin] = h
	}
	h.starts = append(h.starts, e.start)
	h.npages += e.npages
}

// blocker returns the largest pin in [a, t).
func (f *freelist) blocker(a, t txid) (txid, bool) { return largestPin(f.pins, a, t) }

// largestPin returns the largest of pins, which ascend, in [a, t).
func largestPin(pins []txid, a, t txid) (txid, bool) {
	i, _ := slices.BinarySearch(pins, t)
	if i == 0 || pins[i-1] < a {
		return 0, false
	}
	return pins[i-1], true
}

// release takes the pins that exist now, ascending: readers, every commit from the
// published to the newest, the durable one and a sync's target. What no pin holds
// any more becomes reusable. Only what was filed under a pin that is gone is looked
// at: it moves to a lower pin or out, so each pin's end is paid for once.
func (f *freelist) release(pins []txid) {
	if !slices.IsSorted(pins) {
		panic("folio: pins are not in order")
	}
	if len(pins) == 0 || pins[len(pins)-1] < f.newest {
		panic("folio: the newest commit is not among the pins")
	}
	f.pins = append(f.pins[:0], pins...)
	for pin, h := range f.held {
		if _, still := slices.BinarySearch(pins, pin); still {
			continue
		}
		delete(f.held, pin)
		for _, start := range h.starts {
			if w, ok := f.waiting[start]; ok && w.pin == pin {
				f.refile(start, w)
			}
		}
	}
}

// refile looks again at a waiting extent whose pin is gone.
func (f *freelist) refile(start pgno, w waitingPages) {
	e := extent{start, w.npages}
	pin, blocked := f.blocker(w.a, w.t)
	if blocked {
		w.pin = pin
		f.waiting[start] = w
		f.hold(pin, e)
		return
	}
	f.dropWaiting(start, w)
	f.free.setRange(e)
}

// --- allocation

// allocateRun takes n consecutive reusable pages that end at or below limit (0: no
// limit). The search goes on from where the last one ended, wraps once and is
// bounded: it may miss a run that exists.
func (f *freelist) allocateRun(n uint64, limit pgno) (pgno, bool) {
	if n == 0 {
		panic("folio: a run of no pages is asked for")
	}
	if limit == 0 {
		limit = pgno(f.free.size())
	}
	if n > f.free.count || n > uint64(limit) {
		return 0, false
	}
	budget := runSearchLimit
	from := f.hint
	if f.lowFirst {
		from = 0
	}
	p, ok := f.findRun(n, from, limit, &budget)
	if !ok && from > 0 {
		// A run may begin below the hint and end above it.
		p, ok = f.findRun(n, 0, min(limit, from+pgno(n)-1), &budget)
	}
	if !ok {
		return 0, false
	}
	f.takeRun(extent{p, n})
	return p, true
}

// findRun looks for n set bits in [from, limit).
func (f *freelist) findRun(n uint64, from, limit pgno, budget *int) (pgno, bool) {
	for p, ok := f.free.next(from); ok && p < limit && uint64(limit-p) >= n && *budget > 0; {
		got := f.free.runLen(p, n)
		if got == n {
			return p, true
		}
		*budget -= 1 + int(got/64)
		p, ok = f.free.next(p + pgno(got))
	}
	return 0, false
}

func (f *freelist) takeRun(e extent) {
	f.free.clearRange(e)
	if !f.lowFirst {
		f.hint = e.end()
	}
}

// allocate takes up to n reusable pages in few runs near each other: one run where
// the search finds one, else the runs that follow the hint. Fewer than n pages
// come only where no more are reusable; the caller then grows the file.
func (f *freelist) allocate(n uint64) []extent {
	if n == 0 {
		return nil
	}
	if p, ok := f.allocateRun(n, 0); ok {
		return []extent{{p, n}}
	}
	var got []extent
	from := f.hint
	if f.lowFirst {
		from = 0
	}
	for n > 0 {
		p, ok := f.free.next(from)
		if !ok && from > 0 {
			p, ok = f.free.next(0) // what lies above is taken by now
		}
		if !ok {
			break
		}
		e := extent{p, f.free.runLen(p, n)}
		f.takeRun(e)
		got = append(got, e)
		from, n = e.end(), n-e.npages
	}
	return got
}

// giveBack undoes an allocation of the transaction under way, or a truncate of it.
// Its pages are reusable at once: nobody has seen them.
func (f *freelist) giveBack(e extent) { f.free.setRange(e) }

// tail returns how many reusable pages end at the high-water mark npages.
func (f *freelist) tail(npages pgno) uint64 { return f.free.runBefore(npages) }

// truncate takes the reusable pages from npages on out of the set. The commit that
// follows has npages as its high-water mark; if it fails, the caller gives them back.
func (f *freelist) truncate(npages pgno) {
	for p, ok := f.free.next(npages); ok; p, ok = f.free.next(p) {
		f.free.clearRange(extent{p, f.free.runLen(p, math.MaxUint64)})
	}
}

// --- freelog pages and entries: the format

// A freelog page, after the page header (kind freelog; level, tree, flags, prefix
// and dead 0; count the number of entries; lower the end of the entries; upper the
// page size; pages 1):
//
//	field      meaning
//	prev u64   number of the freelog page before this one, 0 if it is the first;
//	           it may be free again where that page is older than the meta's `oldest`
//	prevSum u64  its sum, 0 if it is the first
//	entries    as below, up to lower; the rest is zero
const (
	offFreelogPrev    = headerSize         // u64
	offFreelogPrevSum = offFreelogPrev + 8 // u64
	freelogPageHeader = offFreelogPrevSum + 8
)

// Entries. Numbers are uvarints of minimal length. An extent begins with its
// distance from the end of the extent before it in the same list, the first one
// from 0, or from lo in a piece.
//
//	record: kind=1, txid, npages, n, n freed extents, m, m allocated extents
//	  freed:     distance, pages<<1 | known, and if known is set: txid - A (> 0)
//	  allocated: distance, pages
//	piece: kind=2, txid, npages, lo, hi - lo (0: everything from lo on), n, n extents
//	  extent:    distance, pages<<2 | state, and if it waits (state 1 or 2): txid - T,
//	             and in state 2 also T - A (> 0); in state 1, A is unknown
const (
	freelogRecordKind = 1
	freelogPieceKind  = 2

	pieceFree     = 0
	pieceWaiting  = 1
	pieceWaitingA = 2

	// freelogPieceHeader is the most that a piece takes before its extents.
	freelogPieceHeader = 1 + 5*binary.MaxVarintLen64
	// freelogRecordHeader is the most that a record takes beside its extents.
	freelogRecordHeader = 1 + 4*binary.MaxVarintLen64

	allAbove = pgno(math.MaxUint64) // hi of a last piece
)

// freelogCapacity is what the entries of a freelog page may take.
func freelogCapacity(psize int) int { return psize - freelogPageHeader }

// freelogRecord is a record entry. Its lists are ascending.
type freelogRecord struct {
	txid      txid
	npages    uint64
	freed     []freedExtent
	allocated []extent
}

func uvarintSize(x uint64) int { return (bits.Len64(x|1) + 6) / 7 }

func (r *freelogRecord) freedFields(i int) (distance, pages, age uint64) {
	e := r.freed[i]
	distance = uint64(e.start)
	if i > 0 {
		distance = uint64(e.start - r.freed[i-1].end())
	}
	if e.A == 0 {
		return distance, e.npages << 1, 0
	}
	return distance, e.npages<<1 | 1, uint64(r.txid - e.A)
}

func (r *freelogRecord) freedSize(i int) int {
	distance, pages, age := r.freedFields(i)
	n := uvarintSize(distance) + uvarintSize(pages)
	if age > 0 {
		n += uvarintSize(age)
	}
	return n
}

func (r *freelogRecord) allocatedDistance(i int) uint64 {
	if i == 0 {
		return uint64(r.allocated[0].start)
	}
	return uint64(r.allocated[i].start - r.allocated[i-1].end())
}

func (r *freelogRecord) allocatedSize(i int) int {
	return uvarintSize(r.allocatedDistance(i)) + uvarintSize(r.allocated[i].npages)
}

// size returns the bytes that the record takes as one entry.
func (r *freelogRecord) size() int {
	n := 1 + uvarintSize(uint64(r.txid)) + uvarintSize(r.npages) +
		uvarintSize(uint64(len(r.freed))) + uvarintSize(uint64(len(r.allocated)))
	for i := range r.freed {
		n += r.freedSize(i)
	}
	for i := range r.allocated {
		n += r.allocatedSize(i)
	}
	return n
}

// cut splits the record in a first part of at most room bytes and the rest. The
// first part is empty (ok false) where room is too small to be worth it.
func (r *freelogRecord) cut(room int) (first, rest freelogRecord, ok bool) {
	room -= freelogRecordHeader
	if room < 4*binary.MaxVarintLen64 {
		return first, *r, false
	}
	nf, na := 0, 0
	for nf < len(r.freed) && r.freedSize(nf) <= room {
		room -= r.freedSize(nf)
		nf++
	}
	for nf == len(r.freed) && na < len(r.allocated) && r.allocatedSize(na) <= room {
		room -= r.allocatedSize(na)
		na++
	}
	first, rest = *r, *r
	first.freed, rest.freed = r.freed[:nf], r.freed[nf:]
	first.allocated, rest.allocated = r.allocated[:na], r.allocated[na:]
	return first, rest, true
}

func (r *freelogRecord) appendTo(dst []byte) []byte {
	dst = append(dst, freelogRecordKind)
	dst = binary.AppendUvarint(dst, uint64(r.txid))
	dst = binary.AppendUvarint(dst, r.npages)
	dst = binary.AppendUvarint(dst, uint64(len(r.freed)))
	for i := range r.freed {
		distance, pages, age := r.freedFields(i)
		dst = binary.AppendUvarint(dst, distance)
		dst = binary.AppendUvarint(dst, pages)
		if age > 0 {
			dst = binary.AppendUvarint(dst, age)
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(r.allocated)))
	for i := range r.allocated {
		dst = binary.AppendUvarint(dst, r.allocatedDistance(i))
		dst = binary.AppendUvarint(dst, r.allocated[i].npages)
	}
	return dst
}

// appendFreelogPiece appends a piece that begins at lo and holds as many of items
// as fit in room bytes. items yields, in page order, all that is reusable or waits
// from lo on; nil is nothing. It returns where the piece ends and whether that is
// everything. How many items fit does not depend on npages.
func appendFreelogPiece(dst []byte, room int, t txid, npages uint64, lo pgno, items iter.Seq[waitingExtent]) (_ []byte, hi pgno, last bool) {
	var body []byte
	n, end := uint64(0), lo
	last = true
	if items != nil {
		for e := range items {
			before := len(body)
			body = appendPieceExtent(body, t, end, e)
			if freelogPieceHeader+len(body) > room {
				body, last = body[:before], false
				break
			}
			n, end = n+1, e.end()
		}
	}
	length := uint64(end - lo)
	if last {
		length, end = 0, allAbove
	}
	dst = append(dst, freelogPieceKind)
	for _, x := range [...]uint64{uint64(t), npages, uint64(lo), length, n} {
		dst = binary.AppendUvarint(dst, x)
	}
	return append(dst, body...), end, last
}

func appendPieceExtent(dst []byte, t txid, after pgno, e waitingExtent) []byte {
	dst = binary.AppendUvarint(dst, uint64(e.start-after))
	switch {
	case e.T == 0:
		return binary.AppendUvarint(dst, e.npages<<2|pieceFree)
	case e.A == 0:
		dst = binary.AppendUvarint(dst, e.npages<<2|pieceWaiting)
		return binary.AppendUvarint(dst, uint64(t-e.T))
	}
	dst = binary.AppendUvarint(dst, e.npages<<2|pieceWaitingA)
	dst = binary.AppendUvarint(dst, uint64(t-e.T))
	return binary.AppendUvarint(dst, uint64(e.T-e.A))
}

// --- the chain, and planning a commit

// freelogState is what the meta stores.
type freelogState struct {
	head     pgno   // newest freelog page, 0 none
	headSum  uint64 // its sum
	oldest   pgno   // oldest page still owned; walking back ends there
	start    pgno   // interpretation begins at this page; 0: at the tail
	chainLen uint32 // pages from head back to oldest
	tail     []byte // the newest entries; no byte of it changes, so that many may have it
}

// freelogPage is one page of the chain.
type freelogPage struct {
	pgno    pgno
	sum     uint64
	txid    txid // the commit that wrote it
	maxTxid txid // newest commit with a record in it or before it
}

// freelogChain is the freelog as of one commit. It is replaced, never changed.
type freelogChain struct {
	pages     []freelogPage // oldest first
	start     int           // index of the page where a reader begins
	tail      []byte
	tailCount int
	lastTxid  txid // newest commit with an entry

	// The snapshot: none where snapFirst is -1; being written; or, where snapDone is
	// set, complete, and start waits until what it supersedes is durable.
	snapFirst int  // index of the page that holds its first piece
	snapNext  pgno // where its next piece begins
	snapDone  bool
}

const (
	supersededPerCommit = 32 // pages before start that a small commit frees at most
	freeExtentEstimate  = 4  // bytes of a reusable extent in a snapshot
	waitExtentEstimate  = 10 // bytes of a waiting one
)

// commitPlan is what plan has to know of a commit.
type commitPlan struct {
	txid      txid
	durable   txid // the known-durable txid that this commit's meta will carry
	freed     []freedExtent
	allocated []extent // so far; alloc adds to it
	// alloc returns the number of a page for the freelog: taken from the reusable
	// ones, or grown. It may fail; plan then fails with its error.
	alloc   func() (pgno, error)
	npages  func() uint64 // the high-water mark, after all calls of alloc
	tailCap int           // bytes that the meta has for the tail
	psize   int
}

// freelogCommit is a planned commit: what to write, and what apply then makes current.
type freelogCommit struct {
	pages []page       // sealed, to be written at their pgno
	state freelogState // for the meta

	txid   txid
	npages uint64
	freed  []freedExtent
	chain  freelogChain
}

// freelogBuf is the entries of one freelog page to be.
type freelogBuf struct {
	entries []byte
	count   int
	maxTxid txid
}

// plan works out the freelog of one commit: the entries go to the tail, or to new
// freelog pages, which c.alloc is called for. It changes nothing. Whether it fails
// or the commit does later, the caller gives back what it and alloc took. It fails
// with alloc's error, or with ErrCorrupt where a page is freed that can't have been
// in use: then the tree or the freelog that was loaded is damaged.
func (f *freelist) plan(c commitPlan) (freelogCommit, error) {
	if c.txid <= f.newest {
		panic(fmt.Sprintf("folio: commit %d planned after commit %d", c.txid, f.newest))
	}
	p := freelogPlanner{f: f, c: c, chain: f.chain, capacity: freelogCapacity(c.psize)}
	p.chain.moveStart(c.durable)
	p.rec.txid = c.txid
	pinRuns(c.freed, c.durable)
	freed, err := f.normalize(c.txid, append(slices.Clone(c.freed), p.dropSuperseded()...))
	if err != nil {
		return freelogCommit{}, err
	}
	p.rec.freed = freed
	p.snapping = p.wantsSnapshot()
	if err := p.settle(); err != nil {
		return freelogCommit{}, err
	}
	if err := f.checkFreed(&p.rec); err != nil {
		return freelogCommit{}, err
	}
	f.checkAllocated(&p.rec)
	if p.snapping {
		p.addPieces()
	}
	pages := p.seal()
	return freelogCommit{
		pages: pages, state: p.chain.state(),
		txid: c.txid, npages: p.rec.npages, freed: p.rec.freed, chain: p.chain,
	}, nil
}

// apply makes a planned commit current, once it is written: what it freed waits.
func (f *freelist) apply(fc freelogCommit) {
	f.chain = fc.chain
	f.npages = fc.npages
	f.newest = fc.txid
	for _, e := range fc.freed {
		if pin, blocked := f.blocker(e.A, fc.txid); blocked {
			f.addWaiting(e.extent, waitingPages{a: e.A, t: fc.txid, pin: pin})
		} else {
			f.free.setRange(e.extent)
		}
	}
	// It is the newest commit and so a pin, for the commits before the next release.
	if n := len(f.pins); n == 0 || f.pins[n-1] < fc.txid {
		f.pins = append(f.pins, fc.txid)
	}
}

// abandon forgets a planned commit that failed. The plan changed nothing, so there
// is nothing to do but what the caller does: give back its allocations, those of
// alloc among them, and what it truncated. Pages that it grew are given back if the
// high-water mark stays, or dropped if it goes back.
func (f *freelist) abandon(fc freelogCommit) {
	if fc.txid <= f.newest && fc.txid != 0 {
		panic(fmt.Sprintf("folio: commit %d is abandoned after it was applied", fc.txid))
	}
}

// state returns what the meta of the newest commit stores.
func (f *freelist) state() freelogState { return f.chain.state() }

// chainPages returns the freelog pages that the store owns, oldest first.
func (f *freelist) chainPages() []pgno {
	ns := make([]pgno, len(f.chain.pages))
	for i, p := range f.chain.pages {
		ns[i] = p.pgno
	}
	return ns
}

// pinRuns makes runs wait until the durable commit has passed the one that frees them:
// a record that names them may have to be replayed until then, on a commit that was
// durable before they were written.
func pinRuns(freed []freedExtent, durable txid) {
	if seeded.Has(seeded.RunsUnpinned) {
		return
	}
	for i := range freed {
		if freed[i].run {
			freed[i].A = min(freed[i].A, durable)
		}
	}
}

// normalize sorts and joins what commit t frees. An A that no pin is below stands
// for the same as an unknown one, and is coded shorter.
func (f *freelist) normalize(t txid, freed []freedExtent) ([]freedExtent, error) {
	freed = slices.DeleteFunc(freed, func(e freedExtent) bool { return e.npages == 0 })
	for i, e := range freed {
		if e.A >= t {
			return nil, corrupt(e.start, "page of commit %d is freed by commit %d", e.A, t)
		}
		if e.A <= f.pins[0] {
			freed[i].A = 0
		}
	}
	slices.SortFunc(freed, func(a, b freedExtent) int { return comparePgno(a.start, b.start) })
	out := freed[:0]
	for _, e := range freed {
		n := len(out)
		if n > 0 && out[n-1].end() > e.start {
			return nil, corrupt(e.start, "page is freed twice by commit %d", t)
		}
		if n > 0 && out[n-1].end() == e.start && out[n-1].A == e.A {
			out[n-1].npages += e.npages
			continue
		}
		out = append(out, e)
	}
	return out, nil
}

func comparePgno(a, b pgno) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// joinExtents returns the extents sorted, with neighbours joined.
func joinExtents(t txid, list []extent) []extent {
	list = slices.DeleteFunc(list, func(e extent) bool { return e.npages == 0 })
	slices.SortFunc(list, func(a, b extent) int { return comparePgno(a.start, b.start) })
	out := list[:0]
	for _, e := range list {
		n := len(out)
		if n > 0 && out[n-1].end() > e.start {
			panic(fmt.Sprintf("folio: commit %d allocates page %d twice", t, e.start))
		}
		if n > 0 && out[n-1].end() == e.start {
			out[n-1].npages += e.npages
			continue
		}
		out = append(out, e)
	}
	return out
}

// checkFreed checks what every reader of the record will check. A damaged tree or
// freelog can bring a page here that is free already, so it is no bug by itself.
func (f *freelist) checkFreed(r *freelogRecord) error {
	k := 0
	for _, e := range r.freed {
		if e.start < numMetas || e.end() < e.start || e.end() > pgno(r.npages) {
			return corrupt(e.start, "%d pages are freed, of a store of %d", e.npages, r.npages)
		}
		for k < len(r.allocated) && r.allocated[k].end() <= e.start {
			k++
		}
		if !f.untouched(e.extent) || k < len(r.allocated) && r.allocated[k].start < e.end() {
			return corrupt(e.start, "%d pages are freed by commit %d, some of which are free", e.npages, r.txid)
		}
	}
	return nil
}

// checkAllocated panics where a record would lose a page or allocate one that stays
// free: better no commit than one that a reader refuses.
func (f *freelist) checkAllocated(r *freelogRecord) {
	end := pgno(r.npages)
	grown := pgno(f.npages) // pages below are accounted for
	for _, e := range r.allocated {
		if e.start < numMetas || e.end() > end || !f.untouched(e) {
			panic(fmt.Sprintf("folio: commit %d allocates pages %d+%d, which are free or none of the store's", r.txid, e.start, e.npages))
		}
		f.checkGrown(r.txid, grown, e.start)
		grown = max(grown, e.end())
	}
	f.checkGrown(r.txid, grown, end)
	if !f.untouched(extent{end, uint64(allAbove - end)}) {
		panic(fmt.Sprintf("folio: commit %d keeps free pages above its high-water mark %d", r.txid, end))
	}
}

// checkGrown panics where the file grew by pages that are neither allocated nor free.
func (f *freelist) checkGrown(t txid, from, to pgno) {
	if from < to && !f.covered(extent{from, uint64(to - from)}) {
		panic(fmt.Sprintf("folio: commit %d loses pages between %d and %d", t, from, to))
	}
}

// moveStart moves start to a complete snapshot if every record before it is durable.
func (ch *freelogChain) moveStart(durable txid) {
	if !ch.snapDone {
		return
	}
	if ch.snapFirst > ch.start && ch.pages[ch.snapFirst-1].maxTxid > durable {
		return
	}
	ch.start = ch.snapFirst
	ch.snapFirst, ch.snapNext, ch.snapDone = -1, 0, false
}

// dropFront removes the n oldest pages, which all are superseded.
func (ch *freelogChain) dropFront(n int) {
	ch.pages = ch.pages[n:]
	ch.start -= n
	if ch.snapFirst >= 0 {
		ch.snapFirst -= n
	}
}

func (ch *freelogChain) state() freelogState {
	st := freelogState{tail: ch.tail, chainLen: uint32(len(ch.pages))}
	if n := len(ch.pages); n > 0 {
		st.head, st.headSum = ch.pages[n-1].pgno, ch.pages[n-1].sum
		st.oldest = ch.pages[0].pgno
		st.start = ch.pages[ch.start].pgno
	}
	return st
}

// freelogPlanner is the state of one call of plan.
type freelogPlanner struct {
	f        *freelist
	c        commitPlan
	rec      freelogRecord
	chain    freelogChain // becomes the chain after the commit
	capacity int          // bytes of entries in a page
	snapping bool         // pieces are to be written

	own  []pgno       // freelog pages had from alloc
	bufs []freelogBuf // what goes there
}

// recordPages estimates how many pages the record fills: what a commit does for
// the upkeep of the freelog is in proportion to what it adds.
func (p *freelogPlanner) recordPages() int {
	return (len(p.c.freed) + len(p.c.allocated)) * freeExtentEstimate / p.capacity
}

// dropSuperseded takes pages off the chain's old end and returns them as freed.
func (p *freelogPlanner) dropSuperseded() []freedExtent {
	n := min(p.chain.start, supersededPerCommit+2*p.recordPages())
	freed := make([]freedExtent, n)
	for i, fp := range p.chain.pages[:n] {
		freed[i] = freedExtent{extent: extent{fp.pgno, 1}, A: fp.txid}
	}
	p.chain.dropFront(n)
	return freed
}

// wantsSnapshot reports whether this commit writes a piece of a snapshot: one is
// under way, or the chain is more than twice the size of a fresh one, or in the way.
func (p *freelogPlanner) wantsSnapshot() bool {
	if p.chain.snapDone {
		return false
	}
	if p.chain.snapFirst >= 0 {
		return true
	}
	size := p.f.free.runs*freeExtentEstimate + p.f.starts.count*waitExtentEstimate
	fresh := size/uint64(p.capacity) + 1
	return uint64(len(p.chain.pages)-p.chain.start) > 2*fresh+4 || p.blocksShrinking()
}

// blocksShrinking reports whether a page of the chain lies in the upper half of a
// file that is to shrink: a snapshot moves the freelog to where there is room.
func (p *freelogPlanner) blocksShrinking() bool {
	if !p.f.lowFirst {
		return false
	}
	for _, fp := range p.chain.pages[p.chain.start:] {
		if uint64(fp.pgno) > p.f.npages/2 {
			return true
		}
	}
	return false
}

// settle lays out the entries and allocates pages for them, until the record that
// lists these pages fits in them. A page more than is needed in the end stays
// without entries: giving it back might start all over again.
func (p *freelogPlanner) settle() error {
	given := joinExtents(p.c.txid, slices.Clone(p.c.allocated))
	for {
		list := slices.Clone(given)
		for _, n := range p.own {
			list = append(list, extent{n, 1})
		}
		p.rec.allocated = joinExtents(p.c.txid, list)
		p.rec.npages = p.c.npages()
		need := p.layout()
		if need <= len(p.own) {
			return nil
		}
		for len(p.own) < need {
			n, err := p.c.alloc()
			if err != nil {
				return err
			}
			p.own = append(p.own, n)
		}
	}
}

// layout puts the old tail and the record where they go, and returns how many
// pages that takes, those for pieces included.
func (p *freelogPlanner) layout() int {
	old := &p.f.chain
	p.bufs = nil
	p.chain.tail, p.chain.tailCount = nil, 0
	r := p.rec
	same := len(r.freed) == 0 && len(r.allocated) == 0 && r.npages == p.f.npages
	if same && !p.snapping {
		p.chain.tail, p.chain.tailCount = old.tail, old.tailCount
		return 0
	}
	p.chain.lastTxid = r.txid
	size := r.size()
	if !p.snapping && len(p.own) == 0 && len(old.tail)+size <= p.c.tailCap {
		p.chain.tail = r.appendTo(append(make([]byte, 0, len(old.tail)+size), old.tail...))
		p.chain.tailCount = old.tailCount + 1
		return 0
	}
	if len(old.tail) > p.capacity {
		panic("folio: the freelog's tail is larger than a page")
	}
	p.bufs = []freelogBuf{{slices.Clone(old.tail), old.tailCount, old.lastTxid}}
	if !p.snapping && len(old.tail) > 0 && size <= p.c.tailCap {
		p.chain.tail, p.chain.tailCount = r.appendTo(nil), 1
		return 1
	}
	p.spread(r)
	if !p.snapping {
		return len(p.bufs)
	}
	return len(p.bufs) + p.piecePages()
}

// spread appends the record to the pages, in as many parts as it takes.
func (p *freelogPlanner) spread(r freelogRecord) {
	for {
		b := &p.bufs[len(p.bufs)-1]
		room := p.capacity - len(b.entries)
		first, rest, ok := r, freelogRecord{}, true
		if r.size() > room {
			first, rest, ok = r.cut(room)
		}
		if ok {
			b.entries = first.appendTo(b.entries)
			b.count++
			b.maxTxid = r.txid
			r = rest
			if len(r.freed)+len(r.allocated) == 0 {
				return
			}
		}
		p.bufs = append(p.bufs, freelogBuf{maxTxid: b.maxTxid})
	}
}

// pieceRoom reports whether a piece is worth it in the last page laid out.
func (p *freelogPlanner) pieceRoom() bool {
	return p.capacity-len(p.bufs[len(p.bufs)-1].entries) >= p.capacity/4
}

// piecePages returns how many more pages to take for pieces: for a small commit
// none if there is room, else one; a large one writes as much snapshot as record.
func (p *freelogPlanner) piecePages() int {
	n := 0
	if !p.pieceRoom() {
		n++
	}
	if len(p.bufs) > 2 {
		n += len(p.bufs) - 1
	}
	return n
}

// addPieces fills the pages that are left with pieces of the snapshot.
func (p *freelogPlanner) addPieces() {
	if !p.pieceRoom() {
		p.bufs = append(p.bufs, freelogBuf{maxTxid: p.rec.txid})
	}
	for !p.chain.snapDone {
		i := len(p.bufs) - 1
		b := &p.bufs[i]
		if p.chain.snapFirst < 0 {
			p.chain.snapFirst, p.chain.snapNext = len(p.chain.pages)+i, 0
		}
		lo := p.chain.snapNext
		items := p.f.items(lo, p.rec.txid, p.rec.freed)
		b.entries, p.chain.snapNext, p.chain.snapDone = appendFreelogPiece(
			b.entries, p.capacity-len(b.entries), p.rec.txid, p.rec.npages, lo, items)
		b.count++
		if p.chain.snapNext == lo {
			panic("folio: a piece of the snapshot has no room for one extent")
		}
		if len(p.bufs) >= len(p.own) {
			return
		}
		p.bufs = append(p.bufs, freelogBuf{maxTxid: p.rec.txid})
	}
}

// items yields, in page order from lo on, what is reusable or waits once commit t
// has freed `freed`.
func (f *freelist) items(lo pgno, t txid, freed []freedExtent) iter.Seq[waitingExtent] {
	return func(yield func(waitingExtent) bool) {
		fp, fok := f.free.next(lo)
		wp, wok := f.starts.next(lo)
		if s, _, ok := f.waitingAt(lo); ok {
			wp, wok = s, true
		}
		i, _ := slices.BinarySearchFunc(freed, lo, func(e freedExtent, lo pgno) int { return comparePgno(e.end(), lo+1) })
		for fok || wok || i < len(freed) {
			var e waitingExtent
			switch {
			case fok && (!wok || fp < wp) && (i == len(freed) || fp < freed[i].start):
				e = waitingExtent{extent: extent{fp, f.free.runLen(fp, math.MaxUint64)}}
				fp, fok = f.free.next(e.end())
			case wok && (i == len(freed) || wp < freed[i].start):
				w := f.waiting[wp]
				e = waitingExtent{extent: extent{wp, w.npages}}
				if !w.unlisted {
					e.A, e.T = w.a, w.t
				}
				wp, wok = f.starts.next(e.end())
			default:
				e = waitingExtent{freed[i].extent, freed[i].A, t}
				i++
			}
			e.extent = e.clip(lo, allAbove)
			if !yield(e) {
				return
			}
		}
	}
}

// seal makes pages of what was laid out and appends them to the chain.
func (p *freelogPlanner) seal() []page {
	for len(p.bufs) < len(p.own) {
		p.bufs = append(p.bufs, freelogBuf{maxTxid: p.chain.lastTxid})
	}
	if len(p.bufs) > len(p.own) {
		panic("folio: more freelog entries than pages for them")
	}
	pages := make([]page, len(p.own))
	for i, n := range p.own {
		var prev freelogPage
		if k := len(p.chain.pages); k > 0 {
			prev = p.chain.pages[k-1]
		}
		pages[i] = newFreelogPage(p.c.psize, prev, p.bufs[i])
		sum := pages[i].seal(n, p.c.txid)
		p.chain.pages = append(p.chain.pages, freelogPage{n, sum, p.c.txid, p.bufs[i].maxTxid})
	}
	return pages
}

// newFreelogPage returns a page that holds b and refers to prev.
func newFreelogPage(psize int, prev freelogPage, b freelogBuf) page {
	pg := make(page, psize)
	pg.init(kindFreelog, 0, 0)
	binary.LittleEndian.PutUint64(pg[offFreelogPrev:], uint64(prev.pgno))
	binary.LittleEndian.PutUint64(pg[offFreelogPrevSum:], prev.sum)
	copy(pg[freelogPageHeader:], b.entries)
	pg.setCount(b.count)
	pg.setLower(freelogPageHeader + len(b.entries))
	return pg
}

// buildFreelog returns a fresh freelog for a store of npages pages in which just
// the extents of free, ascending, are reusable. Where the tail does not hold it,
// pages come from alloc, which may grow the store; the high-water mark that the meta
// must then have is returned.
func buildFreelog(free []extent, npages uint64, t txid, psize, tailCap int, alloc func() pgno) ([]page, freelogState, uint64) {
	f := emptyFreelist(npages, t)
	for _, e := range free {
		f.free.setRange(e)
	}
	p := freelogPlanner{f: f, chain: f.chain, capacity: freelogCapacity(psize)}
	p.c = commitPlan{txid: t, psize: psize}
	tail, _, last := appendFreelogPiece(nil, tailCap, t, npages, 0, f.items(0, t, nil))
	if last {
		return nil, freelogState{tail: tail}, npages
	}
	for lo := pgno(0); lo != allAbove; {
		_, lo, _ = appendFreelogPiece(nil, p.capacity, t, npages, lo, f.items(lo, t, nil))
		n := alloc()
		if f.free.test(n) {
			panic(fmt.Sprintf("folio: freelog page %d is among the free pages", n))
		}
		p.own = append(p.own, n)
		npages = max(npages, uint64(n)+1)
	}
	p.rec = freelogRecord{txid: t, npages: npages}
	p.bufs = []freelogBuf{{maxTxid: t}}
	p.addPieces()
	pages := p.seal()
	return pages, p.chain.state(), npages
}

// --- loading

// freelogCursor reads numbers from entries. After the first that is bad, it is bad.
type freelogCursor struct {
	b   []byte
	bad bool
}

func (c *freelogCursor) uvarint() uint64 {
	x, n := binary.Uvarint(c.b)
	if n <= 0 || n > 1 && c.b[n-1] == 0 {
		c.bad, c.b = true, nil
		return 0
	}
	c.b = c.b[n:]
	return x
}

// extent reads an extent that begins no sooner than after and ends at or below
// end; the low bits of its length are flags.
func (c *freelogCursor) extent(after, end pgno, flagBits int) (e extent, flags uint64) {
	distance, length := c.uvarint(), c.uvarint()
	flags = length & (1<<flagBits - 1)
	length >>= flagBits
	if c.bad || length == 0 || distance > uint64(end-after) || length > uint64(end-after)-distance {
		c.bad = true
		return extent{}, 0
	}
	e = extent{after + pgno(distance), length}
	c.bad = e.start < numMetas
	return e, flags
}

// freelogReader replays entries into a freelist.
type freelogReader struct {
	f      *freelist
	page   pgno // where the entries are: a freelog page, or the meta page
	index  int  // its index in the chain; -1 for the tail
	newest txid
	limit  pgno // the store's page count: pages above are gone in the end, and not tracked

	nothingWaits bool // what waits is reusable: nothing but the newest commit is a pin
	since        txid // records of commits above it are kept

	known  pgno   // everything below is known
	began  bool   // an entry was read
	txid   txid   // of the last entry
	npages uint64 // high-water mark after it

	// Room for what an entry lists: there may be hundreds of thousands of extents in all.
	freed     []freedExtent
	allocated []extent
	items     []waitingExtent
}

// loadFreelist reads the freelog of the meta in page metaPage, of a store of npages
// pages whose newest commit it is. read returns a freelog page whose sum it has
// checked. All that waits is unfiled: release comes next.
func loadFreelist(st freelogState, metaPage pgno, npages uint64, newest txid, psize int, read func(n pgno, sum uint64) (page, error)) (*freelist, error) {
	r := freelogReader{}
	return r.load(st, metaPage, npages, newest, psize, read)
}

// loadReusable is loadFreelist for who is alone with the store: no pin but the newest
// commit keeps anything from being reused, so nothing waits. Of the records only those of
// commits above since are kept. It takes a fraction of the memory.
func loadReusable(st freelogState, metaPage pgno, npages uint64, newest, since txid, psize int, read func(n pgno, sum uint64) (page, error)) (*freelist, error) {
	r := freelogReader{nothingWaits: true, since: since}
	return r.load(st, metaPage, npages, newest, psize, read)
}

func (r *freelogReader) load(st freelogState, metaPage pgno, npages uint64, newest txid, psize int, read func(n pgno, sum uint64) (page, error)) (*freelist, error) {
	if npages < numMetas {
		return nil, corrupt(metaPage, "page count %d", npages)
	}
	f := emptyFreelist(npages, newest)
	r.f, r.newest, r.limit = f, newest, pgno(npages)
	f.free.grow(npages)
	pages, err := r.walk(st, metaPage, psize, read)
	if err != nil {
		return nil, err
	}
	for i, pg := range pages {
		r.page, r.index = f.chain.pages[f.chain.start+i].pgno, f.chain.start+i
		n, err := r.entries(pg[freelogPageHeader:pg.lower()], pg.txid())
		if err != nil {
			return nil, err
		}
		if n != pg.count() {
			return nil, corrupt(r.page, "%d freelog entries where the header says %d", n, pg.count())
		}
		f.chain.pages[r.index].maxTxid = r.txid
	}
	r.page, r.index = metaPage, -1
	f.chain.tail = slices.Clone(st.tail)
	if f.chain.tailCount, err = r.entries(st.tail, newest); err != nil {
		return nil, err
	}
	return f, r.finish(metaPage)
}

// finish checks what can only be told at the end.
func (r *freelogReader) finish(metaPage pgno) error {
	f := r.f
	switch {
	case r.known != allAbove:
		return corrupt(metaPage, "freelog says nothing about pages from %d on", r.known)
	case r.npages != f.npages:
		return corrupt(metaPage, "page count %d where the freelog says %d", f.npages, r.npages)
	}
	for _, p := range f.chain.pages {
		if !f.untouched(extent{p.pgno, 1}) {
			return corrupt(p.pgno, "freelog page among the free pages")
		}
	}
	f.chain.lastTxid = r.txid
	return nil
}

// walk reads the chain from its head back to its oldest page, makes it the
// freelist's, and returns the pages to interpret, oldest first.
func (r *freelogReader) walk(st freelogState, metaPage pgno, psize int, read func(n pgno, sum uint64) (page, error)) ([]page, error) {
	if len(st.tail) > freelogCapacity(psize) {
		return nil, corrupt(metaPage, "freelog tail of %d bytes", len(st.tail))
	}
	ch := &r.f.chain
	none := st.chainLen == 0
	if (st.head == 0) != none || (st.oldest == 0) != none || (st.start == 0) != none || uint64(st.chainLen) > uint64(r.limit) {
		return nil, corrupt(metaPage, "freelog reference contradicts itself")
	}
	var pages []page
	seen := map[pgno]bool{}
	from, started := metaPage, none
	n, sum, t := st.head, st.headSum, r.newest
	for i := range st.chainLen {
		if n < numMetas || n >= r.limit || seen[n] {
			return nil, corrupt(from, "reference to freelog page %d", n)
		}
		pg, err := read(n, sum)
		if err != nil {
			return nil, err
		}
		if rule := validateFreelogPage(pg, n, psize, t); rule != "" {
			return nil, corrupt(n, "%s", rule)
		}
		seen[n] = true
		ch.pages = append(ch.pages, freelogPage{pgno: n, sum: sum, txid: pg.txid()})
		if !started {
			pages = append(pages, pg)
			started = n == st.start
		} else {
			ch.start++
		}
		if last := i+1 == st.chainLen; last != (n == st.oldest) {
			return nil, corrupt(n, "freelog chain does not end at page %d after %d pages", st.oldest, st.chainLen)
		}
		from, t = n, pg.txid()
		n = pgno(binary.LittleEndian.Uint64(pg[offFreelogPrev:]))
		sum = binary.LittleEndian.Uint64(pg[offFreelogPrevSum:])
	}
	if !started {
		return nil, corrupt(metaPage, "freelog page %d, where reading begins, is not in the chain", st.start)
	}
	slices.Reverse(ch.pages)
	slices.Reverse(pages)
	return pages, nil
}

// validateFreelogPage checks a page's header and padding; newest bounds its txid.
// It returns the broken rule, or "".
func validateFreelogPage(pg page, n pgno, psize int, newest txid) string {
	switch {
	case len(pg) != psize:
		return "freelog page of another size"
	case pg.kind() != kindFreelog:
		return "kind " + pg.kind().String() + " where a freelog page should be"
	case pg.pgno() != n:
		return fmt.Sprintf("number %d in the header", pg.pgno())
	case pg.txid() == 0 || pg.txid() > newest:
		return fmt.Sprintf("freelog page of commit %d before one of commit %d", pg.txid(), newest)
	case pg.level() != 0 || pg.tree() != 0 || pg.flags() != 0 || pg.prefixLen() != 0 || pg.dead() != 0 || pg.npages() != 1:
		return "freelog page with fields of a tree page"
	case pg.lower() < freelogPageHeader || pg.lower() > psize || pg.upper() != psize:
		return "freelog entries outside the page"
	}
	prev, prevSum := binary.LittleEndian.Uint64(pg[offFreelogPrev:]), binary.LittleEndian.Uint64(pg[offFreelogPrevSum:])
	if prev == 0 && prevSum != 0 {
		return "sum of a freelog page before the first"
	}
	for _, b := range pg[pg.lower():] {
		if b != 0 {
			return "freelog page with bytes behind its entries"
		}
	}
	return ""
}

// entries replays the entries in b, none newer than newest, and returns how many.
func (r *freelogReader) entries(b []byte, newest txid) (int, error) {
	c := freelogCursor{b: b}
	n := 0
	for ; len(c.b) > 0; n++ {
		kind := c.b[0]
		c.b = c.b[1:]
		t, npages := txid(c.uvarint()), c.uvarint()
		switch {
		case c.bad || t == 0 || npages < numMetas:
			return n, corrupt(r.page, "freelog entry %d is cut off or malformed", n)
		case t < r.txid || t > newest:
			return n, corrupt(r.page, "freelog entry %d of commit %d between %d and %d", n, t, r.txid, newest)
		}
		var err error
		switch kind {
		case freelogRecordKind:
			err = r.record(&c, t, npages)
		case freelogPieceKind:
			err = r.piece(&c, t, npages)
		default:
			err = corrupt(r.page, "freelog entry of kind %d", kind)
		}
		if err != nil {
			return n, err
		}
		r.began, r.txid, r.npages = true, t, npages
	}
	return n, nil
}

// record decodes and replays a record.
func (r *freelogReader) record(c *freelogCursor, t txid, npages uint64) error {
	rec := freelogRecord{txid: t, npages: npages, freed: r.freed[:0], allocated: r.allocated[:0]}
	end := pgno(0)
	for n := c.uvarint(); n > 0 && !c.bad; n-- {
		e, known := c.extent(end, pgno(npages), 1)
		f := freedExtent{extent: e}
		if known != 0 {
			f.A = t - txid(c.uvarint())
			c.bad = c.bad || f.A >= t || f.A == 0
		}
		end = e.end()
		if f.extent = e.clip(0, r.limit); f.npages > 0 {
			rec.freed = append(rec.freed, f)
		}
	}
	end = 0
	for n := c.uvarint(); n > 0 && !c.bad; n-- {
		e, _ := c.extent(end, pgno(npages), 0)
		end = e.end()
		if e = e.clip(0, r.limit); e.npages > 0 {
			rec.allocated = append(rec.allocated, e)
		}
	}
	if c.bad {
		return corrupt(r.page, "freelog record of commit %d is cut off or malformed", t)
	}
	r.freed, r.allocated = rec.freed, rec.allocated
	if t > r.since {
		kept := rec
		kept.freed, kept.allocated = slices.Clone(rec.freed), slices.Clone(rec.allocated)
		r.f.records = append(r.f.records, kept)
	}
	return r.replay(rec)
}

// replay applies what a record says about the pages that are known.
func (r *freelogReader) replay(rec freelogRecord) error {
	if err := r.moveHighWater(rec.txid, rec.npages); err != nil {
		return err
	}
	f, top := r.f, min(r.known, r.limit)
	for _, fe := range rec.freed {
		e := fe.clip(0, top)
		if !f.untouched(e) {
			return corrupt(r.page, "freelog: commit %d frees pages %d+%d, some of them twice", rec.txid, e.start, e.npages)
		}
		r.put(waitingExtent{e, fe.A, rec.txid})
	}
	for _, e := range rec.allocated {
		e = e.clip(0, top)
		if !f.covered(e) {
			return corrupt(r.page, "freelog: commit %d allocates pages %d+%d, some of them in use", rec.txid, e.start, e.npages)
		}
		f.take(e)
	}
	return nil
}

// moveHighWater adds the pages that a record's commit grew the store by to the
// reusable ones, of which it then allocates, or removes those it cut off.
func (r *freelogReader) moveHighWater(t txid, npages uint64) error {
	if !r.began || npages == r.npages {
		return nil
	}
	if t == r.txid {
		return corrupt(r.page, "freelog: two page counts, %d and %d, of commit %d", r.npages, npages, t)
	}
	f, top := r.f, min(r.known, r.limit)
	if npages > r.npages {
		e := extent{pgno(r.npages), npages - r.npages}.clip(0, top)
		if !f.untouched(e) {
			return corrupt(r.page, "freelog: free pages above the page count %d", r.npages)
		}
		f.free.setRange(e)
		return nil
	}
	e := extent{pgno(npages), r.npages - npages}.clip(0, top)
	if !f.covered(e) {
		return corrupt(r.page, "freelog: commit %d cuts off pages from %d on that are in use", t, npages)
	}
	f.take(e)
	return nil
}

// piece decodes and replays a snapshot piece.
func (r *freelogReader) piece(c *freelogCursor, t txid, npages uint64) error {
	lo, length, n := pgno(c.uvarint()), c.uvarint(), c.uvarint()
	hi := lo + pgno(length)
	if length == 0 {
		hi = allAbove
	}
	ch := &r.f.chain
	switch {
	case c.bad || hi < lo || length > 0 && hi == allAbove:
		return corrupt(r.page, "freelog piece of commit %d is cut off or malformed", t)
	case r.began && npages != r.npages:
		return corrupt(r.page, "freelog: page count %d after %d in a piece of commit %d", npages, r.npages, t)
	case r.index < 0 && (len(ch.pages) > 0 || length > 0):
		return corrupt(r.page, "freelog: piece in the tail")
	}
	if err := r.follow(lo, hi); err != nil {
		return err
	}
	items, err := r.pieceExtents(c, n, t, lo, min(hi, max(lo, pgno(npages))))
	if err != nil {
		return err
	}
	if r.known == allAbove {
		return r.agree(t, lo, hi, items)
	}
	for _, e := range items {
		r.put(e)
	}
	r.known = hi
	return nil
}

// follow checks that a piece continues the snapshot under way, or begins one.
func (r *freelogReader) follow(lo, hi pgno) error {
	ch := &r.f.chain
	under := ch.snapFirst >= 0 && !ch.snapDone
	switch {
	case under && lo != ch.snapNext, !under && lo != 0:
		return corrupt(r.page, "freelog: piece begins at page %d, out of turn", lo)
	case !under && ch.snapDone:
		return corrupt(r.page, "freelog: snapshot while an older one waits")
	case !under:
		ch.snapFirst = r.index
	}
	ch.snapNext, ch.snapDone = hi, hi == allAbove
	if ch.snapDone && ch.snapFirst <= ch.start {
		// It is where the chain begins: it supersedes nothing.
		ch.snapFirst, ch.snapNext, ch.snapDone = -1, 0, false
	}
	return nil
}

func (r *freelogReader) pieceExtents(c *freelogCursor, n uint64, t txid, lo, end pgno) ([]waitingExtent, error) {
	items := r.items[:0]
	for ; n > 0 && !c.bad; n-- {
		e, state := c.extent(lo, end, 2)
		lo = e.end()
		w := waitingExtent{extent: e}
		if state == pieceWaiting || state == pieceWaitingA {
			w.T = t - txid(c.uvarint())
			c.bad = c.bad || w.T == 0 || w.T > t
		}
		if state == pieceWaitingA {
			w.A = w.T - txid(c.uvarint())
			c.bad = c.bad || w.A == 0 || w.A >= w.T
		}
		c.bad = c.bad || state > pieceWaitingA
		if w.extent = e.clip(0, r.limit); w.npages > 0 {
			items = append(items, w)
		}
	}
	r.items = items
	if c.bad {
		return nil, corrupt(r.page, "freelog piece of commit %d is cut off or malformed", t)
	}
	return items, nil
}

// put adds an extent to the sets.
func (r *freelogReader) put(e waitingExtent) {
	if e.T == 0 || r.nothingWaits {
		r.f.free.setRange(e.extent)
		return
	}
	r.f.addWaiting(e.extent, waitingPages{a: e.A, t: e.T, pin: unfiled})
}

// agree replaces what is known of [lo, hi) by what a piece says. The two must name
// the same pages, and the same T for what waits in the piece; what is reusable in
// the piece may wait in the records, which do not tell when a pin went.
func (r *freelogReader) agree(t txid, lo, hi pgno, items []waitingExtent) error {
	f, hi := r.f, min(hi, r.limit)
	for _, e := range items {
		waits := r.nothingWaits || f.waitsFor(e)
		if !f.untouched(extent{lo, uint64(e.start - lo)}) || !f.covered(e.extent) || !waits {
			return corrupt(r.page, "freelog: piece of commit %d and the records before it differ at pages %d+%d", t, e.start, e.npages)
		}
		f.take(e.extent)
		r.put(e)
		lo = e.end()
	}
	if lo < hi && !f.untouched(extent{lo, uint64(hi - lo)}) {
		return corrupt(r.page, "freelog: piece of commit %d and the records before it differ above page %d", t, lo)
	}
	return nil
}

// waitsFor reports whether e, which is covered, waits with e's T; anything will do
// where e is reusable.
func (f *freelist) waitsFor(e waitingExtent) bool {
	if e.T == 0 {
		return true
	}
	for p := e.start; p < e.end(); {
		start, w, ok := f.waitingAt(p)
		if !ok || w.t != e.T {
			return false
		}
		p = start + pgno(w.npages)
	}
	return true
}

// allocatedSince returns the pages that the freelog lists as allocated after commit
// d and not freed since, each with the commit. d must be at least the known-durable
// txid of the meta that was loaded. It works from the load to forgetRecords.
func (f *freelist) allocatedSince(d txid) map[pgno]txid {
	m := map[pgno]txid{}
	for _, r := range f.records {
		if r.txid <= d {
			continue
		}
		for _, e := range r.freed {
			for p := e.start; p < e.end(); p++ {
				delete(m, p)
			}
		}
		for _, e := range r.allocated {
			for p := e.start; p < e.end(); p++ {
				m[p] = r.txid
			}
		}
	}
	return m
}

// forgetRecords drops what only allocatedSince needs.
func (f *freelist) forgetRecords() { f.records = nil }
