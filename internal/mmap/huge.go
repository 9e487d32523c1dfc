//go:build unix

// Large pages for memory that is used for long.

package mmap

import "unsafe"

// hugePage is the size of a large page on the processors that have one of this size; where
// it is another, Huge does less or nothing.
const hugePage = 2 << 20

// Huge asks the kernel to back those parts of b with large pages that can be, so that to
// touch it for the first time takes few page faults. It is advice: b is as before, and
// nothing happens where the system has no such pages.
func Huge(b []byte) {
	// The address is only computed with. It stays valid, since b is in use.
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (hugePage - 1)
	if uintptr(len(b)) < skip+hugePage {
		return
	}
	b = b[skip:]
	adviseHuge(b[:len(b)&^(hugePage-1)])
}
