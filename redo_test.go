package folio

// redo_test.go tests the redo log from the inside: what is logged and what is not,
// where records go, and that a replay makes what they say.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/foliokv/folio/internal/mmap"
	"github.com/stretchr/testify/require"
)

// loggedStore returns a store with n pairs whose small commits are logged, at path.
func loggedStore(t *testing.T, path string, n int) *DB {
	db := testStore(t, path, nil)
	fill(t, db, 0, n, 100)
	require.NoError(t, db.Update(func(tx *Tx) error { return tx.Put([]byte("large"), make([]byte, 300_000)) }))
	require.NoError(t, db.Update(func(tx *Tx) error { return tx.Delete([]byte("large")) })) // room for runs
	before := db.Stats().Logged
	for i := range 100 {
		fill(t, db, i, i+1, 100)
		if db.Stats().Logged > before+3 {
			return db
		}
	}
	require.Fail(t, "nothing is logged")
	return nil
}

// withoutCheckpoints keeps db from making any, so that its log fills up, until resume is
// called, or the test ends. Where the test keeps it from them already, it goes on doing so.
func withoutCheckpoints(t *testing.T, db *DB) (resume func()) {
	if _, held := heldCheckpoints.LoadOrStore(db, true); held {
		return func() {}
	}
	db.syncing.Lock()
	resume = sync.OnceFunc(func() {
		heldCheckpoints.Delete(db)
		db.syncing.Unlock()
	})
	t.Cleanup(resume)
	return resume
}

// setMaxResident sets how many bytes of pages are kept; the checkpointer looks at it, too.
func setMaxResident(db *DB, nbytes int64) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.maxResident = nbytes
}

// heldCheckpoints are the stores that make no checkpoints for their tests.
var heldCheckpoints sync.Map

// fileNow returns db's file, and the durable commit that it holds: no commit and no
// checkpoint, for which a slow machine may give time, comes between.
func fileNow(t *testing.T, db *DB) (file []byte, durable txid) {
	t.Helper()
	db.writer <- struct{}{}
	defer func() { <-db.writer }()
	defer withoutCheckpoints(t, db)()
	file, err := os.ReadFile(db.Path())
	require.NoError(t, err)
	return file, db.durableTxid()
}

// crashed returns a copy of db's file as a crash may leave it: the commits since the last
// checkpoint are in the log alone.
func crashed(t *testing.T, db *DB) string {
	file, durable := fileNow(t, db)
	for slot, n := range db.slots {
		if n > durable {
			clear(file[slot*db.psize : (slot+1)*db.psize])
		}
	}
	path := filepath.Join(t.TempDir(), "crashed")
	require.NoError(t, os.WriteFile(path, file, 0o600))
	return path
}

// requireReplay checks that a crash of db loses nothing: a store opened on what the disk
// has shows the same. It returns that store.
func requireReplay(t *testing.T, db *DB, opts *Options) *DB {
	t.Helper()
	again := testStore(t, crashed(t, db), opts)
	var want *docBucket
	require.NoError(t, db.View(func(tx *Tx) error { want = apiBucket(tx.Root()); return nil }))
	require.NoError(t, again.View(func(tx *Tx) error {
		requireSameBucket(t, want, apiBucket(tx.Root()), "")
		return nil
	}))
	mustBeSound(t, again)
	return again
}

// Every kind of change, in every order, is replayed as it was made.
func TestReplayOfEveryChange(t *testing.T) {
	seed := uint64(1)
	rng := rand.New(rand.NewPCG(seed, 2))
	db := loggedStore(t, filepath.Join(t.TempDir(), "s"), 3000)
	nreplayed := 0
	for round := range 300 {
		require.NoError(t, db.Update(func(tx *Tx) error {
			for range 1 + rng.IntN(3) {
				changeForDoc(t, tx, rng)
			}
			if rng.IntN(3) == 0 {
				err := tx.Nested(func(tx *Tx) error {
					changeForDoc(t, tx, rng)
					if rng.IntN(2) == 0 {
						return errUndone
					}
					return nil
				})
				if err != nil && !errors.Is(err, errUndone) {
					return err
				}
			}
			return nil
		}))
		if round%10 == 0 {
			if db.Stats().LogUsed > 0 {
				nreplayed++
			}
			requireReplay(t, db, nil)
		}
		if round%70 == 69 {
			require.NoError(t, db.Sync())
		}
	}
	require.Greater(t, nreplayed, 15)
}

