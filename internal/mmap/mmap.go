//go:build unix

// Package mmap is the only place that calls the kernel for a store's data
// file: it opens, maps, writes, grows, locks and syncs it, and never looks at
// what a page holds.
//
// What it keeps:
//
//   - The mapping is read-only; every change goes through pwrite.
//   - A nil error of Sync, or of SyncRange for its range, means that what was
//     written before is on stable storage (a Memory file has none).
//   - A failed sync is reported as it is and never tried again: the kernel
//     may have dropped the dirty pages, so that a second try would lie.
//   - Every operation that tests want to see or break passes through the one
//     seam in hook.go, which costs a nil check when unused.
//
// On Linux, macOS, FreeBSD, NetBSD and DragonFly a mapping and pwrite share
// one page cache. OpenBSD has no unified cache: there a mapping may show what
// was before a write, and a store must not be shared through this package.
package mmap

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrNotRegular is wrapped by Open's error for a path that is a directory,
// a pipe, a socket or a device.
var ErrNotRegular = errors.New("not a regular file")

// maxVec is IOV_MAX: the most buffers that one pwritev takes.
const maxVec = 1024

// File is the data file of a store. All methods are safe for concurrent use,
// Close included: it waits for calls in flight. Errors name the path, and wrap
// the kernel's (syscall.Errno), or fs.ErrClosed after Close.
type File struct {
	path     string
	readOnly bool
	memory   bool // backed by no disk: nothing to sync
	hook     Hook // nil but in tests

	// mu is read-locked around each use of fd: a number used after its close
	// could be another file by then, and get our pages.
	mu sync.RWMutex
	fd int // -1 once closed

	private     *Mapping // what is written to once the file went private, else nil
	privateSize int64
}

// Open opens the existing regular file at path, for reading only or for
// reading and writing. Anything but a regular file is refused with an error
// that wraps ErrNotRegular, a missing one with fs.ErrNotExist. Nothing is
// changed or read, and no lock is taken.
func Open(path string, readOnly bool) (*File, error) {
	// Looking first keeps the hands off devices and sockets, whose mere open
	// has effects or fails with a message that helps nobody.
	info, err := os.Stat(path)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: bare(err)}
	}
	if err := checkRegular(path, info.Mode()); err != nil {
		return nil, err
	}
	fd, err := openFd(path, readOnly)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := newFile(path, fd)
	f.readOnly = readOnly
	return f, nil
}

