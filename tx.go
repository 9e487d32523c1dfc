package folio

// tx.go is one transaction: its handle, its buckets' trees, nested transactions,
// and how it ends.
//
// Invariants:
//   - a Tx handle is never used again for another transaction; what it points to
//     is pooled, and the pointer is cleared when the transaction ends;
//   - while a transaction is open its slot in the reader table pins its snapshot;
//   - an open bucket's record lives in its tree; the cell in the parent is behind
//     while tree.changed is set, and is brought up to date by flush;
//   - a tree is saved to the top frame before the layer changes it first.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/foliokv/folio/internal/shm"
)

// Tx is a transaction: a consistent view of the whole store, and for a writable one
// the changes made to it. A Tx is also its root bucket.
//
// A Tx and everything had from it (buckets, cursors, slices) is for one goroutine
// at a time. Slices that it hands out are valid, and unchanged, until it ends; they
// point into read-only memory or into pages of the transaction, and must not be
// modified. After its end every method gives nothing, or ErrTxClosed.
type Tx struct {
	s       *txState // nil once the transaction has ended
	managed bool     // View, Update and Nested end it, not the caller
	member  bool     // it is a layer on top of a group
}

// txState is what a transaction works with; it is pooled.
type txState struct {
	db        *DB
	writable  bool
	guarded   bool // page faults are being turned into errors on this goroutine
	quick     bool // guarded, and no fault was met: a read needs no further look
	err       error
	base      txid // the snapshot it sees
	id        txid
	maps      []*fileMap // that it has slices of; the last is the one in use
	slot      *shm.Slot
	slotHint  int
	ringPlace uint64 // of the snapshot in the reader table's ring
	pg        pager
	root      tree

	// In a write transaction:
	w        layers
	redo     redoBuffer
	trees    []*tree // every bucket opened, parents mostly before children
	byName   map[treeName]*tree
	hooks    []func()
	began    time.Time
	idBefore txid // of the group that it is a layer on top of
	spilled  bool // a page was written early, with this id
}

// treeName is where an open bucket is.
type treeName struct {
	parent *tree
	name   string
}

// treeUndo is how an open bucket was before a layer changed it.
type treeUndo struct {
	t   *tree
	old tree
}

// fail records the first fault met; the transaction gives nothing from here on.
func (s *txState) fail(err error) error {
	if s.err == nil {
		s.err = err
	}
	s.quick = false
	return err
}

// setGuarded notes whether page faults are being turned into errors.
func (s *txState) setGuarded(guarded bool) {
	s.guarded = guarded
	s.quick = guarded && s.err == nil
}

// state returns what the transaction works with, or why it can't.
func (tx *Tx) state() (*txState, error) {
	if tx.s == nil {
		return nil, ErrTxClosed
	}
	return tx.s, tx.s.err
}

// writeState is state for a change.
func (tx *Tx) writeState() (*txState, error) {
	s, err := tx.state()
	if err != nil {
		return nil, err
	}
	if !s.writable {
		return nil, ErrTxNotWritable
	}
	return s, nil
}

// guard runs fn with page faults in the map turned into the transaction's error.
func (s *txState) guard(fn func()) {
	if s.guarded {
		fn()
		return
	}
	s.setGuarded(true)
	defer s.unguard(debug.SetPanicOnFault(true))
	fn()
}

// unguard is deferred by guard.
func (s *txState) unguard(old bool) {
	debug.SetPanicOnFault(old)
	s.setGuarded(false)
	if r := recover(); r != nil {
		err := s.faultError(r)
		if err == nil {
			panic(r)
		}
		s.fail(err)
	}
}

// faultError returns the error for a recovered panic that is a fault in one of the
// transaction's mappings, nil for any other.
func (s *txState) faultError(r any) error {
	for _, fm := range s.maps {
		if err := fm.faultError(r, s.pg.shift); err != nil {
			return err
		}
	}
	return nil
}

// --- begin and end

// View runs fn in a read-only transaction: a snapshot of the last published commit.
// It never waits for a writer and never makes one wait. It returns fn's error,
// joined with the first fault (damage, I/O error) met while reading.
//
// View is safe for concurrent use. A panic in fn ends the transaction and goes on.
func (db *DB) View(fn func(*Tx) error) (err error) {
	s, err := db.beginRead()
	if err != nil {
		return err
	}
	tx := &Tx{s: s, managed: true}
	s.setGuarded(true)
	defer tx.endView(debug.SetPanicOnFault(true), &err)
	return fn(tx)
}

