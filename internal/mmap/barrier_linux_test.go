// The proof that SyncRange is a barrier, from the kernel's own count of dirty
// pages: msync through a mapping flushes what pwrite wrote, but only where the
// mapped descriptor was opened read-write.

package mmap

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// dirtyPages counts the pages of a range that are not on the disk yet.
func dirtyPages(t *testing.T, f *File, off, nbytes int64) (dirty, writeback uint64) {
	t.Helper()
	span := unix.CachestatRange{Off: uint64(off), Len: uint64(nbytes)}
	var stat unix.Cachestat_t
	err := unix.Cachestat(uint(f.fd), &span, &stat, 0)
	if err == unix.ENOSYS || err == unix.EPERM || err == unix.EOPNOTSUPP {
		t.Skipf("cachestat: %v: the kernel tells nothing about its cache", err)
	}
	require.NoError(t, err)
	return stat.Dirty, stat.Writeback
}

const (
	barrierRange = 16 << 12 // bytes
	storeBytes   = 8 << 20
	// elsewhere starts a second range that is left alone. It is megabytes away
	// because the kernel keeps dirt per folio, and one of ext4's can have 2 MB:
	// what shares a folio with the range is flushed along with it.
	elsewhere = 4 << 20
)

// dirtyStore returns a synced file whose two ranges were then written.
func dirtyStore(t *testing.T) *File {
	f := newStore(t, nil)
	require.NoError(t, f.Allocate(0, storeBytes))
	require.NoError(t, f.Pwritev([][]byte{filled(storeBytes)}, 0))
	require.NoError(t, f.Sync())
	page := filled(barrierRange)
	require.NoError(t, f.Pwritev([][]byte{page}, 0))
	require.NoError(t, f.Pwritev([][]byte{page}, elsewhere))
	if dirty, _ := dirtyPages(t, f, 0, barrierRange); dirty == 0 {
		t.Skip("this file system reports no dirty pages (tmpfs?): set TMPDIR to a disk")
	}
	return f
}

func requireClean(t *testing.T, f *File, off int64) {
	t.Helper()
	dirty, writeback := dirtyPages(t, f, off, barrierRange)
	require.Zero(t, dirty+writeback, "pages not on disk")
}

func requireDirty(t *testing.T, f *File, off int64) {
	t.Helper()
	dirty, _ := dirtyPages(t, f, off, barrierRange)
	require.NotZero(t, dirty)
}

func TestSyncRangeIsABarrier(t *testing.T) {
	f := dirtyStore(t)
	m := mapped(t, f, 16<<20) // a reservation, longer than the file
	require.NoError(t, f.SyncRange(m, 100, barrierRange-200))
	requireClean(t, f, 0)
	requireDirty(t, f, elsewhere) // the range alone was synced, not the file
	require.NoError(t, f.Sync())
	requireClean(t, f, elsewhere)
}

// TestMsyncOfReadOnlyDescriptorIsNone shows why SyncRange refuses to msync on
// a read-only File. Should this fail one day, the kernel has become kinder.
func TestMsyncOfReadOnlyDescriptorIsNone(t *testing.T) {
	f := dirtyStore(t)
	reader := open(t, f.Path(), true)
	m := mapped(t, reader, storeBytes)
	require.NoError(t, unix.Msync(m.Data[:barrierRange], unix.MS_SYNC), "it reports success")
	requireDirty(t, f, 0)

	require.NoError(t, f.SyncRange(m, 0, barrierRange), "the mapping is another's: syncs all")
	requireClean(t, f, 0)
	requireClean(t, f, elsewhere)
}

func TestSyncRangeOfReadOnlyFileSyncsAll(t *testing.T) {
	f := dirtyStore(t)
	reader := open(t, f.Path(), true)
	require.NoError(t, reader.SyncRange(mapped(t, reader, storeBytes), 0, barrierRange))
	requireClean(t, f, 0)
	requireClean(t, f, elsewhere)
}

func TestDropCacheForgetsCleanPages(t *testing.T) {
	f := dirtyStore(t)
	require.NoError(t, f.Sync())
	require.NoError(t, f.DropCache(0, 0))
	span := unix.CachestatRange{Len: storeBytes}
	var stat unix.Cachestat_t
	require.NoError(t, unix.Cachestat(uint(f.fd), &span, &stat, 0))
	require.Less(t, stat.Cache, uint64(storeBytes/os.Getpagesize()), "pages left")
}

// WriteOut writes a range, and leaves the rest alone.
func TestWriteOut(t *testing.T) {
	f := dirtyStore(t)
	again, err := f.Reopen()
	require.NoError(t, err)
	defer again.Close()
	require.NoError(t, again.WriteOut(0, barrierRange))
	requireClean(t, f, 0)
	requireDirty(t, f, elsewhere)
	require.NoError(t, again.Sync())
	requireClean(t, f, elsewhere)
}
