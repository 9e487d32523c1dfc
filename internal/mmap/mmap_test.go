//go:build unix

// Tests of the file operations: what is written is read, mapped, grown, created.

package mmap

import (
	"bytes"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// newStore creates a file of content and opens it for reading and writing.
func newStore(t *testing.T, content []byte) *File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store")
	require.NoError(t, Create(path, 0o600, content))
	return open(t, path, false)
}

// open opens path until the test ends.
func open(t *testing.T, path string, readOnly bool) *File {
	t.Helper()
	f, err := Open(path, readOnly)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return f
}

// mapped maps f until the test ends.
func mapped(t *testing.T, f *File, nbytes int64) *Mapping {
	t.Helper()
	m, err := f.Map(nbytes)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Unmap()) })
	return m
}

// files returns the names in a directory, hidden ones too.
func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	names := []string{}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// filled returns n random bytes, the same in each run.
func filled(n int) []byte {
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	buf := make([]byte, n)
	for i := range buf {
		buf[i] = byte(rng.Uint32())
	}
	return buf
}

func TestPwritevManyBuffersSeenThroughOlderMapping(t *testing.T) {
	f := newStore(t, nil)
	m := mapped(t, f, 16<<20) // a reservation: the file is empty as yet

	var bufs [][]byte
	rng := rand.New(rand.NewPCG(2, 2))
	for range 3000 {
		bufs = append(bufs, filled(int(rng.Uint32N(1500)))) // some are empty
	}
	bufs = append([][]byte{nil}, bufs...)
	want := bytes.Join(bufs, nil)
	require.NoError(t, f.Pwritev(bufs, 4096))

	nbytes, err := f.Size()
	require.NoError(t, err)
	require.EqualValues(t, 4096+len(want), nbytes)
	require.True(t, bytes.Equal(want, m.Data[4096:4096+len(want)]), "the mapping shows what was written")
	got := make([]byte, len(want))
	n, err := f.Pread(got, 4096)
	require.NoError(t, err)
	require.Equal(t, len(want), n)
	require.True(t, bytes.Equal(want, got))
}

func TestPwritevNothing(t *testing.T) {
	f := newStore(t, nil)
	require.NoError(t, f.Pwritev(nil, 10))
	require.NoError(t, f.Pwritev([][]byte{nil, {}}, 10))
	nbytes, err := f.Size()
	require.NoError(t, err)
	require.Zero(t, nbytes)
}

func TestConsume(t *testing.T) {
	bufs := [][]byte{[]byte("abc"), []byte("def"), {}, []byte("gh")}
	for _, c := range []struct {
		nbytes int
		rest   string // of the whole buffers
		tail   string
	}{
		{1, "defgh", "bc"}, {3, "defgh", ""}, {4, "gh", "ef"}, {6, "gh", ""}, {7, "", "h"}, {8, "", ""},
	} {
		rest, tail := consume(bufs, c.nbytes)
		require.Equal(t, c.rest, string(bytes.Join(rest, nil)), "after %d", c.nbytes)
		require.Equal(t, c.tail, string(tail), "after %d", c.nbytes)
	}
}

// TestPwritevStoppedShort lets the process's file size limit cut a write inside
// a buffer: the kernel writes up to there, and says why in the next call only. (It sends SIGXFSZ too, which
// Go programs ignore.)
func TestPwritevStoppedShort(t *testing.T) {
	f := newStore(t, nil)
	var old syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old))
	limit := old
	limit.Cur = 5000 // bytes
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit))
	err := f.Pwritev([][]byte{filled(4000), filled(4001), filled(10)}, 0)
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old))

	require.ErrorIs(t, err, unix.EFBIG)
	nbytes, err := f.Size()
	require.NoError(t, err)
	require.EqualValues(t, 5000, nbytes)
}

