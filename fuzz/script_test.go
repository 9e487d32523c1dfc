package fuzz

// script_test.go says what a run does: a script of steps, each a transaction or an
// event of the store, drawn by rapid, so that a failing one is shrunk, printed and kept.

import (
	"errors"
	"fmt"
	"strings"

	"github.com/foliokv/folio"
	"pgregory.net/rapid"
)

// opKind is an operation within a transaction.
type opKind uint8

const (
	opPut opKind = iota
	opDelete
	opDeleteRange
	opDeleteBucket
	opMoveBucket
	opSequence
	opNested
	numOpKinds
)

// op is one operation. Keys are numbers.
type op struct {
	kind   opKind
	bucket int // see bucketPath
	key    int // the first
	n      int // how many
	step   int // from one to the next
	nbytes int // of each value
	undo   bool
	inner  []op // of a nested transaction
}

func (o op) String() string {
	switch o.kind {
	case opPut:
		return fmt.Sprintf("put %s: %d keys from %d by %d, values of %d bytes", bucketName(o.bucket), o.n, o.key, o.step, o.nbytes)
	case opDelete:
		return fmt.Sprintf("delete %s: %d keys from %d by %d", bucketName(o.bucket), o.n, o.key, o.step)
	case opDeleteRange:
		return fmt.Sprintf("delete range %s: [%d, %d)", bucketName(o.bucket), o.key, o.key+o.n)
	case opDeleteBucket:
		return "delete bucket " + bucketName(o.bucket)
	case opMoveBucket:
		return fmt.Sprintf("move bucket %s to the next bucket", bucketName(o.bucket))
	case opSequence:
		return "next sequence of " + bucketName(o.bucket)
	}
	end := "keep"
	if o.undo {
		end = "undo"
	}
	return fmt.Sprintf("nested, %s %v", end, o.inner)
}

// bucketPath says where bucket i is: 0 is the root; below it lie "b0" and "b1", and in
// each of these a "sub".
func bucketPath(i int) []string {
	switch {
	case i == 0:
		return nil
	case i <= 2:
		return []string{fmt.Sprintf("b%d", i-1)}
	}
	return []string{fmt.Sprintf("b%d", i-3), "sub"}
}

const numBuckets = 5

func bucketName(i int) string {
	if i == 0 {
		return "root"
	}
	return strings.Join(bucketPath(i), "/")
}

// stepKind is what one step of a script is.
type stepKind uint8

const (
	stepCommit    stepKind = iota
	stepRollback           // a transaction that is undone
	stepAsync              // CommitAsync, not waited for
	stepAsyncWait          // CommitAsync and its wait
	stepSync               // DB.Sync
	stepTick               // a sync during which its operations are committed one by one
	stepReopen             // Close and Open
	stepKill               // the process dies, and another opens the store
	stepReader             // a reader begins, or the one that is there ends
	numStepKinds
)

var stepNames = [numStepKinds]string{"commit", "rollback", "async", "async, wait", "sync", "sync beside commits", "reopen", "kill", "reader"}

// step is one step of a script.
type step struct {
	kind stepKind
	ops  []op // of those that have a transaction
}

func (s step) String() string {
	var b strings.Builder
	b.WriteString(stepNames[s.kind])
	for _, o := range s.ops {
		fmt.Fprintf(&b, "\n\t%v", o)
	}
	return b.String()
}

// script is a run of steps.
type script []step

func (s script) String() string {
	var b strings.Builder
	for _, st := range s {
		fmt.Fprintf(&b, "%v\n", st)
	}
	return b.String()
}

// GoString keeps what rapid prints of a draw short.
func (s step) GoString() string { return s.String() }

// keyName is key number n: some share a long prefix, some are long.
func keyName(n int) []byte {
	if n%61 == 60 {
		return fmt.Appendf(nil, "key%04d%0300d", n, 0)
	}
	return fmt.Appendf(nil, "key%04d", n)
}

const numKeys = 400

// valueOf fills a value with bytes that tell its key and its commit, in each sector.
func valueOf(key, version, nbytes int) []byte {
	v := make([]byte, nbytes)
	x := uint64(key)<<32 ^ uint64(version)*0x9e3779b97f4a7c15 + 1
	for i := range v {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		v[i] = byte(x)
	}
	return v
}

// --- drawing

// profile says which scripts are drawn.
type profile struct {
	maxSteps int
	ops      []opKind
	steps    []stepKind
	sizes    []int // of values, in bytes
	counts   []int // of keys of one operation
}

var (
	everyOp    = []opKind{opPut, opPut, opPut, opPut, opDelete, opDeleteRange, opDeleteBucket, opMoveBucket, opSequence, opNested}
	smallSizes = []int{0, 10, 100, 300, 1000}
	mixedSizes = []int{0, 10, 100, 300, 1000, 3000, 20_000}
)

func (p *profile) script() *rapid.Generator[script] {
	return rapid.Custom(func(t *rapid.T) script {
		return rapid.SliceOfN(p.step(), 1, p.maxSteps).Draw(t, "steps")
	})
}

func (p *profile) step() *rapid.Generator[step] {
	return rapid.Custom(func(t *rapid.T) step {
		s := step{kind: rapid.SampledFrom(p.steps).Draw(t, "kind")}
		switch s.kind {
		case stepSync, stepReopen, stepKill, stepReader:
			return s
		}
		s.ops = rapid.SliceOfN(p.op(1), 1, 3).Draw(t, "ops")
		return s
	})
}

