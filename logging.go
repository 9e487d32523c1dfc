package folio

// logging.go is what a commit does with the redo log: whether it is logged, where its
// record goes, when the log grows and shrinks, and the sync of the log.

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/foliokv/folio/internal/mmap"
	"github.com/foliokv/folio/internal/seeded"
)

const (
	minLogSegment = 64 << 10 // bytes; a segment after the first doubles the log
	maxLogSegment = 16 << 20
	minLogLimit   = 4 << 20 // bytes in the log that call for a checkpoint
	maxLogLimit   = 64 << 20
	maxLogOps     = 300_000 // changes in the log that do so
)

// logLimit returns how many bytes of records call for a checkpoint: half of what the
// store has, within limits, so that a small store has a small log.
func (db *DB) logLimit() int64 {
	content := int64(db.newest.npages)<<db.shift - db.redo.nbytes(db.psize)
	return min(max(content/2, minLogLimit), maxLogLimit)
}

// maxLogBytes returns the size below which the log still grows: the writer goes on while a
// checkpoint runs.
func (db *DB) maxLogBytes() int64 {
	most := db.logLimit() * 3 / 2
	if db.opts.MaxSize > 0 {
		most = min(most, db.opts.MaxSize/8)
	}
	return most
}

// chooseRoute decides how the commit becomes durable, once its pages are known.
func (c *committer) chooseRoute(sync bool) {
	db := c.db
	c.meta.log = db.redo.logState
	if c.settles {
		c.restartLog()
	}
	wanted := db.logs && c.s.redo.wanted && !c.settles && !c.meta.clean && c.canLog()
	switch {
	case wanted && c.placeRecord():
		c.route = routeLogged
	case !sync:
		c.route = routeNone
	default:
		c.route = routeDirect
		if c.logBlocksShrinking() {
			c.dropLog()
		}
		if wanted {
			c.growLog()
		}
	}
}

// restartLog begins a new chain of records: those that a recovery did not replay must
// never be taken for successors of what comes after it.
func (c *committer) restartLog() {
	l := &c.meta.log
	if len(l.segments) == 0 || seeded.Has(seeded.SaltKept) {
		return
	}
	var salt [8]byte
	rand.Read(salt[:]) // it never fails
	l.salt = binary.LittleEndian.Uint64(salt[:])
	l.sum, l.next = l.salt, logPlace{}
}

// canLog reports whether a record makes the commit durable, and is cheaper than a sync
// of its pages.
func (c *committer) canLog() bool {
	db := c.db
	durable := c.meta.durable
	if c.truncated.npages > 0 || c.logBlocksShrinking() {
		return false
	}
	if db.unlogged > durable && !seeded.Has(seeded.GapIgnored) {
		return false // a commit in between has no record
	}
	if grown := db.grown > durable || int64(c.hwm)<<db.shift > db.nbytes; grown && len(c.s.redo.runs) > 0 {
		return false // the place of a run may need more than its pages to be synced
	}
	db.mu.Lock()
	pending := db.at.work.minus(db.durable.work).npages
	db.mu.Unlock()
	// What a direct commit syncs: all that was written since the last one.
	direct := (c.npages() + 1 + pending) << db.shift
	return uint64(2*logBlocks(len(c.s.redo.record))*logBlock) <= direct
}

// placeRecord finds a place for the record and seals it; false where the log is full.
func (c *committer) placeRecord() bool {
	db, r := c.db, &c.s.redo
	at, ok := db.redo.place(len(r.record), c.meta.durable, db.psize)
	if !ok {
		return false
	}
	c.runs = r.placeRuns(&c.s.w, c.s.id)
	h := recordHead{
		prev: db.redo.sum, salt: db.redo.salt, nops: r.nops,
		txid: c.s.id, base: db.newest.txid, durable: c.meta.durable,
	}
	l := &c.meta.log
	l.sum = h.seal(r.record)
	c.recordAt = at
	l.next = logPlace{at.segment, at.block + logBlocks(len(r.record))}
	return true
}

// writeRecord writes the record, if there is one.
func (c *committer) writeRecord() error {
	if c.route != routeLogged {
		return nil
	}
	db, rec := c.db, c.s.redo.record
	c.wrote = true
	bufs := [][]byte{rec}
	if pad := -len(rec) & (logBlock - 1); pad > 0 {
		bufs = append(bufs, zeros[:pad])
	}
	off := c.meta.log.offset(c.recordAt, db.psize)
	if err := db.file.Pwritev(bufs, off); err != nil {
		return fmt.Errorf("write redo record of %d bytes at offset %d: %w", len(rec), off, err)
	}
	return nil
}

var zeros [logBlock]byte

// dropLog gives up all segments, with a commit that is synced as a whole.
func (c *committer) dropLog() {
	for _, e := range c.meta.log.segments {
		c.freedLog = append(c.freedLog, freedExtent{extent: e})
	}
	c.meta.log = logState{}
}

// growLog adds a segment where a record found no place, to a log that may be larger,
// with a commit that is synced as a whole. Who opens a store for one commit needs none.
func (c *committer) growLog() {
	db, l := c.db, &c.meta.log
	have := l.nbytes(db.psize)
	if len(l.segments) == maxLogSegments || have >= db.maxLogBytes() || db.stats.groups.Load() == 0 {
		return
	}
	// So that a few records like this one find a place.
	want := max(have, minLogSegment, 4*int64(len(c.s.redo.record)))
	npages := uint64(min(want, maxLogSegment)) >> db.shift
	segment, ok := c.takeSegment(max(npages, 1))
	if !ok {
		return
	}
	c.newSegment = segment
	l.segments = append(slices.Clone(l.segments), c.newSegment)
	l.next = logPlace{segment: len(l.segments) - 1}
	if len(l.segments) == 1 {
		c.restartLog()
	}
}

