package fuzz

// operations_target_test.go runs a script of arbitrary operations on a store and on nested
// maps, and compares the two as it goes and at the end.

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/foliokv/folio"
)

// FuzzOperations: the input is a script, see parseInput. A failure prints it as text.
func FuzzOperations(f *testing.F) {
	for _, text := range opsSeeds {
		f.Add(parseText(text).bytes())
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		guardTime(t)
		s := parseInput(input)
		r := newOpsRun(t, s)
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("the script, which failed at operation %d (%s):\n%s", r.at, r.opName(), s)
			}
		})
		r.run()
	})
}

// opsSeeds are scripts that each go where others do not.
var opsSeeds = []string{
	`store 0 16 1
	putmany bucket=0 key=0 n=250 m=0 value=1280
	create bucket=0 key=7 n=9
	create bucket=1 key=8 n=200
	end n=0
	probe bucket=0 key=12 key2=40
	deletemany bucket=0 key=3 n=200 m=1
	walk bucket=0 n=3 m=1 key=700
	nested
	deleterange bucket=0 key=10 key2=99 n=0
	deletebucket bucket=0 key=7 n=0 m=0
	end n=2
	compare
	nested
	move bucket=0 other=1 n=0 m=0
	sequence bucket=2 n=0
	end n=0
	end n=0
	check`,
	`store 4 0 4
	begin
	putmany bucket=0 key=0 n=255 m=0 value=1024
	reader n=0
	hook
	end n=3
	deleterange bucket=0 key=20 key2=180 n=0
	hook
	end n=3
	reader n=1
	sync
	reader n=2
	put bucket=0 key=4 value=3072
	end n=3
	wait
	kill
	reader n=0
	reader n=1
	reopen
	compare`,
	`store 8 2 5
	putmany bucket=0 key=0 n=120 m=2 value=2304
	create bucket=0 key=16384 n=3
	putmany bucket=1 key=43008 n=30 m=0 value=256
	end n=0
	cursor n=0 bucket=0
	step n=0 m=0 key=0
	step n=0 m=34 key=0
	step n=0 m=7 key=0
	step n=0 m=37 key=0
	deletemany bucket=0 key=10 n=80 m=0
	step n=0 m=3 key=0
	handle n=0 m=0 bucket=1
	nested
	deletebucket bucket=0 key=0 n=0 m=1
	use n=0 m=1 key=5 value=512
	end n=2
	use n=0 m=0 key=5 value=512
	end n=0
	kill
	walk bucket=0 n=1 m=0 key=30
	end n=1
	deleterange bucket=0 key=0 key2=0 n=3
	end n=0
	reopen
	backup`,
	`store 12 3 6
	putmany bucket=0 key=0 n=39 m=0 value=256
	put bucket=0 key=39 value=0
	put bucket=0 key=33024 value=0
	end n=0
	put bucket=0 key=5 value=3072
	put bucket=0 key=6 value=3072
	nested
	nested
	putmany bucket=0 key=0 n=30 m=0 value=2560
	end n=3
	put bucket=0 key=7 value=2816
	end n=0
	deletemany bucket=0 key=0 n=20 m=0
	end n=0
	kill
	reopen
	check`,
	`store 3 20 3
	putmany bucket=0 key=0 n=255 m=0 value=1024
	create bucket=0 key=20480 n=100
	move bucket=0 other=1 n=0 m=0
	create bucket=1 key=20481 n=100
	move bucket=0 other=2 n=0 m=0
	sequence bucket=2 n=200
	end n=0
	backup
	walk bucket=0 n=3 m=0 key=40
	deletebucket bucket=0 key=20480 n=0 m=0
	handle n=1 m=0 bucket=0
	use n=1 m=2 key=9 value=0
	probe bucket=0 key=1 key2=2
	end n=0`,
	// A cursor and a handle of the outer transaction, used in one that is undone.
	`store 0 16 1
	putmany bucket=0 key=0 n=200 m=0 value=1024
	create bucket=0 key=20480 n=50
	cursor n=0 bucket=0
	handle n=0 m=0 bucket=1
	step n=0 m=34 key=0
	nested
	step n=0 m=58 key=0
	deletemany bucket=0 key=0 n=150 m=0
	step n=0 m=2 key=0
	use n=0 m=1 key=3 value=1000
	handle n=1 m=0 bucket=1
	nested
	deletebucket bucket=0 key=0 n=0 m=0
	use n=0 m=0 key=3 value=0
	step n=0 m=3 key=0
	end n=3
	use n=0 m=0 key=3 value=0
	step n=0 m=18 key=0
	end n=2
	step n=0 m=2 key=0
	use n=0 m=3 key=3 value=0
	use n=1 m=0 key=3 value=0
	step n=0 m=5 key=0
	end n=0
	compare`,
	// Pairs that grow and shrink across the limits of cells and pages.
	`store 0 16 5
	putmany bucket=0 key=0 n=40 m=0 value=256
	putmany bucket=0 key=3 n=9 m=2 value=2816
	putmany bucket=0 key=0 n=40 m=0 value=2400
	probe bucket=0 key=3 key2=20
	end n=0
	putmany bucket=0 key=0 n=30 m=1 value=256
	putmany bucket=0 key=5 n=30 m=1 value=2800
	walk bucket=0 n=2 m=1 key=100
	probe bucket=0 key=7 key2=30
	end n=0
	deletemany bucket=0 key=0 n=30 m=1
	end n=0
	check`,
	// Spilled pages change again, while slices of them are in use and a reader looks on.
	`store 8 16 4
	putmany bucket=0 key=0 n=255 m=0 value=1024
	end n=0
	reader n=0
	putmany bucket=0 key=0 n=255 m=0 value=1300
	walk bucket=0 n=6 m=3 key=300
	putmany bucket=0 key=100 n=255 m=0 value=1400
	walk bucket=0 n=7 m=3 key=100
	putmany bucket=0 key=0 n=255 m=0 value=1310
	nested
	putmany bucket=0 key=0 n=200 m=0 value=1350
	walk bucket=0 n=1 m=2 key=30
	end n=2
	deleterange bucket=0 key=20 key2=200 n=0
	end n=0
	reader n=1
	putmany bucket=0 key=0 n=255 m=0 value=1024
	end n=0
	putmany bucket=0 key=50 n=255 m=0 value=1024
	end n=0
	reader n=0
	reader n=1
	compare`,
	// A cursor that moved in a transaction that is undone, in a leaf that is no more.
	`store 0 16 0
	putmany bucket=0 key=10 n=30 m=2 value=512
	cursor n=0 bucket=0
	step n=0 m=0 key=0
	nested
	put bucket=0 key=20 value=256
	step n=0 m=2 key=0
	end n=2
	step n=0 m=2 key=0
	step n=0 m=5 key=0
	end n=0`,
	// A bucket's record goes to its parent in a transaction that is undone.
	`store 0 16 1
	create bucket=0 key=1 n=2
	create bucket=1 key=2 n=2
	create bucket=0 key=3 n=2
	end n=0
	putmany bucket=2 key=5 n=100 m=0 value=1024
	nested
	deletebucket bucket=0 key=0 n=1 m=0
	end n=2
	put bucket=1 key=9 value=256
	putmany bucket=2 key=200 n=100 m=0 value=1024
	end n=0
	check`,
	// The handle of a bucket that is gone, and functions of a transaction that is undone.
	`store 0 16 1
	create bucket=0 key=1 n=3
	handle n=0 m=0 bucket=1
	deletebucket bucket=0 key=0 n=0 m=0
	use n=0 m=0 key=3 value=0
	create bucket=0 key=1 n=1
	use n=0 m=1 key=3 value=256
	nested
	hook
	end n=2
	nested
	hook
	end n=0
	hook
	end n=0
	begin
	hook
	end n=2`,
	// A cell that keeps only the first bytes of its key, on a page of a longer prefix.
	`store 0 16 5
	putmany bucket=0 key=86 n=3 m=0 value=256
	put bucket=0 key=86 value=2048
	probe bucket=0 key=86 key2=88
	walk bucket=0 n=1 m=15 key=200
	end n=0
	check`,
	// Separators that are in runs.
	`store 0 16 8
	putmany bucket=0 key=0 n=36 m=0 value=0
	end n=0
	delete bucket=0 key=36
	end n=0
	putmany bucket=0 key=30 n=100 m=0 value=256
	end n=0
	deleterange bucket=0 key=10 key2=90 n=0
	check
	end n=0
	deletemany bucket=0 key=0 n=120 m=0
	end n=0
	check`,
}

