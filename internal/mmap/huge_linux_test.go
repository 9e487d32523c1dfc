package mmap

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// Huge advises the whole large pages of a slice, and changes nothing in it.
func TestHuge(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage"); err != nil {
		t.Skip("this kernel has no large pages")
	}
	b := make([]byte, 4*hugePage)
	for i := range b {
		b[i] = byte(i % 251)
	}
	Huge(b)
	for i := range b {
		if b[i] != byte(i%251) {
			require.Fail(t, "changed", "byte %d", i)
		}
	}
	first := uintptr(unsafe.Pointer(&b[0]))
	require.Contains(t, vmFlags(t, (first+hugePage-1)&^(hugePage-1)), " hg")
	require.Contains(t, vmFlags(t, (first+uintptr(len(b)))&^(hugePage-1)-1), " hg")
	Huge(nil)
	Huge(make([]byte, 100))
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
