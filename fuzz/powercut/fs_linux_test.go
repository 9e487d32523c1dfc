package powercut

// fs_linux_test.go looks at the disk through the kernel, as a store does.

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const pageSize = 4096

// open opens a file of the machine, which it makes where there is none.
func open(t *testing.T, m *Machine, name string) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(m.Dir, name), os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func writeAt(t *testing.T, f *os.File, b []byte, off int64) {
	t.Helper()
	_, err := f.WriteAt(b, off)
	require.NoError(t, err)
}

func syncDir(t *testing.T, dir string) {
	t.Helper()
	d, err := os.Open(dir)
	require.NoError(t, err)
	require.NoError(t, d.Sync())
	require.NoError(t, d.Close())
}

// TestCutOfMount writes through the kernel: what was synced is always there after a cut,
// what was not is there, or not, or torn.
func TestCutOfMount(t *testing.T) {
	m := start(t, Options{})
	seen := map[string]int{}
	for seed := range uint64(40) {
		require.NoError(t, m.Format(Options{}))
		f := open(t, m, "f")
		writeAt(t, f, fill('a', 2*pageSize), 0)
		require.NoError(t, unix.Fdatasync(int(f.Fd())))
		syncDir(t, m.Dir)
		writeAt(t, f, fill('b', pageSize), pageSize)
		open(t, m, "unsynced")
		require.NoError(t, f.Close())
		what, err := m.Reboot(seed)
		require.NoError(t, err)

		b, err := os.ReadFile(filepath.Join(m.Dir, "f"))
		require.NoError(t, err, what)
		require.Len(t, b, 2*pageSize, what)
		require.Equal(t, fill('a', pageSize), b[:pageSize], what)
		switch bytes.Count(b, []byte("b")) {
		case 0:
			seen["old"]++
		case pageSize:
			seen["new"]++
		default:
			seen["torn"]++
		}
		entries, err := os.ReadDir(m.Dir)
		require.NoError(t, err)
		if len(entries) == 2 {
			seen["name"]++
		}
	}
	t.Log(seen)
	require.Len(t, seen, 4)
	require.Less(t, seen["name"], 40, "a name was durable without a sync of its directory")
}

// TestMapping reads through a mapping, made before the file had its size, what was
// written by another descriptor, and syncs through it.
func TestMapping(t *testing.T) {
	m := start(t, Options{})
	f, other := open(t, m, "f"), open(t, m, "f")
	syncDir(t, m.Dir)
	data, err := unix.Mmap(int(f.Fd()), 0, 64*pageSize, unix.PROT_READ, unix.MAP_SHARED)
	require.NoError(t, err)
	defer unix.Munmap(data)
	require.NoError(t, unix.Fallocate(int(f.Fd()), 0, 0, 8*pageSize))
	want := make([]byte, 8*pageSize)
	for i := range 200 {
		b := fill(byte(i), 700)
		off := i * 997 % (len(want) - len(b))
		copy(want[off:], b)
		writeAt(t, other, b, int64(off))
		require.True(t, bytes.Equal(want, data[:len(want)]), "write %d", i)
		if i%20 == 0 {
			require.NoError(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
		}
	}
	require.NoError(t, other.Truncate(pageSize))
	require.NoError(t, other.Truncate(2*pageSize))
	require.Equal(t, make([]byte, pageSize), data[pageSize:2*pageSize])

	require.NoError(t, unix.Msync(data[:2*pageSize], unix.MS_SYNC))
	want = bytes.Clone(data[:2*pageSize])
	for seed := range uint64(5) {
		_, err = m.Reboot(seed)
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join(m.Dir, "f"))
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

// TestLocks: the kernel keeps OFD locks apart by descriptor, as on other file systems.
func TestLocks(t *testing.T) {
	m := start(t, Options{})
	f, other := open(t, m, "f"), open(t, m, "f")
	lock := func(f *os.File, kind int16) error {
		return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Whence: io.SeekStart})
	}
	require.NoError(t, lock(f, unix.F_WRLCK))
	require.Equal(t, unix.EAGAIN, lock(other, unix.F_RDLCK))
	require.NoError(t, lock(f, unix.F_UNLCK))
	require.NoError(t, lock(other, unix.F_WRLCK))
}

// TestRenames: what replaces nothing fails where there is something.
func TestRenames(t *testing.T) {
	m := start(t, Options{})
	a, b, c := filepath.Join(m.Dir, "a"), filepath.Join(m.Dir, "b"), filepath.Join(m.Dir, "c")
	open(t, m, "a")
	writeAt(t, open(t, m, "b"), []byte("b"), 0)
	require.ErrorIs(t, os.Link(a, b), os.ErrExist)
	require.ErrorIs(t, unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_NOREPLACE), os.ErrExist)
	require.NoError(t, unix.Renameat2(unix.AT_FDCWD, b, unix.AT_FDCWD, c, unix.RENAME_NOREPLACE))
	require.NoError(t, os.Rename(c, a))
	got, err := os.ReadFile(a)
	require.NoError(t, err)
	require.Equal(t, "b", string(got))
	require.NoError(t, os.Remove(a))
	require.NoFileExists(t, a)

	require.NoError(t, m.Format(Options{NoLinks: true}))
	open(t, m, "a")
	require.ErrorIs(t, os.Link(a, b), os.ErrPermission)
}

// TestStop: nothing works any more, in a program that has files open, until the disk
// resumes.
func TestStop(t *testing.T) {
	m := start(t, Options{})
	f := open(t, m, "f")
	writeAt(t, f, fill('a', pageSize), 0)
	stopped, err := m.Arm(1)
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	_, err = f.WriteAt([]byte("b"), 0)
	require.ErrorIs(t, err, unix.EIO)
	require.NoError(t, <-stopped)
	require.ErrorIs(t, f.Sync(), unix.EIO)
	require.ErrorIs(t, f.Truncate(0), unix.EIO)
	_, err = f.Stat()
	require.ErrorIs(t, err, unix.EIO)
	_, err = os.ReadDir(m.Dir)
	require.ErrorIs(t, err, unix.EIO)
	_, err = os.Create(filepath.Join(m.Dir, "g"))
	require.ErrorIs(t, err, unix.EIO)
	require.NoError(t, m.Resume())
	got, err := os.ReadFile(f.Name())
	require.NoError(t, err)
	require.Equal(t, fill('a', pageSize), got)
}

// TestEnd: a machine leaves no process and no mount behind, even if it was killed.
func TestEnd(t *testing.T) {
	for _, kill := range []bool{false, true} {
		m := start(t, Options{})
		f := open(t, m, "f") // in use
		_, err := m.Arm(99)  // and somebody waits
		require.NoError(t, err)
		if kill {
			require.NoError(t, m.server.Process.Kill())
		}
		m.Close()
		_, err = f.Stat()
		require.Error(t, err)
		entries, err := os.ReadDir(m.Dir)
		require.NoError(t, err)
		require.Empty(t, entries)
		require.NotNil(t, m.server.ProcessState)
	}
}
