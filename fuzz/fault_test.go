package fuzz

// fault_test.go fails every operation of a run, one after the other, in every way that
// it can fail. After each the store's memory and its file agree on a committed state;
// where a sync failed the store is read-only and says why; the run goes on once the
// cause is gone; and nothing hangs.

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/foliokv/folio"
	"github.com/foliokv/folio/internal/mmap"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// errInjected is wrapped by all faults of this test.
var errInjected = errors.New("injected")

func injected(errno unix.Errno) error { return fmt.Errorf("%w: %w", errInjected, errno) }

// faultKind is one way to fail.
type faultKind struct {
	name string
	of   []mmap.OpKind
	fault
	lasting bool // all that follows in the same step fails too
}

var faultKinds = []faultKind{
	{"EIO", []mmap.OpKind{mmap.OpRead, mmap.OpWrite, mmap.OpTruncate, mmap.OpPublish, mmap.OpSyncDir}, fault{err: injected(unix.EIO)}, false},
	{"ENOSPC", []mmap.OpKind{mmap.OpWrite, mmap.OpAllocate}, fault{err: injected(unix.ENOSPC)}, false},
	{"full for a while", []mmap.OpKind{mmap.OpWrite, mmap.OpAllocate}, fault{err: injected(unix.ENOSPC)}, true},
	{"short write", []mmap.OpKind{mmap.OpWrite}, fault{err: injected(unix.EIO), part: 0.6}, false},
	{"written, and yet an error", []mmap.OpKind{mmap.OpWrite}, fault{err: injected(unix.EIO), part: 1}, false},
	{"failed sync", []mmap.OpKind{mmap.OpSync, mmap.OpSyncRange, mmap.OpWriteOut}, fault{err: injected(unix.EIO)}, false},
	{"failed map", []mmap.OpKind{mmap.OpMap}, fault{err: injected(unix.ENOMEM)}, false},
	{"gone for a while", []mmap.OpKind{mmap.OpWrite, mmap.OpSync, mmap.OpSyncRange, mmap.OpWriteOut, mmap.OpTruncate, mmap.OpAllocate, mmap.OpMap}, fault{err: injected(unix.EIO)}, true},
}

func (k *faultKind) hits(kind mmap.OpKind) bool { return slices.Contains(k.of, kind) }

// faultCases are ways of using a store; one that is logged begins with a redo log that is
// nearly full, the others with nothing.
var faultCases = []struct {
	name    string
	opts    folio.Options
	profile profile
	logged  bool
}{
	{"full", folio.Options{}, profile{6, everyOp, fullSteps, mixedSizes, []int{1, 5, 40}}, false},
	{"two phase", folio.Options{TwoPhase: true}, profile{5, everyOp, phaseSteps, mixedSizes, []int{1, 5, 40}}, false},
	{"off", folio.Options{Sync: folio.SyncOff}, profile{6, everyOp, lazySteps, mixedSizes, []int{1, 5, 40}}, false},
	{"spilling", folio.Options{DirtyLimit: 16 << 10}, profile{4, everyOp, fullSteps, smallSizes, []int{1, 40, 100}}, false},
	{"logged", folio.Options{}, profile{5, loggedOps, loggedSteps, loggedSizes, []int{1, 2}}, true},
}

// TestFaults injects as many faults as FOLIO_FAULTS says.
func TestFaults(t *testing.T) {
	budget := intEnv(t, "FOLIO_FAULTS", 1500)
	if testing.Short() {
		budget = min(budget, 300)
	}
	var total atomic.Int64
	t.Run("cases", func(t *testing.T) {
		for _, c := range faultCases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				dir := scratchDir(t)
				o := newOrigins(dir, c.opts)
				nfaults := spend(t, budget/len(faultCases), func(rt *rapid.T) (int, error) {
					ft := &faultTest{dir: dir, opts: c.opts, from: origin{state: emptyState()}}
					var first script
					if c.logged {
						var err error
						if ft.from, first, err = logged(rt, o); err != nil {
							return 0, err
						}
					}
					ft.script = slices.Concat(first, c.profile.script().Draw(rt, "script"))
					ft.rnd = rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "images"), 1))
					err := ft.everyOperation()
					return ft.nfaults, err
				})
				total.Add(int64(nfaults))
			})
		}
	})
	t.Logf("%d faults injected", total.Load())
}

