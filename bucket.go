package folio

// bucket.go is the public handle over one bucket's tree: pairs, nested buckets,
// the sequence, counting and ranges. It checks arguments and turns faults into the
// transaction's error; the work is the tree's.

import (
	"bytes"
	"fmt"
	"iter"
	"runtime/debug"
)

// Limits of keys and values, in bytes.
const (
	MaxKeySize   = 32768
	MaxValueSize = 1<<31 - 2
)

// Bucket is an ordered map of keys to values and nested buckets, within one
// transaction. Pairs and nested buckets share one namespace. Keys are ordered by
// their bytes. See Tx for who may use it, and for how long slices are valid.
type Bucket struct {
	tx *Tx
	t  *tree
}

// state returns what the bucket works with, or why it can't.
func (b *Bucket) state() (*txState, error) {
	s, err := b.tx.state()
	if err != nil {
		return nil, err
	}
	if b.t.dead || b.t.stale {
		if err := b.refresh(s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// refresh finds the bucket again after an undone nested transaction.
func (b *Bucket) refresh(s *txState) (err error) {
	var t *tree
	s.guard(func() {
		if t, err = s.current(b.t); err != nil && !isRefusal(err) {
			s.fail(err)
		}
	})
	if err == nil {
		err = s.err
	}
	if err != nil {
		return ErrBucketNotFound
	}
	b.t = t
	return nil
}

// writeState is state for a change.
func (b *Bucket) writeState() (*txState, error) {
	s, err := b.state()
	if err != nil {
		return nil, err
	}
	if !s.writable {
		return nil, ErrTxNotWritable
	}
	return s, nil
}

// read runs fn, unless the bucket can't be read; fn's error becomes the transaction's.
func (b *Bucket) read(fn func(t *tree) error) error {
	s, err := b.state()
	if err != nil {
		return err
	}
	s.guard(func() {
		if err := fn(b.t); err != nil {
			s.fail(err)
		}
	})
	return s.err
}

// change runs fn, which changes the tree, unless the bucket can't be written. An
// error of fn that is not a refusal leaves the transaction broken: it can only be
// rolled back.
func (b *Bucket) change(fn func(s *txState, t *tree) error) error {
	s, err := b.writeState()
	if err != nil {
		return err
	}
	s.guard(func() {
		if err = s.pg.spillSome(); err != nil {
			s.fail(err)
			return
		}
		s.save(b.t)
		if err = fn(s, b.t); err != nil && !isRefusal(err) {
			s.fail(err)
		}
	})
	if s.err != nil {
		return s.err
	}
	return err
}

// isRefusal reports whether err says that nothing was done because of what is there.
func isRefusal(err error) bool {
	return err == ErrIncompatibleValue || err == ErrBucketExists || err == ErrBucketNotFound
}

func checkKey(key []byte) error {
	if len(key) == 0 {
		return ErrKeyRequired
	}
	if len(key) > MaxKeySize {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrKeyTooLarge, len(key), MaxKeySize)
	}
	return nil
}

func checkName(name []byte) error {
	if len(name) == 0 {
		return ErrBucketNameRequired
	}
	return checkKey(name)
}

// quoted is a key as errors show it.
func quoted(key []byte) string {
	const most = 64
	if len(key) > most {
		return fmt.Sprintf("%q... (%d bytes)", key[:most], len(key))
	}
	return fmt.Sprintf("%q", key)
}

// quotedRange is a range as errors show it.
func quotedRange(lo, hi []byte) string {
	from, to := "the start", "the end"
	if lo != nil {
		from = quoted(lo)
	}
	if hi != nil {
		to = quoted(hi)
	}
	return from + " to " + to
}

// Tx returns the transaction that the bucket belongs to.
func (b *Bucket) Tx() *Tx { return b.tx }

// Writable reports whether the bucket can be changed.
func (b *Bucket) Writable() bool { return b.tx.Writable() }

// --- pairs

// Get returns the value of key: nil where there is none or where key names a nested
// bucket, and a slice of length 0 that is not nil for an empty value. The slice is
// valid until the transaction ends and must not be modified. After damage Get gives
// nil, and Tx.Err tells.
func (b *Bucket) Get(key []byte) []byte {
	s, err := b.state()
	if err != nil {
		return nil
	}
	return s.get(b.t, key)
}

func (s *txState) get(t *tree, key []byte) (value []byte) {
	if !s.guarded {
		s.guard(func() { value = s.get(t, key) })
		return value
	}
	c, found, err := t.get(key)
	if err != nil {
		s.fail(err)
		return nil
	}
	if c.flags == 0 || !found {
		return c.value
	}
	if value, err = t.pg.cellValue(c); err != nil {
		s.fail(err)
		return nil
	}
	return value
}

// Put stores value under key, replacing what was there. It copies both. Errors:
// ErrKeyRequired, ErrKeyTooLarge, ErrValueTooLarge, ErrIncompatibleValue where key
// names a nested bucket, ErrTxNotWritable, ErrTxClosed, and faults.
func (b *Bucket) Put(key, value []byte) error {
	if err := b.put(key, value); err != nil {
		return fmt.Errorf("put %s: %w", quoted(key), err)
	}
	return nil
}

func (b *Bucket) put(key, value []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if len(value) > MaxValueSize {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrValueTooLarge, len(value), MaxValueSize)
	}
	return b.change(func(s *txState, t *tree) error {
		ndirty := len(s.w.pages)
		if err := t.put(key, 0, value); err != nil {
			return err
		}
		s.logPut(t, key, value, ndirty)
		return nil
	})
}

// logPut logs a put, before which there were ndirty dirty pages.
func (s *txState) logPut(t *tree, key, value []byte, ndirty int) {
	if len(key)+len(value) < logRunsFrom {
		s.redo.put(t, key, value)
		return
	}
	s.redo.putRun(t, runRef{ // the run is the first thing that a put makes
		pgno:   virtual | pgno(ndirty),
		npages: runPages(s.db.psize, len(key), len(value)),
		keyLen: len(key), valueLen: len(value),
	})
}

// Delete removes key and its value. A key that is absent is no error; the name of a
// nested bucket gives ErrIncompatibleValue.
func (b *Bucket) Delete(key []byte) error {
	err := b.change(func(s *txState, t *tree) error {
		deleted, err := t.deleteKey(key)
		if deleted {
			s.redo.delete(t, key)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("delete %s: %w", quoted(key), err)
	}
	return nil
}

// deleteKey removes the pair of key, if there is one, and reports whether it did.
func (t *tree) deleteKey(key []byte) (deleted bool, err error) {
	exact, err := t.seekFor(key, 0)
	if err != nil || !exact {
		return false, err
	}
	if err := t.delete(t.pg.w.path); err != nil {
		return false, err
	}
	return true, nil
}

// DeleteRange removes all pairs with lo <= key < hi and returns how many there
// were; nil stands for an open end. Whole subtrees are cut off without being read.
// Where a nested bucket's name lies in the range it changes nothing and returns
// ErrIncompatibleValue.
func (b *Bucket) DeleteRange(lo, hi []byte) (uint64, error) {
	var ndeleted uint64
	err := b.change(func(s *txState, t *tree) error {
		if isEmptyRange(lo, hi) {
			return nil
		}
		found, err := t.hasBucket(lo, hi)
		if err != nil {
			return err
		}
		if found {
			return ErrIncompatibleValue
		}
		if ndeleted, err = t.deleteRange(lo, hi); ndeleted > 0 {
			s.redo.deleteRange(t, lo, hi)
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("delete range %s: %w", quotedRange(lo, hi), err)
	}
	return ndeleted, nil
}

// isEmptyRange reports whether no key can be in [lo, hi).
func isEmptyRange(lo, hi []byte) bool {
	return hi != nil && bytes.Compare(lo, hi) >= 0
}

// --- counting

// Len returns the number of pairs and nested buckets in the bucket, those of nested
// buckets not counted. It costs nothing.
func (b *Bucket) Len() uint64 {
	if _, err := b.state(); err != nil {
		return 0
	}
	return b.t.rec.root.pairs()
}

// Rank returns the number of keys below key, which need not be there. O(log n).
func (b *Bucket) Rank(key []byte) (below uint64) {
	b.read(func(t *tree) (err error) {
		below, err = t.rank(key)
		return err
	})
	return below
}

// Count returns the number of keys with lo <= key < hi; nil stands for an open end.
// O(log n).
func (b *Bucket) Count(lo, hi []byte) (n uint64) {
	if isEmptyRange(lo, hi) {
		return 0
	}
	b.read(func(t *tree) error {
		var below uint64
		above, err := t.rec.root.pairs(), error(nil)
		if lo != nil {
			if below, err = t.rank(lo); err != nil {
				return err
			}
		}
		if hi != nil {
			if above, err = t.rank(hi); err != nil {
				return err
			}
		}
		n = above - below
		return nil
	})
	return n
}

// At returns the i-th pair in key order, counted from 0; the value of a nested
// bucket is nil. Past the last one, both are nil. O(log n).
func (b *Bucket) At(i uint64) (key, value []byte) {
	b.read(func(t *tree) error {
		c, ok, err := t.at(i)
		if err != nil || !ok {
			return err
		}
		key, value, err = t.pg.pair(c)
		return err
	})
	return key, value
}

// pair returns the whole key and the value of a cell.
func (pg *pager) pair(c leafCell) (key, value []byte, err error) {
	if c.flags == 0 {
		return c.key, c.value, nil
	}
	if key, err = pg.cellKey(c); err != nil {
		return nil, nil, err
	}
	if value, err = pg.cellValue(c); err != nil {
		return nil, nil, err
	}
	return key, value, nil
}

// --- nested buckets

// Bucket returns the nested bucket called name, nil where there is none.
func (b *Bucket) Bucket(name []byte) *Bucket {
	var nested *Bucket
	s, err := b.state()
	if err != nil {
		return nil
	}
	s.guard(func() {
		nested, err = s.openBucket(b, name)
		if err != nil && !isRefusal(err) {
			s.fail(err)
		}
	})
	return nested
}

// openBucket returns a handle of the bucket called name in b.
func (s *txState) openBucket(b *Bucket, name []byte) (*Bucket, error) {
	if s.writable {
		t, err := s.openTree(b.t, name)
		if err != nil {
			return nil, err
		}
		return &Bucket{b.tx, t}, nil
	}
	rec, err := b.t.openRecord(name)
	if err != nil {
		return nil, err
	}
	both := &struct { // one allocation for the two
		b Bucket
		t tree
	}{t: tree{pg: &s.pg, rec: rec}}
	both.b = Bucket{b.tx, &both.t}
	return &both.b, nil
}

// CreateBucket makes a nested bucket called name. Errors: ErrBucketExists,
// ErrIncompatibleValue where a pair has that key, ErrBucketNameRequired,
// ErrKeyTooLarge, and those of Put.
func (b *Bucket) CreateBucket(name []byte) (*Bucket, error) {
	nested, err := b.create(name)
	if err != nil {
		return nil, fmt.Errorf("create bucket %s: %w", quoted(name), err)
	}
	return nested, nil
}

// CreateBucketIfNotExists returns the nested bucket called name, and makes it first
// where there is none. Errors are those of CreateBucket but for ErrBucketExists.
func (b *Bucket) CreateBucketIfNotExists(name []byte) (*Bucket, error) {
	nested, err := b.create(name)
	if err == ErrBucketExists {
		if nested = b.Bucket(name); nested != nil {
			return nested, nil
		}
		err = b.tx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("create bucket %s: %w", quoted(name), err)
	}
	return nested, nil
}

func (b *Bucket) create(name []byte) (nested *Bucket, err error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	err = b.change(func(s *txState, t *tree) error {
		switch _, err := t.openRecord(name); err {
		case ErrBucketNotFound:
		case nil:
			return ErrBucketExists
		default:
			return err
		}
		if s.w.nextTree >= maxCounter {
			return corrupt(0, "bucket id %d is the last that there is", s.w.nextTree)
		}
		s.w.nextTree++
		var raw [recordSize]byte
		putRecord(raw[:], record{id: s.w.nextTree})
		if err := t.put(name, cellBucket, raw[:]); err != nil {
			return err
		}
		s.redo.createBucket(t, name, s.w.nextTree)
		sub, err := s.openTree(t, name)
		nested = &Bucket{b.tx, sub}
		return err
	})
	if err != nil {
		return nil, err
	}
	return nested, nil
}

// DeleteBucket removes the nested bucket called name and everything in it. Errors:
// ErrBucketNotFound, ErrIncompatibleValue where name is the key of a pair. Handles
// of the bucket and of those in it are closed: they give nothing, or ErrBucketNotFound.
func (b *Bucket) DeleteBucket(name []byte) error {
	err := b.change(func(s *txState, t *tree) error {
		sub, err := s.openTree(t, name)
		if err != nil {
			return err
		}
		if err := s.flush(); err != nil { // what is freed is found through the cells
			return err
		}
		s.save(sub)
		s.pg.visits = 0
		if err := sub.freeAll(); err != nil {
			return err
		}
		s.bury(sub)
		if err := t.removeCell(name); err != nil {
			return err
		}
		s.redo.deleteBucket(t, name)
		return nil
	})
	if err != nil {
		return fmt.Errorf("delete bucket %s: %w", quoted(name), err)
	}
	return nil
}

// removeCell removes the cell of a bucket's name, and leaves what it refers to.
func (t *tree) removeCell(name []byte) error {
	exact, err := t.seek(&t.pg.w.path, name)
	if err != nil {
		return err
	}
	if !exact {
		return corrupt(t.rootNumber(), "the cell of bucket %s cannot be found again below it", quoted(name))
	}
	return t.delete(t.pg.w.path)
}

// moveBucket moves the bucket called name from src to dst, both of tx.
func (tx *Tx) moveBucket(name []byte, src, dst *Bucket) error {
	if dst.tx.s != src.tx.s {
		return fmt.Errorf("source and destination are of different transactions: %w", ErrTxClosed)
	}
	if _, err := dst.writeState(); err != nil {
		return err
	}
	return src.change(func(s *txState, from *tree) error {
		sub, err := s.openTree(from, name)
		if err != nil {
			return err
		}
		to := dst.t
		if to.isBelow(sub) {
			return ErrIncompatibleValue // into itself
		}
		switch _, err := to.openRecord(name); err {
		case ErrBucketNotFound:
		case nil:
			return ErrBucketExists
		default:
			return err
		}
		return s.move(sub, to)
	})
}

// move makes sub a bucket of to, under its name.
func (s *txState) move(sub, to *tree) error {
	if err := s.flush(); err != nil {
		return err
	}
	for _, t := range []*tree{sub, sub.parent, to} {
		s.save(t)
	}
	if err := sub.parent.removeCell(sub.name); err != nil {
		return err
	}
	var raw [recordSize]byte
	putRecord(raw[:], sub.rec)
	if err := to.put(sub.name, cellBucket, raw[:]); err != nil {
		return err
	}
	s.redo.moveBucket(sub.parent, sub.name, to)
	delete(s.byName, treeName{sub.parent, string(sub.name)})
	sub.parent = to
	s.byName[treeName{to, string(sub.name)}] = sub
	return nil
}

// ForEach calls fn for every pair and nested bucket in order; the value of a nested
// bucket is nil. It ends at fn's first error and returns it. fn may change the
// bucket: see Cursor.
func (b *Bucket) ForEach(fn func(key, value []byte) error) error {
	if _, err := b.state(); err != nil {
		return fmt.Errorf("for each: %w", err)
	}
	c := b.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if err := fn(k, v); err != nil {
			return err
		}
	}
	return b.tx.Err()
}

// ForEachBucket calls fn with the name of every nested bucket in order, and ends at
// fn's first error.
func (b *Bucket) ForEachBucket(fn func(name []byte) error) error {
	return b.ForEach(func(k, v []byte) error {
		if v != nil {
			return nil
		}
		return fn(k)
	})
}

// --- sequence

// Sequence returns the bucket's sequence number: a counter that is kept with it and
// that Folio itself gives no meaning.
func (b *Bucket) Sequence() uint64 {
	if _, err := b.state(); err != nil {
		return 0
	}
	return b.t.rec.sequence
}

// SetSequence sets the sequence number.
func (b *Bucket) SetSequence(v uint64) error {
	if err := b.setSequence(v); err != nil {
		return fmt.Errorf("set sequence: %w", err)
	}
	return nil
}

func (b *Bucket) setSequence(v uint64) error {
	return b.change(func(s *txState, t *tree) error {
		t.rec.sequence = v
		t.markChanged()
		s.redo.sequence(t, v)
		return nil
	})
}

// NextSequence adds one to the sequence number and returns it.
func (b *Bucket) NextSequence() (uint64, error) {
	next := b.Sequence() + 1
	if err := b.setSequence(next); err != nil {
		return 0, fmt.Errorf("next sequence: %w", err)
	}
	return next, nil
}

// --- iterators

// All yields all pairs and nested buckets in order; the value of a nested bucket is
// nil. The loop may change the bucket: see Cursor. It ends early at damage: see Tx.Err.
func (b *Bucket) All() iter.Seq2[[]byte, []byte] { return b.Range(nil, nil) }

// Backward is All in descending order.
func (b *Bucket) Backward() iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // iter.Pull has a goroutine of its own
		var c Cursor
		c.init(b)
		for k, v := c.Last(); k != nil && yield(k, v); k, v = c.Prev() {
		}
	}
}

// Range yields the pairs and nested buckets with lo <= key < hi in order; nil stands
// for an open end.
func (b *Bucket) Range(lo, hi []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // iter.Pull has a goroutine of its own
		var c Cursor
		c.init(b)
		k, v := c.Seek(lo)
		if hi == nil {
			for ; k != nil && yield(k, v); k, v = c.Next() {
			}
			return
		}
		for ; k != nil && bytes.Compare(k, hi) < 0 && yield(k, v); k, v = c.Next() {
		}
	}
}

// Prefix yields the pairs and nested buckets whose key begins with p in order.
func (b *Bucket) Prefix(p []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // iter.Pull has a goroutine of its own
		var c Cursor
		c.init(b)
		for k, v := c.Seek(p); k != nil && bytes.HasPrefix(k, p) && yield(k, v); k, v = c.Next() {
		}
	}
}