// takeSegment allocates consecutive pages for the log. Where there is no room for them the
// commit does without.
func (c *committer) takeSegment(npages uint64) (e extent, ok bool) {
	db := c.db
	start, ok := db.free.allocateRun(npages, 0)
	if !ok {
		end := int64(c.hwm+pgno(npages)) << db.shift
		if db.opts.MaxSize > 0 && end > db.opts.MaxSize/4*3 {
			return e, false
		}
		if err := db.growFile(c.hwm + pgno(npages)); err != nil {
			db.log.Info("the redo log does not grow", "path", db.path, "err", err)
			return e, false
		}
		start = c.grow(npages)
	}
	e = extent{start, npages}
	c.allocated = append(c.allocated, e)
	return e, true
}

// zeroSegment writes a new segment once, so that later syncs find it allocated.
func (c *committer) zeroSegment() error {
	e := c.newSegment
	if e.npages == 0 {
		return nil
	}
	db := c.db
	db.dropResidents(e.start, e.end())
	db.fm.Load().forget(e.start, e.end())
	zero := make([]byte, min(int64(e.npages)<<db.shift, 1<<20))
	for off, end := int64(e.start)<<db.shift, int64(e.end())<<db.shift; off < end; off += int64(len(zero)) {
		if err := db.file.Pwritev([][]byte{zero[:min(int64(len(zero)), end-off)]}, off); err != nil {
			return fmt.Errorf("write a redo log segment at page %d: %w", e.start, err)
		}
	}
	return nil
}

// logBlocksShrinking reports whether a segment lies in the upper half of a file that is
// to shrink.
func (c *committer) logBlocksShrinking() bool {
	if !c.db.free.lowFirst || c.meta.clean {
		return false
	}
	for _, e := range c.db.redo.segments {
		if uint64(e.end()) > c.db.newest.npages/2 {
			return true
		}
	}
	return false
}

// applyLog makes what the commit did with the log current.
func (c *committer) applyLog() {
	db := c.db
	n := len(c.meta.log.segments)
	db.redo.logState = c.meta.log
	switch {
	case c.route == routeLogged:
		db.redo.begun = true
		db.redo.last[c.recordAt.segment] = c.meta.txid
	case n > len(db.redo.last):
		db.redo.last = append(db.redo.last, 0)
	case n < len(db.redo.last):
		db.redo.last = make([]txid, n)
	}
	if c.route != routeLogged {
		db.unlogged = c.meta.txid
	}
}

// --- the sync of the log

// logSpan is a range of the file that has to be synced before commit txid is secured.
type logSpan struct {
	txid        txid
	off, nbytes int64
}

// noteUnsynced keeps what a logged commit has to have synced; mu is held.
func (db *DB) noteUnsynced(c *committer) {
	t := c.meta.txid
	for _, e := range c.runs {
		if !seeded.Has(seeded.RunsUnsynced) {
			db.unsynced = append(db.unsynced, logSpan{t, int64(e.start) << db.shift, int64(e.npages) << db.shift})
		}
	}
	off := c.meta.log.offset(c.recordAt, db.psize)
	nbytes := int64(logBlocks(len(c.s.redo.record))) * logBlock
	// Records follow each other: one range is synced at once.
	if n := len(db.unsynced); n > 0 && db.unsynced[n-1].off+db.unsynced[n-1].nbytes == off {
		db.unsynced[n-1].nbytes += nbytes
		db.unsynced[n-1].txid = t
		return
	}
	db.unsynced = append(db.unsynced, logSpan{t, off, nbytes})
}

// forgetUnsynced drops what was synced with commit t; mu is held.
func (db *DB) forgetUnsynced(t txid) {
	n := 0
	for n < len(db.unsynced) && db.unsynced[n].txid <= t {
		n++
	}
	db.unsynced = slices.Delete(db.unsynced, 0, n)
}

// syncLog makes durable all records that are in the log, and the runs that they name, and
// publishes the commit of the last one. Every commit since the durable one has a record.
func (db *DB) syncLog() error {
	db.logIO.Lock()
	defer db.logIO.Unlock()
	if !mmap.SyncsApart {
		db.syncIO.Lock()
		defer db.syncIO.Unlock()
	}
	db.mu.Lock()
	at, spans, failed := db.tip, slices.Clone(db.unsynced), db.failed
	secured := db.secured >= at.txid
	db.mu.Unlock()
	if failed != nil || secured {
		return failed
	}
	if seeded.Has(seeded.LogCoverIgnored) {
		spans = spans[len(spans)-1:]
	}
	if err := db.syncSpans(at.txid, spans); err != nil {
		return err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.failed != nil {
		return db.failed // a checkpoint's sync has failed meanwhile: perhaps of these pages
	}
	db.setSecured(at)
	return nil
}

// syncSpans syncs ranges of the file; t is a commit that is no older than they are.
func (db *DB) syncSpans(t txid, spans []logSpan) error {
	if seeded.Has(seeded.SyncSkipped) {
		return nil
	}
	slot, _ := db.table.AcquireAt(0, uint64(t)) // so that the mapping stays
	defer slot.Release()
	fm := db.fm.Load()
	if fm == nil {
		return ErrDatabaseNotOpen
	}
	for _, s := range spans {
		db.stats.logSyncs.Add(1)
		if err := db.synced(db.file.SyncRange(fm.m, s.off, s.nbytes)); err != nil {
			return err
		}
	}
	return nil
}