// storeOpKinds are all operations.
var storeOpKinds = []storeOpKind{
	{"put", "bkv", 4, true, func(r *opsRun, a *opArgs) { b, c := r.bucket(a.bucket); r.put(b, c, a.key, a.value) }},
	{"putmany", "bknmv", 3, true, (*opsRun).putMany},
	{"delete", "bk", 2, true, func(r *opsRun, a *opArgs) { b, c := r.bucket(a.bucket); r.deleteKey(b, c, r.key(a.key)) }},
	{"deletemany", "bknm", 2, true, (*opsRun).deleteMany},
	{"deleterange", "bkln", 3, true, (*opsRun).deleteRange},
	{"walk", "bnmk", 2, true, (*opsRun).walk},
	{"create", "bkn", 3, true, (*opsRun).create},
	{"deletebucket", "bknm", 2, true, (*opsRun).deleteBucket},
	{"move", "bonm", 2, true, (*opsRun).moveBucket},
	{"sequence", "bn", 1, true, (*opsRun).sequence},
	{"nested", "", 3, true, (*opsRun).nested},
	{"probe", "bkl", 2, true, (*opsRun).probe},
	{"handle", "nmb", 1, true, (*opsRun).openHandle},
	{"use", "nmkv", 2, true, (*opsRun).useHandle},
	{"cursor", "nb", 1, true, (*opsRun).openCursor},
	{"step", "nmk", 4, true, (*opsRun).stepCursor},
	{"hook", "", 1, true, (*opsRun).hook},
	{"end", "n", 6, true, nil}, // see body
	{"begin", "", 1, false, func(r *opsRun, _ *opArgs) { r.begin() }},
	{"sync", "", 1, false, func(r *opsRun, _ *opArgs) { r.sync() }},
	{"wait", "", 1, false, func(r *opsRun, _ *opArgs) { r.wait() }},
	{"reader", "n", 2, false, func(r *opsRun, a *opArgs) { r.reader(a.n % mostReaders) }},
	{"compare", "", 1, false, func(r *opsRun, _ *opArgs) { r.compare() }},
	{"check", "", 1, false, func(r *opsRun, _ *opArgs) { r.check() }},
	{"backup", "", 1, false, func(r *opsRun, _ *opArgs) { r.backup() }},
	{"reopen", "", 1, false, func(r *opsRun, _ *opArgs) { r.reopen() }},
	{"kill", "", 1, false, func(r *opsRun, _ *opArgs) { r.kill() }},
}

// weighted has each kind as often as its weight says.
var weighted = func() (all []*storeOpKind) {
	for i := range storeOpKinds {
		for range storeOpKinds[i].weight {
			all = append(all, &storeOpKinds[i])
		}
	}
	return all
}()

