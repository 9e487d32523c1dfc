package fuzz

// record.go is the hook that records what a run does to its data file, and that fails,
// holds or swallows operations where a test asks for it.

import (
	"errors"
	"os"
	"slices"
	"sync"

	"github.com/foliokv/folio/internal/mmap"
)

// eventKind says what an event is.
type eventKind uint8

const (
	evWrite      eventKind = iota // data came to the page cache at off
	evSize                        // the file became size bytes long
	evSyncBegin                   // sync number id begins: what was written by now, in its range, is covered
	evSyncEnd                     // it is done: what it covers is durable
	evSyncFailed                  // it failed: the kernel forgets what it covers, written or not
	evPublish                     // the file got its name
	evSyncDir                     // the name is durable
	evMark                        // not an operation: the run says what it knows
)

// event is one entry of a record.
type event struct {
	kind   eventKind
	off    int64
	data   []byte
	size   int64
	id     int   // of a sync
	nbytes int64 // of a sync of the range from off on; 0 for a sync of everything

	// Of a mark: commits begun so far, the newest acknowledged as durable, and one
	// that has failed, which nobody may see from here on (0: none).
	begun, acked, failed int
}

// errKilled is what a killed process gets from the operations that it never did.
var errKilled = errors.New("killed")

// fault is what a test wants an operation to suffer; the zero value is nothing.
type fault struct {
	err  error
	part float64 // of a write: how much of it is done before it fails
}

// recorder is a hook on one file.
type recorder struct {
	path string
	fail func(nth int, op mmap.Op) fault // called for every operation, counted from 0

	mu     sync.Mutex
	events []event
	size   int64
	nops   int
	nsyncs int
	killed bool
	lost   bool      // a sync has failed
	hold   *heldSync // the next sync of everything is to be held
	held   *heldSync // the one that was

	// untold is a failure that the next sync through a descriptor of the file has to
	// report. Folio syncs ranges through one and everything through another, and the
	// kernel tells each of a failure once.
	untold [numDescriptors]error
}

// The descriptors that a store syncs its file through.
const (
	ofRanges = iota
	ofEverything
	numDescriptors
)

func descriptorOf(kind mmap.OpKind) int {
	if kind == mmap.OpSyncRange {
		return ofRanges
	}
	return ofEverything
}

// heldSync is a sync that began and waits, while the writer goes on.
type heldSync struct {
	begun chan struct{} // closed when it has begun
	end   chan struct{} // closed to let it go on
	once  sync.Once
}

func (h *heldSync) release() { h.once.Do(func() { close(h.end) }) }

