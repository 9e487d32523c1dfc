package folio

// replay.go reads the redo log after a crash and does what its records say again.
//
// Records are followed from the meta that was proven: each must be whole, hold the sum
// and the commit of the one before it, and name only runs that are there as a whole. The
// first that fails this ends the log: nobody was told that it, or what follows it, is
// durable. What is found is done again in one transaction, on the commit of that meta.
// Then the store goes on as the process did that is gone: the pages stay in memory as
// those of the last record's commit, the next record goes behind that one, and nothing is
// written. Where that can't be, what was replayed becomes one commit, with a new salt,
// that is synced as a whole. Should either be cut short, all of it begins anew: neither the
// log nor a run that it names is written by it.
//
// Invariants:
//   - the runs of all records are taken out of the free list before a page is allocated, and
//     not used again before a commit with what the records say is durable;
//   - the work is bounded by the limits that call for a checkpoint.

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/foliokv/folio/internal/seeded"
)

// foundLog is what a scan of the log found.
type foundLog struct {
	records [][]byte
	runs    []extent // that they name
	work    work     // that the records are
	reached txid     // the commit of the last record, or that of the meta
	seen    txid     // the largest txid of any whole record of this log
	durable txid     // the largest that any of those knows durable
	end     logState // as after the last record
	last    []txid   // per segment: the commit of the last of the records in it, or 0
	// cut says that a record which would follow one of these does not count, as it is or
	// its runs are not whole. What is written over the one or the others, and torn in
	// turn, could make it whole.
	cut bool
	err error // the log is damaged
}

// logReader reads the log, as the disk has it, through a window of the file. How far it is
// to be read is not known before: the kernel reads ahead the more the longer records have
// followed each other.
type logReader struct {
	db      *DB
	psize   int
	buf     []byte
	off     int64 // of the file, where buf begins
	ahead   int64 // how far ahead of buf the kernel reads
	asked   int64 // the end of what the kernel was asked to read
	dropped int64 // the end of what it has forgotten
}

const (
	logWindow   = 128 << 10
	maxLogAhead = 4 << 20
)

// bytes returns nbytes of the file from off on, valid until the next call; there may be
// more of the log up to end.
func (r *logReader) bytes(off int64, nbytes int, end int64) ([]byte, error) {
	if off < r.off || off+int64(nbytes) > r.off+int64(len(r.buf)) {
		if err := r.move(off, nbytes, end); err != nil {
			r.buf = r.buf[:0]
			return nil, err
		}
	}
	return r.buf[off-r.off:][:nbytes], nil
}

// move reads the window that begins at off, and has the kernel read the next beside that.
func (r *logReader) move(off int64, nbytes int, end int64) error {
	want := nbytes
	if off < r.off || off > r.off+int64(len(r.buf)) {
		r.ahead, r.asked, r.dropped = 0, off, off
	} else {
		want = int(min(int64(max(nbytes, logWindow)), end-off))
		r.ahead = min(max(2*r.ahead, logWindow), maxLogAhead)
	}
	if err := r.ask(min(off+int64(want)+r.ahead, end)); err != nil {
		return err
	}
	if cap(r.buf) < want {
		r.buf = make([]byte, want)
	}
	r.buf, r.off = r.buf[:want], off
	_, err := r.db.readAt(r.buf, off)
	return err
}

// ask has the kernel read from the disk up to end.
func (r *logReader) ask(end int64) error {
	if end <= r.asked {
		return nil
	}
	if end > r.dropped {
		if err := r.db.dropCache(r.dropped, end-r.dropped); err != nil {
			return err
		}
		r.dropped = (end + cachePiece - 1) &^ (cachePiece - 1)
	}
	err := r.db.file.ReadAhead(r.asked, end-r.asked)
	r.asked = end
	return err
}

// head returns what a place of the log has as the header of a record, and whether it can
// be one of this log.
func (r *logReader) head(l *logState, at logPlace) (h recordHead, ok bool, err error) {
	room := (int64(l.segments[at.segment].sectors(r.psize)) - int64(at.sector)) * logSector
	if room == 0 {
		return h, false, nil
	}
	off := l.offset(at, r.psize)
	sector, err := r.bytes(off, logSector, off+room)
	if err != nil {
		return h, false, err
	}
	h = getRecordHead(sector)
	return h, (h.salt == l.salt || seeded.Has(seeded.SaltIgnored)) && h.nbytes >= recordHeader && int64(h.nbytes) <= room, nil
}

