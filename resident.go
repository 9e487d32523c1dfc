package folio

// resident.go holds the pages of logged commits that are not in the file yet.
//
// A commit that is durable by its redo record need not write its pages: it keeps them in
// memory, under the numbers of their places, and a page that is superseded before the
// next checkpoint is never written. The checkpoint writes those that its target has; so
// does each commit whose meta refers to them. Until then a page is found here, and once it
// is in the file it is dropped here.
//
// A page that is changed again before a target has it keeps its place (see commit.go), so
// there may be several versions of a page: readers find theirs by its sum.
//
// Invariants:
//   - a resident page does not change, and its buffer is not used for anything else until
//     no snapshot shows it;
//   - one that was written is out of the table; its buffer is used again when nobody reads
//     who may have found it there;
//   - it is dropped only after it was written to its place, or where no snapshot shows it;
//   - of the versions at a place the newest alone is ever written;
//   - a meta is written only after all resident pages of its commit were.

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/foliokv/folio/internal/seeded"
)

// maxResident is how many bytes of pages are kept. Commits beyond that wait for the checkpoint
// that is under way; where there is none, they write their pages.
const maxResident = 256 << 20

// residentChunk is how many entries of the table are allocated at once.
const residentChunk = 1024

// resident is a page or run that is committed and not in the file.
type resident struct {
	n     pgno
	p     page
	sum   uint64
	made  txid                     // the commit that made it
	freed txid                     // the one that let go of it, or 0; residents.mu guards it
	older atomic.Pointer[resident] // the version before it, or what was at its place
}

// residents is the table of resident pages. Lookups are safe for concurrent use; all
// else is under mu.
type residents struct {
	top atomic.Pointer[[]*[residentChunk]atomic.Pointer[resident]]

	mu     sync.Mutex
	fewer  sync.Cond            // on mu: pages were written, or the checkpoint is over
	places []pgno               // with an entry, or that had one; some may be there twice
	held   map[txid][]*resident // what was let go of, under the newest commit that shows it
	spent  []spentBuffer        // what was written, in the order of the commits
	nbytes int64                // of all entries
	nlive  int64                // of those that the newest commit shows
}

// spentBuffer is a buffer that was written to the file. Who reads a commit after the one
// that was the newest then has not seen it.
type spentBuffer struct {
	p      page
	newest txid
}

// at returns the version with the given sum of the page at n, nil where there is none.
func (rs *residents) at(n pgno, sum uint64) page {
	for r := rs.newest(n); r != nil; r = r.older.Load() {
		if r.sum == sum || seeded.Has(seeded.VersionsMixed) {
			return r.p
		}
	}
	return nil
}

// newest returns the newest version of the page at n.
func (rs *residents) newest(n pgno) *resident {
	if rs == nil {
		return nil
	}
	have := rs.chunks()
	if n/residentChunk >= pgno(len(have)) || have[n/residentChunk] == nil {
		return nil
	}
	return have[n/residentChunk][n%residentChunk].Load()
}

// chunks returns the table, as far as it was needed so far: a chunk may be nil.
func (rs *residents) chunks() []*[residentChunk]atomic.Pointer[resident] {
	if top := rs.top.Load(); top != nil {
		return *top
	}
	return nil
}

// live returns the page at n, if the newest commit shows it.
func (rs *residents) live(n pgno) *resident {
	if r := rs.newest(n); r != nil && r.freed == 0 {
		return r
	}
	return nil
}

// put keeps p as the newest at its place. What was there was let go of.
func (rs *residents) put(p page) {
	n := p.pgno()
	rs.grow(n)
	r := &resident{n: n, p: p, sum: p.sum(), made: p.txid()}
	head := rs.head(n)
	if older := head.Load(); older != nil {
		r.older.Store(older)
	} else {
		rs.places = append(rs.places, n)
	}
	head.Store(r)
	rs.nbytes += int64(len(p))
	rs.nlive += int64(len(p))
}

// head returns where the newest version of the page at n is kept; the table covers n.
func (rs *residents) head(n pgno) *atomic.Pointer[resident] {
	return &rs.chunks()[n/residentChunk][n%residentChunk]
}

