package folio

// resident.go holds the pages of logged commits that are not in the file yet.
//
// A commit that is durable by its redo record need not write its pages: it keeps them in
// memory, under the numbers of their places, and a page that is superseded before the
// next checkpoint is never written. The checkpoint writes those that its target has; so
// does each commit whose meta refers to them. Until then a page is found here, and once it
// is in the file it is dropped here.
//
// Invariants:
//   - a resident page does not change, and its buffer is not used for anything else until
//     its place may be used again: then no snapshot shows it;
//   - it is dropped only after it was written to its place, or where that may be used again;
//   - a meta is written only after all resident pages of its commit were.

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// maxResident is how many bytes of pages are kept; commits beyond that write theirs. Half
// of it calls for a checkpoint.
const maxResident = 256 << 20

// residentChunk is how many entries of the table are allocated at once.
const residentChunk = 1024

// resident is a page or run that is committed and not in the file.
type resident struct {
	n     pgno
	p     page
	freed txid // the commit that let go of it, or 0; residents.mu guards it
}

// residents is the table of resident pages. Lookups are safe for concurrent use; all
// else is under mu.
type residents struct {
	top atomic.Pointer[[]*[residentChunk]atomic.Pointer[resident]]

	mu     sync.Mutex
	places []pgno      // of all entries; some may be gone, or twice
	freed  []*resident // in the order in which commits let go of them; some may be gone
	nbytes int64       // of all entries
	nlive  int64       // of those that the newest commit shows
}

// at returns the page at n, nil where there is none.
func (rs *residents) at(n pgno) page {
	if r := rs.entry(n); r != nil {
		return r.p
	}
	return nil
}

func (rs *residents) entry(n pgno) *resident {
	if rs == nil {
		return nil
	}
	top := rs.top.Load()
	if top == nil || n/residentChunk >= pgno(len(*top)) {
		return nil
	}
	chunk := (*top)[n/residentChunk]
	if chunk == nil {
		return nil
	}
	return chunk[n%residentChunk].Load()
}

// put keeps p, at its place, where there is nothing.
func (rs *residents) put(p page) {
	n := p.pgno()
	rs.grow(n)
	(*rs.top.Load())[n/residentChunk][n%residentChunk].Store(&resident{n: n, p: p})
	rs.places = append(rs.places, n)
	rs.nbytes += int64(len(p))
	rs.nlive += int64(len(p))
}

// grow makes the table cover n. Readers have the one before for a while: it has all that
// they may look for.
func (rs *residents) grow(n pgno) {
	var top []*[residentChunk]atomic.Pointer[resident]
	if old := rs.top.Load(); old != nil {
		top = *old
	}
	chunk := int(n / residentChunk)
	if chunk < len(top) && top[chunk] != nil {
		return
	}
	top = slices.Concat(top, make([]*[residentChunk]atomic.Pointer[resident], max(0, chunk+1-len(top))))
	top[chunk] = new([residentChunk]atomic.Pointer[resident])
	rs.top.Store(&top)
}

// drop forgets what is at n, which no snapshot shows; its buffer can be used again.
func (rs *residents) drop(n pgno) {
	r := rs.entry(n)
	if r == nil {
		return
	}
	rs.forget(n, r)
	if r.p.npages() == 1 {
		putBuffer(r.p)
	}
}

// forget takes r, at n, out of the table. Readers may still have it.
func (rs *residents) forget(n pgno, r *resident) {
	(*rs.top.Load())[n/residentChunk][n%residentChunk].Store(nil)
	rs.nbytes -= int64(len(r.p))
	if r.freed == 0 {
		rs.nlive -= int64(len(r.p))
	}
}

// free notes that commit t has let go of the pages of e.
func (rs *residents) free(e extent, t txid) {
	for n := e.start; n < e.end(); n++ {
		if r := rs.entry(n); r != nil && r.freed == 0 {
			r.freed = t
			rs.nlive -= int64(len(r.p))
			rs.freed = append(rs.freed, r)
		}
	}
}

// release drops what was let go of by commits up to oldest, the oldest that can still be
// read or written.
func (rs *residents) release(oldest txid) {
	n := 0
	for ; n < len(rs.freed) && rs.freed[n].freed <= oldest; n++ {
		r := rs.freed[n]
		if rs.entry(r.n) == r { // else it was written, or another has its place
			rs.drop(r.n)
		}
	}
	rs.freed = slices.Delete(rs.freed, 0, n)
}

