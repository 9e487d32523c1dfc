package fuzz

// crash_test.go makes images of what the disk could hold after a crash at every point
// of a recorded run, and opens each: it must show the state after some commit, never
// older than the last acknowledged as durable, be sound, and take new commits. The
// recovery, with what it replays, and the commits after it are recorded too and crashed in
// the same way.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/foliokv/folio"
	"github.com/foliokv/folio/internal/mmap"
	"pgregory.net/rapid"
)

// crasher opens crash images of one run and counts them.
type crasher struct {
	path    string
	opts    folio.Options
	rnd     *rand.Rand
	nimages int               // distinct images opened
	most    int               // that are made with care: of what comes then there are few
	known   map[uint64]digest // what each of them shows
	after   script            // what is done on a recovered store, to be crashed again
	records map[int64]bool    // where in the file the run wrote redo records
	seen    recoveries
}

// newCrasher returns a crasher of runs with opts, of which it takes the logger.
func newCrasher(path string, opts folio.Options, rnd *rand.Rand) *crasher {
	c := &crasher{path: path, opts: opts, rnd: rnd, most: math.MaxInt, known: map[uint64]digest{}}
	c.seen.Handler = slog.DiscardHandler
	c.opts.Logger = slog.New(&c.seen)
	return c
}

// recoveries counts what recoveries do, from the log, and what the images had lost.
type recoveries struct {
	slog.Handler
	refuted  int // whole metas that are passed over
	replays  int // of the redo log
	replayed int // records
	lost     int // records, as a whole
	torn     int
	again    int // replays that were crashed again
	readOnly int // replays into memory
}

func (h *recoveries) Enabled(context.Context, slog.Level) bool { return true }

func (h *recoveries) Handle(_ context.Context, rec slog.Record) error {
	switch {
	case strings.Contains(rec.Message, "passed over"):
		h.refuted++
	case strings.Contains(rec.Message, "recovered from the redo log"):
		h.replays++
		rec.Attrs(func(a slog.Attr) bool {
			if a.Key == "records" {
				h.replayed += int(a.Value.Int64())
			}
			return true
		})
	}
	return nil
}

// count counts the records that are lost or torn in an image.
func (h *recoveries) count(p *crashPoint, c choice, records map[int64]bool) {
	for i, u := range p.pending {
		if u.data == nil || !records[u.off] {
			continue
		}
		switch c.kept[i] {
		case wholeUnit:
		case 0:
			h.lost++
		default:
			h.torn++
		}
	}
}

// violation is a promise that was broken, with the image that shows it.
type violation struct {
	image []byte
	err   error
}

func (v *violation) Error() string { return v.err.Error() }
func (v *violation) Unwrap() error { return v.err }

// explore makes the images of a record and verifies each. depth is how many times the
// recoveries may be crashed again.
func (c *crasher) explore(initial []byte, events []event, states []commitState, s sampler, depth int) (err error) {
	var buf []byte
	points(initial, events, func(p *crashPoint) {
		if err != nil {
			return
		}
		s.hurried = c.nimages > c.most
		s.choices(p, func(ch choice) bool {
			buf = p.image(ch, buf)
			c.seen.count(p, ch, c.records)
			if verr := c.verify(buf, p, states, depth); verr != nil {
				err = &violation{image: append([]byte(nil), buf...), err: fmt.Errorf("crash after event %d of %d, %d units pending, kept %x, %d of %d changes of size: %w",
					p.index, len(events), len(p.pending), ch.kept, ch.nsizes, p.sizes(), verr)}
			}
			return err == nil
		})
	})
	return err
}

// crashAgainEvery is how many images there are for one whose recovery is crashed too,
// which makes some fifty more.
const crashAgainEvery = 50

// verify checks an image; one that was seen before is not opened again.
func (c *crasher) verify(img []byte, p *crashPoint, states []commitState, depth int) (err error) {
	key := xxhash.Sum64(img)
	d, seen := c.known[key]
	if !seen {
		c.nimages++
		path := c.path + fmt.Sprint(depth)
		if err := os.WriteFile(path, img, 0o600); err != nil {
			return err
		}
		if depth > 0 && c.nimages%crashAgainEvery == 0 {
			d, err = c.openAgainAndAgain(path, img, p, states, depth)
		} else {
			d, err = c.openOnce(path)
		}
		if err != nil {
			return err
		}
		c.known[key] = d
	}
	_, err = p.match(d, states)
	return err
}

