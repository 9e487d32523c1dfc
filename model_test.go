package folio_test

// model_test.go runs random operations against a store and against nested maps, and
// compares the two. rapid shrinks a failing run to a minimal script, prints it, and
// writes a file that replays it (go test -run NAME -rapid.failfile=FILE).

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/foliokv/folio"
	"pgregory.net/rapid"
)

// modelBucket is what a bucket should hold.
type modelBucket struct {
	pairs map[string]string
	subs  map[string]*modelBucket
	seq   uint64
}

func newModelBucket() *modelBucket {
	return &modelBucket{pairs: map[string]string{}, subs: map[string]*modelBucket{}}
}

func (m *modelBucket) clone() *modelBucket {
	c := &modelBucket{pairs: maps.Clone(m.pairs), subs: map[string]*modelBucket{}, seq: m.seq}
	for name, s := range m.subs {
		c.subs[name] = s.clone()
	}
	return c
}

// keys returns the names of pairs and buckets in order.
func (m *modelBucket) keys() []string {
	ks := make([]string, 0, len(m.pairs)+len(m.subs))
	for k := range m.pairs {
		ks = append(ks, k)
	}
	for k := range m.subs {
		ks = append(ks, k)
	}
	sort.Strings(ks)
	return ks
}

// modelRun is one run: a store, its model, and the parameters that were drawn for it.
type modelRun struct {
	t     *rapid.T
	path  string
	opts  *folio.Options
	db    *folio.DB
	model *modelBucket
	space keySpace
	large bool // values of megabytes too
}

// keySpace makes key number i; the numbers are drawn.
type keySpace struct {
	name string
	n    int
	key  func(i int) []byte
}

var keySpaces = []keySpace{
	{"one byte", 255, func(i int) []byte { return []byte{byte(i + 1)} }},
	{"decimal", 4000, func(i int) []byte { return fmt.Append(nil, i) }},
	{"hashed", 4000, func(i int) []byte {
		return binary.LittleEndian.AppendUint64(nil, uint64(i+1)*0x9e3779b97f4a7c15)
	}},
	{"zeros", 300, func(i int) []byte { return make([]byte, i+1) }},
	{"shared 300", 2000, func(i int) []byte { return fmt.Appendf(nil, "%s%06d", strings.Repeat("shared/", 43), i) }},
	{"shared at the limit of a cell", 400, func(i int) []byte {
		return append(bytes.Repeat([]byte{'p'}, 880+i%140), fmt.Append(nil, i)...)
	}},
	{"shared 32000", 60, func(i int) []byte { return fmt.Appendf(nil, "%s%d", strings.Repeat("k", 32000), i*7919) }},
	{"of all lengths", 800, func(i int) []byte {
		return append(bytes.Repeat([]byte{byte(i % 5)}, (i*i)%3000), fmt.Append(nil, i)...)
	}},
}

// value makes a value whose bytes show where they come from.
func value(seed, nbytes int) []byte {
	v := make([]byte, nbytes)
	x := uint64(seed)*0x9e3779b97f4a7c15 + 1
	for i := range v {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		v[i] = byte(x)
	}
	return v
}

func (r *modelRun) drawKey(label string) []byte {
	return r.space.key(rapid.IntRange(0, r.space.n-1).Draw(r.t, label))
}

func (r *modelRun) drawValue() []byte {
	sizes := []int{0, 10, 100, 100, 400, 1000, 2000, 5000}
	if r.large {
		sizes = append(sizes, 70_000, 3<<20)
	}
	n := rapid.SampledFrom(sizes).Draw(r.t, "size")
	return value(rapid.IntRange(0, 1000).Draw(r.t, "value"), n)
}

func (r *modelRun) check(err error, what string) {
	r.t.Helper()
	if err != nil {
		r.t.Fatalf("%s: %v", what, err)
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := &modelRun{
			t: rt, path: filepath.Join(t.TempDir(), "m.folio"), model: newModelBucket(),
			space: rapid.SampledFrom(keySpaces).Draw(rt, "keys"),
			large: rapid.IntRange(0, 9).Draw(rt, "large") == 0,
			opts: &folio.Options{
				PageSize:   rapid.SampledFrom([]int{4096, 4096, 8192, 65536}).Draw(rt, "page size"),
				DirtyLimit: rapid.SampledFrom([]int64{0, 128 << 10}).Draw(rt, "dirty limit"),
				TwoPhase:   rapid.Bool().Draw(rt, "two phase"),
				SyncEvery:  time.Millisecond,
			},
		}
		rt.Logf("keys %q, options %+v", r.space.name, *r.opts)
		r.open()
		ntx := rapid.IntRange(1, 12).Draw(rt, "transactions")
		for range ntx {
			r.transaction()
			if rapid.IntRange(0, 3).Draw(rt, "reopen") == 0 {
				r.check(r.db.Close(), "close")
				r.open()
			}
		}
		r.compare()
		r.checkStore()
		r.check(r.db.Close(), "close")
		r.open()
		r.compare()
		r.check(r.db.Close(), "close")
	})
}

