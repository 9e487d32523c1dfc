package folio_test

// db_test.go tests the contract of the public API: errors, ends of transactions,
// lifetimes of slices, cursors under change, opening and closing.

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/foliokv/folio"
	"github.com/stretchr/testify/require"
)

// newDB opens a new store that the test's end closes, after a Check.
func newDB(t testing.TB, opts *folio.Options) *folio.DB {
	t.Helper()
	return openDB(t, filepath.Join(t.TempDir(), "test.folio"), opts)
}

func openDB(t testing.TB, path string, opts *folio.Options) *folio.DB {
	t.Helper()
	db, err := folio.Open(path, 0o600, opts)
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := checkAll(db); !errors.Is(err, folio.ErrDatabaseNotOpen) {
			require.NoError(t, err)
		}
		require.NoError(t, db.Close())
	})
	return db
}

// checkAll returns all that Check finds.
func checkAll(db *folio.DB) error {
	var errs []error
	for err := range db.Check(context.Background()) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func put(t testing.TB, db *folio.DB, kv ...string) {
	t.Helper()
	require.NoError(t, db.Update(func(tx *folio.Tx) error {
		for i := 0; i < len(kv); i += 2 {
			if err := tx.Put([]byte(kv[i]), []byte(kv[i+1])); err != nil {
				return err
			}
		}
		return nil
	}))
}

func get(t testing.TB, db *folio.DB, key string) (value string) {
	t.Helper()
	require.NoError(t, db.View(func(tx *folio.Tx) error {
		value = string(tx.Get([]byte(key)))
		return nil
	}))
	return value
}

func TestGetTellsEmptyFromAbsent(t *testing.T) {
	db := newDB(t, nil)
	check := func(tx *folio.Tx) error {
		require.Nil(t, tx.Get([]byte("absent")))
		v := tx.Get([]byte("empty"))
		require.NotNil(t, v)
		require.Empty(t, v)
		require.Nil(t, tx.Get([]byte("bucket")))
		require.Nil(t, tx.Get(nil))
		return nil
	}
	require.NoError(t, db.Update(func(tx *folio.Tx) error {
		require.NoError(t, tx.Put([]byte("empty"), nil))
		_, err := tx.CreateBucket([]byte("bucket"))
		require.NoError(t, err)
		return check(tx)
	}))
	require.NoError(t, db.View(check))
}

func TestArguments(t *testing.T) {
	db := newDB(t, nil)
	long := make([]byte, folio.MaxKeySize+1)
	require.NoError(t, db.Update(func(tx *folio.Tx) error {
		require.ErrorIs(t, tx.Put(nil, nil), folio.ErrKeyRequired)
		require.ErrorIs(t, tx.Put([]byte{}, nil), folio.ErrKeyRequired)
		require.ErrorIs(t, tx.Put(long, nil), folio.ErrKeyTooLarge)
		require.NoError(t, tx.Put(long[:folio.MaxKeySize], []byte("longest")))
		require.Equal(t, "longest", string(tx.Get(long[:folio.MaxKeySize])))
		require.Nil(t, tx.Get(long))
		require.NoError(t, tx.Delete(long))
		require.NoError(t, tx.Delete(nil))
		_, err := tx.CreateBucket(nil)
		require.ErrorIs(t, err, folio.ErrBucketNameRequired)
		_, err = tx.CreateBucketIfNotExists(long)
		require.ErrorIs(t, err, folio.ErrKeyTooLarge)
		require.Nil(t, tx.Bucket(nil))
		require.Nil(t, tx.Bucket(long))
		require.ErrorIs(t, tx.DeleteBucket([]byte("none")), folio.ErrBucketNotFound)
		return nil
	}))
	_, err := folio.Open(filepath.Join(t.TempDir(), "x"), 0o600, &folio.Options{PageSize: 5000})
	require.ErrorContains(t, err, "power of two")
}

func TestValueTooLarge(t *testing.T) {
	db := newDB(t, nil)
	huge := make([]byte, folio.MaxValueSize+1) // never touched, so it takes no memory
	require.NoError(t, db.Update(func(tx *folio.Tx) error {
		require.ErrorIs(t, tx.Put([]byte("k"), huge), folio.ErrValueTooLarge)
		return nil
	}))
}

func TestIncompatible(t *testing.T) {
	db := newDB(t, nil)
	require.NoError(t, db.Update(func(tx *folio.Tx) error {
		_, err := tx.CreateBucket([]byte("b"))
		require.NoError(t, err)
		require.NoError(t, tx.Put([]byte("p"), []byte("v")))
		require.ErrorIs(t, tx.Put([]byte("b"), nil), folio.ErrIncompatibleValue)
		require.ErrorIs(t, tx.Delete([]byte("b")), folio.ErrIncompatibleValue)
		_, err = tx.CreateBucket([]byte("p"))
		require.ErrorIs(t, err, folio.ErrIncompatibleValue)
		_, err = tx.CreateBucketIfNotExists([]byte("p"))
		require.ErrorIs(t, err, folio.ErrIncompatibleValue)
		require.ErrorIs(t, tx.DeleteBucket([]byte("p")), folio.ErrIncompatibleValue)
		_, err = tx.CreateBucket([]byte("b"))
		require.ErrorIs(t, err, folio.ErrBucketExists)
		require.Nil(t, tx.Bucket([]byte("p")))
		_, err = tx.Root().DeleteRange(nil, nil)
		require.ErrorIs(t, err, folio.ErrIncompatibleValue)
		require.EqualValues(t, 2, tx.Root().Len())
		c := tx.Cursor()
		k, v := c.First()
		require.Equal(t, "b", string(k))
		require.Nil(t, v)
		require.ErrorIs(t, c.Delete(), folio.ErrIncompatibleValue)
		return nil
	}))
}

func TestReadOnlyTransaction(t *testing.T) {
	db := newDB(t, nil)
	put(t, db, "a", "1")
	require.NoError(t, db.View(func(tx *folio.Tx) error {
		require.ErrorIs(t, tx.Put([]byte("a"), nil), folio.ErrTxNotWritable)
		require.ErrorIs(t, tx.Delete([]byte("a")), folio.ErrTxNotWritable)
		_, err := tx.CreateBucket([]byte("a"))
		require.ErrorIs(t, err, folio.ErrTxNotWritable)
		require.ErrorIs(t, tx.Nested(func(*folio.Tx) error { return nil }), folio.ErrTxNotWritable)
		_, err = tx.Root().DeleteRange(nil, nil)
		require.ErrorIs(t, err, folio.ErrTxNotWritable)
		require.ErrorIs(t, tx.Root().SetSequence(3), folio.ErrTxNotWritable)
		require.ErrorIs(t, tx.MoveBucket([]byte("a"), nil, nil), folio.ErrTxNotWritable)
		require.ErrorIs(t, tx.Cursor().Delete(), folio.ErrTxNotWritable)
		require.Error(t, tx.Commit(), "View ends its transaction itself")
		require.Error(t, tx.Rollback())
		require.False(t, tx.Writable())
		require.Same(t, db, tx.DB())
		return nil
	}))
}

// What was had from a transaction gives nothing after its end, and never another
// transaction's data, though the state behind is used again.
func TestUseAfterEnd(t *testing.T) {
	db := newDB(t, nil)
	put(t, db, "a", "1")
	for _, writable := range []bool{false, true} {
		tx, err := db.Begin(writable)
		require.NoError(t, err)
		root, c, r := tx.Root(), tx.Cursor(), tx.Root()
		c.First()
		require.NoError(t, tx.Rollback())
		require.ErrorIs(t, tx.Rollback(), folio.ErrTxClosed)
		require.ErrorIs(t, tx.Commit(), folio.ErrTxClosed)

		other, err := db.Begin(writable) // it takes the pooled state
		require.NoError(t, err)
		require.Equal(t, "1", string(other.Get([]byte("a"))))
		require.Nil(t, tx.Get([]byte("a")))
		require.Nil(t, root.Get([]byte("a")))
		require.Nil(t, tx.Root().Get([]byte("a")))
		require.Nil(t, tx.Bucket([]byte("a")))
		require.ErrorIs(t, tx.Put([]byte("a"), nil), folio.ErrTxClosed)
		require.ErrorIs(t, root.Put([]byte("a"), nil), folio.ErrTxClosed)
		require.ErrorIs(t, root.ForEach(nil), folio.ErrTxClosed)
		require.ErrorIs(t, tx.ForEach(nil), folio.ErrTxClosed)
		require.ErrorIs(t, tx.Err(), folio.ErrTxClosed)
		require.ErrorIs(t, c.Delete(), folio.ErrTxClosed)
		_, err = tx.CommitAsync()
		require.ErrorIs(t, err, folio.ErrTxClosed)
		_, err = tx.WriteTo(&bytes.Buffer{})
		require.ErrorIs(t, err, folio.ErrTxClosed)
		k, _ := c.Next()
		require.Nil(t, k)
		k, _ = c.First()
		require.Nil(t, k)
		require.Zero(t, r.Len())
		require.Zero(t, r.Count(nil, nil))
		require.Zero(t, tx.ID())
		require.Zero(t, tx.Size())
		require.Nil(t, tx.DB())
		for range r.All() {
			t.Fatal("a closed transaction yields a pair")
		}
		require.NoError(t, other.Rollback())
	}
}

func TestNestedClosesItsHandles(t *testing.T) {
	db := newDB(t, nil)
	require.NoError(t, db.Update(func(tx *folio.Tx) error {
		var leaked *folio.Tx
		var bucket *folio.Bucket
		require.NoError(t, tx.Nested(func(tx *folio.Tx) error {
			leaked = tx
			var err error
			bucket, err = tx.CreateBucket([]byte("b"))
			return err
		}))
		require.ErrorIs(t, leaked.Put([]byte("k"), nil), folio.ErrTxClosed)
		require.ErrorIs(t, bucket.Put([]byte("k"), nil), folio.ErrTxClosed)
		return tx.Bucket([]byte("b")).Put([]byte("k"), nil)
	}))
}

// A bucket opened before a nested transaction that deletes, moves and makes buckets
// is as it was when that is undone.
func TestNestedUndoRestoresBuckets(t *testing.T) {
	db := newDB(t, nil)
	boom := errors.New("boom")
	require.NoError(t, db.Update(func(tx *folio.Tx) error {
		a, err := tx.CreateBucket([]byte("a"))
		require.NoError(t, err)
		sub, err := a.CreateBucket([]byte("sub"))
		require.NoError(t, err)
		require.NoError(t, sub.Put([]byte("k"), []byte("v")))
		require.NoError(t, a.SetSequence(7))
		var inside *folio.Bucket
		require.ErrorIs(t, tx.Nested(func(nested *folio.Tx) error {
			require.NoError(t, a.SetSequence(8))
			require.NoError(t, sub.Put([]byte("k"), []byte("w")))
			require.NoError(t, nested.MoveBucket([]byte("sub"), a, nil))
			require.NoError(t, sub.Put([]byte("l"), []byte("w")))
			inside = tx.Bucket([]byte("sub"))
			require.NotNil(t, inside)
			require.NoError(t, nested.DeleteBucket([]byte("a")))
			require.ErrorIs(t, a.Put([]byte("x"), nil), folio.ErrBucketNotFound)
			b, err := nested.CreateBucket([]byte("a"))
			require.NoError(t, err)
			require.NoError(t, b.Put([]byte("other"), nil))
			return boom
		}), boom)
		require.EqualValues(t, 7, a.Sequence())
		require.Equal(t, "v", string(sub.Get([]byte("k"))))
		require.EqualValues(t, 1, sub.Len())
		require.Nil(t, tx.Bucket([]byte("sub")))
		require.NoError(t, sub.Put([]byte("m"), []byte("x")))
		require.NoError(t, a.Put([]byte("n"), []byte("y")))
		return nil
	}))
	require.NoError(t, db.View(func(tx *folio.Tx) error {
		a := tx.Bucket([]byte("a"))
		require.EqualValues(t, 7, a.Sequence())
		require.Equal(t, "y", string(a.Get([]byte("n"))))
		require.Equal(t, "x", string(a.Bucket([]byte("sub")).Get([]byte("m"))))
		return nil
	}))
}

func TestPanicAndGoexitUndo(t *testing.T) {
	db := newDB(t, nil)
	put(t, db, "a", "1")
	require.PanicsWithValue(t, "boom", func() {
		db.Update(func(tx *folio.Tx) error {
			tx.Put([]byte("a"), []byte("2"))
			panic("boom")
		})
	})
	require.PanicsWithValue(t, "boom", func() {
		db.View(func(tx *folio.Tx) error { panic("boom") })
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		db.Update(func(tx *folio.Tx) error {
			tx.Put([]byte("a"), []byte("3"))
			runtime.Goexit()
			return nil
		})
	}()
	<-done
	require.NoError(t, db.Update(func(tx *folio.Tx) error {
		require.Equal(t, "1", string(tx.Get([]byte("a"))))
		require.PanicsWithValue(t, "inner", func() {
			tx.Nested(func(tx *folio.Tx) error {
				tx.Put([]byte("a"), []byte("4"))
				panic("inner")
			})
		})
		require.Equal(t, "1", string(tx.Get([]byte("a"))))
		return nil
	}))
	rs, err := db.Readers()
	require.NoError(t, err)
	require.Empty(t, rs)
}

// A nil pointer in fn is the caller's bug and must not be taken for a page fault.
func TestForeignFaultPanics(t *testing.T) {
	db := newDB(t, nil)
	require.Panics(t, func() {
		db.View(func(*folio.Tx) error {
			var p *int
			*p = 1
			return nil
		})
	})
}

func TestContextEndsWait(t *testing.T) {
	db := newDB(t, nil)
	tx, err := db.Begin(true)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, db.UpdateContext(ctx, func(*folio.Tx) error { return nil }), context.DeadlineExceeded)
	_, err = db.BeginContext(ctx, true)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, db.ViewContext(ctx, func(*folio.Tx) error { return nil }), context.DeadlineExceeded)
	require.NoError(t, tx.Rollback())
}

func TestWritersAreServedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, err := folio.Open(filepath.Join(t.TempDir(), "x"), 0o600, &folio.Options{Sync: folio.SyncOff})
		require.NoError(t, err)
		tx, err := db.Begin(true)
		require.NoError(t, err)
		var order []int
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				db.Update(func(*folio.Tx) error {
					order = append(order, i)
					return nil
				})
			})
			synctest.Wait() // until it queues for the writer lock
		}
		require.NoError(t, tx.Rollback())
		wg.Wait()
		require.Equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7}, order)
		require.NoError(t, db.Close())
	})
}

func TestClose(t *testing.T) {
	db, err := folio.Open(filepath.Join(t.TempDir(), "x"), 0o600, nil)
	require.NoError(t, err)
	reader, err := db.Begin(false)
	require.NoError(t, err)
	writer, err := db.Begin(true)
	require.NoError(t, err)
	waiting := make(chan error)
	go func() { waiting <- db.Update(func(*folio.Tx) error { return nil }) }()
	time.Sleep(10 * time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, db.CloseContext(ctx), context.DeadlineExceeded)
	require.ErrorIs(t, <-waiting, folio.ErrDatabaseNotOpen)
	_, err = db.Begin(false)
	require.ErrorIs(t, err, folio.ErrDatabaseNotOpen)
	require.NoError(t, writer.Put([]byte("k"), []byte("v")))
	require.NoError(t, writer.Commit(), "a transaction that was open may end as it likes")
	require.Nil(t, reader.Get([]byte("k")))
	require.NoError(t, reader.Rollback())
	require.NoError(t, db.Close())
	require.NoError(t, db.Close())
	require.ErrorIs(t, db.View(func(*folio.Tx) error { return nil }), folio.ErrDatabaseNotOpen)
	require.ErrorIs(t, db.Update(func(*folio.Tx) error { return nil }), folio.ErrDatabaseNotOpen)
	require.ErrorIs(t, db.Sync(), folio.ErrDatabaseNotOpen)
	require.ErrorIs(t, checkAll(db), folio.ErrDatabaseNotOpen)
	_, err = db.Readers()
	require.ErrorIs(t, err, folio.ErrDatabaseNotOpen)
	db.Stats()

	again := openDB(t, db.Path(), nil)
	require.Equal(t, "v", get(t, again, "k"))
}

