//go:build unix

// The seam where tests record and break I/O.

package mmap

import (
	"errors"
	"path/filepath"
	"strconv"
	"sync"
)

// OpKind says what an Op does.
type OpKind uint8

// The kinds of operations that pass through a Hook.
const (
	OpRead      OpKind = iota // Pread
	OpWrite                   // Pwritev, and what Create writes
	OpTruncate                // Truncate
	OpAllocate                // Allocate
	OpSync                    // Sync, Create's sync, and SyncRange where it syncs all
	OpSyncRange               // SyncRange
	OpWriteOut                // WriteOut
	OpMap                     // Map
	OpPublish                 // a new file, whole, gets its name: Create and Publish
	OpSyncDir                 // SyncName, also as the last step of those
	OpDropCache               // DropCache; NBytes is 0 where it goes to the end
)

var opNames = [...]string{"read", "write", "truncate", "allocate", "sync", "syncrange", "writeout", "map", "publish", "syncdir", "dropcache"}

// String returns the operation's name, in lower case.
func (k OpKind) String() string {
	if int(k) < len(opNames) {
		return opNames[k]
	}
	return "op" + strconv.Itoa(int(k))
}

// Op is one operation on a data file.
type Op struct {
	Kind OpKind
	// Off is the first byte of the range; 0 for OpTruncate, OpSync and OpMap.
	Off int64
	// NBytes is the length of the range; for OpTruncate and OpMap the length
	// asked for; 0 for OpSync.
	NBytes int64
	// Bufs is the data of an OpWrite, and for OpRead the one buffer to fill.
	// It belongs to the caller and is valid during the call only.
	Bufs [][]byte
}

// Hook sees every operation on an intercepted file. Do may record op, call
// run, which does it, or not, and fail before it or after; what it returns is
// what the operation returns. A Do that returns nil for an OpRead without
// calling run has filled the buffer; one for an OpMap makes Map fail. Do is
// called from any goroutine, and should pass on the errors of run: io.EOF among
// them.
type Hook interface {
	Do(op Op, run func() error) error
}

// An intercept is a registered hook; its address tells two of them apart.
type intercept struct{ hook Hook }

var (
	interceptsMu sync.Mutex
	intercepts   = map[string]*intercept{} // by absolute, clean path
)

// Intercept sends the operations of all Files that are opened at path (Open,
// Memory, Create) from now on through h. It is for tests only. The caller
// calls remove, which may be called more than once; files that are open by then
// keep h. A path that is intercepted already is a mistake of the test's, and
// panics.
func Intercept(path string, h Hook) (remove func()) {
	path = hookPath(path)
	own := &intercept{hook: h}
	interceptsMu.Lock()
	defer interceptsMu.Unlock()
	if intercepts[path] != nil {
		panic("mmap: " + path + " is intercepted already")
	}
	intercepts[path] = own
	return func() {
		interceptsMu.Lock()
		defer interceptsMu.Unlock()
		if intercepts[path] == own {
			delete(intercepts, path)
		}
	}
}

// hookFor returns the hook registered for path, or nil.
func hookFor(path string) Hook {
	interceptsMu.Lock()
	defer interceptsMu.Unlock()
	if len(intercepts) == 0 {
		return nil // no need to ask for the working directory
	}
	if found := intercepts[hookPath(path)]; found != nil {
		return found.hook
	}
	return nil
}

// hookPath is the form in which paths are compared.
func hookPath(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return filepath.Clean(path)
}

// preadHooked stands apart from Pread, and mapHooked from Map, because a
// result that a closure sets moves to the heap, hooked or not.
func (f *File) preadHooked(buf []byte, off int64) (int, error) {
	nread := len(buf)
	err := f.hook.Do(
		Op{Kind: OpRead, Off: off, NBytes: int64(len(buf)), Bufs: [][]byte{buf}},
		func() (err error) {
			nread, err = f.pread(buf, off)
			return err
		},
	)
	if err != nil && nread == len(buf) {
		nread = 0 // failed before or after the read: nothing was handed out
	}
	return nread, err
}

var errMapSkipped = errors.New("skipped by a test's hook")

func (f *File) mapHooked(nbytes int64) (*Mapping, error) {
	var m *Mapping
	err := f.hook.Do(
		Op{Kind: OpMap, NBytes: nbytes},
		func() (err error) {
			m, err = f.mapFile(nbytes)
			return err
		},
	)
	if err == nil && m == nil {
		err = f.fail("map", errMapSkipped)
	}
	if err != nil && m != nil {
		return nil, errors.Join(err, m.Unmap())
	}
	return m, err
}
