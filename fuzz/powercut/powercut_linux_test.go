package powercut

// powercut_linux_test.go cuts the power under the real writer: fuzz/writer as go build
// makes it, in each of its modes, at any instant from the creation of the store on.

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/foliokv/folio"
	"github.com/foliokv/folio/fuzz/workload"
	"github.com/foliokv/folio/internal/seeded"
	"github.com/stretchr/testify/require"
)

// defaultCuts is how many cuts TestPowerCut makes where FOLIO_CUTS says nothing.
const defaultCuts = 60

// modes are the flags of the writer.
var modes = []struct {
	name  string
	flags []string
	logs  bool // commits are logged
}{
	{"full", nil, true},
	{"two_phase", []string{"-two-phase"}, false},
	{"async", []string{"-async", "-readers", "1"}, true},
	{"checkpoints", []string{"-checkpoints"}, true},
	{"interval", []string{"-sync", "interval"}, false},
	{"off", []string{"-sync", "off"}, false},
	{"spilling", []string{"-sync", "off", "-dirty-limit", "65536", "-page-size", "8192"}, false},
}

// build builds the programs and returns where they are. Without flags they are what any
// user gets.
func build(t *testing.T, flags ...string) (dir string) {
	dir = t.TempDir()
	args := append([]string{"build", "-C", "../..", "-o", dir}, flags...)
	out, err := exec.Command("go", append(args, "./fuzz/writer", "./cmd/kvtool")...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return dir
}

// store is the writer and its store.
type store struct {
	bin      string
	flags    []string
	fault    seeded.Fault // for a writer that is built with faults
	seed     uint64
	workload *workload.Workload
}

func newStore(bin string, flags []string, fault seeded.Fault, seed uint64) *store {
	return &store{bin: bin, flags: flags, fault: fault, seed: seed, workload: workload.New(seed)}
}

func (s *store) command(path string) *exec.Cmd {
	args := append([]string{"-path", path, "-seed", strconv.FormatUint(s.seed, 10)}, s.flags...)
	cmd := exec.Command(filepath.Join(s.bin, "writer"), args...)
	cmd.Env = append(os.Environ(), "FOLIO_SEEDED="+string(s.fault))
	return cmd
}

// inspect verifies the store without a recovery.
func (s *store) inspect(path string) (n int, err error) {
	return s.verify(path, &folio.Options{ReadOnly: true}, nil)
}

// verify opens the store and returns the state that it shows, and all that is wrong.
func (s *store) verify(path string, opts *folio.Options, check func(db *folio.DB) error) (n int, err error) {
	db, err := folio.Open(path, 0o600, opts)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	n, err = s.workload.VerifyNewest(db)
	if err == nil && check != nil {
		err = check(db)
	}
	return n, err
}

// recover opens the store for writing, which recovers it, and checks it in all ways.
func (s *store) recover(path string) (n int, err error) {
	n, err = s.verify(path, nil, func(db *folio.DB) (err error) {
		for fault := range db.Check(context.Background()) {
			err = errors.Join(err, fmt.Errorf("check: %w", fault))
		}
		return err
	})
	if err != nil {
		return n, err
	}
	out, err := exec.Command(filepath.Join(s.bin, "kvtool"), "check", path).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("kvtool check: %w: %s", err, out)
	}
	return n, err
}

// drawInstant returns after how many changes of the disk the power goes: often while the
// store is made or recovered, which takes a few.
func drawInstant(rnd *rand.Rand) int {
	return rnd.IntN([...]int{8, 20, 100, 400}[rnd.IntN(4)])
}

func TestPowerCut(t *testing.T) {
	seed, ncuts := seedOf(t), defaultCuts
	if s := os.Getenv("FOLIO_CUTS"); s != "" {
		var err error
		ncuts, err = strconv.Atoi(s)
		require.NoError(t, err, "FOLIO_CUTS")
	}
	m := start(t, Options{})
	bin := build(t)
	for i, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			p := &powerCuts{m: m, rnd: rand.New(rand.NewPCG(seed, uint64(i))), bin: bin, flags: mode.flags}
			if err := p.run((ncuts+i)/len(modes), mode.logs); err != nil {
				p.fail(t, seed, err)
			}
			t.Logf("%+v", p.stats)
		})
	}
}

