package folio

// logging.go is what a commit does with the redo log: whether it is logged, where its
// record goes, when the log grows and shrinks, and the sync of the log.

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/foliokv/folio/internal/mmap"
	"github.com/foliokv/folio/internal/seeded"
)

const (
	minLogSegment   = 64 << 10 // bytes; a segment after the first doubles the log
	maxLogSegment   = 16 << 20
	maxFirstSegment = 8 << 20
	grownAhead      = 512 << 10 // bytes of log from which on it grows ahead of the records
	minLogLimit     = 4 << 20   // bytes in the log that call for a checkpoint
	maxLogLimit     = 64 << 20
	maxLogOps       = 300_000 // changes in the log that do so
)

// logLimit returns how many bytes of records call for a checkpoint: half of what the
// store has, within limits, so that a small store has a small log.
func (db *DB) logLimit() int64 {
	return min(max(db.contentBytes()/2, minLogLimit), maxLogLimit)
}

// contentBytes returns the size of the store without its log.
func (db *DB) contentBytes() int64 {
	return int64(db.newest.npages)<<db.shift - db.redo.nbytes(db.psize)
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
	} else if c.replayed != nil {
		c.route, c.meta.log = routeResumed, c.replayed.end
		if seeded.Has(seeded.ReplayMisplaced) {
			c.meta.log.next = db.redo.next
		}
		return
	}
	wanted := db.logs && c.s.redo.wanted && !c.settles && !c.meta.clean && c.canLog()
	switch {
	case wanted && c.placeRecord():
		c.route = routeLogged
		c.growLogAhead()
		return
	case !sync:
		c.route = routeNone
	default:
		c.route = routeDirect
		if c.logBlocksShrinking() {
			c.dropLog()
		}
	}
	if wanted {
		c.growLog()
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
	pending := db.sinceDurable().npages
	db.mu.Unlock()
	// What a direct commit syncs: all that was written since the last one.
	direct := (c.ndirty + 1 + pending) << db.shift
	return uint64(2*logBytes(len(c.s.redo.record))) <= direct
}

// placeRecord finds a place for the record and seals it; false where the log is full.
func (c *committer) placeRecord() bool {
	db, r := c.db, &c.s.redo
	at, ok := db.redo.place(len(r.record), c.meta.durable, db.psize, db.readySegments())
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
	l.next = logPlace{at.segment, at.sector + logSectors(len(r.record))}
	return true
}

// writeRecord writes the record, if there is one.
func (c *committer) writeRecord() error {
	if c.route != routeLogged || c.recorded {
		return nil
	}
	db, rec := c.db, c.s.redo.record
	c.wrote = true
	bufs := append(make([][]byte, 0, 2), rec)
	off := c.meta.log.offset(c.recordAt, db.psize)
	if pad := -(off + int64(len(rec))) & (logBlock - 1); pad > 0 {
		bufs = append(bufs, zeros[:pad])
	}
	if front := off & (logBlock - 1); front > 0 && seeded.Has(seeded.BlockCleared) {
		bufs, off = slices.Concat([][]byte{zeros[:front]}, bufs), off-front
	}
	if err := db.file.Pwritev(bufs, off); err != nil {
		return fmt.Errorf("write redo record of %d bytes at offset %d: %w", len(rec), off, err)
	}
	c.recorded = true
	return nil
}

var zeros [logBlock]byte

// manyPages are as many as take the processor longer than a sync of the log takes the disk.
// With fewer, what it costs to have another goroutine do it is more than it gains, where
// all processors are busy.
const manyPages = 512

// syncAhead writes the record of a commit of many pages, and has it synced while their sums
// and places are worked out.
func (c *committer) syncAhead(sync bool) error {
	db := c.db
	if !sync || c.route != routeLogged || c.ndirty < manyPages || c.s.spilled || !mmap.SyncsApart {
		return nil
	}
	db.burned = max(db.burned, c.s.id) // what is synced ahead is known by this number
	if err := c.writeRecord(); err != nil {
		return err
	}
	done := make(chan struct{})
	c.ahead = done
	// The goroutine may come late, when another transaction has the state.
	base, span := c.s.base, c.recordSpan()
	go func() {
		defer close(done)
		db.syncRecord(base, span)
	}()
	return nil
}

// recordSpan returns where the record is.
func (c *committer) recordSpan() logSpan {
	off := c.meta.log.offset(c.recordAt, c.db.psize)
	return logSpan{c.s.id, off, logBytes(len(c.s.redo.record))}
}

// dropLog gives up all segments, with a commit that is synced as a whole.
func (c *committer) dropLog() {
	for _, e := range c.meta.log.segments {
		c.freedLog = append(c.freedLog, freedExtent{extent: e})
	}
	c.meta.log = logState{}
}

// growLog adds a segment where a record found no place. Until the commit is durable, as a
// whole, none after it is logged, for it has no record: so none finds the segment too early,
// and a commit that waits for no sync adds one at most.
func (c *committer) growLog() {
	if !c.mayGrowLog() {
		return
	}
	c.addSegment()
	if c.newSegment.npages == 0 {
		return // there was no room
	}
	l := &c.meta.log
	l.next = logPlace{segment: len(l.segments) - 1}
	if len(l.segments) == 1 {
		c.restartLog()
	}
}

