package folio

// replay.go reads the redo log after a crash and does what its records say again.
//
// Records are followed from the meta that was proven: each must be whole, hold the sum
// and the commit of the one before it, and name only runs that are there as a whole. The
// first that fails this ends the log: nobody was told that it, or what follows it, is
// durable. What is found is done again in one transaction, on the commit of that meta,
// and becomes one commit, with a new salt, that is synced as a whole. Should that be cut
// short, all of it begins anew: neither the log nor a run that it names is written by it.
//
// Invariants:
//   - the runs of all records are taken out of the free list before a page is allocated;
//   - the work is bounded by the limits that call for a checkpoint.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/foliokv/folio/internal/seeded"
)

// foundLog is what a scan of the log found.
type foundLog struct {
	records []foundRecord
	runs    []extent // that they name
	nops    int
	reached txid // the commit of the last record, or that of the meta
	seen    txid // the largest txid of any whole record of this log
	durable txid // the largest that any of those knows durable
}

// foundRecord is where a record is in the file.
type foundRecord struct {
	off    int64
	nbytes int
}

// logReader reads the log through a window of the file.
type logReader struct {
	db    *DB
	psize int
	fresh bool // from the disk
	buf   []byte
	off   int64 // of the file, where buf begins
}

const logWindow = 1 << 20

// bytes returns nbytes of the file from off on, valid until the next call.
func (r *logReader) bytes(off int64, nbytes int) ([]byte, error) {
	if off < r.off || off+int64(nbytes) > r.off+int64(len(r.buf)) {
		want := max(nbytes, logWindow)
		if cap(r.buf) < want {
			r.buf = make([]byte, want)
		}
		r.buf, r.off = r.buf[:want], off
		if r.fresh {
			if err := r.db.dropCache(off, int64(want)); err != nil {
				return nil, err
			}
		}
		if _, err := r.db.readAt(r.buf, off); err != nil {
			r.buf = r.buf[:0]
			return nil, err
		}
	}
	return r.buf[off-r.off:][:nbytes], nil
}

// record returns the record at a place of the log, nil where none is whole.
func (r *logReader) record(l *logState, at logPlace) ([]byte, error) {
	room := int64(l.segments[at.segment].blocks(r.psize)-at.block) * logBlock
	if room == 0 {
		return nil, nil
	}
	off := l.offset(at, r.psize)
	block, err := r.bytes(off, logBlock)
	if err != nil {
		return nil, err
	}
	h := getRecordHead(block)
	if h.salt != l.salt && !seeded.Has(seeded.SaltIgnored) || h.nbytes < recordHeader || int64(h.nbytes) > room {
		return nil, nil
	}
	rec, err := r.bytes(off, h.nbytes)
	if err != nil || !isWholeRecord(rec) && !seeded.Has(seeded.TornRecordAccepted) {
		return nil, err
	}
	return rec, nil
}

// scanLog follows the log from where meta m says, and checks the runs that it names
// against the file. m is proven.
func (db *DB) scanLog(m *meta) (f foundLog, err error) {
	f.reached = m.txid
	l := m.log
	r := &logReader{db: db, psize: m.psize, fresh: true}
	sum := l.sum
	for found := true; found; {
		found = false
		for at := range l.places {
			rec, err := r.record(&l, at)
			if err != nil {
				return f, err
			}
			if rec == nil {
				continue
			}
			h := getRecordHead(rec)
			f.seen = max(f.seen, h.txid)
			if h.prev != sum && !seeded.Has(seeded.ChainIgnored) || h.base != f.reached && !seeded.Has(seeded.GapIgnored) ||
				seeded.Has(seeded.ChainIgnored) && h.txid <= f.reached {
				continue
			}
			f.durable = max(f.durable, h.durable)
			runs, err := db.runsOf(m, rec)
			if err != nil {
				return f, err
			}
			if runs == nil {
				continue
			}
			f.runs = append(f.runs, runs...)
			f.records = append(f.records, foundRecord{l.offset(at, m.psize), h.nbytes})
			f.nops += h.nops
			f.reached, sum = h.txid, h.sum
			l.next = logPlace{at.segment, at.block + logBlocks(h.nbytes)}
			found = true
			break
		}
	}
	return f, nil
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
	buf := make(page, r.npages*m.psize)
	n, err := db.readAt(buf, int64(r.pgno)*int64(m.psize))
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

// replay does again what the log holds, and commits it, as one commit that is synced.
func (db *DB) replay(f *foundLog) error {
	s, err := db.startWrite()
	if err != nil {
		return err
	}
	tx := &Tx{s: s, managed: true}
	defer func() {
		if tx.s != nil {
			db.giveUpReplay(tx.s)
		}
	}()
	s.redo.wanted = false
	if err := s.reserveRuns(f.runs); err != nil {
		return err
	}
	s.guard(func() {
		if err = db.readAheadLeaves(tx, f); err == nil {
			err = db.replayRecords(tx, f)
		}
	})
	if err != nil || s.err != nil {
		return joinFault(err, s.err)
	}
	s.guard(func() { s.flush() })
	if s.err != nil {
		return s.err
	}
	c := &committer{s: s, db: db, hwm: s.pg.npages, settles: true, adopted: f.runs}
	if err := c.write(true); err != nil {
		c.undo()
		return err
	}
	if err := c.finish(true); err != nil {
		return err
	}
	db.giveUpReplay(s)
	tx.s = nil
	return nil
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
	r := &logReader{db: db, psize: db.psize}
	var leaves []pgno
	for _, at := range f.records {
		rec, err := r.bytes(at.off, at.nbytes)
		if err != nil {
			return err
		}
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
	r := &logReader{db: db, psize: db.psize}
	begun := time.Now()
	told, ndone := begun, 0
	for _, at := range f.records {
		rec, err := r.bytes(at.off, at.nbytes)
		if err != nil {
			return err
		}
		if !isWholeRecord(rec) && !seeded.Has(seeded.TornRecordAccepted) {
			return corrupt(0, "redo record at offset %d is not what it was a moment ago", at.off)
		}
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
			db.log.Info("recovering from the redo log", "path", db.path, "changes", ndone, "of", f.nops, "seconds", now.Sub(begun).Seconds())
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
