package fuzz

// redo_test.go reads the redo log in a store's file as one would who has docs/format.md
// and nothing else, and makes the sums of records right.

import (
	"encoding/binary"
	"slices"
	"sync"

	"github.com/cespare/xxhash/v2"
)

// redoSector is what the log is counted in.
const redoSector = 512

// redoLayout is what is needed of the document.
var redoLayout = sync.OnceValue(func() (l struct {
	segment, sector, metaSum, metaSalt, segments, numSegments, segmentSize int // in a meta
	sum, prev, salt, txid, base, durable, length, changes, header          int // in a record
	bucket, put, putRun, remove, removeRange, createBucket, deleteBucket   byte
	moveBucket, sequence, nothing, nonce                                   byte
}) {
	d := formatDoc()
	m := func(name string) int { return d.at("meta page", name) }
	l.segment, l.sector, l.metaSum, l.metaSalt = m("log segment"), m("log sector"), m("log sum"), m("log salt")
	l.segments, l.segmentSize = m("log segments"), 12
	l.numSegments = (m("free head") - l.segments) / l.segmentSize
	r := func(name string) int { return d.at("redo record", name) }
	l.sum, l.prev, l.salt, l.txid, l.base = r("sum"), r("prev"), r("salt"), r("txid"), r("base")
	l.durable, l.length, l.changes = r("durable"), r("length"), r("changes")
	l.header = l.changes + 4
	c := func(name string) byte { return byte(d.at("redo changes", name)) }
	l.bucket, l.put, l.putRun, l.remove, l.removeRange = c("bucket"), c("put"), c("put run"), c("delete"), c("delete range")
	l.createBucket, l.deleteBucket, l.moveBucket = c("create bucket"), c("delete bucket"), c("move bucket")
	l.sequence, l.nothing = c("sequence"), c("nothing")
	l.nonce = byte(d["redo changes"]["nonce"].base)
	return l
})

// redoSegment is a segment of the log, in bytes of the file.
type redoSegment struct{ off, nbytes int64 }

func (s redoSegment) has(off int64) bool { return off >= s.off && off < s.off+s.nbytes }

// redoMeta is what a meta page says of the log.
type redoMeta struct {
	segments []redoSegment
	next     int64 // where in the file the next record goes, if it fits there
	sum      uint64
	salt     uint64
}

func isMetaPage(p []byte) bool {
	l := layout()
	return string(p[l.magic:l.magic+8]) == magicOfMeta && le.Uint64(p[l.sum:]) == sumOfPage(p)
}

func sumOfPage(p []byte) uint64 { return xxhash.Sum64(p[layout().pgno:]) }

func getRedoMeta(p []byte) (m redoMeta) {
	l := redoLayout()
	m.sum, m.salt = le.Uint64(p[l.metaSum:]), le.Uint64(p[l.metaSalt:])
	for i := range l.numSegments {
		at := p[l.segments+i*l.segmentSize:]
		start, npages := int64(le.Uint64(at)), int64(le.Uint32(at[8:]))
		if npages > 0 {
			m.segments = append(m.segments, redoSegment{start * int64(len(p)), npages * int64(len(p))})
		}
	}
	if i := int(le.Uint32(p[l.segment:])); i < len(m.segments) {
		m.next = m.segments[i].off + int64(le.Uint32(p[l.sector:]))*redoSector
	}
	return m
}

// newestMeta returns the newest whole meta page of a file.
func newestMeta(file []byte, psize int) (newest []byte) {
	l := layout()
	for slot := range int(l.numMetas) {
		if len(file) < (slot+1)*psize {
			break
		}
		p := file[slot*psize : (slot+1)*psize]
		if isMetaPage(p) && (newest == nil || le.Uint64(p[l.txid:]) > le.Uint64(newest[l.txid:])) {
			newest = p
		}
	}
	return newest
}

// redoRecord returns the record at the start of b, nil where none of the log with that
// salt is whole.
func redoRecord(b []byte, salt uint64) []byte {
	l := redoLayout()
	if len(b) < l.header || le.Uint64(b[l.salt:]) != salt {
		return nil
	}
	n := int(le.Uint32(b[l.length:]))
	if n < l.header || n > len(b) || le.Uint64(b[l.sum:]) != xxhash.Sum64(b[l.prev:n]) {
		return nil
	}
	return b[:n]
}

// sealRedo makes the sum of a record right, and returns it.
func sealRedo(rec []byte) uint64 {
	l := redoLayout()
	sum := xxhash.Sum64(rec[l.prev:])
	le.PutUint64(rec[l.sum:], sum)
	return sum
}

