package fuzz

// examine_target_test.go reads and changes a file that may be damaged or may lie, in all
// ways. Whatever is met must be what was stored, or an error that names a page; where
// Check finds nothing, all ways of reading must agree, and changes must go as in any
// other store.

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/foliokv/folio"
)

// Bounds for what is read of a file that may lie.
const (
	mostPairs   = 20_000
	mostDepth   = 50
	mostBuckets = 12
)

// guardTime ends the process, with all stacks, where an input takes too long: while
// fuzzing before go test ends it without them.
func guardTime(t *testing.T) {
	limit := hangLimit
	if worker := flag.Lookup("test.fuzzworker"); worker != nil && worker.Value.String() == "true" {
		limit = 9 * time.Second
	}
	stop := watch(t.Name(), limit)
	t.Cleanup(func() { stop() })
}

// examination is one file under examination.
type examination struct {
	t      testing.TB
	path   string
	file   []byte
	verify folio.VerifyMode

	// holds is what the file must hold, nil where nobody knows. Where partly is set, it
	// is known of the root's buckets in it alone.
	holds  *contents
	partly bool
	// mustBeSound: nothing in the file is wrong. mustBeFound: something is that Check
	// must find. treesAreRight: at first no reading of pairs and buckets may fail.
	mustBeSound, mustBeFound, treesAreRight bool
	// usedUp: the numbers of commits or buckets are, so that changes may be refused.
	usedUp bool

	sound   bool // the last Check found nothing
	nfaults int
}