// TestCreation kills the writer at each change that it makes until its new store is open.
// The next writer finds the store, or a part of its creation, none of it durable perhaps,
// and the power is cut under that one.
func TestCreation(t *testing.T) {
	const nchanges, nrounds = 9, 3
	seed := seedOf(t)
	m := start(t, Options{})
	bin := build(t)
	for i := range 2 * nrounds * nchanges {
		p := &powerCuts{m: m, rnd: rand.New(rand.NewPCG(seed, uint64(i))), bin: bin}
		err := p.format(Options{NoLinks: i%2 == 1})
		if err == nil {
			err = p.trial.kill(i / 2 % nchanges)
		}
		if err == nil {
			err = p.trial.cut(p.rnd.IntN(30))
		}
		if err != nil {
			p.fail(t, seed, err)
		}
	}
}

// powerCuts are the cuts under the writer in one mode.
type powerCuts struct {
	m     *Machine
	rnd   *rand.Rand
	bin   string
	flags []string
	fault seeded.Fault

	store *store
	trial *trial
	stats struct{ ncuts, nkills, nabsent, nrecovered, nstores, ntransactions, nlogged int }
}

// run makes so many cuts, and returns the first fault. Where logs is true, it makes more
// until one of the writers had logged commits: by chance each of a few may end before that.
func (p *powerCuts) run(ncuts int, logs bool) error {
	const mostMore = 200
	for i := 0; i < ncuts || logs && p.stats.nlogged == 0; i++ {
		if i == ncuts+mostMore {
			return errors.New("no writer had logged commits")
		}
		if err := p.cut(); err != nil {
			return err
		}
	}
	return nil
}

// cut makes one cut, on a new disk now and then, and after a kill now and then. It leaves
// the recovery to the writer half of the time, so that the next cut can hit it.
func (p *powerCuts) cut() error {
	if p.trial == nil || p.rnd.IntN(6) == 0 {
		if err := p.format(Options{NoLinks: p.rnd.IntN(4) == 0}); err != nil {
			return err
		}
	}
	before := p.trial.least
	defer func() { p.stats.nlogged += p.trial.takeLogged() }()
	if p.rnd.IntN(4) == 0 {
		p.stats.nkills++
		if err := p.trial.kill(drawInstant(p.rnd)); err != nil {
			return err
		}
	}
	p.stats.ncuts++
	if err := p.trial.cut(drawInstant(p.rnd)); err != nil {
		return err
	}
	p.stats.ntransactions += p.trial.least - before
	if p.trial.least == absent {
		p.stats.nabsent++
		return nil
	}
	if p.rnd.IntN(2) == 0 {
		return nil
	}
	p.stats.nrecovered++
	n, err := p.store.recover(p.trial.path)
	if err != nil {
		return err
	}
	return p.trial.found(n)
}

// format begins anew, with an empty disk and another sequence of transactions.
func (p *powerCuts) format(opts Options) error {
	p.store = newStore(p.bin, p.flags, p.fault, p.rnd.Uint64())
	p.trial = newTrial(p.m, p.rnd, p.store)
	p.stats.nstores++
	return p.m.Format(opts)
}

// fail ends the test with all that is needed to see the fault again.
func (p *powerCuts) fail(t *testing.T, seed uint64, err error) {
	t.Helper()
	cuts := ""
	if s := os.Getenv("FOLIO_CUTS"); s != "" {
		cuts = " FOLIO_CUTS=" + s
	}
	happened := p.trial.happened[max(0, len(p.trial.happened)-4):]
	t.Fatalf("%v\nthe writer's flags: %q, -seed %d\nwhat happened last:\n  %s\nthe store as the last boot found it: %s\n"+
		"repeat with: FOLIO_SEED=%d%s go test -C fuzz/powercut -count=1 -run '^%s$'",
		err, p.flags, p.store.seed, strings.Join(happened, "\n  "), p.keep(seed), seed, cuts, t.Name())
}

// keep keeps the store as the last boot found it, and says where.
func (p *powerCuts) keep(seed uint64) string {
	img, err := p.m.Image(filepath.Base(p.trial.path))
	if err == nil && img == nil {
		return "none"
	}
	if err != nil {
		return err.Error()
	}
	path := filepath.Join(os.TempDir(), fmt.Sprintf("folio-powercut-%d.folio", seed))
	if err := os.WriteFile(path, img, 0o600); err != nil {
		return err.Error()
	}
	return path
}
