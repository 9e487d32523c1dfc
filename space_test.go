package folio

// space_test.go tests what the store does with its file: which pages it reads and
// writes, how full they are, growth, truncation, limits, and faults of the medium.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/foliokv/folio/internal/mmap"
	"github.com/stretchr/testify/require"
)

// tap counts, and if told so fails, the operations on a data file.
type tap struct {
	mu    sync.Mutex
	reads map[int64]int // page-sized pieces read, by offset
	wrote []mmap.Op     // without their data
	syncs int
	fail  func(op mmap.Op) error
}

func (h *tap) Do(op mmap.Op, run func() error) error {
	h.mu.Lock()
	switch op.Kind {
	case mmap.OpRead:
		if h.reads == nil {
			h.reads = map[int64]int{}
		}
		for off := op.Off; off < op.Off+op.NBytes; off += minPageSize {
			h.reads[off]++
		}
	case mmap.OpWrite:
		op.Bufs = nil
		h.wrote = append(h.wrote, op)
	case mmap.OpSync, mmap.OpSyncRange:
		h.syncs++
	}
	fail := h.fail
	h.mu.Unlock()
	if fail != nil {
		if err := fail(op); err != nil {
			return err
		}
	}
	return run()
}

func (h *tap) reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reads, h.wrote, h.syncs = nil, nil, 0
}

// pagesWritten returns how many pages were written, metas and blocks of the log included.
func (h *tap) pagesWritten() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, op := range h.wrote {
		n += int((op.Off+op.NBytes-1)/minPageSize - op.Off/minPageSize + 1)
	}
	return n
}

func (h *tap) nsyncs() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.syncs
}

func (h *tap) setFail(fail func(op mmap.Op) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail = fail
}

func intercept(t *testing.T, path string) *tap {
	h := &tap{}
	t.Cleanup(mmap.Intercept(path, h))
	return h
}