// bucketInfo is what a run knows of a bucket of the model.
type bucketInfo struct {
	id   int      // the same in all copies of the model
	keys []string // of pairs and buckets, in order
}

// opsLevel is an open transaction, or one that is nested in it.
type opsLevel struct {
	tx      *folio.Tx
	c       *contents
	managed bool
	hooks   []int
	lent    []lentSlice
}

// opsHandle is a bucket that was opened in the transaction of a level.
type opsHandle struct {
	b        *folio.Bucket
	id       int
	level    int  // whose transaction it is
	layer    int  // the deepest level when it was opened
	doubtful bool // that layer was undone: what it shows is not said
}

// opsCursor is a cursor and where it should be.
type opsCursor struct {
	opsHandle
	c     *folio.Cursor
	state int
	key   string
}

const (
	cursorFresh = iota // before the first pair for Next, after the last for Prev
	cursorBefore
	cursorAt
	cursorAfter
)

// lentSlice is what was had from a transaction, and what it held then.
type lentSlice struct{ slice, was []byte }

// opsRun is one run of a script.
type opsRun struct {
	t    *testing.T
	s    *opsScript
	at   int // the next operation
	path string
	opts folio.Options
	home int
	db   *folio.DB

	newest  *contents            // after the newest commit
	states  map[uint64]*contents // after each commit
	acked   uint64               // readers see this commit, or a later one
	info    map[*contents]*bucketInfo
	nextID  int
	left    int // bytes that may yet be put
	ncopies int // kills and backups

	levels  []*opsLevel
	handles [mostHandles]opsHandle
	cursors [mostCursors]opsCursor
	readers [mostReaders]*folio.Tx
	waits   []func() error

	hooked []int // functions that must have run once all is durable
	nhooks int
	mu     sync.Mutex
	ran    []int // those that have
}

func newOpsRun(t *testing.T, s *opsScript) *opsRun {
	r := &opsRun{t: t, s: s, states: map[uint64]*contents{}, info: map[*contents]*bucketInfo{}, left: mostBytes, path: "in memory"}
	var inMemory bool
	r.opts, inMemory, r.home = s.options()
	if !inMemory {
		r.path = filepath.Join(scratchDir(t), "store")
	}
	r.newest = r.newBucket()
	return r
}

func (r *opsRun) opName() string {
	if r.at == 0 || r.at > len(r.s.ops) {
		return "none"
	}
	return r.s.ops[r.at-1].kind.name
}

func (r *opsRun) must(what string, err error) {
	if err != nil {
		r.t.Helper()
		r.t.Fatalf("%s: %v", what, err)
	}
}

// mustBe requires that err is target, or none where that is nil. It reports whether all went well.
func (r *opsRun) mustBe(what string, err, target error) bool {
	if !errors.Is(err, target) {
		r.t.Helper()
		r.t.Fatalf("%s: error %v, should be %v", what, err, target)
	}
	return target == nil
}

func (r *opsRun) run() {
	r.open()
	for r.at < len(r.s.ops) {
		if op := &r.s.ops[r.at]; op.kind.inTx {
			r.transaction(false)
		} else {
			r.at++
			op.kind.run(r, &op.args)
		}
	}
	r.endReaders()
	r.compare()
	r.check()
	r.close()
	if r.opts.InMemory {
		return
	}
	r.open()
	r.compare()
	r.check()
	r.close()
}

func (r *opsRun) open() {
	db, err := folio.Open(r.path, 0o600, &r.opts)
	r.must("open", err)
	r.db = db
	r.t.Cleanup(func() { closeSoon(db) })
	r.must("view", db.View(func(tx *folio.Tx) error {
		r.acked = tx.ID()
		r.states[r.acked] = r.newest
		return nil
	}))
}

func (r *opsRun) close() {
	r.waits = nil
	r.must("close", r.db.Close())
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.Sort(r.ran) // where syncs are in the background, those of later commits may come first
	if !slices.Equal(r.ran, r.hooked) {
		r.t.Fatalf("functions that ran on commit: %v, should be %v", r.ran, r.hooked)
	}
}

// --- the model

func (r *opsRun) newBucket() *contents {
	c := newContents()
	r.nextID++
	r.info[c] = &bucketInfo{id: r.nextID}
	return c
}

// clone copies a bucket and all in it.
func (r *opsRun) clone(c *contents) *contents {
	to := &contents{pairs: maps.Clone(c.pairs), buckets: make(map[string]*contents, len(c.buckets)), sequence: c.sequence}
	r.info[to] = &bucketInfo{r.info[c].id, slices.Clone(r.info[c].keys)}
	for name, sub := range c.buckets {
		to.buckets[name] = r.clone(sub)
	}
	return to
}

// setKey notes that key is there, or not.
func (r *opsRun) setKey(c *contents, key string, there bool) {
	info := r.info[c]
	i, found := slices.BinarySearch(info.keys, key)
	switch {
	case there && !found:
		info.keys = slices.Insert(info.keys, i, key)
	case !there && found:
		info.keys = slices.Delete(info.keys, i, i+1)
	}
}

func (r *opsRun) setPair(c *contents, key string, value []byte) {
	c.pairs[key] = value
	r.setKey(c, key, true)
}

func (r *opsRun) deletePair(c *contents, key string) {
	delete(c.pairs, key)
	r.setKey(c, key, false)
}

// below returns how many keys of c are less than key.
func (r *opsRun) below(c *contents, key string) int {
	i, _ := slices.BinarySearch(r.info[c].keys, key)
	return i
}

