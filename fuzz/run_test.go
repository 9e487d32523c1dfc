package fuzz

// run_test.go runs a script on a recorded store, beside its model, and notes what is
// known to be committed and durable.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"testing"
	"time"

	"github.com/foliokv/folio"
	"github.com/foliokv/folio/internal/mmap"
	"pgregory.net/rapid"
)

// seedOf returns the seed of a test: FOLIO_SEED, or the time.
func seedOf(t *testing.T) uint64 {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("FOLIO_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("FOLIO_SEED: %v", err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with: FOLIO_SEED=%d go test ./fuzz -run '^%s$'", seed, t.Name())
		}
	})
	return seed
}

// intEnv returns the number in an environment variable, or what stands for it.
func intEnv(t *testing.T, name string, otherwise int) int {
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// spend has rapid run prop, which says what it cost, until the budget is spent, and
// returns what all of it did. Where prop fails, rapid runs it again and again to shrink
// what it drew, whatever the budget.
func spend(t *testing.T, budget int, prop func(rt *rapid.T) (cost int, err error)) (spent int) {
	failing := false
	for spent < budget && !t.Failed() {
		rapid.Check(t, func(rt *rapid.T) {
			if spent >= budget && !failing {
				return
			}
			cost, err := prop(rt)
			spent += cost
			if err != nil {
				failing = true
				rt.Fatalf("%v", err)
			}
		})
	}
	return spent
}

// scratchDir returns a folder for files that are written once and read once: in
// memory where there is such a place, since what is tested is not the disk.
func scratchDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "folio-fuzz-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// hangLimit is how long what takes moments may take on the slowest machine.
const hangLimit = 2 * time.Minute

// watch ends the process, with everyone's stack, where something hangs.
func watch(what string, limit time.Duration) (stop func() bool) {
	debug.SetTraceback("all")
	return time.AfterFunc(limit, func() { panic(what + " hangs") }).Stop
}

// commitState is the store after one commit.
type commitState struct {
	digest   digest
	contents *contents
}

// runner runs steps on one store.
type runner struct {
	path string
	opts folio.Options
	rec  *recorder
	db   *folio.DB

	scribe scribe
	states []commitState // after commit i
	newest int           // the commit that the next one builds on
	begun  int
	acked  int
	wait   func() error // of the last CommitAsync
	full   bool         // there was no room for a recovery: the store is open all the same

	// tolerates says of an error whether it is to be expected, as where faults are
	// injected; the transaction is then undone and the run goes on.
	tolerates func(err error) bool

	reader     *folio.Tx
	readerSees digest
}

// trouble returns err for a run to stop with, or nil if it is to be expected.
func (r *runner) trouble(what string, err error) error {
	if err == nil || r.tolerates != nil && r.tolerates(err) {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (r *runner) psize() int { return max(r.opts.PageSize, unitSize) }

func (r *runner) mark(failed int) { r.rec.mark(r.begun, r.acked, failed) }

// acknowledge notes that commit n is durable.
func (r *runner) acknowledge(n int) {
	r.acked = max(r.acked, n)
	r.mark(0)
}

func (r *runner) open() (err error) {
	r.rec.reopen()
	r.db, err = folio.Open(r.path, 0o600, &r.opts)
	r.full = err == nil && r.db.IsReadOnly()
	return err
}

// run does the steps of a script.
func (r *runner) run(s script) error {
	for i, st := range s {
		if err := r.step(st); err != nil {
			return fmt.Errorf("step %d (%s): %w", i, stepNames[st.kind], err)
		}
	}
	return nil
}

func (r *runner) step(st step) error {
	switch st.kind {
	case stepSync:
		return r.sync()
	case stepTick:
		return r.tick(st)
	case stepReopen:
		if err := r.close(); err != nil || r.rec.hasLost() {
			return err
		}
		return r.trouble("open", r.open())
	case stepKill:
		return r.kill()
	case stepReader:
		return r.toggleReader()
	}
	return r.transaction(st)
}

// transaction does one transaction, and ends it as the step says.
func (r *runner) transaction(st step) error {
	tx, err := r.db.Begin(true)
	if err != nil {
		return r.trouble("begin", err)
	}
	after := r.states[r.newest].contents.clone()
	for _, o := range st.ops {
		if err := r.scribe.do(tx, after, o); err != nil {
			return errors.Join(r.trouble(o.String(), err), tx.Rollback())
		}
	}
	if st.kind == stepRollback {
		return tx.Rollback()
	}
	d := after.digest()
	if got, err := digestOf(tx); err != nil || got != d {
		return errors.Join(errors.New("the transaction does not show what it did"), err, tx.Rollback())
	}
	r.states = append(r.states, commitState{d, after})
	r.begun = len(r.states) - 1
	r.mark(0)
	return r.finish(tx, st.kind)
}

// finish commits tx as commit r.begun.
func (r *runner) finish(tx *folio.Tx, kind stepKind) error {
	n := r.begun
	var wait func() error
	var err error
	if kind == stepAsync || kind == stepAsyncWait {
		wait, err = tx.CommitAsync()
	} else {
		err = tx.Commit()
	}
	if err != nil {
		if !isPoisoned(err) { // else its outcome is not known
			r.mark(n)
		}
		return r.trouble("commit", err)
	}
	r.newest, r.wait = n, wait
	if kind == stepAsyncWait {
		if err := wait(); err != nil {
			return r.trouble("wait", err)
		}
	}
	if kind == stepAsyncWait || wait == nil && r.opts.Sync == folio.SyncFull {
		r.acknowledge(n)
	}
	return nil
}

// isPoisoned reports whether err says that the store is not written any more.
func isPoisoned(err error) bool {
	return errors.Is(err, folio.ErrSyncFailed) || errors.Is(err, folio.ErrDatabaseReadOnly)
}

func (r *runner) sync() error {
	n := r.newest
	if err := r.db.Sync(); err != nil {
		return r.trouble("sync", err)
	}
	r.acknowledge(n)
	return nil
}

// tick syncs, as SyncInterval does, and while that is under way commits each operation:
// the sync's end makes durable what was committed before it began.
func (r *runner) tick(st step) error {
	n := r.newest
	held := r.rec.holdSync()
	defer r.rec.unhold()
	done := make(chan error, 1)
	go func() { done <- r.db.Sync() }()
	var err error
	select {
	case err = <-done: // there was nothing to sync
	case <-held.begun:
		if r.opts.MaxSize > 0 { // a commit may need a checkpoint for room, and waits for this one
			held.release()
		}
		failed := r.commitEach(st.ops)
		held.release()
		err = <-done
		if failed != nil {
			return failed
		}
	}
	if err != nil {
		return r.trouble("sync beside a commit", err)
	}
	r.acknowledge(n)
	return nil
}

// commitEach commits each operation as a transaction of its own, without a sync of
// everything: what has a redo record has that synced, and is durable beside the sync that
// is under way.
func (r *runner) commitEach(ops []op) error {
	kind := stepAsync
	if r.opts.Sync != folio.SyncFull {
		kind = stepCommit
	}
	for _, o := range ops {
		before, nlogged := r.newest, r.db.Stats().Logged
		if err := r.transaction(step{kind: kind, ops: []op{o}}); err != nil {
			return err
		}
		if r.newest == before || r.db.Stats().Logged == nlogged {
			continue
		}
		if err := r.wait(); err != nil {
			return r.trouble("wait", err)
		}
		r.acknowledge(r.newest)
	}
	return nil
}

// close ends the reader and the store.
func (r *runner) close() error {
	if err := r.endReader(); err != nil {
		return err
	}
	err := r.db.Close()
	r.db = nil
	if err != nil {
		return r.trouble("close", err)
	}
	r.acknowledge(r.newest)
	return nil
}

// kill ends the process: what it wrote is in the page cache, and what it would still
// do on its way out is not done. The next open must show all that was committed.
func (r *runner) kill() error {
	r.rec.setKilled(true)
	r.dropReader()
	if err := r.db.Close(); !errors.Is(err, errKilled) {
		if err := r.trouble("close of a killed store", err); err != nil {
			return err
		}
	}
	r.rec.setKilled(false)
	if err := r.open(); err != nil {
		return r.trouble("open after a kill", err)
	}
	if err := r.mustShow(r.newest); err != nil {
		return err
	}
	r.acknowledge(r.newest) // a recovery makes durable what it shows
	return nil
}

// mustShow checks that new readers see commit n.
func (r *runner) mustShow(n int) error {
	d, err := digestNow(r.db)
	if err != nil {
		return r.trouble("read", err)
	}
	if d != r.states[n].digest {
		return fmt.Errorf("the store does not show commit %d", n)
	}
	return nil
}

// toggleReader begins a reader, which keeps the pages of its snapshot, or ends it.
func (r *runner) toggleReader() (err error) {
	if r.reader != nil {
		return r.endReader()
	}
	if r.reader, err = r.db.Begin(false); err != nil {
		r.reader = nil
		return r.trouble("begin to read", err)
	}
	r.readerSees, err = digestOf(r.reader)
	return r.trouble("read", err)
}

// endReader ends the reader; it must see what it saw first.
func (r *runner) endReader() error {
	if r.reader == nil {
		return nil
	}
	d, err := digestOf(r.reader)
	r.dropReader()
	if err == nil && d != r.readerSees {
		err = errors.New("a reader's snapshot has changed under it")
	}
	return r.trouble("read again", err)
}

// dropReader ends the reader, if there is one, whatever it sees.
func (r *runner) dropReader() {
	if r.reader != nil {
		r.reader.Rollback()
		r.reader = nil
	}
}

// origin is a store as a recorded run finds it.
type origin struct {
	image []byte
	state commitState
}

// makeOrigin runs a prologue and closes the store, or leaves it as a killed process does.
func makeOrigin(path string, opts folio.Options, prologue script, killed bool) (o origin, err error) {
	defer os.Remove(path)
	r := newRunner(path, opts, origin{state: emptyState()})
	if !killed {
		err = r.record(prologue)
	} else {
		defer r.abandon()
		err = r.recordOpen(prologue)
	}
	if err != nil {
		return o, fmt.Errorf("before the record: %w", err)
	}
	o.state = r.states[r.newest]
	o.image, err = os.ReadFile(path)
	return o, err
}

func emptyState() commitState { return commitState{newContents().digest(), newContents()} }

// newRunner returns a runner that begins with o, in the file at path.
func newRunner(path string, opts folio.Options, o origin) *runner {
	return &runner{
		path: path, opts: opts, states: []commitState{o.state},
		rec: &recorder{path: path, size: int64(len(o.image))},
	}
}

// record runs a script under the hook, and closes the store.
func (r *runner) record(s script) error {
	if err := r.recordOpen(s); err != nil {
		return err
	}
	return r.close()
}

// recordOpen runs a script under the hook, which stays on the file while it is open.
func (r *runner) recordOpen(s script) error {
	defer mmap.Intercept(r.path, r.rec)()
	r.mark(0)
	if err := r.open(); err != nil {
		return r.trouble("open", err)
	}
	r.acknowledge(r.newest) // a recovery makes durable what it shows
	return r.run(s)
}

// sound checks the whole store.
func sound(db *folio.DB) error {
	var errs []error
	for err := range db.Check(context.Background()) {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return fmt.Errorf("check: %w", errors.Join(errs...))
	}
	return nil
}