// record returns the record at a place of the log whose header is h, nil where it is not
// whole.
func (r *logReader) record(l *logState, at logPlace, h *recordHead) (rec []byte, err error) {
	off, end := l.offset(at, r.psize), l.segments[at.segment].end()
	rec, err = r.bytes(off, h.nbytes, int64(end)*int64(r.psize))
	if err != nil || !isWholeRecord(rec) && !seeded.Has(seeded.TornRecordAccepted) {
		return nil, err
	}
	return rec, nil
}

// scanLog follows the log from where meta m says, and checks the runs that it names
// against the file.
func (db *DB) scanLog(m *meta) (f foundLog, err error) {
	f.reached = m.txid
	f.end, f.last = m.log, make([]txid, len(m.log.segments))
	r := &logReader{db: db, psize: m.psize}
	for found := true; found; {
		found = false
		for at := range f.end.places {
			if found, err = db.scanPlace(m, &f, r, at); err != nil {
				return f, err
			}
			if found {
				break
			}
		}
	}
	return f, nil
}

// scanPlace adds to f the record at a place, if it is the next one.
func (db *DB) scanPlace(m *meta, f *foundLog, r *logReader, at logPlace) (found bool, err error) {
	l := &f.end
	h, ok, err := r.head(l, at)
	if err != nil || !ok {
		return false, err
	}
	if h.txid <= f.reached {
		return false, nil // left over
	}
	follows := (h.prev == l.sum || seeded.Has(seeded.ChainIgnored)) && (h.base == f.reached || seeded.Has(seeded.GapIgnored))
	rec, err := r.record(l, at, &h)
	if err != nil {
		return false, err
	}
	if rec == nil {
		f.cut = f.cut || follows
		return false, nil
	}
	f.seen = max(f.seen, h.txid)
	if !follows {
		return false, nil
	}
	f.durable = max(f.durable, h.durable)
	runs, err := db.runsOf(m, rec)
	if err != nil {
		return false, err
	}
	if runs == nil {
		f.cut = true
		return false, nil
	}
	f.runs = append(f.runs, runs...)
	f.records = append(f.records, bytes.Clone(rec))
	f.work.nops += uint64(h.nops)
	f.work.nbytes += uint64(logBytes(h.nbytes))
	f.reached, f.last[at.segment], l.sum = h.txid, h.txid, h.sum
	l.next = logPlace{at.segment, at.sector + logSectors(h.nbytes)}
	return true, nil
}

// runsOf returns the runs that a record names, not nil, or nil where one is not in the
// file as a whole: then the record was never durable.
func (db *DB) runsOf(m *meta, rec []byte) ([]extent, error) {
	runs := []extent{}
	for c := (changes{b: rec[recordHeader:]}); len(c.b) > 0; {
		kind := c.next()
		if c.bad {
			return nil, corruptRecord(rec, kind)
		}
		if kind != opPutRun {
			continue
		}
		ok, err := db.isWholeRun(m, c.run)
		if err != nil || !ok && !seeded.Has(seeded.RecordRunsUnchecked) {
			return nil, err
		}
		runs = append(runs, extent{c.run.pgno, uint64(c.run.npages)})
	}
	return runs, nil
}

// isWholeRun reports whether the run at r is in the file.
func (db *DB) isWholeRun(m *meta, r runRef) (bool, error) {
	if r.pgno < numMetas || r.pgno > maxPgno || r.npages != runPages(m.psize, r.keyLen, r.valueLen) {
		return false, nil
	}
	off := int64(r.pgno) * int64(m.psize)
	if size, err := db.file.Size(); err != nil || off+int64(r.npages)*int64(m.psize) > size {
		return false, err // before there is memory for what a lie may call large
	}
	buf := make(page, r.npages*m.psize)
	if !seeded.Has(seeded.RunsFromCache) {
		if err := db.dropCache(off, int64(len(buf))); err != nil {
			return false, err
		}
	}
	n, err := db.readAt(buf, off)
	if err != nil || n < len(buf) {
		return false, err
	}
	return checkSum(buf, r.pgno, r.sum) == nil && validateRun(buf, r) == "", nil
}

func corruptRecord(rec []byte, kind byte) error {
	return corrupt(0, "redo record of commit %d: change of kind %d is malformed", getRecordHead(rec).txid, kind)
}

// changes reads the changes of a record one after another. After the first that is bad,
// it is bad.
type changes struct {
	b          []byte
	bad        bool
	key, value []byte
	lo, hi     []byte
	path       [][]byte
	number     uint64
	run        runRef
}