var errUndone = errors.New("undone")

// Ids of buckets are those that they had, though others were made and undone.
func TestReplayKeepsBucketIds(t *testing.T) {
	db := loggedStore(t, filepath.Join(t.TempDir(), "s"), 3000)
	for i := range 5 {
		require.NoError(t, db.Update(func(tx *Tx) error {
			tx.Nested(func(tx *Tx) error { tx.CreateBucket([]byte("never")); return errUndone })
			b, err := tx.CreateBucket(fmt.Append(nil, "bucket", i))
			require.NoError(t, err)
			_, err = b.CreateBucket([]byte("below"))
			return errors.Join(err, b.Put([]byte("k"), []byte("v")))
		}))
	}
	require.Positive(t, db.Stats().LogUsed)
	again := requireReplay(t, db, nil)
	ids := func(db *DB) (ids []uint64) {
		require.NoError(t, db.View(func(tx *Tx) error {
			for i := range 5 {
				b := tx.Bucket(fmt.Append(nil, "bucket", i))
				ids = append(ids, b.t.rec.id, b.Bucket([]byte("below")).t.rec.id)
			}
			return nil
		}))
		return ids
	}
	require.Equal(t, ids(db), ids(again))
}

// The log is filled to its end, grows, is filled in turn, and used again after a
// checkpoint; at each point a crash loses nothing.
func TestLogIsUsedAgain(t *testing.T) {
	db := loggedStore(t, filepath.Join(t.TempDir(), "s"), 3000)
	seen, wrapped := map[int]bool{}, false
	for i := range 600 {
		fill(t, db, i, i+1, 100)
		at := db.redo.next
		wrapped = wrapped || len(seen) > 1 && at.segment == 0
		seen[at.segment] = true
		if i%50 == 0 {
			requireReplay(t, db, nil)
		}
		if i == 300 {
			require.NoError(t, db.Sync())
		}
	}
	require.Greater(t, len(db.redo.segments), 1)
	require.True(t, wrapped)
	mustBeSound(t, db)
}