// live returns the places of all that the newest commit shows, in order.
func (rs *residents) live() []pgno {
	slices.Sort(rs.places)
	rs.places = slices.DeleteFunc(slices.Compact(rs.places), func(n pgno) bool { return rs.entry(n) == nil })
	live := make([]pgno, 0, len(rs.places))
	for _, n := range rs.places {
		if rs.entry(n).freed == 0 {
			live = append(live, n)
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

// dropResidents drops what is kept for places from first up to end, which are about to be
// written.
func (db *DB) dropResidents(first, end pgno) {
	db.residents.mu.Lock()
	defer db.residents.mu.Unlock()
	db.residents.dropAll(first, end)
}

func (rs *residents) dropAll(first, end pgno) {
	for n := first; n < end; n++ {
		rs.drop(n)
	}
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
	return c.route == routeLogged && c.db.residents.size()+int64(c.npages())<<c.db.shift < c.db.maxResident
}

// keep puts the commit's pages among the residents, and marks those that it has let go
// of; residents.mu is held. The transaction gives its buffers up.
func (c *committer) keep() {
	rs := &c.db.residents
	rs.release(c.oldest)
	for _, e := range c.freelog.freed {
		rs.free(e.extent, c.meta.txid)
	}
	if !c.kept {
		return
	}
	fm := c.db.fm.Load()
	for _, w := range c.writes {
		end := w.n + pgno(w.p.npages())
		fm.forget(w.n, end)
		rs.dropAll(w.n, end)
		rs.put(w.p)
	}
	for i := range c.s.w.pages {
		c.s.w.pages[i].buf = nil
	}
}

// --- writing

// writeResidents writes the resident pages at places, which ascend, and drops them. None
// of the places is used again meanwhile: the newest commit or a target pins them. After
// each piece it calls pause, if not nil, with the extent that it was in and what part is
// done.
func (db *DB) writeResidents(places []pgno, pause func(e extent, done float64) error) error {
	for at := 0; at < len(places); {
		first := at
		for nbytes := 0; at < len(places) && nbytes < checkpointPiece; {
			n, err := db.writeNeighbours(places[at:])
			if err != nil {
				return err
			}
			nbytes += n << db.shift
			at += n
		}
		if pause == nil {
			continue
		}
		e := extent{places[first], uint64(places[at-1]-places[first]) + 1}
		if err := pause(e, float64(at)/float64(len(places))); err != nil {
			return err
		}
	}
	return nil
}

// writeNeighbours writes the first of the pages at places, with those that follow it
// without a gap, and returns how many of places that is.
func (db *DB) writeNeighbours(places []pgno) (n int, err error) {
	rs := &db.residents
	var entries []*resident
	var bufs [][]byte
	nbytes, next := 0, places[0]
	for n < len(places) && places[n] == next && nbytes < checkpointPiece {
		r := rs.entry(next)
		if r == nil { // someone else has written it
			if n == 0 {
				return 1, nil
			}
			break
		}
		entries, bufs = append(entries, r), append(bufs, r.p)
		nbytes += len(r.p)
		next += pgno(len(r.p) >> db.shift)
		n++
	}
	if err := db.file.Pwritev(bufs, int64(places[0])<<db.shift); err != nil {
		return 0, fmt.Errorf("write pages %d to %d: %w", places[0], next-1, err)
	}
	db.stats.pagesWritten.Add(uint64(nbytes >> db.shift))
	slot, _ := db.table.AcquireAt(0, uint64(entries[0].p.txid())) // so that the mapping stays
	defer slot.Release()
	rs.mu.Lock()
	defer rs.mu.Unlock()
	fm := db.fm.Load()
	for i, r := range entries {
		fm.know(r.p)
		if rs.entry(places[i]) == r {
			rs.forget(places[i], r)
		}
	}
	return n, nil
}

// writeNewest writes all that the newest commit has in memory, and its meta, so that the
// file has it. The writer lock is held.
func (db *DB) writeNewest() error {
	if err := db.flushResidents(); err != nil {
		return err
	}
	_, err := db.writeMetaOf(&db.newest)
	return err
}

// flushResidents writes the pages of the newest commit that are not in the file. The
// writer lock is held.
func (db *DB) flushResidents() error {
	db.residents.mu.Lock()
	places := db.residents.live()
	db.residents.mu.Unlock()
	return db.writeResidents(places, nil)
}