// faultTest is one script, run once for each operation and way to fail.
type faultTest struct {
	dir     string
	opts    folio.Options
	from    origin
	script  script
	rnd     *rand.Rand
	nfaults int
}

// everyOperation counts the operations of the run, and then fails each.
func (ft *faultTest) everyOperation() error {
	var kinds []mmap.OpKind
	count := func(_ int, op mmap.Op, _ bool) fault {
		kinds = append(kinds, op.Kind)
		return fault{}
	}
	if err := ft.trial(count); err != nil {
		return fmt.Errorf("without a fault: %w", err)
	}
	for nth, kind := range kinds {
		for i := range faultKinds {
			k := &faultKinds[i]
			if !k.hits(kind) {
				continue
			}
			ft.nfaults++
			if err := ft.fail(nth, k); err != nil {
				return fmt.Errorf("%s at operation %d (%v): %w", k.name, nth, kind, err)
			}
		}
	}
	return nil
}

// fail runs the script with one operation failing.
func (ft *faultTest) fail(nth int, k *faultKind) error {
	defer watch(k.name, hangLimit)()
	return ft.trial(func(n int, op mmap.Op, healed bool) fault {
		if n == nth || n > nth && k.lasting && !healed && k.hits(op.Kind) {
			return k.fault
		}
		return fault{}
	})
}

// trial runs the script on a store as it was at the beginning. fail says what fails; healed is true from the
// end of the step on in which something did. After that step and at the end it is
// checked that memory and file hold what was committed.
func (ft *faultTest) trial(fail func(nth int, op mmap.Op, healed bool) fault) error {
	r, err := ft.begin()
	if err != nil {
		return err
	}
	defer os.Remove(r.path)
	hit, healed := false, false
	r.rec.fail = func(nth int, op mmap.Op) fault {
		f := fail(nth, op, healed)
		hit = hit || f.err != nil
		return f
	}
	remove := mmap.Intercept(r.path, r.rec)
	defer remove()
	defer r.abandon()
	if err := r.trouble("open", r.open()); err != nil {
		return err
	}
	for _, st := range slices.Concat(ft.script, script{{kind: stepReopen}}) {
		if r.db != nil {
			if err := r.step(st); err != nil {
				return fmt.Errorf("%s: %w", stepNames[st.kind], err)
			}
		}
		if r.db == nil && r.rec.hasLost() {
			return ft.crashNow(r)
		}
		if hit && !healed {
			healed = true
			if err := ft.afterFault(r); err != nil {
				return err
			}
		}
		if r.db != nil && r.db.IsReadOnly() {
			remove()
			return ft.afterPoison(r)
		}
	}
	remove()
	r.rec.fail = nil
	if err := r.reopenFailed(); err != nil {
		return err
	}
	if err := r.mustShow(r.newest); err != nil {
		return err
	}
	return sound(r.db)
}

// begin returns a runner for the store as it was at the beginning.
func (ft *faultTest) begin() (*runner, error) {
	r := newRunner(filepath.Join(ft.dir, "store"), ft.opts, ft.from)
	r.tolerates = func(err error) bool { return errors.Is(err, errInjected) || isPoisoned(err) }
	if ft.from.image == nil {
		return r, nil
	}
	return r, os.WriteFile(r.path, ft.from.image, 0o600)
}

// reopenFailed opens a store that a fault kept from opening: it shows all that was
// committed.
func (r *runner) reopenFailed() error {
	if r.db != nil {
		return nil
	}
	if err := r.open(); err != nil {
		return fmt.Errorf("open once the cause is gone: %w", err)
	}
	return r.mustShow(r.newest)
}