// A log that is half full gets a segment beside the commits, which none of them writes to
// before a checkpoint has made it ready.
func TestLogGrowsAhead(t *testing.T) {
	db := loggedStore(t, filepath.Join(t.TempDir(), "s"), 3000)
	put := func(i int) {
		require.NoError(t, db.Update(func(tx *Tx) error {
			for n := range 200 {
				if err := tx.Put(fmt.Appendf(nil, "%08d", n*15), bytes.Repeat([]byte{byte(i)}, 100)); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	i := 0
	for ; db.Stats().LogSize < grownAhead; i++ {
		require.Less(t, i, 1000)
		put(i)
	}
	require.NoError(t, db.Sync())
	resume := withoutCheckpoints(t, db)
	for size := db.Stats().LogSize; db.Stats().LogSize == size; i++ {
		require.Less(t, i, 1000)
		put(i)
	}
	before := db.Stats()
	require.Equal(t, len(db.redo.segments)-1, db.readySegments())
	for ; ; i++ {
		require.Less(t, i, 1000)
		put(i)
		if db.Stats().Logged == before.Logged {
			break // the log is full, and grows no more
		}
		before = db.Stats()
		requireReplay(t, db, nil)
	}
	require.Equal(t, before.LogSize, db.Stats().LogSize)
	put(i)
	resume()
	require.NoError(t, db.Sync())
	require.Len(t, db.redo.segments, db.readySegments())
	newest := len(db.redo.segments) - 1
	for first := db.newest.txid; db.redo.last[newest] <= first; i++ {
		require.Less(t, i, 1000)
		put(i)
	}
	requireReplay(t, db, nil)
	mustBeSound(t, db)
}

// What a record would be larger for than the pages, or than a record may be, is
// committed directly; the next small commit is logged again.
func TestLargeTransactionsAreNotLogged(t *testing.T) {
	db := loggedStore(t, filepath.Join(t.TempDir(), "s"), 3000)
	for _, change := range []func(tx *Tx){
		func(tx *Tx) { // in order, so that there are few pages
			for i := range 5000 {
				require.NoError(t, tx.Put(fmt.Appendf(nil, "sequential %06d", i), make([]byte, 100)))
			}
		},
		func(tx *Tx) {
			for i := range maxRecord/50_000 + 2 {
				require.NoError(t, tx.Put(fmt.Append(nil, "medium", i), make([]byte, 50_000)))
			}
		},
	} {
		before := db.Stats()
		require.NoError(t, db.Update(func(tx *Tx) error { change(tx); return nil }))
		after := db.Stats()
		require.Equal(t, before.Logged, after.Logged)
		require.Equal(t, after.Newest, after.Checkpoint)
		for i := range 4 { // the log may grow
			fill(t, db, i, i+1, 100)
		}
		require.Greater(t, db.Stats().Logged, after.Logged)
		requireReplay(t, db, nil)
	}
}

// A store with records to replay that is opened for reading only, or on a full disk, shows
// what they say, and nothing of the file is changed.
func TestReplayInMemory(t *testing.T) {
	db := loggedStore(t, filepath.Join(t.TempDir(), "s"), 3000)
	require.NoError(t, db.Update(func(tx *Tx) error {
		return errors.Join(tx.Put([]byte("large"), bytes.Repeat([]byte("L"), 70_000)), tx.Put([]byte("k"), []byte("v")))
	}))
	fill(t, db, 0, 1, 100)
	require.Positive(t, db.Stats().LogUsed)
	cut := db.redo.offset(db.redo.next, db.psize)
	fill(t, db, 1, 2, 100)
	path := crashed(t, db)
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	before[cut+recordHeader]++ // a record that does not count: so the rest is to be written
	require.NoError(t, os.WriteFile(path, before, 0o600))
	unchanged := func() {
		t.Helper()
		after, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, bytes.Equal(before, after), "the file was changed")
	}
	look := func(opts *Options) *DB {
		t.Helper()
		db, err := Open(path, 0, opts)
		require.NoError(t, err)
		require.NoError(t, db.View(func(tx *Tx) error {
			require.Equal(t, "v", string(tx.Get([]byte("k"))))
			require.Len(t, tx.Get([]byte("large")), 70_000)
			return nil
		}))
		mustBeSound(t, db)
		require.ErrorIs(t, db.Update(func(*Tx) error { return nil }), ErrDatabaseReadOnly)
		return db
	}
	require.NoError(t, look(&Options{ReadOnly: true}).Close())
	unchanged()

	h := intercept(t, path)
	h.setFail(func(op mmap.Op) error {
		if op.Kind == mmap.OpWrite || op.Kind == mmap.OpAllocate {
			return syscall.ENOSPC
		}
		return nil
	})
	db = look(nil)
	require.True(t, db.IsReadOnly())
	require.ErrorIs(t, db.Update(func(*Tx) error { return nil }), syscall.ENOSPC, "it says why")
	require.NoError(t, db.Close())
	unchanged()
	h.setFail(nil)
	db = testStore(t, path, nil)
	require.NoError(t, db.Update(func(tx *Tx) error { return tx.Put([]byte("k"), []byte("w")) }))
	mustBeSound(t, db)
}

// Small records share a block of what the page cache has. Who writes one writes the sectors
// from its own on, and lets alone those before it.
func TestRecordsShareBlocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	h := intercept(t, path)
	db := loggedStore(t, path, 3000)
	defer withoutCheckpoints(t, db)()
	shared := 0
	for i := range 20 {
		h.reset()
		at := db.redo.offset(db.redo.next, db.psize)
		end := (at + logBlock) &^ (logBlock - 1)
		before, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, db.Update(func(tx *Tx) error { return tx.Put([]byte("n"), fmt.Append(nil, i)) }))
		require.EqualValues(t, at+logSector, db.redo.offset(db.redo.next, db.psize))
		h.mu.Lock()
		wrote := h.wrote
		h.mu.Unlock()
		require.Len(t, wrote, 1)
		require.Equal(t, []int64{at, end - at}, []int64{wrote[0].Off, wrote[0].NBytes})
		after, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, bytes.Equal(before[:at], after[:at]), "what was before the record")
		require.True(t, bytes.Equal(before[end:], after[end:]), "what is behind its block")
		if end-at < logBlock {
			shared++
		}
	}
	require.Greater(t, shared, 15)
	again := testStore(t, crashed(t, db), nil)
	require.NoError(t, again.View(func(tx *Tx) error {
		require.Equal(t, "19", string(tx.Get([]byte("n"))))
		return nil
	}))
	mustBeSound(t, again)
}

// A record is believed only as a whole, after the one before it, and with its runs.
func TestRecordsThatAreNotBelieved(t *testing.T) {
	base := loggedStore(t, filepath.Join(t.TempDir(), "s"), 3000)
	require.NoError(t, base.Sync())
	var offs []int64
	for i := range 3 {
		require.NoError(t, base.Update(func(tx *Tx) error {
			if i == 1 {
				require.NoError(t, tx.Put([]byte("large"), bytes.Repeat([]byte("L"), 70_000)))
			}
			return tx.Put([]byte("n"), fmt.Append(nil, i))
		}))
		offs = append(offs, base.redo.offset(base.redo.next, base.psize)-logSector)
	}
	var run int64
	require.NoError(t, base.View(func(tx *Tx) error {
		c, _, err := tx.Root().t.get([]byte("large"))
		run = int64(getRunRef(c.value).pgno) * minPageSize
		return err
	}))
	path := crashed(t, base)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	for _, c := range []struct {
		name   string
		change func(file []byte)
		want   string
	}{
		{"all", func([]byte) {}, "2"},
		{"the last is gone", func(f []byte) { clear(f[offs[2]:][:logSector]) }, "1"},
		{"the last is torn", func(f []byte) { f[offs[2]+recordHeader] ^= 1 }, "1"},
		{"the middle is gone", func(f []byte) { clear(f[offs[1]:][:logSector]) }, "0"},
		{"the first is torn", func(f []byte) { f[offs[0]+offRecordBase] ^= 1 }, ""},
		{"a run is torn", func(f []byte) { f[run+60_000] ^= 1 }, "0"},
		{"another salt", func(f []byte) { reseal(f[offs[1]:], func(rec []byte) { rec[offRecordSalt] ^= 1 }) }, "0"},
		{"another predecessor", func(f []byte) { reseal(f[offs[1]:], func(rec []byte) { rec[offRecordPrev] ^= 1 }) }, "0"},
		{"after another commit", func(f []byte) { reseal(f[offs[1]:], func(rec []byte) { rec[offRecordBase] ^= 1 }) }, "0"},
		{"longer than its segment", func(f []byte) { f[offs[1]+offRecordLen+2] = 0xff }, "0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := bytes.Clone(whole)
			c.change(file)
			path := filepath.Join(t.TempDir(), "s")
			require.NoError(t, os.WriteFile(path, file, 0o600))
			for range 2 { // once more after the recovery
				db, err := Open(path, 0, nil)
				require.NoError(t, err)
				require.NoError(t, db.View(func(tx *Tx) error {
					require.Equal(t, c.want, string(tx.Get([]byte("n"))))
					return nil
				}))
				mustBeSound(t, db)
				require.NoError(t, db.Close())
			}
		})
	}
}