// --- the root bucket's methods on Tx

// Root returns the root bucket, which always exists.
func (tx *Tx) Root() *Bucket {
	if tx.s == nil {
		return &Bucket{tx, &tree{}}
	}
	return &Bucket{tx, &tx.s.root}
}

// Get returns the value of key in the root bucket: see Bucket.Get.
func (tx *Tx) Get(key []byte) []byte {
	s := tx.s
	if s == nil || s.err != nil {
		return nil
	}
	return s.get(&s.root, key)
}

// Put stores a pair in the root bucket: see Bucket.Put.
func (tx *Tx) Put(key, value []byte) error { return tx.Root().Put(key, value) }

// Delete removes a pair from the root bucket: see Bucket.Delete.
func (tx *Tx) Delete(key []byte) error { return tx.Root().Delete(key) }

// Cursor returns a cursor over the root bucket.
func (tx *Tx) Cursor() *Cursor { return tx.Root().Cursor() }

// Bucket returns the root's nested bucket called name: see Bucket.Bucket.
func (tx *Tx) Bucket(name []byte) *Bucket { return tx.Root().Bucket(name) }

// CreateBucket makes a bucket in the root: see Bucket.CreateBucket.
func (tx *Tx) CreateBucket(name []byte) (*Bucket, error) { return tx.Root().CreateBucket(name) }