// run examines the file.
func (e *examination) run() {
	e.t.Helper()
	defer func() { // a panic is a failure of this input, not the end of all tests
		if p := recover(); p != nil {
			e.t.Fatalf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	e.must("write the file", os.WriteFile(e.path, e.file, 0o600))
	opened := e.readOnly()
	e.mustBeUnchanged("after a read-only open")
	if e.mustBeSound && !opened {
		e.t.Fatal("a sound store can't be opened")
	}
	if e.verify == folio.VerifyOff {
		return // a change would be made of what nobody has checked
	}
	e.writable()
}

func (e *examination) must(what string, err error) {
	if err != nil {
		e.t.Helper()
		e.t.Fatalf("%s: %v", what, err)
	}
}

// isDamage reports whether err is damage, told as it should be: with the page.
func isDamage(err error) bool {
	var fault *folio.Fault
	return errors.Is(err, folio.ErrCorrupt) && errors.As(err, &fault) && fault.Rule != ""
}

// isRefusal reports whether err says that what is there is not what was expected: so
// it may be where the file lies.
func isRefusal(err error) bool {
	return errors.Is(err, folio.ErrIncompatibleValue) || errors.Is(err, folio.ErrBucketNotFound) || errors.Is(err, folio.ErrBucketExists)
}

// fault takes an error of reading. It reports whether there was one.
func (e *examination) fault(what string, err error) bool {
	if err == nil {
		return false
	}
	if !isDamage(err) && !e.usedUp {
		e.t.Helper()
		e.t.Fatalf("%s: an error that is not damage, or names no page: %v", what, err)
	}
	e.nfaults++
	return true
}

func (e *examination) open(readOnly bool) *folio.DB {
	db, err := folio.Open(e.path, 0o600, &folio.Options{ReadOnly: readOnly, Verify: e.verify, Timeout: -1})
	if err == nil {
		e.t.Cleanup(func() { closeSoon(db) })
		return db
	}
	if !errors.Is(err, folio.ErrInvalid) && !errors.Is(err, folio.ErrVersionMismatch) {
		e.fault("open", err)
	}
	return nil
}

// closeSoon closes db but does not wait for a transaction that a failure left open.
func closeSoon(db *folio.DB) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	db.CloseContext(ctx)
}

func (e *examination) mustBeUnchanged(when string) {
	after, err := os.ReadFile(e.path)
	e.must("read the file", err)
	if !bytes.Equal(after, e.file) {
		e.t.Helper()
		e.t.Fatalf("the file was changed %s", when)
	}
}

// readOnly reports whether the store could be opened, and read or not.
func (e *examination) readOnly() bool {
	db := e.open(true)
	if db == nil {
		return false
	}
	e.readAll(db)
	e.must("close", db.Close())
	return true
}

// --- reading

// readAll reads the store in all ways, and sets sound.
func (e *examination) readAll(db *folio.DB) {
	e.t.Helper()
	before := e.nfaults
	r := e.readForward(db)
	for _, path := range r.paths {
		e.readInAllWays(db, path, e.expected(path))
	}
	nfaults := e.nfaults - before
	e.check(db)
	if db.IsReadOnly() { // once is enough
		e.copyStore(db, r)
	}
	switch {
	case e.verify == folio.VerifyOff:
		return // reading takes what Check does not
	case e.mustBeSound && !e.sound:
		e.t.Fatal("Check finds faults in a sound store")
	case e.mustBeFound && e.sound:
		e.t.Fatal("Check finds nothing wrong")
	case e.treesAreRight && nfaults > 0:
		e.t.Fatalf("reading met %d faults", nfaults)
	case !e.sound:
		return
	case r.lost:
		e.t.Fatal("Check finds nothing, but a bucket that is listed can't be had")
	case nfaults > 0:
		e.t.Fatalf("Check finds nothing, but reading met %d faults", nfaults)
	}
	for _, path := range r.paths {
		e.readInAllWays(db, path, r.at(path))
	}
	if e.nfaults > before {
		e.t.Fatal("Check found nothing, but then reading met faults")
	}
	e.holds, e.partly = nil, false
	if r.whole[r.root] {
		e.holds = r.root
	}
}

// readInAllWays reads the bucket at path, each way in a transaction of its own: a fault
// in one ends that alone.
func (e *examination) readInAllWays(db *folio.DB, path []string, holds *contents) {
	e.t.Helper()
	for _, way := range ways {
		e.fault(way.name, db.View(func(tx *folio.Tx) error {
			b := bucketAt(tx, path)
			if b == nil {
				if holds != nil && tx.Err() == nil {
					e.t.Fatalf("bucket %.60q is gone", path)
				}
				return nil
			}
			if err := way.read(b, holds); err != nil && tx.Err() == nil {
				e.t.Fatalf("%s of bucket %.60q: %v", way.name, path, err)
			}
			return nil
		}))
	}
}

func (e *examination) check(db *folio.DB) {
	found := 0
	for err := range db.Check(context.Background()) {
		e.fault("check", err)
		if e.mustBeSound {
			e.t.Errorf("check: %v", err)
		}
		if found++; found > 50_000 {
			e.t.Fatal("Check finds faults without end")
		}
	}
	e.sound = found == 0
}

// reading is what a walk over the whole store has read.
type reading struct {
	root   *contents
	whole  map[*contents]bool // read to the end
	paths  [][]string         // of buckets
	npairs int
	lost   bool // a bucket is listed and can't be had
}

// at returns what the bucket at path holds, nil where it could not be read to its end.
func (r *reading) at(path []string) *contents {
	c := r.root
	for _, name := range path {
		c = c.buckets[name]
	}
	if !r.whole[c] {
		return nil
	}
	return c
}

// readForward reads each bucket in order, in a transaction of its own: a fault in one
// ends that alone. What it reads must be what the store holds.
func (e *examination) readForward(db *folio.DB) *reading {
	e.t.Helper()
	r := &reading{root: newContents(), whole: map[*contents]bool{}, paths: [][]string{nil}}
	into := []*contents{r.root}
	for i := 0; i < len(r.paths); i++ {
		path, c := r.paths[i], into[i]
		e.fault("read", db.View(func(tx *folio.Tx) error {
			b := bucketAt(tx, path)
			if b == nil {
				r.lost = r.lost || tx.Err() == nil
				return nil
			}
			c.sequence = b.Sequence()
			e.readBucket(r, b, c)
			if tx.Err() == nil && r.npairs <= mostPairs {
				r.whole[c] = true
			}
			return nil
		}))
		for _, name := range slices.Sorted(maps.Keys(c.buckets)) {
			if len(r.paths) < mostBuckets && len(path) < mostDepth {
				r.paths = append(r.paths, append(slices.Clone(path), name))
				into = append(into, c.buckets[name])
			} else {
				delete(r.whole, r.root)
			}
		}
		e.compare(path, c, r.whole[c])
	}
	return r
}

// readBucket reads the pairs of b, and the names of the buckets in it.
func (e *examination) readBucket(r *reading, b *folio.Bucket, c *contents) {
	for k, v := range b.All() {
		if r.npairs++; r.npairs > mostPairs {
			return
		}
		key := string(k)
		if v == nil {
			c.buckets[key] = newContents()
			continue
		}
		c.pairs[key] = bytes.Clone(v)
		if c.pairs[key] == nil {
			c.pairs[key] = []byte{}
		}
	}
}

// expected returns what the bucket at path must hold, nil where nobody knows.
func (e *examination) expected(path []string) *contents {
	if e.holds == nil || e.partly && len(path) == 0 || e.verify == folio.VerifyOff {
		return nil
	}
	c := e.holds
	for _, name := range path {
		if c = c.buckets[name]; c == nil {
			break
		}
	}
	if c == nil && !e.partly {
		e.t.Fatalf("bucket %.60q is new", path)
	}
	return c
}

// compare compares what was read of a bucket, to its end or in part, with what must be there.
func (e *examination) compare(path []string, got *contents, whole bool) {
	e.t.Helper()
	want := e.expected(path)
	if want == nil {
		return
	}
	for name := range got.buckets {
		if want.buckets[name] == nil {
			e.t.Fatalf("bucket %.60q: bucket %.60q in it is new", path, name)
		}
	}
	for k, v := range got.pairs {
		if w, ok := want.pairs[k]; !ok || !bytes.Equal(v, w) {
			e.t.Fatalf("bucket %.60q: key %.60q has a wrong value, or should not be there", path, k)
		}
	}
	if whole && (len(got.pairs) != len(want.pairs) || len(got.buckets) != len(want.buckets) || got.sequence != want.sequence) {
		e.t.Fatalf("bucket %.60q: %d pairs, %d buckets, sequence %d; should be %d, %d, %d", path,
			len(got.pairs), len(got.buckets), got.sequence, len(want.pairs), len(want.buckets), want.sequence)
	}
}

// bucketAt returns the bucket at path, nil where it can't be had.
func bucketAt(tx *folio.Tx, path []string) *folio.Bucket {
	b := tx.Root()
	for _, name := range path {
		if b = b.Bucket([]byte(name)); b == nil {
			return nil
		}
	}
	return b
}

// contentsOf returns all that a sound store holds.
func contentsOf(tx *folio.Tx) (*contents, error) {
	return bucketContents(tx.Root()), tx.Err()
}

func bucketContents(b *folio.Bucket) *contents {
	c := newContents()
	c.sequence = b.Sequence()
	for k, v := range b.All() {
		if v != nil {
			c.pairs[string(k)] = append([]byte{}, v...)
		} else if sub := b.Bucket(k); sub != nil {
			c.buckets[string(k)] = bucketContents(sub)
		}
	}
	return c
}

// ways are the ways to read a bucket. c is what it holds, nil
// where that is not known; then the reading need only end.
var ways = []struct {
	name string
	read func(b *folio.Bucket, c *contents) error
}{
	{"walk", walkForward},
	{"walk backward", walkBackward},
	{"get", getKeys},
	{"at", readAt},
	{"seek and step", seekAndStep},
	{"rank and count", rankAndCount},
	{"stats", readStats},
}

// someKeysOf returns keys of a bucket, and keys that are beside them.
func someKeysOf(c *contents) []string {
	keys := []string{"\x00", "a", "key/1000", "s", strings.Repeat("s", 1200), "\xff"}
	if c == nil {
		return keys
	}
	all := keysOf(c)
	for i := 0; i < len(all); i += 1 + len(all)/40 {
		keys = append(keys, all[i], all[i]+"\x00", all[i][:len(all[i])/2+1])
	}
	return keys
}

func walkForward(b *folio.Bucket, c *contents) error {
	return walkOver(b.All(), c, false)
}

func walkBackward(b *folio.Bucket, c *contents) error {
	return walkOver(b.Backward(), c, true)
}

func walkOver(pairs iter.Seq2[[]byte, []byte], c *contents, backward bool) error {
	keys := keysOf(c)
	if backward {
		slices.Reverse(keys)
	}
	n := 0
	for k, v := range pairs {
		if n++; n > mostPairs {
			return nil
		}
		if c != nil && (n > len(keys) || string(k) != keys[n-1] || !bytes.Equal(v, c.pairs[keys[n-1]])) {
			return fmt.Errorf("pair %d has key %.60q", n, k)
		}
	}
	if c != nil && n != len(keys) {
		return fmt.Errorf("%d pairs, should be %d", n, len(keys))
	}
	return nil
}

func getKeys(b *folio.Bucket, c *contents) error {
	for _, k := range someKeysOf(c) {
		v := b.Get([]byte(k))
		sub := b.Bucket([]byte(k))
		if c == nil {
			continue
		}
		if w, ok := c.pairs[k]; ok != (v != nil) || !bytes.Equal(v, w) {
			return fmt.Errorf("key %.60q: %d bytes, there: %t; should be %d, %t", k, len(v), v != nil, len(w), ok)
		}
		if (sub != nil) != (c.buckets[k] != nil) {
			return fmt.Errorf("bucket %.60q is there: %t", k, sub != nil)
		}
	}
	return nil
}

func readAt(b *folio.Bucket, c *contents) error {
	n := b.Len()
	if c == nil {
		for _, i := range []uint64{0, 1, n / 2, n - 1, n, 1 << 62, 1<<64 - 1} {
			b.At(i)
		}
		return nil
	}
	keys := keysOf(c)
	if n != uint64(len(keys)) {
		return fmt.Errorf("length %d, with %d keys", n, len(keys))
	}
	for i := 0; i < len(keys); i += 1 + len(keys)/60 {
		if k, v := b.At(uint64(i)); string(k) != keys[i] || !bytes.Equal(v, c.pairs[keys[i]]) {
			return fmt.Errorf("number %d is %.60q, not %.60q", i, k, keys[i])
		}
	}
	return nil
}

func seekAndStep(b *folio.Bucket, c *contents) error {
	keys := keysOf(c)
	cur := b.Cursor()
	for _, seek := range someKeysOf(c) {
		k, _ := cur.Seek([]byte(seek))
		before, _ := cur.Prev()
		after, _ := cur.Next()
		if c == nil {
			continue
		}
		i, _ := slices.BinarySearch(keys, seek)
		if err := sameKey(k, keys, i); err != nil {
			return fmt.Errorf("seek %.60q: %w", seek, err)
		}
		if err := sameKey(before, keys, i-1); err != nil {
			return fmt.Errorf("before %.60q: %w", seek, err)
		}
		if err := sameKey(after, keys, i); err != nil {
			return fmt.Errorf("after the one before %.60q: %w", seek, err)
		}
	}
	return nil
}

// sameKey compares a key that was found with number i, nil where there is none.
func sameKey(k []byte, keys []string, i int) error {
	switch inside := i >= 0 && i < len(keys); {
	case inside && string(k) != keys[i]:
		return fmt.Errorf("%.60q, should be %.60q", k, keys[i])
	case !inside && k != nil:
		return fmt.Errorf("%.60q, should be none", k)
	}
	return nil
}

func rankAndCount(b *folio.Bucket, c *contents) error {
	keys := keysOf(c)
	lo := 0
	for _, k := range someKeysOf(c) {
		rank, below := b.Rank([]byte(k)), b.Count(nil, []byte(k))
		if c == nil {
			continue
		}
		lo, _ = slices.BinarySearch(keys, k)
		if rank != uint64(lo) || below != uint64(lo) {
			return fmt.Errorf("%d or %d keys are below %.60q, should be %d", rank, below, k, lo)
		}
	}
	return nil
}

func readStats(b *folio.Bucket, c *contents) error {
	st := b.Stats()
	if c != nil && (st.Pairs != uint64(len(c.pairs)) || st.Buckets != uint64(len(c.buckets))) {
		return fmt.Errorf("%d pairs and %d buckets, should be %d and %d", st.Pairs, st.Buckets, len(c.pairs), len(c.buckets))
	}
	return nil
}

// boundedBuffer fails after so many bytes.
type boundedBuffer struct {
	bytes.Buffer
	left int
}

var errTooLong = errors.New("longer than it can be")

// Write implements io.Writer.
func (w *boundedBuffer) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, errTooLong
	}
	return w.Buffer.Write(p)
}