// reseal changes a record and makes its sum right.
func reseal(rec []byte, change func(rec []byte)) {
	h := getRecordHead(rec)
	rec = rec[:h.nbytes]
	change(rec)
	h = getRecordHead(rec)
	h.seal(rec)
}

// A record that claims a durable commit which is not there is damage, and so is one whose
// sum is right but that makes no sense.
func TestRecordsThatAreDamage(t *testing.T) {
	base := loggedStore(t, filepath.Join(t.TempDir(), "s"), 3000)
	require.NoError(t, base.Sync())
	fill(t, base, 0, 1, 100)
	off := base.redo.offset(base.redo.next, base.psize) - logSector
	path := crashed(t, base)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	for name, change := range map[string]func(rec []byte){
		"durable":    func(rec []byte) { rec[offRecordDurable+2] = 1 },
		"kind":       func(rec []byte) { rec[recordHeader] = 200 },
		"length":     func(rec []byte) { rec[recordHeader+1] = 0xff },
		"no bucket":  func(rec []byte) { copy(rec[recordHeader:], []byte{opBucket, 1, 3, 'n', 'o', 't'}) },
		"not there":  func(rec []byte) { copy(rec[recordHeader:], []byte{opDeleteBucket, 1, 'x'}) },
		"empty name": func(rec []byte) { copy(rec[recordHeader:], []byte{opCreateBucket, 0, 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			file := bytes.Clone(whole)
			reseal(file[off:], change)
			path := filepath.Join(t.TempDir(), "s")
			require.NoError(t, os.WriteFile(path, file, 0o600))
			for _, readOnly := range []bool{false, true} {
				_, err := Open(path, 0, &Options{ReadOnly: readOnly})
				require.ErrorIs(t, err, ErrCorrupt)
				t.Log(err)
			}
			after, err := os.ReadFile(path)
			require.NoError(t, err)
			require.True(t, bytes.Equal(file, after), "the file was changed")
		})
	}
}

// A segment of the log that the free list has for free too is found.
func TestSegmentsAreChecked(t *testing.T) {
	db := loggedStore(t, filepath.Join(t.TempDir(), "s"), 3000)
	mustBeSound(t, db)
	db.writer <- struct{}{}
	segments := db.redo.segments
	db.newest.log.segments = append(segments[:len(segments):len(segments)], extent{segments[0].start, 1})
	<-db.writer
	found := ""
	for err := range db.Check(context.Background()) {
		found += err.Error()
	}
	require.True(t, strings.Contains(found, fmt.Sprintf("page %d", segments[0].start)), found)
	db.writer <- struct{}{}
	db.newest.log.segments = segments
	<-db.writer
}

// The redo log's coding: what a buffer holds is what changes reads.
func TestChangesRoundTrip(t *testing.T) {
	root := &tree{}
	below := &tree{parent: root, name: []byte("below")}
	deeper := &tree{parent: below, name: []byte{}}
	var r redoBuffer
	r.begin(true, false, root)
	r.put(root, []byte("k"), []byte("v"))
	r.delete(deeper, []byte("d"))
	mark := r.mark()
	r.put(below, []byte("undone"), nil)
	r.undo(mark)
	r.deleteRange(below, []byte("lo"), nil)
	r.deleteRange(below, nil, []byte{})
	r.createBucket(below, []byte("new"), 1<<40)
	r.deleteBucket(below, []byte("old"))
	r.moveBucket(below, []byte("moved"), deeper)
	r.sequence(root, 1<<63)
	require.Equal(t, 8, r.nops)
	var got []string
	for c := (changes{b: r.record[recordHeader:]}); len(c.b) > 0; {
		kind := c.next()
		require.False(t, c.bad)
		switch kind {
		case opBucket:
			got = append(got, fmt.Sprintf("bucket %q", c.path))
		case opPut:
			got = append(got, fmt.Sprintf("put %q %q", c.key, c.value))
		case opDelete, opDeleteBucket:
			got = append(got, fmt.Sprintf("%d %q", kind, c.key))
		case opDeleteRange:
			got = append(got, fmt.Sprintf("range %q %t %q %t", c.lo, c.lo == nil, c.hi, c.hi == nil))
		case opCreateBucket:
			got = append(got, fmt.Sprintf("create %q %d", c.key, c.number))
		case opMoveBucket:
			got = append(got, fmt.Sprintf("move %q to %q", c.key, c.path))
		case opSequence:
			got = append(got, fmt.Sprint("sequence ", c.number))
		}
	}
	require.Equal(t, []string{
		`put "k" "v"`, `bucket ["below" ""]`, `4 "d"`, `bucket ["below"]`, `range "lo" false "" true`, `range "" true "" false`,
		`create "new" 1099511627776`, `7 "old"`, `move "moved" to ["below" ""]`, `bucket []`, `sequence 9223372036854775808`,
	}, got)
}

// A store that has a limit, and room below it for what is in it, takes commit after commit:
// neither its log nor what waits for a checkpoint may use that room up.
func TestLogLeavesRoom(t *testing.T) {
	for _, npairs := range []int{1500, 4000, 5500} {
		db := testStore(t, filepath.Join(t.TempDir(), "s"), &Options{MaxSize: 1 << 20})
		fill(t, db, 0, npairs, 100)
		for i := range 400 {
			fill(t, db, i*13%npairs, i*13%npairs+1, 100)
		}
		require.NoError(t, db.Update(func(tx *Tx) error {
			for i := range 60 {
				if err := tx.Put(fmt.Appendf(nil, "%08d", i*89%npairs), make([]byte, 99)); err != nil {
					return err
				}
			}
			return nil
		}))
		require.LessOrEqual(t, db.Stats().FileSize, int64(1<<20))
		mustBeSound(t, db)
	}
}

// Who waits for an async commit beside Close is told that it is durable.
func TestWaitBesideClose(t *testing.T) {
	for range 100 {
		db := testStore(t, filepath.Join(t.TempDir(), "s"), nil)
		tx, err := db.Begin(true)
		require.NoError(t, err)
		require.NoError(t, tx.Put([]byte("k"), nil))
		wait, err := tx.CommitAsync()
		require.NoError(t, err)
		waited := make(chan error)
		go func() { waited <- wait() }()
		require.NoError(t, db.Close())
		require.NoError(t, <-waited)
	}
}

// A store whose commits are all async has a log, too: who waits for one waits for a record,
// and not for all pages.
func TestAsyncCommitsAreLogged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	h := intercept(t, path)
	db := testStore(t, path, nil)
	nsyncs := 0 // of the whole file
	h.setFail(func(op mmap.Op) error {
		if op.Kind == mmap.OpSync {
			nsyncs++
		}
		return nil
	})
	const ncommits, awaited = 200, 5
	for i := range ncommits {
		tx, err := db.Begin(true)
		require.NoError(t, err)
		require.NoError(t, tx.Put(fmt.Appendf(nil, "%08d", i), make([]byte, 100)))
		wait, err := tx.CommitAsync()
		require.NoError(t, err)
		if i%awaited == awaited-1 {
			require.NoError(t, wait())
		}
	}
	require.Greater(t, db.Stats().Logged, uint64(ncommits-4*awaited))
	require.Less(t, nsyncs, 5)
	h.setFail(nil)
	requireReplay(t, db, nil)
}

