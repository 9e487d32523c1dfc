package folio

// cursor.go is the public cursor: a place in a bucket that survives changes.
//
// Invariants:
//   - in state `at`, currentKey is the whole key of the pair that was returned last;
//   - the path may be used only while version is the tree's: a change of the
//     tree may have moved everything, and the place is found again by key;
//   - the fast way of Next knows the leaf that the path ends at; it moves on in it
//     without the path, which catches up when it is needed.

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

type cursorState uint8

const (
	cursorFresh  cursorState = iota // not positioned yet
	cursorAt                        // at key
	cursorBefore                    // ran off the start
	cursorAfter                     // ran off the end
)

// Cursor walks a bucket in key order. Its methods return nil, nil past either end,
// where it stays just outside: Prev then gives the last pair, Next the first. The
// value of a nested bucket is nil.
//
// A cursor stays right while its transaction changes the bucket: where its place
// has moved it finds it again by key. After its pair was deleted, Next gives the
// pair after it and Prev the one before. So a loop over all pairs sees each pair
// that exists throughout exactly once, whatever is put or deleted inside it.
type Cursor struct {
	b       *Bucket
	tx      *Tx
	t       *tree
	version uint64

	// In state at, while version is the tree's:
	leaf   page
	nslots int
	slot   int // in leaf
	offset int // of the current cell, if it is a plain pair: then key is not set

	key   []byte
	state cursorState
	st    path
	steps [6]step // st's first memory
}

// Cursor returns a cursor over the bucket. Next on it gives the first pair, Prev the last.
func (b *Bucket) Cursor() *Cursor {
	c := &Cursor{}
	c.init(b)
	return c
}

func (c *Cursor) init(b *Bucket) {
	c.b, c.tx, c.t = b, b.tx, b.t
	c.st = c.steps[:0]
}

// Bucket returns the bucket that the cursor walks.
func (c *Cursor) Bucket() *Bucket { return c.b }

// run runs fn, a positioning of the cursor, with faults turned into errors.
func (c *Cursor) run(fn func() (k, v []byte, err error)) (k, v []byte) {
	s, err := c.b.state()
	if err != nil {
		return nil, nil
	}
	c.leave()
	if c.t != c.b.t { // found again after an undone nested transaction
		c.t, c.version = c.b.t, c.b.t.version-1
	}
	s.guard(func() {
		if k, v, err = fn(); err != nil {
			s.fail(err)
		}
	})
	if s.err != nil {
		return nil, nil
	}
	return k, v
}

// First moves to the first pair and returns it.
func (c *Cursor) First() (key, value []byte) { return c.run(c.first) }

// Last moves to the last pair and returns it.
func (c *Cursor) Last() (key, value []byte) { return c.run(c.last) }

// Seek moves to the first pair whose key is at or above seek and returns it; nil or
// an empty key stands for the first pair.
func (c *Cursor) Seek(seek []byte) (key, value []byte) {
	return c.run(func() (k, v []byte, err error) { return c.seek(seek) })
}

// Next moves to the next pair and returns it.
func (c *Cursor) Next() (key, value []byte) {
	// The fast way: the next slot of the same leaf, whose cell is a plain pair. It
	// halves the time of a scan.
	i := c.slot + 1
	if s := c.tx.s; s == nil || !s.quick || i >= c.nslots || c.version != c.t.version {
		return c.run(c.next)
	}
	p := c.leaf
	off := p.slotOffset(c.nslots, i)
	if off+leafCellHeader > len(p) {
		return c.run(c.next)
	}
	sizes := binary.LittleEndian.Uint32(p[off:])
	mid := off + leafCellHeader + int(sizes&0xffff)
	end := mid + int(sizes>>16)
	if sizes&(cellFlag|cellFlag<<16) != 0 || end > len(p) {
		return c.run(c.next)
	}
	c.slot, c.offset = i, off
	return p[off+leafCellHeader : mid : mid], p[mid:end:end]
}

// currentKey returns the key of the pair that was returned last. A cell never changes,
// so its offset is as good as the key.
func (c *Cursor) currentKey() []byte {
	if c.offset > 0 {
		return rawKey(c.leaf[c.offset:])
	}
	return c.key
}

// leave forgets the leaf that the fast way walked, and takes the path to where it got.
func (c *Cursor) leave() {
	if c.leaf == nil {
		return
	}
	c.key = c.currentKey()
	c.st[len(c.st)-1].slot = c.slot
	c.leaf, c.nslots, c.offset = nil, 0, 0
}