// grow makes the table cover n. Readers have the one before for a while: it has all that
// they may look for.
func (rs *residents) grow(n pgno) {
	have, chunk := rs.chunks(), int(n/residentChunk)
	if chunk < len(have) && have[chunk] != nil {
		return
	}
	top := make([]*[residentChunk]atomic.Pointer[resident], max(len(have), chunk+1))
	copy(top, have)
	top[chunk] = new([residentChunk]atomic.Pointer[resident])
	rs.top.Store(&top)
}

// forget takes r out of the table, and reports whether it was there. Readers may still
// have it.
func (rs *residents) forget(r *resident) bool {
	at := rs.head(r.n)
	for at.Load() != r {
		if at.Load() == nil {
			return false
		}
		at = &at.Load().older
	}
	at.Store(r.older.Load())
	rs.nbytes -= int64(len(r.p))
	if r.freed == 0 {
		rs.nlive -= int64(len(r.p))
	}
	return true
}

// free notes that commit t has let go of the pages of e.
func (rs *residents) free(e extent, t txid) {
	for n := e.start; n < e.end(); n++ {
		if r := rs.live(n); r != nil {
			r.freed = t
			rs.nlive -= int64(len(r.p))
			rs.hold(t-1, r)
		}
	}
}

func (rs *residents) hold(pin txid, r *resident) {
	if rs.held == nil {
		rs.held = map[txid][]*resident{}
	}
	rs.held[pin] = append(rs.held[pin], r)
}

// release drops what was let go of and is shown by none of pins, which ascend and are all
// commits that can still be read or written; the oldest of those to be read is oldestRead.
// As in the free list, only what is held by a pin that is gone is looked at.
func (rs *residents) release(pins []txid, oldestRead txid) {
	n := 0
	for ; n < len(rs.spent) && (rs.spent[n].newest < oldestRead || seeded.Has(seeded.SpentEarly)); n++ {
		putBuffer(rs.spent[n].p)
	}
	rs.spent = slices.Delete(rs.spent, 0, n)
	for pin, held := range rs.held {
		if _, still := slices.BinarySearch(pins, pin); still {
			continue
		}
		delete(rs.held, pin)
		for _, r := range held {
			if lower, blocked := largestPin(pins, r.made, r.freed); blocked {
				rs.hold(lower, r)
			} else if rs.forget(r) && r.p.npages() == 1 { // else it was written
				putBuffer(r.p)
			}
		}
	}
}

// unwrittenPages returns all that the newest commit shows, in the order of their places, to
// be written. Buffers of what was written before, and is still read, are left to the collector.
func (rs *residents) unwrittenPages() []*resident {
	rs.spent = nil
	slices.Sort(rs.places)
	rs.places = slices.DeleteFunc(slices.Compact(rs.places), func(n pgno) bool { return rs.newest(n) == nil })
	live := make([]*resident, 0, len(rs.places))
	for _, n := range rs.places {
		if r := rs.live(n); r != nil {
			live = append(live, r)
		}
	}
	return live
}

// size returns how many bytes are kept.
func (rs *residents) size() int64 {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return rs.nbytes
}

// unwritten returns how many bytes of the newest commit are in memory only.
func (rs *residents) unwritten() int64 {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return rs.nlive
}

// --- keeping

// keeps reports whether the commit keeps its pages in memory.
func (c *committer) keeps() bool {
	return c.route == routeResumed || c.route == routeLogged && c.db.residents.size()+int64(c.npages())<<c.db.shift < c.db.maxResident
}

// keep puts the commit's pages among the residents, and marks those that it has let go
// of; residents.mu is held. The transaction gives its buffers up.
func (c *committer) keep() {
	rs := &c.db.residents
	rs.release(c.pins, c.oldestRead)
	for _, e := range c.freelog.freed {
		rs.free(e.extent, c.meta.txid)
	}
	for _, n := range c.inPlace {
		rs.free(extent{n, 1}, c.meta.txid)
	}
	if !c.kept {
		return
	}
	fm := c.db.fm.Load()
	for _, w := range c.writes {
		fm.forget(w.n, w.n+pgno(w.p.npages()))
		rs.put(w.p)
	}
	for i := range c.s.w.pages {
		c.s.w.pages[i].buf = nil
	}
}

