package folio

// redo.go is the redo log: how the changes of a commit are coded as a record, and where
// in the log records go.
//
// A durable commit of a few pairs would have to sync a path of scattered pages. Instead
// it writes what it changed, as one record, to the log, and syncs only that; the pages
// reach the disk at the next checkpoint. After a crash the records since then are
// replayed.
//
// The log is a list of segments: runs of pages that were written once, so that a later
// sync has no allocation to make durable. Records follow each other in a segment, each
// on sectors of its own, so that no durable sector ever changes; where one does not
// fit it goes to the start of the next segment that is free.
//
// Invariants:
//   - a record holds the sum and the commit of the record before it (the first: the
//     log's salt, and the commit whose meta has it), so a chain of records can be
//     followed from a meta, and from nowhere else;
//   - a segment is written again from its start only after the durable commit has
//     passed all records in it;
//   - a segment is used only after the commit that added it is durable with all its pages;
//     given up it is only by one that is synced as a whole.

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"
	"github.com/foliokv/folio/internal/seeded"
)

// logSector is what the log is counted in, whatever the page size: the least that a disk
// writes as a whole.
const logSector = 512

// logBlock is what the log is written in: what the page cache of most machines has as a
// page. A record is written with zeros up to the end of its last block, so that the kernel
// need not read what is there. The sectors before it in its first block get written to the
// disk once more, with what they hold.
const logBlock = 4096

// maxLogSegments is how many segments a meta has room for.
const maxLogSegments = 16

// A record, at the start of a sector:
//
//	field        meaning
//	sum u64      XXH64 of the rest of the record, its padding not included
//	prev u64     sum of the record before it; for the first after a meta with a new salt, that salt
//	salt u64     the log's salt
//	txid u64     the commit that it is the record of
//	base u64     the commit before that one
//	durable u64  the commit known durable when it was written
//	nbytes u32   length of the record, this header included
//	nops u32     number of changes
//	changes      as below; then zeros up to the end of the sector
const (
	offRecordSum     = 0
	offRecordPrev    = offRecordSum + 8
	offRecordSalt    = offRecordPrev + 8
	offRecordTxid    = offRecordSalt + 8
	offRecordBase    = offRecordTxid + 8
	offRecordDurable = offRecordBase + 8
	offRecordLen     = offRecordDurable + 8
	offRecordOps     = offRecordLen + 4
	recordHeader     = offRecordOps + 4
)

// Changes. Numbers are uvarints; bytes are their length and themselves. A change is
// one of the bucket that the last opBucket named, the root bucket at first.
const (
	opBucket       = 1 + iota // depth, then the name of each bucket on the way from the root
	opPut                     // key, value
	opPutRun                  // the reference to a run that holds key and value: runRefSize bytes
	opDelete                  // key
	opDeleteRange             // flags: 1 has lo, 2 has hi; lo, hi
	opCreateBucket            // name, id
	opDeleteBucket            // name
	opMoveBucket              // name, then depth and names of the bucket that it moves to
	opSequence                // the new sequence number
	opNothing                 // as long as opPutRun: a run that was gone again before the commit
	opNonce                   // 8 random bytes: see redoBuffer.begin
)

const nonceSize = 8

const (
	rangeHasLo = 1
	rangeHasHi = 2
)

// maxRecord is the largest record in bytes; what is larger is committed directly.
const maxRecord = 8 << 20

// logRunsFrom is the size in bytes from which a pair that is in a run is logged as a
// reference. Its pages then have to be synced apart from the record, which takes a
// second flush of the disk; to copy this much takes less.
const logRunsFrom = 64 << 10

// redoBuffer collects the changes of a transaction as they are made.
type redoBuffer struct {
	wanted bool   // they are to be logged
	record []byte // room for the header, then the changes
	nops   int
	runs   []int // where in record there are references to runs that have no place yet
	at     *tree // the bucket that the last opBucket names, nil where that is not known
}