// Prev moves to the pair before and returns it.
func (c *Cursor) Prev() (key, value []byte) { return c.run(c.prev) }

// Delete removes the pair at which the cursor is. Where it is at none, or that is
// gone already, it does nothing; at a nested bucket it returns ErrIncompatibleValue.
func (c *Cursor) Delete() error {
	if _, err := c.b.writeState(); err != nil {
		return fmt.Errorf("cursor delete: %w", err)
	}
	if c.state != cursorAt {
		return nil
	}
	return c.b.Delete(c.currentKey())
}

func (c *Cursor) first() (k, v []byte, err error) { return c.toEdge(false) }
func (c *Cursor) last() (k, v []byte, err error)  { return c.toEdge(true) }

func (c *Cursor) toEdge(last bool) (k, v []byte, err error) {
	if c.t.rec.root.pgno == 0 {
		return c.outside(last)
	}
	if err := c.t.edge(&c.st, last); err != nil {
		return nil, nil, err
	}
	return c.here()
}

// outside leaves the cursor past the end (last) or before the start.
func (c *Cursor) outside(last bool) (k, v []byte, err error) {
	c.state, c.key = cursorBefore, nil
	if last {
		c.state = cursorAfter
	}
	return nil, nil, nil
}

// here makes the pair that the path ends at the current one.
func (c *Cursor) here() (k, v []byte, err error) {
	cell, err := c.st.cellAt()
	if err != nil {
		return nil, nil, err
	}
	k, v, err = c.t.pg.pair(cell)
	if err != nil {
		return nil, nil, err
	}
	c.state, c.key, c.version = cursorAt, k, c.t.version
	leaf := &c.st[len(c.st)-1]
	c.leaf, c.nslots, c.slot = leaf.p, leaf.p.count(), leaf.slot
	return k, v, nil
}

func (c *Cursor) seek(key []byte) (k, v []byte, err error) {
	c.key = nil
	if c.t.rec.root.pgno == 0 {
		return c.outside(true)
	}
	if _, err := c.t.seek(&c.st, key); err != nil {
		return nil, nil, err
	}
	return c.settle()
}

// settle makes the path end at a pair: where its slot is past the leaf's last, at
// the next leaf's first.
func (c *Cursor) settle() (k, v []byte, err error) {
	leaf := &c.st[len(c.st)-1]
	if leaf.slot < leaf.p.count() {
		return c.here()
	}
	ok, err := c.t.nextLeaf(&c.st)
	if err != nil {
		return nil, nil, err
	}
	if !ok {
		return c.outside(true)
	}
	return c.inNewLeaf(+1)
}

// inNewLeaf is here after the step into another leaf. Its keys must go on in order:
// where they don't, the tree is damaged, and the walk might not end.
func (c *Cursor) inNewLeaf(dir int) (k, v []byte, err error) {
	last := c.key
	if k, v, err = c.here(); err == nil && last != nil && bytes.Compare(k, last) != dir {
		leaf := c.st[len(c.st)-1]
		return nil, nil, corrupt(leaf.n, "its keys do not follow those of the leaf before it")
	}
	return k, v, err
}

func (c *Cursor) next() (k, v []byte, err error) {
	switch c.state {
	case cursorFresh, cursorBefore:
		return c.first()
	case cursorAfter:
		return nil, nil, nil
	}
	if c.version != c.t.version {
		if c.t.rec.root.pgno == 0 {
			return c.outside(true)
		}
		exact, err := c.t.seek(&c.st, c.key)
		if err != nil {
			return nil, nil, err
		}
		if !exact {
			return c.settle() // the pair is gone: this is the one after it
		}
	}
	c.st[len(c.st)-1].slot++
	return c.settle()
}

func (c *Cursor) prev() (k, v []byte, err error) {
	switch c.state {
	case cursorFresh, cursorAfter:
		return c.last()
	case cursorBefore:
		return nil, nil, nil
	}
	if c.version != c.t.version {
		if c.t.rec.root.pgno == 0 {
			return c.outside(false)
		}
		if _, err := c.t.seek(&c.st, c.key); err != nil {
			return nil, nil, err
		}
	}
	leaf := &c.st[len(c.st)-1]
	if leaf.slot > 0 {
		leaf.slot--
		return c.here()
	}
	ok, err := c.t.prevLeaf(&c.st)
	if err != nil {
		return nil, nil, err
	}
	if !ok {
		return c.outside(false)
	}
	return c.inNewLeaf(-1)
}