func TestLock(t *testing.T) {
	db := newDB(t, nil)
	put(t, db, "a", "1")
	_, err := folio.Open(db.Path(), 0o600, &folio.Options{Timeout: 20 * time.Millisecond})
	require.ErrorIs(t, err, folio.ErrTimeout)
	if runtime.GOOS == "linux" {
		require.ErrorContains(t, err, "this process")
	}
	_, err = folio.Open(db.Path(), 0o600, &folio.Options{ReadOnly: true, Timeout: -1})
	require.ErrorIs(t, err, folio.ErrTimeout)
	require.NoError(t, db.Close())

	ro := openDB(t, db.Path(), &folio.Options{ReadOnly: true})
	ro2 := openDB(t, db.Path(), &folio.Options{ReadOnly: true})
	require.Equal(t, "1", get(t, ro, "a"))
	require.Equal(t, "1", get(t, ro2, "a"))
	require.True(t, ro.IsReadOnly())
	require.ErrorIs(t, ro.Update(func(*folio.Tx) error { return nil }), folio.ErrDatabaseReadOnly)
	_, err = ro.Begin(true)
	require.ErrorIs(t, err, folio.ErrDatabaseReadOnly)
	_, err = folio.Open(db.Path(), 0o600, &folio.Options{Timeout: -1})
	require.ErrorIs(t, err, folio.ErrTimeout)
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	_, err := folio.Open(filepath.Join(dir, "none"), 0, &folio.Options{ReadOnly: true})
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = folio.Open(filepath.Join(dir, "no", "dir"), 0o600, nil)
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = folio.Open(dir, 0o600, nil)
	require.ErrorIs(t, err, folio.ErrInvalid)
	bolt, _ := hex.DecodeString("00000000000000000400000000000000edda0ced02000000")
	for name, content := range map[string]string{
		"empty": "", "bbolt": string(bolt) + strings.Repeat("\x00", 8192),
		"SQLite": "SQLite format 3\x00" + strings.Repeat("x", 9000),
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		_, err = folio.Open(path, 0o600, nil)
		require.ErrorIs(t, err, folio.ErrInvalid)
		require.ErrorContains(t, err, name)
		after, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, content, string(after), "a file that is no store is left alone")
	}
	names, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, names, 3, "nothing was created")
}