// A checkpoint's commit is the durable one only after its sync: until then a crash needs
// the log and the pages of the one before.
func TestCheckpointCountsAfterItsSync(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	h := intercept(t, path)
	db := loggedStore(t, path, 3000)
	before := db.Stats()
	require.Less(t, before.Checkpoint, before.Durable)
	during := uint64(0)
	h.setFail(func(op mmap.Op) error {
		if op.Kind == mmap.OpSync {
			during = db.Stats().Checkpoint
		}
		return nil
	})
	require.NoError(t, db.Sync())
	h.setFail(nil)
	require.Equal(t, before.Checkpoint, during)
	require.Equal(t, before.Durable, db.Stats().Checkpoint)
}

// manyPagesChanged commits a change of each of more leaves than it takes for the record to be
// synced ahead.
func manyPagesChanged(db *DB, text string) error {
	return db.Update(func(tx *Tx) error {
		for i := 0; i < 30_000; i += 10 {
			if err := tx.Put(fmt.Appendf(nil, "%08d", i), []byte(text)); err != nil {
				return err
			}
		}
		return nil
	})
}

// roomForRecords makes changes until the log has room for records of many pages.
func roomForRecords(t *testing.T, db *DB, change func() error) {
	for i := 0; db.Stats().LogSize < 1<<20; i++ {
		require.Less(t, i, 100)
		require.NoError(t, change())
	}
}

