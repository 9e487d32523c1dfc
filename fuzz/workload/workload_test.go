package workload

// workload_test.go holds the sequence to its word: the same for every process, bounded,
// and never verified where it is not whole.

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/foliokv/folio"
	"github.com/stretchr/testify/require"
)

func open(t *testing.T, opts folio.Options) *folio.DB {
	db, err := folio.Open(filepath.Join(t.TempDir(), "w.folio"), 0o600, &opts)
	require.NoError(t, err)
	t.Cleanup(func() {
		for err := range db.Check(context.Background()) {
			t.Errorf("check: %v", err)
		}
		require.NoError(t, db.Close())
	})
	return db
}

func verify(t *testing.T, db *folio.DB, w *Workload) (n int) {
	t.Helper()
	require.NoError(t, db.View(func(tx *folio.Tx) (err error) {
		n, err = w.Verify(tx)
		return err
	}))
	return n
}

// TestSequence runs two epochs; a second sequence of the same seed, that began
// elsewhere, agrees, and the store grows and shrinks within its bounds.
func TestSequence(t *testing.T) {
	db := open(t, folio.Options{Sync: folio.SyncOff})
	w := New(1)
	require.Zero(t, verify(t, db, w))
	var most uint64
	var spent time.Duration
	nshrunk, last := 0, uint64(0)
	for n := 1; n <= 2*epochLen+20; n++ {
		require.NoError(t, db.Update(func(tx *folio.Tx) error {
			if err := w.Apply(tx, n); err != nil {
				return err
			}
			got, err := w.Verify(tx) // within the transaction too
			require.Equal(t, n, got)
			return err
		}))
		start := time.Now()
		require.Equal(t, n, verify(t, db, w))
		spent += time.Since(start)
		if n%97 == 0 {
			require.Equal(t, n, verify(t, db, New(1)))
			require.NoError(t, db.Sync())
		}
		pages := db.Stats().Pages
		if most = max(most, pages); pages < last {
			nshrunk++
		}
		last = pages
	}
	require.Positive(t, nshrunk, "the file was never cut short")
	t.Logf("at most %d pages; %d times cut short; %v to verify", most, nshrunk, spent/(2*epochLen))
}

// TestAgain applies a transaction again after it was rolled back.
func TestAgain(t *testing.T) {
	db := open(t, folio.Options{Sync: folio.SyncOff})
	w := New(2)
	for n := 1; n <= 100; n++ {
		for range 2 {
			tx, err := db.Begin(true)
			require.NoError(t, err)
			require.NoError(t, w.Apply(tx, n))
			require.NoError(t, tx.Rollback())
			require.Equal(t, n-1, verify(t, db, w))
		}
		require.NoError(t, db.Update(func(tx *folio.Tx) error { return w.Apply(tx, n) }))
	}
	require.Equal(t, 100, verify(t, db, w))
}

// TestViolations changes a store behind the sequence's back in small ways.
func TestViolations(t *testing.T) {
	db := open(t, folio.Options{Sync: folio.SyncOff})
	w := New(3)
	for n := range 40 {
		require.NoError(t, db.Update(func(tx *folio.Tx) error { return w.Apply(tx, n+1) }))
	}
	var bucket []byte
	require.NoError(t, db.View(func(tx *folio.Tx) error {
		return tx.ForEach(func(name []byte, _ *folio.Bucket) error { bucket = append([]byte(nil), name...); return nil })
	}))
	require.NotNil(t, bucket)
	for name, change := range map[string]func(tx *folio.Tx) error{
		"a pair more":         func(tx *folio.Tx) error { return tx.Put([]byte("k"), nil) },
		"a pair more, nested": func(tx *folio.Tx) error { return tx.Bucket(bucket).Put([]byte("k"), nil) },
		"a bucket more":       func(tx *folio.Tx) error { _, err := tx.CreateBucket([]byte("b")); return err },
		"a bucket less":       func(tx *folio.Tx) error { return tx.DeleteBucket(bucket) },
		"sequence":            func(tx *folio.Tx) error { _, err := tx.Root().NextSequence(); return err },
		"no stamp":            func(tx *folio.Tx) error { return tx.Delete([]byte(stampKey)) },
		"an older stamp":      stepStamp(39, w.digestOf(39)),
		"a newer stamp":       stepStamp(41, w.digestOf(41)),
		"another whole state": func(tx *folio.Tx) error {
			return do(tx, []step{stepSetSequence(nil, 7), func(tx *folio.Tx) error {
				sum, err := summarize(tx.Root())
				if err != nil {
					return err
				}
				return stepStamp(40, sum.digest())(tx)
			}})
		},
	} {
		tx, err := db.Begin(true)
		require.NoError(t, err)
		require.NoError(t, change(tx), name)
		_, err = w.Verify(tx)
		require.Error(t, err, name)
		t.Logf("%s: %.300v", name, err)
		require.NoError(t, tx.Rollback())
	}
	require.Equal(t, 40, verify(t, db, w))
}

// BenchmarkReplay is what a process that starts again spends on the model.
func BenchmarkReplay(b *testing.B) {
	w := New(4)
	b.ReportAllocs()
	for b.Loop() {
		w.seek(w.n + 1)
	}
}
