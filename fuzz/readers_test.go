package fuzz

// readers_test.go reads snapshots on several goroutines while a writer commits, the
// file grows, and its end is given back. Each snapshot is one whole commit, not older
// than what had been acknowledged, and stays what it is for as long as it is read.

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/foliokv/folio"
	"github.com/foliokv/folio/fuzz/workload"
	"github.com/stretchr/testify/require"
)

const (
	nglancers = 2 // goroutines that read each snapshot once
	nstarers  = 2 // goroutines that read each snapshot again and again

	// mostLooks is how often a reader reads while one transaction is written: more than
	// once, at all its stages, and not so often that the writer gets no processor.
	mostLooks = 2

	// Of each cycle of the workload's transactions some are small and follow a great
	// deletion. With all old snapshots gone, the file can be cut short there.
	workloadCycle = 100
	quietFrom     = 84
	quietUntil    = 92
)

// fire is one store with readers and a writer.
type fire struct {
	db   *folio.DB
	w    *workload.Workload
	seed uint64

	full    bool         // readers see what is durable, and nothing else
	begun   atomic.Int64 // transactions that the writer began
	visible atomic.Int64 // the newest that a reader who begins now must see
	ended   atomic.Bool  // the writer is done

	quiet   atomic.Bool  // those who stare are to end their transactions
	staring sync.RWMutex // each of them holds it while it has one
	readers sync.WaitGroup

	mu    sync.Mutex
	moved sync.Cond // one of the above or below has changed
	errs  []error   // of readers

	nglances atomic.Int64
	nstares  atomic.Int64 // verifications of snapshots that had been verified before
	ncuts    int
	mostHeld uint64
}

// TestReadersUnderFire runs readers beside a writer under several options.
func TestReadersUnderFire(t *testing.T) {
	seed := seedOf(t)
	ncommits := 390
	if testing.Short() {
		ncommits = 190
	}
	for _, c := range []struct {
		name string
		opts folio.Options
	}{
		{"full", folio.Options{}},
		{"off", folio.Options{Sync: folio.SyncOff}},
		{"in memory", folio.Options{InMemory: true}},
		{"large pages", folio.Options{PageSize: 65536}},
		{"spilling", folio.Options{DirtyLimit: 16 << 10, Verify: folio.VerifyAlways}},
	} {
		t.Run(c.name, func(t *testing.T) {
			db, err := folio.Open(filepath.Join(t.TempDir(), "fire.folio"), 0o600, &c.opts)
			require.NoError(t, err)
			full := c.opts.Sync == folio.SyncFull && !c.opts.InMemory
			f := &fire{db: db, w: workload.New(seed), seed: seed, full: full}
			f.moved.L = &f.mu
			err = f.run(ncommits)
			nlogged := db.Stats().Logged
			if err == nil && full && nlogged == 0 {
				err = errors.New("no commit was logged")
			}
			if err == nil {
				err = f.settle(ncommits)
			}
			if err = errors.Join(err, db.Close()); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			t.Logf("%d snapshots; %d verified again; the file was cut short %d times; at most %d pages waited; %d commits were logged",
				f.nglances.Load(), f.nstares.Load(), f.ncuts, f.mostHeld, nlogged)
		})
	}
}

// run commits ncommits transactions under fire.
func (f *fire) run(ncommits int) error {
	for i := range nglancers {
		f.readers.Go(func() { f.read(uint64(i), f.glance) })
	}
	for i := range nstarers {
		f.readers.Go(func() { f.read(uint64(nglancers+i), f.stare) })
	}
	err := f.write(ncommits)
	f.ended.Store(true)
	f.tell()
	f.readers.Wait()
	return errors.Join(append(f.errs, err)...)
}

func (f *fire) write(ncommits int) error {
	defer f.setQuiet(false)
	pages, nglances := f.db.Stats().Pages, int64(0)
	for n := 1; n <= ncommits; n++ {
		at := n % workloadCycle
		f.setQuiet(at >= quietFrom && at < quietUntil)
		if err := f.commit(n); err != nil {
			return err
		}
		st := f.db.Stats()
		if st.Pages < pages {
			f.ncuts++
		}
		pages, f.mostHeld = st.Pages, max(f.mostHeld, st.WaitingPages)
		if n%8 > 0 {
			continue
		}
		// So that readers do read meanwhile, whoever gets the processor.
		f.await(func() bool { return f.nglances.Load() > nglances })
		if f.failed() {
			return nil
		}
		nglances = f.nglances.Load()
	}
	return nil
}

// setQuiet waits until nobody stares any more, or lets them stare again.
func (f *fire) setQuiet(quiet bool) {
	switch {
	case quiet == f.quiet.Load():
	case quiet:
		f.quiet.Store(true)
		f.tell()
		f.staring.Lock()
	default:
		f.quiet.Store(false)
		f.staring.Unlock()
	}
}

// commit commits transaction n. In SyncFull some commits are left to the sync of the
// next, or to a checkpoint that comes by first.
func (f *fire) commit(n int) error {
	async := f.full && n%5 == 0
	f.begun.Store(int64(n))
	f.tell()
	tx, err := f.db.Begin(true)
	if err != nil {
		return err
	}
	if err := f.w.Apply(tx, n); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	if async {
		if _, err = tx.CommitAsync(); err != nil {
			return err
		}
		return f.db.View(func(tx *folio.Tx) error {
			_, err := f.verifyNew(tx, n-1)
			return err
		})
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	f.visible.Store(int64(n))
	if !f.full && n%20 == 0 {
		return f.db.Sync()
	}
	return nil
}

// read takes snapshots until the writer is done, and one more.
func (f *fire) read(id uint64, look func(rnd *rand.Rand) (int, error)) {
	rnd := rand.New(rand.NewPCG(f.seed, id))
	last := 0
	var p pacer
	for more := true; more; {
		more = !f.ended.Load()
		n, err := look(rnd)
		if err == nil && n < last {
			err = fmt.Errorf("transaction %d after %d", n, last)
		}
		if err != nil {
			f.fail(fmt.Errorf("reader %d: %w", id, err))
			return
		}
		last = n
		f.pace(&p, f.ended.Load)
	}
}

func (f *fire) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errs = append(f.errs, err)
	f.moved.Broadcast()
}