// match returns which commit a digest is the state of, if a crash at p may leave it.
func (p *crashPoint) match(d digest, states []commitState) (int, error) {
	for i := p.begun; i >= p.acked; i-- {
		if states[i].digest == d && !p.failed[i] {
			return i, nil
		}
	}
	for i := range states {
		if states[i].digest == d {
			return 0, fmt.Errorf("the store shows commit %d; %d was durable, %d begun, failed %v", i, p.acked, p.begun, p.failed)
		}
	}
	return 0, errors.New("the store shows a state that never was")
}

// allowed returns the states that a crash at p may leave, that of commit at last: until
// a recovery is done, another crash may still show each of them.
func (p *crashPoint) allowed(at int, states []commitState) (allowed []commitState) {
	for i := p.acked; i <= p.begun; i++ {
		if i != at && !p.failed[i] {
			allowed = append(allowed, states[i])
		}
	}
	return append(allowed, states[at])
}

// openOnce opens a crash image, checks it, commits, and checks again.
func (c *crasher) openOnce(path string) (d digest, err error) {
	db, err := folio.Open(path, 0o600, &c.opts)
	if err != nil {
		return 0, fmt.Errorf("open: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if d, err = digestNow(db); err != nil {
		return 0, err
	}
	if err := sound(db); err != nil {
		return 0, err
	}
	return d, c.commitAfter(db)
}

// commitAfter does the first commit after a recovery; a store that is full may refuse.
func (c *crasher) commitAfter(db *folio.DB) error {
	err := db.Update(func(tx *folio.Tx) error { return tx.Put([]byte("after"), []byte("the crash")) })
	if errors.Is(err, folio.ErrMaxSize) && c.opts.MaxSize > 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("commit after recovery: %w", err)
	}
	if err := sound(db); err != nil {
		return fmt.Errorf("after a commit: %w", err)
	}
	return nil
}

// openAgainAndAgain opens an image first for reading only, and then under the hook, goes
// on with a few steps, and crashes all of that.
func (c *crasher) openAgainAndAgain(path string, img []byte, p *crashPoint, states []commitState, depth int) (d digest, err error) {
	nreplays := c.seen.replays
	d, err = c.openReadOnly(path, img)
	if err != nil {
		return 0, fmt.Errorf("open for reading only: %w", err)
	}
	c.seen.readOnly += c.seen.replays - nreplays
	at, err := p.match(d, states)
	if err != nil {
		return 0, fmt.Errorf("opened for reading only: %w", err)
	}
	nreplays = c.seen.replays
	r := newRunner(path, c.opts, origin{img, states[at]})
	r.states = p.allowed(at, states)
	r.newest, r.begun = len(r.states)-1, len(r.states)-1
	r.scribe.version = 1 << 20
	r.tolerates = tolerateFull(c.opts)
	if err := r.record(c.after); err != nil {
		r.abandon()
		return 0, fmt.Errorf("after recovery: %w", err)
	}
	c.seen.again += c.seen.replays - nreplays
	few := sampler{rnd: c.rnd, psize: r.psize(), maxAll: 4, nrandom: 2, sparse: true}
	if err := c.explore(img, r.rec.events, r.states, few, depth-1); err != nil {
		return 0, fmt.Errorf("a second crash: %w", err)
	}
	return d, nil
}

// openReadOnly returns what an image shows that is opened for reading only, which leaves
// the file as it is.
func (c *crasher) openReadOnly(path string, img []byte) (d digest, err error) {
	opts := c.opts
	opts.ReadOnly = true
	db, err := folio.Open(path, 0, &opts)
	if err != nil {
		return 0, err
	}
	d, err = digestNow(db)
	if err := errors.Join(err, db.Close()); err != nil {
		return 0, err
	}
	now, err := os.ReadFile(path)
	if err == nil && !bytes.Equal(now, img) {
		err = errors.New("the file was changed")
	}
	return d, err
}

func tolerateFull(opts folio.Options) func(error) bool {
	if opts.MaxSize == 0 {
		return nil
	}
	return func(err error) bool { return errors.Is(err, folio.ErrMaxSize) }
}

// --- the test

