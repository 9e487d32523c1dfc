package fuzz

// redo_target_test.go writes arbitrary things into the records of a redo log that is to be
// replayed, and makes sums and chain right again, so that they get past them. What a
// replay then meets is an error that says so, or makes a store like any other: never a
// panic, and never less than a meta or a record knows durable.

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/foliokv/folio"
)

// FuzzRedo: edits are a list of edits of eight bytes each, see redoEdit; over is written
// over the changes of record `at`. mode says which store, when sums of pages are checked,
// and whether the chain of records is made right, or their own sums alone.
func FuzzRedo(f *testing.F) {
	stores := redoStores(f)
	for store := range stores {
		for _, more := range []uint8{0, 4, 8, 16} {
			f.Add(uint8(store)|more, []byte{}, uint8(0), []byte{})
		}
		r := rand.New(rand.NewPCG(2, uint64(store)))
		for kind := range redoEdits {
			for range 3 {
				e := make([]byte, editSize)
				le.PutUint64(e, r.Uint64())
				e[0] = byte(kind)
				f.Add(uint8(store), e, uint8(0), []byte{})
			}
		}
		for i, at := range stores[store].records {
			f.Add(uint8(store), []byte{}, uint8(i+1), slices.Clone(stores[store].file[at.off:][redoLayout().header:at.nbytes]))
		}
	}
	for _, changes := range liesOfRecords() {
		f.Add(uint8(1), []byte{}, uint8(1), changes)
	}
	f.Fuzz(func(t *testing.T, mode uint8, edits []byte, at uint8, over []byte) {
		guardTime(t)
		s := stores[int(mode&3)%len(stores)].clone()
		e := &examination{
			t: t, path: filepath.Join(scratchDir(t), "store"),
			verify: [4]folio.VerifyMode{folio.VerifyFirstRead, folio.VerifyFirstRead, folio.VerifyAlways, folio.VerifyOff}[mode>>3&3],
		}
		w := &redoForger{recordStore: s, log: func(format string, args ...any) { t.Logf(format, args...) }}
		w.overwrite(int(at), over)
		w.edit(edits)
		if !w.touched {
			e.holds, e.mustBeSound = s.states[len(s.states)-1].contents, true
		}
		w.reseal(mode&4 == 0)
		e.file, e.usedUp = s.file, w.usedUp()
		if w.knowsMore() {
			mustNotOpen(e)
			return
		}
		e.run()
	})
}

// liesOfRecords are changes that no transaction makes. There are the buckets b0 and b1, and
// pairs of the root bucket such as key0001.
func liesOfRecords() [][]byte {
	l := redoLayout()
	text := func(s string) string { return string(binary.AppendUvarint(nil, uint64(len(s)))) + s }
	number := func(n uint64) string { return string(binary.AppendUvarint(nil, n)) }
	change := func(kind byte, rest ...string) []byte { return []byte(string(kind) + strings.Join(rest, "")) }
	const most = 1<<64 - 1
	return [][]byte{
		change(l.put, text(""), text("value")),
		change(l.put, text(strings.Repeat("k", 40_000)), text("value")),
		change(l.put, text("b0"), text("a bucket's name")),
		change(l.remove, text("")),
		change(l.remove, text("b0")),
		change(l.removeRange, number(3), text("key0009"), text("key0001")),
		change(l.removeRange, number(most), text(""), text("")),
		change(l.removeRange, number(0), text("key0001"), text("key0009")),
		change(l.createBucket, text("new"), number(0)),
		change(l.createBucket, text("new"), number(1)),
		change(l.createBucket, text("new"), number(most)),
		change(l.createBucket, text("new"), number(1<<62)),
		change(l.createBucket, text("b0"), number(9)),
		change(l.createBucket, text("key0001"), number(9)),
		change(l.createBucket, text(""), number(9)),
		change(l.deleteBucket, text("")),
		change(l.deleteBucket, text("key0001")),
		change(l.deleteBucket, text("none")),
		change(l.moveBucket, text("b0"), number(1), text("b0")),
		change(l.moveBucket, text("b0"), number(0)),
		change(l.moveBucket, text("none"), number(1), text("b0")),
		change(l.moveBucket, text("b0"), number(1), text("none")),
		change(l.moveBucket, text("b0"), number(most)),
		change(l.sequence, number(most)),
		change(l.bucket, number(1), text("none")),
		change(l.bucket, number(1), text("key0001")),
		change(l.bucket, number(most)),
		change(l.put, number(most)),
		change(l.nothing),
		change(l.nonce),
		change(0),
	}
}

