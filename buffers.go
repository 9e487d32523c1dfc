package folio

// buffers.go keeps the page buffers that nobody uses at the moment.
//
// A store that is written to has thousands of pages in memory. Where each is in memory that
// the process touches for the first time, the page faults can take longer than all else that
// a page costs. So buffers are kept over collections, and made on large pages.

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
}

// bufferSlab is how many bytes of buffers are made at once, on large pages where the
// system has them, by a process that has many.
const bufferSlab = 8 << 20

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
	n := len(b.free) - 1
	if n < 0 {
		return b.make(psize)
	}
	p := b.free[n]
	b.free = b.free[:n]
	return p
}

// make makes a buffer, and others for later where many were made before.
func (b *bufferPool) make(psize int) page {
	if b.nbytes < bufferSlab {
		b.nbytes += psize
		return make(page, psize)
	}
	slab := make(page, bufferSlab)
	mmap.Huge(slab)
	b.nbytes += len(slab)
	for off := len(slab) - psize; off > 0; off -= psize {
		b.free = append(b.free, slab[off:off+psize:off+psize])
	}
	return slab[:psize:psize]
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