// A slice stays as it is until its transaction ends, whatever is written after it was
// handed out; and Put has copied what it was given.
func TestSlicesStayUnchanged(t *testing.T) {
	for _, limit := range []int64{0, 64 << 10} {
		t.Run(fmt.Sprint("dirty limit ", limit), func(t *testing.T) {
			db := newDB(t, &folio.Options{DirtyLimit: limit, Sync: folio.SyncOff})
			type lent struct {
				slice []byte
				want  string
			}
			require.NoError(t, db.Update(func(tx *folio.Tx) error {
				var slices []lent
				key := make([]byte, 8)
				val := make([]byte, 0, 5000)
				for round := range 6 {
					for i := range 1500 {
						copy(key, fmt.Sprintf("%08d", i*7919%1500))
						val = val[:(i*37+round*11)%300]
						if i%100 == 0 {
							val = val[:5000]
						}
						for j := range val {
							val[j] = byte(round + i)
						}
						if err := tx.Put(key, val); err != nil {
							return err
						}
						k, v := tx.Cursor().Seek(key)
						slices = append(slices, lent{k, string(k)}, lent{v, string(v)})
						clear(key)
						clear(val)
						if i%5 == 0 {
							require.NoError(t, tx.Delete(k)) // a key that aliases the page
						}
					}
					if _, err := tx.Root().DeleteRange([]byte("00000300"), []byte("00000600")); err != nil {
						return err
					}
				}
				tx.Nested(func(tx *folio.Tx) error {
					for i := range 1500 {
						tx.Put(fmt.Appendf(nil, "%08d", i), []byte("nested"))
						k, v := tx.Cursor().Seek(fmt.Appendf(nil, "%08d", i))
						slices = append(slices, lent{k, string(k)}, lent{v, string(v)})
					}
					return errors.New("undo")
				})
				for _, l := range slices {
					require.Equal(t, l.want, string(l.slice))
				}
				return nil
			}))
		})
	}
}