// redoMark is a place in a redoBuffer to go back to.
type redoMark struct{ nbytes, nops, nruns int }

// begin makes r ready for a transaction whose root bucket is root. Where first is true, it
// is that of the first record since the store was opened. A crash may have taken a record
// at its place and left the one behind it, which a record just like the lost one would
// bring back; so this one is like no other.
func (r *redoBuffer) begin(wanted, first bool, root *tree) {
	const keep = 4 << 20
	if cap(r.record) > keep {
		r.record = nil
	}
	if r.record == nil && wanted {
		r.record = make([]byte, recordHeader, logBlock)
	}
	*r = redoBuffer{wanted: wanted, record: r.record[:min(recordHeader, cap(r.record))], runs: r.runs[:0], at: root}
	if wanted && first && !seeded.Has(seeded.NonceLeftOut) {
		var nonce [nonceSize]byte
		rand.Read(nonce[:]) // it never fails
		r.record = append(append(r.record, opNonce), nonce[:]...)
	}
}

func (r *redoBuffer) mark() redoMark { return redoMark{len(r.record), r.nops, len(r.runs)} }

// undo drops the changes since the mark.
func (r *redoBuffer) undo(m redoMark) {
	if !r.wanted {
		return
	}
	r.record, r.nops, r.runs, r.at = r.record[:m.nbytes], m.nops, r.runs[:m.nruns], nil
}

// add begins a change of t that takes about nbytes; false where nothing is to be logged.
func (r *redoBuffer) add(t *tree, kind byte, nbytes int) bool {
	if !r.wanted {
		return false
	}
	if len(r.record)+nbytes > maxRecord {
		r.wanted, r.record = false, nil
		return false
	}
	if r.at != t {
		r.record = append(r.record, opBucket)
		r.addPath(t)
		r.at = t
	}
	r.record = append(r.record, kind)
	r.nops++
	return true
}

func (r *redoBuffer) addNumber(n uint64) { r.record = binary.AppendUvarint(r.record, n) }

func (r *redoBuffer) addBytes(b []byte) {
	r.addNumber(uint64(len(b)))
	r.record = append(r.record, b...)
}

// addPath names the bucket of t by the buckets on the way from the root.
func (r *redoBuffer) addPath(t *tree) {
	depth := 0
	for up := t; up.parent != nil; up = up.parent {
		depth++
	}
	r.addNumber(uint64(depth))
	r.addNames(t)
}

func (r *redoBuffer) addNames(t *tree) {
	if t.parent != nil {
		r.addNames(t.parent)
		r.addBytes(t.name)
	}
}

func (r *redoBuffer) put(t *tree, key, value []byte) {
	if r.add(t, opPut, len(key)+len(value)) {
		r.addBytes(key)
		r.addBytes(value)
	}
}

// putRun logs a pair that dirty run ref holds.
func (r *redoBuffer) putRun(t *tree, ref runRef) {
	if r.add(t, opPutRun, runRefSize) {
		at := len(r.record)
		r.runs = append(r.runs, at)
		r.record = append(r.record, make([]byte, runRefSize)...)
		putRunRef(r.record[at:], ref)
	}
}

func (r *redoBuffer) delete(t *tree, key []byte) {
	if r.add(t, opDelete, len(key)) {
		r.addBytes(key)
	}
}

func (r *redoBuffer) deleteRange(t *tree, lo, hi []byte) {
	if !r.add(t, opDeleteRange, len(lo)+len(hi)) {
		return
	}
	flags := uint64(0)
	if lo != nil {
		flags |= rangeHasLo
	}
	if hi != nil {
		flags |= rangeHasHi
	}
	r.addNumber(flags)
	r.addBytes(lo)
	r.addBytes(hi)
}

func (r *redoBuffer) createBucket(t *tree, name []byte, id uint64) {
	if r.add(t, opCreateBucket, len(name)) {
		r.addBytes(name)
		r.addNumber(id)
	}
}