// next decodes a change into c's fields and returns its kind.
func (c *changes) next() (kind byte) {
	kind, c.b = c.b[0], c.b[1:]
	switch kind {
	case opBucket:
		c.readPath()
	case opPut:
		c.key, c.value = c.bytes(), c.bytes()
	case opPutRun, opNothing:
		if c.bad = len(c.b) < runRefSize; !c.bad {
			c.run, c.b = getRunRef(c.b), c.b[runRefSize:]
		}
	case opNonce:
		if c.bad = len(c.b) < nonceSize; !c.bad {
			c.b = c.b[nonceSize:]
		}
	case opDelete, opDeleteBucket:
		c.key = c.bytes()
	case opDeleteRange:
		flags := c.uvarint()
		c.lo, c.hi = c.bytes(), c.bytes()
		if flags&rangeHasLo == 0 {
			c.lo = nil
		}
		if flags&rangeHasHi == 0 {
			c.hi = nil
		}
	case opCreateBucket:
		c.key, c.number = c.bytes(), c.uvarint()
	case opMoveBucket:
		c.key = c.bytes()
		c.readPath()
	case opSequence:
		c.number = c.uvarint()
	default:
		c.bad = true
	}
	return kind
}

func (c *changes) uvarint() uint64 {
	x, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.bad, c.b = true, nil
		return 0
	}
	c.b = c.b[n:]
	return x
}

func (c *changes) bytes() []byte {
	n := c.uvarint()
	if n > uint64(len(c.b)) {
		c.bad, c.b = true, nil
		return nil
	}
	b := c.b[:n:n]
	c.b = c.b[n:]
	return b
}

func (c *changes) readPath() {
	c.path = c.path[:0]
	for n := c.uvarint(); n > 0 && !c.bad; n-- {
		c.path = append(c.path, c.bytes())
	}
}

// --- doing it again

// replay does again what the log holds. Where resumes is true, and it is not too much for
// that, it stays in memory, and the log goes on; else it becomes a commit that is synced.
func (db *DB) replay(f *foundLog, resumes bool) (resumed bool, err error) {
	s, err := db.startWrite()
	if err != nil {
		return false, err
	}
	tx := &Tx{s: s, managed: true}
	defer func() {
		if tx.s != nil {
			db.giveUpReplay(tx.s)
		}
	}()
	s.redo.wanted = false
	defer s.pg.copyPages(db.readPage)()
	expectBuffers(db.psize, int(f.work.nops))
	if err := s.reserveRuns(f.runs); err != nil {
		return false, err
	}
	s.guard(func() {
		if err = db.readAheadLeaves(tx, f); err == nil {
			err = db.replayRecords(tx, f)
		}
	})
	if err != nil || s.err != nil {
		return false, joinFault(err, s.err)
	}
	s.guard(func() { s.flush() })
	if s.err != nil {
		return false, s.err
	}
	c := &committer{s: s, db: db, hwm: s.pg.npages, replayed: f}
	resumed = resumes && !s.spilled && s.w.nbytes < db.checkpointFrom()
	if resumed {
		s.id = f.reached // no page of it has its number yet
	}
	c.settles = !resumed
	if err := c.run(true, c.write); err != nil {
		return false, err
	}
	db.giveUpReplay(s)
	tx.s = nil
	return resumed, nil
}

// readPage reads page n of the file.
func (db *DB) readPage(p page, n pgno) error {
	_, err := db.readAt(p, int64(n)<<db.shift)
	return err
}

// giveUpReplay ends the transaction of a replay, which holds no writer lock.
func (db *DB) giveUpReplay(s *txState) {
	db.writer <- struct{}{}
	db.endWrite(s)
}

// reserveRuns takes the runs of all records out of the free list.
func (s *txState) reserveRuns(runs []extent) error {
	free := s.db.free
	if seeded.Has(seeded.RunsUnreserved) {
		return nil
	}
	end := s.pg.npages
	for _, e := range runs {
		end = max(end, e.end())
	}
	if end > s.pg.npages { // the store grew since the commit that was proven
		free.giveBack(extent{s.pg.npages, uint64(end - s.pg.npages)})
		s.pg.npages = end
	}
	for _, e := range runs {
		if !free.reserve(e) {
			return corrupt(e.start, "a redo record names a run of %d pages there, some of which are in use", e.npages)
		}
	}
	return nil
}

