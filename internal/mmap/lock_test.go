//go:build unix

// Tests of the lock on the whole file, within a process and between two.

package mmap

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// lockHelperEnv names the file that this binary, run as a child, shall hold.
const lockHelperEnv = "FOLIO_TEST_LOCK"

func TestMain(m *testing.M) {
	if path := os.Getenv(lockHelperEnv); path != "" {
		os.Exit(holdLock(path))
	}
	os.Exit(m.Run())
}

// holdLock locks path, says so, and waits for its input to end.
func holdLock(path string) int {
	f, err := Open(path, false)
	if err == nil {
		err = f.Lock(true, 0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("locked")
	io.Copy(io.Discard, os.Stdin)
	return 0
}

func TestLockWithinOneProcess(t *testing.T) {
	first := newStore(t, nil)
	second, third := open(t, first.Path(), false), open(t, first.Path(), true)

	require.NoError(t, first.Lock(true, 0))
	err := second.Lock(false, 0)
	require.ErrorIs(t, err, ErrLocked)
	require.ErrorContains(t, err, first.Path())
	if runtime.GOOS == "linux" {
		require.ErrorContains(t, err, "by this process")
	}
	require.ErrorIs(t, second.Lock(true, 0), ErrLocked)

	require.NoError(t, first.Lock(false, 0), "downgrade")
	require.NoError(t, second.Lock(false, 0))
	require.NoError(t, third.Lock(false, 0), "shared needs no write access")
	require.ErrorIs(t, first.Lock(true, 0), ErrLocked, "others share it")
	require.NoError(t, second.Unlock())
	require.NoError(t, second.Unlock(), "again")
	require.NoError(t, third.Close(), "Close unlocks")
	require.NoError(t, first.Lock(true, 0), "upgrade")
}

func TestCloseUnlocksThoughMapped(t *testing.T) {
	first := newStore(t, filled(10))
	second := open(t, first.Path(), false)
	m := mapped(t, first, 10)
	require.NoError(t, first.Lock(true, 0))
	require.NoError(t, first.Close())
	require.NoError(t, second.Lock(true, 0), "the mapping alone must not hold the lock")
	require.Equal(t, filled(10), m.Data[:10])
}

func TestLockTimeout(t *testing.T) {
	first := newStore(t, nil)
	second := open(t, first.Path(), false)
	require.NoError(t, first.Lock(true, 0))

	const timeout = 60 * time.Millisecond
	start := time.Now()
	require.ErrorIs(t, second.Lock(true, timeout), ErrLocked)
	require.GreaterOrEqual(t, time.Since(start), timeout)

	go func() {
		time.Sleep(30 * time.Millisecond)
		first.Unlock()
	}()
	require.NoError(t, second.Lock(true, time.Minute), "got as soon as it is free")
	require.Less(t, time.Since(start), 30*time.Second)
}

func TestLockNamesOtherProcess(t *testing.T) {
	f := newStore(t, nil)
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), lockHelperEnv+"="+f.Path())
	child.Stderr = os.Stderr
	stdin, err := child.StdinPipe()
	require.NoError(t, err)
	stdout, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "locked\n", line)

	err = f.Lock(false, 0)
	require.ErrorIs(t, err, ErrLocked)
	if runtime.GOOS == "linux" {
		require.ErrorContains(t, err, fmt.Sprintf("by process %d (", child.Process.Pid))
		require.NotContains(t, err.Error(), "this process", "an open descriptor holds no lock")
	}
	t.Log(err)

	require.NoError(t, stdin.Close())
	require.NoError(t, child.Wait())
	require.NoError(t, f.Lock(true, 0), "it went with its holder")
}