func testStore(t testing.TB, path string, opts *Options) *DB {
	t.Helper()
	db, err := Open(path, 0o600, opts)
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

func mustBeSound(t testing.TB, db *DB) {
	t.Helper()
	for err := range db.Check(context.Background()) {
		require.NoError(t, err)
	}
}

func fill(t testing.TB, db *DB, from, to int, size int) {
	t.Helper()
	value := make([]byte, size)
	for from < to {
		require.NoError(t, db.Update(func(tx *Tx) error {
			for n := 0; n < 20_000 && from < to; n++ {
				if err := tx.Put(fmt.Appendf(nil, "%08d", from), value); err != nil {
					return err
				}
				from++
			}
			return nil
		}))
	}
}

func TestOpenReadsMetasAndFreelogOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	db := testStore(t, path, &Options{Sync: SyncOff})
	fill(t, db, 0, 100_000, 100)
	for i := range 300 { // make the freelog long
		require.NoError(t, db.Update(func(tx *Tx) error {
			for j := range 20 {
				if err := tx.Put(fmt.Appendf(nil, "%08d", (i*331+j*4973)%100_000), []byte("v")); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	require.NotEmpty(t, db.free.chainPages())
	require.NoError(t, db.Close())

	for _, readOnly := range []bool{true, false} {
		h := &tap{}
		remove := mmap.Intercept(path, h)
		db = testStore(t, path, &Options{ReadOnly: readOnly})
		allowed := map[int64]bool{}
		for i := range int64(numMetas) {
			allowed[i*minPageSize] = true
		}
		for _, n := range db.free.chainPages() {
			allowed[int64(n)*minPageSize] = true
		}
		require.NotEmpty(t, h.reads)
		for off := range h.reads {
			require.True(t, allowed[off], "open read page %d", off/minPageSize)
		}
		if runtime.GOOS == "linux" {
			require.Equal(t, "0", residentKB(t, path), "open touched pages through the map")
		}
		require.NoError(t, db.Close())
		remove()
	}
}

// residentKB returns the resident size of the mapping of path.
func residentKB(t *testing.T, path string) string {
	smaps, err := os.ReadFile("/proc/self/smaps")
	require.NoError(t, err)
	m := regexp.MustCompile(`(?m)^.*` + regexp.QuoteMeta(path) + `\n(?:.*\n)*?Rss:\s+(\d+) kB`).FindSubmatch(smaps)
	require.NotNil(t, m, "no mapping of the file")
	return string(m[1])
}

// A small commit in a large store with much free space writes one block of the redo log,
// and syncs once. One that is not logged writes its path, a meta, and at times a page or
// two of the freelog.
func TestSmallCommit(t *testing.T) {
	if testing.Short() {
		t.Skip("writes a store of a gigabyte")
	}
	path := filepath.Join(t.TempDir(), "s")
	h := intercept(t, path)
	db := testStore(t, path, &Options{Sync: SyncOff})
	fill(t, db, 0, 1_000_000, 60)
	const nsingles = 200_000
	value := make([]byte, 3000) // a run of one page each
	for from := 0; from < nsingles; from += 20_000 {
		require.NoError(t, db.Update(func(tx *Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("singles"))
			require.NoError(t, err)
			for i := from; i < from+20_000; i++ {
				require.NoError(t, b.Put(fmt.Appendf(nil, "%08d", i), value))
			}
			return nil
		}))
	}
	require.NoError(t, db.Update(func(tx *Tx) error {
		b := tx.Bucket([]byte("singles"))
		for i := 0; i < nsingles; i += 2 { // every other page becomes free
			require.NoError(t, b.Delete(fmt.Appendf(nil, "%08d", i)))
		}
		return nil
	}))
	require.NoError(t, db.Close())
	db = testStore(t, path, &Options{Sync: SyncOff})
	require.Greater(t, db.Stats().FreePages, uint64(95_000))
	depth := 0
	require.NoError(t, db.View(func(tx *Tx) error { depth = tx.Root().Stats().Depth; return nil }))

	rnd := rand.New(rand.NewPCG(3, 4))
	most, sealed := 0, 0
	for range 2000 {
		h.reset()
		require.NoError(t, db.Update(func(tx *Tx) error {
			return tx.Put(fmt.Appendf(nil, "%08d", rnd.IntN(1_000_000)), []byte("other"))
		}))
		n := h.pagesWritten()
		require.LessOrEqual(t, n, depth+3, "path of %d, meta, two of the freelog", depth)
		require.Zero(t, h.syncs)
		most = max(most, n)
		if n > depth+1 {
			sealed++
		}
	}
	t.Logf("depth %d: at most %d pages a commit; %d of 2000 commits wrote freelog pages", depth, most, sealed)
	require.Less(t, sealed, 1000)
	require.NoError(t, db.Close())

	db = testStore(t, path, nil)
	nlogged := 0
	for range 500 {
		before := db.Stats()
		h.reset()
		require.NoError(t, db.Update(func(tx *Tx) error {
			return tx.Put(fmt.Appendf(nil, "%08d", rnd.IntN(1_000_000)), []byte("another"))
		}))
		n, nsyncs := h.pagesWritten(), h.nsyncs()
		if after := db.Stats(); after.Logged == before.Logged || after.Checkpoints != before.Checkpoints {
			continue // the log grew, or something else was written beside
		}
		require.Equal(t, 1, n)
		require.Equal(t, 1, nsyncs)
		nlogged++
	}
	require.Greater(t, nlogged, 400)
}

func TestSequentialLoadFillsPages(t *testing.T) {
	db := testStore(t, filepath.Join(t.TempDir(), "s"), &Options{Sync: SyncOff})
	fill(t, db, 0, 100_000, 100)
	require.NoError(t, db.View(func(tx *Tx) error {
		st := tx.Root().Stats()
		leaf := float64(st.LeafUsed) / float64(st.LeafPages*minPageSize)
		branch := float64(st.BranchUsed) / float64(st.BranchPages*minPageSize)
		require.Greater(t, leaf, 0.95)
		require.Greater(t, branch, 0.85)
		return nil
	}))
}

// After random deletes no leaf is under a quarter full.
func TestDeletesLeaveNoSparseLeaves(t *testing.T) {
	for _, size := range []int{0, 100, 700} {
		db := testStore(t, filepath.Join(t.TempDir(), "s"), &Options{Sync: SyncOff})
		rnd := rand.New(rand.NewPCG(1, uint64(size)))
		const npairs = 20_000
		order := rnd.Perm(npairs)
		require.NoError(t, db.Update(func(tx *Tx) error {
			for _, i := range order {
				if err := tx.Put(fmt.Appendf(nil, "%08d", i), make([]byte, rnd.IntN(size+1))); err != nil {
					return err
				}
			}
			return nil
		}))
		for _, part := range [][]int{order[:npairs/2], order[npairs/2 : npairs*9/10], order[npairs*9/10 : npairs-10], order[npairs-10:]} {
			require.NoError(t, db.Update(func(tx *Tx) error {
				for _, i := range part {
					if err := tx.Delete(fmt.Appendf(nil, "%08d", i)); err != nil {
						return err
					}
				}
				return nil
			}))
			mustBeSound(t, db)
			require.NoError(t, db.View(func(tx *Tx) error {
				t := tx.Root().t
				if t.rec.root.pgno == 0 || t.rec.level == 0 {
					return nil
				}
				return t.pg.walkPages(t.rec, func(n pgno, p page, _ int) error {
					if p.kind() == kindLeaf && isUnderfull(p) {
						return fmt.Errorf("leaf %d has %d of %d bytes in use", n, p.used(), p.capacity())
					}
					return nil
				}, nil)
			}))
		}
		require.NoError(t, db.View(func(tx *Tx) error {
			require.Zero(t, tx.Root().t.rec.root.pgno, "an empty bucket has no page")
			return nil
		}))
	}
}

// A range delete frees leaves without reading them.
func TestDeleteRangeReadsNoLeaves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	db := testStore(t, path, &Options{Sync: SyncOff})
	fill(t, db, 0, 100_000, 100)
	require.NoError(t, db.Close())
	db = testStore(t, path, &Options{Verify: VerifyFirstRead})
	require.NoError(t, db.Update(func(tx *Tx) error {
		n, err := tx.Root().DeleteRange([]byte("00010000"), []byte("00090000"))
		require.EqualValues(t, 80_000, n)
		return err
	}))
	verified := 0
	fm := db.fm.Load()
	for i := range fm.verified {
		if fm.verified[i].Load() != 0 {
			verified++
		}
	}
	require.Less(t, verified, 100, "pages read; the range had 2,500 leaves")
	mustBeSound(t, db)
}

// The file stays as it is under churn, and gives its end back when most of it is free.
func TestFileSize(t *testing.T) {
	db := testStore(t, filepath.Join(t.TempDir(), "s"), nil)
	fill(t, db, 0, 50_000, 100)
	full := db.Stats().FileSize + db.maxLogBytes()
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		require.NoError(t, db.Update(func(tx *Tx) error {
			for range 20 {
				if err := tx.Put(fmt.Appendf(nil, "%08d", rnd.IntN(50_000)), make([]byte, 100)); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	require.Less(t, db.Stats().FileSize, full*3/2, "churn reuses pages")
	require.NoError(t, db.Update(func(tx *Tx) error {
		_, err := tx.Root().DeleteRange([]byte("00000100"), nil)
		return err
	}))
	// It takes a checkpoint until the range is free, and more where the freelog is in the way.
	for i := 0; db.Stats().FileSize >= full/4; i++ {
		require.Less(t, i, 3000, "a free end is given back")
		fill(t, db, i%100, i%100+1, 100)
	}
	mustBeSound(t, db)
	require.NoError(t, db.Close())
	info, err := os.Stat(db.Path())
	require.NoError(t, err)
	require.Less(t, info.Size(), full/4)
}

// A read transaction stays open while the file grows a hundredfold and is mapped anew;
// neither it nor the writer waits, and the old mappings go once it has ended.
func TestGrowthUnderAReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	db, err := open(path, 0o600, &Options{Sync: SyncOff}, 64<<10)
	require.NoError(t, err)
	defer db.Close()
	fill(t, db, 0, 1000, 100)
	before := db.nbytes
	reader, err := db.Begin(false)
	require.NoError(t, err)
	key, value := reader.Cursor().First()
	want := string(key) + string(value)
	for step := 0; db.nbytes < 100*before; step++ {
		fill(t, db, step*2000, step*2000+2000, 1000)
		require.Equal(t, want, string(key)+string(value), "a slice of the first mapping")
		require.EqualValues(t, 1000, reader.Root().Len())
		n := 0
		for range reader.Root().All() {
			n++
		}
		require.Equal(t, 1000, n)
	}
	require.Positive(t, db.nretired.Load(), "the first mapping is in use")
	fill(t, db, 0, 1000, 101)
	require.NoError(t, reader.Rollback())
	require.Zero(t, db.nretired.Load(), "old mappings are released")
	mustBeSound(t, db)
}

// Readers on several goroutines see whole commits while the file is mapped anew again
// and again, and cut short: each commit writes its number into every pair, and the sum
// of all into one more.
func TestReadersUnderRemaps(t *testing.T) {
	db, err := open(filepath.Join(t.TempDir(), "s"), 0o600, &Options{Sync: SyncOff}, 64<<10)
	require.NoError(t, err)
	defer db.Close()
	const ncommits = 120
	commit := func(i int) error {
		return db.Update(func(tx *Tx) error {
			if i%30 == 0 {
				if _, err := tx.Root().DeleteRange(nil, nil); err != nil {
					return err
				}
			}
			npairs := 20 + i%30*40
			for k := range npairs {
				if err := tx.Put(fmt.Appendf(nil, "%05d", k), fmt.Appendf(nil, "%0200d", i)); err != nil {
					return err
				}
			}
			return tx.Put([]byte("sum"), fmt.Append(nil, npairs*i))
		})
	}
	require.NoError(t, commit(0))
	var readers sync.WaitGroup
	var ended atomic.Bool
	errs := make(chan error, 3)
	for range 3 {
		readers.Go(func() {
			for !ended.Load() {
				if err := db.View(isOneCommit); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	nmaps := 0
	before := db.fm.Load()
	for i := range ncommits {
		require.NoError(t, commit(i))
		if i%30 == 5 {
			require.NoError(t, db.Update(func(tx *Tx) error { return nil }))
			require.NoError(t, db.Sync())
		}
		if fm := db.fm.Load(); fm != before {
			before = fm
			nmaps++
		}
	}
	ended.Store(true)
	readers.Wait()
	close(errs)
	require.NoError(t, <-errs)
	require.GreaterOrEqual(t, nmaps, 3, "new mappings")
	require.NoError(t, db.Update(func(tx *Tx) error { return tx.Put([]byte("last"), nil) }))
	require.Zero(t, db.nretired.Load(), "old mappings are released")
	mustBeSound(t, db)
}

// isOneCommit checks what TestReadersUnderRemaps writes.
func isOneCommit(tx *Tx) error {
	first, sum := "", 0
	for k, v := range tx.Root().All() {
		if string(k) == "sum" {
			if string(v) != fmt.Sprint(sum) {
				return fmt.Errorf("a sum of %s, not %d", v, sum)
			}
			continue
		}
		if first == "" {
			first = string(v)
		}
		if string(v) != first {
			return fmt.Errorf("pair %s is of commit %s in one of %s", k, v, first)
		}
		var i int
		if _, err := fmt.Sscanf(string(v), "%d", &i); err != nil {
			return err
		}
		sum += i
	}
	return tx.Err()
}

// Slices of a write transaction's own stay valid when it makes the file grow.
func TestGrowthUnderItself(t *testing.T) {
	db, err := open(filepath.Join(t.TempDir(), "s"), 0o600, &Options{DirtyLimit: 64 << 10, Sync: SyncOff}, 64<<10)
	require.NoError(t, err)
	defer db.Close()
	fill(t, db, 0, 200, 100)
	require.NoError(t, db.Update(func(tx *Tx) error {
		k, v := tx.Cursor().First()
		want := string(k) + string(v)
		for i := range 20_000 {
			if err := tx.Put(fmt.Appendf(nil, "%08d", i+1000), make([]byte, 500)); err != nil {
				return err
			}
		}
		require.Positive(t, db.nretired.Load())
		require.Equal(t, want, string(k)+string(v))
		n := 0
		for range tx.Root().All() {
			n++
		}
		require.Equal(t, 20_200, n)
		return nil
	}))
	require.Zero(t, db.nretired.Load())
	mustBeSound(t, db)
}

// A transaction larger than its memory limit spills, and comes out the same.
func TestSpill(t *testing.T) {
	db := testStore(t, filepath.Join(t.TempDir(), "s"), &Options{DirtyLimit: 1 << 20, Sync: SyncOff})
	tx, err := db.Begin(true)
	require.NoError(t, err)
	rnd := rand.New(rand.NewPCG(7, 8))
	for i := range 60_000 {
		require.NoError(t, tx.Put(fmt.Appendf(nil, "%08d", rnd.IntN(40_000)), fmt.Appendf(nil, "%0200d", i)))
		require.Less(t, tx.s.w.nbytes, int64(2<<20))
	}
	require.Positive(t, db.stats.pagesWritten.Load()+uint64(tx.s.pg.npages))
	n := tx.Root().Len()
	require.NoError(t, tx.Commit())
	require.NoError(t, db.View(func(tx *Tx) error {
		require.Equal(t, n, tx.Root().Len())
		return nil
	}))
	mustBeSound(t, db)
	pages := db.Stats()

	tx, err = db.Begin(true) // and leaves nothing behind when it is undone
	require.NoError(t, err)
	for i := range 60_000 {
		require.NoError(t, tx.Put(fmt.Appendf(nil, "x%08d", i), make([]byte, 200)))
	}
	require.NoError(t, tx.Rollback())
	require.Equal(t, pages.Pages, db.Stats().Pages)
	mustBeSound(t, db)
}

func TestMaxSize(t *testing.T) {
	db := testStore(t, filepath.Join(t.TempDir(), "s"), &Options{MaxSize: 1 << 20, DirtyLimit: 128 << 10})
	fill(t, db, 0, 1000, 100)
	err := db.Update(func(tx *Tx) error {
		for i := range 100_000 {
			if err := tx.Put(fmt.Appendf(nil, "%08d", i), make([]byte, 100)); err != nil {
				return err
			}
		}
		return nil
	})
	require.ErrorIs(t, err, ErrMaxSize)
	err = db.Update(func(tx *Tx) error { return tx.Put([]byte("big"), make([]byte, 2<<20)) })
	require.ErrorIs(t, err, ErrMaxSize)
	require.LessOrEqual(t, db.Stats().FileSize, int64(1<<20))
	mustBeSound(t, db)
	fill(t, db, 0, 1000, 200) // there is room for this
	require.NoError(t, db.View(func(tx *Tx) error {
		require.EqualValues(t, 1000, tx.Root().Len())
		return nil
	}))
	mustBeSound(t, db)
}

// Whatever write, allocation or map fails, the transaction fails alone: the store is
// as before, sound, and goes on.
func TestFailedWrites(t *testing.T) {
	boom := errors.New("boom")
	for _, kind := range []mmap.OpKind{mmap.OpWrite, mmap.OpAllocate, mmap.OpMap} {
		for nth := 0; ; nth++ {
			path := filepath.Join(t.TempDir(), "s")
			h := &tap{}
			remove := mmap.Intercept(path, h)
			db, err := open(path, 0o600, &Options{DirtyLimit: 64 << 10}, 64<<10)
			require.NoError(t, err)
			fill(t, db, 0, 500, 100)
			n, failed := 0, false
			h.setFail(func(op mmap.Op) error {
				if op.Kind != kind {
					return nil
				}
				n++
				// An allocation that fails is tried once more, for less.
				if n == nth+1 || kind == mmap.OpAllocate && n == nth+2 {
					failed = true
					return boom
				}
				return nil
			})
			err = db.Update(func(tx *Tx) error {
				for i := range 3000 {
					if err := tx.Put(fmt.Appendf(nil, "%08d", i*7), make([]byte, 150)); err != nil {
						return err
					}
				}
				return tx.Put([]byte("big"), make([]byte, 100_000))
			})
			h.setFail(nil)
			if failed {
				require.ErrorIs(t, err, boom)
				require.NoError(t, db.View(func(tx *Tx) error {
					require.EqualValues(t, 500, tx.Root().Len())
					return nil
				}))
			} else {
				require.NoError(t, err)
			}
			mustBeSound(t, db)
			fill(t, db, 0, 500, 120)
			mustBeSound(t, db)
			require.NoError(t, db.Close())
			db, err = Open(path, 0, nil)
			require.NoError(t, err)
			mustBeSound(t, db)
			require.NoError(t, db.Close())
			remove()
			if !failed {
				break
			}
			if nth > 12 {
				nth += 40 // not each of many
			}
		}
	}
}

// After a failed sync the store is read-only and says why; readers stay where they are.
func TestFailedSync(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	h := intercept(t, path)
	db := testStore(t, path, nil)
	fill(t, db, 0, 10, 10)
	h.setFail(func(op mmap.Op) error {
		if op.Kind == mmap.OpSync || op.Kind == mmap.OpSyncRange {
			return syscall.EIO
		}
		return nil
	})
	err := db.Update(func(tx *Tx) error { return tx.Put([]byte("new"), nil) })
	require.ErrorIs(t, err, ErrSyncFailed)
	require.ErrorIs(t, err, syscall.EIO)
	h.setFail(nil)
	require.True(t, db.IsReadOnly())
	err = db.Update(func(tx *Tx) error { return nil })
	require.ErrorIs(t, err, ErrSyncFailed)
	require.ErrorIs(t, db.Sync(), ErrSyncFailed)
	require.NoError(t, db.View(func(tx *Tx) error {
		require.Nil(t, tx.Get([]byte("new")), "it was never acknowledged")
		require.EqualValues(t, 10, tx.Root().Len())
		return nil
	}))
	require.ErrorIs(t, db.Close(), ErrSyncFailed)
	db = testStore(t, path, nil)
	fill(t, db, 0, 20, 10)
	mustBeSound(t, db)
}

// A sync that fails beside a commit's own, of the whole file too, fails that commit: the
// kernel tells of a lost page only one of those who sync through one descriptor.
func TestFailedSyncBesideACommit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	h := intercept(t, path)
	db := testStore(t, path, &Options{TwoPhase: true}) // it logs nothing
	tx, err := db.Begin(true)
	require.NoError(t, err)
	require.NoError(t, tx.Put([]byte("async"), nil))
	_, err = tx.CommitAsync()
	require.NoError(t, err)
	inSync, committed := make(chan struct{}), make(chan struct{})
	var nsyncs atomic.Int32
	h.setFail(func(op mmap.Op) error {
		if op.Kind != mmap.OpSync {
			return nil
		}
		if nsyncs.Add(1) > 1 {
			return nil // the second sync would succeed
		}
		close(inSync)
		select {
		case <-committed: // it must not be able to
		case <-time.After(100 * time.Millisecond):
		}
		return syscall.EIO
	})
	synced := make(chan error)
	go func() { synced <- db.Sync() }()
	<-inSync
	err = db.Update(func(tx *Tx) error { return tx.Put([]byte("k"), nil) })
	close(committed)
	require.ErrorIs(t, err, ErrSyncFailed)
	require.ErrorIs(t, <-synced, ErrSyncFailed)
	db.failed = errors.New("spoilt by the test")
}

// The file is truncated under an open store: an error, and the process lives.
func TestPageFault(t *testing.T) {
	db := testStore(t, filepath.Join(t.TempDir(), "s"), nil)
	fill(t, db, 0, 20_000, 100)
	reader, err := db.Begin(false)
	require.NoError(t, err)
	var slice []byte
	require.NoError(t, os.Truncate(db.Path(), 5*minPageSize))
	defer func() { db.failed = errors.New("spoilt by the test") }()

	err = db.View(func(tx *Tx) error {
		for _, v := range tx.Root().All() {
			slice = v
		}
		require.ErrorIs(t, tx.Err(), ErrPageFault)
		return nil
	})
	require.ErrorIs(t, err, ErrPageFault)
	require.Regexp(t, `page \d+ at offset \d+`, err.Error())
	_ = slice
	require.Nil(t, reader.Get([]byte("00001234")))
	require.ErrorIs(t, reader.Err(), ErrPageFault)
	require.NoError(t, reader.Rollback())

	err = db.Update(func(tx *Tx) error { return tx.Put([]byte("00001234"), nil) })
	require.ErrorIs(t, err, ErrPageFault)
	var found error
	for err := range db.Check(context.Background()) {
		found = errors.Join(found, err)
	}
	require.Error(t, found)
}

// A fault on a slice, on fn's own goroutine, becomes View's error as well.
func TestPageFaultUnderASlice(t *testing.T) {
	db := testStore(t, filepath.Join(t.TempDir(), "s"), nil)
	require.NoError(t, db.Update(func(tx *Tx) error { return tx.Put([]byte("big"), bytes.Repeat([]byte("x"), 1<<20)) }))
	defer func() { db.failed = errors.New("spoilt by the test") }()
	err := db.View(func(tx *Tx) error {
		v := tx.Get([]byte("big"))
		require.NoError(t, os.Truncate(db.Path(), 8*minPageSize))
		sum := 0
		for _, b := range v {
			sum += int(b)
		}
		return fmt.Errorf("read it all: %d", sum)
	})
	require.ErrorIs(t, err, ErrPageFault)
}

// A fault in a mapping that the transaction itself has replaced, and one on the
// goroutine of iter.Pull, become errors too.
func TestPageFaultElsewhere(t *testing.T) {
	db, err := open(filepath.Join(t.TempDir(), "s"), 0o600, &Options{DirtyLimit: 64 << 10, Sync: SyncOff}, 64<<10)
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, db.Update(func(tx *Tx) error { return tx.Put([]byte("big"), bytes.Repeat([]byte("x"), 1<<20)) }))
	fill(t, db, 0, 1000, 100)
	defer func() { db.failed = errors.New("spoilt by the test") }()
	err = db.Update(func(tx *Tx) error {
		v := tx.Get([]byte("big"))
		for i := 0; db.nretired.Load() == 0; i++ {
			if err := tx.Put(fmt.Appendf(nil, "more%08d", i), make([]byte, 500)); err != nil {
				return err
			}
		}
		require.NoError(t, os.Truncate(db.Path(), 8*minPageSize))
		sum := 0
		for _, b := range v {
			sum += int(b)
		}
		return fmt.Errorf("read it all: %d", sum)
	})
	require.ErrorIs(t, err, ErrPageFault)
	err = db.View(func(tx *Tx) error {
		next, stop := iter.Pull2(tx.Root().All())
		defer stop()
		for _, _, ok := next(); ok; _, _, ok = next() {
		}
		return nil
	})
	require.ErrorIs(t, err, ErrPageFault)
}

// A full disk fails the commit; with space made, the same DB goes on.
func TestDiskFull(t *testing.T) {
	dir := mountSmall(t, 8<<20)
	ballast := filepath.Join(dir, "ballast")
	require.NoError(t, os.WriteFile(ballast, make([]byte, 3<<20), 0o600))
	db := testStore(t, filepath.Join(dir, "s"), nil)
	var full error
	n := 0
	for full == nil {
		full = db.Update(func(tx *Tx) error {
			for i := range 500 {
				if err := tx.Put(fmt.Appendf(nil, "%08d", n*500+i), make([]byte, 300)); err != nil {
					return err
				}
			}
			return nil
		})
		if full == nil {
			n++
		}
	}
	require.ErrorIs(t, full, syscall.ENOSPC)
	require.False(t, db.IsReadOnly())
	require.NoError(t, db.View(func(tx *Tx) error {
		require.EqualValues(t, n*500, tx.Root().Len(), "nothing that was committed is lost")
		return nil
	}))
	mustBeSound(t, db)
	require.NoError(t, os.Remove(ballast))
	fill(t, db, n*500, n*500+3000, 300)
	mustBeSound(t, db)
	require.NoError(t, db.Close())
	db = testStore(t, filepath.Join(dir, "s"), nil)
	require.NoError(t, db.View(func(tx *Tx) error {
		require.EqualValues(t, n*500+3000, tx.Root().Len())
		return nil
	}))
	mustBeSound(t, db)
	require.NoError(t, db.Close())
}

// mountSmall makes a file system of nbytes in a file and mounts it.
func mountSmall(t *testing.T, nbytes int64) string {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs Linux and root")
	}
	dir := t.TempDir()
	image, mnt := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	require.NoError(t, os.Mkdir(mnt, 0o700))
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, nbytes))
	for _, cmd := range []string{"mkfs.ext4 -q -O ^has_journal " + image, "mount -o loop " + image + " " + mnt} {
		args := strings.Fields(cmd)
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%s: %v: %s", cmd, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", mnt).CombinedOutput(); err != nil {
			t.Logf("umount: %v: %s", err, out)
		}
	})
	return mnt
}

func TestDependencies(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").CombinedOutput()
	require.NoError(t, err, string(out))
	for _, dep := range strings.Fields(string(out)) {
		switch {
		case strings.HasPrefix(dep, "github.com/foliokv/folio"), dep == "golang.org/x/sys/unix", dep == "github.com/cespare/xxhash/v2":
		default:
			t.Errorf("the library depends on %s", dep)
		}
	}
}

// A leaf that a transaction changes once is left with its cells in the order of their keys
// and without dead bytes, so that no commit has to put it in order.
func TestLeavesStayTidy(t *testing.T) {
	db := testStore(t, filepath.Join(t.TempDir(), "s"), &Options{Sync: SyncOff})
	rnd := rand.New(rand.NewPCG(7, 8))
	want := map[string]int{}
	for range 5000 {
		require.NoError(t, db.Update(func(tx *Tx) error {
			key := fmt.Sprintf("%08d", rnd.IntN(2000))
			if _, found := want[key]; found && rnd.IntN(3) == 0 {
				delete(want, key)
				return tx.Delete([]byte(key))
			}
			n := rnd.IntN(2) * rnd.IntN(400)
			want[key] = n
			return tx.Put([]byte(key), bytes.Repeat([]byte{key[7]}, n))
		}))
	}
	got := map[string]int{}
	require.NoError(t, db.View(func(tx *Tx) error {
		for k, v := range tx.Root().All() {
			require.Equal(t, bytes.Repeat(k[7:], len(v)), v)
			got[string(k)] = len(v)
		}
		pg, nleaves := &tx.s.pg, 0
		err := pg.walkPages(tx.s.root.rec, func(n pgno, p page, _ int) error {
			if p.kind() != kindLeaf {
				return nil
			}
			nleaves++
			require.Zero(t, p.dead())
			for i := 1; i < p.count(); i++ {
				require.Less(t, p.slotOffset(p.count(), i-1), p.slotOffset(p.count(), i))
			}
			return nil
		}, nil)
		require.Greater(t, nleaves, 20)
		return err
	}))
	require.Equal(t, want, got)
	mustBeSound(t, db)
}