// openFd opens path and proves on the descriptor itself that it is a regular
// file, since the path may lead elsewhere by now.
func openFd(path string, readOnly bool) (int, error) {
	flags := unix.O_RDWR
	if readOnly {
		flags = unix.O_RDONLY
	}
	var fd int
	// O_NONBLOCK: the open of a pipe that took the file's place must not hang.
	err := retry(func() (err error) {
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return -1, err
	}
	var stat unix.Stat_t
	err = unix.Fstat(fd, &stat)
	if err == nil && stat.Mode&unix.S_IFMT != unix.S_IFREG {
		err = ErrNotRegular
	}
	if err == nil {
		err = unix.SetNonblock(fd, false)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Memory returns a new empty file that no disk backs (where the system offers
// it) and no other process sees. It goes with its last descriptor and mapping.
// Syncs and DropCache do nothing on it. The name is only what Path and errors
// say, and what Intercept compares.
func Memory(name string) (*File, error) {
	fd, err := memoryFd()
	if err != nil {
		return nil, &fs.PathError{Op: "create in memory", Path: name, Err: err}
	}
	f := newFile(name, fd)
	f.memory = true
	return f, nil
}

// newFile returns the read-write File that owns fd.
func newFile(path string, fd int) *File {
	return &File{path: path, fd: fd, hook: hookFor(path)}
}

// Path returns the path as it was given to Open, or the name given to Memory.
func (f *File) Path() string { return f.path }

// ReadOnly reports whether the file was opened for reading only.
func (f *File) ReadOnly() bool { return f.readOnly }

// Size returns the file's length in bytes.
func (f *File) Size() (int64, error) {
	var nbytes int64
	err := f.use("stat", func(fd int) (err error) {
		if f.private != nil {
			nbytes = f.privateSize
			return nil
		}
		nbytes, err = sizeOf(fd)
		return err
	})
	return nbytes, err
}

// Close gives up the lock and closes the file, once calls in flight have
// returned. Mappings stay valid until their own Unmap. Closing again does
// nothing and returns nil.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fd < 0 {
		return nil
	}
	// A mapping keeps the open file description alive, and with it the lock:
	// closing alone would leave the file locked until the last Unmap. That
	// there was no lock, or that the system has none, is no error here.
	_ = unlock(f.fd)
	err := unix.Close(f.fd)
	f.fd = -1
	if err == unix.EINTR {
		err = nil // the descriptor is gone all the same: a retry could hit another's
	}
	return f.fail("close", err)
}

// Pread fills buf from byte off on, as io.ReaderAt does: where fewer than
// len(buf) bytes are left it returns their number and io.EOF.
func (f *File) Pread(buf []byte, off int64) (int, error) {
	if f.hook == nil {
		return f.pread(buf, off)
	}
	return f.preadHooked(buf, off)
}

func (f *File) pread(buf []byte, off int64) (int, error) {
	if f.private != nil {
		return f.privateRead(buf, off)
	}
	nread, atEnd := 0, false
	err := f.use("read", func(fd int) (err error) {
		nread, atEnd, err = readFull(fd, buf, off)
		return err
	})
	if err == nil && atEnd {
		err = io.EOF // bare, as callers compare it
	}
	return nread, err
}

// Pwritev writes bufs one after another from byte off on: all of them, or it
// returns an error and any part of them may have been written. The caller
// keeps bufs and what they hold. The kernel may still hold the data in memory
// only: see Sync.
func (f *File) Pwritev(bufs [][]byte, off int64) error {
	if f.hook == nil {
		return f.pwritev(bufs, off)
	}
	return f.hook.Do(
		Op{Kind: OpWrite, Off: off, NBytes: total(bufs), Bufs: bufs},
		func() error { return f.pwritev(bufs, off) },
	)
}

func (f *File) pwritev(bufs [][]byte, off int64) error {
	if f.private != nil {
		return f.privateWrite(bufs, off)
	}
	return f.change("write", func(fd int) error { return writeFull(fd, bufs, off) })
}

// Allocate makes room on the disk for the nbytes bytes from off on, and makes
// the file that long where it is shorter, so that a full disk shows here
// (ENOSPC) and not in a write or a sync. New bytes read as zero. On an error
// the file may have grown in part.
//
// Where the file system can't allocate ahead the file is only made longer, and
// a full disk may show later: on Linux some network and FUSE file systems, on
// the BSDs all. macOS allocates what lies behind the end, and fills no holes.
func (f *File) Allocate(off, nbytes int64) error {
	if f.hook == nil {
		return f.allocate(off, nbytes)
	}
	return f.hook.Do(
		Op{Kind: OpAllocate, Off: off, NBytes: nbytes},
		func() error { return f.allocate(off, nbytes) },
	)
}

func (f *File) allocate(off, nbytes int64) error {
	if f.private != nil {
		return f.privateResize(off+nbytes, true)
	}
	return f.change("allocate", func(fd int) error {
		if off < 0 || nbytes <= 0 || off+nbytes < off {
			return unix.EINVAL
		}
		return allocate(fd, off, nbytes)
	})
}

// Truncate makes the file nbytes long. Touching a mapping behind the new end
// is SIGBUS from then on.
func (f *File) Truncate(nbytes int64) error {
	if f.hook == nil {
		return f.truncate(nbytes)
	}
	return f.hook.Do(
		Op{Kind: OpTruncate, NBytes: nbytes},
		func() error { return f.truncate(nbytes) },
	)
}

func (f *File) truncate(nbytes int64) error {
	if f.private != nil {
		return f.privateResize(nbytes, false)
	}
	return f.change("truncate", func(fd int) error { return unix.Ftruncate(fd, nbytes) })
}

// Sync makes everything written so far durable, with the file's length and
// allocation: fdatasync on Linux, F_FULLFSYNC on macOS (fsync where the file
// system has none), fsync elsewhere. After an error nothing is known about
// what was written since the last good sync, and a later nil proves nothing.
func (f *File) Sync() error {
	if f.hook == nil {
		return f.sync()
	}
	return f.hook.Do(Op{Kind: OpSync}, f.sync)
}

func (f *File) sync() error {
	if f.memory {
		return f.use("sync", func(int) error { return nil })
	}
	return f.use("sync", datasync)
}

// SyncRange makes the nbytes bytes from off on durable, rounded out to whole
// pages of the machine, and promises nothing about others. An empty range is
// done at once. A caller who changed the file's length or allocation since the
// last Sync calls Sync.
//
// On Linux this is msync(MS_SYNC) through m, a mapping made by this File that
// the caller keeps mapped during the call. msync flushes what pwrite wrote
// through a PROT_READ, MAP_SHARED mapping, but only where the mapped descriptor
// was opened O_RDWR: through an O_RDONLY one the kernel drops the mapping's
// shared flag, so that msync reports success and flushes nothing. So where f is
// read-only, where m is not f's or where the range leaves m, all is synced, as
// by Sync. On other systems it always is. Errors are as for Sync.
func (f *File) SyncRange(m *Mapping, off, nbytes int64) error {
	if nbytes == 0 {
		return nil
	}
	if f.readOnly || !m.covers(f, off, nbytes) {
		return f.Sync()
	}
	if f.hook == nil {
		return f.syncRange(m, off, nbytes)
	}
	return f.hook.Do(
		Op{Kind: OpSyncRange, Off: off, NBytes: nbytes},
		func() error { return f.syncRange(m, off, nbytes) },
	)
}

func (f *File) syncRange(m *Mapping, off, nbytes int64) error {
	return f.use("sync", func(fd int) error {
		if f.memory {
			return nil
		}
		return flushRange(fd, m.aligned(off, nbytes))
	})
}

// DropCache asks the kernel to forget its cached copies of the nbytes bytes
// from off on (0: to the end), so that the next read asks the disk. Dirty and
// mapped pages stay. Only Linux does it; elsewhere nothing happens.
func (f *File) DropCache(off, nbytes int64) error {
	if f.hook == nil {
		return f.dropCache(off, nbytes)
	}
	return f.hook.Do(
		Op{Kind: OpDropCache, Off: off, NBytes: nbytes},
		func() error { return f.dropCache(off, nbytes) },
	)
}

func (f *File) dropCache(off, nbytes int64) error {
	return f.use("drop cache of", func(fd int) error {
		if f.memory {
			return nil
		}
		return dropCache(fd, off, nbytes)
	})
}

// ReadAhead asks the kernel to read the nbytes bytes from off on beside what the caller
// does, since they will be needed. It is advice. Only Linux takes it; elsewhere nothing
// happens.
func (f *File) ReadAhead(off, nbytes int64) error {
	return f.use("read ahead", func(fd int) error {
		if f.memory {
			return nil
		}
		return readAhead(fd, off, nbytes)
	})
}

// use calls fn with the descriptor, which stays open meanwhile, again while a
// signal interrupts it, and names op and path in its error.
func (f *File) use(op string, fn func(fd int) error) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.fd < 0 {
		return f.fail(op, fs.ErrClosed)
	}
	for {
		if err := fn(f.fd); err != unix.EINTR {
			return f.fail(op, err)
		}
	}
}

// change is use for what changes the file, which a read-only one refuses.
func (f *File) change(op string, fn func(fd int) error) error {
	if f.readOnly {
		return f.fail(op, fmt.Errorf("opened read-only: %w", fs.ErrPermission))
	}
	return f.use(op, fn)
}

// fail wraps err, unless nil, with the operation and the path.
func (f *File) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: f.path, Err: err}
}

