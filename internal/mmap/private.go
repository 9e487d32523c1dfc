//go:build unix

// A file that goes private: it shows what is on the disk, and what is written to it
// from then on stays in this process's memory.

package mmap

import (
	"io"
	"io/fs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// GoPrivate makes f a private copy of itself, of at most nbytes bytes: writes and
// growth stay in memory from here on, also where f was opened for reading only; syncs
// do nothing; the file on the disk is never touched again. Only pages that are written
// take up memory. The caller sees to it that nobody else writes the file, and calls
// GoPrivate before Map: there is one mapping, which Map returns.
func (f *File) GoPrivate(nbytes int64) error {
	size, err := f.Size()
	if err != nil {
		return err
	}
	m, err := Anonymous(max(nbytes, size))
	if err != nil {
		return f.fail("map", err)
	}
	err = f.use("map", func(fd int) error { return m.putFile(fd, size) })
	if err != nil {
		m.Unmap()
		return err
	}
	m.file = f
	f.mu.Lock()
	defer f.mu.Unlock()
	f.private, f.privateSize = m, size
	f.memory = true
	f.hook = nil
	return nil
}

// putFile maps the first nbytes bytes of fd over the start of m, private and writable.
func (m *Mapping) putFile(fd int, nbytes int64) error {
	if nbytes == 0 {
		return nil
	}
	// Safe: the address is that of memory that we hold and that nobody has seen yet,
	// and the range, rounded up to whole pages as m itself is, lies inside.
	_, err := unix.MmapPtr(fd, 0, unsafe.Pointer(unsafe.SliceData(m.Data)), uintptr(nbytes),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED)
	return err
}

// IsPrivate reports whether GoPrivate was called.
func (f *File) IsPrivate() bool { return f.private != nil }

// privateWrite is Pwritev of a private file.
func (f *File) privateWrite(bufs [][]byte, off int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fd < 0 {
		return f.fail("write", fs.ErrClosed)
	}
	end := off + total(bufs)
	if off < 0 || end > int64(f.private.nbytes) {
		return f.fail("write", unix.ENOSPC)
	}
	for _, b := range bufs {
		off += int64(copy(f.private.Data[off:], b))
	}
	f.privateSize = max(f.privateSize, end)
	return nil
}

// privateRead is Pread of a private file.
func (f *File) privateRead(buf []byte, off int64) (int, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.fd < 0 {
		return 0, f.fail("read", fs.ErrClosed)
	}
	if off < 0 {
		return 0, f.fail("read", unix.EINVAL)
	}
	if off >= f.privateSize {
		return 0, io.EOF
	}
	n := copy(buf, f.private.Data[off:f.privateSize])
	if n < len(buf) {
		return n, io.EOF
	}
	return n, nil
}

// privateResize is Allocate and Truncate of a private file.
func (f *File) privateResize(nbytes int64, grow bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.fd < 0:
		return f.fail("resize", fs.ErrClosed)
	case nbytes > int64(f.private.nbytes):
		return f.fail("resize", unix.ENOSPC)
	case !grow || nbytes > f.privateSize:
		f.privateSize = nbytes
	}
	return nil
}