// The record of a commit of many pages is written and synced before its pages are ready,
// once. Should the commit fail after that, also for want of room, no crash brings it back.
func TestRecordAheadOfItsPages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	h := intercept(t, path)
	db := loggedStore(t, path, 30_000)
	inLog := func(off int64) bool {
		for _, e := range db.redo.segments {
			if n := pgno(off >> db.shift); n >= e.start && n < e.end() {
				return true
			}
		}
		return false
	}
	roomForRecords(t, db, func() error { return manyPagesChanged(db, "zero") })
	require.NoError(t, db.Sync())
	withoutCheckpoints(t, db)
	before := db.Stats()
	require.NoError(t, manyPagesChanged(db, "one"))
	require.Equal(t, before.Logged+1, db.Stats().Logged)
	require.Equal(t, before.LogSyncs+1, db.Stats().LogSyncs)
	requireReplay(t, db, nil)

	for _, fault := range []error{syscall.EIO, syscall.ENOSPC} {
		records := 0
		setMaxResident(db, 0) // so that it has to write its pages
		h.setFail(func(op mmap.Op) error {
			if op.Kind != mmap.OpWrite || op.Off < int64(numMetas*db.psize) {
				return nil
			}
			if inLog(op.Off) {
				records++
				return nil
			}
			return fault
		})
		require.ErrorIs(t, manyPagesChanged(db, "two"), fault)
		h.setFail(nil)
		setMaxResident(db, maxResident)
		require.Equal(t, 2, records, "written, and wiped")
		again := requireReplay(t, db, nil)
		require.NoError(t, again.View(func(tx *Tx) error {
			require.Equal(t, "one", string(tx.Get([]byte("00000000"))))
			return nil
		}))
		require.NoError(t, manyPagesChanged(db, "one"))
		mustBeSound(t, db)
	}

	h.setFail(func(op mmap.Op) error {
		if op.Kind == mmap.OpSyncRange {
			return syscall.EIO
		}
		return nil
	})
	require.ErrorIs(t, manyPagesChanged(db, "three"), ErrSyncFailed)
	require.ErrorIs(t, manyPagesChanged(db, "four"), ErrSyncFailed)
	h.setFail(nil)
}