// redoRecords returns where in the file the records are that follow its newest meta, in
// their order, as offset and length.
func redoRecords(file []byte, psize int) (found []redoSegment) {
	m := getRedoMeta(newestMeta(file, psize))
	at := m.next
	for at != 0 {
		rec, off := findRedo(file, &m, at)
		if rec == nil {
			break
		}
		found = append(found, redoSegment{off, int64(len(rec))})
		m.sum = le.Uint64(rec)
		at = off + (int64(len(rec))+redoSector-1)/redoSector*redoSector
	}
	return found
}

// findRedo returns the record that follows the one with m.sum: at a place, or at the
// start of a segment.
func findRedo(file []byte, m *redoMeta, at int64) (rec []byte, off int64) {
	places := []int64{at}
	for _, s := range m.segments {
		places = append(places, s.off)
	}
	for _, off := range places {
		if off < 0 || off >= int64(len(file)) { // a meta may lie
			continue
		}
		if rec := redoRecord(file[off:], m.salt); rec != nil && le.Uint64(rec[redoLayout().prev:]) == m.sum {
			return rec, off
		}
	}
	return nil, 0
}

// --- changes

// redoChange is where in a record's changes one is.
type redoChange struct {
	kind     byte
	from, to int
}

// redoChanges lists the changes of a record, up to the first that makes no sense.
func redoChanges(rec []byte) (all []redoChange) {
	r := redoReader{b: rec, at: redoLayout().header}
	for r.at < len(r.b) {
		from := r.at
		kind := r.b[r.at]
		r.at++
		if r.skip(kind); r.bad {
			break
		}
		all = append(all, redoChange{kind, from, r.at})
	}
	return all
}

// redoReader reads changes.
type redoReader struct {
	b   []byte
	at  int
	bad bool
}

// skip reads what follows a change's kind.
func (r *redoReader) skip(kind byte) {
	l := redoLayout()
	switch kind {
	case l.bucket:
		r.path()
	case l.put:
		r.text()
		r.text()
	case l.putRun, l.nothing:
		r.bytes(uint64(layout().refSize))
	case l.nonce:
		r.bytes(8)
	case l.remove, l.deleteBucket:
		r.text()
	case l.removeRange:
		r.number()
		r.text()
		r.text()
	case l.createBucket:
		r.text()
		r.number()
	case l.moveBucket:
		r.text()
		r.path()
	case l.sequence:
		r.number()
	default:
		r.bad = true
	}
}

func (r *redoReader) number() uint64 {
	x, n := binary.Uvarint(r.b[min(r.at, len(r.b)):])
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.at += n
	return x
}

func (r *redoReader) bytes(n uint64) {
	if r.bad || n > uint64(len(r.b)-r.at) {
		r.bad = true
		return
	}
	r.at += int(n)
}

func (r *redoReader) text() { r.bytes(r.number()) }

func (r *redoReader) path() {
	for n := r.number(); n > 0 && !r.bad; n-- {
		r.text()
	}
}

// --- what a recorded run does with the log

// redoWatch follows what a run writes to the log.
type redoWatch struct {
	psize int
	redoMeta
	fresh map[int64]bool // segments, by offset, that no record has been in
}

// newRedoWatch begins with the file as the run finds it.
func newRedoWatch(file []byte, psize int) *redoWatch {
	w := &redoWatch{psize: psize, fresh: map[int64]bool{}}
	if p := newestMeta(file, psize); p != nil {
		w.redoMeta = getRedoMeta(p)
	}
	return w
}

// meta takes note of a meta that the run writes, and reports whether that adds a segment
// or gives all of them up.
func (w *redoWatch) meta(p []byte) (grown, dropped bool) {
	m := getRedoMeta(p)
	for _, s := range m.segments {
		if !slices.Contains(w.segments, s) {
			grown = true
			w.fresh[s.off] = true
		}
	}
	dropped = len(m.segments) == 0 && len(w.segments) > 0
	w.redoMeta = m
	return grown, dropped
}

// record returns the whole record that a write to the log is, and its segment; nil where
// it is none.
func (w *redoWatch) record(e event) (rec []byte, segment int) {
	segment = slices.IndexFunc(w.segments, func(s redoSegment) bool { return s.has(e.off) })
	if segment < 0 {
		return nil, 0
	}
	return redoRecord(e.data, w.salt), segment
}
