package powercut

// liar_linux_test.go is the test of the test: programs that promise too much must be found
// out, and an honest one not. The writer with faults built in is among them.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/foliokv/folio/internal/seeded"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// counterEnv tells a test binary that it is to be a counter, and of which kind.
const counterEnv = "FOLIO_POWERCUT_COUNTER"

// What a counter does wrong.
const (
	honest   = "nothing"
	noSync   = "it never syncs the file"
	lateSync = "it syncs after the ack"
	noName   = "it never syncs the directory"
)

// counter is a program that keeps a number in a file, more or less durably.
type counter string

func (c counter) command(path string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(self, path)
	cmd.Env = append(os.Environ(), counterEnv+"="+string(c))
	return cmd
}

func (c counter) inspect(path string) (n int, err error) {
	b, err := os.ReadFile(path)
	if err == nil && len(b) < 8 {
		err = fs.ErrNotExist // a cut met its creation
	}
	if err != nil {
		return 0, err
	}
	return int(binary.LittleEndian.Uint64(b)), nil
}

func countIfAsked() {
	if kind := os.Getenv(counterEnv); kind != "" {
		fmt.Fprintln(os.Stderr, counter(kind).count(os.Args[1]))
		os.Exit(1)
	}
}

// count counts until something fails.
func (c counter) count(path string) error {
	n, err := c.inspect(path)
	isNew := errors.Is(err, fs.ErrNotExist)
	if err != nil && !isNew {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if isNew {
		if err := errors.Join(c.set(f, 0), f.Sync(), c.syncDir(filepath.Dir(path))); err != nil {
			return err
		}
	}
	fmt.Println("open", n)
	for {
		n++
		fmt.Println("begin", n)
		if err := c.set(f, n); err != nil {
			return err
		}
		fmt.Println("ack", n)
		if c != lateSync {
			continue
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
}

func (c counter) set(f *os.File, n int) error {
	_, err := f.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(n)), 0)
	if err != nil || c == noSync || c == lateSync {
		return err
	}
	return unix.Fdatasync(int(f.Fd()))
}

func (c counter) syncDir(dir string) error {
	if c == noName {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// cuts makes up to ncuts cuts under a counter, on a new disk every few, and returns the
// first fault.
func (c counter) cuts(m *Machine, rnd *rand.Rand, ncuts int) error {
	var tr *trial
	for i := range ncuts {
		if i%5 == 0 {
			if err := m.Format(Options{}); err != nil {
				return err
			}
			tr = newTrial(m, rnd, c)
		}
		if err := tr.cut(rnd.IntN(20)); err != nil {
			return err
		}
	}
	return nil
}

func TestPrograms(t *testing.T) {
	seed := seedOf(t)
	rnd := rand.New(rand.NewPCG(seed, 0))
	m := start(t, Options{})
	require.NoError(t, counter(honest).cuts(m, rnd, 40), "seed %d", seed)
	for _, wrong := range []counter{noSync, lateSync, noName} {
		err := wrong.cuts(m, rnd, 200)
		require.ErrorContains(t, err, "was durable", "seed %d: %s", seed, wrong)
		t.Logf("%s: %v", wrong, err)
	}
}

// TestSeeded runs a writer with faults built in. What opens its stores here has none.
func TestSeeded(t *testing.T) {
	seed := seedOf(t)
	m := start(t, Options{})
	bin := build(t, "-tags", "folio_seeded")
	for i, c := range []struct {
		fault seeded.Fault
		flags []string
	}{
		{seeded.SyncSkipped, nil},
		{seeded.WaitSkipped, []string{"-async"}},
		{seeded.DurableUnpinned, []string{"-sync", "off"}},
		{seeded.RecoveryUnsynced, []string{"-sync", "off"}},
		{seeded.ProofSkipped, []string{"-sync", "off"}},
	} {
		p := &powerCuts{m: m, rnd: rand.New(rand.NewPCG(seed, uint64(i))), bin: bin, flags: c.flags, fault: c.fault}
		const most = 3000 // one takes 150 at times
		err := p.run(most, false)
		require.Error(t, err, "seed %d: %s", seed, c.fault)
		t.Logf("%s, after %d cuts: %.200v", c.fault, p.stats.ncuts, err)
	}
}
