package powercut

// trial_linux_test.go runs a program on a machine, kills it or cuts the power, and
// compares what is found afterwards with what the program said before.

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// program is what runs on a machine. It goes through states 0, 1, 2, and so on, and
// tells on standard output: `open N` which state it found, `begin N` before it goes to
// state N, `ack N` once that is durable, and may tell `logged N` once.
type program interface {
	command(path string) *exec.Cmd
	// inspect returns the state at path, changing nothing. Where there is none the
	// error is fs.ErrNotExist.
	inspect(path string) (n int, err error)
}

// absent is the state before the program has made its file.
const absent = -1

// trial is one program on one disk, through any number of cuts.
type trial struct {
	m        *Machine
	rnd      *rand.Rand
	program  program
	path     string
	least    int // the state that is durable for sure
	most     int // the last state that may be there
	happened []string
	nlogged  int // runs of the program in which it had redo records
}

func newTrial(m *Machine, rnd *rand.Rand, p program) *trial {
	return &trial{m: m, rnd: rnd, program: p, path: filepath.Join(m.Dir, "store"), least: absent}
}

// cut runs the program, cuts the power after n more changes of the disk, boots again, and
// finds out what is there. The error says what should not be so.
func (tr *trial) cut(n int) error {
	if err := tr.run(n); err != nil {
		return err
	}
	what, err := tr.m.Reboot(tr.rnd.Uint64())
	if err != nil {
		return err
	}
	tr.note(n, what)
	return tr.look()
}

// kill runs the program and kills it after n more changes of the disk. What it wrote
// stays, and is no more durable than it was: the next program must see to that before it
// relies on it.
func (tr *trial) kill(n int) error {
	if err := tr.run(n); err != nil {
		return err
	}
	tr.note(n, "killed")
	return tr.m.Resume()
}

func (tr *trial) note(n int, what string) {
	tr.happened = append(tr.happened, fmt.Sprintf("after %d changes, at states %d to %d: %s", n, tr.least, tr.most, what))
}

// run runs the program for n more changes of the disk, kills it, and takes note of what it said.
func (tr *trial) run(n int) error {
	stopped, err := tr.m.Arm(n)
	if err != nil {
		return err
	}
	cmd := tr.program.command(tr.path)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	select {
	case err = <-stopped:
		cmd.Process.Kill()
		<-exited
	case exit := <-exited:
		// It may have ended because of the stop.
		select {
		case err = <-stopped:
		case <-time.After(time.Second):
			err = fmt.Errorf("the program ended by itself: %w", exit)
		}
	}
	return errors.Join(err, fault(complaints.String()), tr.hear(out.String()))
}

// fault returns what a program wrote to standard error as an error. It may complain of
// the stop there, and of nothing else, and may not crash.
func fault(complaints string) error {
	isOfStop := strings.Contains(complaints, syscall.EIO.Error()) && !strings.Contains(complaints, "goroutine ")
	if complaints == "" || isOfStop {
		return nil
	}
	return errors.New(complaints)
}

// hear takes note of what the program said.
func (tr *trial) hear(said string) error {
	for line := range strings.Lines(said) {
		var what string
		var n int
		if _, err := fmt.Sscanf(line, "%s %d\n", &what, &n); err != nil {
			return fmt.Errorf("the program says %q: %w", line, err)
		}
		switch what {
		case "open":
			if err := tr.found(n); err != nil {
				return fmt.Errorf("the program: %w", err)
			}
		case "begin":
			tr.most = max(tr.most, n)
		case "ack":
			tr.least = max(tr.least, n)
		case "logged":
			tr.nlogged++
		}
	}
	return nil
}

// takeLogged returns how many runs had redo records since it was called last.
func (tr *trial) takeLogged() (n int) {
	n, tr.nlogged = tr.nlogged, 0
	return n
}

// look finds out which state is there.
func (tr *trial) look() error {
	n, err := tr.program.inspect(tr.path)
	if errors.Is(err, fs.ErrNotExist) {
		n, err = absent, nil
	}
	if err != nil {
		return err
	}
	return tr.found(n)
}

// found takes note that state n was found.
func (tr *trial) found(n int) error {
	if n < tr.least || n > tr.most {
		return fmt.Errorf("state %d found, but %d was durable, and %d the last begun", n, tr.least, tr.most)
	}
	tr.least, tr.most = n, max(n, 0) // an absent file may be made again
	return nil
}
