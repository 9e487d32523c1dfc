package main

// child.go is the process that commits and is killed: this program, started once more
// with an order in its environment. It writes one byte for each commit that returned.

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
)

// childVariable is the environment variable that holds a child's order.
const childVariable = "FOLIO_BENCH_CHILD"

// childOrder says what a child does.
type childOrder struct {
	Engine, Dir string
	Seed        uint64
	Round       int
	Pairs       int
	Sorted      bool
	Aging       int
	Batch       int // puts in a commit
}

// start returns the model of the filled store, and the random numbers of the round:
// what parent and child make the same commits from.
func (c *childOrder) start() (*model, *rand.Rand) {
	return filledModel(c.Seed, c.Pairs, c.Sorted, c.Aging), roundRand(c.Seed, c.Round)
}

// runIfChild does the order that this process was started with, if any, and then does
// not return.
func runIfChild() {
	text := os.Getenv(childVariable)
	if text == "" {
		return
	}
	fmt.Fprintln(os.Stderr, "child:", runChild(text, os.Stdout))
	os.Exit(1)
}

// runChild commits until it is killed or fails.
func runChild(text string, acks io.Writer) error {
	var order childOrder
	if err := json.Unmarshal([]byte(text), &order); err != nil {
		return err
	}
	e, err := engineByName(order.Engine)
	if err != nil {
		return err
	}
	m, rnd := order.start()
	o, err := openIn(e, order.Dir, m, openOptions{npairs: order.Pairs})
	if err != nil {
		return err
	}
	for {
		if err := o.store.apply(m.puts(rnd, order.Batch)); err != nil {
			return err
		}
		if _, err := acks.Write([]byte{'.'}); err != nil {
			return err
		}
	}
}

// runAndKill starts a child, kills it when ncommits commits have returned, and tells
// how many had by then.
func runAndKill(order childOrder, ncommits int) (nacked int, err error) {
	text, err := json.Marshal(order)
	if err != nil {
		return 0, err
	}
	program, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	cmd.Stderr = os.Stderr
	acks, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	nacked, err = countAndKill(bufio.NewReader(acks), ncommits, cmd.Process)
	if err != nil {
		return nacked, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	if err := cmd.Wait(); cmd.ProcessState.Exited() {
		return nacked, fmt.Errorf("child ended before it was killed: %w", err)
	}
	return nacked, nil
}

// countAndKill counts acknowledgements to the end, and kills the process at the n-th.
func countAndKill(acks io.ByteReader, n int, process *os.Process) (nacked int, err error) {
	for {
		if _, err := acks.ReadByte(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nacked, err
		}
		if nacked++; nacked == n {
			if err := process.Kill(); err != nil {
				return nacked, err
			}
		}
	}
	if nacked < n {
		return nacked, fmt.Errorf("child made %d commits of %d", nacked, n)
	}
	return nacked, nil
}