func (r *redoBuffer) deleteBucket(t *tree, name []byte) {
	if r.add(t, opDeleteBucket, len(name)) {
		r.addBytes(name)
	}
}

// moveBucket logs that the bucket called name went from from to to; where both are has
// not changed by that.
func (r *redoBuffer) moveBucket(from *tree, name []byte, to *tree) {
	if r.add(from, opMoveBucket, len(name)) {
		r.addBytes(name)
		r.addPath(to)
		r.at = nil // what was below the moved bucket has another path now
	}
}

func (r *redoBuffer) sequence(t *tree, v uint64) {
	if r.add(t, opSequence, 0) {
		r.addNumber(v)
	}
}

// placeRuns fills in the references to runs, which have their places by now. A run that
// is gone again is skipped: what replaced or removed the pair is logged after it.
func (r *redoBuffer) placeRuns(w *layers, t txid) (runs []extent) {
	for _, at := range r.runs {
		encoded := r.record[at : at+runRefSize]
		ref := getRunRef(encoded)
		d := &w.pages[ref.pgno&^virtual]
		if !d.live() {
			r.record[at-1] = opNothing
			clear(encoded)
			continue
		}
		ref.pgno, ref.sum, ref.txid = d.place, d.sum, t
		putRunRef(encoded, ref)
		runs = append(runs, extent{d.place, uint64(d.npages)})
	}
	return runs
}

// recordHead is the header of a record.
type recordHead struct {
	sum, prev, salt     uint64
	txid, base, durable txid
	nbytes, nops        int
}

// seal fills in the header of a whole record and returns its sum.
func (h *recordHead) seal(rec []byte) uint64 {
	binary.LittleEndian.PutUint64(rec[offRecordPrev:], h.prev)
	binary.LittleEndian.PutUint64(rec[offRecordSalt:], h.salt)
	binary.LittleEndian.PutUint64(rec[offRecordTxid:], uint64(h.txid))
	binary.LittleEndian.PutUint64(rec[offRecordBase:], uint64(h.base))
	binary.LittleEndian.PutUint64(rec[offRecordDurable:], uint64(h.durable))
	binary.LittleEndian.PutUint32(rec[offRecordLen:], uint32(len(rec)))
	binary.LittleEndian.PutUint32(rec[offRecordOps:], uint32(h.nops))
	h.sum = xxhash.Sum64(rec[offRecordPrev:])
	binary.LittleEndian.PutUint64(rec, h.sum)
	return h.sum
}

// getRecordHead decodes the header at the start of rec.
func getRecordHead(rec []byte) recordHead {
	_ = rec[recordHeader-1]
	return recordHead{
		sum:     binary.LittleEndian.Uint64(rec[offRecordSum:]),
		prev:    binary.LittleEndian.Uint64(rec[offRecordPrev:]),
		salt:    binary.LittleEndian.Uint64(rec[offRecordSalt:]),
		txid:    txid(binary.LittleEndian.Uint64(rec[offRecordTxid:])),
		base:    txid(binary.LittleEndian.Uint64(rec[offRecordBase:])),
		durable: txid(binary.LittleEndian.Uint64(rec[offRecordDurable:])),
		nbytes:  int(binary.LittleEndian.Uint32(rec[offRecordLen:])),
		nops:    int(binary.LittleEndian.Uint32(rec[offRecordOps:])),
	}
}

// isWholeRecord reports whether rec, nbytes of its header long, was written as a whole.
func isWholeRecord(rec []byte) bool {
	return binary.LittleEndian.Uint64(rec) == xxhash.Sum64(rec[offRecordPrev:])
}

// --- places

// logPlace is a place in the log: a sector of a segment.
type logPlace struct {
	segment int
	sector  uint32
}

// logState is what a meta says of the log.
type logState struct {
	segments []extent // in the order in which they are filled
	next     logPlace // where the next record goes, if it fits
	sum      uint64   // of the record before it, or the salt
	salt     uint64
}

