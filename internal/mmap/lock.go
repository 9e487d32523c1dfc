//go:build unix

// The lock on the whole data file, which decides who may open a store.

package mmap

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLocked is wrapped by Lock's error where others hold the file.
var ErrLocked = errors.New("file is locked")

// How long Lock sleeps between two tries: short at first, since most holders
// are just opening, and never long enough for a human to notice.
const (
	minLockPause = time.Millisecond
	maxLockPause = 25 * time.Millisecond
)

// Lock locks the whole file, shared or exclusively, against others that call
// Lock: other processes and other Files of this process alike. The lock belongs
// to this File (to its open file description), ends with Unlock, Close or the
// process, and is advisory: it stops no read and no write.
//
// Where others hold it, Lock tries again until timeout has passed (0: it tries
// once) and then fails with an error that wraps ErrLocked and names the
// holders, as far as they can be found out. An exclusive lock needs a file that
// is not read-only.
//
// A File that holds the lock changes its kind by calling Lock again. On Linux
// (OFD locks) that is one step, and a failed one leaves the lock as it was;
// elsewhere (flock) the lock is given up in between and may be lost.
func (f *File) Lock(exclusive bool, timeout time.Duration) error {
	if exclusive && f.readOnly {
		return f.fail("lock", fmt.Errorf("exclusively, but opened read-only: %w", fs.ErrPermission))
	}
	deadline := time.Now().Add(timeout)
	for pause := minLockPause; ; pause = min(2*pause, maxLockPause) {
		err := f.use("lock", func(fd int) error { return tryLock(fd, exclusive) })
		if err == nil || !isBusy(err) {
			return err
		}
		left := time.Until(deadline)
		if left <= 0 {
			return f.lockedError()
		}
		time.Sleep(min(pause, left))
	}
}

// Unlock gives up the lock. Without one it does nothing.
func (f *File) Unlock() error { return f.use("unlock", unlock) }

// isBusy reports whether err means that others hold the lock: POSIX allows
// both numbers.
func isBusy(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES)
}

// lockedError returns an ErrLocked that names the holders where it can.
func (f *File) lockedError() error {
	names := ""
	err := f.use("lock", func(fd int) error {
		names = holders(fd)
		return nil
	})
	if err != nil {
		return err
	}
	if names == "" {
		return f.fail("lock", ErrLocked)
	}
	return f.fail("lock", fmt.Errorf("%w by %s", ErrLocked, names))
}
