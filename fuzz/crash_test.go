package fuzz

// crash_test.go runs random transactions against a recorded store, makes images of
// what the disk could hold after a crash at every point of the record, and opens each:
// it must show the state after some commit, never older than the last acknowledged as
// durable, be sound, and take new commits.

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/foliokv/folio"
	"github.com/foliokv/folio/internal/mmap"
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

// run is a recorded run of random transactions.
type run struct {
	t      *testing.T
	rnd    *rand.Rand
	opts   folio.Options
	rec    *recorder
	db     *folio.DB
	states []string // what a digest of the store is after commit i
	begun  int
	acked  int
}

// digest is a fingerprint of all that a transaction sees.
func digest(b *folio.Bucket) string {
	h := fnv.New128a()
	var add func(b *folio.Bucket)
	add = func(b *folio.Bucket) {
		fmt.Fprintf(h, "{%d ", b.Sequence())
		for k, v := range b.All() {
			fmt.Fprintf(h, "%d:%s%d:%s", len(k), k, len(v), v)
			if v == nil {
				add(b.Bucket(k))
			}
		}
		h.Write([]byte("}"))
	}
	add(b)
	return fmt.Sprintf("%x", h.Sum(nil))
}

func (r *run) fatal(err error, what string) {
	if err != nil {
		r.t.Helper()
		r.t.Fatalf("%s: %v", what, err)
	}
}

// change does a few random writes.
func (r *run) change(tx *folio.Tx) {
	b, err := tx.CreateBucketIfNotExists(fmt.Appendf(nil, "bucket %d", r.rnd.IntN(3)))
	r.fatal(err, "bucket")
	if r.rnd.IntN(3) == 0 {
		b = tx.Root()
	}
	switch r.rnd.IntN(8) {
	case 0, 1, 2:
		for range 1 + r.rnd.IntN(3) {
			r.fatal(b.Put(fmt.Appendf(nil, "k%03d", r.rnd.IntN(300)), make([]byte, r.rnd.IntN(300))), "put")
		}
	case 3:
		for range r.rnd.IntN(200) {
			r.fatal(b.Put(fmt.Appendf(nil, "k%03d", r.rnd.IntN(300)), fmt.Append(nil, r.rnd.Uint64())), "put")
		}
	case 4:
		r.fatal(b.Put(fmt.Appendf(nil, "large%d", r.rnd.IntN(4)), make([]byte, r.rnd.IntN(20_000))), "put")
	case 5:
		if b != tx.Root() {
			_, err := b.DeleteRange(fmt.Appendf(nil, "k%03d", r.rnd.IntN(300)), nil)
			r.fatal(err, "delete range")
		}
	case 6:
		tx.Nested(func(tx *folio.Tx) error { r.change(tx); return errors.New("undo") })
		_, err := b.NextSequence()
		r.fatal(err, "sequence")
	case 7:
		if r.rnd.IntN(3) == 0 {
			if err := tx.DeleteBucket([]byte("bucket 1")); err != nil && !errors.Is(err, folio.ErrBucketNotFound) {
				r.fatal(err, "delete bucket")
			}
			return
		}
		r.change(tx)
	}
}

// commit runs one transaction and notes what is known of it, before and after.
func (r *run) commit() {
	tx, err := r.db.Begin(true)
	r.fatal(err, "begin")
	r.change(tx)
	if r.rnd.IntN(8) == 0 {
		r.fatal(tx.Rollback(), "rollback")
		return
	}
	r.begun++
	r.states = append(r.states, digest(tx.Root()))
	r.rec.mark(r.begun, 0)
	durable := r.opts.Sync == folio.SyncFull
	if r.rnd.IntN(4) == 0 {
		wait, err := tx.CommitAsync()
		r.fatal(err, "commit")
		if durable = r.rnd.IntN(2) == 0; durable {
			r.fatal(wait(), "wait")
		}
	} else {
		r.fatal(tx.Commit(), "commit")
	}
	if !durable && r.rnd.IntN(4) == 0 {
		r.fatal(r.db.Sync(), "sync")
		durable = true
	}
	if durable {
		r.acked = r.begun
		r.rec.mark(r.begun, r.acked)
	}
}

