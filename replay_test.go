package folio

// replay_test.go tests opens that leave what they replay in memory and go on with the log.

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/foliokv/folio/internal/mmap"
	"github.com/stretchr/testify/require"
)

// killed returns a copy of db's file as a kill leaves it.
func killed(t *testing.T, db *DB) (path string, file []byte) {
	t.Helper()
	file, _ = fileNow(t, db)
	path = filepath.Join(t.TempDir(), "killed")
	require.NoError(t, os.WriteFile(path, file, 0o600))
	return path, file
}

func content(t *testing.T, db *DB) (b *docBucket) {
	t.Helper()
	require.NoError(t, db.View(func(tx *Tx) error { b = apiBucket(tx.Root()); return tx.Err() }))
	return b
}

// requireUnchanged checks that the file at path holds want.
func requireUnchanged(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got), "the file was changed")
}

// reopened opens the copy of a killed store, and checks that nothing is lost or written.
func reopened(t *testing.T, db *DB) *DB {
	t.Helper()
	want, st := content(t, db), db.Stats()
	path, file := killed(t, db)
	again := testStore(t, path, nil)
	requireSameBucket(t, want, content(t, again), "")
	now := again.Stats()
	require.Equal(t, st.Newest, now.Newest)
	require.Equal(t, now.Newest, now.Durable)
	require.LessOrEqual(t, now.LogUsed, st.LogUsed) // a check writes the newest commit
	require.Equal(t, now.LogUsed > 0, now.Resident > 0)
	require.Zero(t, now.PagesWritten)
	require.Zero(t, now.Syncs)
	requireUnchanged(t, path, file)
	return again
}

// putRandom puts a value that is like no other.
func putRandom(t *testing.T, db *DB, rng *rand.Rand, key string, size int) {
	t.Helper()
	value := make([]byte, size)
	for i := 0; i+8 <= size; i += 8 {
		binary.LittleEndian.PutUint64(value[i:], rng.Uint64())
	}
	require.NoError(t, db.Update(func(tx *Tx) error { return tx.Put([]byte(key), value) }))
}

// A replay copies the pages that it needs, up to a limit, and reads the others in the mapping.
func TestReplayOfManyPages(t *testing.T) {
	const npairs = 2 * maxCopies / maxPageSize * 3
	db := testStore(t, filepath.Join(t.TempDir(), "s"), &Options{PageSize: maxPageSize})
	rng := rand.New(rand.NewPCG(5, 1))
	require.NoError(t, db.Update(func(tx *Tx) error {
		for i := range npairs {
			require.NoError(t, tx.Put(fmt.Appendf(nil, "%08d", i), make([]byte, 15_000)))
		}
		return nil
	}))
	defer withoutCheckpoints(t, db)()
	put := func(n int) {
		t.Helper()
		require.NoError(t, db.Update(func(tx *Tx) error {
			for range n {
				require.NoError(t, tx.Put(fmt.Appendf(nil, "%08d+", rng.IntN(npairs)), fmt.Append(nil, rng.Uint64())))
			}
			return nil
		}))
	}
	put(1) // which may add the log
	put(1)
	before := db.Stats()
	put(npairs)
	st := db.Stats()
	require.Equal(t, before.Logged+1, st.Logged)
	require.Greater(t, st.Resident, int64(maxCopies)*5/4, "more than is copied")
	mustBeSound(t, reopened(t, db))
}

// Whatever read fails in a recovery, the open says so, or does without; it takes nothing for
// damage, and nothing is lost.
func TestRecoveryReadFails(t *testing.T) {
	db := loggedStore(t, filepath.Join(t.TempDir(), "s"), 3000)
	for i := range 20 {
		fill(t, db, i*150, i*150+1, 100)
	}
	want := content(t, db)
	path, file := killed(t, db)
	h, nfailed := intercept(t, path), 0
	for fails := 1; ; fails++ {
		require.NoError(t, os.WriteFile(path, file, 0o600))
		nreads := 0
		h.setFail(func(op mmap.Op) error {
			if op.Kind != mmap.OpRead {
				return nil
			}
			if nreads++; nreads == fails {
				return syscall.EIO
			}
			return nil
		})
		db, err := Open(path, 0, nil)
		if err != nil {
			require.ErrorIs(t, err, syscall.EIO)
			require.NotErrorIs(t, err, ErrCorrupt)
			nfailed++
			continue
		}
		requireSameBucket(t, want, content(t, db), "")
		require.NoError(t, db.Close())
		if nreads < fails {
			break
		}
	}
	require.Greater(t, nfailed, 30, "each leaf is read")
}