func (r *modelRun) open() {
	r.opts.Sync = rapid.SampledFrom([]folio.SyncMode{folio.SyncFull, folio.SyncOff, folio.SyncOff, folio.SyncInterval}).Draw(r.t, "sync")
	r.opts.Verify = rapid.SampledFrom([]folio.VerifyMode{folio.VerifyFirstRead, folio.VerifyAlways, folio.VerifyOff}).Draw(r.t, "verify")
	db, err := folio.Open(r.path, 0o600, r.opts)
	r.check(err, "open")
	r.db = db
}

func (r *modelRun) checkStore() {
	for err := range r.db.Check(context.Background()) {
		r.t.Fatalf("check: %v", err)
	}
}

var errUndo = errors.New("undo this")

// transaction runs one write transaction of random operations, and ends it in one of
// the ways that there are.
func (r *modelRun) transaction() {
	after := r.model.clone()
	how := rapid.SampledFrom([]string{"update", "update", "fail", "panic", "commit", "rollback", "async"}).Draw(r.t, "end")
	switch how {
	case "update":
		r.check(r.db.Update(func(tx *folio.Tx) error { r.operations(tx, after); return nil }), "update")
		r.model = after
	case "fail":
		err := r.db.Update(func(tx *folio.Tx) error { r.operations(tx, after); return errUndo })
		if !errors.Is(err, errUndo) {
			r.t.Fatalf("update: %v", err)
		}
	case "panic":
		r.panics(func() {
			r.db.Update(func(tx *folio.Tx) error { r.operations(tx, after); panic(errUndo) })
		})
	default:
		tx, err := r.db.Begin(true)
		r.check(err, "begin")
		r.operations(tx, after)
		switch how {
		case "commit":
			r.check(tx.Commit(), "commit")
			r.model = after
		case "rollback":
			r.check(tx.Rollback(), "rollback")
		case "async":
			wait, err := tx.CommitAsync()
			r.check(err, "commit")
			r.check(wait(), "wait")
			r.model = after
		}
	}
	if rapid.IntRange(0, 2).Draw(r.t, "compare") == 0 {
		r.compare()
	}
	if rapid.IntRange(0, 3).Draw(r.t, "check") == 0 {
		r.checkStore()
	}
}

func (r *modelRun) panics(fn func()) {
	defer func() {
		if p := recover(); p != errUndo {
			panic(p)
		}
	}()
	fn()
}

// operations does a few random operations on random buckets.
func (r *modelRun) operations(tx *folio.Tx, m *modelBucket) {
	n := rapid.IntRange(0, 12).Draw(r.t, "operations")
	for range n {
		b, mb := r.drawBucket(tx.Root(), m)
		switch rapid.IntRange(0, 15).Draw(r.t, "op") {
		case 0, 1, 2:
			r.put(b, mb)
		case 3, 4, 5:
			r.putMany(b, mb)
		case 6:
			r.delete(b, mb)
		case 7:
			r.deleteMany(b, mb)
		case 8:
			r.deleteRange(b, mb)
		case 9:
			r.nested(tx, m)
		case 10:
			r.createBucket(b, mb)
		case 11:
			r.deleteBucket(b, mb)
		case 12:
			r.moveBucket(tx, m, b, mb)
		case 13:
			r.walk(b, mb)
		case 14:
			r.sequence(b, mb)
		case 15:
			r.probe(b, mb)
		}
	}
}

// drawBucket walks from the root into nested buckets, or stays.
func (r *modelRun) drawBucket(b *folio.Bucket, m *modelBucket) (*folio.Bucket, *modelBucket) {
	for len(m.subs) > 0 && rapid.IntRange(0, 2).Draw(r.t, "descend") > 0 {
		names := slices.Sorted(maps.Keys(m.subs))
		name := rapid.SampledFrom(names).Draw(r.t, "bucket")
		if b = b.Bucket([]byte(name)); b == nil {
			r.t.Fatalf("bucket %.40q is gone", name)
		}
		m = m.subs[name]
	}
	return b, m
}