func TestWriteOne(t *testing.T) {
	f := newStore(t, []byte("hello"))
	require.NoError(t, writeOne(f.fd, []byte("XY"), 2))
	got := make([]byte, 5)
	_, err := f.Pread(got, 0)
	require.NoError(t, err)
	require.Equal(t, "heXYo", string(got))
}

// TestFallbacks runs what only systems and file systems unlike this one need.
func TestFallbacks(t *testing.T) {
	fd, err := tempFd()
	require.NoError(t, err)
	defer unix.Close(fd)
	for _, c := range []struct{ ask, is int64 }{{100, 100}, {50, 100}, {200, 200}} {
		require.NoError(t, grow(fd, c.ask))
		nbytes, err := sizeOf(fd)
		require.NoError(t, err)
		require.Equal(t, c.is, nbytes)
	}
}

func TestCloseWaitsForCalls(t *testing.T) {
	f := newStore(t, filled(4096))
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			buf := make([]byte, 100)
			var err error
			for err == nil {
				_, err = f.Pread(buf, 0)
			}
			assert.ErrorIs(t, err, fs.ErrClosed)
		})
	}
	require.NoError(t, f.Close())
	readers.Wait()
}

func TestPreadAtTheEnd(t *testing.T) {
	f := newStore(t, []byte("hello"))
	buf := make([]byte, 8)
	n, err := f.Pread(buf, 2)
	require.True(t, err == io.EOF, "bare, as ReadAt's")
	require.Equal(t, "llo", string(buf[:n]))
	n, err = f.Pread(buf, 100)
	require.True(t, err == io.EOF)
	require.Zero(t, n)
	n, err = f.Pread(buf[:5], 0)
	require.NoError(t, err)
	require.Equal(t, "hello", string(buf[:n]))
}

func TestAllocateAndTruncate(t *testing.T) {
	f := newStore(t, []byte("hello"))
	size := func() int64 {
		nbytes, err := f.Size()
		require.NoError(t, err)
		return nbytes
	}
	require.NoError(t, f.Allocate(5, 1<<20))
	require.EqualValues(t, 5+1<<20, size())
	require.NoError(t, f.Allocate(0, 4096), "inside the file")
	require.EqualValues(t, 5+1<<20, size())
	got := make([]byte, 6)
	_, err := f.Pread(got, 0)
	require.NoError(t, err)
	require.Equal(t, "hello\x00", string(got))
	require.NoError(t, f.Truncate(3))
	require.EqualValues(t, 3, size())
	require.ErrorIs(t, f.Allocate(0, -1), unix.EINVAL)
	require.ErrorIs(t, f.Allocate(1<<62, 1<<62), unix.EINVAL, "more than an int64")
}

func TestFaultBehindTheEndIsFound(t *testing.T) {
	f := newStore(t, filled(100))
	m := mapped(t, f, 1<<20+1)
	require.Len(t, m.Data, 1<<20+os.Getpagesize(), "rounded up to whole pages")
	other := mapped(t, f, 4096)

	touch := 5*os.Getpagesize() + 17
	addr := faultAt(m.Data, touch)
	off, ok := m.Contains(addr)
	require.True(t, ok)
	require.EqualValues(t, touch, off)
	_, ok = other.Contains(addr)
	require.False(t, ok)

	require.NoError(t, f.Allocate(0, 1<<20))
	require.Zero(t, m.Data[touch], "the same mapping, now that the file has grown")
	require.NoError(t, m.Unmap())
	_, ok = m.Contains(addr)
	require.False(t, ok)
	require.Nil(t, m.Data)
}

// sink keeps the compiler from leaving out a read that nobody uses.
var sink byte

// faultAt reads data[i] and returns the address of the fault that it gives.
func faultAt(data []byte, i int) (addr uintptr) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault, ok := recover().(interface{ Addr() uintptr }); ok {
			addr = fault.Addr()
		}
	}()
	sink = data[i]
	return 0
}