// sectors returns how many sectors the pages of e have, of psize bytes each.
func (e extent) sectors(psize int) uint64 { return e.npages * uint64(psize/logSector) }

// offset returns where in the file a place is, in bytes.
func (l *logState) offset(at logPlace, psize int) int64 {
	return int64(l.segments[at.segment].start)*int64(psize) + int64(at.sector)*logSector
}

// nbytes returns the size of the log.
func (l *logState) nbytes(psize int) (n int64) {
	for _, e := range l.segments {
		n += int64(e.npages) * int64(psize)
	}
	return n
}

// fits reports whether nsectors from at on lie in at's segment.
func (l *logState) fits(at logPlace, nsectors uint32, psize int) bool {
	return uint64(at.sector)+uint64(nsectors) <= l.segments[at.segment].sectors(psize)
}

// places yields the places where the record after l's last one can be: behind it, or at
// the start of another segment.
func (l *logState) places(yield func(logPlace) bool) {
	if len(l.segments) == 0 || !yield(l.next) {
		return
	}
	for i := range l.segments {
		if !yield(logPlace{segment: (l.next.segment + 1 + i) % len(l.segments)}) {
			return
		}
	}
}

// validate checks what can be told from the meta alone; npages is its page count.
func (l *logState) validate(npages uint64, psize int) string {
	if len(l.segments) == 0 {
		if l.next != (logPlace{}) || l.sum != 0 || l.salt != 0 {
			return "place in a redo log that has no segment"
		}
		return ""
	}
	for i, e := range l.segments {
		if e.start < numMetas || e.npages == 0 || uint64(e.start) > npages || e.npages > npages-uint64(e.start) {
			return fmt.Sprintf("redo log segment of %d pages at page %d", e.npages, e.start)
		}
		for _, o := range l.segments[:i] {
			if e.start < o.end() && o.start < e.end() {
				return fmt.Sprintf("two redo log segments have page %d", max(e.start, o.start))
			}
		}
	}
	if l.next.segment >= len(l.segments) || !l.fits(l.next, 0, psize) {
		return "place of the next redo record outside its segment"
	}
	return ""
}

// redoLog is the log as of the newest commit.
type redoLog struct {
	logState
	last  []txid // per segment: the newest commit with a record in it
	begun bool   // a record was written since the store was opened

	// The last segment, until a checkpoint has made it ready; mu guards it.
	coming extent
}

// load takes over what a meta says. What is in the segments is not known, so all may
// have records up to the meta's own commit.
func (l *redoLog) load(st logState, t txid) {
	l.logState, l.begun, l.coming = st, false, extent{}
	l.last = make([]txid, len(st.segments))
	for i := range l.last {
		l.last[i] = t
	}
}

// passRecords notes which is the newest commit with a record in each segment, 0 where there
// is none since the log was loaded.
func (l *redoLog) passRecords(last []txid) {
	if seeded.Has(seeded.ReplayedSegmentsFree) {
		return
	}
	for i, t := range last {
		l.last[i] = max(l.last[i], t)
	}
}

// place returns where a record of nbytes can go: behind the last one, or at the start
// of a segment whose records the durable commit has passed; nready segments can be used.
func (l *redoLog) place(nbytes int, durable txid, psize, nready int) (at logPlace, ok bool) {
	nsectors := logSectors(nbytes)
	for at := range l.places {
		if at.segment >= nready && !seeded.Has(seeded.SegmentUsedEarly) || !l.fits(at, nsectors, psize) {
			continue
		}
		if at == l.next || l.last[at.segment] <= durable || seeded.Has(seeded.SegmentReusedEarly) {
			return at, true
		}
	}
	return at, false
}

func logSectors(nbytes int) uint32 { return uint32((nbytes + logSector - 1) / logSector) }

// logBytes returns what a record of nbytes takes of the log: whole sectors.
func logBytes(nbytes int) int64 { return int64(logSectors(nbytes)) * logSector }
