package folio

// filemap.go is one mapping of the data file and what goes with it: which pages of
// it were verified, and what a fault in it means. It is the only place of the
// package that uses unsafe.

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"

	"github.com/foliokv/folio/internal/mmap"
)

// fileMap is a mapping of the data file, larger than the file, and a word per page.
type fileMap struct {
	m        *mmap.Mapping
	words    *mmap.Mapping
	verified []atomic.Uint32 // per page what pager.fold made of the sum last proven
	retired  txid            // readers of commits up to this one may still use it
}

// newFileMap maps nbytes of file, a reservation that may pass its end.
func newFileMap(file *mmap.File, nbytes int64, psize int) (*fileMap, error) {
	m, err := file.Map(nbytes)
	if err != nil {
		return nil, err
	}
	words, err := mmap.Anonymous(int64(len(m.Data)/psize+1) * 4)
	if err != nil {
		m.Unmap()
		return nil, err
	}
	return &fileMap{m: m, words: words, verified: wordsOf(words.Data)}, nil
}

// wordsOf views b as atomic words.
//
// Proof: b is page-aligned memory outside the Go heap, zeroed and writable for its
// whole length, that holds no pointers; atomic.Uint32 is four bytes in size and
// alignment; the slice covers len(b)/4 of them, all inside b; the memory is unmapped
// only after the last transaction that has the slice has ended.
func wordsOf(b []byte) []atomic.Uint32 {
	return unsafe.Slice((*atomic.Uint32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}

// inherit takes over what old has verified of the same file.
func (fm *fileMap) inherit(old *fileMap) {
	n := min(len(old.verified), len(fm.verified))
	for i := range n {
		if w := old.verified[i].Load(); w != 0 {
			fm.verified[i].Store(w)
		}
	}
}

// forget takes pages from first up to end for unverified, with the run that first lies
// in: they are about to be written. A sound store has no reference to them. One whose
// free list lies may have, and must then meet a wrong sum, not new content that passes
// for what was verified before.
func (fm *fileMap) forget(first, end pgno) {
	head := first
	for fm.verified[head].Load() == insideRun {
		head--
	}
	fm.verified[head].Store(unverified)
	for n := first; n < end; n++ {
		fm.verified[n].Store(unverified)
	}
}

// know takes p, which was just written to where it says to be, for verified: its sum was
// made from what the writer has in memory, and its layout is the writer's own.
func (fm *fileMap) know(p page) {
	n := p.pgno()
	switch p.kind() {
	case kindBranch, kindLeaf:
		fm.verified[n].Store(fold(p.sum()))
	case kindRun:
		for i := n + pgno(p.npages()) - 1; i > n; i-- {
			fm.verified[i].Store(insideRun)
		}
		fm.verified[n].Store(foldRun(p.sum()))
	}
}

func (fm *fileMap) unmap() {
	fm.m.Unmap()
	fm.words.Unmap()
}

// faultError returns the error for r, a recovered panic, if that is a fault in the
// mapping, and nil if it is anything else.
func (fm *fileMap) faultError(r any, shift uint) error {
	err, ok := r.(runtime.Error)
	if !ok {
		return nil
	}
	fault, ok := err.(interface{ Addr() uintptr })
	if !ok {
		return nil
	}
	off, ok := fm.m.Contains(fault.Addr())
	if !ok {
		return nil
	}
	return fmt.Errorf("read page %d at offset %d: %w: the file was truncated or its medium failed", off>>shift, off, ErrPageFault)
}