// copyStore makes a copy. Where that works it can be opened, and where the original is
// sound it is sound and holds the same.
func (e *examination) copyStore(db *folio.DB, r *reading) {
	w := &boundedBuffer{left: 2*len(e.file) + 1<<20}
	w.Grow(len(e.file))
	err := db.View(func(tx *folio.Tx) error {
		_, err := tx.WriteTo(w)
		return err
	})
	if e.fault("write to", err) || e.verify == folio.VerifyOff {
		return
	}
	path := filepath.Join(filepath.Dir(e.path), "copy")
	e.must("write the copy", os.WriteFile(path, w.Bytes(), 0o600))
	copied, err := folio.Open(path, 0, &folio.Options{ReadOnly: true, Timeout: -1})
	e.must("open the copy", err)
	defer closeSoon(copied)
	if !e.sound || !r.whole[r.root] {
		return
	}
	e.must("check the copy", sound(copied))
	e.must("read the copy", copied.View(func(tx *folio.Tx) error {
		got, err := contentsOf(tx)
		if err == nil && got.digest() != r.root.digest() {
			err = errors.New("it does not hold what the original does")
		}
		return err
	}))
}

// --- writing

// writable opens the store for writing, changes it and reads it again.
func (e *examination) writable() {
	db := e.open(false)
	if db == nil {
		e.mustBeUnchanged("by an open that was refused")
		return
	}
	wasSound := e.sound
	e.t.Helper()
	e.readForward(db) // proves pages that the changes may overwrite
	e.mustBeFound, e.treesAreRight = false, false
	for i, change := range changes {
		e.change(db, change, wasSound, i)
	}
	e.readAll(db)
	e.mustStaySound(wasSound, "after changes")
	if err := db.Close(); e.fault("close", err) && wasSound {
		e.t.Fatalf("close of a sound store: %v", err)
	}
	if db = e.open(true); db == nil {
		e.sound = false
		e.mustStaySound(wasSound, "after the store was closed")
		return
	}
	e.readForward(db)
	e.check(db)
	e.mustStaySound(wasSound, "after the store was closed")
	e.must("close", db.Close())
}