func (p *profile) op(depth int) *rapid.Generator[op] {
	return rapid.Custom(func(t *rapid.T) op {
		o := op{
			kind:   rapid.SampledFrom(p.ops).Draw(t, "op"),
			bucket: rapid.IntRange(0, numBuckets-1).Draw(t, "bucket"),
		}
		switch o.kind {
		case opNested:
			if depth == 0 {
				o.kind = opSequence
				break
			}
			o.undo = rapid.Bool().Draw(t, "undo")
			o.inner = rapid.SliceOfN(p.op(depth-1), 1, 2).Draw(t, "inner")
		case opPut, opDelete, opDeleteRange:
			o.key = rapid.IntRange(0, numKeys-1).Draw(t, "key")
			o.n = rapid.SampledFrom(p.counts).Draw(t, "count")
			o.step = rapid.SampledFrom([]int{1, 37}).Draw(t, "step")
			o.nbytes = rapid.SampledFrom(p.sizes).Draw(t, "size")
			switch {
			case o.nbytes > 20_000:
				o.n = 1
			case o.nbytes > 2000:
				o.n = min(o.n, 2)
			}
		}
		return o
	})
}

// --- doing

// errUndo ends a nested transaction that is to be undone.
var errUndo = errors.New("undo this")

// scribe does operations on a transaction and its model.
type scribe struct {
	version int // distinguishes the values of one operation from those of another
}

// do does o. What it returns is an error of the store; the model is then of no use.
func (s *scribe) do(tx *folio.Tx, root *contents, o op) error {
	if o.kind == opNested {
		return s.nested(tx, root, o)
	}
	path := bucketPath(o.bucket)
	if len(path) == 0 && (o.kind == opDeleteBucket || o.kind == opMoveBucket) {
		return nil
	}
	if o.kind == opDeleteBucket || o.kind == opMoveBucket {
		return s.moveOrDelete(tx, root, o, path)
	}
	b, c, err := open(tx, root, path)
	if err != nil {
		return err
	}
	switch o.kind {
	case opPut:
		return s.put(b, c, o)
	case opDelete:
		for i := range o.n {
			k := keyName((o.key + i*o.step) % numKeys)
			if err := b.Delete(k); err != nil {
				return err
			}
			delete(c.pairs, string(k))
		}
		return nil
	case opDeleteRange:
		return deleteRange(b, c, keyName(o.key), keyName(o.key+o.n))
	}
	c.sequence++
	_, err = b.NextSequence()
	return err
}

// open returns the bucket at path, which it creates if need be.
func open(tx *folio.Tx, c *contents, path []string) (*folio.Bucket, *contents, error) {
	b := tx.Root()
	for _, name := range path {
		var err error
		if b, err = b.CreateBucketIfNotExists([]byte(name)); err != nil {
			return nil, nil, err
		}
		if c.buckets[name] == nil {
			c.buckets[name] = newContents()
		}
		c = c.buckets[name]
	}
	return b, c, nil
}

func (s *scribe) put(b *folio.Bucket, c *contents, o op) error {
	s.version++
	for i := range o.n {
		n := (o.key + i*o.step) % numKeys
		k, v := keyName(n), valueOf(n, s.version, o.nbytes)
		if err := b.Put(k, v); err != nil {
			return err
		}
		c.pairs[string(k)] = v
	}
	return nil
}

func deleteRange(b *folio.Bucket, c *contents, lo, hi []byte) error {
	if _, err := b.DeleteRange(lo, hi); err != nil {
		return err
	}
	for k := range c.pairs {
		if k >= string(lo) && k < string(hi) {
			delete(c.pairs, k)
		}
	}
	return nil
}

// moveOrDelete deletes the bucket at path, or moves it below the next bucket of its
// level, where both are there and the target has none of that name.
func (s *scribe) moveOrDelete(tx *folio.Tx, root *contents, o op, path []string) error {
	parent, c := tx.Root(), root
	for _, name := range path[:len(path)-1] {
		if c = c.buckets[name]; c == nil {
			return nil
		}
		parent = parent.Bucket([]byte(name))
	}
	name := path[len(path)-1]
	moved := c.buckets[name]
	if moved == nil {
		return nil
	}
	if o.kind == opDeleteBucket {
		delete(c.buckets, name)
		return parent.DeleteBucket([]byte(name))
	}
	target := fmt.Sprintf("b%d", 1-o.bucket%2)
	to := root.buckets[target]
	if to == nil || to == moved || to == c || to.buckets[name] != nil {
		return nil
	}
	if len(path) == 1 && len(moved.buckets) > 0 {
		return nil // it would nest deeper and deeper
	}
	delete(c.buckets, name)
	to.buckets[name] = moved
	return tx.MoveBucket([]byte(name), parent, tx.Bucket([]byte(target)))
}

// nested does o's inner operations in a nested transaction, which is kept or undone.
func (s *scribe) nested(tx *folio.Tx, root *contents, o op) error {
	inner := root.clone()
	var failed error
	err := tx.Nested(func(tx *folio.Tx) error {
		for _, in := range o.inner {
			if failed = s.do(tx, inner, in); failed != nil {
				return failed
			}
		}
		if o.undo {
			return errUndo
		}
		return nil
	})
	if o.undo && failed == nil && errors.Is(err, errUndo) {
		return nil
	}
	if err == nil {
		*root = *inner
	}
	return err
}