// ViewContext is View; it does not begin once ctx is done.
func (db *DB) ViewContext(ctx context.Context, fn func(*Tx) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("begin read transaction: %w", err)
	}
	return db.View(fn)
}

// endView is deferred by View.
func (tx *Tx) endView(old bool, err *error) {
	debug.SetPanicOnFault(old)
	s := tx.s
	r := recover()
	if r != nil {
		if fault := s.faultError(r); fault != nil {
			s.fail(fault)
			r = nil
		}
	}
	*err = joinFault(*err, s.err)
	tx.end()
	if r != nil {
		panic(r)
	}
}

// joinFault joins fn's error with the transaction's fault.
func joinFault(err, fault error) error {
	if fault == nil || errors.Is(err, fault) {
		return err
	}
	return errors.Join(err, fault)
}

// Update runs fn in a read-write transaction and commits it. Where fn returns an
// error, panics or calls runtime.Goexit, nothing of it remains. In the default mode
// the commit is durable when Update returns nil. One write transaction runs at a
// time; further calls wait their turn.
//
// In the default mode calls of many goroutines share a commit and its sync: one that
// ends while a sync is under way, or while others wait their turn, is committed together
// with those that run next, and returns when all of that is durable. An error of fn undoes
// its own call alone; where the commit fails, every call that shares it gets the error.
// Begin and Commit share in the same way.
//
// Update is safe for concurrent use. Calling it inside another write transaction of
// the same goroutine waits for ever: use Tx.Nested.
func (db *DB) Update(fn func(*Tx) error) error {
	return db.UpdateContext(context.Background(), fn)
}

// Batch is Update, which shares commits by itself, under the name that bbolt has for
// that: fn runs exactly once.
func (db *DB) Batch(fn func(*Tx) error) error { return db.Update(fn) }

// UpdateContext is Update; ctx can end its wait for the writer lock.
func (db *DB) UpdateContext(ctx context.Context, fn func(*Tx) error) error {
	tx, err := db.beginWrite(ctx)
	if err != nil {
		return err
	}
	tx.managed = true
	if err := tx.runGuarded(fn); err != nil {
		tx.end()
		return err
	}
	return tx.commit()
}

// runGuarded runs fn with faults turned into errors; where fn does not come back,
// it ends the transaction.
func (tx *Tx) runGuarded(fn func(*Tx) error) (err error) {
	s := tx.s
	s.setGuarded(true)
	old := debug.SetPanicOnFault(true)
	returned := false
	defer func() {
		debug.SetPanicOnFault(old)
		s.setGuarded(false)
		if returned {
			err = joinFault(err, s.err)
			return
		}
		r := recover()
		if r != nil {
			if fault := s.faultError(r); fault != nil {
				s.fail(fault)
				err = fault
				return
			}
		}
		tx.end()
		if r != nil {
			panic(r)
		}
	}()
	err = fn(tx)
	returned = true
	return err
}

// Begin starts a transaction that the caller ends with Commit or Rollback; a
// read-only one with either. A read-only transaction left open keeps the pages of
// its snapshot from being reused.
func (db *DB) Begin(writable bool) (*Tx, error) {
	return db.BeginContext(context.Background(), writable)
}

// BeginContext is Begin; ctx can end the wait for the writer lock. It has no effect
// on the transaction once it is begun.
func (db *DB) BeginContext(ctx context.Context, writable bool) (*Tx, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("begin transaction: %w", err)
	}
	if writable {
		return db.beginWrite(ctx)
	}
	s, err := db.beginRead()
	if err != nil {
		return nil, err
	}
	return &Tx{s: s}, nil
}

// end gives up the transaction and everything in it.
func (tx *Tx) end() {
	s := tx.s
	tx.s = nil
	switch {
	case tx.member:
		s.undoMember()
		s.db.unlockWriter()
	case s.writable:
		s.db.endWrite(s)
	default:
		s.db.endRead(s)
	}
}

var errManaged = errors.New("a transaction inside View, Update or Nested ends when fn returns")

