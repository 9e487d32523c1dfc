// Command writer writes transactions of a workload into a store until it is killed,
// and tells on standard output, one line a write, what it began and what is durable:
//
//	open N    the store is open and holds the state after transaction N
//	begin N   transaction N begins
//	ack N     transaction N, and all before it, is durable
//	logged N  transaction N is the first that has a redo record
package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/foliokv/folio"
	"github.com/foliokv/folio/fuzz/workload"
)

// mostUnacked is how many commits may go by without an ack where commits do not sync.
const mostUnacked = 8

// config is what the command line asks for.
type config struct {
	path     string
	seed     uint64
	opts     folio.Options
	async    bool
	count    int
	nreaders int
	sync     bool // checkpoints beside commits
}

// writer is one run over one store.
type writer struct {
	config
	db  *folio.DB
	w   *workload.Workload
	rnd *rand.Rand // when to sync; what is written does not depend on it

	logged  bool // a commit was
	syncing chan struct{}
}

func main() {
	c, err := parse(os.Args[1:])
	if err == nil {
		err = run(c)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "writer:", err)
		os.Exit(1)
	}
}

func parse(args []string) (c config, err error) {
	f := flag.NewFlagSet("writer", flag.ContinueOnError)
	f.StringVar(&c.path, "path", "", "the store; it is created where there is none")
	f.Uint64Var(&c.seed, "seed", 1, "which sequence of transactions")
	sync := f.String("sync", "full", "full, interval or off")
	f.BoolVar(&c.opts.TwoPhase, "two-phase", false, "sync pages before the meta")
	f.BoolVar(&c.async, "async", false, "commit most with CommitAsync, and wait for some")
	f.IntVar(&c.count, "count", 0, "end after so many transactions; 0: never")
	f.IntVar(&c.nreaders, "readers", 0, "goroutines that verify snapshots meanwhile")
	f.BoolVar(&c.sync, "checkpoints", false, "sync everything beside the commits, now and then")
	f.IntVar(&c.opts.PageSize, "page-size", 0, "of a new store, in bytes; 0: the default")
	f.Int64Var(&c.opts.DirtyLimit, "dirty-limit", 0, "bytes of dirty pages in memory; 0: the default")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	if c.path == "" || f.NArg() > 0 {
		return c, errors.New("usage: writer -path FILE [flags]")
	}
	switch *sync {
	case "full":
		c.opts.Sync = folio.SyncFull
	case "interval":
		c.opts.Sync, c.opts.SyncEvery = folio.SyncInterval, 2*time.Millisecond
	case "off":
		c.opts.Sync = folio.SyncOff
	default:
		return c, fmt.Errorf("-sync %q: it must be full, interval or off", *sync)
	}
	return c, nil
}

func run(c config) (err error) {
	db, err := folio.Open(c.path, 0o600, &c.opts)
	if err != nil {
		return err
	}
	w := &writer{
		config: c, db: db, w: workload.New(c.seed), rnd: rand.New(rand.NewPCG(c.seed, rand.Uint64())),
		syncing: make(chan struct{}, 1),
	}
	n, err := w.w.VerifyNewest(w.db)
	if err != nil {
		return errors.Join(err, db.Close())
	}
	say("open", n)
	errs := make(chan error, c.nreaders+2)
	stop := make(chan struct{})
	for range c.nreaders {
		go func() { errs <- w.read(stop) }()
	}
	go func() { errs <- w.write(n, errs) }()
	err = <-errs // the writer is done, or a reader met a violation
	if err != nil {
		return err // the others still use the store; the process ends
	}
	close(stop)
	for range c.nreaders {
		err = errors.Join(err, <-errs)
	}
	return errors.Join(err, db.Close())
}

// say writes one line with one write(2), so that a kill leaves no part of one.
func say(what string, n int) { fmt.Fprintf(os.Stdout, "%s %d\n", what, n) }

// read verifies snapshots until stop is closed. They never go backward.
func (w *writer) read(stop chan struct{}) error {
	for last := 0; ; {
		select {
		case <-stop:
			return nil
		default:
		}
		n, err := w.w.VerifyNewest(w.db)
		if err != nil {
			return fmt.Errorf("reader: %w", err)
		}
		if n < last {
			return fmt.Errorf("reader: transaction %d after %d", n, last)
		}
		last = n
	}
}

// write does the transactions after n. failed gets the error of a checkpoint beside them.
func (w *writer) write(n int, failed chan<- error) error {
	last, acked := n+w.count, n
	for w.count == 0 || n < last {
		n++
		say("begin", n)
		durable, err := w.commit(n)
		if err != nil {
			return err
		}
		if !w.logged && w.db.Stats().Logged > 0 {
			w.logged = true
			say("logged", n)
		}
		if w.sync && w.rnd.IntN(4) == 0 {
			w.checkpoint(failed)
		}
		if durable != nil {
			if n != last && n-acked < mostUnacked && w.rnd.IntN(mostUnacked/2) > 0 {
				continue
			}
			if err := durable(); err != nil {
				return err
			}
		}
		acked = n
		say("ack", acked)
	}
	return nil
}

// checkpoint begins a checkpoint, unless one is under way.
func (w *writer) checkpoint(failed chan<- error) {
	select {
	case w.syncing <- struct{}{}:
	default:
		return
	}
	go func() {
		if err := w.db.Sync(); err != nil && !errors.Is(err, folio.ErrDatabaseNotOpen) {
			failed <- err
		}
		<-w.syncing
	}()
}

// commit commits transaction n. Where it is not durable yet, durable makes it so.
func (w *writer) commit(n int) (durable func() error, err error) {
	tx, err := w.db.Begin(true)
	if err != nil {
		return nil, err
	}
	if err := w.w.Apply(tx, n); err != nil {
		return nil, errors.Join(err, tx.Rollback())
	}
	if w.async && w.rnd.IntN(6) > 0 {
		return tx.CommitAsync()
	}
	if err := tx.Commit(); err != nil {
		return nil, err
	}
	if w.opts.Sync != folio.SyncFull {
		return w.db.Sync, nil
	}
	return nil, nil
}
