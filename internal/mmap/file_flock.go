//go:build unix && !linux

// What the systems without Linux's own calls share: flock(2), a temporary file
// for memory, a whole sync for a range.

package mmap

import "golang.org/x/sys/unix"

func flushRange(fd int, _ []byte) error { return datasync(fd) }

func dropCache(int, int64, int64) error { return nil }

func readAhead(int, int64, int64) error { return nil }

func memoryFd() (int, error) { return tempFd() }

func tryLock(fd int, exclusive bool) error {
	kind := unix.LOCK_SH
	if exclusive {
		kind = unix.LOCK_EX
	}
	return unix.Flock(fd, kind|unix.LOCK_NB)
}

func unlock(fd int) error { return unix.Flock(fd, unix.LOCK_UN) }

// holders names nobody: there is no portable way to find out.
func holders(int) string { return "" }
