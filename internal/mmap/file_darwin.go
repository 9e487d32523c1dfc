// What only macOS has: F_FULLFSYNC, F_PREALLOCATE, RENAME_EXCL.

package mmap

import "golang.org/x/sys/unix"

const noReserve = unix.MAP_NORESERVE

// datasync asks the drive to empty its cache, which fsync does not on macOS.
// Only where the file system does not know the request is fsync tried: after a
// real failure it might succeed, and hide it.
func datasync(fd int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_FULLFSYNC, 0)
	if isUnsupported(err) {
		return unix.Fsync(fd)
	}
	return err
}

// SyncsApart is false: two syncs at once might hide a failed write from one another.
const SyncsApart = false

func writeOutRange(int, int64, int64) error { return nil }

func writeVec(fd int, bufs [][]byte, off int64) (int, error) {
	return unix.Pwritev(fd, bufs, off)
}

// allocate gets room behind the end of the file's allocation, then lets the
// file have it.
func allocate(fd int, off, nbytes int64) error {
	now, err := sizeOf(fd)
	end := off + nbytes
	if err != nil || now >= end {
		return err
	}
	store := unix.Fstore_t{Flags: unix.F_ALLOCATEALL, Posmode: unix.F_PEOFPOSMODE, Length: end - now}
	err = unix.FcntlFstore(uintptr(fd), unix.F_PREALLOCATE, &store)
	if err != nil && !isUnsupported(err) {
		return err
	}
	return unix.Ftruncate(fd, end)
}

func isUnsupported(err error) bool {
	switch err {
	case unix.ENOTSUP, unix.EOPNOTSUPP, unix.EINVAL, unix.ENOTTY, unix.ENOSYS:
		return true
	}
	return false
}

func renameNoReplace(from, to string) error { return unix.RenamexNp(from, to, unix.RENAME_EXCL) }

func adviseHuge([]byte) {}

func populate([]byte) {}