// crashCase is one way of using a store.
type crashCase struct {
	name    string
	opts    folio.Options
	profile profile
	depth   int  // how often a recovery is crashed again
	sparse  bool // of most scripts few images are made: many scripts say more
	// begin draws the store that the record begins with, and its first steps; nil for an
	// empty one.
	begin func(t *rapid.T, o *origins) (from origin, first script, err error)
}

// sampler draws how many images are made of a script: every subset of up to 10 units where
// that is one in four; rather more scripts than more of each.
func (c *crashCase) sampler(t *rapid.T) sampler {
	thorough := rapid.SampledFrom([]bool{false, false, false, true}).Draw(t, "thorough")
	switch {
	case c.sparse && thorough:
		return sampler{maxAll: 6, nrandom: 2, sparse: true}
	case c.sparse:
		return sampler{maxAll: 2, nrandom: 2, sparse: true}
	case thorough:
		return sampler{maxAll: 10, nrandom: 10}
	}
	return sampler{maxAll: 4, nrandom: 10}
}

// afterRecovery says what is done on a recovered store before it is crashed again.
func (c *crashCase) afterRecovery() *profile {
	steps := []stepKind{stepCommit, stepCommit, stepSync, stepAsync}
	if c.opts.TwoPhase {
		steps = phaseSteps
	}
	return &profile{3, everyOp, steps, smallSizes, []int{1, 4}}
}

var (
	fullSteps  = []stepKind{stepCommit, stepCommit, stepCommit, stepRollback, stepAsync, stepAsyncWait, stepTick, stepSync, stepReopen, stepKill, stepReader}
	lazySteps  = []stepKind{stepCommit, stepCommit, stepCommit, stepCommit, stepRollback, stepAsync, stepAsyncWait, stepTick, stepTick, stepSync, stepReopen, stepKill, stepKill, stepReader}
	phaseSteps = []stepKind{stepCommit, stepCommit, stepCommit, stepRollback, stepReopen, stepKill, stepReader}
	fewKeys    = []int{1, 1, 2, 5, 30}

	// What is logged: little, of which some is in runs that a record has by reference.
	loggedSteps = []stepKind{stepCommit, stepCommit, stepCommit, stepRollback, stepAsync, stepAsync, stepAsyncWait, stepTick, stepTick, stepSync, stepReopen, stepKill, stepReader}
	loggedOps   = []opKind{opPut, opPut, opPut, opPut, opPut, opPut, opDelete, opDeleteRange, opMoveBucket, opDeleteBucket, opSequence, opNested}
	loggedSizes = []int{0, 10, 100, 300, 1000, 3000, 66_000}
)

var crashCases = []crashCase{
	{name: "full", profile: profile{10, everyOp, fullSteps, mixedSizes, fewKeys}, depth: 2},
	{name: "two phase", opts: folio.Options{TwoPhase: true}, profile: profile{8, everyOp, phaseSteps, mixedSizes, fewKeys}, depth: 1},
	{name: "off", opts: folio.Options{Sync: folio.SyncOff}, profile: profile{10, everyOp, lazySteps, smallSizes, fewKeys}, depth: 2},
	// SyncInterval's own syncs come as stepTick, so that a script says when.
	{name: "interval", opts: folio.Options{Sync: folio.SyncInterval, SyncEvery: time.Hour}, profile: profile{10, everyOp, lazySteps, smallSizes, fewKeys}, depth: 1},
	{name: "spilling", opts: folio.Options{DirtyLimit: 16 << 10}, profile: profile{6, everyOp, fullSteps, mixedSizes, []int{1, 5, 100}}, depth: 1},
	{name: "spilling, off, large pages", opts: folio.Options{Sync: folio.SyncOff, DirtyLimit: 32 << 10, PageSize: 8192}, profile: profile{6, everyOp, lazySteps, mixedSizes, []int{1, 5, 100}}, depth: 1},
	{name: "freelog", profile: profile{12, []opKind{opPut, opPut, opDelete}, fullSteps, smallSizes, []int{1, 2}}, begin: sealing, depth: 1},
	{name: "freelog, off", opts: folio.Options{Sync: folio.SyncOff}, profile: profile{12, []opKind{opPut, opPut, opDelete}, lazySteps, smallSizes, []int{1, 2}}, begin: sealing, depth: 1},
	{name: "shrinking", profile: profile{6, []opKind{opPut, opDeleteRange, opDeleteBucket}, fullSteps, smallSizes, fewKeys}, begin: emptied, depth: 1},
	{name: "shrinking, off", opts: folio.Options{Sync: folio.SyncOff}, profile: profile{6, []opKind{opPut, opDeleteRange, opDeleteBucket}, lazySteps, smallSizes, fewKeys}, begin: emptied, depth: 1},
	{name: "logged", profile: profile{12, loggedOps, loggedSteps, loggedSizes, []int{1, 1, 2, 5}}, begin: logged, depth: 2, sparse: true},
	{name: "logged, wrapping", profile: profile{1, loggedOps, loggedSteps, smallSizes, []int{1}}, begin: wrapping, depth: 1, sparse: true},
	{name: "logged, filling", profile: profile{2, loggedOps, loggedSteps, smallSizes, []int{1}}, begin: overfilling, depth: 0, sparse: true},
	{name: "logged, shrinking", profile: profile{8, []opKind{opPut, opPut, opDeleteRange, opDeleteBucket}, loggedSteps, smallSizes, fewKeys}, begin: loggedAndEmptied, depth: 1, sparse: true},
	{name: "almost full", opts: folio.Options{MaxSize: 160 << 10}, profile: profile{10, everyOp, fullSteps, mixedSizes, []int{1, 5, 100}}, depth: 1},
}