// find returns the bucket with an id, nil where there is none.
func (r *opsRun) find(c *contents, id int) *contents {
	if r.info[c].id == id {
		return c
	}
	for _, sub := range c.buckets {
		if found := r.find(sub, id); found != nil {
			return found
		}
	}
	return nil
}

// paths returns the paths of c and of all buckets in it, each before those in it.
func (r *opsRun) paths(c *contents, at []string) [][]string {
	all := [][]string{at}
	if len(c.buckets) == 0 {
		return all
	}
	for _, name := range slices.Sorted(maps.Keys(c.buckets)) {
		all = append(all, r.paths(c.buckets[name], append(slices.Clone(at), name))...)
	}
	return all
}

// --- transactions

func (r *opsRun) level() *opsLevel { return r.levels[len(r.levels)-1] }

// begin begins a transaction of Update.
func (r *opsRun) begin() {
	if len(r.levels) == 0 && r.at < len(r.s.ops) {
		r.transaction(true)
	}
}

// How a transaction ends. A nested one that is not kept ends by an error or a panic.
const (
	endKeep = iota
	endKeepToo
	endUndo
	endOtherwise // a nested one: by a panic; another: CommitAsync
)

// transaction runs operations up to the end of a transaction. Updates are Update's, or
// the caller's from Begin to Commit.
func (r *opsRun) transaction(managed bool) {
	l := &opsLevel{c: r.clone(r.newest), managed: managed}
	id := uint64(0)
	if managed {
		how := endKeep
		err := r.caught(func() error {
			return r.db.Update(func(tx *folio.Tx) error {
				l.tx, id = tx, tx.ID()
				how = r.body(l)
				return endOf(how)
			})
		})
		r.mustBe("update", err, errorOf(how))
		r.ended(l, id, how < endUndo, r.opts.Sync == folio.SyncFull)
		return
	}
	tx, err := r.db.Begin(true)
	r.must("begin", err)
	l.tx, id = tx, tx.ID()
	switch how := r.body(l); how {
	case endUndo:
		r.must("rollback", tx.Rollback())
		r.ended(l, id, false, false)
	case endOtherwise:
		wait, err := tx.CommitAsync()
		r.must("commit", err)
		r.waits = append(r.waits, wait)
		r.ended(l, id, true, r.opts.Sync != folio.SyncFull)
	default:
		r.must("commit", tx.Commit())
		r.ended(l, id, true, true)
	}
}

// endOf ends a function that a transaction was given.
func endOf(how int) error {
	switch how {
	case endUndo:
		return errUndo
	case endOtherwise:
		panic(errUndo)
	}
	return nil
}

// errorOf returns the error that comes of endOf.
func errorOf(how int) error {
	if how >= endUndo {
		return errUndo
	}
	return nil
}

// caught runs fn; a panic with errUndo is its error.
func (r *opsRun) caught(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if p != errUndo {
				panic(p)
			}
			err = errUndo
		}
	}()
	return fn()
}

// ended notes how commit id ended, and whether readers can see it.
func (r *opsRun) ended(l *opsLevel, id uint64, committed, visible bool) {
	r.closeHandles(0)
	if !committed {
		return
	}
	r.newest = l.c
	r.states[id] = l.c
	r.hooked = append(r.hooked, l.hooks...)
	if visible {
		r.acked = r.db.Stats().Newest // id, unless nothing was changed
	}
}

// body runs operations in a transaction until one ends it, or the script.
func (r *opsRun) body(l *opsLevel) (how int) {
	r.levels = append(r.levels, l)
	how = endKeep
	for r.at < len(r.s.ops) {
		op := &r.s.ops[r.at]
		r.at++
		if op.kind.run == nil {
			how = op.args.n % 4
			break
		}
		op.kind.run(r, &op.args)
	}
	r.compareLent(l)
	r.levels = r.levels[:len(r.levels)-1]
	return how
}

func (r *opsRun) nested(*opArgs) {
	if len(r.levels) > mostNesting {
		return
	}
	outer := r.level()
	l := &opsLevel{c: r.clone(outer.c)}
	how := endKeep
	err := r.caught(func() error {
		return outer.tx.Nested(func(tx *folio.Tx) error {
			l.tx = tx
			how = r.body(l)
			return endOf(how)
		})
	})
	r.mustBe("nested", err, errorOf(how))
	r.closeHandles(len(r.levels))
	if how < endUndo {
		outer.c = l.c
		outer.hooks = append(outer.hooks, l.hooks...)
	}
	for _, h := range r.allHandles() {
		if h.layer >= len(r.levels) {
			h.layer = len(r.levels) - 1
			h.doubtful = h.doubtful || how >= endUndo
		}
	}
}

// lend keeps a slice that the transaction handed out: it must not change before that ends.
func (r *opsRun) lend(b []byte) {
	const most = 150
	if l := r.level(); len(l.lent) < most && len(b) > 0 {
		l.lent = append(l.lent, lentSlice{b, bytes.Clone(b)})
	}
}

func (r *opsRun) compareLent(l *opsLevel) {
	for _, s := range l.lent {
		if !bytes.Equal(s.slice, s.was) {
			r.t.Fatalf("a slice of %d bytes has changed before its transaction ended", len(s.was))
		}
	}
}

// hook gives the transaction a function to call once it is committed.
func (r *opsRun) hook(*opArgs) {
	r.nhooks++
	n := r.nhooks
	l := r.level()
	l.hooks = append(l.hooks, n)
	l.tx.OnCommit(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ran = append(r.ran, n)
	})
}

// --- pairs

func (r *opsRun) key(key int) []byte { return keyOf(key, r.home, r.opts.PageSize) }

// bucket returns bucket number n of the transaction and what it should hold.
func (r *opsRun) bucket(n int) (*folio.Bucket, *contents) { return r.bucketOf(r.level(), n) }