// Commit makes the changes permanent: in the default mode they are durable when it
// returns nil. In a read-only transaction it is Rollback. After an error nothing of
// the transaction remains, but after ErrSyncFailed its outcome is unknown until the
// store is reopened. It may share a commit with others, and then waits for those that
// join: see Update.
func (tx *Tx) Commit() error {
	if err := tx.checkEnd(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if !tx.s.writable {
		return tx.Rollback()
	}
	return tx.commit()
}

// Rollback ends the transaction and undoes its changes. After Commit it returns
// ErrTxClosed and does nothing, so it can be deferred.
func (tx *Tx) Rollback() error {
	if err := tx.checkEnd(); err != nil {
		return fmt.Errorf("rollback: %w", err)
	}
	tx.end()
	return nil
}

func (tx *Tx) checkEnd() error {
	if tx.s == nil {
		return ErrTxClosed
	}
	nested := len(tx.s.w.frames)
	if tx.member {
		nested--
	}
	if tx.managed || nested > 0 {
		return errManaged
	}
	return nil
}

// CommitAsync commits without waiting for the disk: later writers see the changes
// at once. wait returns when they are durable, or the error that kept them from it;
// it may be called from any goroutine, any number of times. Readers see them as the
// sync mode has it: in SyncFull once they are durable. Without a wait they become
// durable with the next durable commit, checkpoint, Sync or Close. One commit in 32 that
// nobody waited for is synced all the same.
func (tx *Tx) CommitAsync() (wait func() error, err error) {
	if err := tx.checkEnd(); err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	if !tx.s.writable {
		return nil, fmt.Errorf("commit: %w", ErrTxNotWritable)
	}
	return tx.commitAsync()
}

// OnCommit calls fn after the transaction is durable: for CommitAsync that is when it
// becomes so, in a nested transaction with the outermost. After a plain commit in
// SyncInterval or SyncOff, which promise no more, it is when the commit returns. fn is
// not called after a rollback. It runs without a lock, in the order of the commits, on
// the goroutine of some commit, wait, Sync or Close, or of a checkpoint in the background:
// not always on that of its own transaction, whose commit may then return a moment before.
func (tx *Tx) OnCommit(fn func()) {
	if tx.s != nil && tx.s.writable {
		tx.s.hooks = append(tx.s.hooks, fn)
	}
}

// --- nested transactions

// Nested runs fn in a transaction within this one. Where fn returns an error,
// panics or calls runtime.Goexit, its changes alone are undone; otherwise they
// become part of this transaction. fn's Tx and what was had from it is closed when
// Nested returns. Nested transactions can nest.
func (tx *Tx) Nested(fn func(*Tx) error) error {
	s, err := tx.writeState()
	if err != nil {
		return fmt.Errorf("nested transaction: %w", err)
	}
	s.pushLayer()
	child := &Tx{s: s, managed: true}
	keep := false
	defer func() {
		child.s = nil
		if !keep { // fn failed, or did not come back
			s.undoNested()
		}
	}()
	s.guard(func() { err = fn(child) })
	if err != nil || s.err != nil {
		return joinFault(err, s.err)
	}
	keep = true
	s.mergeNested()
	return nil
}

// pushLayer begins a layer that undoNested takes back, or mergeNested makes part of what
// is below.
func (s *txState) pushLayer() {
	s.w.push(frame{ntrees: len(s.trees), nhooks: len(s.hooks), redo: s.redo.mark()})
}

func (s *txState) undoNested() {
	top := s.w.undo()
	for i := len(top.trees) - 1; i >= 0; i-- {
		u := &top.trees[i]
		version := u.t.version
		*u.t = u.old
		u.t.version = version + 1
	}
	s.redo.undo(top.redo)
	s.hooks = s.hooks[:top.nhooks]
	s.trees = s.trees[:top.ntrees] // those opened inside are stale: see current
	// Buckets may have moved, and changes may have been flushed: file all anew.
	clear(s.byName)
	s.w.changed = s.w.changed[:0]
	for _, t := range s.trees {
		if t.dead {
			continue
		}
		s.byName[treeName{t.parent, string(t.name)}] = t
		if t.changed {
			s.w.changed = append(s.w.changed, t)
		}
	}
}

// current returns the tree to use for an open bucket: t, or, where t was opened in a
// layer that was undone, the one that has its place now.
func (s *txState) current(t *tree) (*tree, error) {
	if t.dead {
		return nil, ErrBucketNotFound
	}
	if !t.stale {
		return t, nil
	}
	parent, err := s.current(t.parent)
	if err != nil {
		return nil, err
	}
	now, err := s.openTree(parent, t.name)
	if err != nil {
		return nil, err
	}
	if now.rec.id != t.rec.id {
		return nil, ErrBucketNotFound // another bucket of that name
	}
	return now, nil
}

func (s *txState) mergeNested() {
	top := s.w.merge()
	below := s.w.layer()
	for _, u := range top.trees {
		u.t.layer = below
		if u.old.layer < below {
			f := &s.w.frames[below-1]
			f.trees = append(f.trees, u)
		}
	}
}

// save keeps t's state for the layer below before this layer changes it.
func (s *txState) save(t *tree) {
	if t.layer == s.w.layer() {
		return
	}
	f := &s.w.frames[len(s.w.frames)-1]
	f.trees = append(f.trees, treeUndo{t, *t})
	t.layer = s.w.layer()
}

// --- open buckets

// openTree returns the tree, in a write transaction, of the bucket called name in parent.
func (s *txState) openTree(parent *tree, name []byte) (*tree, error) {
	if t := s.byName[treeName{parent, string(name)}]; t != nil {
		return t, nil
	}
	rec, err := parent.openRecord(name)
	if err != nil {
		return nil, err
	}
	t := &tree{pg: &s.pg, rec: rec, parent: parent, name: bytes.Clone(name), layer: s.w.layer()}
	if t.layer > 0 {
		// What it is after an undo is found out when it is used again.
		old := *t
		old.layer, old.stale = 0, true
		f := &s.w.frames[t.layer-1]
		f.trees = append(f.trees, treeUndo{t, old})
	}
	s.trees = append(s.trees, t)
	s.byName[treeName{parent, string(name)}] = t
	return t, nil
}

// openRecord reads the record of the bucket called name. The errors are
// ErrBucketNotFound and ErrIncompatibleValue, or damage.
func (t *tree) openRecord(name []byte) (record, error) {
	c, found, err := t.get(name)
	if err != nil {
		return record{}, err
	}
	if !found {
		return record{}, ErrBucketNotFound
	}
	raw, isBucket := bucketRecord(c)
	if !isBucket {
		return record{}, ErrIncompatibleValue
	}
	rec, ok := getRecord(raw)
	if !ok {
		return record{}, corrupt(t.rootNumber(), "bad record of bucket %q below it", name)
	}
	return rec, nil
}

// flush brings the cells of all open buckets up to date. Writing one changes its
// parent, so it goes on until none is behind.
func (s *txState) flush() error {
	for w := &s.w; len(w.changed) > 0; {
		t := w.changed[len(w.changed)-1]
		w.changed = w.changed[:len(w.changed)-1]
		if !t.changed || t.dead || t.parent == nil {
			continue
		}
		s.save(t)
		s.save(t.parent)
		t.changed = false
		if err := t.parent.patchRecord(t.name, t.rec); err != nil {
			return s.fail(err)
		}
	}
	return nil
}

// bury marks t and all open buckets below it as deleted.
func (s *txState) bury(t *tree) {
	for _, c := range s.trees {
		if !c.dead && c.isBelow(t) {
			s.save(c)
			c.dead = true
			c.version++
			delete(s.byName, treeName{c.parent, string(c.name)})
		}
	}
	if s.w.layer() == 0 { // no undo brings them back
		s.trees = slices.DeleteFunc(s.trees, func(c *tree) bool { return c.dead })
	}
}

// isBelow reports whether t is ancestor or lies below it.
func (t *tree) isBelow(ancestor *tree) bool {
	for ; t != nil; t = t.parent {
		if t == ancestor {
			return true
		}
	}
	return false
}

// --- what a transaction tells of itself

// Err returns the first fault (damage, I/O error) that the transaction met while
// reading; reads give nothing after it, and Commit refuses.
func (tx *Tx) Err() error {
	_, err := tx.state()
	return err
}

// ID returns the number of the commit that a read transaction sees, or that of a write
// transaction; 0 after its end. Of write transactions that share a commit each has a
// number of its own, and the commit has that of the last.
func (tx *Tx) ID() uint64 {
	if tx.s == nil {
		return 0
	}
	return uint64(tx.s.id)
}

// Size returns the size in bytes of the store as the transaction sees it, 0 after its end.
func (tx *Tx) Size() int64 {
	if tx.s == nil {
		return 0
	}
	return int64(tx.s.pg.npages) << tx.s.pg.shift
}

// DB returns the DB that the transaction belongs to, nil after its end.
func (tx *Tx) DB() *DB {
	if tx.s == nil {
		return nil
	}
	return tx.s.db
}

// Writable reports whether the transaction can change the store.
func (tx *Tx) Writable() bool { return tx.s != nil && tx.s.writable }
