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

// What no snapshot shows is dropped, though its place is not used again at once.
func TestResidentGarbage(t *testing.T) {
	db := loggedStore(t, filepath.Join(t.TempDir(), "s"), 5000)
	require.NoError(t, db.Sync())
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
	db.maxResident = 30 * minPageSize
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
