package folio

// resident_test.go tests pages that are committed and not in the file yet.

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/foliokv/folio/internal/mmap"
	"github.com/stretchr/testify/require"
)

// Logged commits write their record alone; readers of old and of new snapshots find the
// pages in memory, and after the checkpoint in the file.
func TestResidentPages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	db := loggedStore(t, path, 3000)
	require.NoError(t, db.Sync())
	require.Zero(t, db.Stats().Resident)
	var readers []*Tx
	var want []*docBucket
	for i := range 40 {
		h := db.Stats()
		require.NoError(t, db.Update(func(tx *Tx) error {
			return tx.Put(fmt.Appendf(nil, "%08d", i*70), fmt.Append(nil, "version ", i))
		}))
		if db.Stats().Logged > h.Logged {
			require.Equal(t, h.PagesWritten, db.Stats().PagesWritten)
		}
		tx, err := db.Begin(false)
		require.NoError(t, err)
		readers, want = append(readers, tx), append(want, apiBucket(tx.Root()))
	}
	require.NotZero(t, db.Stats().Resident)
	requireReplay(t, db, nil)
	look := func() {
		t.Helper()
		for i, tx := range readers {
			requireSameBucket(t, want[i], apiBucket(tx.Root()), "")
			require.NoError(t, tx.Err())
		}
	}
	look()
	require.NoError(t, db.Sync())
	look()
	for i := range 200 {
		fill(t, db, i, i+1, 90)
	}
	look()
	mustBeSound(t, db)
	for _, tx := range readers {
		require.NoError(t, tx.Rollback())
	}
	fill(t, db, 0, 1, 90)
	require.NoError(t, db.Sync())
	fill(t, db, 1, 2, 90)
	require.Less(t, db.residents.size(), int64(20*minPageSize), "nobody reads what was let go of")
}

// A page that is in memory only is changed at its place, unless the target of a checkpoint
// shows it. Readers of each version see it.
func TestChangedInPlace(t *testing.T) {
	db := loggedStore(t, filepath.Join(t.TempDir(), "s"), 3000)
	resume := func() {}
	checkpoint := func() { // none comes by itself, however slow the machine is
		t.Helper()
		resume()
		require.NoError(t, db.Sync())
		resume = withoutCheckpoints(t, db)
	}
	checkpoint()
	var readers []*Tx
	var want []*docBucket
	var lent [][]byte
	change := func() (root pgno, nwaiting uint64) {
		t.Helper()
		i := len(readers)
		require.NoError(t, db.Update(func(tx *Tx) error {
			return tx.Put([]byte("00000070"), fmt.Append(nil, "version ", i))
		}))
		tx, err := db.Begin(false)
		require.NoError(t, err)
		t.Cleanup(func() { tx.Rollback() })
		readers, want = append(readers, tx), append(want, apiBucket(tx.Root()))
		lent = append(lent, tx.Get([]byte("00000070")))
		return db.newest.root.root.pgno, db.free.waitingPages()
	}
	look := func() {
		t.Helper()
		for i, tx := range readers {
			requireSameBucket(t, want[i], apiBucket(tx.Root()), "")
			require.NoError(t, tx.Err())
			require.Equal(t, fmt.Sprint("version ", i), string(lent[i]))
		}
	}
	for db.Stats().Resident == 0 { // the log has to begin
		require.Less(t, len(readers), 3)
		change()
	}
	first, nwaiting := change()
	resident := db.Stats().Resident
	for range 5 {
		n, nw := change()
		require.Equal(t, first, n)
		require.Equal(t, nwaiting, nw, "pages are let go of")
	}
	require.Equal(t, resident, db.Stats().Resident)
	look()
	target, err := db.beginSync()
	require.NoError(t, err)
	second, nw := change()
	require.NotEqual(t, first, second, "the target has the page")
	require.Greater(t, nw, nwaiting)
	for range 3 {
		n, _ := change()
		require.Equal(t, second, n)
	}
	require.NoError(t, db.writeTarget(&target, CheckpointAsked))
	require.NoError(t, db.fileSync())
	db.endSync(&target, 0, true)
	look()
	n, _ := change()
	require.Equal(t, second, n, "the target has not reached that")
	checkpoint()
	n, _ = change()
	require.NotEqual(t, second, n, "it is in the file")
	for range 5 { // as many as take the buffers of what was written
		change()
	}
	look()
	requireReplay(t, db, nil)
	copied := filepath.Join(t.TempDir(), "copy")
	for i := range readers {
		require.NoError(t, os.RemoveAll(copied))
		require.NoError(t, readers[i].CopyFile(copied, 0o600))
		again := testStore(t, copied, nil)
		requireSameBucket(t, want[i], content(t, again), "")
		mustBeSound(t, again)
		require.NoError(t, again.Close())
	}
	for _, tx := range readers[1:] {
		require.NoError(t, tx.Rollback())
	}
	change()
	require.NoError(t, readers[len(readers)-1].Rollback())
	checkpoint()
	change()
	require.Less(t, db.residents.size(), int64(20*minPageSize), "one reader keeps its version only")
	requireSameBucket(t, want[0], apiBucket(readers[0].Root()), "")
	require.NoError(t, readers[0].Rollback())
	require.NoError(t, readers[len(readers)-1].Rollback())
	mustBeSound(t, db)
}

// What no snapshot shows is dropped, though its place is not used again at once.
func TestResidentGarbage(t *testing.T) {
	db := loggedStore(t, filepath.Join(t.TempDir(), "s"), 5000)
	require.NoError(t, db.Sync())
	withoutCheckpoints(t, db) // they keep what they write
	most := int64(0)
	for i := range 600 {
		fill(t, db, i%3, i%3+1, 100)
		most = max(most, db.residents.size())
	}
	require.Less(t, most, int64(40*minPageSize))
}