func TestPutOfItsOwnPage(t *testing.T) {
	db := newDB(t, nil)
	require.NoError(t, db.Update(func(tx *folio.Tx) error {
		require.NoError(t, tx.Put([]byte("k0"), bytes.Repeat([]byte("v"), 300)))
		for i := range 200 { // key and value come from the page that they go to
			k, v := tx.Cursor().Seek([]byte("k0"))
			require.NoError(t, tx.Put(append(k[:2:2], byte(i)), v))
			require.NoError(t, tx.Put(k, v))
		}
		n := 0
		for _, v := range tx.Root().All() {
			require.Equal(t, strings.Repeat("v", 300), string(v))
			n++
		}
		require.Equal(t, 201, n)
		return nil
	}))
}

func TestCursorAtTheEnds(t *testing.T) {
	db := newDB(t, nil)
	require.NoError(t, db.Update(func(tx *folio.Tx) error {
		c := tx.Cursor()
		for _, step := range []func() ([]byte, []byte){c.First, c.Last, c.Next, c.Prev, c.Next} {
			k, v := step()
			require.Nil(t, k)
			require.Nil(t, v)
		}
		for _, k := range []string{"a", "b", "c"} {
			require.NoError(t, tx.Put([]byte(k), []byte("v"+k)))
		}
		key := func(k, _ []byte) string { return string(k) }
		fresh := tx.Cursor()
		require.Equal(t, "a", key(fresh.Next()))
		fresh = tx.Cursor()
		require.Equal(t, "c", key(fresh.Prev()))
		c = tx.Cursor()
		require.Equal(t, "c", key(c.Last()))
		require.Equal(t, "", key(c.Next()))
		require.Equal(t, "", key(c.Next()), "it stays just outside")
		require.NoError(t, tx.Put([]byte("d"), nil))
		require.Equal(t, "", key(c.Next()))
		require.Equal(t, "d", key(c.Prev()))
		require.Equal(t, "a", key(c.First()))
		require.Equal(t, "", key(c.Prev()))
		require.Equal(t, "", key(c.Prev()))
		require.Equal(t, "a", key(c.Next()))
		require.Equal(t, "", key(c.Seek([]byte("x"))))
		require.Equal(t, "d", key(c.Prev()))
		require.Equal(t, "a", key(c.Seek(nil)))

		require.Equal(t, "b", key(c.Seek([]byte("b"))))
		require.NoError(t, c.Delete())
		require.NoError(t, c.Delete(), "it is gone already")
		require.Equal(t, "c", key(c.Next()))
		require.Equal(t, "a", key(c.Prev()))
		require.NoError(t, c.Delete())
		require.Equal(t, "", key(c.Prev()))
		require.Equal(t, "c", key(c.Next()))
		require.Equal(t, "d", key(c.Next()))
		require.NoError(t, tx.Put([]byte("ca"), nil))
		require.Equal(t, "ca", key(c.Prev()), "what was put meanwhile is met")
		return nil
	}))
}