func (r *modelRun) put(b *folio.Bucket, m *modelBucket) {
	k, v := r.drawKey("key"), r.drawValue()
	r.putPair(b, m, k, v)
}

// putPair puts a pair from buffers that it then spoils: Put must have copied them.
func (r *modelRun) putPair(b *folio.Bucket, m *modelBucket, k, v []byte) {
	key, val := string(k), string(v)
	err := b.Put(k, v)
	for i := range k {
		k[i] ^= 0xff
	}
	for i := range v {
		v[i] ^= 0xff
	}
	if m.subs[key] != nil {
		if !errors.Is(err, folio.ErrIncompatibleValue) {
			r.t.Fatalf("put on a bucket: %v", err)
		}
		return
	}
	r.check(err, "put")
	m.pairs[key] = val
}

func (r *modelRun) putMany(b *folio.Bucket, m *modelBucket) {
	n := rapid.IntRange(1, 400).Draw(r.t, "count")
	start := rapid.IntRange(0, r.space.n-1).Draw(r.t, "start")
	step := rapid.SampledFrom([]int{1, 1, 7, 1009}).Draw(r.t, "step")
	size := rapid.SampledFrom([]int{0, 8, 100, 300}).Draw(r.t, "size")
	for i := range n {
		r.putPair(b, m, r.space.key((start+i*step)%r.space.n), value(i+start, size))
	}
}

func (r *modelRun) delete(b *folio.Bucket, m *modelBucket) {
	r.deleteKey(b, m, r.drawKey("key"))
}

// deleteKey deletes a key, through a slice of the store's own page where it has one.
func (r *modelRun) deleteKey(b *folio.Bucket, m *modelBucket, k []byte) {
	key := string(k)
	if ck, _ := b.Cursor().Seek(k); bytes.Equal(ck, k) {
		k = ck
	}
	err := b.Delete(k)
	if m.subs[key] != nil {
		if !errors.Is(err, folio.ErrIncompatibleValue) {
			r.t.Fatalf("delete of a bucket: %v", err)
		}
		return
	}
	r.check(err, "delete")
	delete(m.pairs, key)
}

func (r *modelRun) deleteMany(b *folio.Bucket, m *modelBucket) {
	n := rapid.IntRange(1, 400).Draw(r.t, "count")
	start := rapid.IntRange(0, r.space.n-1).Draw(r.t, "start")
	step := rapid.SampledFrom([]int{1, 3, 1009}).Draw(r.t, "step")
	for i := range n {
		r.deleteKey(b, m, r.space.key((start+i*step)%r.space.n))
	}
}

func (r *modelRun) drawRange() (lo, hi []byte) {
	if rapid.IntRange(0, 4).Draw(r.t, "open start") > 0 {
		lo = r.drawKey("lo")
	}
	if rapid.IntRange(0, 4).Draw(r.t, "open end") > 0 {
		hi = r.drawKey("hi")
	}
	return lo, hi
}

func inRange(k string, lo, hi []byte) bool {
	return (lo == nil || k >= string(lo)) && (hi == nil || k < string(hi))
}

func (r *modelRun) deleteRange(b *folio.Bucket, m *modelBucket) {
	lo, hi := r.drawRange()
	n, err := b.DeleteRange(lo, hi)
	for name := range m.subs {
		if inRange(name, lo, hi) {
			if !errors.Is(err, folio.ErrIncompatibleValue) {
				r.t.Fatalf("delete range over a bucket: %v", err)
			}
			return
		}
	}
	r.check(err, "delete range")
	want := uint64(0)
	for k := range m.pairs {
		if inRange(k, lo, hi) {
			delete(m.pairs, k)
			want++
		}
	}
	if n != want {
		r.t.Fatalf("delete range removed %d pairs, want %d", n, want)
	}
}

// nested runs operations in a nested transaction that is kept or undone.
func (r *modelRun) nested(tx *folio.Tx, m *modelBucket) {
	after := m.clone()
	switch rapid.SampledFrom([]string{"keep", "undo", "panic"}).Draw(r.t, "nested") {
	case "keep":
		r.check(tx.Nested(func(tx *folio.Tx) error { r.operations(tx, after); return nil }), "nested")
		*m = *after
	case "undo":
		err := tx.Nested(func(tx *folio.Tx) error { r.operations(tx, after); return errUndo })
		if !errors.Is(err, errUndo) {
			r.t.Fatalf("nested: %v", err)
		}
	case "panic":
		r.panics(func() {
			tx.Nested(func(tx *folio.Tx) error { r.operations(tx, after); panic(errUndo) })
		})
	}
}