func (r *opsRun) bucketOf(l *opsLevel, n int) (*folio.Bucket, *contents) {
	c := r.level().c
	paths := r.paths(c, nil)
	path := paths[n%len(paths)]
	b := bucketAt(l.tx, path)
	if b == nil {
		r.t.Fatalf("bucket %.60q is gone: %v", path, l.tx.Err())
	}
	for _, name := range path {
		c = c.buckets[name]
	}
	return b, c
}

// put puts a pair from buffers that are spoiled afterwards: the store copies them.
func (r *opsRun) put(b *folio.Bucket, c *contents, key, value int) {
	k, v := r.key(key), valueBytes(value, r.opts.PageSize)
	if r.left -= len(k) + len(v) + putOverhead; r.left < 0 {
		return
	}
	name, kept := string(k), bytes.Clone(v)
	err := b.Put(k, v)
	for i := range k {
		k[i] ^= 0xff
	}
	clear(v)
	if r.mustBe("put", err, r.keyError(c, name, folio.ErrKeyRequired)) {
		r.setPair(c, name, append([]byte{}, kept...))
	}
}

// keyError is the error that a pair under key calls for.
func (r *opsRun) keyError(c *contents, key string, empty error) error {
	switch {
	case key == "":
		return empty
	case len(key) > folio.MaxKeySize:
		return folio.ErrKeyTooLarge
	case c.buckets[key] != nil:
		return folio.ErrIncompatibleValue
	}
	return nil
}

// strides are the distances between the keys of a sequence.
var strides = [...]int{1, 1, 7, 101}

func (r *opsRun) putMany(a *opArgs) {
	b, c := r.bucket(a.bucket)
	for i := range a.n + 1 {
		r.put(b, c, keyAfter(a.key, i*strides[a.m%len(strides)]), a.value)
	}
}

// deleteKey deletes a key, by a slice of the store's own page where it is there.
func (r *opsRun) deleteKey(b *folio.Bucket, c *contents, k []byte) {
	if own, _ := b.Cursor().Seek(k); own != nil && bytes.Equal(own, k) {
		k = own
	}
	key := string(k)
	want := error(nil)
	if c.buckets[key] != nil {
		want = folio.ErrIncompatibleValue
	}
	if r.mustBe("delete", b.Delete(k), want) {
		r.deletePair(c, key)
	}
}

func (r *opsRun) deleteMany(a *opArgs) {
	b, c := r.bucket(a.bucket)
	for i := range a.n + 1 {
		r.deleteKey(b, c, r.key(keyAfter(a.key, i*strides[a.m%len(strides)])))
	}
}

// rangeOf returns the ends of a range; n says which of them are open.
func (r *opsRun) rangeOf(a *opArgs) (lo, hi []byte) {
	if a.n&1 == 0 {
		lo = r.key(a.key)
	}
	if a.n&2 == 0 {
		hi = r.key(a.key2)
	}
	if hi != nil && a.n&4 == 0 && bytes.Compare(lo, hi) > 0 {
		lo, hi = hi, lo
	}
	return lo, hi
}

// inside returns the keys of c in [lo, hi).
func (r *opsRun) inside(c *contents, lo, hi []byte) []string {
	from, to := 0, len(r.info[c].keys)
	if lo != nil {
		from = r.below(c, string(lo))
	}
	if hi != nil {
		to = r.below(c, string(hi))
	}
	return slices.Clone(r.info[c].keys[from:max(from, to)])
}

func (r *opsRun) deleteRange(a *opArgs) {
	b, c := r.bucket(a.bucket)
	lo, hi := r.rangeOf(a)
	r.cutRange(b, c, lo, hi)
}

func (r *opsRun) cutRange(b *folio.Bucket, c *contents, lo, hi []byte) {
	keys := r.inside(c, lo, hi)
	want := error(nil)
	if slices.ContainsFunc(keys, func(k string) bool { return c.buckets[k] != nil }) {
		want = folio.ErrIncompatibleValue
	}
	n, err := b.DeleteRange(lo, hi)
	if !r.mustBe("delete range", err, want) {
		return
	}
	if n != uint64(len(keys)) {
		r.t.Fatalf("delete range: %d pairs, should be %d", n, len(keys))
	}
	for _, k := range keys {
		r.deletePair(c, k)
	}
}

// walk goes over a bucket with a cursor and changes it on the way.
func (r *opsRun) walk(a *opArgs) {
	const mostSteps, mostChanges = 400, 25
	b, c := r.bucket(a.bucket)
	cur := &opsCursor{opsHandle: opsHandle{b: b, id: r.info[c].id}, c: b.Cursor()}
	move, every := moveNext, a.m%16+1
	if a.n&1 != 0 {
		cur.state = cursorAfter
		cur.c.Last()
		cur.c.Next()
		move = movePrev
	}
	nchanges := 0
	for i := 1; i < mostSteps && r.move(cur, c, move, nil); i++ {
		if i%every != 0 || nchanges == mostChanges {
			continue
		}
		nchanges++
		other := keyAfter(a.key, i*37)
		switch (a.n>>1 + nchanges) % 4 {
		case 0:
			r.move(cur, c, moveDelete, nil)
		case 1:
			r.put(b, c, other, 0x100*(nchanges%10)+i&0xff)
		case 2:
			r.deleteKey(b, c, r.key(other))
		case 3:
			lo := []byte(cur.key)
			r.cutRange(b, c, lo[:len(lo)-1], append(bytes.Clone(lo), 0x80))
		}
	}
}

// --- buckets