// readFull fills buf from off on; atEnd says that the file ended before.
func readFull(fd int, buf []byte, off int64) (nread int, atEnd bool, err error) {
	for nread < len(buf) {
		n, err := unix.Pread(fd, buf[nread:], off+int64(nread))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nread, false, err
		case n == 0:
			return nread, true, nil
		default:
			nread += n
		}
	}
	return nread, false, nil
}

// writeFull writes all of bufs from off on.
func writeFull(fd int, bufs [][]byte, off int64) error {
	for bufs = skipEmpty(bufs); len(bufs) > 0; bufs = skipEmpty(bufs) {
		n, err := writeVec(fd, bufs[:min(len(bufs), maxVec)], off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrShortWrite
		}
		off += int64(n)
		var tail []byte
		bufs, tail = consume(bufs, n)
		if err := writeOne(fd, tail, off); err != nil {
			return err
		}
		off += int64(len(tail))
	}
	return nil
}

// writeOne writes all of buf at off.
func writeOne(fd int, buf []byte, off int64) error {
	for len(buf) > 0 {
		n, err := unix.Pwrite(fd, buf, off)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return io.ErrShortWrite
		}
		buf, off = buf[n:], off+int64(n)
	}
	return nil
}

// skipEmpty drops leading empty buffers, so that a write of 0 bytes always
// means that the kernel took none.
func skipEmpty(bufs [][]byte) [][]byte {
	for len(bufs) > 0 && len(bufs[0]) == 0 {
		bufs = bufs[1:]
	}
	return bufs
}