// growLogAhead adds a segment to a log that is half full, with a logged commit. The next
// checkpoint makes it ready: no commit has to wait for that. While the log is small, so is
// what a commit that adds a segment has to sync.
func (c *committer) growLogAhead() {
	db := c.db
	db.mu.Lock()
	used := int64(db.sinceDurable().nbytes)
	db.mu.Unlock()
	have := c.meta.log.nbytes(db.psize)
	if have >= grownAhead && used >= have/2 && c.mayGrowLog() {
		c.addSegment()
	}
}

// mayGrowLog reports whether the log may be larger, and no segment is in the making. Who
// opens a store for one commit needs none.
func (c *committer) mayGrowLog() bool {
	db, l := c.db, &c.meta.log
	return len(l.segments) < maxLogSegments && l.nbytes(db.psize) < db.maxLogBytes() &&
		db.stats.groups.Load() > 0 && db.readySegments() == len(l.segments)
}

// addSegment adds a segment that doubles the log, and holds a few records like this one.
func (c *committer) addSegment() {
	db, l := c.db, &c.meta.log
	first := min(db.contentBytes()/16, maxFirstSegment)
	want := max(l.nbytes(db.psize), minLogSegment, first, 4*int64(len(c.s.redo.record)))
	npages := uint64(min(want, maxLogSegment)) >> db.shift
	segment, ok := c.takeSegment(max(npages, 1))
	if !ok {
		return
	}
	db.fm.Load().forget(segment.start, segment.end())
	c.newSegment = segment
	l.segments = append(slices.Clone(l.segments), segment)
}

// readySegments returns how many segments of the log can be used.
func (db *DB) readySegments() int {
	db.mu.Lock()
	defer db.mu.Unlock()
	n := len(db.redo.segments)
	if db.redo.coming.npages > 0 {
		n--
	}
	return n
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

// zeroComing writes the segment in the making, before a meta that lists it. It stays in the
// making: a checkpoint may be writing it, too.
func (db *DB) zeroComing() error {
	db.mu.Lock()
	coming := db.redo.coming
	db.mu.Unlock()
	return db.zeroSegment(coming, nil)
}

// zeroSegment writes a new segment once, so that later syncs find it allocated. After each
// piece it calls pause, if not nil.
func (db *DB) zeroSegment(e extent, pause func(e extent) error) error {
	if e.npages == 0 {
		return nil
	}
	zero := make([]byte, min(int64(e.npages)<<db.shift, checkpointPiece))
	npages := uint64(len(zero)) >> db.shift
	for e.npages > 0 {
		piece := extent{e.start, min(npages, e.npages)}
		e = extent{piece.end(), e.npages - piece.npages}
		if err := db.file.Pwritev([][]byte{zero[:piece.npages<<db.shift]}, int64(piece.start)<<db.shift); err != nil {
			return fmt.Errorf("write a redo log segment at page %d: %w", piece.start, err)
		}
		if pause == nil {
			continue
		}
		if err := pause(piece); err != nil {
			return err
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
	case n > len(db.redo.last):
		db.redo.last = append(db.redo.last, 0)
	case n < len(db.redo.last):
		db.redo.last = make([]txid, n)
	}
	switch c.route {
	case routeLogged:
		db.redo.begun = true
		db.redo.last[c.recordAt.segment] = c.meta.txid
	case routeResumed:
		db.redo.passRecords(c.replayed.last)
	default:
		db.unlogged = c.meta.txid
	}
}

// logWork returns what the commit has in the log.
func (c *committer) logWork() (w work) {
	switch c.route {
	case routeLogged:
		w.nbytes = uint64(logBytes(len(c.s.redo.record)))
		w.nops = uint64(c.s.redo.nops + len(c.freed))
	case routeResumed:
		w = c.replayed.work
		w.nops += uint64(len(c.freed))
	}
	return w
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
	span := c.recordSpan()
	// Records follow each other: one range is synced at once.
	if n := len(db.unsynced); n > 0 && db.unsynced[n-1].off+db.unsynced[n-1].nbytes == span.off {
		db.unsynced[n-1].nbytes += span.nbytes
		db.unsynced[n-1].txid = t
		return
	}
	db.unsynced = append(db.unsynced, span)
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
	ahead := db.syncedAhead
	db.mu.Unlock()
	if failed != nil || secured {
		return failed
	}
	spans = slices.DeleteFunc(spans, func(s logSpan) bool { return s.txid <= ahead })
	if len(spans) > 0 && seeded.Has(seeded.LogCoverIgnored) {
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

// syncRecord syncs a record that is about to be that of the newest commit, on top of base,
// and all before it. An error shows when the commit is to be secured: nothing is written any
// more.
func (db *DB) syncRecord(base txid, span logSpan) {
	db.logIO.Lock()
	defer db.logIO.Unlock()
	db.mu.Lock()
	spans, failed := slices.Clone(db.unsynced), db.failed
	if db.tip.txid < span.txid { // else it is among them by now
		spans = append(spans, span)
	}
	late := db.secured >= span.txid // the processors were busy: the commit has come here first
	db.mu.Unlock()
	if failed != nil || late || db.syncSpans(base, spans) != nil {
		return
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	db.syncedAhead = span.txid
}

// syncSpans syncs ranges of the file; t is a commit that is no older than they are, or
// the newest.
func (db *DB) syncSpans(t txid, spans []logSpan) error {
	if seeded.Has(seeded.SyncSkipped) || len(spans) == 0 {
		return nil
	}
	begun := time.Now()
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
	db.mu.Lock()
	defer db.mu.Unlock()
	db.syncTime += (time.Since(begun) - db.syncTime) / 8
	return nil
}