// A store is changed, killed and opened again, many times over, and loses nothing: with
// runs by reference, checkpoints, checks and backups between.
func TestReplayStaysInMemory(t *testing.T) {
	const seed = 3
	rng := rand.New(rand.NewPCG(seed, 1))
	db := loggedStore(t, filepath.Join(t.TempDir(), "s"), 3000)
	nresumed := 0
	for range 60 {
		for range rng.IntN(12) {
			switch rng.IntN(6) {
			case 0:
				putRandom(t, db, rng, fmt.Sprint("run ", rng.IntN(3)), 66_000+rng.IntN(9000))
			case 1:
				putRandom(t, db, rng, fmt.Sprintf("%08d", rng.IntN(3000)), rng.IntN(6000))
			default:
				require.NoError(t, db.Update(func(tx *Tx) error { changeForDoc(t, tx, rng); return nil }))
			}
		}
		switch rng.IntN(12) {
		case 0:
			require.NoError(t, db.Sync())
		case 1:
			mustBeSound(t, db)
		case 2:
			require.NoError(t, db.View(func(tx *Tx) error { _, err := tx.WriteTo(io.Discard); return err }))
		}
		again := reopened(t, db)
		if again.Stats().LogUsed > 0 {
			nresumed++
		}
		require.NoError(t, db.Close())
		db = again
	}
	require.Greater(t, nresumed, 40)
	mustBeSound(t, db)
	require.NoError(t, db.Close())
	db = testStore(t, db.Path(), nil)
	require.Zero(t, db.Stats().LogUsed, "closing makes a checkpoint")
	mustBeSound(t, db)
}

// Runs that the records name are needed for a second replay, though the first has let go of
// them: their places are not written before a checkpoint.
func TestReplayedRunsStay(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 1))
	db := loggedStore(t, filepath.Join(t.TempDir(), "s"), 3000)
	for i := range 3 {
		putRandom(t, db, rng, fmt.Sprint("wide ", i), 100_000)
	}
	for i := range 3 {
		require.NoError(t, db.Update(func(tx *Tx) error { return tx.Delete(fmt.Append(nil, "wide ", i)) }))
	}
	require.NoError(t, db.Sync()) // room for runs
	fill(t, db, 0, 1, 80)
	require.NoError(t, db.Sync())
	putRandom(t, db, rng, "run", 70_000)
	putRandom(t, db, rng, "run", 71_000)
	require.Positive(t, db.Stats().LogUsed)
	db = reopened(t, db)
	for i := range 12 { // the search for places goes round
		putRandom(t, db, rng, fmt.Sprint("another ", i), 69_000)
		db = reopened(t, db)
	}
	require.NoError(t, db.Sync())
	mustBeSound(t, db)
}

// The segments that hold what was replayed are not written anew before a checkpoint.
func TestReplayedRecordsStay(t *testing.T) {
	db := loggedStore(t, filepath.Join(t.TempDir(), "s"), 3000)
	for i := range 200 { // so that the log has several segments
		fill(t, db, i, i+1, 100)
	}
	require.NoError(t, db.Sync())
	withoutCheckpoints(t, db)
	logged := func() bool {
		before := db.Stats().Logged
		fill(t, db, 7, 8, 100)
		return db.Stats().Logged > before
	}
	for logged() {
	}
	for range 10 {
		require.True(t, logged())
	}
	db = reopened(t, db)
	withoutCheckpoints(t, db)
	for n := 0; logged(); n++ {
		if n%20 == 0 {
			db = reopened(t, db)
			withoutCheckpoints(t, db)
		}
	}
	mustBeSound(t, db)
}

