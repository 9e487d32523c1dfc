//go:build unix

// Large pages for memory that is used for long.

package mmap

import "unsafe"

// HugePage is the size in bytes of a large page on the processors that have one of this
// size; where it is another, Huge does less or nothing.
const HugePage = 2 << 20

// Huge returns that part of b which whole large pages can back, and asks the kernel to do so:
// to touch it for the first time then takes few page faults. It is advice: b is as before, and
// nothing else happens where the system has no such pages.
func Huge(b []byte) []byte {
	// The address is only computed with. It stays valid, since b is in use.
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (HugePage - 1)
	if uintptr(len(b)) < skip+HugePage {
		return nil
	}
	b = b[skip:]
	b = b[:len(b)&^(HugePage-1)]
	adviseHuge(b)
	return b
}

// Populate has the kernel find the memory of b, which is whole pages, without a page fault for
// each, and changes nothing in it. It is a system call, so that other goroutines go on
// meanwhile. Where the system lacks it, the memory is found when it is used.
func Populate(b []byte) { populate(b) }
