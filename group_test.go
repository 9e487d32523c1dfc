package folio

// group_test.go tests transactions that share a commit: syncs are held until the
// transactions of a test have joined the group behind them.

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/foliokv/folio/internal/mmap"
	"github.com/stretchr/testify/require"
)

// groupStore is a store whose syncs can be held, with some pages and a redo log.
type groupStore struct {
	*DB
	t    *testing.T
	h    *tap
	held chan struct{} // closed to let syncs go on; nil while none is held

	background sync.WaitGroup
}

func newGroupStore(t *testing.T, opts *Options) *groupStore {
	path := filepath.Join(t.TempDir(), "s")
	h := intercept(t, path)
	s := &groupStore{DB: testStore(t, path, opts), t: t, h: h}
	fill(t, s.DB, 0, 2000, 100)
	for i := range 3 {
		fill(t, s.DB, i, i+1, 100)
	}
	s.setUsualLength(-time.Hour) // for long, however slow the machine: none is kept out of a group
	t.Cleanup(func() {
		if s.held != nil { // the test has failed
			s.release(nil)
		}
	})
	return s
}

// hold makes syncs wait, begins a commit that meets that, and returns once it has.
func (s *groupStore) hold() {
	s.held = make(chan struct{})
	begun := make(chan struct{}, 100)
	held := s.held
	s.h.setFail(func(op mmap.Op) error {
		if op.Kind == mmap.OpSync || op.Kind == mmap.OpSyncRange {
			begun <- struct{}{}
			<-held
		}
		return nil
	})
	s.background.Go(func() { s.Update(func(tx *Tx) error { return tx.Put([]byte("first"), nil) }) })
	<-begun
}

// release lets syncs go on and waits for all that runs in the background.
func (s *groupStore) release(fail error) {
	s.h.setFail(func(op mmap.Op) error {
		if op.Kind == mmap.OpSync || op.Kind == mmap.OpSyncRange {
			return fail
		}
		return nil
	})
	s.letGo()
}

func (s *groupStore) letGo() {
	close(s.held)
	s.held = nil
	s.background.Wait()
	s.h.setFail(nil)
}

func (s *groupStore) setUsualLength(d time.Duration) {
	s.writer <- struct{}{}
	s.usualLength = d
	<-s.writer
}

// join runs fn in the background as an Update, and returns once it is part of a group.
func (s *groupStore) join(fn func(tx *Tx) error) *error {
	err := new(error)
	before := s.members()
	s.background.Go(func() { *err = s.Update(fn) })
	s.waitFor(func() bool { return s.members() > before })
	return err
}

func (s *groupStore) members() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.group == nil {
		return 0
	}
	return s.group.nmembers
}

func (s *groupStore) newestTxid() txid {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest.txid
}

func (s *groupStore) waitFor(ok func() bool) {
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(50 * time.Microsecond) {
		require.True(s.t, time.Now().Before(deadline), "it never comes")
	}
}

func putter(key string) func(tx *Tx) error {
	return func(tx *Tx) error { return tx.Put([]byte(key), []byte(key)) }
}

// has reports whether a new reader sees a key.
func (s *groupStore) has(key string) (ok bool) {
	require.NoError(s.t, s.View(func(tx *Tx) error { ok = tx.Get([]byte(key)) != nil; return nil }))
	return ok
}