// mustNotOpen opens a store that has lost what was durable.
func mustNotOpen(e *examination) {
	e.must("write the file", os.WriteFile(e.path, e.file, 0o600))
	for _, readOnly := range []bool{true, false} {
		if e.open(readOnly) != nil {
			e.t.Fatal("a commit that was durable is gone, and nobody says so")
		}
		e.mustBeUnchanged("by an open that failed")
	}
}

// redoStores are stores with records to be replayed, of every kind of change.
func redoStores(tb testing.TB) []*recordStore {
	every := script{
		{kind: stepAsync, ops: []op{{kind: opPut, bucket: 3, key: 5, n: 2, step: 37, nbytes: 100}}},
		{kind: stepAsync, ops: []op{{kind: opMoveBucket, bucket: 3}, {kind: opSequence, bucket: 2}}},
		{kind: stepAsync, ops: []op{{kind: opPut, bucket: 2, key: 60, n: 1, step: 1, nbytes: 66_000}}},
		{kind: stepAsync, ops: []op{{kind: opDeleteRange, key: 20, n: 9}, {kind: opDelete, key: 100, n: 2, step: 3}}},
		{kind: stepAsync, ops: []op{{kind: opDeleteBucket, bucket: 1}, {kind: opPut, key: 1, n: 1, step: 1, nbytes: 3000}}},
		{kind: stepAsync, ops: []op{{kind: opPut, bucket: 2, key: 60, n: 1, step: 1, nbytes: 20}, {kind: opSequence}}},
	}
	prologue := append(filling(2, 0), step{kind: stepCommit, ops: []op{{kind: opPut, bucket: 1, n: 1, step: 1}, {kind: opPut, bucket: 2, n: 1, step: 1}}})
	return []*recordStore{
		makeRecordStore(tb, scratchDir(tb), folio.Options{}, filling(2, 0), script{putting(stepAsync, 1, 100), putting(stepAsync, 2, 100), putting(stepAsync, 60, 100)}),
		makeRecordStore(tb, scratchDir(tb), folio.Options{}, prologue, every),
		makeRecordStore(tb, scratchDir(tb), folio.Options{PageSize: 16384}, filling(14, 0), every[:2]),
	}
}

// redoForger changes records.
type redoForger struct {
	*recordStore
	log     func(format string, args ...any)
	touched bool
}

// redoEdit is one edit: a kind, the record, and arguments.
type redoEdit struct {
	kind, record byte
	args         [6]byte
}

// pick returns the place of a record in the file, up to the end of its sectors, and the
// part of it that its header says.
func (w *redoForger) pick(i int) (sectors, rec []byte) {
	at := w.records[i%len(w.records)]
	n := (at.nbytes + redoSector - 1) / redoSector * redoSector
	sectors = w.file[at.off : at.off+n : at.off+n]
	return sectors, sectors[:w.length(sectors)]
}

// length returns the length that a record's header says, as far as its sectors go.
func (w *redoForger) length(sectors []byte) int {
	l := redoLayout()
	return min(max(int(le.Uint32(sectors[l.length:])), l.header), len(sectors))
}

func (w *redoForger) overwrite(at int, over []byte) {
	if len(over) == 0 {
		return
	}
	w.touched = true
	l := redoLayout()
	blocks, _ := w.pick(at)
	n := copy(blocks[l.header:], over)
	le.PutUint32(blocks[l.length:], uint32(l.header+n))
	w.log("record %d: %d bytes of changes written over it", at, n)
}

