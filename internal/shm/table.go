// Package shm keeps what readers and writers of one store tell each other: which
// commits can be read, and which snapshots are being read.
//
// Everything is words that are read and written atomically, without pointers
// between them, so that the same structure can live in memory shared by processes.
// Today it lives in the memory of the one process that has the store open.
//
// Invariants:
//   - a slot that holds t > 0 keeps every page of commit t from being reused;
//   - a reader uses commit t only after it has seen, with t in its slot, that t is
//     still the published one: a writer that scans the slots after publishing a
//     later commit then sees t in it (store, then load, on both sides);
//   - the ring entry of the published commit is whole while it is published.
package shm

import (
	"sync"
	"sync/atomic"
)

const (
	ringSize   = 64 // commits whose roots can be had; more than may be unpublished at once
	blockSlots = 64 // slots that the table grows by
	rootWords  = 6  // words of a root bucket record
)

// MaxUnpublished is how many places of the ring may be past the published one.
const MaxUnpublished = ringSize / 2

// Commit is what a reader needs to know of a commit. The root words mean nothing here.
type Commit struct {
	Txid   uint64
	NPages uint64
	Root   [rootWords]uint64
}

func (c *Commit) sum() uint64 {
	h := c.Txid*0x9e3779b97f4a7c15 ^ c.NPages
	for _, w := range c.Root {
		h = (h ^ w) * 0x9e3779b97f4a7c15
		h ^= h >> 29
	}
	return h
}

// ringEntry is a Commit in words; 128 bytes, two cache lines.
type ringEntry struct {
	txid   atomic.Uint64 // 0 while the entry is written
	npages atomic.Uint64
	root   [rootWords]atomic.Uint64
	sum    atomic.Uint64
	_      [7]uint64
}

// Slot is a reader's place in the table; one cache line, so that readers do not
// slow each other.
type Slot struct {
	txid atomic.Uint64 // the commit being read, 0 when free
	_    [7]uint64
}

type block [blockSlots]Slot

// Table is the reader table and the ring of recent commits. All methods are safe
// for concurrent use; Put, Publish and Readers are for the writer.
type Table struct {
	published atomic.Uint64 // place in the ring's sequence of the commit that new readers get
	_         [7]uint64
	ring      [ringSize]ringEntry
	blocks    atomic.Pointer[[]*block]
	grow      sync.Mutex
}

// NewTable returns a table in private memory whose published commit is c, at place 0.
func NewTable(c Commit) *Table {
	t := &Table{}
	t.blocks.Store(&[]*block{new(block)})
	t.Put(0, c)
	return t
}

// Put writes a commit into the ring at the given place of its sequence, one past
// that of the commit before. It becomes readable with Publish.
func (t *Table) Put(place uint64, c Commit) {
	e := &t.ring[place%ringSize]
	e.txid.Store(0)
	e.npages.Store(c.NPages)
	for i, w := range c.Root {
		e.root[i].Store(w)
	}
	e.sum.Store(c.sum())
	e.txid.Store(c.Txid)
}

// Publish makes the commit at place the one that new readers get.
func (t *Table) Publish(place uint64) { t.published.Store(place) }

// Published returns the place of the commit that new readers get.
func (t *Table) Published() uint64 { return t.published.Load() }

// TxidAt returns the commit at place, which is at most MaxUnpublished places old.
func (t *Table) TxidAt(place uint64) uint64 { return t.ring[place%ringSize].txid.Load() }

// load copies the ring entry at place; ok is false where it is being overwritten.
func (t *Table) load(place uint64) (c Commit, ok bool) {
	e := &t.ring[place%ringSize]
	c.Txid = e.txid.Load()
	c.NPages = e.npages.Load()
	for i := range c.Root {
		c.Root[i] = e.root[i].Load()
	}
	sum := e.sum.Load()
	return c, c.Txid != 0 && e.txid.Load() == c.Txid && c.sum() == sum
}

// Acquire takes a slot and a snapshot of the published commit. hint is where the
// caller last had a slot: with it the common case is one compare-and-swap.
func (t *Table) Acquire(hint int) (slot *Slot, index int, c Commit, place uint64) {
	for {
		place := t.published.Load()
		c, ok := t.load(place)
		if !ok {
			continue // overwritten, so a later one is published by now
		}
		if slot == nil {
			slot, index = t.claim(hint, c.Txid)
		} else {
			slot.txid.Store(c.Txid)
		}
		if t.published.Load() == place {
			return slot, index, c, place
		}
	}
}

// AcquireAgain takes the slot that the caller last had, for the commit at place, which
// it knows from before: the common case of one reader after another with no commit
// between. ok is false where that is no longer the published one, or the slot is taken.
func (t *Table) AcquireAgain(slot *Slot, place, txid uint64) (ok bool) {
	if t.published.Load() != place || !slot.txid.CompareAndSwap(0, txid) {
		return false
	}
	if t.published.Load() == place {
		return true
	}
	slot.Release()
	return false
}

// AcquireAt takes a slot for commit txid, which the caller keeps from being reused
// until this returns.
func (t *Table) AcquireAt(hint int, txid uint64) (slot *Slot, index int) {
	return t.claim(hint, txid)
}

// claim finds a free slot, from hint on, and stores txid in it.
func (t *Table) claim(hint int, txid uint64) (*Slot, int) {
	for {
		blocks := *t.blocks.Load()
		n := len(blocks) * blockSlots
		for i := range n {
			at := (hint + i) % n
			s := &blocks[at/blockSlots][at%blockSlots]
			if s.txid.Load() == 0 && s.txid.CompareAndSwap(0, txid) {
				return s, at
			}
		}
		t.addBlock(len(blocks))
	}
}

// addBlock makes the table larger than nblocks.
func (t *Table) addBlock(nblocks int) {
	t.grow.Lock()
	defer t.grow.Unlock()
	blocks := *t.blocks.Load()
	if len(blocks) > nblocks {
		return // someone else was faster
	}
	more := append(append([]*block(nil), blocks...), new(block))
	t.blocks.Store(&more)
}

// Release frees the slot.
func (s *Slot) Release() { s.txid.Store(0) }

// Reader is a slot in use.
type Reader struct {
	Slot int
	Txid uint64
}

// Readers appends every slot in use to dst. A writer calls it after publishing:
// the table's length is loaded last among what it reads, so that no reader of an
// older commit is missed.
func (t *Table) Readers(dst []Reader) []Reader {
	for b, blk := range *t.blocks.Load() {
		for i := range blk {
			if x := blk[i].txid.Load(); x != 0 {
				dst = append(dst, Reader{Slot: b*blockSlots + i, Txid: x})
			}
		}
	}
	return dst
}