func (r *opsRun) create(a *opArgs) {
	const most = 24
	b, c := r.bucket(a.bucket)
	name := string(r.key(a.key))
	if len(r.paths(r.level().c, nil)) > most {
		return
	}
	want := r.keyError(c, name, folio.ErrBucketNameRequired)
	if c.buckets[name] != nil {
		want = folio.ErrBucketExists
	} else if c.pairs[name] != nil {
		want = folio.ErrIncompatibleValue
	}
	sub, err := b.CreateBucket([]byte(name))
	if !r.mustBe("create bucket", err, want) {
		return
	}
	c.buckets[name] = r.newBucket()
	r.setKey(c, name, true)
	for i := range a.n {
		r.put(sub, c.buckets[name], i*7&keyIndex, 0x400)
	}
}

// nameOf picks a bucket of c, where m is even and there is one, or any name.
func (r *opsRun) nameOf(c *contents, a *opArgs) string {
	if names := slices.Sorted(maps.Keys(c.buckets)); len(names) > 0 && a.m&1 == 0 {
		return names[a.n%len(names)]
	}
	return string(r.key(a.key))
}

// noBucket is the error where name is no bucket of c.
func noBucket(c *contents, name string) error {
	switch {
	case c.buckets[name] != nil:
		return nil
	case c.pairs[name] != nil:
		return folio.ErrIncompatibleValue
	}
	return folio.ErrBucketNotFound
}

func (r *opsRun) deleteBucket(a *opArgs) {
	b, c := r.bucket(a.bucket)
	name := r.nameOf(c, a)
	if r.mustBe("delete bucket", b.DeleteBucket([]byte(name)), noBucket(c, name)) {
		delete(c.buckets, name)
		r.setKey(c, name, false)
	}
}

func (r *opsRun) moveError(c, to *contents, name string) error {
	if err := noBucket(c, name); err != nil {
		return err
	}
	switch {
	case r.find(c.buckets[name], r.info[to].id) != nil:
		return folio.ErrIncompatibleValue // into itself
	case to.buckets[name] != nil:
		return folio.ErrBucketExists
	case to.pairs[name] != nil:
		return folio.ErrIncompatibleValue
	}
	return nil
}

func (r *opsRun) moveBucket(a *opArgs) {
	src, c := r.bucket(a.bucket)
	dst, to := r.bucket(a.other)
	name := r.nameOf(c, a)
	if r.mustBe("move bucket", r.level().tx.MoveBucket([]byte(name), src, dst), r.moveError(c, to, name)) {
		to.buckets[name] = c.buckets[name]
		r.setKey(to, name, true)
		delete(c.buckets, name)
		r.setKey(c, name, false)
	}
}

func (r *opsRun) sequence(a *opArgs) {
	b, c := r.bucket(a.bucket)
	if a.n >= 128 {
		c.sequence = uint64(a.n) << (a.n % 57)
		r.must("set sequence", b.SetSequence(c.sequence))
		return
	}
	c.sequence++
	if n, err := b.NextSequence(); err != nil || n != c.sequence {
		r.t.Fatalf("next sequence %d, %v; should be %d", n, err, c.sequence)
	}
}

// --- reading

// sameValue compares what a bucket has under a key: nil is a nested bucket.
func (r *opsRun) sameValue(c *contents, key string, v []byte) bool {
	want, isPair := c.pairs[key]
	return isPair == (v != nil) && bytes.Equal(v, want) && (isPair || c.buckets[key] != nil)
}

func (r *opsRun) probe(a *opArgs) {
	b, c := r.bucket(a.bucket)
	keys := r.info[c].keys
	for _, k := range [][]byte{r.key(a.key), r.key(a.key2)} {
		v, want := b.Get(k), c.pairs[string(k)]
		r.lend(v)
		if (v != nil) != (want != nil) || !bytes.Equal(v, want) {
			r.t.Fatalf("get %.60q: %d bytes, should be %d", k, len(v), len(want))
		}
		if (b.Bucket(k) != nil) != (c.buckets[string(k)] != nil) {
			r.t.Fatalf("bucket %.60q should be there: %t", k, c.buckets[string(k)] != nil)
		}
		i := r.below(c, string(k))
		if rank := b.Rank(k); rank != uint64(i) {
			r.t.Fatalf("rank %d of %.60q, should be %d", rank, k, i)
		}
		if i < len(keys) {
			if at, v := b.At(uint64(i)); string(at) != keys[i] || !r.sameValue(c, keys[i], v) {
				r.t.Fatalf("at %d: %.60q, should be %.60q", i, at, keys[i])
			}
		}
	}
	lo, hi := r.rangeOf(a)
	want := r.inside(c, lo, hi)
	if n := b.Count(lo, hi); n != uint64(len(want)) {
		r.t.Fatalf("count %d, should be %d", n, len(want))
	}
	i := 0
	for k := range b.Range(lo, hi) {
		if i == len(want) || string(k) != want[i] {
			r.t.Fatalf("key %d of a range is %.60q", i, k)
		}
		if i++; i == 300 {
			return
		}
	}
	if i != len(want) {
		r.t.Fatalf("%d keys in a range, should be %d", i, len(want))
	}
}

