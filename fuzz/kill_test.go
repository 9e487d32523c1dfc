package fuzz

// kill_test.go kills a real process, with a signal that it can't see, at random
// instants while it creates, opens and writes a store. What had been committed must be
// there, whole and sound, and the store must go on.

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/foliokv/folio"
	"github.com/foliokv/folio/fuzz/workload"
	"github.com/stretchr/testify/require"
)

const (
	// killLimit is how long a writer may live: far longer than any needs, so that one
	// that hangs fails the test instead of holding it up for ever.
	killLimit = time.Minute
	// dumpLimit is how long a hung writer may take to dump its goroutines.
	dumpLimit = 10 * time.Second
)

// killModes are how the writer commits; each kill takes the next.
var killModes = [][]string{
	{"-sync", "full"},
	{"-sync", "full", "-two-phase"},
	{"-sync", "off"},
	{"-sync", "interval"},
	{"-sync", "full", "-async"},
	{"-sync", "full", "-checkpoints"},
	{"-sync", "full", "-dirty-limit", "16384", "-readers", "1"},
	{"-sync", "off", "-dirty-limit", "16384"},
}

// killTarget says when a writer is killed: after it has acknowledged so many commits,
// or, where that is none, right from its start, and then after delay.
type killTarget struct {
	nacks int
	delay time.Duration
}

// writerLog is what a writer said before its end; open is -1 where it did not come to that.
type writerLog struct {
	open   int
	begun  int
	acked  int
	nacks  int
	logged bool // some commits were
	opened time.Time
}

func (l *writerLog) add(line string) error {
	var what string
	var n int
	if _, err := fmt.Sscanf(line, "%s %d", &what, &n); err != nil {
		return fmt.Errorf("the writer said %q", line)
	}
	switch what {
	case "open":
		l.open, l.opened = n, time.Now()
	case "begin":
		l.begun = n
	case "ack":
		l.acked = n
		l.nacks++
	case "logged":
		l.logged = true
	default:
		return fmt.Errorf("the writer said %q", line)
	}
	return nil
}

// writerProcess is a running writer.
type writerProcess struct {
	cmd    *exec.Cmd
	lines  chan string // closed when the writer has ended
	stderr bytes.Buffer
	log    writerLog
	limit  time.Duration // after which it hangs
}

func startWriter(bin string, args ...string) (*writerProcess, error) {
	w := &writerProcess{
		cmd:   exec.Command(bin, args...),
		lines: make(chan string, 256),
		log:   writerLog{open: -1},
		limit: killLimit,
	}
	w.cmd.Stderr = &w.stderr
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := w.cmd.Start(); err != nil {
		return nil, err
	}
	go w.listen(out)
	return w, nil
}

func (w *writerProcess) listen(out io.Reader) {
	defer close(w.lines)
	for s := bufio.NewScanner(out); s.Scan(); {
		w.lines <- s.Text()
	}
}

// killAt kills the writer and reaps it.
func (w *writerProcess) killAt(target killTarget) error {
	hung := time.NewTimer(w.limit)
	defer hung.Stop()
	err := w.follow(target, hung.C)
	if err == nil {
		err = w.cmd.Process.Kill()
	}
	for line := range w.lines { // what it still said; without a kill it has ended by itself
		err = errors.Join(err, w.log.add(line))
	}
	w.cmd.Wait() // its error says that it was killed
	if ws := w.cmd.ProcessState.Sys().(syscall.WaitStatus); err == nil && ws.Signal() != syscall.SIGKILL {
		err = errors.New("it ended by itself")
	}
	if err != nil {
		return fmt.Errorf("writer %q: %v: %w\n%s", w.cmd.Args[1:], w.cmd.ProcessState, err, w.stderr.Bytes())
	}
	return nil
}

// follow listens until it is time for the kill.
func (w *writerProcess) follow(target killTarget, hung <-chan time.Time) error {
	var due <-chan time.Time
	for {
		if due == nil && w.log.nacks >= target.nacks {
			due = time.After(target.delay)
		}
		select {
		case line, ok := <-w.lines:
			if !ok {
				return errors.New("it ended before its kill")
			}
			if err := w.log.add(line); err != nil {
				return errors.Join(err, w.cmd.Process.Kill())
			}
		case <-due:
			return nil
		case <-hung:
			return w.dump()
		}
	}
}