// A replay that is too large to stay in memory becomes a commit in the file.
func TestReplayThatIsTooLarge(t *testing.T) {
	db := loggedStore(t, filepath.Join(t.TempDir(), "s"), 3000)
	require.NoError(t, db.Sync())
	for i := range 40 {
		fill(t, db, i*70, i*70+1, 90)
	}
	require.Positive(t, db.Stats().LogUsed)
	want := content(t, db)
	path, _ := killed(t, db)
	again := testStore(t, path, &Options{DirtyLimit: 32 << 10})
	requireSameBucket(t, want, content(t, again), "")
	require.Zero(t, again.Stats().LogUsed)
	require.Positive(t, again.Stats().PagesWritten)
	require.Greater(t, again.Stats().Newest, db.Stats().Newest)
	mustBeSound(t, again)
}

// A store that does not log, or is not to be written, is recovered in its own way.
func TestReplayWithoutALog(t *testing.T) {
	db := loggedStore(t, filepath.Join(t.TempDir(), "s"), 3000)
	fill(t, db, 0, 1, 90)
	want := content(t, db)
	for _, opts := range []Options{{Sync: SyncOff}, {Sync: SyncInterval}, {TwoPhase: true}, {ReadOnly: true}} {
		path, file := killed(t, db)
		again := testStore(t, path, &opts)
		requireSameBucket(t, want, content(t, again), "")
		require.Zero(t, again.Stats().LogUsed)
		mustBeSound(t, again)
		if opts.ReadOnly {
			requireUnchanged(t, path, file)
		}
	}
}

// A record that knows durable what it follows stands for the proof of that: its pages are
// not read.
func TestRecordStandsForTheProof(t *testing.T) {
	db := loggedStore(t, filepath.Join(t.TempDir(), "s"), 3000)
	for i := range 100 { // many pages to be proven
		fill(t, db, i*30, i*30+1, 95)
	}
	require.NoError(t, db.Sync())
	nread := func() (n int) { // pages that are not the log's
		path, _ := killed(t, db)
		h := intercept(t, path)
		require.NoError(t, testStore(t, path, &Options{ReadOnly: true}).Close())
		for off := range h.reads {
			in := func(e extent) bool { return off >= int64(e.start)<<db.shift && off < int64(e.end())<<db.shift }
			if !slices.ContainsFunc(db.redo.segments, in) {
				n++
			}
		}
		return n
	}
	require.Greater(t, nread(), 40)
	fill(t, db, 0, 1, 100)
	require.Positive(t, db.Stats().LogUsed)
	require.Less(t, nread(), 20)
}

// What was replayed counts for the limits: where the log has passed its own, an open has a
// checkpoint made at once.
func TestReplayCallsForACheckpoint(t *testing.T) {
	db := loggedStore(t, filepath.Join(t.TempDir(), "s"), 3000)
	fillUntil := func(enough func() bool) {
		for i := 0; !enough(); i++ {
			require.Less(t, i, 10_000)
			fill(t, db, i%3000, i%3000+1, 90)
		}
	}
	fillUntil(func() bool { return db.Stats().LogSize > minLogLimit }) // checkpoints make it grow
	require.NoError(t, db.Sync())
	resume := withoutCheckpoints(t, db)
	fillUntil(func() bool { return db.Stats().LogUsed >= minLogLimit })
	path, _ := killed(t, db)
	resume()
	again := testStore(t, path, nil)
	require.Eventually(t, func() bool { return again.Stats().Checkpoints.Count == 1 }, 10*time.Second, time.Millisecond)
	st := again.Stats()
	require.Equal(t, CheckpointLog, st.Checkpoints.Reason)
	require.Equal(t, st.Newest, st.Checkpoint)
	require.Zero(t, st.LogUsed)
	mustBeSound(t, again)
}