// empty begins with a new store.
func empty(_ *rapid.T, o *origins) (from origin, first script, err error) {
	from, err = o.after(nil)
	return from, nil, err
}

// emptied begins with a store most of which is free, so that its end is given back.
func emptied(t *rapid.T, o *origins) (from origin, first script, err error) {
	n := rapid.SampledFrom([]int{150, 300, 380}).Draw(t, "keys before")
	from, err = o.after(script{
		{kind: stepCommit, ops: []op{{kind: opPut, n: 20, step: 1, nbytes: 100}}},
		{kind: stepCommit, ops: []op{{kind: opPut, bucket: 1, n: n, step: 1, nbytes: 1900}}},
		{kind: stepCommit, ops: []op{{kind: opDeleteBucket, bucket: 1}}},
	})
	return from, nil, err
}

// loggedAndEmptied is emptied with a redo log behind what is free, which the first commit
// gives up; after a kill it is the first one after a checkpoint.
func loggedAndEmptied(t *rapid.T, o *origins) (from origin, first script, err error) {
	n := rapid.SampledFrom([]int{60, 80}).Draw(t, "keys before")
	killed := rapid.Bool().Draw(t, "killed")
	from, err = o.logged(script{
		{kind: stepCommit, ops: []op{{kind: opPut, n: 20, step: 1, nbytes: 100}}},
		{kind: stepCommit, ops: []op{{kind: opPut, bucket: 1, n: n, step: 1, nbytes: 20_000}}},
		putting(stepCommit, 1, 100),
		{kind: stepCommit, ops: []op{{kind: opDeleteBucket, bucket: 1}}},
	}, killed)
	first = script{putting(stepCommit, 3, 100)}
	if killed {
		first = append(first, step{kind: stepSync}, putting(stepCommit, 4, 100))
	}
	return from, first, err
}

// logged begins with a redo log of a segment or more that is nearly full, and with free
// pages for runs, and goes on with a few commits that fill it. Where the process before
// was killed, the log is replayed.
func logged(t *rapid.T, o *origins) (from origin, first script, err error) {
	killed := rapid.SampledFrom([]bool{false, false, false, true}).Draw(t, "killed")
	n := rapid.SampledFrom([]int{2, 13, 14, 15, 16, 30, 31, 32}).Draw(t, "records before")
	nsmall := rapid.IntRange(0, 7).Draw(t, "small records before")
	if from, err = o.logged(filling(n, nsmall), killed); err != nil {
		return from, nil, err
	}
	few := profile{4, []opKind{opPut}, []stepKind{stepCommit, stepCommit, stepAsync}, []int{10, 300, 66_000}, []int{1, 2}}
	return from, few.script().Draw(t, "first"), nil
}