func (e *examination) mustStaySound(wasSound bool, when string) {
	if wasSound && !e.sound {
		e.t.Helper()
		e.t.Fatalf("the store was sound, and is not %s", when)
	}
}

// change makes one transaction of changes. Where the store was sound it must succeed.
func (e *examination) change(db *folio.DB, change storeChange, wasSound bool, round int) {
	after := e.holds
	if after != nil {
		after = after.clone()
	}
	ch := &changer{e: e, c: after, round: round}
	err := db.Update(func(tx *folio.Tx) error {
		ch.tx = tx
		change(ch)
		return tx.Err()
	})
	if err == nil {
		e.holds = after
		return
	}
	if wasSound && !e.usedUp {
		e.t.Fatalf("change %d of a sound store: %v", round, err)
	}
	e.fault("change", err)
}

// changer makes changes in a transaction, and what the store holds follows, where that
// is known.
type changer struct {
	e     *examination
	tx    *folio.Tx
	c     *contents
	round int
}

// known reports whether it is known what the store holds: then all must succeed.
func (ch *changer) known() bool { return ch.c != nil && !ch.e.partly }

// failed takes an error of a change. A refusal is none where the file lies.
func (ch *changer) failed(what string, err error) bool {
	if err == nil {
		return false
	}
	if !ch.e.usedUp && !isDamage(err) && (ch.known() && ch.e.sound || !isRefusal(err)) {
		ch.e.t.Fatalf("%s: %v", what, err)
	}
	return true
}