// Transactions that end while a sync is under way become one commit, with one sync;
// one that fails, panics or exits is undone alone; readers see them once they are durable.
func TestGroup(t *testing.T) {
	for _, opts := range []*Options{nil, {TwoPhase: true}} {
		s := newGroupStore(t, opts)
		before := s.Stats()
		var order []string
		called := func(name string) func() { return func() { order = append(order, name) } }
		boom := errors.New("boom")
		ids := make([]uint64, 3)
		if opts != nil { // it syncs with the writer lock: what waits for that joins
			for i := range 8 {
				s.background.Go(func() { require.NoError(t, s.Update(putter(fmt.Sprint("k", i)))) })
			}
			s.background.Wait()
			mustBeSound(t, s.DB)
			continue
		}
		s.hold()
		a := s.join(func(tx *Tx) error {
			ids[0] = tx.ID()
			tx.OnCommit(called("a"))
			_, err := tx.CreateBucket([]byte("b"))
			return errors.Join(err, tx.Put([]byte("a"), []byte("1")))
		})
		require.ErrorIs(t, s.Update(func(tx *Tx) error {
			tx.OnCommit(called("failed"))
			require.NoError(t, tx.DeleteBucket([]byte("b")))
			require.NoError(t, tx.Put([]byte("a"), []byte("2")))
			require.NoError(t, tx.Put([]byte("failed"), make([]byte, 70_000)))
			return boom
		}), boom)
		require.PanicsWithValue(t, "boom", func() {
			s.Update(func(tx *Tx) error {
				require.NoError(t, tx.Delete([]byte("a")))
				panic("boom")
			})
		})
		exited := make(chan struct{})
		go func() {
			defer close(exited)
			s.Update(func(tx *Tx) error { tx.Put([]byte("exited"), nil); runtime.Goexit(); return nil })
		}()
		<-exited
		b := s.join(func(tx *Tx) error {
			ids[1] = tx.ID()
			require.Equal(t, "1", string(tx.Get([]byte("a"))), "what the group has so far")
			require.ErrorIs(t, tx.Nested(func(tx *Tx) error { tx.Put([]byte("nested"), nil); return boom }), boom)
			tx.OnCommit(called("b"))
			return tx.Bucket([]byte("b")).Put([]byte("k"), []byte("v"))
		})
		tx, err := s.Begin(true)
		require.NoError(t, err)
		require.NoError(t, tx.Put([]byte("rolled back"), nil))
		require.NoError(t, tx.Rollback())
		require.ErrorIs(t, tx.Rollback(), ErrTxClosed)
		c := s.join(func(tx *Tx) error { ids[2] = tx.ID(); return nil })
		require.False(t, s.has("a"), "not durable yet")
		require.Empty(t, order)
		s.release(nil)
		for _, err := range []*error{a, b, c} {
			require.NoError(t, *err)
		}
		require.Equal(t, []string{"a", "b"}, order)
		require.Equal(t, []uint64{ids[0], ids[0] + 1, ids[0] + 2}, ids)
		after := s.Stats()
		require.EqualValues(t, 2, after.Groups-before.Groups)
		require.EqualValues(t, 4, after.Commits-before.Commits)
		require.EqualValues(t, 2, after.LogSyncs-before.LogSyncs)
		require.Equal(t, ids[2], after.Durable)
		for key, want := range map[string]bool{"first": true, "a": true, "failed": false, "exited": false, "nested": false, "rolled back": false} {
			require.Equal(t, want, s.has(key), key)
		}
		mustBeSound(t, s.DB)
	}
}

// Where many commit, a group is sealed behind the sync that is under way once half of them are
// in it; of what comes then, all is one group, and waits for both syncs.
func TestHalfOfAllIsAGroup(t *testing.T) {
	s := newGroupStore(t, nil)
	before := s.Stats()
	s.hold()
	s.mu.Lock()
	s.ncommitters, s.syncTime = fewCommitters, -100*time.Hour // less than all of them take
	s.mu.Unlock()
	const half = fewCommitters / 2
	var errs []*error
	put := func(i int) func(tx *Tx) error { return putter(fmt.Sprint("member ", i)) }
	for i := range half - 1 {
		errs = append(errs, s.join(put(i)))
	}
	last := new(error)
	s.background.Go(func() { *last = s.Update(put(half - 1)) })
	s.waitFor(func() bool { return s.members() == 0 })
	require.Equal(t, before.Groups+2, s.Stats().Groups, "the first commit, and the group that the last member has sealed")
	for i := range 2 * half {
		errs = append(errs, s.join(put(half+i)))
	}
	require.Equal(t, before.Groups+2, s.Stats().Groups)
	require.False(t, s.has("member 0"), "its sync has not begun")
	s.release(nil)
	for _, err := range append(errs, last) {
		require.NoError(t, *err)
	}
	for i := range 3 * half {
		require.True(t, s.has(fmt.Sprint("member ", i)), i)
	}
	after := s.Stats()
	require.Equal(t, before.Groups+3, after.Groups)
	require.Equal(t, before.Commits+1+3*half, after.Commits)
	mustBeSound(t, s.DB)
}