// compareBucket compares a bucket and all in it with what it should hold.
func (r *opsRun) compareBucket(b *folio.Bucket, c *contents) {
	r.t.Helper()
	keys := r.info[c].keys
	if b.Sequence() != c.sequence || b.Len() != uint64(len(keys)) {
		r.t.Fatalf("sequence %d, %d keys; should be %d, %d", b.Sequence(), b.Len(), c.sequence, len(keys))
	}
	i := 0
	for k, v := range b.All() {
		if i == len(keys) || string(k) != keys[i] || !r.sameValue(c, keys[i], v) {
			r.t.Fatalf("pair %d: %.60q, %d bytes", i, k, len(v))
		}
		i++
	}
	for k := range b.Backward() {
		if i--; i < 0 || string(k) != keys[i] {
			r.t.Fatalf("pair %d, backward: %.60q", i, k)
		}
	}
	if i != 0 {
		r.t.Fatalf("%d pairs are missing", i)
	}
	for name, sub := range c.buckets {
		nested := b.Bucket([]byte(name))
		if nested == nil {
			r.t.Fatalf("bucket %.60q is gone", name)
		}
		r.compareBucket(nested, sub)
	}
}

// compare compares all that the transaction sees or, outside of one, what new readers do.
func (r *opsRun) compare() {
	if len(r.levels) > 0 {
		r.compareBucket(r.level().tx.Root(), r.level().c)
		return
	}
	r.sync()
	r.must("view", r.db.View(func(tx *folio.Tx) error {
		r.compareBucket(tx.Root(), r.newest)
		return nil
	}))
}

// check checks the whole store, which can't be done inside a transaction.
func (r *opsRun) check() {
	if len(r.levels) > 0 {
		r.compare()
		return
	}
	r.must("check", sound(r.db))
}

// reader begins reader number n, or compares what it sees and ends it.
func (r *opsRun) reader(n int) {
	if r.readers[n] != nil {
		r.endReader(n)
		return
	}
	tx, err := r.db.Begin(false)
	r.must("begin", err)
	if tx.ID() < r.acked {
		r.t.Fatalf("a reader sees commit %d, but %d has been acknowledged", tx.ID(), r.acked)
	}
	r.readers[n] = tx
}

func (r *opsRun) endReader(n int) {
	tx := r.readers[n]
	r.readers[n] = nil
	r.compareBucket(tx.Root(), r.stateOf(tx))
	r.must("end of a reader", tx.Rollback())
}

// stateOf returns what a read transaction should see. Commits that change nothing are
// not in states, but may have a number.
func (r *opsRun) stateOf(tx *folio.Tx) *contents {
	id := tx.ID()
	for r.states[id] == nil {
		id--
	}
	return r.states[id]
}

func (r *opsRun) endReaders() {
	for n, tx := range r.readers {
		if tx != nil {
			r.endReader(n)
		}
	}
}

// --- cursors and handles

// Moves of a cursor.
const (
	moveFirst = iota
	moveLast
	moveNext
	moveNext2
	moveNext3
	movePrev
	moveSeek
	moveDelete
	numMoves
)

// move moves a cursor and compares where it gets. c is what its bucket should hold, nil
// where there is none. It reports whether the cursor is at a pair.
func (r *opsRun) move(cur *opsCursor, c *contents, how int, seek []byte) bool {
	r.t.Helper()
	if how == moveDelete {
		r.cursorDelete(cur, c)
		return cur.state == cursorAt
	}
	var k, v []byte
	switch how {
	case moveFirst:
		k, v = cur.c.First()
	case moveLast:
		k, v = cur.c.Last()
	case moveSeek:
		k, v = cur.c.Seek(seek)
	case movePrev:
		k, v = cur.c.Prev()
	default:
		k, v = cur.c.Next()
	}
	if cur.doubtful {
		return false
	}
	r.lend(k)
	r.lend(v)
	if c == nil {
		if k != nil {
			r.t.Fatalf("a cursor over a bucket that is gone gives %.60q", k)
		}
		return false
	}
	keys := r.info[c].keys
	i := r.indexAfter(cur, c, how, string(seek))
	cur.state, cur.key = cursorBefore, ""
	switch {
	case i >= len(keys):
		cur.state = cursorAfter
	case i >= 0 && i < len(keys):
		cur.state, cur.key = cursorAt, keys[i]
	}
	if cur.state == cursorAt && (string(k) != cur.key || !r.sameValue(c, cur.key, v)) || cur.state != cursorAt && k != nil {
		r.t.Fatalf("move %d of a cursor: %.60q, %d bytes; should be %.60q, %d bytes", how, k, len(v), cur.key, len(c.pairs[cur.key]))
	}
	return cur.state == cursorAt
}

// indexAfter returns the index of the key that a move leads to: -1 or len(keys) where there is none.
func (r *opsRun) indexAfter(cur *opsCursor, c *contents, how int, seek string) int {
	last := len(r.info[c].keys) - 1
	first := min(last, 0) // where there is none the cursor stays on the side where it looked
	switch how {
	case moveFirst:
		return first
	case moveLast:
		return max(last, 0)
	case moveSeek:
		return r.below(c, seek)
	case movePrev:
		switch cur.state {
		case cursorBefore:
			return -1
		case cursorAfter, cursorFresh:
			return max(last, 0)
		}
		return r.below(c, cur.key) - 1
	}
	switch cur.state {
	case cursorBefore, cursorFresh:
		return first
	case cursorAfter:
		return last + 1
	}
	return r.below(c, cur.key+"\x00")
}

func (r *opsRun) cursorDelete(cur *opsCursor, c *contents) {
	if cur.doubtful {
		return
	}
	want := error(nil)
	switch {
	case c == nil:
		want = folio.ErrBucketNotFound
	case cur.state == cursorAt && c.buckets[cur.key] != nil:
		want = folio.ErrIncompatibleValue
	}
	if r.mustBe("cursor delete", cur.c.Delete(), want) && cur.state == cursorAt {
		r.deletePair(c, cur.key)
	}
}

// newHandle opens bucket n in the transaction of a level.
func (r *opsRun) newHandle(level, n int) opsHandle {
	level %= len(r.levels)
	b, c := r.bucketOf(r.levels[level], n)
	return opsHandle{b: b, id: r.info[c].id, level: level, layer: len(r.levels) - 1}
}