func (f *fire) failed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.errs) > 0
}

// tell wakes those who wait.
func (f *fire) tell() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.moved.Broadcast()
}

// await waits until done is true, or a reader has failed.
func (f *fire) await(done func() bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for !done() && len(f.errs) == 0 {
		f.moved.Wait()
	}
}

// pacer keeps one reader from reading more than mostLooks times a transaction.
type pacer struct {
	begun  int64
	nlooks int
}

// pace lets a reader go on, at the latest when done is true.
func (f *fire) pace(p *pacer, done func() bool) {
	if begun := f.begun.Load(); begun != p.begun {
		*p = pacer{begun: begun}
	}
	if p.nlooks++; p.nlooks < mostLooks {
		runtime.Gosched() // or a writer back from a sync waits a whole time slice
		return
	}
	f.await(func() bool { return f.begun.Load() != p.begun || done() })
}

// glance reads a snapshot once.
func (f *fire) glance(rnd *rand.Rand) (n int, err error) {
	least := int(f.visible.Load())
	err = f.db.View(func(tx *folio.Tx) error {
		kept := keep(tx.Root(), rnd)
		if n, err = f.verifyNew(tx, least); err != nil {
			return err
		}
		return kept.compare()
	})
	f.nglances.Add(1)
	f.tell()
	return n, err
}

// stare reads a snapshot again and again while the writer commits some transactions.
func (f *fire) stare(rnd *rand.Rand) (n int, err error) {
	f.staring.RLock()
	defer f.staring.RUnlock()
	least := int(f.visible.Load())
	tx, err := f.db.Begin(false)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, tx.Rollback()) }()
	kept := keep(tx.Root(), rnd)
	if n, err = f.verifyNew(tx, least); err != nil {
		return n, err
	}
	var p pacer
	until := f.begun.Load() + 3 + rnd.Int64N(40)
	enough := func() bool { return f.begun.Load() >= until || f.quiet.Load() || f.ended.Load() }
	for !enough() {
		again, err := f.w.Verify(tx)
		if err != nil {
			return n, fmt.Errorf("transaction %d, verified again: %w", n, err)
		}
		if again != n {
			return n, fmt.Errorf("the snapshot of transaction %d became that of %d", n, again)
		}
		f.nstares.Add(1)
		f.pace(&p, enough)
	}
	return n, kept.compare()
}

// verifyNew verifies what a transaction shows that has just begun to read, and returns
// which of the writer's it is. It must not be older than least. In SyncFull it is durable.
func (f *fire) verifyNew(tx *folio.Tx, least int) (n int, err error) {
	durable, most := f.db.Stats().Durable, int(f.begun.Load())
	if n, err = f.w.Verify(tx); err != nil {
		return n, err
	}
	if n < least || n > most {
		return n, fmt.Errorf("a new reader sees transaction %d; it must see %d, and may see those up to %d", n, least, most)
	}
	if f.full && tx.ID() > durable {
		return n, fmt.Errorf("a new reader sees commit %d, but the durable one is %d", tx.ID(), durable)
	}
	return n, nil
}

// keptPair is a pair as the store lent it, and a copy from that moment.
type keptPair struct {
	key, value         []byte
	keyThen, valueThen []byte
}

// keptPairs are pairs that must stay unchanged while their transaction is open.
type keptPairs []keptPair

// keep takes some pairs of b and of the buckets in it.
func keep(b *folio.Bucket, rnd *rand.Rand) (kept keptPairs) {
	every := 1 + rnd.IntN(40)
	i := 0
	for k, v := range b.All() {
		if v == nil {
			if nested := b.Bucket(k); nested != nil { // Verify reports what is damaged
				kept = append(kept, keep(nested, rnd)...)
			}
		}
		if i++; i%every == 0 {
			kept = append(kept, keptPair{k, v, bytes.Clone(k), bytes.Clone(v)})
		}
	}
	return kept
}

func (kept keptPairs) compare() error {
	for _, p := range kept {
		if !bytes.Equal(p.key, p.keyThen) || !bytes.Equal(p.value, p.valueThen) {
			return fmt.Errorf("the pair lent for %.40q changed before its transaction ended", p.keyThen)
		}
	}
	return nil
}

// settle looks at the store once all readers are gone: it is sound, and after a few small
// commits, of which some may shrink it and give up its log, no page waits but those that the
// last of them freed.
func (f *fire) settle(n int) error {
	const nsettling, mostWaiting = 3, 64
	for i := 0; i < nsettling || i < 3*nsettling && f.db.Stats().WaitingPages > mostWaiting; i++ {
		n++
		err := f.db.Update(func(tx *folio.Tx) error { return f.w.Apply(tx, n) })
		if err = errors.Join(err, f.db.Sync()); err != nil {
			return err
		}
	}
	got, err := f.w.VerifyNewest(f.db)
	if err == nil && got != n {
		err = fmt.Errorf("the state after transaction %d, want %d", got, n)
	}
	if err != nil {
		return err
	}
	if st := f.db.Stats(); st.Readers != 0 || st.WaitingPages > mostWaiting {
		return fmt.Errorf("%d readers are left, and %d pages wait", st.Readers, st.WaitingPages)
	}
	return sound(f.db)
}