// consume splits what is left of bufs after nbytes bytes of them were written
// into the unwritten tail of the buffer that the write ended in, and the whole
// ones after it. It changes nothing: bufs belong to the caller.
func consume(bufs [][]byte, nbytes int) (rest [][]byte, tail []byte) {
	for i, buf := range bufs {
		if nbytes < len(buf) {
			return bufs[i+1:], buf[nbytes:]
		}
		nbytes -= len(buf)
		if nbytes == 0 {
			return bufs[i+1:], nil
		}
	}
	return nil, nil
}

// total returns the summed length of bufs in bytes.
func total(bufs [][]byte) (nbytes int64) {
	for _, buf := range bufs {
		nbytes += int64(len(buf))
	}
	return nbytes
}

// grow makes the file at least nbytes long, without room on the disk for it.
func grow(fd int, nbytes int64) error {
	now, err := sizeOf(fd)
	if err != nil || now >= nbytes {
		return err
	}
	return unix.Ftruncate(fd, nbytes)
}

// sizeOf returns the length in bytes of the file that fd is open on.
func sizeOf(fd int) (int64, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return 0, err
	}
	return stat.Size, nil
}

// retry calls fn again while a signal interrupts it.
func retry(fn func() error) error {
	for {
		if err := fn(); err != unix.EINTR {
			return err
		}
	}
}

// bare takes the operation and the path off an error of this package or of
// os, for those who add their own. It looks no deeper: a test's error stays whole.
func bare(err error) error {
	if pathErr, ok := err.(*fs.PathError); ok {
		return pathErr.Err
	}
	return err
}

// checkRegular returns an error that says what path is, if no regular file.
func checkRegular(path string, mode fs.FileMode) error {
	what := "a device"
	switch {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		what = "a directory"
	case mode&fs.ModeNamedPipe != 0:
		what = "a named pipe"
	case mode&fs.ModeSocket != 0:
		what = "a socket"
	}
	return &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("is %s, %w", what, ErrNotRegular)}
}

// tempFd opens a new temporary file that has lost its name already: what
// Memory uses where the kernel has no anonymous files.
func tempFd() (int, error) {
	temp, err := os.CreateTemp("", "folio-*")
	if err != nil {
		return -1, err
	}
	defer temp.Close()
	if err := os.Remove(temp.Name()); err != nil {
		return -1, err
	}
	// A duplicate, since the os.File closes its own when collected.
	return unix.FcntlInt(temp.Fd(), unix.F_DUPFD_CLOEXEC, 0)
}
