package folio

// buffers.go keeps the page buffers that nobody uses at the moment.
//
// A store that is written to has thousands of pages in memory. Where each is in memory that
// the process touches for the first time, the page faults can take longer than all else that
// a page costs. So buffers are kept over collections, and made on large pages; and since to
// touch one of those for the first time takes 0.1 to 7 ms, which whoever commits would wait
// for, a goroutine does it before they are needed.

import (
	"sync"

	"github.com/foliokv/folio/internal/invariant"
	"github.com/foliokv/folio/internal/mmap"
)

// bufferPool has buffers of one size. A sync.Pool would give them up at each collection.
type bufferPool struct {
	mu     sync.Mutex
	free   []page // maxResident bytes at most
	nbytes int    // made since it was dropped
	making bool   // a goroutine makes a slab
}

const (
	// bufferSlab is how many bytes of buffers are made at once, on large pages where the
	// system has them, by a process that has had as many one by one.
	bufferSlab = 8 << 20
	// fewBuffers is how many bytes of unused buffers are so few that a slab is made.
	fewBuffers = bufferSlab / 2
)

// buffers has a pool for each page size.
var buffers [maxPageSize/minPageSize + 1]bufferPool

func getBuffer(psize int) page { return buffers[psize/minPageSize].get(psize) }

// putBuffer takes p, of one page, which nobody has a slice of any more.
func putBuffer(p page) { buffers[len(p)/minPageSize].put(p) }

// dropBuffers leaves the unused buffers of a size to the collector.
func dropBuffers(psize int) { buffers[psize/minPageSize].drop() }

// expectBuffers prepares for the use of n buffers of a size, or some more.
func expectBuffers(psize, n int) {
	if b := &buffers[psize/minPageSize]; n >= bufferSlab/4/psize {
		b.expect()
	}
}

// expect has buffers be made many at a time from here on.
func (b *bufferPool) expect() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nbytes = max(b.nbytes, bufferSlab)
}

// get returns a buffer, with anything in it.
func (b *bufferPool) get(psize int) page {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.making && b.nbytes >= bufferSlab && len(b.free) < fewBuffers/psize {
		b.making = true
		go b.makeSlab(psize)
	}
	n := len(b.free) - 1
	if n < 0 {
		b.nbytes += psize
		return make(page, psize)
	}
	p := b.free[n]
	b.free[n] = nil // or a buffer that is not given back would stay
	b.free = b.free[:n]
	return p
}

// makeSlab adds a slab of buffers, piece by piece, once the memory of each is there.
func (b *bufferPool) makeSlab(psize int) {
	slab := mmap.Huge(make([]byte, bufferSlab+mmap.HugePage))[:bufferSlab]
	for at := 0; at < bufferSlab; at += mmap.HugePage {
		piece := slab[at : at+mmap.HugePage : at+mmap.HugePage]
		mmap.Populate(piece)
		b.add(piece, psize)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.making = false
}

// add adds the buffers of a piece of memory.
func (b *bufferPool) add(piece page, psize int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.nbytes < bufferSlab {
		return // the pool was dropped meanwhile
	}
	b.nbytes += len(piece)
	for off := len(piece) - psize; off >= 0; off -= psize {
		b.free = append(b.free, piece[off:off+psize:off+psize])
	}
}

func (b *bufferPool) put(p page) {
	if invariant.Enabled {
		for i := range p { // a slice used after its transaction's end shows at once
			p[i] = 0xDB
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.free) < maxResident/len(p) {
		b.free = append(b.free, p)
	}
}

func (b *bufferPool) drop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free, b.nbytes = nil, 0
}
