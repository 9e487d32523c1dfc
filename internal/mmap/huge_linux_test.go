package mmap

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Huge advises the whole large pages of a slice, and neither it nor Populate changes anything.
func TestHuge(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage"); err != nil {
		t.Skip("this kernel has no large pages")
	}
	b := make([]byte, 4*HugePage)
	for i := range b {
		b[i] = byte(i % 251)
	}
	huge := Huge(b)
	require.GreaterOrEqual(t, len(huge), 3*HugePage)
	require.Zero(t, len(huge)%HugePage)
	Populate(huge)
	for i := range b {
		if b[i] != byte(i%251) {
			require.Fail(t, "changed", "byte %d", i)
		}
	}
	first := uintptr(unsafe.Pointer(&b[0]))
	require.Contains(t, vmFlags(t, (first+HugePage-1)&^(HugePage-1)), " hg")
	require.Contains(t, vmFlags(t, (first+uintptr(len(b)))&^(HugePage-1)-1), " hg")
	require.Empty(t, Huge(nil))
	require.Empty(t, Huge(make([]byte, 100)))
}

// Memory that was populated is there before it is touched.
func TestPopulate(t *testing.T) {
	m, err := Anonymous(4 * HugePage)
	require.NoError(t, err)
	defer m.Unmap()
	huge := Huge(m.Data)
	if err := unix.Madvise(huge, unix.MADV_POPULATE_WRITE); errors.Is(err, unix.EINVAL) {
		t.Skip("this kernel can't")
	}
	require.NoError(t, unix.Madvise(huge, unix.MADV_DONTNEED))
	require.Zero(t, nresident(t, huge))
	Populate(huge[:HugePage])
	require.Equal(t, HugePage/os.Getpagesize(), nresident(t, huge))
}

// nresident returns how many pages of b are in memory.
func nresident(t *testing.T, b []byte) (n int) {
	vec := make([]byte, len(b)/os.Getpagesize())
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(unsafe.Pointer(&vec[0])))
	require.Zero(t, errno)
	for _, v := range vec {
		n += int(v & 1)
	}
	return n
}

// vmFlags returns the flags of the memory at addr.
func vmFlags(t *testing.T, addr uintptr) string {
	f, err := os.Open("/proc/self/smaps")
	require.NoError(t, err)
	defer f.Close()
	inside := false
	for s := bufio.NewScanner(f); s.Scan(); {
		var from, to uintptr
		if n, _ := fmt.Sscanf(s.Text(), "%x-%x ", &from, &to); n == 2 {
			inside = from <= addr && addr < to
		}
		if flags, ok := strings.CutPrefix(s.Text(), "VmFlags:"); ok && inside {
			return flags
		}
	}
	require.Fail(t, "no such memory", "%x", addr)
	return ""
}