func TestMoveBucket(t *testing.T) {
	db := newDB(t, nil)
	require.NoError(t, db.Update(func(tx *folio.Tx) error {
		a, _ := tx.CreateBucket([]byte("a"))
		b, _ := tx.CreateBucket([]byte("b"))
		in, err := a.CreateBucket([]byte("in"))
		require.NoError(t, err)
		require.NoError(t, in.Put([]byte("k"), []byte("v")))
		require.NoError(t, tx.MoveBucket([]byte("in"), a, b))
		require.NoError(t, in.Put([]byte("l"), []byte("w")), "an open handle moves along")
		require.Nil(t, a.Bucket([]byte("in")))
		require.Equal(t, "v", string(b.Bucket([]byte("in")).Get([]byte("k"))))
		require.ErrorIs(t, tx.MoveBucket([]byte("in"), a, b), folio.ErrBucketNotFound)
		require.ErrorIs(t, tx.MoveBucket([]byte("b"), nil, in), folio.ErrIncompatibleValue, "into itself")
		require.ErrorIs(t, tx.MoveBucket([]byte("in"), b, b), folio.ErrBucketExists)
		require.NoError(t, tx.MoveBucket([]byte("in"), b, nil))
		require.NoError(t, in.Put([]byte("m"), []byte("x")))
		require.ErrorIs(t, tx.MoveBucket(nil, nil, a), folio.ErrBucketNotFound)
		return nil
	}))
	require.NoError(t, db.View(func(tx *folio.Tx) error {
		require.EqualValues(t, 3, tx.Bucket([]byte("in")).Len())
		var names []string
		require.NoError(t, tx.ForEach(func(name []byte, b *folio.Bucket) error {
			require.NotNil(t, b)
			names = append(names, string(name))
			return nil
		}))
		require.Equal(t, []string{"a", "b", "in"}, names)
		return nil
	}))
}

func TestDeepBuckets(t *testing.T) {
	db := newDB(t, nil)
	const depth = 300
	require.NoError(t, db.Update(func(tx *folio.Tx) error {
		b := tx.Root()
		for range depth {
			var err error
			if b, err = b.CreateBucket([]byte("nested")); err != nil {
				return err
			}
		}
		return b.Put([]byte("deep"), []byte("down"))
	}))
	require.NoError(t, db.View(func(tx *folio.Tx) error {
		b := tx.Root()
		for range depth {
			b = b.Bucket([]byte("nested"))
		}
		require.Equal(t, "down", string(b.Get([]byte("deep"))))
		return nil
	}))
	require.NoError(t, db.Update(func(tx *folio.Tx) error { return tx.DeleteBucket([]byte("nested")) }))
}

func TestOnCommit(t *testing.T) {
	db := newDB(t, nil)
	var calls []string
	call := func(name string) func() { return func() { calls = append(calls, name) } }
	require.NoError(t, db.Update(func(tx *folio.Tx) error {
		tx.OnCommit(call("outer"))
		tx.Nested(func(tx *folio.Tx) error { tx.OnCommit(call("kept")); return nil })
		tx.Nested(func(tx *folio.Tx) error { tx.OnCommit(call("undone")); return errors.New("undo") })
		require.Empty(t, calls)
		return tx.Put([]byte("k"), nil)
	}))
	require.Equal(t, []string{"outer", "kept"}, calls)
	calls = nil
	db.Update(func(tx *folio.Tx) error { tx.OnCommit(call("failed")); return errors.New("no") })
	require.Empty(t, calls)

	tx, err := db.Begin(true)
	require.NoError(t, err)
	require.NoError(t, tx.Put([]byte("k"), []byte("async")))
	tx.OnCommit(call("durable"))
	wait, err := tx.CommitAsync()
	require.NoError(t, err)
	require.Empty(t, calls, "not yet durable")
	require.NoError(t, wait())
	require.Equal(t, []string{"durable"}, calls)
	require.NoError(t, wait())
	require.Len(t, calls, 1)

	// A hook may use the store.
	require.NoError(t, db.Update(func(tx *folio.Tx) error {
		tx.OnCommit(func() { put(t, db, "from", "hook") })
		return tx.Put([]byte("k"), nil)
	}))
	require.Equal(t, "hook", get(t, db, "from"))
}

