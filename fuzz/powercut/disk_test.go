package powercut

// disk_test.go holds the model of a disk to its rules, without a kernel.

import (
	"bytes"
	"math/rand/v2"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// reboots calls visit with what many cuts leave of the disks that prepare makes.
func reboots(t *testing.T, prepare func(d *Disk), visit func(d *Disk)) {
	t.Helper()
	for seed := range uint64(300) {
		d := NewDisk(Options{})
		prepare(d)
		next, _ := d.Reboot(rand.New(rand.NewPCG(seed, 0)))
		visit(next)
		_, err := d.Names()
		require.Equal(t, syscall.EIO, err, "the old boot goes on")
	}
}

// create makes a file whose name is durable.
func create(t *testing.T, d *Disk, name string) (node uint64) {
	t.Helper()
	a, err := d.Create(name, 0o600)
	require.NoError(t, err)
	require.NoError(t, d.SyncNames())
	return a.Node
}

func fill(b byte, nbytes int) []byte { return bytes.Repeat([]byte{b}, nbytes) }

// TestSectors overwrites a synced file: each sector is old or new, whole, and all of
// them old, all new, and a mixture come up.
func TestSectors(t *testing.T) {
	const nbytes = 6*sectorSize + 100
	seen := map[string]int{}
	reboots(t, func(d *Disk) {
		node := create(t, d, "f")
		require.NoError(t, d.Write(node, fill('a', nbytes), 0))
		require.NoError(t, d.Sync(node))
		require.NoError(t, d.Write(node, fill('b', nbytes-50), 50))
	}, func(d *Disk) {
		b := d.Content()["f"]
		require.Len(t, b, nbytes)
		require.Equal(t, fill('a', 50), b[:50], "never written again")
		for from := 50; from < nbytes; {
			to := min(nbytes, from/sectorSize*sectorSize+sectorSize)
			require.Equal(t, fill(b[from], to-from), b[from:to], "a torn sector")
			from = to
		}
		switch n := bytes.Count(b[50:], []byte("b")); n {
		case 0:
			seen["old"]++
		case nbytes - 50:
			seen["new"]++
		default:
			seen["torn"]++
		}
	})
	require.Len(t, seen, 3)
	t.Log(seen)
}

// TestSizes cuts a file short and makes it longer again: what was behind the end does not
// come back, unless neither change arrived.
func TestSizes(t *testing.T) {
	seen := map[int]int{}
	reboots(t, func(d *Disk) {
		node := create(t, d, "f")
		require.NoError(t, d.Write(node, fill('a', 3000), 0))
		require.NoError(t, d.Sync(node))
		require.NoError(t, d.Truncate(node, 1000))
		require.NoError(t, d.Allocate(node, 4000))
	}, func(d *Disk) {
		b := d.Content()["f"]
		seen[len(b)]++
		switch len(b) {
		case 3000:
			require.Equal(t, fill('a', 3000), b)
		case 1000:
			require.Equal(t, fill('a', 1000), b)
		case 4000:
			require.Equal(t, append(fill('a', 1000), make([]byte, 3000)...), b)
		}
	})
	require.Len(t, seen, 3)
}

// TestNames: changes of names arrive in order, and one rename is one change.
func TestNames(t *testing.T) {
	seen := map[string]int{}
	reboots(t, func(d *Disk) {
		node := create(t, d, "old")
		require.NoError(t, d.Write(node, []byte("x"), 0))
		require.NoError(t, d.Sync(node)) // the file's sync is not its names'
		_, err := d.Link(node, "link")
		require.NoError(t, err)
		require.Equal(t, syscall.EEXIST, d.Rename("old", "link", false))
		require.NoError(t, d.Rename("old", "new", false))
		require.NoError(t, d.Unlink("link"))
	}, func(d *Disk) {
		names, err := d.Names()
		require.NoError(t, err)
		s := ""
		for _, name := range names {
			s += name + " "
			require.Equal(t, "x", string(d.Content()[name]))
		}
		seen[s]++
	})
	require.Len(t, seen, 4)
	for _, s := range []string{"old ", "link old ", "link new ", "new "} {
		require.Contains(t, seen, s)
	}
}

// TestSyncCoversWhatWasBefore: a write that comes in during a sync is not covered by it.
func TestSyncCoversWhatWasBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDisk(Options{})
		node := create(t, d, "f")
		require.NoError(t, d.Write(node, []byte("before"), 0))
		done := make(chan error)
		go func() { done <- d.Sync(node) }()
		synctest.Wait()
		require.NoError(t, d.Write(node, []byte("during"), 0))
		require.NoError(t, <-done)
		f, err := d.file(node)
		require.NoError(t, err)
		require.Equal(t, "before", string(f.synced))
		require.Equal(t, "during", string(f.now))
		require.NoError(t, d.Sync(node))
		require.Equal(t, "during", string(f.synced))
		require.Empty(t, f.pending)
	})
}

// TestArm: the planned number of changes goes through, and nothing from the next on
// until the disk resumes.
func TestArm(t *testing.T) {
	d := NewDisk(Options{})
	d.Arm(2)
	a, err := d.Create("f", 0o600)
	require.NoError(t, err)
	require.NoError(t, d.Write(a.Node, []byte("x"), 0))
	_, err = d.Stat(a.Node)
	require.NoError(t, err, "reads are not counted")
	require.Equal(t, syscall.EIO, d.Sync(a.Node))
	<-d.Stopped()
	_, err = d.Stat(a.Node)
	require.Equal(t, syscall.EIO, err)
	d.Resume()
	require.Equal(t, "x", string(d.Content()["f"]))
	require.NoError(t, d.Sync(a.Node))
}