func (r *modelRun) createBucket(b *folio.Bucket, m *modelBucket) {
	name := r.drawKey("name")
	nb, err := b.CreateBucket(name)
	_, isPair := m.pairs[string(name)]
	switch {
	case m.subs[string(name)] != nil:
		if !errors.Is(err, folio.ErrBucketExists) {
			r.t.Fatalf("create of a bucket that exists: %v", err)
		}
	case isPair:
		if !errors.Is(err, folio.ErrIncompatibleValue) {
			r.t.Fatalf("create of a bucket over a pair: %v", err)
		}
	default:
		r.check(err, "create bucket")
		m.subs[string(name)] = newModelBucket()
		r.putMany(nb, m.subs[string(name)])
	}
}

func (r *modelRun) deleteBucket(b *folio.Bucket, m *modelBucket) {
	name := r.drawKey("name")
	if len(m.subs) > 0 && rapid.Bool().Draw(r.t, "existing") {
		name = []byte(rapid.SampledFrom(slices.Sorted(maps.Keys(m.subs))).Draw(r.t, "which"))
	}
	err := b.DeleteBucket(name)
	_, isPair := m.pairs[string(name)]
	switch {
	case m.subs[string(name)] != nil:
		r.check(err, "delete bucket")
		delete(m.subs, string(name))
	case isPair:
		if !errors.Is(err, folio.ErrIncompatibleValue) {
			r.t.Fatalf("delete bucket of a pair: %v", err)
		}
	default:
		if !errors.Is(err, folio.ErrBucketNotFound) {
			r.t.Fatalf("delete of an absent bucket: %v", err)
		}
	}
}

func (r *modelRun) moveBucket(tx *folio.Tx, m *modelBucket, src *folio.Bucket, msrc *modelBucket) {
	if len(msrc.subs) == 0 {
		return
	}
	name := rapid.SampledFrom(slices.Sorted(maps.Keys(msrc.subs))).Draw(r.t, "moved")
	dst, mdst := r.drawBucket(tx.Root(), m)
	err := tx.MoveBucket([]byte(name), src, dst)
	_, isPair := mdst.pairs[name]
	switch {
	case msrc.subs[name].holds(mdst):
		if !errors.Is(err, folio.ErrIncompatibleValue) {
			r.t.Fatalf("move into itself: %v", err)
		}
	case mdst.subs[name] != nil:
		if !errors.Is(err, folio.ErrBucketExists) {
			r.t.Fatalf("move onto a bucket: %v", err)
		}
	case isPair:
		if !errors.Is(err, folio.ErrIncompatibleValue) {
			r.t.Fatalf("move onto a pair: %v", err)
		}
	default:
		r.check(err, "move bucket")
		mdst.subs[name] = msrc.subs[name]
		delete(msrc.subs, name)
	}
}

// holds reports whether o is m or nested in it.
func (m *modelBucket) holds(o *modelBucket) bool {
	if m == o {
		return true
	}
	for _, s := range m.subs {
		if s.holds(o) {
			return true
		}
	}
	return false
}

func (r *modelRun) sequence(b *folio.Bucket, m *modelBucket) {
	if b.Sequence() != m.seq {
		r.t.Fatalf("sequence %d, want %d", b.Sequence(), m.seq)
	}
	n, err := b.NextSequence()
	r.check(err, "next sequence")
	m.seq++
	if n != m.seq {
		r.t.Fatalf("next sequence %d, want %d", n, m.seq)
	}
}