func TestCommitAsync(t *testing.T) {
	db := newDB(t, nil)
	var waits []func() error
	for i := range 100 { // more than may be unpublished at once
		tx, err := db.Begin(true)
		require.NoError(t, err)
		if i > 0 {
			require.Equal(t, fmt.Sprint(i-1), string(tx.Get([]byte("n"))), "a later writer sees it at once")
		}
		require.NoError(t, tx.Put([]byte("n"), fmt.Append(nil, i)))
		wait, err := tx.CommitAsync()
		require.NoError(t, err)
		waits = append(waits, wait)
		if i == 0 {
			require.Equal(t, "", get(t, db, "n"), "a reader sees it once it is durable")
		}
	}
	var wg sync.WaitGroup
	for _, wait := range waits {
		wg.Go(func() {
			if err := wait(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.Equal(t, "99", get(t, db, "n"))
	st := db.Stats()
	require.Equal(t, st.Newest, st.Durable)
	require.Less(t, st.Syncs, uint64(20), "they share syncs")
}

func TestSyncModes(t *testing.T) {
	for _, mode := range []folio.SyncMode{folio.SyncFull, folio.SyncInterval, folio.SyncOff} {
		path := filepath.Join(t.TempDir(), "s")
		db, err := folio.Open(path, 0o600, &folio.Options{Sync: mode, SyncEvery: time.Millisecond})
		require.NoError(t, err)
		put(t, db, "a", "1")
		require.Equal(t, "1", get(t, db, "a"), "published at once")
		require.NoError(t, db.Sync())
		st := db.Stats()
		require.Equal(t, st.Newest, st.Durable)
		put(t, db, "a", "2")
		if mode == folio.SyncInterval {
			require.Eventually(t, func() bool { st := db.Stats(); return st.Newest == st.Durable }, 5*time.Second, time.Millisecond)
		}
		require.NoError(t, db.Close())
		db = openDB(t, path, nil)
		require.Equal(t, "2", get(t, db, "a"))
	}
}

func TestInMemory(t *testing.T) {
	dir := t.TempDir()
	db := openDB(t, filepath.Join(dir, "mem"), &folio.Options{InMemory: true})
	put(t, db, "a", "1")
	require.Equal(t, "1", get(t, db, "a"))
	names, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, names)
	require.NoError(t, db.View(func(tx *folio.Tx) error { return tx.CopyFile(filepath.Join(dir, "copy"), 0o600) }))
	require.Equal(t, "1", get(t, openDB(t, filepath.Join(dir, "copy"), nil), "a"))
}

// A commit of nothing writes nothing.
func TestEmptyCommit(t *testing.T) {
	db := newDB(t, nil)
	put(t, db, "a", "1")
	before := db.Stats()
	require.NoError(t, db.Update(func(tx *folio.Tx) error { return tx.Delete([]byte("absent")) }))
	require.Equal(t, before, db.Stats())
}

func TestHotBackup(t *testing.T) {
	db := newDB(t, &folio.Options{Sync: folio.SyncOff})
	fill := func(from, to int, v string) {
		require.NoError(t, db.Update(func(tx *folio.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("b"))
			require.NoError(t, err)
			for i := from; i < to; i++ {
				require.NoError(t, b.Put(fmt.Appendf(nil, "%06d", i), []byte(v)))
			}
			return b.Put([]byte("big"), bytes.Repeat([]byte(v), 9000))
		}))
	}
	fill(0, 3000, "old")
	tx, err := db.Begin(false)
	require.NoError(t, err)
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; !stop.Load(); i++ {
			if err := db.Update(func(tx *folio.Tx) error {
				_, err := tx.Bucket([]byte("b")).DeleteRange(fmt.Appendf(nil, "%06d", i%3000), fmt.Appendf(nil, "%06d", i%3000+200))
				return err
			}); err != nil {
				t.Error(err)
			}
		}
	})
	copied := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, tx.CopyFile(copied, 0o640))
	require.ErrorIs(t, tx.CopyFile(copied, 0o640), fs.ErrExist)
	stop.Store(true)
	wg.Wait()
	require.NoError(t, tx.Rollback())

	backup := openDB(t, copied, nil)
	require.NoError(t, backup.View(func(tx *folio.Tx) error {
		b := tx.Bucket([]byte("b"))
		require.EqualValues(t, 3001, b.Len())
		require.Equal(t, strings.Repeat("old", 9000), string(b.Get([]byte("big"))))
		return nil
	}))
	put(t, backup, "more", "writes")
	require.NoError(t, checkAll(backup))
}