// A group whose last transaction has failed has the number of the one before.
func TestGroupEndsWithAFailure(t *testing.T) {
	s := newGroupStore(t, nil)
	s.hold()
	var id uint64
	a := s.join(func(tx *Tx) error { id = tx.ID(); return tx.Put([]byte("a"), nil) })
	require.Error(t, s.Update(func(tx *Tx) error { tx.Put([]byte("b"), nil); return errors.New("no") }))
	s.release(nil)
	require.NoError(t, *a)
	require.Equal(t, id, s.Stats().Newest)
	mustBeSound(t, s.DB)
}

// A failed sync fails every member of the group behind it, and of its own.
func TestFailedSyncFailsTheGroup(t *testing.T) {
	s := newGroupStore(t, nil)
	s.hold()
	a, b := s.join(putter("a")), s.join(putter("b"))
	s.release(syscall.EIO)
	for _, err := range []*error{a, b} {
		require.ErrorIs(t, *err, ErrSyncFailed)
		require.ErrorIs(t, *err, syscall.EIO)
	}
	require.False(t, s.has("a"))
	require.ErrorIs(t, s.Update(putter("c")), ErrSyncFailed)
	require.ErrorIs(t, s.Close(), ErrSyncFailed)
	db := testStore(t, s.Path(), nil)
	mustBeSound(t, db)
}

// Where a group can't be written, all its members are told, and the store goes on.
func TestGroupWithoutRoom(t *testing.T) {
	s := newGroupStore(t, nil)
	s.hold()
	a, b := s.join(putter("a")), s.join(putter("b"))
	s.h.setFail(func(op mmap.Op) error {
		if op.Kind == mmap.OpWrite {
			return syscall.ENOSPC
		}
		return nil
	})
	s.letGo()
	require.ErrorIs(t, *a, syscall.ENOSPC)
	require.ErrorIs(t, *b, syscall.ENOSPC)
	require.True(t, s.has("first"))
	require.False(t, s.has("a"))
	require.NoError(t, s.Update(putter("c")))
	mustBeSound(t, s.DB)
}

// Transactions that usually take long are not waited for: the group before is written
// first, and durable while they run.
func TestLongTransactionsJoinNoGroup(t *testing.T) {
	s := newGroupStore(t, nil)
	s.hold()
	a := s.join(putter("a"))
	s.setUsualLength(time.Hour)
	tx, err := s.Begin(true)
	require.NoError(t, err)
	require.Zero(t, s.members(), "written")
	require.NoError(t, tx.Put([]byte("long"), nil))
	s.release(nil) // it waits for a
	require.NoError(t, *a)
	require.True(t, s.has("a"))
	require.False(t, s.has("long"))
	require.NoError(t, tx.Commit())
	require.True(t, s.has("long"))
	mustBeSound(t, s.DB)
}

// CommitAsync writes the group that it is part of at once; the others wait for the sync.
func TestCommitAsyncInAGroup(t *testing.T) {
	s := newGroupStore(t, nil)
	s.hold()
	a := s.join(putter("a"))
	tx, err := s.Begin(true)
	require.NoError(t, err)
	require.NoError(t, tx.Put([]byte("async"), nil))
	wait, err := tx.CommitAsync()
	require.NoError(t, err)
	require.Zero(t, s.members())
	require.NoError(t, s.withNewest(func(tx *Tx) error {
		require.NotNil(t, tx.Get([]byte("async")), "a writer sees it")
		return nil
	}))
	require.False(t, s.has("a"))
	s.release(nil)
	require.NoError(t, *a)
	require.NoError(t, wait())
	require.True(t, s.has("async"))
	mustBeSound(t, s.DB)
}