// walk goes over all pairs with a cursor, changing the bucket as it goes: each pair
// that exists throughout must be seen exactly once, in order.
func (r *modelRun) walk(b *folio.Bucket, m *modelBucket) {
	back := rapid.Bool().Draw(r.t, "backward")
	every := rapid.IntRange(1, 20).Draw(r.t, "change every")
	before := m.keys()
	gone := map[string]bool{}
	seen := map[string]bool{}
	c := b.Cursor()
	step, first := c.Next, c.First
	if back {
		step, first = c.Prev, c.Last
	}
	last := ""
	i := 0
	for k, v := first(); k != nil; k, v = step() {
		key := string(k)
		if i > 0 && (key >= last) == back {
			r.t.Fatalf("walk goes from %.40q to %.40q", last, key)
		}
		last = key
		if want, ok := m.pairs[key]; ok && want != string(v) || !ok && m.subs[key] == nil {
			r.t.Fatalf("walk meets %.40q, which is not there or has another value", key)
		}
		seen[key] = true
		i++
		if i > 3000 {
			break
		}
		if i%every != 0 {
			continue
		}
		switch rapid.IntRange(0, 3).Draw(r.t, "change") {
		case 0:
			if m.subs[key] == nil {
				r.check(c.Delete(), "cursor delete")
				delete(m.pairs, key)
				gone[key] = true
			}
		case 1:
			k := r.drawKey("other")
			if m.subs[string(k)] == nil {
				gone[string(k)] = true
			}
			r.deleteKey(b, m, k)
		case 2:
			k := r.drawKey("other")
			if _, ok := m.pairs[string(k)]; !ok {
				gone[string(k)] = true // it need not be seen
			}
			r.putPair(b, m, k, value(i, 200))
		case 3:
			lo := r.drawKey("lo")
			hi := append(bytes.Clone(lo), 0xff)
			for k := range m.pairs {
				if inRange(k, lo, hi) {
					gone[k] = true
				}
			}
			if n, err := b.DeleteRange(lo, hi); err == nil && n > 0 {
				maps.DeleteFunc(m.pairs, func(k, _ string) bool { return inRange(k, lo, hi) })
			}
		}
	}
	if i > 3000 {
		return
	}
	for _, k := range before {
		if !gone[k] && !seen[k] {
			r.t.Fatalf("walk missed %.40q", k)
		}
	}
}

// probe compares single reads and counts.
func (r *modelRun) probe(b *folio.Bucket, m *modelBucket) {
	keys := m.keys()
	for range 5 {
		k := r.drawKey("probe")
		want, ok := m.pairs[string(k)]
		if got := b.Get(k); (got != nil) != ok || string(got) != want {
			r.t.Fatalf("get %.40q: %d bytes, want %d (there: %t)", k, len(got), len(want), ok)
		}
		below := sort.SearchStrings(keys, string(k))
		if got := b.Rank(k); got != uint64(below) {
			r.t.Fatalf("rank %d, want %d", got, below)
		}
		sk, _ := b.Cursor().Seek(k)
		if below == len(keys) && sk != nil || below < len(keys) && string(sk) != keys[below] {
			r.t.Fatalf("seek %.40q gives %.40q", k, sk)
		}
		if len(keys) > 0 {
			i := below % len(keys)
			if ak, av := b.At(uint64(i)); string(ak) != keys[i] || string(av) != m.pairs[keys[i]] {
				r.t.Fatalf("at %d: %.40q, want %.40q", i, ak, keys[i])
			}
		}
	}
	lo, hi := r.drawRange()
	want := 0
	for _, k := range keys {
		if inRange(k, lo, hi) {
			want++
		}
	}
	if got := b.Count(lo, hi); got != uint64(want) {
		r.t.Fatalf("count %d, want %d", got, want)
	}
	got := 0
	for k := range b.Range(lo, hi) {
		if !inRange(string(k), lo, hi) {
			r.t.Fatalf("range yields %.40q", k)
		}
		got++
	}
	if got != want {
		r.t.Fatalf("range yields %d pairs, want %d", got, want)
	}
}

// compare compares the whole store with the model, in a read transaction.
func (r *modelRun) compare() {
	r.check(r.db.Sync(), "sync")
	r.check(r.db.View(func(tx *folio.Tx) error {
		r.compareBucket(tx.Root(), r.model)
		return nil
	}), "view")
}

func (r *modelRun) compareBucket(b *folio.Bucket, m *modelBucket) {
	if b.Sequence() != m.seq {
		r.t.Fatalf("sequence %d, want %d", b.Sequence(), m.seq)
	}
	keys := m.keys()
	if b.Len() != uint64(len(keys)) {
		r.t.Fatalf("len %d, want %d", b.Len(), len(keys))
	}
	i := 0
	for k, v := range b.All() {
		if i == len(keys) || string(k) != keys[i] {
			r.t.Fatalf("pair %d is %.40q", i, k)
		}
		if want, isPair := m.pairs[keys[i]]; isPair != (v != nil) || string(v) != want {
			r.t.Fatalf("value of %.40q: %d bytes, want %d", k, len(v), len(want))
		}
		i++
	}
	for k := range b.Backward() {
		i--
		if string(k) != keys[i] {
			r.t.Fatalf("pair %d backward is %.40q", i, k)
		}
	}
	if i != 0 {
		r.t.Fatalf("%d pairs are missing backward", i)
	}
	for name, sub := range m.subs {
		nb := b.Bucket([]byte(name))
		if nb == nil {
			r.t.Fatalf("bucket %.40q is missing", name)
		}
		r.compareBucket(nb, sub)
	}
}