// Readers see one whole commit each, while a writer goes on.
func TestSnapshots(t *testing.T) {
	db := newDB(t, &folio.Options{Sync: folio.SyncOff})
	const keys = 500
	write := func(v int) {
		require.NoError(t, db.Update(func(tx *folio.Tx) error {
			for i := range keys {
				if err := tx.Put(fmt.Appendf(nil, "%04d", i), fmt.Append(nil, v)); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	write(0)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for !stop.Load() {
				err := db.View(func(tx *folio.Tx) error {
					want := string(tx.Get([]byte("0000")))
					n := 0
					for _, v := range tx.Root().All() {
						if string(v) != want {
							return fmt.Errorf("value %s beside %s", v, want)
						}
						n++
					}
					if n != keys {
						return fmt.Errorf("%d pairs", n)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for v := range 200 {
		write(v)
	}
	stop.Store(true)
	wg.Wait()
}

// A bucket opened in a nested transaction, moved under one that was opened later, is
// where it was when that is undone; a handle of it goes on working.
func TestNestedUndoOfAMove(t *testing.T) {
	db := newDB(t, nil)
	boom := errors.New("boom")
	require.NoError(t, db.Update(func(tx *folio.Tx) error {
		_, err := tx.CreateBucket([]byte("c"))
		return err
	}))
	require.NoError(t, db.Update(func(tx *folio.Tx) error {
		var c *folio.Bucket
		var cur *folio.Cursor
		require.ErrorIs(t, tx.Nested(func(n *folio.Tx) error {
			c = tx.Bucket([]byte("c")) // through the outer transaction
			cur = c.Cursor()
			require.NoError(t, c.Put([]byte("k"), nil))
			cur.First()
			p, err := n.CreateBucket([]byte("p"))
			require.NoError(t, err)
			require.NoError(t, p.Put([]byte("k"), nil))
			require.NoError(t, n.MoveBucket([]byte("c"), nil, p))
			return n.Nested(func(n *folio.Tx) error { return boom })
		}), boom)
		require.Nil(t, c.Get([]byte("k")))
		require.NoError(t, c.Put([]byte("l"), []byte("v")))
		k, _ := cur.First()
		require.Equal(t, "l", string(k))
		require.Equal(t, "v", string(tx.Bucket([]byte("c")).Get([]byte("l"))))
		return nil
	}))
}

// A transaction can't be ended while one nested in it is open.
func TestEndInsideNested(t *testing.T) {
	db := newDB(t, nil)
	tx, err := db.Begin(true)
	require.NoError(t, err)
	require.NoError(t, tx.Put([]byte("a"), nil))
	require.NoError(t, tx.Nested(func(*folio.Tx) error {
		require.Error(t, tx.Commit())
		require.Error(t, tx.Rollback())
		_, err := tx.CommitAsync()
		require.Error(t, err)
		return nil
	}))
	require.NoError(t, tx.Commit())
}

// Close makes an asynchronous commit durable, and so calls its OnCommit functions.
func TestOnCommitAtClose(t *testing.T) {
	for _, mode := range []folio.SyncMode{folio.SyncFull, folio.SyncOff} {
		db, err := folio.Open(filepath.Join(t.TempDir(), "x"), 0o600, &folio.Options{Sync: mode})
		require.NoError(t, err)
		tx, err := db.Begin(true)
		require.NoError(t, err)
		require.NoError(t, tx.Put([]byte("a"), nil))
		ncalls := 0
		tx.OnCommit(func() { ncalls++ })
		wait, err := tx.CommitAsync()
		require.NoError(t, err)
		require.Zero(t, ncalls)
		require.NoError(t, db.Close())
		require.Equal(t, 1, ncalls)
		require.NoError(t, wait(), "it is durable, though the store is closed")
		require.Equal(t, 1, ncalls)
	}
}

// A hook that panics takes no other one with it.
func TestOnCommitPanics(t *testing.T) {
	db := newDB(t, nil)
	called := false
	require.PanicsWithValue(t, "hook", func() {
		db.Update(func(tx *folio.Tx) error {
			tx.OnCommit(func() { panic("hook") })
			tx.OnCommit(func() { called = true })
			return tx.Put([]byte("a"), nil)
		})
	})
	put(t, db, "b", "")
	require.True(t, called)
}

// Space that a store in memory frees is used again.
func TestInMemoryReusesSpace(t *testing.T) {
	db := newDB(t, &folio.Options{InMemory: true})
	var after []uint64
	for range 6 {
		require.NoError(t, db.Update(func(tx *folio.Tx) error {
			for i := range 20_000 {
				tx.Put(fmt.Appendf(nil, "%08d", i), make([]byte, 50))
			}
			return nil
		}))
		require.NoError(t, db.Update(func(tx *folio.Tx) error { _, err := tx.Root().DeleteRange(nil, nil); return err }))
		put(t, db, "x", "")
		after = append(after, db.Stats().Pages)
	}
	require.LessOrEqual(t, after[5], after[1], "%v", after)
}

// Many transactions end while the store closes.
func TestCloseBesideReaders(t *testing.T) {
	for range 20 {
		db, err := folio.Open(filepath.Join(t.TempDir(), "x"), 0o600, &folio.Options{Sync: folio.SyncOff})
		require.NoError(t, err)
		put(t, db, "a", "1")
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					err := db.View(func(tx *folio.Tx) error { tx.Get([]byte("a")); return nil })
					if err != nil {
						if !errors.Is(err, folio.ErrDatabaseNotOpen) {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		put(t, db, "b", "2")
		require.NoError(t, db.Close())
		wg.Wait()
	}
}