// names returns the names of the root's buckets that are to be changed: not those that
// are to stay what they are.
func (ch *changer) names() (names []string) {
	ch.tx.ForEach(func(name []byte, _ *folio.Bucket) error {
		trusted := ch.e.partly && ch.c != nil && ch.c.buckets[string(name)] != nil
		if len(names) < mostBuckets && !trusted {
			names = append(names, string(name))
		}
		return nil
	})
	return names
}

// each calls fn for the root and its buckets that are to be changed, each with what it
// holds, or nil.
func (ch *changer) each(fn func(b *folio.Bucket, c *contents)) {
	c := ch.whole()
	fn(ch.tx.Root(), c)
	for _, name := range ch.names() {
		if b := ch.tx.Bucket([]byte(name)); b != nil {
			fn(b, ch.sub(name))
		}
	}
}

func (ch *changer) whole() *contents {
	if ch.known() {
		return ch.c
	}
	return nil
}

func (ch *changer) sub(name string) *contents {
	if c := ch.whole(); c != nil {
		return c.buckets[name]
	}
	return nil
}

func (ch *changer) put(b *folio.Bucket, c *contents, key string, nbytes int) {
	v := patterned(ch.round, nbytes)
	if c != nil && c.buckets[key] != nil || ch.failed("put", b.Put([]byte(key), v)) || c == nil {
		return
	}
	c.pairs[key] = v
}

// storeChange makes the changes of one transaction.
type storeChange func(ch *changer)

var changes = []storeChange{putEverywhere, changeMany, rangesAndRuns, nestedBuckets, deleteMost}