// dump makes a hung writer dump its goroutines.
func (w *writerProcess) dump() error {
	err := errors.Join(errors.New("it hangs"), w.cmd.Process.Signal(syscall.SIGQUIT))
	end := time.After(dumpLimit)
	for {
		select {
		case _, ok := <-w.lines:
			if !ok {
				return err
			}
		case <-end:
			return errors.Join(err, w.cmd.Process.Kill())
		}
	}
}

// killStore is a store whose writers are killed, and what is known of it.
type killStore struct {
	path string
	args []string // for whoever creates it
	opts folio.Options
	w    *workload.Workload
	n    int  // the transaction whose state it holds
	born bool // the file was there after a kill
}

// killRun is a run of kills.
type killRun struct {
	t       *testing.T
	bin     string
	disk    string // a folder on a disk, where syncs take their time
	memory  string // one where more kills fit into a second
	image   []byte // what the last kill left
	seed    uint64
	rnd     *rand.Rand
	stores  []*killStore
	opening time.Duration // how long a writer took to open a store, roughly
	nacks   int
	ncommit int
	nborn   int // kills after which a store that was being created was there
	nstray  int // kills that left its other name
	nlogged int // kills of writers that had logged commits
}

// TestKill kills as many writers as FOLIO_KILLS says.
func TestKill(t *testing.T) {
	seed := seedOf(t)
	otherwise := 100
	if testing.Short() {
		otherwise = 20
	}
	r := newKillRun(t, seed)
	nkills := intEnv(t, "FOLIO_KILLS", otherwise)
	nopening, ncreating := 0, 0
	began := time.Now()
	for i := range nkills {
		mode := killModes[i%len(killModes)]
		var err error
		switch r.rnd.IntN(8) {
		case 0, 1:
			nopening++
			err = r.kill(r.drawStore(), mode, killTarget{delay: r.drawDelay(r.opening)})
		case 2:
			ncreating++
			err = r.killCreation(mode, i)
		default:
			target := killTarget{nacks: 1 + r.rnd.IntN(12), delay: r.drawDelay(3 * time.Millisecond)}
			err = r.kill(r.drawStore(), mode, target)
		}
		if err != nil {
			t.Fatalf("seed %d, kill %d: %v", seed, i, err)
		}
	}
	t.Logf("%d kills, %d of them while a store was opened and %d while one was created (%d were there, %d other names were left); %.1f kills/s",
		nkills, nopening, ncreating, r.nborn, r.nstray, float64(nkills)/time.Since(began).Seconds())
	t.Logf("%d commits, %d acknowledgements; the store on the disk is at transaction %d; %d writers had logged commits", r.ncommit, r.nacks, r.stores[0].n, r.nlogged)
	if r.nlogged == 0 && nkills >= 50 {
		t.Error("no commit was logged")
	}
}

// TestKillHung makes sure that a writer that does not come to its end is reported, with
// what its goroutines do.
func TestKillHung(t *testing.T) {
	r := newKillRun(t, seedOf(t))
	w, err := startWriter(r.bin, "-path", filepath.Join(r.memory, "hung.folio"))
	require.NoError(t, err)
	require.NoError(t, w.log.add(<-w.lines)) // the runtime, which dumps, is up
	w.limit = time.Millisecond
	err = w.killAt(killTarget{nacks: 1 << 30})
	require.ErrorContains(t, err, "it hangs")
	require.ErrorContains(t, err, "goroutine 1")
}

func newKillRun(t *testing.T, seed uint64) *killRun {
	r := &killRun{t: t, disk: t.TempDir(), memory: scratchDir(t), seed: seed, rnd: rand.New(rand.NewPCG(seed, 0))}
	r.bin = filepath.Join(r.disk, "writer")
	build := []string{"build", "-o", r.bin}
	if os.Getenv("FOLIO_SEEDED") != "" { // the writer has the seeded fault too
		build = append(build, "-tags", "folio_seeded")
	}
	out, err := exec.Command("go", append(build, "./writer")...).CombinedOutput()
	require.NoError(t, err, "build the writer: %s", out)
	r.stores = []*killStore{
		r.newStore(filepath.Join(r.disk, "a.folio"), 4096),
		r.newStore(filepath.Join(r.memory, "b.folio"), 4096),
		r.newStore(filepath.Join(r.memory, "c.folio"), 65536),
	}
	began := time.Now()
	for _, s := range r.stores { // so that it is known how long opening takes
		require.NoError(t, r.kill(s, killModes[0], killTarget{nacks: 1}))
	}
	r.opening = time.Since(began) / time.Duration(len(r.stores))
	return r
}