// readAheadLeaves has the kernel read the leaves that the records change, as they are
// before that: one by one, in the order of the changes, would take the disk minutes.
func (db *DB) readAheadLeaves(tx *Tx, f *foundLog) error {
	var leaves []pgno
	for _, rec := range f.records {
		b := tx.Root()
		for c := (changes{b: rec[recordHeader:]}); len(c.b) > 0 && !c.bad; {
			switch kind := c.next(); {
			case kind == opBucket:
				b, _ = tx.bucketAt(c.path) // one that a record makes has no leaves yet
			case b != nil && (kind == opPut || kind == opDelete):
				if n := b.t.leafNumber(c.key); n != 0 {
					leaves = append(leaves, n)
				}
			}
		}
	}
	slices.Sort(leaves)
	return db.readAhead(slices.Compact(leaves), db.psize)
}

// replayRecords does what all records say.
func (db *DB) replayRecords(tx *Tx, f *foundLog) error {
	begun := time.Now()
	told, ndone := begun, 0
	for _, rec := range f.records {
		if err := tx.replayRecord(rec); err != nil {
			return err
		}
		if seeded.Has(seeded.RecordTwice) {
			if err := tx.replayRecord(rec); err != nil {
				return err
			}
		}
		ndone += getRecordHead(rec).nops
		if now := time.Now(); now.Sub(told) > time.Second {
			told = now
			db.log.Info("recovering from the redo log", "path", db.path, "changes", ndone, "of", f.work.nops, "seconds", now.Sub(begun).Seconds())
		}
	}
	return nil
}

// replayRecord does what one record says, through the same calls as its transaction.
func (tx *Tx) replayRecord(rec []byte) error {
	b := tx.Root()
	for c := (changes{b: rec[recordHeader:]}); len(c.b) > 0; {
		kind := c.next()
		if c.bad {
			return corruptRecord(rec, kind)
		}
		var err error
		if kind == opBucket {
			b, err = tx.bucketAt(c.path)
		} else {
			err = tx.replayChange(b, kind, &c)
		}
		if isMisfit(err) {
			return corrupt(0, "redo record of commit %d does not fit the store: %v", getRecordHead(rec).txid, err)
		}
		if err != nil {
			return fmt.Errorf("replay commit %d: %w", getRecordHead(rec).txid, err)
		}
	}
	return nil
}

// isMisfit reports whether err says that a change can't be made: whoever made it first was
// not told so, so the record lies.
func isMisfit(err error) bool {
	if errors.Is(err, ErrCorrupt) {
		return false
	}
	for _, e := range []error{ErrIncompatibleValue, ErrBucketExists, ErrBucketNotFound, ErrBucketNameRequired, ErrKeyRequired, ErrKeyTooLarge, ErrValueTooLarge} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// replayChange does one change of bucket b.
func (tx *Tx) replayChange(b *Bucket, kind byte, c *changes) error {
	switch kind {
	case opPut:
		return b.Put(c.key, c.value)
	case opPutRun:
		return b.adopt(c.run)
	case opDelete:
		return b.Delete(c.key)
	case opDeleteRange:
		_, err := b.DeleteRange(c.lo, c.hi)
		return err
	case opCreateBucket:
		if c.number <= tx.s.w.nextTree {
			return corrupt(0, "bucket id %d in a redo record was given out before", c.number)
		}
		tx.s.w.nextTree = c.number - 1
		_, err := b.CreateBucket(c.key)
		return err
	case opDeleteBucket:
		return b.DeleteBucket(c.key)
	case opMoveBucket:
		to, err := tx.bucketAt(c.path)
		if err != nil {
			return err
		}
		return tx.MoveBucket(c.key, b, to)
	case opSequence:
		return b.SetSequence(c.number)
	}
	return nil
}

// bucketAt returns the bucket at the end of a path from the root.
func (tx *Tx) bucketAt(path [][]byte) (*Bucket, error) {
	b := tx.Root()
	for _, name := range path {
		if b = b.Bucket(name); b == nil {
			return nil, fmt.Errorf("bucket %s: %w", quoted(name), joinFault(ErrBucketNotFound, tx.Err()))
		}
	}
	return b, nil
}

// adopt stores the pair that a run holds, which is in the file and whole.
func (b *Bucket) adopt(r runRef) error {
	return b.change(func(s *txState, t *tree) error {
		p, err := s.pg.loadRun(r)
		if err != nil {
			return err
		}
		return t.adopt(p.runKey(r), r)
	})
}
