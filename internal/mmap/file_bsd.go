//go:build freebsd || openbsd || netbsd || dragonfly

// What the BSDs do their own way, for want of better calls in x/sys.

package mmap

import "golang.org/x/sys/unix"

// noReserve is nothing: the BSDs know no such flag, or ignore it.
const noReserve = 0

func datasync(fd int) error { return unix.Fsync(fd) }

// SyncsApart is false: two syncs at once might hide a failed write from one another.
const SyncsApart = false

func writeOutRange(int, int64, int64) error { return nil }

// writeVec writes the first buffer only; the caller goes on with the next.
// Not all BSDs have pwritev in x/sys.
func writeVec(fd int, bufs [][]byte, off int64) (int, error) {
	return unix.Pwrite(fd, bufs[0], off)
}

// allocate only makes the file longer. FreeBSD's posix_fallocate does nothing
// for ZFS, and UFS and ZFS find out in the write, not in the sync, that the
// disk is full, which is what matters.
func allocate(fd int, off, nbytes int64) error { return grow(fd, off+nbytes) }

func renameNoReplace(string, string) error { return unix.ENOTSUP }

func adviseHuge([]byte) {}

func populate([]byte) {}