func TestContainsEdges(t *testing.T) {
	m, err := Anonymous(1)
	require.NoError(t, err)
	for _, c := range []struct {
		addr uintptr
		ok   bool
	}{
		{m.base - 1, false}, {m.base, true}, {m.base + m.nbytes - 1, true}, {m.base + m.nbytes, false}, {0, false},
	} {
		_, ok := m.Contains(c.addr)
		require.Equal(t, c.ok, ok, "%#x of %#x", c.addr, m.base)
	}
	require.NoError(t, m.Unmap())
	require.NoError(t, m.Unmap(), "again")
}

func TestAnonymousIsZeroedWritableAndLazy(t *testing.T) {
	nbytes := int64(1 << 28)
	if math.MaxInt > math.MaxInt32 {
		nbytes <<= 8 // 64 GiB, more than this machine has, most likely
	}
	m, err := Anonymous(nbytes)
	require.NoError(t, err)
	defer m.Unmap()
	require.Zero(t, m.Data[nbytes-1])
	m.Data[nbytes-1] = 7
	require.EqualValues(t, 7, m.Data[nbytes-1])
}

func TestMapRefusesNonsense(t *testing.T) {
	f := newStore(t, nil)
	for _, nbytes := range []int64{0, -1, 1<<63 - 1} {
		_, err := f.Map(nbytes)
		require.ErrorIs(t, err, unix.EINVAL)
		_, err = Anonymous(nbytes)
		require.ErrorIs(t, err, unix.EINVAL)
	}
}

func TestOpenRefusesWhatIsNoRegularFile(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	for _, c := range []struct{ path, says string }{
		{dir, "a directory"}, {fifo, "a named pipe"}, {os.DevNull, "a device"},
	} {
		for _, readOnly := range []bool{true, false} {
			_, err := Open(c.path, readOnly)
			require.ErrorIs(t, err, ErrNotRegular)
			require.ErrorContains(t, err, c.says)
			require.ErrorContains(t, err, c.path)
		}
		// Past the first look, as in a race.
		_, err := openFd(c.path, true)
		require.ErrorIs(t, err, ErrNotRegular)
	}
	_, err := Open(filepath.Join(dir, "none"), false)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestReadOnly(t *testing.T) {
	path := newStore(t, []byte("hello")).Path()
	f := open(t, path, true)
	require.True(t, f.ReadOnly())
	require.Equal(t, path, f.Path())
	require.ErrorIs(t, f.Pwritev([][]byte{{1}}, 0), fs.ErrPermission)
	require.ErrorIs(t, f.Truncate(0), fs.ErrPermission)
	require.ErrorIs(t, f.Allocate(0, 10), fs.ErrPermission)
	require.ErrorIs(t, f.Lock(true, 0), fs.ErrPermission)
	require.NoError(t, f.Sync())
	require.Equal(t, "hello", string(mapped(t, f, 5).Data[:5]))
}

func TestClosed(t *testing.T) {
	f := newStore(t, []byte("hello"))
	m := mapped(t, f, 5)
	require.NoError(t, f.Close())
	require.NoError(t, f.Close(), "again")
	require.Equal(t, "hello", string(m.Data[:5]), "mappings outlive the file")
	_, err := f.Pread(make([]byte, 1), 0)
	require.ErrorIs(t, err, fs.ErrClosed)
	_, err = f.Size()
	require.ErrorIs(t, err, fs.ErrClosed)
	_, err = f.Map(5)
	require.ErrorIs(t, err, fs.ErrClosed)
	for _, err := range []error{
		f.Pwritev([][]byte{{1}}, 0), f.Truncate(0), f.Allocate(0, 1), f.Sync(), f.SyncRange(m, 0, 5),
		f.DropCache(0, 0), f.Lock(false, 0), f.Unlock(),
	} {
		require.ErrorIs(t, err, fs.ErrClosed)
	}
}

func TestMemory(t *testing.T) {
	f, err := Memory("scratch")
	require.NoError(t, err)
	require.Equal(t, "scratch", f.Path())
	require.NoError(t, f.Allocate(0, 1<<16))
	m := mapped(t, f, 1<<16)
	require.NoError(t, f.Pwritev([][]byte{[]byte("hello")}, 100))
	require.Equal(t, "hello", string(m.Data[100:105]))
	require.NoError(t, f.Sync())
	require.NoError(t, f.SyncRange(m, 0, 10))
	require.NoError(t, f.DropCache(0, 0))
	require.NoError(t, f.ReadAhead(0, 10))
	require.NoError(t, f.Lock(true, 0))
	require.NoError(t, f.Close())
	require.ErrorIs(t, f.Sync(), fs.ErrClosed)
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, strings.Repeat("n", 255)) // the longest name there is
	content := filled(10_000)
	old := syscall.Umask(0o027)
	err := Create(path, 0o666, content)
	syscall.Umask(old)
	require.NoError(t, err)

	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, got))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o640), info.Mode().Perm())
	require.Equal(t, []string{filepath.Base(path)}, files(t, dir))
}

func TestCreateNeverReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "store")
	require.NoError(t, Create(path, 0o600, []byte("first")))
	require.ErrorIs(t, Create(path, 0o600, []byte("second")), fs.ErrExist)
	dangling := filepath.Join(dir, "dangling")
	require.NoError(t, os.Symlink("nowhere", dangling))
	require.ErrorIs(t, Create(dangling, 0o600, nil), fs.ErrExist)

	// What came to the path after the first look stays too.
	temp := filepath.Join(dir, "temp")
	require.NoError(t, os.WriteFile(temp, []byte("second"), 0o600))
	require.ErrorIs(t, Publish(temp, path), fs.ErrExist)

	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "first", string(got))
	require.Equal(t, []string{"dangling", "store"}, files(t, dir))
	require.ErrorIs(t, Create(filepath.Join(dir, "none", "store"), 0o600, nil), fs.ErrNotExist)
}

func TestRenameNoReplace(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	require.NoError(t, os.WriteFile(from, nil, 0o600))
	err := renameNoReplace(from, to)
	if err == unix.ENOTSUP || err == unix.EINVAL {
		t.Skip("no such rename here")
	}
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(from, nil, 0o600))
	require.ErrorIs(t, renameNoReplace(from, to), fs.ErrExist)
}

func TestSyncAndDropCache(t *testing.T) {
	f := newStore(t, filled(1<<16))
	m := mapped(t, f, 1<<16)
	require.NoError(t, f.Pwritev([][]byte{{1}}, 5000))
	require.NoError(t, f.SyncRange(m, 5000, 1))
	require.NoError(t, f.SyncRange(m, 5000, 0))
	require.NoError(t, f.SyncRange(m, 0, 1<<40), "more than the mapping")
	require.NoError(t, f.SyncRange(nil, 0, 1))
	require.NoError(t, f.Sync())
	require.NoError(t, f.DropCache(0, 0))
}

func TestNoHookCostsNoAllocation(t *testing.T) {
	f := newStore(t, filled(1<<16))
	m := mapped(t, f, 1<<16)
	buf := filled(4096)
	bufs := [][]byte{buf}
	for name, do := range map[string]func() error{
		"read":     func() error { _, err := f.Pread(buf, 0); return err },
		"write":    func() error { return f.Pwritev(bufs, 0) },
		"range":    func() error { return f.SyncRange(m, 0, 4096) },
		"sync":     f.Sync,
		"truncate": func() error { return f.Truncate(1 << 16) },
		"allocate": func() error { return f.Allocate(0, 1<<16) },
	} {
		allocs := testing.AllocsPerRun(10, func() {
			if err := do(); err != nil {
				panic(err)
			}
		})
		require.Zero(t, allocs, name)
	}
}