// awaitRoom waits while the commit's pages would be too many to be kept, and a checkpoint
// that is under way makes them fewer. The writer lock is held.
func (c *committer) awaitRoom() {
	db, rs := c.db, &c.db.residents
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for rs.nbytes+c.s.w.nbytes >= db.maxResident && db.isCheckpointing() {
		rs.fewer.Wait()
	}
}

// isCheckpointing reports whether a checkpoint is under way.
func (db *DB) isCheckpointing() bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.target != 0
}

// --- writing

// writeResidents writes pages, which are in the order of their places, and takes them out
// of the table. They are those of commit t, the newest or a target: that pins them, so
// that none of the places is used again meanwhile. After each piece it calls pause, if not
// nil, with the extent that it was in and what part is done.
func (db *DB) writeResidents(pages []*resident, t txid, pause func(e extent, done float64) error) error {
	for at := 0; at < len(pages); {
		first := at
		for nbytes := 0; at < len(pages) && nbytes < checkpointPiece; {
			n, err := db.writeNeighbours(pages[at:], t)
			if err != nil {
				return err
			}
			nbytes += n << db.shift
			at += n
		}
		if pause == nil {
			continue
		}
		e := extent{pages[first].n, uint64(pages[at-1].n-pages[first].n) + 1}
		if err := pause(e, float64(at)/float64(len(pages))); err != nil {
			return err
		}
	}
	return nil
}

// writeNeighbours writes the first of pages, with those that follow it without a gap, and
// returns how many that is.
func (db *DB) writeNeighbours(pages []*resident, t txid) (n int, err error) {
	rs := &db.residents
	slot, _ := db.table.AcquireAt(0, uint64(t)) // so that the mapping stays, and all buffers do
	defer slot.Release()
	var bufs [][]byte
	nbytes, first := 0, pages[0].n
	next := first
	for n < len(pages) && pages[n].n == next && nbytes < checkpointPiece {
		r := pages[n]
		if rs.newest(next) != r { // someone else has written it
			rs.mustBeGone(r)
			if n == 0 {
				return 1, nil
			}
			break
		}
		bufs = append(bufs, r.p)
		nbytes += len(r.p)
		next += pgno(len(r.p) >> db.shift)
		n++
	}
	if err := db.file.Pwritev(bufs, int64(first)<<db.shift); err != nil {
		return 0, fmt.Errorf("write pages %d to %d: %w", first, next-1, err)
	}
	db.stats.pagesWritten.Add(uint64(nbytes >> db.shift))
	rs.mu.Lock()
	defer rs.mu.Unlock()
	db.mu.Lock()
	newest := db.at.txid
	db.mu.Unlock()
	fm := db.fm.Load()
	for _, r := range pages[:n] {
		fm.know(r.p)
		if rs.forget(r) && r.p.npages() == 1 {
			rs.spent = append(rs.spent, spentBuffer{r.p, newest})
		}
	}
	rs.fewer.Broadcast()
	return n, nil
}

// mustBeGone checks that r, which is to be written, has no younger version: that would
// be written in its place.
func (rs *residents) mustBeGone(r *resident) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for v := rs.newest(r.n); v != nil; v = v.older.Load() {
		if v == r {
			broken("page %d: it was changed by commit %d in memory, but commit %d of it is to be written", r.n, rs.newest(r.n).made, r.made)
		}
	}
}

// writeNewest writes all that the newest commit has in memory, and its meta, so that the
// file has it. The writer lock is held.
func (db *DB) writeNewest() error {
	if err := db.flushResidents(nil); err != nil {
		return err
	}
	if err := db.zeroComing(); err != nil {
		return err
	}
	_, err := db.writeMetaOf(&db.newest)
	return err
}

// flushResidents writes the pages of the newest commit that are not in the file, but for
// those at the places in but. The writer lock is held.
func (db *DB) flushResidents(but []pgno) error {
	rs := &db.residents
	rs.mu.Lock()
	pages := rs.unwrittenPages()
	rs.mu.Unlock()
	if len(but) > 0 {
		but = slices.Sorted(slices.Values(but))
		pages = slices.DeleteFunc(pages, func(r *resident) bool {
			_, found := slices.BinarySearch(but, r.n)
			return found
		})
	}
	return db.writeResidents(pages, db.newest.txid, nil)
}