// CreateBucketIfNotExists makes a bucket in the root unless it is there: see
// Bucket.CreateBucketIfNotExists.
func (tx *Tx) CreateBucketIfNotExists(name []byte) (*Bucket, error) {
	return tx.Root().CreateBucketIfNotExists(name)
}

// DeleteBucket removes a bucket of the root: see Bucket.DeleteBucket.
func (tx *Tx) DeleteBucket(name []byte) error { return tx.Root().DeleteBucket(name) }

// MoveBucket moves the bucket called name, with all in it, from src to dst; nil is
// the root. Open handles of it stay valid. Errors: ErrBucketNotFound, ErrBucketExists
// where dst has a bucket of that name (src itself does), ErrIncompatibleValue where a
// pair has the name or dst lies in the bucket itself.
func (tx *Tx) MoveBucket(name []byte, src, dst *Bucket) error {
	if src == nil {
		src = tx.Root()
	}
	if dst == nil {
		dst = tx.Root()
	}
	if err := tx.moveBucket(name, src, dst); err != nil {
		return fmt.Errorf("move bucket %s: %w", quoted(name), err)
	}
	return nil
}

// ForEach calls fn for every bucket of the root in order, skipping its pairs, and
// ends at fn's first error.
func (tx *Tx) ForEach(fn func(name []byte, b *Bucket) error) error {
	root := tx.Root()
	return root.ForEachBucket(func(name []byte) error {
		b := root.Bucket(name)
		if b == nil {
			return tx.Err()
		}
		return fn(name, b)
	})
}