func (r *opsRun) openHandle(a *opArgs) { r.handles[a.n%mostHandles] = r.newHandle(a.m, a.bucket) }

func (r *opsRun) openCursor(a *opArgs) {
	h := r.newHandle(len(r.levels)-1, a.bucket)
	r.cursors[a.n%mostCursors] = opsCursor{opsHandle: h, c: h.b.Cursor()}
}

// allHandles returns the handles that are open, those of cursors among them.
func (r *opsRun) allHandles() (all []*opsHandle) {
	for i := range r.handles {
		all = append(all, &r.handles[i])
	}
	for i := range r.cursors {
		all = append(all, &r.cursors[i].opsHandle)
	}
	return slices.DeleteFunc(all, func(h *opsHandle) bool { return h.b == nil })
}

// closeHandles is for the end of the transaction of a level: what was had from it is closed.
func (r *opsRun) closeHandles(level int) {
	for _, h := range r.allHandles() {
		if h.level < level {
			continue
		}
		if v := h.b.Get([]byte("a")); v != nil {
			r.t.Fatal("a handle of a transaction that has ended gives a value")
		}
		r.mustBe("put after the end", h.b.Put([]byte("a"), nil), folio.ErrTxClosed)
		h.b = nil
	}
}

// useHandle uses a bucket that was opened some time ago in the transaction.
func (r *opsRun) useHandle(a *opArgs) {
	h := &r.handles[a.n%mostHandles]
	if h.b == nil {
		*h = r.newHandle(0, a.n)
	}
	k := r.key(a.key)
	if h.doubtful { // what it gives is not said, but it gives something
		h.b.Get(k)
		h.b.Len()
		h.b.Cursor().First()
		return
	}
	c := r.find(r.level().c, h.id)
	if c == nil {
		if h.b.Get(k) != nil || h.b.Len() != 0 || h.b.Sequence() != 0 {
			r.t.Fatal("the handle of a bucket that is gone gives something")
		}
		r.mustBe("put into a bucket that is gone", h.b.Put([]byte("k"), nil), folio.ErrBucketNotFound)
		return
	}
	switch a.m % 4 {
	case 0:
		if v := h.b.Get(k); !bytes.Equal(v, c.pairs[string(k)]) {
			r.t.Fatalf("get %.60q: %d bytes, should be %d", k, len(v), len(c.pairs[string(k)]))
		}
	case 1:
		r.put(h.b, c, a.key, a.value)
	case 2:
		r.deleteKey(h.b, c, k)
	case 3:
		r.compareBucket(h.b, c)
	}
}

// stepCursor moves a cursor that was opened some time ago in the transaction.
func (r *opsRun) stepCursor(a *opArgs) {
	cur := &r.cursors[a.n%mostCursors]
	if cur.b == nil {
		h := r.newHandle(len(r.levels)-1, a.n)
		*cur = opsCursor{opsHandle: h, c: h.b.Cursor()}
	}
	c := r.find(r.level().c, cur.id)
	for range a.m/numMoves + 1 {
		r.move(cur, c, a.m%numMoves, r.key(a.key))
	}
}

// --- the store as a whole

func (r *opsRun) sync() {
	r.must("sync", r.db.Sync())
	r.acked = r.db.Stats().Newest
}

// wait waits for one of the commits that were not waited for.
func (r *opsRun) wait() {
	if n := len(r.waits); n > 0 {
		r.must("wait", r.waits[n-1]())
		r.waits = r.waits[:n-1]
	}
}

func (r *opsRun) reopen() {
	if len(r.levels) > 0 {
		r.compare()
		return
	}
	r.endReaders()
	r.close()
	r.open()
}

// mayCopy bounds the copies that a script makes.
func (r *opsRun) mayCopy() bool {
	r.ncopies++
	return r.ncopies <= 4
}

// kill looks at what another process would find if this one were killed now: all that
// was committed.
func (r *opsRun) kill() {
	if !r.mayCopy() {
		return
	}
	file, err := os.ReadFile(r.path)
	r.must("read the file", err)
	r.examineCopy(file, r.newest)
}

// backup makes a copy of what a new reader sees.
func (r *opsRun) backup() {
	if !r.mayCopy() {
		return
	}
	var w bytes.Buffer
	var c *contents
	r.must("view", r.db.View(func(tx *folio.Tx) error {
		c = r.stateOf(tx)
		_, err := tx.WriteTo(&w)
		return err
	}))
	r.examineCopy(w.Bytes(), c)
}

// examineCopy opens a copy of the store, compares it, and commits to it.
func (r *opsRun) examineCopy(file []byte, c *contents) {
	path := r.path + ".copy"
	if r.opts.InMemory {
		path = filepath.Join(scratchDir(r.t), "copy")
	}
	defer os.Remove(path)
	r.must("write a copy", os.WriteFile(path, file, 0o600))
	opts := r.opts
	opts.InMemory = false
	db, err := folio.Open(path, 0o600, &opts)
	r.must("open a copy", err)
	defer closeSoon(db)
	r.must("view of a copy", db.View(func(tx *folio.Tx) error { r.compareBucket(tx.Root(), c); return nil }))
	r.must("check of a copy", sound(db))
	r.must("commit to a copy", db.Update(func(tx *folio.Tx) error {
		if err := tx.Put([]byte(strings.Repeat("new", 300)), nil); err != nil {
			return fmt.Errorf("put: %w", err)
		}
		return nil
	}))
	r.must("check of a copy after a commit", sound(db))
	r.must("close of a copy", db.Close())
}