// Do implements mmap.Hook.
func (r *recorder) Do(op mmap.Op, run func() error) error {
	r.mu.Lock()
	nth, killed := r.nops, r.killed
	r.nops++
	r.mu.Unlock()
	if killed {
		return errKilled
	}
	var f fault
	if r.fail != nil {
		f = r.fail(nth, op)
	}
	if f.err != nil {
		r.letGo() // the writer may have to sync after a fault
	}
	switch op.Kind {
	case mmap.OpWrite:
		return r.write(op, run, f)
	case mmap.OpSync, mmap.OpSyncRange:
		return r.sync(op, run, f)
	case mmap.OpWriteOut:
		return r.writeOut(op, run, f)
	}
	if f.err != nil {
		return f.err
	}
	if err := run(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch op.Kind {
	case mmap.OpAllocate:
		r.setSize(max(r.size, op.Off+op.NBytes))
	case mmap.OpTruncate:
		r.setSize(op.NBytes)
	case mmap.OpPublish:
		r.events = append(r.events, event{kind: evPublish})
	case mmap.OpSyncDir:
		r.events = append(r.events, event{kind: evSyncDir})
	}
	return nil
}

func (r *recorder) setSize(size int64) {
	r.size = size
	r.events = append(r.events, event{kind: evSize, size: size})
}

// write does a write, or the part of it that the fault lets through. The event follows
// the write: a sync that begins in between need not cover it, since Folio can't know
// of it before Do returns.
func (r *recorder) write(op mmap.Op, run func() error, f fault) error {
	data := slices.Concat(op.Bufs...)
	err := f.err
	if err == nil {
		err = run()
	} else {
		data = data[:int(f.part*float64(len(data)))]
		err = errors.Join(err, r.writePart(data, op.Off))
	}
	if len(data) == 0 {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if end := op.Off + int64(len(data)); end > r.size {
		r.setSize(end)
	}
	r.events = append(r.events, event{kind: evWrite, off: op.Off, data: data})
	return err
}

// writePart writes past the hook.
func (r *recorder) writePart(data []byte, off int64) error {
	f, err := os.OpenFile(r.path, os.O_WRONLY, 0)
	if err != nil {
		return nil // the file has no name yet: nothing is written
	}
	defer f.Close()
	_, err = f.WriteAt(data, off)
	return err
}

// sync does a sync, after a wait if it is to be held.
func (r *recorder) sync(op mmap.Op, run func() error, f fault) error {
	id, held := r.beginSync(op)
	if held != nil {
		close(held.begun)
		<-held.end
	}
	err := f.err
	if err == nil {
		err = run()
	}
	return r.endSync(op, id, err)
}

// beginSync notes that a sync begins. A sync of everything may have to be held.
func (r *recorder) beginSync(op mmap.Op) (id int, held *heldSync) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id = r.nsyncs
	r.nsyncs++
	r.events = append(r.events, event{kind: evSyncBegin, id: id, off: op.Off, nbytes: op.NBytes})
	if op.Kind == mmap.OpSync && r.hold != nil {
		held = r.hold
		r.hold, r.held = nil, held
	}
	return id, held
}

// endSync notes how a sync has ended, and returns what it reports.
func (r *recorder) endSync(op mmap.Op, id int, err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	end := evSyncEnd
	if err != nil {
		end = evSyncFailed
		r.lost = true
	}
	r.events = append(r.events, event{kind: end, id: id})
	return r.report(op, err)
}

// report keeps a failure for the other descriptor, and returns err or what the one of op
// has not been told yet. mu is held.
func (r *recorder) report(op mmap.Op, err error) error {
	own := descriptorOf(op.Kind)
	if err == nil {
		err = r.untold[own]
	} else {
		r.untold[numDescriptors-1-own] = err
	}
	r.untold[own] = nil
	return err
}

// writeOut writes out, which makes nothing durable. Where that fails the pages are lost
// as they are after a failed sync of them.
func (r *recorder) writeOut(op mmap.Op, run func() error, f fault) error {
	err := f.err
	if err == nil {
		err = run()
	}
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.report(op, nil)
	}
	id, _ := r.beginSync(op)
	return r.endSync(op, id, err)
}

// holdSync makes the next sync of everything wait, once it has begun, for release. Syncs
// of ranges, which are those of the redo log, go on beside it.
func (r *recorder) holdSync() *heldSync {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hold = &heldSync{begun: make(chan struct{}), end: make(chan struct{})}
	return r.hold
}

// letGo releases a sync that is held.
func (r *recorder) letGo() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held != nil {
		r.held.release()
	}
}

// unhold takes back a holdSync that no sync has met.
func (r *recorder) unhold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hold = nil
}

// setKilled makes all operations from here on do nothing and fail, or ends that.
func (r *recorder) setKilled(killed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.killed = killed
}

// hasLost reports whether a sync has failed. The kernel may have dropped pages then that
// the file still shows here, so to open it again would prove nothing: what the disk holds
// is as after a crash.
func (r *recorder) hasLost() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost
}

// reopen says that the file is opened anew: new descriptors are not told of failures that
// were reported before.
func (r *recorder) reopen() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.untold[:])
}

// mark notes what the run knows at this point.
func (r *recorder) mark(begun, acked, failed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, event{kind: evMark, begun: begun, acked: acked, failed: failed})
}
