package fuzz

// records_test.go takes a store's redo log apart, record by record: which ones count for a
// recovery, and which may never count again.

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/foliokv/folio"
	"github.com/stretchr/testify/require"
)

// recordStore is a store's file of which only the redo records of the last commits have
// reached the disk, and no meta or page of these.
type recordStore struct {
	psize   int
	file    []byte
	records []redoSegment // where they are
	states  []commitState // before the first, and after each
}

// record returns record i.
func (s *recordStore) record(i int) []byte {
	r := s.records[i]
	return s.file[r.off : r.off+r.nbytes]
}

func (s *recordStore) clone() *recordStore {
	c := *s
	c.file = bytes.Clone(s.file)
	return &c
}

// makeRecordStore runs a prologue that ends with a checkpoint, and then steps, each of
// which must be logged.
func makeRecordStore(t testing.TB, dir string, opts folio.Options, prologue, steps script) *recordStore {
	from, err := newOrigins(dir, opts).logged(prologue, false)
	require.NoError(t, err)
	r := newRunner(filepath.Join(dir, "records"), opts, from)
	require.NoError(t, os.WriteFile(r.path, from.image, 0o600))
	defer os.Remove(r.path)
	require.NoError(t, r.open())
	defer r.abandon()
	require.NoError(t, r.run(steps))
	require.EqualValues(t, len(steps), r.db.Stats().Logged)
	s := &recordStore{psize: r.psize(), states: r.states}
	s.file, err = os.ReadFile(r.path)
	require.NoError(t, err)
	copy(s.file[:numMetas*s.psize], from.image)
	s.records = redoRecords(s.file, s.psize)
	require.Len(t, s.records, len(steps))
	return s
}

// smallRecords are three records after a checkpoint.
func smallRecords(t testing.TB) *recordStore {
	return makeRecordStore(t, scratchDir(t), folio.Options{}, filling(2, 0), script{
		putting(stepAsync, 1, 100), putting(stepAsync, 2, 100), putting(stepAsync, 3, 100),
	})
}

// open opens a file and hands the store to look.
func openFile(t *testing.T, file []byte, look func(db *folio.DB)) (after []byte) {
	t.Helper()
	path := filepath.Join(scratchDir(t), "store")
	require.NoError(t, os.WriteFile(path, file, 0o600))
	db, err := folio.Open(path, 0o600, nil)
	require.NoError(t, err)
	look(db)
	require.NoError(t, sound(db))
	require.NoError(t, db.Close())
	after, err = os.ReadFile(path)
	require.NoError(t, err)
	return after
}

// shows returns which of the states a store is in, -1 for none.
func (s *recordStore) shows(t *testing.T, db *folio.DB) int {
	d, err := digestNow(db)
	require.NoError(t, err)
	return slices.IndexFunc(s.states, func(st commitState) bool { return st.digest == d })
}

// TestWhichRecordsCount changes one thing in a record, and makes its sum right where it is
// not the sum that is wrong: the log ends before it.
func TestWhichRecordsCount(t *testing.T) {
	whole := smallRecords(t)
	l := redoLayout()
	for _, c := range []struct {
		name   string
		change func(rec []byte)
	}{
		{"another salt", func(rec []byte) { rec[l.salt] ^= 1; sealRedo(rec) }},
		{"another record before it", func(rec []byte) { rec[l.prev] ^= 1; sealRedo(rec) }},
		{"another commit before it", func(rec []byte) { le.PutUint64(rec[l.base:], le.Uint64(rec[l.base:])+1); sealRedo(rec) }},
		{"a torn change", func(rec []byte) { rec[len(rec)-1] ^= 1 }},
		{"a torn header", func(rec []byte) { rec[l.txid] ^= 1 }},
		{"a length without a header", func(rec []byte) { le.PutUint32(rec[l.length:], uint32(l.header-1)) }},
		{"a length that leaves the segment", func(rec []byte) { le.PutUint32(rec[l.length:], 1<<20) }},
		{"nothing", clearBytes},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i := range whole.records {
				s := whole.clone()
				c.change(s.record(i))
				openFile(t, s.file, func(db *folio.DB) { require.Equal(t, i, s.shows(t, db)) })
			}
		})
	}
	openFile(t, whole.file, func(db *folio.DB) { require.Equal(t, len(whole.records), whole.shows(t, db)) })
}

func clearBytes(b []byte) { clear(b) }

// TestRecordKnowsMore has a record that knows a commit durable which is nowhere.
func TestRecordKnowsMore(t *testing.T) {
	s := smallRecords(t)
	rec := s.record(len(s.records) - 1)
	le.PutUint64(rec[redoLayout().durable:], le.Uint64(rec[redoLayout().txid:])+1)
	sealRedo(rec)
	path := filepath.Join(scratchDir(t), "store")
	require.NoError(t, os.WriteFile(path, s.file, 0o600))
	_, err := folio.Open(path, 0o600, nil)
	require.ErrorIs(t, err, folio.ErrCorrupt)
}

// TestRecoveryBeginsTheLogAnew looks for the salt of the log before in the one after: where
// a record does not count the log begins anew, else it goes on.
func TestRecoveryBeginsTheLogAnew(t *testing.T) {
	whole := smallRecords(t)
	metaAfter := func(file []byte) redoMeta {
		return getRedoMeta(newestMeta(openFile(t, file, func(*folio.DB) {}), whole.psize))
	}
	before := getRedoMeta(newestMeta(whole.file, whole.psize))
	after := metaAfter(whole.file)
	require.Equal(t, before.segments, after.segments)
	require.Equal(t, before.salt, after.salt)
	require.Equal(t, le.Uint64(whole.record(len(whole.records)-1)), after.sum)
	for i := range whole.records {
		s := whole.clone()
		rec := s.record(i)
		rec[len(rec)-1] ^= 1
		after := metaAfter(s.file)
		require.Equal(t, before.segments, after.segments)
		require.NotEqual(t, before.salt, after.salt)
		require.Equal(t, after.salt, after.sum)
	}
}

// TestLostRecordsStayLost: of two commits the first one's record is lost, and so both are.
// Then a commit is made that is like the first one, or takes its place in the log: the
// second must not come back with it. They are in two blocks: what follows a record in its own
// block is written over with it.
func TestLostRecordsStayLost(t *testing.T) {
	var lost *recordStore
	for nsmall := 0; lost == nil || lost.records[0].off/unitSize == lost.records[1].off/unitSize; nsmall++ {
		require.Less(t, nsmall, unitSize/redoSector)
		lost = makeRecordStore(t, scratchDir(t), folio.Options{}, filling(2, nsmall), script{putting(stepAsync, 1, 100), putting(stepAsync, 2, 100)})
	}
	clear(lost.record(0))
	for _, c := range []struct {
		name string
		key  int
	}{
		{"the same again", 1},
		{"another", 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(scratchDir(t), "store")
			require.NoError(t, os.WriteFile(path, lost.file, 0o600))
			r := newRunner(path, folio.Options{}, origin{lost.file, lost.states[0]})
			require.NoError(t, r.open())
			defer r.abandon()
			require.NoError(t, r.mustShow(0))
			require.NoError(t, r.step(putting(stepCommit, c.key, 100)))
			file, err := os.ReadFile(path)
			require.NoError(t, err)
			openFile(t, file, func(db *folio.DB) {
				d, err := digestNow(db)
				require.NoError(t, err)
				require.Equal(t, r.states[r.newest].digest, d)
			})
		})
	}
}
