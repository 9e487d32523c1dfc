// Package fuzz holds the tests that try to break a store: crashes at every instant,
// with any part of what was not synced on the disk.
package fuzz

// record.go records what a run does to its data file, and makes from the record what
// a disk could hold after a crash.
//
// The model of the disk: a sync makes everything before it durable. Of what was
// written since the last one, any set of 512-byte sectors may be there, in any order,
// and the file may have any of the sizes that it had since.

import (
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/foliokv/folio/internal/mmap"
)

const sectorSize = 512

// event is one entry of a record: an operation on the file, or a mark.
type event struct {
	kind mmap.OpKind
	off  int64 // of a write; the new size for a truncate or an allocation
	data []byte

	isMark bool // not an operation: the run says what it knows
	begun  int  // commits begun so far
	acked  int  // the newest commit acknowledged as durable
}

// recorder is a hook that records all that changes the file.
type recorder struct {
	mu     sync.Mutex
	events []event
	size   int64
}

// Do implements mmap.Hook.
func (r *recorder) Do(op mmap.Op, run func() error) error {
	if err := run(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch op.Kind {
	case mmap.OpWrite:
		r.size = max(r.size, op.Off+op.NBytes)
		r.events = append(r.events, event{kind: op.Kind, off: op.Off, data: slices.Concat(op.Bufs...)})
	case mmap.OpAllocate:
		r.size = max(r.size, op.Off+op.NBytes)
		r.events = append(r.events, event{kind: op.Kind, off: r.size})
	case mmap.OpTruncate:
		r.size = op.NBytes
		r.events = append(r.events, event{kind: op.Kind, off: r.size})
	case mmap.OpSync, mmap.OpSyncRange:
		r.events = append(r.events, event{kind: mmap.OpSync})
	}
	return nil
}

// mark notes what the run knows at this point.
func (r *recorder) mark(begun, acked int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, event{isMark: true, begun: begun, acked: acked})
}

// crashPoint is a moment of a recorded run: what is on the disk for sure, and what
// may be.
type crashPoint struct {
	synced  []byte
	pending []event // writes and changes of size since the last sync
	begun   int
	acked   int
}

// points calls visit for the moment after each event that can make a difference. The
// crashPoint is valid during the call.
func points(initial []byte, events []event, visit func(index int, p *crashPoint)) {
	p := &crashPoint{synced: slices.Clone(initial)}
	for i, e := range events {
		switch {
		case e.isMark:
			p.begun, p.acked = max(p.begun, e.begun), max(p.acked, e.acked)
			if e.acked > 0 {
				visit(i, p)
			}
		case e.kind == mmap.OpSync:
			visit(i, p) // a crash before the sync is done
			p.synced = p.image(func(int, int) bool { return true }, -1)
			p.pending = nil
		default:
			p.pending = append(p.pending, e)
		}
	}
	visit(len(events), p)
}

// image returns what the disk holds if of pending write i just the sectors for which
// keep(i, sector) is true arrived, and the file has the size after its nsizes-th
// change of size (-1: the last).
func (p *crashPoint) image(keep func(write, sector int) bool, nsizes int) []byte {
	img := slices.Clone(p.synced)
	size := int64(len(img))
	changes := 0
	for i, e := range p.pending {
		if e.kind != mmap.OpWrite {
			if nsizes < 0 || changes < nsizes {
				size = e.off
			}
			changes++
			continue
		}
		if end := e.off + int64(len(e.data)); end > int64(len(img)) {
			img = append(img, make([]byte, end-int64(len(img)))...)
		}
		for s := 0; s*sectorSize < len(e.data); s++ {
			if keep(i, s) {
				from := s * sectorSize
				copy(img[e.off+int64(from):], e.data[from:min(from+sectorSize, len(e.data))])
			}
		}
	}
	if int64(len(img)) < size {
		img = append(img, make([]byte, size-int64(len(img)))...)
	}
	return img[:size]
}

// sizes returns how many changes of size are pending.
func (p *crashPoint) sizes() (n int) {
	for _, e := range p.pending {
		if e.kind != mmap.OpWrite {
			n++
		}
	}
	return n
}

// images yields a sample of what the disk can hold: everything, nothing, each write
// missing, each alone, and random sets and tears; where few writes are pending, every
// set of them.
func (p *crashPoint) images(rnd *rand.Rand, nrandom int, yield func(img []byte)) {
	n := len(p.pending)
	whole := func(set func(i int) bool) func(int, int) bool {
		return func(i, _ int) bool { return set(i) }
	}
	if n <= 4 {
		for set := range 1 << n {
			yield(p.image(whole(func(i int) bool { return set>>i&1 == 1 }), -1))
		}
	} else {
		yield(p.image(whole(func(int) bool { return true }), -1))
		yield(p.image(whole(func(int) bool { return false }), -1))
		for j := range n {
			yield(p.image(whole(func(i int) bool { return i != j }), -1))
			yield(p.image(whole(func(i int) bool { return i == j }), -1))
		}
	}
	for range nrandom {
		density := rnd.Float64()
		torn := rnd.IntN(2) == 0
		bits := map[[2]int]bool{}
		keep := func(i, s int) bool {
			at := [2]int{i, s}
			if !torn {
				at[1] = 0
			}
			b, ok := bits[at]
			if !ok {
				b = rnd.Float64() < density
				bits[at] = b
			}
			return b
		}
		yield(p.image(keep, rnd.IntN(p.sizes()+1)))
	}
}