// filling makes a store with a redo log of n records of a block, of which a segment holds
// 16, and nsmall of a sector, an eighth of that; and with free pages for runs.
func filling(n, nsmall int) script {
	s := script{{kind: stepCommit, ops: []op{{kind: opPut, n: numKeys, step: 1, nbytes: 500}}}}
	for i := range n {
		s = append(s, step{kind: stepCommit, ops: []op{{kind: opPut, key: i * 37 % numKeys, n: 7, step: 1, nbytes: 500}}})
	}
	for i := range nsmall {
		s = append(s, putting(stepCommit, i*41%numKeys, 300))
	}
	return append(s,
		step{kind: stepCommit, ops: []op{{kind: opPut, bucket: 1, n: 3, step: 1, nbytes: 66_000}}}, step{kind: stepSync},
		step{kind: stepCommit, ops: []op{{kind: opDelete, bucket: 1, n: 3, step: 1}}}, step{kind: stepSync},
	)
}

// putting is a step that puts one pair.
func putting(kind stepKind, key, nbytes int) step {
	return step{kind: kind, ops: []op{{kind: opPut, key: key, n: 1, step: 1, nbytes: nbytes}}}
}

// wrapping surely has what logged has by chance: the second segment's end, the first one
// written again, a record that names a run which is freed, and its pages used again;
// commits beside a checkpoint; a kill; a commit without a record, and one that might have one.
func wrapping(_ *rapid.T, o *origins) (from origin, first script, err error) {
	from, err = o.logged(filling(32, 12), false)
	beside := putting(stepTick, 120, 100)
	beside.ops = append(beside.ops, op{kind: opPut, key: 200, n: 1, step: 1, nbytes: 300})
	return from, script{
		putting(stepCommit, 1, 300), putting(stepCommit, 100, 66_000), putting(stepAsync, 200, 10),
		putting(stepCommit, 100, 66_000), putting(stepCommit, 100, 66_000), putting(stepCommit, 7, 300), beside,
		{kind: stepKill}, putting(stepCommit, 50, 300), putting(stepAsyncWait, 51, 66_000),
		{kind: stepAsync, ops: []op{{kind: opPut, key: 60, n: 4, step: 1, nbytes: 20_000}}}, putting(stepCommit, 52, 300),
	}, err
}

// overfilling begins with a log of one segment that has some room, and fills it without a
// checkpoint, until a record finds no place.
func overfilling(_ *rapid.T, o *origins) (from origin, first script, err error) {
	from, err = o.logged(filling(2, 0), false)
	for i := range 9 { // of two blocks each
		first = append(first, step{kind: stepCommit, ops: []op{{kind: opPut, key: 11 * i, n: 8, step: 37, nbytes: 900}}})
	}
	return from, first, err
}

// sealing begins shortly before a commit that writes freelog pages, be it that the tail
// is sealed or that a piece of a snapshot is written, and goes on a little after it.
func sealing(t *rapid.T, o *origins) (from origin, first script, err error) {
	if o.seals == nil {
		if err := o.findSeals(manyCommits()); err != nil {
			return from, nil, err
		}
	}
	at := rapid.SampledFrom(o.seals).Draw(t, "freelog page")
	return at.from, at.steps[:rapid.IntRange(1, len(at.steps)).Draw(t, "steps of it")], nil
}

// manyCommits fragments a store, so that its freelog grows and is written anew.
func manyCommits() script {
	s := script{{kind: stepCommit, ops: []op{{kind: opPut, n: numKeys, step: 1, nbytes: 300}}}}
	for i := range 900 {
		s = append(s, step{kind: stepCommit, ops: []op{{kind: opPut, key: i * 7919 % numKeys, n: 1 + i%17, step: 53, nbytes: 100 + i%7*50}}})
		if i%10 == 9 {
			s = append(s, step{kind: stepSync})
		}
	}
	return s
}

// origins makes the stores that a case's records begin with, each once.
type origins struct {
	path  string
	opts  folio.Options
	made  map[string]origin
	seals []seal
}

func newOrigins(dir string, opts folio.Options) *origins {
	return &origins{path: filepath.Join(dir, "origin"), opts: opts, made: map[string]origin{}}
}

// seal is a store whose next steps write freelog pages.
type seal struct {
	from  origin
	steps script
}

func (s seal) GoString() string { return fmt.Sprintf("seal before commit %v", s.steps) }

// after returns the store after a prologue without syncs.
func (o *origins) after(prologue script) (origin, error) {
	opts := o.opts
	opts.Sync = folio.SyncOff
	return o.make(opts, prologue, false)
}

// logged returns the store after a prologue that is logged.
func (o *origins) logged(prologue script, killed bool) (origin, error) {
	return o.make(o.opts, prologue, killed)
}