// A commit whose record was written, and for whose meta there was no room, is not found after
// a crash.
func TestNoRoomForTheMetaBehindARecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	h := intercept(t, path)
	db := loggedStore(t, path, 3000)
	put := func(value string) error {
		return db.Update(func(tx *Tx) error { return tx.Put([]byte("k"), []byte(value)) })
	}
	require.NoError(t, put("old"))
	withoutCheckpoints(t, db)
	setMaxResident(db, 0) // so that it writes its pages, and its meta
	h.setFail(func(op mmap.Op) error {
		if op.Kind == mmap.OpWrite && op.Off < int64(numMetas*db.psize) && op.NBytes == int64(db.psize) {
			h.setFail(nil)
			return syscall.ENOSPC
		}
		return nil
	})
	require.ErrorIs(t, put("new"), syscall.ENOSPC)
	setMaxResident(db, maxResident)
	again := requireReplay(t, db, nil)
	require.NoError(t, again.View(func(tx *Tx) error {
		require.Equal(t, "old", string(tx.Get([]byte("k"))))
		return nil
	}))
	require.NoError(t, put("newer"))
	mustBeSound(t, db)
}

// The number of a commit whose record was synced ahead is not used again where the commit
// failed before it wrote a page: the next one would be taken for synced.
func TestFailureBehindARecordAhead(t *testing.T) {
	const npairs = 90_000
	db := loggedStore(t, filepath.Join(t.TempDir(), "s"), npairs)
	change := func(text string) error { // each second leaf, so that the freelog's record is large
		return db.Update(func(tx *Tx) error {
			for i := 0; i < npairs; i += 70 {
				if err := tx.Put(fmt.Appendf(nil, "%08d", i), []byte(text)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	roomForRecords(t, db, func() error { return change("zero") })
	require.NoError(t, db.Sync())
	resume := withoutCheckpoints(t, db)
	reader, err := db.Begin(false) // so that no place is used again
	require.NoError(t, err)
	defer reader.Rollback()
	before := db.Stats()
	npages := db.at.work.npages
	require.NoError(t, change("one"))
	npages = db.at.work.npages - npages
	require.Equal(t, before.Logged+1, db.Stats().Logged)
	resume()
	require.NoError(t, db.Sync())
	nsyncs := db.Stats().LogSyncs
	for short := uint64(8); nsyncs == db.Stats().LogSyncs; short-- { // room for its pages, and not for the freelog's
		require.NotZero(t, short)
		db.opts.MaxSize = int64(db.newest.npages+npages-db.free.freePages()-short) << db.shift
		require.ErrorIs(t, change("two"), ErrMaxSize)
	}
	db.opts.MaxSize = 0
	withoutCheckpoints(t, db)
	before = db.Stats()
	fill(t, db, 1, 2, 100)
	after := db.Stats()
	require.Equal(t, before.Logged+1, after.Logged)
	require.Equal(t, before.LogSyncs+1, after.LogSyncs, "it is synced")
	again := requireReplay(t, db, nil)
	require.NoError(t, again.View(func(tx *Tx) error {
		require.Equal(t, "one", string(tx.Get([]byte("00000000"))))
		return nil
	}))
	mustBeSound(t, db)
}
