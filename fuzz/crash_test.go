package fuzz

// crash_test.go makes images of what the disk could hold after a crash at every point
// of a recorded run, and opens each: it must show the state after some commit, never
// older than the last acknowledged as durable, be sound, and take new commits. The
// recovery, and the commits after it, are recorded too and crashed in the same way.

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	known   map[uint64]digest // what each of them shows
	after   script            // what is done on a recovered store, to be crashed again
	refuted *refutedCounter
}

func newCrasher(path string, opts folio.Options, rnd *rand.Rand) *crasher {
	return &crasher{path: path, opts: opts, rnd: rnd, known: map[uint64]digest{}}
}

// refutedCounter counts the whole metas that recoveries pass over, from the log.
type refutedCounter struct {
	slog.Handler
	n int
}

func (h *refutedCounter) Enabled(context.Context, slog.Level) bool { return true }

func (h *refutedCounter) Handle(_ context.Context, rec slog.Record) error {
	if strings.Contains(rec.Message, "passed over") {
		h.n++
	}
	return nil
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
		s.choices(p, func(ch choice) bool {
			buf = p.image(ch, buf)
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
	opts := c.opts
	if c.refuted != nil {
		opts.Logger = slog.New(c.refuted)
	}
	db, err := folio.Open(path, 0o600, &opts)
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
	readOnly := c.opts
	readOnly.ReadOnly = true
	db, err := folio.Open(path, 0, &readOnly)
	if err != nil {
		return 0, fmt.Errorf("open for reading only: %w", err)
	}
	d, err = digestNow(db)
	if err := errors.Join(err, db.Close()); err != nil {
		return 0, err
	}
	at, err := p.match(d, states)
	if err != nil {
		return 0, fmt.Errorf("opened for reading only: %w", err)
	}
	r := newRunner(path, c.opts, origin{img, states[at]})
	r.states = p.allowed(at, states)
	r.newest, r.begun = len(r.states)-1, len(r.states)-1
	r.scribe.version = 1 << 20
	r.tolerates = tolerateFull(c.opts)
	if err := r.record(c.after); err != nil {
		r.abandon()
		return 0, fmt.Errorf("after recovery: %w", err)
	}
	few := sampler{rnd: c.rnd, psize: r.psize(), maxAll: 4, nrandom: 2, sparse: true}
	if err := c.explore(img, r.rec.events, r.states, few, depth-1); err != nil {
		return 0, fmt.Errorf("a second crash: %w", err)
	}
	return d, nil
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
	depth   int // how often a recovery is crashed again
	// begin draws the store that the record begins with, and its first steps; nil for an
	// empty one.
	begin func(t *rapid.T, o *origins) (from origin, first script, err error)
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

// seal is a store whose next steps write freelog pages.
type seal struct {
	from  origin
	steps script
}

func (s seal) GoString() string { return fmt.Sprintf("seal before commit %v", s.steps) }

// after returns the store after a prologue.
func (o *origins) after(prologue script) (origin, error) {
	key := prologue.String()
	got, ok := o.made[key]
	if ok && len(prologue) > 0 { // an empty one is made in a moment, with a UUID of its own
		return got, nil
	}
	got, err := makeOrigin(o.path, o.opts, prologue)
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
		counted.add(r.rec.events, 0, r.psize())
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

// add counts the events of a record on a file that had size bytes.
func (c *coverage) add(events []event, size int64, psize int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range events {
		switch e.kind {
		case evSize:
			if e.size < size {
				c.n["truncations"]++
			} else {
				c.n["growths"]++
			}
			size = e.size
		case evSyncEnd:
			c.n["syncs"]++
		case evWrite:
			c.addWrite(e, psize)
		}
	}
}

func (c *coverage) addWrite(e event, psize int) {
	l := layout()
	c.n["writes"]++
	for at := 0; at+psize <= len(e.data); at += psize {
		switch {
		case e.off+int64(at) < int64(numMetas*psize):
			c.n["metas"]++
		case e.data[at+l.kind] == l.freelog:
			c.n["freelog pages"]++
		case e.data[at+l.kind] == l.run:
			c.n["runs"]++
		}
	}
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
	for _, what := range []string{"truncations", "growths", "syncs", "metas", "freelog pages", "runs"} {
		if round.coverage.n[what] == 0 {
			t.Errorf("no run had %s", what)
		}
	}
}

// runCase runs scripts until the budget of images is spent.
func (round *crashRound) runCase(t *testing.T, c crashCase, budget int) {
	dir := scratchDir(t)
	o := &origins{path: filepath.Join(dir, "origin"), opts: c.opts, made: map[string]origin{}}
	nimages := spend(t, budget, func(rt *rapid.T) (int, error) {
		return round.runScript(rt, c, o, filepath.Join(dir, "store"))
	})
	round.mu.Lock()
	defer round.mu.Unlock()
	round.nimages += nimages
}

// runScript draws a script, runs it, and crashes it everywhere.
func (round *crashRound) runScript(rt *rapid.T, c crashCase, o *origins, path string) (nimages int, err error) {
	begin := c.begin
	if begin == nil {
		begin = empty
	}
	from, first, err := begin(rt, o)
	if err != nil {
		return 0, err
	}
	// Every subset of up to 10 units where the script is one in four; rather more scripts
	// than more of each.
	maxAll := rapid.SampledFrom([]int{4, 4, 4, 10}).Draw(rt, "all subsets up to")
	s := slices.Concat(first, c.profile.script().Draw(rt, "script"))
	cr := newCrasher(path+".image", c.opts, rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "images"), 0)))
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
	round.coverage.add(r.rec.events, int64(len(from.image)), r.psize())
	if c.opts.TwoPhase {
		cr.refuted = &refutedCounter{Handler: slog.DiscardHandler}
	}
	err = cr.explore(from.image, r.rec.events, r.states, sampler{rnd: cr.rnd, psize: r.psize(), maxAll: maxAll, nrandom: 10}, c.depth)
	if err == nil && cr.refuted != nil && cr.refuted.n > 0 {
		err = fmt.Errorf("%d metas were on the disk before the pages of their commits", cr.refuted.n)
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
