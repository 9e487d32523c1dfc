//go:build unix

// Mappings: the file as memory, and private memory for side tables.

package mmap

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Mapping is a piece of mapped memory.
//
// Its memory is not the Go heap's: a slice of Data keeps nothing alive, and
// using one after Unmap is a fault or, worse, reads what was mapped there
// next. It must hold no Go pointers.
type Mapping struct {
	// Data is the mapped memory, a whole number of the machine's pages; nil
	// after Unmap. From Map it is read-only: a write is a fault, and touching
	// what lies behind the file's end is SIGBUS.
	Data []byte

	file     *File // that made it; nil for Anonymous
	base     uintptr
	nbytes   uintptr
	unmapped atomic.Bool
}

// Map maps the file's first nbytes bytes, rounded up to the machine's page
// size, read-only and shared with all who write it. It may be longer than the
// file, as a reservation: once the file has grown, the same mapping shows the
// new part; before, touching that is SIGBUS. The caller calls Unmap; closing
// the file does not.
func (f *File) Map(nbytes int64) (*Mapping, error) {
	if f.private != nil {
		if nbytes > int64(f.private.nbytes) {
			return nil, f.fail("map", unix.ENOMEM)
		}
		return f.private, nil
	}
	if f.hook == nil {
		return f.mapFile(nbytes)
	}
	return f.mapHooked(nbytes)
}

func (f *File) mapFile(nbytes int64) (*Mapping, error) {
	var m *Mapping
	err := f.use("map", func(fd int) (err error) {
		m, err = mapMemory(fd, nbytes, unix.PROT_READ, unix.MAP_SHARED)
		return err
	})
	if err != nil {
		return nil, err
	}
	m.file = f
	return m, nil
}

// Anonymous maps nbytes bytes, rounded up to the machine's page size, of
// private, zeroed, writable memory. It takes up memory only where it was
// touched, and on systems that allow it is not counted before. The caller
// calls Unmap.
func Anonymous(nbytes int64) (*Mapping, error) {
	m, err := mapMemory(-1, nbytes,
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|noReserve)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes of memory: %w", nbytes, err)
	}
	return m, nil
}

// mapMemory maps nbytes, rounded up, from the start of fd.
func mapMemory(fd int, nbytes int64, prot, flags int) (*Mapping, error) {
	pageSize := int64(os.Getpagesize())
	rounded := (nbytes + pageSize - 1) &^ (pageSize - 1)
	if nbytes <= 0 || rounded < nbytes || int64(int(rounded)) != rounded {
		return nil, unix.EINVAL
	}
	data, err := unix.Mmap(fd, 0, int(rounded), prot, flags)
	if err != nil {
		return nil, err
	}
	// Safe: only the address of memory that we hold is taken, and it is never
	// turned back into a pointer. The memory is not Go's, so it never moves.
	base := uintptr(unsafe.Pointer(unsafe.SliceData(data)))
	return &Mapping{Data: data, base: base, nbytes: uintptr(rounded)}, nil
}

// Unmap gives the memory back and sets Data to nil. The caller makes sure that
// nobody uses the memory, or Data, from the call on. Unmapping again, also
// from several goroutines, does nothing and returns nil.
func (m *Mapping) Unmap() error {
	if m.unmapped.Swap(true) {
		return nil
	}
	data := m.Data
	m.Data = nil
	if err := unix.Munmap(data); err != nil {
		return fmt.Errorf("unmap %d bytes: %w", len(data), err)
	}
	return nil
}

// Contains reports whether the address of a fault lies in this mapping, and
// at which byte of it, which for Map is the byte of the file. It is false
// after Unmap. It is safe for concurrent use with Unmap.
func (m *Mapping) Contains(addr uintptr) (off int64, ok bool) {
	// One comparison: an address below base wraps around to a huge distance.
	if addr-m.base >= m.nbytes || m.unmapped.Load() {
		return 0, false
	}
	return int64(addr - m.base), true
}

// covers reports whether m maps the whole range of f.
func (m *Mapping) covers(f *File, off, nbytes int64) bool {
	if m == nil || m.file != f || m.unmapped.Load() {
		return false
	}
	mapped := int64(m.nbytes)
	return off >= 0 && nbytes > 0 && off <= mapped && nbytes <= mapped-off
}

// aligned returns the memory of a covered range, rounded out to whole pages.
func (m *Mapping) aligned(off, nbytes int64) []byte {
	pageSize := int64(os.Getpagesize())
	start := off &^ (pageSize - 1)
	end := (off + nbytes + pageSize - 1) &^ (pageSize - 1)
	return m.Data[start:end]
}