// withNewest runs fn in a write transaction that is rolled back.
func (s *groupStore) withNewest(fn func(tx *Tx) error) error {
	tx, err := s.Begin(true)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	return fn(tx)
}

// A context ends the wait for the writer lock, and nothing later; a group that waited for
// such a transaction goes on without it.
func TestContextAndGroup(t *testing.T) {
	s := newGroupStore(t, nil)
	tx, err := s.Begin(true)
	require.NoError(t, err)
	require.NoError(t, tx.Put([]byte("a"), nil))
	ctx, cancel := context.WithCancel(context.Background())
	waiting := make(chan error)
	go func() { waiting <- s.UpdateContext(ctx, putter("never")) }()
	s.waitFor(func() bool { return s.nwaiting.Load() > 0 })
	time.AfterFunc(time.Millisecond, cancel)
	require.NoError(t, tx.Commit())
	if err := <-waiting; err != nil {
		require.ErrorIs(t, err, context.Canceled)
	}
	require.True(t, s.has("a"))

	s.hold()
	ctx, cancel = context.WithCancel(context.Background())
	var joined error
	s.background.Go(func() { joined = s.UpdateContext(ctx, putter("joined")) })
	s.waitFor(func() bool { return s.members() == 1 })
	cancel()
	s.release(nil)
	require.NoError(t, joined)
	require.True(t, s.has("joined"))
}

// Close waits for the groups that there are, and makes them durable.
func TestCloseAndGroups(t *testing.T) {
	s := newGroupStore(t, nil)
	s.hold()
	a, b := s.join(putter("a")), s.join(putter("b"))
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	s.waitFor(s.closed.Load)
	require.ErrorIs(t, s.Update(putter("late")), ErrDatabaseNotOpen)
	s.release(nil)
	require.NoError(t, <-closed)
	require.NoError(t, *a)
	require.NoError(t, *b)
	s.DB = testStore(t, s.Path(), nil)
	require.True(t, s.has("a"))
	require.True(t, s.has("b"))
	require.False(t, s.has("late"))
}

// A page that a member wrote early closes the group: it has the member's number.
func TestSpillInAGroup(t *testing.T) {
	s := newGroupStore(t, &Options{DirtyLimit: 32 << 10})
	s.hold()
	a := s.join(putter("a"))
	large := func(tx *Tx) error {
		for i := range 2000 {
			if err := tx.Put(fmt.Appendf(nil, "large %04d", i), make([]byte, 100)); err != nil {
				return err
			}
		}
		return nil
	}
	require.Error(t, s.Update(func(tx *Tx) error { large(tx); return errors.New("no") }))
	var spilled error
	before := s.newestTxid()
	s.background.Go(func() { spilled = s.Update(large) })
	s.waitFor(func() bool { return s.newestTxid() > before })
	s.release(nil)
	require.NoError(t, *a)
	require.NoError(t, spilled)
	require.True(t, s.has("large 1999"))
	mustBeSound(t, s.DB)
}

// Many goroutines count in one key, and some fail: the numbers of the transactions are
// in the order of the counts, nothing is lost, and a reopened store has it all.
func TestGroupsUnderLoad(t *testing.T) {
	for _, opts := range []*Options{nil, {TwoPhase: true}, {DirtyLimit: 24 << 10}} {
		db := testStore(t, filepath.Join(t.TempDir(), "s"), opts)
		fill(t, db, 0, 3000, 100)
		const ngoroutines, neach = 24, 40
		var mu sync.Mutex
		got := map[uint64]uint64{} // count by number
		var ncalled atomic.Uint64
		var wg sync.WaitGroup
		for g := range ngoroutines {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(1, uint64(g)))
				for range neach {
					countOnce(t, db, rnd, func(id, count uint64) {
						mu.Lock()
						defer mu.Unlock()
						_, twice := got[id]
						require.False(t, twice, "number %d was given twice", id)
						got[id] = count
					}, &ncalled)
				}
			})
		}
		wg.Wait()
		ids := make([]uint64, 0, len(got))
		for id := range got {
			ids = append(ids, id)
		}
		slices.Sort(ids)
		for i, id := range ids {
			require.EqualValues(t, i+1, got[id], "count of transaction %d", id)
		}
		require.EqualValues(t, len(ids), ncalled.Load(), "OnCommit")
		require.Less(t, db.Stats().Groups, db.Stats().Commits)
		mustBeSound(t, db)
		require.NoError(t, db.Close())
		db = testStore(t, db.Path(), nil)
		require.NoError(t, db.View(func(tx *Tx) error {
			require.EqualValues(t, len(ids), binary.BigEndian.Uint64(tx.Get([]byte("count"))))
			return nil
		}))
		mustBeSound(t, db)
	}
}