func (o *origins) make(opts folio.Options, prologue script, killed bool) (origin, error) {
	key := fmt.Sprint(killed, prologue)
	got, ok := o.made[key]
	if ok && len(prologue) > 0 { // an empty one is made in a moment, with a UUID of its own
		return got, nil
	}
	got, err := makeOrigin(o.path, opts, prologue, killed)
	o.made[key] = got
	return got, err
}

// findSeals runs s and keeps what the file holds a step or two before each freelog page
// is written: as a process leaves it that is killed then.
func (o *origins) findSeals(s script) error {
	const stepsAfter = 5
	r := newRunner(o.path, o.opts, origin{state: emptyState()})
	r.opts.Sync = folio.SyncOff
	defer mmap.Intercept(r.path, r.rec)()
	defer os.Remove(r.path)
	if err := r.open(); err != nil {
		return err
	}
	defer r.abandon()
	counted := coverage{n: map[string]int{}}
	var before []origin
	last := -1 // the step that wrote a freelog page before
	for i, st := range s {
		image, err := os.ReadFile(o.path)
		if err != nil {
			return err
		}
		before = append(before[max(len(before)-2, 0):], origin{image, r.states[r.newest]})
		nseals := counted.n["freelog pages"]
		r.rec.events = nil
		if err := r.step(st); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
		counted.add(nil, r.rec.events, r.psize())
		if counted.n["freelog pages"] == nseals {
			continue
		}
		times := 1
		if last == i-1 {
			times = 4 // a snapshot, most likely: they are few
		}
		last = i
		for j, from := range before {
			first := i - len(before) + 1 + j
			at := seal{from, s[first:min(i+stepsAfter, len(s))]}
			o.seals = append(o.seals, slices.Repeat([]seal{at}, times)...)
		}
	}
	return nil
}

// coverage counts what the crash images of a round had pending.
type coverage struct {
	mu sync.Mutex
	n  map[string]int
}

// add counts the events of a record on a file, and returns where it wrote redo records.
func (c *coverage) add(file []byte, events []event, psize int) (records map[int64]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	size := int64(len(file))
	redo := newRedoWatch(file, psize)
	records = map[int64]bool{}
	for _, e := range events {
		switch e.kind {
		case evSize:
			if e.size < size {
				c.n["truncations"]++
			} else {
				c.n["growths"]++
			}
			size = e.size
		case evSyncBegin:
			if e.nbytes > 0 {
				c.n["range syncs"]++
			}
		case evSyncEnd:
			c.n["syncs"]++
		case evWrite:
			if rec, segment := redo.record(e); rec != nil {
				records[e.off] = true
				c.addRecord(redo, rec, segment, e.off)
				continue
			}
			c.addWrite(e, psize, redo)
		}
	}
	return records
}

// addRecord counts a redo record.
func (c *coverage) addRecord(redo *redoWatch, rec []byte, segment int, off int64) {
	l := redoLayout()
	c.n["redo records"]++
	if segment > 0 {
		c.n["redo records in later segments"]++
	}
	isFirst := le.Uint64(rec[l.prev:]) == redo.salt
	if at := redo.segments[segment].off; at == off && !isFirst && !redo.fresh[at] {
		c.n["segments written again"]++
	}
	redo.fresh[redo.segments[segment].off] = false
	for _, change := range redoChanges(rec) {
		if change.kind == l.putRun {
			c.n["runs named by records"]++
		}
	}
}

func (c *coverage) addWrite(e event, psize int, redo *redoWatch) {
	l := layout()
	c.n["writes"]++
	for at := 0; at+psize <= len(e.data); at += psize {
		switch {
		case e.off+int64(at) < int64(numMetas*psize):
			c.n["metas"]++
			c.addMeta(e.data[at:at+psize], redo)
		case e.data[at+l.kind] == l.freelog:
			c.n["freelog pages"]++
		case e.data[at+l.kind] == l.run:
			c.n["runs"]++
		}
	}
}

func (c *coverage) addMeta(p []byte, redo *redoWatch) {
	if !isMetaPage(p) {
		return // it is wiped
	}
	grown, dropped := redo.meta(p)
	if grown {
		c.n["redo log segments added"]++
	}
	if dropped {
		c.n["redo logs given up"]++
	}
}

