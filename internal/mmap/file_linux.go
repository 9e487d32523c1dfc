// What only Linux has: fdatasync, fallocate, memfd, OFD locks, /proc.

package mmap

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// noReserve keeps untouched anonymous memory out of the commit limit.
const noReserve = unix.MAP_NORESERVE

func datasync(fd int) error { return unix.Fdatasync(fd) }

func flushRange(_ int, pages []byte) error { return unix.Msync(pages, unix.MS_SYNC) }

// SyncsApart says that each open file description is told of a failed write by its own
// next sync (errseq, since Linux 4.13).
const SyncsApart = true

func writeOutRange(fd int, off, nbytes int64) error {
	return unix.SyncFileRange(fd, off, nbytes,
		unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
}

func writeVec(fd int, bufs [][]byte, off int64) (int, error) {
	return unix.Pwritev(fd, bufs, off)
}

func allocate(fd int, off, nbytes int64) error {
	err := unix.Fallocate(fd, 0, off, nbytes)
	if err == unix.EOPNOTSUPP || err == unix.ENOSYS {
		return grow(fd, off+nbytes)
	}
	return err
}

func dropCache(fd int, off, nbytes int64) error {
	return unix.Fadvise(fd, off, nbytes, unix.FADV_DONTNEED)
}

func readAhead(fd int, off, nbytes int64) error {
	return unix.Fadvise(fd, off, nbytes, unix.FADV_WILLNEED)
}

func renameNoReplace(from, to string) error {
	return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
}

// memoryFd opens an anonymous file in memory.
func memoryFd() (int, error) {
	const name = "folio" // seen in /proc only
	// Hardened systems demand the flag, kernels before 6.3 refuse it.
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL {
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	}
	if err == unix.ENOSYS {
		return tempFd()
	}
	return fd, err
}

// tryLock uses an OFD lock: a classic POSIX lock would be lost as soon as
// anyone in the process closes any descriptor of the file.
func tryLock(fd int, exclusive bool) error {
	kind := int16(unix.F_RDLCK)
	if exclusive {
		kind = unix.F_WRLCK
	}
	return setLock(fd, kind)
}

func unlock(fd int) error { return setLock(fd, unix.F_UNLCK) }

// setLock sets the kind of lock on the whole file: Len 0 is to the end, however
// far that moves.
func setLock(fd int, kind int16) error {
	lock := unix.Flock_t{Type: kind, Whence: io.SeekStart}
	return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &lock)
}

// inode identifies a file while the system runs.
type inode struct {
	devMajor, devMinor uint32
	number             uint64
}

// holders names the processes that hold a lock on fd's file through another
// descriptor, such as "process 12 (kvtool), this process". It is empty where
// none can be seen: those of other users and containers, and the kernel's.
func holders(fd int) string {
	own, ok := inodeAt("/proc/self/fd/" + strconv.Itoa(fd))
	entries, err := os.ReadDir("/proc")
	if !ok || err != nil {
		return ""
	}
	var names []string
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		exceptFd := -1
		if pid == os.Getpid() {
			exceptFd = fd
		}
		if holdsLock(pid, own, exceptFd) {
			names = append(names, processName(pid))
		}
	}
	return strings.Join(names, ", ")
}

// holdsLock reports whether a descriptor of process pid, other than exceptFd,
// is open on the file and holds a lock.
func holdsLock(pid int, file inode, exceptFd int) bool {
	dir := fmt.Sprintf("/proc/%d/", pid)
	entries, err := os.ReadDir(dir + "fd")
	if err != nil {
		return false // gone, or another user's
	}
	for _, entry := range entries {
		name := entry.Name()
		if name == strconv.Itoa(exceptFd) {
			continue
		}
		found, ok := inodeAt(dir + "fd/" + name)
		if ok && found == file && showsLock(dir+"fdinfo/"+name) {
			return true
		}
	}
	return false
}

// showsLock reports whether a descriptor's fdinfo lists a lock. Where it can't
// be read, the descriptor being open has to be proof enough.
func showsLock(fdinfo string) bool {
	info, err := os.ReadFile(fdinfo)
	return err != nil || bytes.Contains(info, []byte("\nlock:"))
}

// inodeAt identifies the file that a path leads to, from what the kernel has
// cached: to ask a network server that is gone could hang for ever.
func inodeAt(path string) (inode, bool) {
	var stat unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &stat)
	return inode{stat.Dev_major, stat.Dev_minor, stat.Ino}, err == nil
}

// processName returns how a message calls a process. A process names itself as
// it likes, so what would play with a terminal is left out.
func processName(pid int) string {
	if pid == os.Getpid() {
		return "this process"
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return fmt.Sprintf("process %d", pid)
	}
	printable := func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}
	return fmt.Sprintf("process %d (%s)", pid, strings.Map(printable, string(comm)))
}

// adviseHuge fails where the kernel was built without large pages.
func adviseHuge(b []byte) { _ = unix.Madvise(b, unix.MADV_HUGEPAGE) }

// populate fails before Linux 5.14.
func populate(b []byte) { _ = unix.Madvise(b, unix.MADV_POPULATE_WRITE) }
