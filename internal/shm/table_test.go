package shm

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func commitOf(txid uint64) Commit {
	c := Commit{Txid: txid, NPages: txid * 3}
	for i := range c.Root {
		c.Root[i] = txid * uint64(i+7)
	}
	return c
}

func TestAcquireGivesThePublishedCommit(t *testing.T) {
	tab := NewTable(commitOf(1))
	tab.Put(1, commitOf(2))
	slot, _, c, place := tab.Acquire(0)
	require.Equal(t, commitOf(1), c)
	tab.Publish(1)
	other, index, c, _ := tab.Acquire(0)
	require.Equal(t, commitOf(2), c)
	require.Equal(t, 1, index, "slot 0 is taken")
	require.ElementsMatch(t, []Reader{{0, 1}, {1, 2}}, tab.Readers(nil))
	require.False(t, tab.AcquireAgain(slot, place, 1), "a later commit is published")
	slot.Release()
	other.Release()
	require.Empty(t, tab.Readers(nil))
	require.True(t, tab.AcquireAgain(slot, 1, 2))
	require.False(t, tab.AcquireAgain(slot, 1, 2), "the slot is taken")
	require.Equal(t, []Reader{{0, 2}}, tab.Readers(nil))
}

func TestTableGrows(t *testing.T) {
	tab := NewTable(commitOf(1))
	seen := map[int]bool{}
	var slots []*Slot
	for range 3*blockSlots + 5 {
		s, index, _, _ := tab.Acquire(0)
		require.False(t, seen[index])
		seen[index] = true
		slots = append(slots, s)
	}
	require.Len(t, tab.Readers(nil), len(slots))
	for _, s := range slots {
		s.Release()
	}
	require.Empty(t, tab.Readers(nil))
}

// Readers that begin while a writer publishes see whole commits, and a writer that
// scans after publishing sees every older snapshot that is in use.
func TestConcurrentAcquire(t *testing.T) {
	tab := NewTable(commitOf(1))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			hint := 0
			for {
				select {
				case <-stop:
					return
				default:
				}
				s, index, c, place := tab.Acquire(hint)
				hint = index
				if want := commitOf(c.Txid); c != want {
					t.Errorf("got %+v, want %+v", c, want)
				}
				s.Release()
				if tab.AcquireAgain(s, place, c.Txid) {
					s.Release()
				}
			}
		})
	}
	for txid := uint64(2); txid < 20_000; txid++ {
		tab.Put(txid-1, commitOf(txid))
		tab.Publish(txid - 1)
		for _, r := range tab.Readers(nil) {
			if r.Txid > txid {
				t.Errorf("reader of %d before it was published", r.Txid)
			}
		}
	}
	close(stop)
	wg.Wait()
}
