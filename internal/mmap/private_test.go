package mmap

import (
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A private file shows what is on the disk, takes writes and growth, and leaves the disk
// alone, even where it was opened for reading only.
func TestGoPrivate(t *testing.T) {
	content := filled(10_000)
	for _, readOnly := range []bool{true, false} {
		path := newStore(t, content).Path()
		f := open(t, path, readOnly)
		require.NoError(t, f.GoPrivate(1<<20))
		require.True(t, f.IsPrivate())
		m, err := f.Map(1 << 20)
		require.NoError(t, err)
		require.Equal(t, content, m.Data[:len(content)])

		require.NoError(t, f.Pwritev([][]byte{[]byte("he"), []byte("llo")}, 100))
		require.NoError(t, f.Allocate(0, 20_000))
		require.NoError(t, f.Pwritev([][]byte{[]byte("behind the end")}, 15_000))
		require.Equal(t, "hello", string(m.Data[100:105]))
		require.Equal(t, "behind the end", string(m.Data[15_000:15_014]))
		size, err := f.Size()
		require.NoError(t, err)
		require.EqualValues(t, 20_000, size)
		buf := make([]byte, 20)
		n, err := f.Pread(buf, 19_990)
		require.Equal(t, 10, n)
		require.ErrorIs(t, err, io.EOF)
		_, err = f.Pread(buf, 95)
		require.NoError(t, err)
		require.Equal(t, "hello", string(buf[5:10]))

		require.NoError(t, f.Truncate(12_000))
		size, err = f.Size()
		require.NoError(t, err)
		require.EqualValues(t, 12_000, size)
		require.NoError(t, f.Sync())
		require.NoError(t, f.SyncRange(m, 0, 10))
		require.NoError(t, f.DropCache(0, 0))
		require.Error(t, f.Allocate(0, 1<<20+1), "it holds so much and no more")

		onDisk, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, content, onDisk)
		require.NoError(t, m.Unmap())
	}
}

// A File opened again is synced by itself, and is refused where the path leads to another
// file by now.
func TestReopen(t *testing.T) {
	f := newStore(t, []byte("hello"))
	again, err := f.Reopen()
	require.NoError(t, err)
	defer again.Close()
	require.NoError(t, f.Pwritev([][]byte{[]byte("j")}, 0))
	require.NoError(t, again.Sync())
	require.NoError(t, again.WriteOut(0, 100))
	size, err := again.Size()
	require.NoError(t, err)
	require.EqualValues(t, 5, size)

	require.NoError(t, os.Rename(f.Path(), f.Path()+".moved"))
	_, err = f.Reopen()
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.WriteFile(f.Path(), []byte("other"), 0o600))
	_, err = f.Reopen()
	require.ErrorIs(t, err, unix.ESTALE)
}