func (w *redoForger) edit(b []byte) {
	for n := 0; len(b) >= editSize && n < mostEdits; n++ {
		e := redoEdit{b[0], b[1], [6]byte(b[2:8])}
		kind := &redoEdits[int(e.kind)%len(redoEdits)]
		blocks, rec := w.pick(int(e.record))
		kind.make(w, blocks, rec, &e)
		w.touched = true
		w.log("record %d: %s %s", int(e.record)%len(w.records), kind.name, hex.EncodeToString(e.args[:]))
		b = b[editSize:]
	}
}

// lieIn puts a wrong number in the place of the one of size bytes at the start of b.
func lieIn(b []byte, size int, args []byte) {
	var raw [8]byte
	copy(raw[:], b[:size])
	is, v := le.Uint64(raw[:]), uint64(args[1])
	switch args[0] % 5 {
	case 0:
		is += v%16 + 1
	case 1:
		is -= v%16 + 1
	case 2:
		is = [...]uint64{0, 1, 1 << 16, 1<<31 - 1, 1<<32 - 1, 1 << 40, 1<<62 - 1, 1 << 63, 1<<64 - 1}[v%9]
	case 3:
		is ^= 1 << (v % uint64(8*size))
	case 4:
		is = v
	}
	le.PutUint64(raw[:], is)
	copy(b[:size], raw[:size])
}

// redoEdits are the kinds of edits. Arguments that do not fit the record do nothing.
var redoEdits = []struct {
	name string
	make func(w *redoForger, blocks, rec []byte, e *redoEdit)
}{
	{"bytes at an offset", func(_ *redoForger, _, rec []byte, e *redoEdit) {
		copy(rec[int(binary.BigEndian.Uint16(e.args[:]))%len(rec):], e.args[2:])
	}},
	{"field of the header", func(_ *redoForger, blocks, _ []byte, e *redoEdit) {
		l := redoLayout()
		fields := []field{{l.prev, 8}, {l.salt, 8}, {l.txid, 8}, {l.base, 8}, {l.durable, 8}, {l.length, 4}, {l.changes, 4}}
		f := fields[int(e.args[0])%len(fields)]
		lieIn(blocks[f.off:], f.size, e.args[1:])
	}},
	{"kind of a change", func(_ *redoForger, _, rec []byte, e *redoEdit) {
		if c, ok := pickChange(rec, e.args[0]); ok {
			rec[c.from] = e.args[1] % 16
		}
	}},
	{"byte of a change", func(_ *redoForger, _, rec []byte, e *redoEdit) {
		if c, ok := pickChange(rec, e.args[0]); ok {
			rec[c.from+int(e.args[1])%(c.to-c.from)] = e.args[2]
		}
	}},
	{"change taken out", func(w *redoForger, blocks, rec []byte, e *redoEdit) {
		if c, ok := pickChange(rec, e.args[0]); ok {
			w.splice(blocks, c.from, c.to, nil)
		}
	}},
	{"change twice", func(w *redoForger, blocks, rec []byte, e *redoEdit) {
		if c, ok := pickChange(rec, e.args[0]); ok {
			w.splice(blocks, c.to, c.to, slices.Clone(rec[c.from:c.to]))
		}
	}},
	{"change of another record", func(w *redoForger, blocks, rec []byte, e *redoEdit) {
		_, from := w.pick(int(e.args[1]))
		c, ok := pickChange(rec, e.args[0])
		if other, found := pickChange(from, e.args[2]); ok && found {
			w.splice(blocks, c.from, c.from, slices.Clone(from[other.from:other.to]))
		}
	}},
	{"field of a run reference", func(_ *redoForger, _, rec []byte, e *redoEdit) {
		l := layout()
		fields := []field{{l.refPgno, 8}, {l.refSum, 8}, {l.refTxid, 8}, {l.refPages, 4}, {l.refKeyLen, 4}, {l.refValueLen, 4}}
		f := fields[int(e.args[0])%len(fields)]
		for _, c := range redoChanges(rec) {
			if c.kind == redoLayout().putRun {
				lieIn(rec[c.from+1+f.off:], f.size, e.args[1:])
			}
		}
	}},
	{"cut short", func(_ *redoForger, blocks, rec []byte, e *redoEdit) {
		l := redoLayout()
		n := l.header + int(binary.BigEndian.Uint16(e.args[:]))%(len(rec)-l.header+1)
		le.PutUint32(blocks[l.length:], uint32(n))
	}},
	{"changes of another record", func(w *redoForger, blocks, rec []byte, e *redoEdit) {
		_, from := w.pick(int(e.args[0]))
		w.splice(blocks, redoLayout().header, len(rec), slices.Clone(from[redoLayout().header:]))
	}},
	{"what the meta says of the log", func(w *redoForger, _, _ []byte, e *redoEdit) {
		l := redoLayout()
		m := newestMeta(w.file, w.psize)
		fields := []field{
			{l.segment, 4}, {l.sector, 4}, {l.metaSum, 8}, {l.metaSalt, 8},
			{l.segments, 8}, {l.segments + 8, 4}, {l.segments + l.segmentSize, 8}, {l.segments + l.segmentSize + 8, 4},
		}
		f := fields[int(e.args[0])%len(fields)]
		lieIn(m[f.off:], f.size, e.args[1:])
		le.PutUint64(m[layout().sum:], sumOfPage(m))
	}},
}