func (r *killRun) newStore(path string, pageSize int) *killStore {
	return &killStore{
		path: path,
		args: []string{"-page-size", strconv.Itoa(pageSize)},
		opts: folio.Options{PageSize: pageSize},
		w:    workload.New(r.seed),
	}
}

func (r *killRun) drawStore() *killStore { return r.stores[r.rnd.IntN(len(r.stores))] }

func (r *killRun) drawDelay(most time.Duration) time.Duration {
	return time.Duration(r.rnd.Int64N(int64(most) + 1))
}

// kill starts a writer on the store, kills it, and looks at what it left.
func (r *killRun) kill(s *killStore, mode []string, target killTarget) error {
	args := append([]string{"-path", s.path, "-seed", strconv.FormatUint(r.seed, 10)}, s.args...)
	began := time.Now()
	w, err := startWriter(r.bin, append(args, mode...)...)
	if err != nil {
		return err
	}
	if err := w.killAt(target); err != nil {
		return err
	}
	if w.log.open >= 0 {
		r.opening = (3*r.opening + w.log.opened.Sub(began)) / 4
	}
	r.nacks += w.log.nacks
	if w.log.logged {
		r.nlogged++
	}
	if err := r.keepImage(s); err != nil {
		return err
	}
	if err := r.inspect(s, &w.log); err != nil {
		kept := filepath.Join(os.TempDir(), fmt.Sprintf("folio-kill-%d.folio", r.seed))
		err = errors.Join(err, os.WriteFile(kept, r.image, 0o600))
		return fmt.Errorf("writer %q: %w (the store before that is kept as %s)", mode, err, kept)
	}
	return nil
}

// keepImage reads the file that a kill left, which the next open may change.
func (r *killRun) keepImage(s *killStore) error {
	f, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		r.image = r.image[:0]
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	s.born = true
	b := bytes.NewBuffer(r.image[:0])
	_, err = b.ReadFrom(f)
	r.image = b.Bytes()
	return err
}

// killCreation kills a writer while it makes a new store.
func (r *killRun) killCreation(mode []string, i int) error {
	dir := filepath.Join([]string{r.disk, r.memory}[r.rnd.IntN(2)], fmt.Sprintf("new%d", i))
	s := r.newStore(filepath.Join(dir, "s.folio"), 4096)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := r.kill(s, mode, killTarget{delay: r.drawDelay(r.opening)}); err != nil {
		return err
	}
	if s.born {
		r.nborn++
	}
	others, err := filepath.Glob(filepath.Join(dir, ".folio-*"))
	r.nstray += len(others)
	return err
}

// inspect opens a store after a kill: it shows a commit that it may show, is sound,
// and takes another.
func (r *killRun) inspect(s *killStore, log *writerLog) (err error) {
	if log.open >= 0 && log.open != s.n {
		return fmt.Errorf("it opened at transaction %d, but the store was at %d", log.open, s.n)
	}
	db, err := folio.Open(s.path, 0o600, &s.opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	n, err := s.w.VerifyNewest(db)
	if err != nil {
		return err
	}
	// The writer begins a transaction once the commit before has returned, and a kill
	// takes nothing that has: it is in the page cache, in every mode.
	least, most := s.n, s.n
	if log.begun > 0 {
		least, most = max(log.begun-1, log.acked), log.begun
	}
	if n < least || n > most {
		return fmt.Errorf("the state after transaction %d; begun were those up to %d, acknowledged up to %d, before it was %d", n, log.begun, log.acked, s.n)
	}
	r.ncommit += n - s.n
	s.n = n
	if err := sound(db); err != nil {
		return err
	}
	if r.rnd.IntN(2) == 0 {
		return nil
	}
	s.n++
	if err := db.Update(func(tx *folio.Tx) error { return s.w.Apply(tx, s.n) }); err != nil {
		return err
	}
	if n, err = s.w.VerifyNewest(db); err != nil || n != s.n {
		return errors.Join(fmt.Errorf("the state after transaction %d, after a commit of %d", n, s.n), err)
	}
	return sound(db)
}