// record runs ncommits transactions, some after a reopen, and returns the store's
// bytes before the first.
func (r *run) record(ncommits int) (initial []byte) {
	path := filepath.Join(r.t.TempDir(), "recorded")
	db, err := folio.Open(path, 0o600, &r.opts)
	r.fatal(err, "create")
	r.fatal(db.View(func(tx *folio.Tx) error { r.states = []string{digest(tx.Root())}; return nil }), "view")
	r.fatal(db.Close(), "close")
	initial, err = os.ReadFile(path)
	r.fatal(err, "read")
	r.rec = &recorder{size: int64(len(initial))}
	defer mmap.Intercept(path, r.rec)()
	r.db, err = folio.Open(path, 0o600, &r.opts)
	r.fatal(err, "open")
	for range ncommits {
		r.commit()
		if r.rnd.IntN(15) == 0 {
			r.fatal(r.db.Close(), "close")
			r.acked = r.begun
			r.rec.mark(r.begun, r.acked)
			r.db, err = folio.Open(path, 0o600, &r.opts)
			r.fatal(err, "open")
		}
	}
	r.fatal(r.db.Close(), "close")
	return initial
}

// verify opens an image and checks that it is what a crash may leave. Where twice is
// set, it records the recovery and its first commit too, and crashes those.
func (r *run) verify(path string, img []byte, begun, acked int, twice bool) (err error) {
	if err := os.WriteFile(path, img, 0o600); err != nil {
		return err
	}
	rec := &recorder{size: int64(len(img))}
	if twice {
		defer mmap.Intercept(path, rec)()
	}
	db, err := folio.Open(path, 0o600, &r.opts)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var state string
	if err := db.View(func(tx *folio.Tx) error { state = digest(tx.Root()); return nil }); err != nil {
		return err
	}
	at := -1
	for i := acked; i <= begun && at < 0; i++ {
		if r.states[i] == state {
			at = i
		}
	}
	if at < 0 {
		for i, s := range r.states {
			if s == state {
				return fmt.Errorf("state of commit %d; %d was durable, %d begun", i, acked, begun)
			}
		}
		return errors.New("a state that never was")
	}
	if err := sound(db); err != nil {
		return err
	}
	if err := db.Update(func(tx *folio.Tx) error { return tx.Put([]byte("after"), []byte("the crash")) }); err != nil {
		return fmt.Errorf("commit after recovery: %w", err)
	}
	if err := sound(db); err != nil {
		return err
	}
	if !twice {
		return nil
	}
	return r.crashAgain(path+".again", img, rec.events, state)
}

// crashAgain crashes a recovery: the same state must come out, or that of the commit after it.
func (r *run) crashAgain(path string, img []byte, events []event, state string) (err error) {
	sub := &run{t: r.t, rnd: r.rnd, opts: r.opts, states: []string{state}}
	points(img, events, func(_ int, p *crashPoint) {
		p.images(r.rnd, 2, func(img []byte) {
			if err == nil {
				err = sub.verifyRecovered(path, img)
			}
		})
	})
	return err
}

func (r *run) verifyRecovered(path string, img []byte) error {
	if err := os.WriteFile(path, img, 0o600); err != nil {
		return err
	}
	db, err := folio.Open(path, 0o600, &r.opts)
	if err != nil {
		return fmt.Errorf("open after a second crash: %w", err)
	}
	defer db.Close()
	if err := db.Update(func(tx *folio.Tx) error { return tx.Delete([]byte("after")) }); err != nil {
		return err
	}
	return db.View(func(tx *folio.Tx) error {
		if digest(tx.Root()) != r.states[0] {
			return errors.New("another state after a second crash")
		}
		return sound(db)
	})
}

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

func TestCrash(t *testing.T) {
	seed := seedOf(t)
	scratch := t.TempDir()
	total := 0
	for _, c := range []struct {
		name string
		opts folio.Options
	}{
		{"full", folio.Options{}},
		{"two phase", folio.Options{TwoPhase: true}},
		{"off", folio.Options{Sync: folio.SyncOff}},
		{"spilling", folio.Options{DirtyLimit: 16 << 10}},
		{"off spill", folio.Options{Sync: folio.SyncOff, DirtyLimit: 16 << 10, PageSize: 8192}},
	} {
		t.Run(c.name, func(t *testing.T) {
			nimages := 0
			defer func() { total += nimages }()
			r := &run{t: t, rnd: rand.New(rand.NewPCG(seed, uint64(len(c.name)))), opts: c.opts}
			ncommits := 40
			if testing.Short() {
				ncommits = 12
			}
			initial := r.record(ncommits)
			points(initial, r.rec.events, func(index int, p *crashPoint) {
				p.images(r.rnd, 3, func(img []byte) {
					nimages++
					if t.Failed() {
						return
					}
					if err := r.verify(filepath.Join(scratch, "image"), img, p.begun, p.acked, nimages%20 == 0); err != nil {
						keep := filepath.Join(os.TempDir(), fmt.Sprintf("folio-crash-%d.folio", seed))
						os.WriteFile(keep, img, 0o600)
						t.Errorf("seed %d, crash after event %d of %d (kept as %s): %v", seed, index, len(r.rec.events), keep, err)
					}
				})
			})
		})
	}
	t.Logf("%d crash images", total)
}