// splice puts b in the place of the bytes of a record from from up to to, as far as its
// blocks have room.
func (w *redoForger) splice(blocks []byte, from, to int, b []byte) {
	rec := blocks[:w.length(blocks)]
	now := slices.Concat(rec[:from], b, rec[to:])
	n := copy(blocks, now)
	le.PutUint32(blocks[redoLayout().length:], uint32(n))
}

// pickChange returns a change of a record, if there is one.
func pickChange(rec []byte, arg byte) (redoChange, bool) {
	all := redoChanges(rec)
	if len(all) == 0 {
		return redoChange{}, false
	}
	return all[int(arg)%len(all)], true
}

// reseal makes the sums of all records right, and where chain is set what they say of each
// other and of the meta.
func (w *redoForger) reseal(chain bool) {
	l := redoLayout()
	page := newestMeta(w.file, w.psize)
	m, base := getRedoMeta(page), le.Uint64(page[layout().txid:])
	for i := range w.records {
		_, rec := w.pick(i)
		if chain {
			le.PutUint64(rec[l.prev:], m.sum)
			le.PutUint64(rec[l.salt:], m.salt)
			le.PutUint64(rec[l.base:], base)
		}
		m.sum, base = sealRedo(rec), le.Uint64(rec[l.txid:])
	}
}

// counting returns the records that count, if the runs that they name are there.
func (w *redoForger) counting() (recs [][]byte) {
	l := redoLayout()
	page := newestMeta(w.file, w.psize)
	reached := le.Uint64(page[layout().txid:])
	for _, at := range redoRecords(w.file, w.psize) {
		rec := w.file[at.off : at.off+at.nbytes]
		if le.Uint64(rec[l.base:]) != reached {
			break
		}
		reached = le.Uint64(rec[l.txid:])
		recs = append(recs, rec)
	}
	return recs
}

// knowsMore reports whether a record that surely counts knows a commit durable that is
// newer than any that can be had.
func (w *redoForger) knowsMore() bool {
	l := redoLayout()
	page := newestMeta(w.file, w.psize)
	reached, durable, sure := le.Uint64(page[layout().txid:]), uint64(0), true
	for _, rec := range w.counting() {
		if sure {
			durable = max(durable, le.Uint64(rec[l.durable:]))
		}
		reached = max(reached, le.Uint64(rec[l.txid:]))
		for _, c := range redoChanges(rec) {
			sure = sure && c.kind != l.putRun
		}
	}
	return durable > reached
}

// usedUp reports whether the numbers of commits may be used up by what is in the log.
func (w *redoForger) usedUp() bool {
	for i := range w.records {
		if _, rec := w.pick(i); le.Uint64(rec[redoLayout().txid:]) > 1<<40 {
			return true
		}
	}
	return false
}