// addRecoveries counts what recoveries have done.
func (c *coverage) addRecoveries(h *recoveries) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n["replays"] += h.replays
	c.n["records replayed"] += h.replayed
	c.n["records lost"] += h.lost
	c.n["records torn"] += h.torn
	c.n["replays crashed again"] += h.again
	c.n["replays into memory"] += h.readOnly
}

// covered is what the runs of a round must have had.
var covered = []string{
	"truncations", "growths", "syncs", "metas", "freelog pages", "runs",
	"range syncs", "redo records", "redo records in later segments", "segments written again",
	"runs named by records", "redo log segments added", "redo logs given up",
	"replays", "records replayed", "records lost", "records torn", "replays crashed again", "replays into memory",
}

// crashRound is what all cases share.
type crashRound struct {
	coverage coverage
	mu       sync.Mutex
	nimages  int
}

// TestCrash opens as many distinct crash images as FOLIO_IMAGES says. rapid draws the
// scripts, shrinks one that fails, prints it and keeps it in a file that repeats it.
func TestCrash(t *testing.T) {
	budget := 6000
	if testing.Short() {
		budget = 1500
	}
	budget = intEnv(t, "FOLIO_IMAGES", budget)
	round := &crashRound{coverage: coverage{n: map[string]int{}}}
	ncases := 0
	t.Run("cases", func(t *testing.T) {
		for _, c := range crashCases {
			t.Run(c.name, func(t *testing.T) {
				ncases++
				t.Parallel()
				round.runCase(t, c, budget/len(crashCases))
			})
		}
	})
	t.Logf("%d distinct crash images opened; the runs had %v", round.nimages, round.coverage.n)
	if ncases < len(crashCases) || testing.Short() {
		return // some were not asked for
	}
	for _, what := range covered {
		if round.coverage.n[what] == 0 {
			t.Errorf("no run had %s", what)
		}
	}
}

// runCase runs scripts until the budget of images is spent.
func (round *crashRound) runCase(t *testing.T, c crashCase, budget int) {
	dir := scratchDir(t)
	o := newOrigins(dir, c.opts)
	nimages := spend(t, budget, func(rt *rapid.T) (int, error) {
		return round.runScript(rt, c, o, filepath.Join(dir, "store"), max(budget, 400))
	})
	t.Logf("%d distinct crash images", nimages)
	round.mu.Lock()
	defer round.mu.Unlock()
	round.nimages += nimages
}

// runScript draws a script, runs it, and crashes it everywhere. most keeps one script from
// taking the time of many others.
func (round *crashRound) runScript(rt *rapid.T, c crashCase, o *origins, path string, most int) (nimages int, err error) {
	begin := c.begin
	if begin == nil {
		begin = empty
	}
	from, first, err := begin(rt, o)
	if err != nil {
		return 0, err
	}
	sam := c.sampler(rt)
	s := slices.Concat(first, c.profile.script().Draw(rt, "script"))
	sam.rnd = rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "images"), 0))
	cr := newCrasher(path+".image", c.opts, sam.rnd)
	cr.after = c.afterRecovery().script().Draw(rt, "after recovery")
	if err := os.WriteFile(path, from.image, 0o600); err != nil {
		return 0, err
	}
	defer os.Remove(path)
	r := newRunner(path, c.opts, from)
	r.tolerates = tolerateFull(c.opts)
	if err := r.record(s); err != nil {
		r.abandon()
		return 0, err
	}
	cr.most = most
	cr.records = round.coverage.add(from.image, r.rec.events, r.psize())
	sam.psize = r.psize()
	err = cr.explore(from.image, r.rec.events, r.states, sam, c.depth)
	round.coverage.addRecoveries(&cr.seen)
	if err == nil && c.opts.TwoPhase && cr.seen.refuted > 0 {
		err = fmt.Errorf("%d metas were on the disk before the pages of their commits", cr.seen.refuted)
	}
	if v := (*violation)(nil); errors.As(err, &v) {
		keep := filepath.Join(os.TempDir(), "folio-crash-image.folio")
		os.WriteFile(keep, v.image, 0o600)
		err = fmt.Errorf("%w (the image is kept as %s)", err, keep)
	}
	return cr.nimages, err
}

// abandon closes what a run that failed left open, as best it can.
func (r *runner) abandon() {
	r.dropReader()
	if r.db != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		r.db.CloseContext(ctx)
	}
}