// countOnce adds one to a count, in one way or another, or fails to; done is told of it.
func countOnce(t *testing.T, db *DB, rnd *rand.Rand, done func(id, count uint64), ncalled *atomic.Uint64) {
	var id, count uint64
	fail := rnd.IntN(5) == 0
	add := func(tx *Tx) error {
		id = tx.ID()
		count = 1
		if v := tx.Get([]byte("count")); v != nil {
			count = binary.BigEndian.Uint64(v) + 1
		}
		tx.OnCommit(func() { ncalled.Add(1) })
		if rnd.IntN(10) == 0 {
			if err := tx.Put(fmt.Appendf(nil, "run %d", rnd.IntN(4)), make([]byte, 66_000)); err != nil {
				return err
			}
		}
		return tx.Put([]byte("count"), binary.BigEndian.AppendUint64(nil, count))
	}
	failed := errors.New("failed")
	if rnd.IntN(3) > 0 {
		err := db.Update(func(tx *Tx) error {
			if err := add(tx); err != nil || !fail {
				return err
			}
			return failed
		})
		if !fail {
			require.NoError(t, err)
			require.GreaterOrEqual(t, db.Stats().Durable, id)
			done(id, count)
		} else {
			require.ErrorIs(t, err, failed)
		}
		return
	}
	tx, err := db.Begin(true)
	require.NoError(t, err)
	require.NoError(t, add(tx))
	switch {
	case fail:
		require.NoError(t, tx.Rollback())
		return
	case rnd.IntN(2) == 0:
		wait, err := tx.CommitAsync()
		require.NoError(t, err)
		require.NoError(t, wait())
	default:
		require.NoError(t, tx.Commit())
	}
	done(id, count)
}

// In a TwoPhase store the pages of a group are synced before its meta is written, also
// where it is CommitAsync that writes it.
func TestTwoPhaseGroup(t *testing.T) {
	s := newGroupStore(t, &Options{TwoPhase: true})
	s.hold()
	var a error
	s.background.Go(func() { a = s.Update(putter("a")) })
	s.waitFor(func() bool { return s.nwaiting.Load() == 1 })
	s.background.Go(func() {
		tx, err := s.Begin(true)
		if err == nil {
			err = tx.Put([]byte("async"), nil)
		}
		if err == nil {
			_, err = tx.CommitAsync()
		}
		if err != nil {
			t.Error(err)
		}
	})
	s.waitFor(func() bool { return s.nwaiting.Load() == 2 })
	groups := s.Stats().Groups
	var order []string
	s.h.setFail(func(op mmap.Op) error {
		switch {
		case op.Kind == mmap.OpSync:
			order = append(order, "sync")
		case op.Kind == mmap.OpWrite && op.Off < numMetas*minPageSize:
			order = append(order, "meta")
		case op.Kind == mmap.OpWrite:
			order = append(order, "pages")
		}
		return nil
	})
	s.letGo()
	require.NoError(t, a)
	require.EqualValues(t, 2, s.Stats().Groups-groups, "the first, and one that they share")
	order = slices.Compact(order)
	require.Equal(t, []string{"meta", "sync", "pages", "sync", "meta", "sync"}, order, "the end of the first, then theirs")
}