// putEverywhere makes small changes in many leaves.
func putEverywhere(ch *changer) {
	ch.each(func(b *folio.Bucket, c *contents) {
		for i := range 12 {
			ch.put(b, c, fmt.Sprintf("key/%04d", 1000+i*71), 50)
			ch.put(b, c, strings.Repeat(string(rune('a'+i)), 850)+"3", 20)
		}
		if _, err := b.NextSequence(); !ch.failed("sequence", err) && c != nil {
			c.sequence++
		}
	})
}

// changeMany makes what is there larger or smaller, or deletes it.
func changeMany(ch *changer) {
	ch.each(func(b *folio.Bucket, c *contents) {
		cur := b.Cursor()
		n := 0
		for k, v := cur.First(); k != nil && n < 150; k, v = cur.Next() {
			n++
			key := string(k)
			switch {
			case v == nil:
			case n%3 == 0:
				ch.put(b, c, key, (len(v)*2+300)%2500)
			case n%3 == 1:
				if !ch.failed("cursor delete", cur.Delete()) && c != nil {
					delete(c.pairs, key)
				}
			}
		}
	})
}

// rangesAndRuns cuts ranges out, and puts pairs that go to runs.
func rangesAndRuns(ch *changer) {
	long := strings.Repeat("s", 1100)
	ch.each(func(b *folio.Bucket, c *contents) {
		ch.deleteRange(b, c, "deep/1100", "deep/1700")
		ch.deleteRange(b, c, strings.Repeat("b", 200), strings.Repeat("e", 851))
		ch.deleteRange(b, c, long+"105", long+"130")
		ch.put(b, c, "large", 9000)
		ch.put(b, c, long+"1", 10)
	})
}

// nestedBuckets changes buckets in a nested transaction, undoes that and does it again.
func nestedBuckets(ch *changer) {
	before := ch.c
	if before != nil {
		before = before.clone()
	}
	outer := ch.tx
	err := ch.tx.Nested(func(tx *folio.Tx) error {
		ch.tx = tx
		putEverywhere(ch)
		ch.buckets()
		return errUndo
	})
	ch.tx = outer
	if !errors.Is(err, errUndo) && !isDamage(err) && !ch.e.usedUp {
		ch.e.t.Fatalf("nested: %v", err)
	}
	if before != nil {
		*ch.c = *before
	}
	ch.buckets()
}

// deleteMost deletes most of what is left.
func deleteMost(ch *changer) {
	ch.each(func(b *folio.Bucket, c *contents) {
		ch.deleteRange(b, c, "b", "")
		ch.put(b, c, "last", 100)
	})
}

// deleteRange deletes [lo, hi); an empty hi is no end. Where a bucket lies in it the store refuses.
func (ch *changer) deleteRange(b *folio.Bucket, c *contents, lo, hi string) {
	inside := func(k string) bool { return k >= lo && (hi == "" || k < hi) }
	end := []byte(hi)
	if hi == "" {
		end = nil
	}
	n, err := b.DeleteRange([]byte(lo), end)
	if c != nil {
		for name := range c.buckets {
			if inside(name) && errors.Is(err, folio.ErrIncompatibleValue) {
				return
			}
		}
	}
	if ch.failed("delete range", err) || c == nil {
		return
	}
	was := len(c.pairs)
	maps.DeleteFunc(c.pairs, func(k string, _ []byte) bool { return inside(k) })
	if int(n) != was-len(c.pairs) {
		ch.e.t.Fatalf("delete range: %d pairs, should be %d", n, was-len(c.pairs))
	}
}

// buckets deletes, moves and makes buckets.
func (ch *changer) buckets() {
	root := ch.tx.Root()
	to, err := root.CreateBucketIfNotExists([]byte("moved"))
	if ch.failed("create bucket", err) {
		return
	}
	c := ch.whole()
	if c != nil && c.buckets["moved"] == nil {
		c.buckets["moved"] = newContents()
	}
	for i, name := range ch.names() {
		switch {
		case name == "moved":
		case i%2 == 0:
			if !ch.failed("delete bucket", root.DeleteBucket([]byte(name))) && c != nil {
				delete(c.buckets, name)
			}
		case !ch.failed("move bucket", ch.tx.MoveBucket([]byte(name), root, to)) && c != nil:
			c.buckets["moved"].buckets[name] = c.buckets[name]
			delete(c.buckets, name)
		}
	}
}