// afterFault checks that readers and the writer see what was committed.
func (ft *faultTest) afterFault(r *runner) error {
	if err := r.reopenFailed(); err != nil {
		return err
	}
	if err := r.readersSeeACommit(); err != nil {
		return err
	}
	if r.db.IsReadOnly() {
		return nil
	}
	tx, err := r.db.Begin(true)
	if err != nil {
		return fmt.Errorf("begin after the fault: %w", err)
	}
	d, err := digestOf(tx)
	if err := errors.Join(err, tx.Rollback()); err != nil {
		return err
	}
	if d != r.states[r.newest].digest {
		return fmt.Errorf("the writer does not see commit %d", r.newest)
	}
	if err := sound(r.db); err != nil {
		return err
	}
	return ft.crashNow(r)
}

// readersSeeACommit checks that new readers see a commit that is at least as new as
// the last acknowledged, and none that has failed.
func (r *runner) readersSeeACommit() error {
	d, err := digestNow(r.db)
	if err != nil {
		return err
	}
	for i := r.acked; i <= r.newest; i++ {
		if r.states[i].digest == d {
			return nil
		}
	}
	return fmt.Errorf("readers see none of the commits %d to %d", r.acked, r.newest)
}

// afterPoison checks a store that a failed sync made read-only: it says why, readers
// stay where they are, and what the disk may hold is as after a crash.
func (ft *faultTest) afterPoison(r *runner) error {
	if err := r.readersSeeACommit(); err != nil {
		return err
	}
	err := r.db.Update(func(tx *folio.Tx) error { return nil })
	if !isPoisoned(err) || !errors.Is(err, errInjected) {
		return fmt.Errorf("a read-only store does not say why: %w", err)
	}
	if err := r.db.Sync(); !isPoisoned(err) {
		return fmt.Errorf("a read-only store syncs: %w", err)
	}
	if err := r.endReader(); err != nil {
		return err
	}
	if err := r.db.Close(); !isPoisoned(err) && !r.full {
		return fmt.Errorf("close hides the failed sync: %w", err)
	}
	r.db = nil
	return ft.crashNow(r)
}

// crashNow crashes the machine at the end of the record: a commit that has failed must
// not be there, and what was acknowledged must.
func (ft *faultTest) crashNow(r *runner) error {
	c := newCrasher(filepath.Join(ft.dir, "image"), ft.opts, ft.rnd)
	s := sampler{rnd: ft.rnd, psize: r.psize()}
	var err error
	points(ft.from.image, r.rec.events, func(p *crashPoint) {
		if p.index < len(r.rec.events) || !p.named && ft.from.image == nil {
			return
		}
		check := func(ch choice) bool {
			if err = c.verify(p.image(ch, nil), p, r.states, 0); err != nil {
				err = fmt.Errorf("a crash, with %x kept: %w", ch.kept, err)
			}
			return err == nil
		}
		_ = s.extremes(p, check) && s.random(p, 3, check)
	})
	return err
}

// TestFailedWriteOut fails what a checkpoint in the background begins with, once no commit
// has come for some seconds: the store is read-only then, as after a failed sync, and has
// lost nothing.
func TestFailedWriteOut(t *testing.T) {
	t.Parallel()
	dir := scratchDir(t)
	from, err := newOrigins(dir, folio.Options{}).logged(filling(2, 0), false)
	require.NoError(t, err)
	ft := &faultTest{dir: dir, from: from, rnd: rand.New(rand.NewPCG(seedOf(t), 1))}
	r, err := ft.begin()
	require.NoError(t, err)
	failed := make(chan struct{})
	r.rec.fail = func(_ int, op mmap.Op) (f fault) {
		if op.Kind == mmap.OpWriteOut {
			close(failed)
			f.err = injected(unix.EIO)
		}
		return f
	}
	defer mmap.Intercept(r.path, r.rec)()
	defer r.abandon()
	defer watch("a checkpoint of an idle store", hangLimit)()
	require.NoError(t, r.open())
	for key := range 5 {
		require.NoError(t, r.step(putting(stepCommit, key, 100)))
	}
	require.Positive(t, r.db.Stats().Logged)
	<-failed
	for !r.db.IsReadOnly() {
		time.Sleep(time.Millisecond)
	}
	require.NoError(t, ft.afterPoison(r))
}