// Beyond the limit commits write their pages, and those before them; nothing is lost.
func TestResidentLimit(t *testing.T) {
	db := loggedStore(t, filepath.Join(t.TempDir(), "s"), 5000)
	require.NoError(t, db.Sync())
	db.writer <- struct{}{}
	setMaxResident(db, 30*minPageSize)
	<-db.writer
	for i := range 200 {
		fill(t, db, i*25, i*25+1, 100)
		require.Less(t, db.Stats().Resident, int64(40*minPageSize))
		if i%40 == 0 {
			requireReplay(t, db, nil)
		}
	}
	mustBeSound(t, db)
}

// A commit whose pages would be too many waits for the checkpoint that is under way, and
// writes none of them.
func TestCommitsWaitForACheckpoint(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	h := intercept(t, path)
	db := loggedStore(t, path, 5000)
	require.NoError(t, db.Sync())
	db.writer <- struct{}{}
	setMaxResident(db, 100*minPageSize)
	<-db.writer
	change := func(from, n int) {
		t.Helper()
		require.NoError(t, db.Update(func(tx *Tx) error {
			for i := range n {
				require.NoError(t, tx.Put(fmt.Appendf(nil, "%08d", (from+i)*70), []byte("changed")))
			}
			return nil
		}))
	}
	resume := withoutCheckpoints(t, db)
	change(0, 35)
	change(35, 35)
	require.Greater(t, db.Stats().Resident, int64(60*minPageSize))
	resume()

	var once sync.Once
	begun, goOn := make(chan struct{}), make(chan struct{})
	h.setFail(func(op mmap.Op) error {
		if op.Kind == mmap.OpWrite && op.NBytes >= minPageSize {
			once.Do(func() { close(begun); <-goOn })
		}
		return nil
	})
	before, target := db.Stats(), make(chan error, 1)
	go func() { target <- db.Sync() }()
	<-begun
	go func() {
		for len(db.writer) == 0 { // until the commit below has begun; it may still be on its way
			time.Sleep(time.Millisecond)
		}
		time.Sleep(10 * time.Millisecond)
		close(goOn)
	}()
	change(20, 40)
	require.NoError(t, <-target)
	after := db.Stats()
	require.Equal(t, before.Logged+1, after.Logged)
	require.Equal(t, uint64(before.Resident/minPageSize)+1, after.PagesWritten-before.PagesWritten, "those of the checkpoint, and its meta")
	mustBeSound(t, db)
}

// A backup of a snapshot whose pages are in memory is whole, also while a checkpoint
// moves them to the file.
func TestBackupOfResidentPages(t *testing.T) {
	db := loggedStore(t, filepath.Join(t.TempDir(), "s"), 5000)
	for i := range 50 {
		require.NoError(t, db.Update(func(tx *Tx) error {
			return tx.Put(fmt.Appendf(nil, "%08d", i*70), bytes.Repeat([]byte{byte(i)}, 3000))
		}))
		if i == 30 {
			require.NoError(t, db.Sync())
		}
	}
	require.NotZero(t, db.Stats().Resident)
	for range 2 {
		copied := filepath.Join(t.TempDir(), "copy")
		require.NoError(t, db.View(func(tx *Tx) error { return tx.CopyFile(copied, 0o600) }))
		again := testStore(t, copied, nil)
		requireSame(t, db, again)
		mustBeSound(t, again)
		require.NoError(t, db.Sync())
	}
}

func requireSame(t *testing.T, a, b *DB) {
	t.Helper()
	require.NoError(t, a.View(func(x *Tx) error {
		return b.View(func(y *Tx) error {
			requireSameBucket(t, apiBucket(x.Root()), apiBucket(y.Root()), "")
			return nil
		})
	}))
}

// A check writes what is in memory, so that it checks the file.
func TestCheckOfResidentPages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	db := loggedStore(t, path, 3000)
	fill(t, db, 7, 8, 100)
	require.NotZero(t, db.Stats().Resident)
	mustBeSound(t, db)
	require.Zero(t, db.Stats().Resident)
	file, err := os.ReadFile(path)
	require.NoError(t, err)
	copied := filepath.Join(t.TempDir(), "killed")
	require.NoError(t, os.WriteFile(copied, file, 0o600))
	again := testStore(t, copied, nil)
	requireSame(t, db, again)
}

// Readers, a writer and checkpoints go on beside each other.
func TestResidentPagesUnderCheckpoints(t *testing.T) {
	db := loggedStore(t, filepath.Join(t.TempDir(), "s"), 5000)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				require.NoError(t, db.View(func(tx *Tx) error {
					a, b := tx.Get([]byte("00000000")), tx.Get([]byte("00004999"))
					require.Equal(t, a, b, "one commit")
					return nil
				}))
			}
		})
	}
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				require.NoError(t, db.checkpoint(CheckpointIdle))
			}
		}
	})
	for i := range 400 {
		require.NoError(t, db.Update(func(tx *Tx) error {
			v := fmt.Append(nil, "version ", i)
			if err := tx.Put([]byte("00000000"), v); err != nil {
				return err
			}
			if err := tx.Put(fmt.Appendf(nil, "%08d", 1+i*11%4000), v); err != nil {
				return err
			}
			return tx.Put([]byte("00004999"), v)
		}))
	}
	close(stop)
	wg.Wait()
	for err := range db.Check(context.Background()) {
		require.NoError(t, err)
	}
}
