package folio

// page.go is the page format: the header, slots, cells, references and sums.
// It knows bytes and nothing else: no tree, no transaction, no file.
//
// Invariants of every page kept here:
//   - all integers are little-endian; reserved bytes are zero;
//   - sum is the xxhash64 of everything after it, up to the end of the page or run;
//   - slots are in strictly ascending order of their keys;
//   - cells lie in [upper, end) and never overlap; `dead` counts the bytes there
//     that belong to no slot;
//   - a cell, once written, never changes (but for references that a commit
//     fills in), so that a slice of it can be lent.
//
// docs/format.md holds the same layout as tables; a test compares the two.

import (
	"bytes"
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// pgno is a page number: a page's offset in the file divided by the page size.
type pgno uint64

// txid numbers commits, from 1.
type txid uint64

// pageKind tells what a page holds.
type pageKind uint8

const (
	kindMeta    pageKind = 1
	kindBranch  pageKind = 2
	kindLeaf    pageKind = 3
	kindRun     pageKind = 4
	kindFreelog pageKind = 5
)

func (k pageKind) String() string {
	switch k {
	case kindMeta:
		return "meta"
	case kindBranch:
		return "branch"
	case kindLeaf:
		return "leaf"
	case kindRun:
		return "run"
	case kindFreelog:
		return "freelog"
	}
	return "unknown"
}

// Offsets of the page header's fields. Each derives from the one before.
const (
	offSum    = 0             // u64 xxhash64 of the rest
	offPgno   = offSum + 8    // u64 the page's own number
	offTxid   = offPgno + 8   // u64 the commit that wrote it
	offTree   = offTxid + 8   // u64 id of the bucket it belongs to
	offKind   = offTree + 8   // u8
	offLevel  = offKind + 1   // u8 0 for a leaf
	offFlags  = offLevel + 1  // u16 flagRuns, flagBuckets
	offCount  = offFlags + 2  // u16 number of slots
	offPrefix = offCount + 2  // u16 length of the prefix that all keys share
	offLower  = offPrefix + 2 // u32 end of the slot arrays; in a run: length of the key
	offUpper  = offLower + 4  // u32 start of the cells; in a run: length of the value
	offPages  = offUpper + 4  // u32 pages of a run, else 1
	offDead   = offPages + 4  // u32 bytes of the cell area that belong to no slot

	headerSize = offDead + 4
)

// Page flags: what the subtree below a page holds, so that a range delete can
// free leaves without reading them. A set flag may be stale, a clear one is true.
const (
	flagRuns    = 1 << 0 // a pair or separator in a run
	flagBuckets = 1 << 1 // a nested bucket

	flagsKnown = flagRuns | flagBuckets
)

// Limits of the format.
const (
	minPageSize = 4 << 10
	maxPageSize = 64 << 10
	numMetas    = 4  // pages 0 to 3
	maxLevel    = 40 // deeper than any tree of 2^48 pages
	maxPgno     = 1<<48 - 1
	maxCounter  = 1<<62 - 1 // of commits and bucket ids: no store gets there

	leafSlotSize   = 4 + 2             // head, offset
	branchSlotSize = 4 + 2 + 8 + 8 + 8 // head, offset, child's number, sum, count

	leafCellHeader   = 4  // u16 key length, u16 value length
	branchCellHeader = 2  // u16 separator length
	runRefSize       = 36 // see putRunRef
	recordSize       = 48 // see putRecord
	truncatedKeySize = 64 // bytes of a long key that stay in the cell

	cellFlag = 1 << 15 // the top bit of a length
)

// cellFlags tell what a leaf cell's inline value is.
type cellFlags uint8

const (
	cellBucket cellFlags = 1 << 0 // a bucket record (behind the run reference, if there is one)
	cellLarge  cellFlags = 1 << 1 // a run reference; the pair lives in the run
)

// page is the bytes of one page, or of a whole run.
type page []byte

func (p page) sum() uint64    { return binary.LittleEndian.Uint64(p[offSum:]) }
func (p page) pgno() pgno     { return pgno(binary.LittleEndian.Uint64(p[offPgno:])) }
func (p page) txid() txid     { return txid(binary.LittleEndian.Uint64(p[offTxid:])) }
func (p page) tree() uint64   { return binary.LittleEndian.Uint64(p[offTree:]) }
func (p page) kind() pageKind { return pageKind(p[offKind]) }
func (p page) level() int     { return int(p[offLevel]) }
func (p page) flags() uint16  { return binary.LittleEndian.Uint16(p[offFlags:]) }
func (p page) count() int     { return int(binary.LittleEndian.Uint16(p[offCount:])) }
func (p page) prefixLen() int { return int(binary.LittleEndian.Uint16(p[offPrefix:])) }
func (p page) lower() int     { return int(binary.LittleEndian.Uint32(p[offLower:])) }
func (p page) upper() int     { return int(binary.LittleEndian.Uint32(p[offUpper:])) }
func (p page) npages() int    { return int(binary.LittleEndian.Uint32(p[offPages:])) }
func (p page) dead() int      { return int(binary.LittleEndian.Uint32(p[offDead:])) }

func (p page) setPgno(n pgno)     { binary.LittleEndian.PutUint64(p[offPgno:], uint64(n)) }
func (p page) setTxid(t txid)     { binary.LittleEndian.PutUint64(p[offTxid:], uint64(t)) }
func (p page) setFlags(f uint16)  { binary.LittleEndian.PutUint16(p[offFlags:], f) }
func (p page) setCount(n int)     { binary.LittleEndian.PutUint16(p[offCount:], uint16(n)) }
func (p page) setPrefixLen(n int) { binary.LittleEndian.PutUint16(p[offPrefix:], uint16(n)) }
func (p page) setLower(n int)     { binary.LittleEndian.PutUint32(p[offLower:], uint32(n)) }
func (p page) setUpper(n int)     { binary.LittleEndian.PutUint32(p[offUpper:], uint32(n)) }
func (p page) setPages(n int)     { binary.LittleEndian.PutUint32(p[offPages:], uint32(n)) }
func (p page) setDead(n int)      { binary.LittleEndian.PutUint32(p[offDead:], uint32(n)) }

// init makes p an empty page of the given kind. The bytes behind the header are
// left alone: the caller clears or overwrites them.
func (p page) init(kind pageKind, level int, tree uint64) {
	clear(p[:headerSize])
	p[offKind] = byte(kind)
	p[offLevel] = byte(level)
	binary.LittleEndian.PutUint64(p[offTree:], tree)
	p.setLower(headerSize)
	p.setUpper(len(p))
	p.setPages(1)
}

// computeSum returns the sum that the page's content calls for.
func (p page) computeSum() uint64 { return xxhash.Sum64(p[offPgno:]) }

// seal stamps the page with its number and commit and writes its sum.
func (p page) seal(n pgno, t txid) uint64 {
	p.setPgno(n)
	p.setTxid(t)
	s := p.computeSum()
	binary.LittleEndian.PutUint64(p[offSum:], s)
	return s
}

// used returns the bytes that live slots and cells take, header and prefix excluded.
func (p page) used() int {
	return p.lower() - headerSize + len(p) - p.upper() - p.dead()
}

// capacity is what slots and cells of a page of this size may take together.
func (p page) capacity() int { return len(p) - headerSize }

// maxCellSize is the largest cell that a page of psize bytes takes: with its slot
// a quarter of the page, so that a split always finds a place to cut.
func maxCellSize(psize int) int { return (psize-headerSize)/4 - branchSlotSize }

// head is the first four bytes of key after skipping skip bytes, big-endian, zero
// padded: heads order as their keys do, but for ties.
func head(key []byte, skip int) uint32 {
	if len(key) >= skip+4 {
		return binary.BigEndian.Uint32(key[skip:])
	}
	var b [4]byte
	if len(key) > skip {
		copy(b[:], key[skip:])
	}
	return binary.BigEndian.Uint32(b[:])
}

// commonPrefix returns the length of the longest common prefix of a and b.
func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		if binary.LittleEndian.Uint64(a[i:]) != binary.LittleEndian.Uint64(b[i:]) {
			break
		}
	}
	for ; i < n && a[i] == b[i]; i++ {
	}
	return i
}

// --- slots

// heads returns the array of n key heads. The caller has checked that the slot
// arrays lie in the page.
func (p page) heads(n int) []byte { return p[headerSize : headerSize+4*n] }

// slotOffset returns the offset of slot i's cell among n slots.
func (p page) slotOffset(n, i int) int {
	return int(binary.LittleEndian.Uint16(p[headerSize+4*n+2*i:]))
}

func (p page) setHead(i int, h uint32) {
	binary.LittleEndian.PutUint32(p[headerSize+4*i:], h)
}

func (p page) setSlotOffset(n, i, off int) {
	binary.LittleEndian.PutUint16(p[headerSize+4*n+2*i:], uint16(off))
}

// --- leaf cells

// leafCell is a decoded leaf cell. Its slices alias the page.
type leafCell struct {
	flags cellFlags
	key   []byte // the inline key: whole, or a prefix where a run holds it
	value []byte // the inline value: the value, a run reference, a bucket record, or the last two
}

// leafCellAt decodes slot i of a leaf of n slots. ok is false where the cell leaves the page.
func (p page) leafCellAt(n, i int) (c leafCell, ok bool) {
	off := p.slotOffset(n, i)
	if off+leafCellHeader > len(p) {
		return c, false
	}
	k := int(binary.LittleEndian.Uint16(p[off:]))
	v := int(binary.LittleEndian.Uint16(p[off+2:]))
	if (k|v)&cellFlag != 0 {
		if k&cellFlag != 0 {
			c.flags |= cellBucket
			k &^= cellFlag
		}
		if v&cellFlag != 0 {
			c.flags |= cellLarge
			v &^= cellFlag
		}
	}
	ks := off + leafCellHeader
	vs := ks + k
	end := vs + v
	if end > len(p) {
		return c, false
	}
	c.key = p[ks:vs:vs]
	c.value = p[vs:end:end]
	return c, c.flags == 0 || len(c.value) == inlineSize(c.flags)
}

// inlineSize is the length that the inline value of a cell with flags must have.
func inlineSize(f cellFlags) int {
	n := 0
	if f&cellLarge != 0 {
		n += runRefSize
	}
	if f&cellBucket != 0 {
		n += recordSize
	}
	return n
}

// refersToFile reports whether what the cell refers to can be in a file.
func (c leafCell) refersToFile() bool {
	if c.flags&cellLarge != 0 && getRunRef(c.value).pgno > maxPgno {
		return false
	}
	raw, isBucket := bucketRecord(c)
	return !isBucket || pgno(binary.LittleEndian.Uint64(raw)) <= maxPgno
}

// bucketRecord returns the bucket record in a cell.
func bucketRecord(c leafCell) ([]byte, bool) {
	if c.flags&cellBucket == 0 || len(c.value) < recordSize {
		return nil, false
	}
	return c.value[len(c.value)-recordSize:], true
}

// rawLeafCell returns the bytes of slot i's cell, header included.
func (p page) rawLeafCell(n, i int) ([]byte, bool) {
	off := p.slotOffset(n, i)
	if off+leafCellHeader > len(p) {
		return nil, false
	}
	size := leafCellHeader +
		int(binary.LittleEndian.Uint16(p[off:])&^cellFlag) +
		int(binary.LittleEndian.Uint16(p[off+2:])&^cellFlag)
	if off+size > len(p) {
		return nil, false
	}
	return p[off : off+size], true
}

// rawKey returns the inline key of an encoded leaf cell.
func rawKey(raw []byte) []byte {
	k := int(binary.LittleEndian.Uint16(raw) &^ cellFlag)
	return raw[leafCellHeader : leafCellHeader+k]
}

// rawFlags returns the flags of an encoded leaf cell.
func rawFlags(raw []byte) cellFlags {
	var f cellFlags
	if binary.LittleEndian.Uint16(raw)&cellFlag != 0 {
		f |= cellBucket
	}
	if binary.LittleEndian.Uint16(raw[2:])&cellFlag != 0 {
		f |= cellLarge
	}
	return f
}

// rawKeyLen returns the length of the whole key of an encoded leaf cell.
func rawKeyLen(raw []byte) int {
	k := rawKey(raw)
	if rawFlags(raw)&cellLarge == 0 {
		return len(k)
	}
	return getRunRef(raw[leafCellHeader+len(k):]).keyLen
}

// putLeafCell writes a cell to dst, which is large enough, and returns its size.
func putLeafCell(dst []byte, f cellFlags, key, value []byte) int {
	k, v := uint16(len(key)), uint16(len(value))
	if f&cellBucket != 0 {
		k |= cellFlag
	}
	if f&cellLarge != 0 {
		v |= cellFlag
	}
	binary.LittleEndian.PutUint16(dst, k)
	binary.LittleEndian.PutUint16(dst[2:], v)
	copy(dst[leafCellHeader:], key)
	copy(dst[leafCellHeader+len(key):], value)
	return leafCellHeader + len(key) + len(value)
}

// prefixCap is the longest page prefix that an inline key allows: where the rest
// of the key is in a run, the head must still come from the cell.
func prefixCap(inline []byte, whole int) int {
	if len(inline) < whole {
		return max(0, len(inline)-4)
	}
	return len(inline)
}

// leafSlotsFit and branchSlotsFit report whether n slots lie inside the page.
func (p page) leafSlotsFit(n int) bool   { return headerSize+leafSlotSize*n <= len(p) }
func (p page) branchSlotsFit(n int) bool { return headerSize+branchSlotSize*n <= len(p) }

// moveCells moves a leaf's cells that lie below offset end by delta bytes, down or up, for
// which the caller has made sure there is room. Slices of them must not be in use.
func (p page) moveCells(end, delta int) {
	if delta == 0 {
		return
	}
	n, upper := p.count(), p.upper()
	copy(p[upper+delta:], p[upper:end])
	offsets := p[headerSize+4*n : headerSize+6*n]
	for i := 0; i < len(offsets); i += 2 {
		if off := int(binary.LittleEndian.Uint16(offsets[i:])); off < end {
			binary.LittleEndian.PutUint16(offsets[i:], uint16(off+delta))
		}
	}
	p.setUpper(upper + delta)
}

// insertLeafSlot opens slot i in a leaf and points it at a new cell, for which the
// caller has made sure there is room, and lowers the prefix where key calls for it. The
// cell goes where the order of the keys has it if other cells may be moved, else below them.
func (p page) insertLeafSlot(i int, f cellFlags, key, value []byte, wholeKeyLen int, mayMove bool) {
	n, size := p.count(), leafCellHeader+len(key)+len(value)
	end := p.upper() // of the new cell
	if mayMove && i > 0 {
		before, _ := p.rawLeafCell(n, i-1)
		end = p.slotOffset(n, i-1) + len(before)
		p.moveCells(end, -size)
	} else {
		p.setUpper(end - size)
	}
	off := end - size
	putLeafCell(p[off:], f, key, value)

	plen := prefixCap(key, wholeKeyLen)
	if n > 0 {
		old := p.prefixLen()
		c, _ := p.leafCellAt(n, 0)
		plen = min(old, plen, commonPrefix(c.key, key))
		if plen < old {
			p.resetHeads(n, plen)
		}
	}
	p.setPrefixLen(plen)

	// Open the two arrays from the back, so that nothing is overwritten.
	h := headerSize
	copy(p[h+4*(n+1)+2*(i+1):], p[h+4*n+2*i:h+6*n])
	copy(p[h+4*(n+1):], p[h+4*n:h+4*n+2*i])
	copy(p[h+4*(i+1):], p[h+4*i:h+4*n])
	p.setCount(n + 1)
	p.setLower(h + leafSlotSize*(n+1))
	p.setHead(i, head(key, plen))
	p.setSlotOffset(n+1, i, off)
	p.addCellFlags(f)
}

// resetHeads recomputes all heads of a leaf for a new prefix length.
func (p page) resetHeads(n, plen int) {
	for i := range n {
		c, _ := p.leafCellAt(n, i)
		p.setHead(i, head(c.key, plen))
	}
}

// addCellFlags notes in the page's flags what a cell brings into it.
func (p page) addCellFlags(f cellFlags) {
	if f == 0 {
		return
	}
	pf := p.flags()
	if f&cellLarge != 0 {
		pf |= flagRuns
	}
	if f&cellBucket != 0 {
		pf |= flagBuckets
	}
	p.setFlags(pf)
}

// removeLeafCell closes slot i and the gap that its cell leaves: other cells are moved.
func (p page) removeLeafCell(i int) {
	n := p.count()
	raw, _ := p.rawLeafCell(n, i)
	off, size := p.slotOffset(n, i), len(raw)
	p.removeLeafSlots(i, i+1)
	p.moveCells(off, size)
	p.setDead(p.dead() - size)
}

// removeLeafSlots closes slots [i, j); their cells become dead bytes.
func (p page) removeLeafSlots(i, j int) {
	n := p.count()
	dead := 0
	for s := i; s < j; s++ {
		raw, _ := p.rawLeafCell(n, s)
		dead += len(raw)
	}
	h, m := headerSize, n-(j-i)
	copy(p[h+4*i:], p[h+4*j:h+4*n])
	copy(p[h+4*m:], p[h+4*n:h+4*n+2*i])
	copy(p[h+4*m+2*i:], p[h+4*n+2*j:h+6*n])
	p.setCount(m)
	p.setLower(h + leafSlotSize*m)
	p.setDead(p.dead() + dead)
}

// replaceLeafCell points slot i at a new cell with the same key, which takes the place of
// the old one if other cells may be moved; else it goes below them, and the old one becomes
// dead. The new one may keep less of the key, and so allow only a shorter prefix.
func (p page) replaceLeafCell(i int, f cellFlags, key, value []byte, wholeKeyLen int, mayMove bool) {
	n, size := p.count(), leafCellHeader+len(key)+len(value)
	raw, _ := p.rawLeafCell(n, i)
	off := p.upper() - size
	if mayMove {
		old := p.slotOffset(n, i)
		p.moveCells(old, len(raw)-size)
		off = old + len(raw) - size
	} else {
		p.setUpper(off)
		p.setDead(p.dead() + len(raw))
	}
	putLeafCell(p[off:], f, key, value)
	p.setSlotOffset(n, i, off)
	p.addCellFlags(f)
	if most := prefixCap(key, wholeKeyLen); most < p.prefixLen() {
		p.setPrefixLen(most)
		p.resetHeads(n, most)
	}
}

// isTidy reports whether a leaf's cells lie nearly in the order of their keys, with few dead
// bytes between: at most an eighth of either. What is left of the rest costs a scan little,
// and to put a leaf in order at each change would cost a random load a fifth of its time.
func (p page) isTidy() bool {
	n := p.count()
	if p.dead() > p.capacity()/8 {
		return false
	}
	allowed := n / 8
	for i := 1; i < n; i++ {
		if p.slotOffset(n, i) < p.slotOffset(n, i-1) {
			if allowed--; allowed < 0 {
				return false
			}
		}
	}
	return true
}

// leafSize returns the bytes that a leaf of these cells takes.
func leafSize(raws [][]byte) int {
	size := headerSize
	for _, r := range raws {
		size += leafSlotSize + len(r)
	}
	return size
}

// buildLeaf fills p, whose header fields kind, level and tree are set, with cells
// in order. They must fit, and must not alias p.
func (p page) buildLeaf(raws [][]byte) {
	n := len(raws)
	plen := 0
	if n > 0 {
		plen = commonPrefix(rawKey(raws[0]), rawKey(raws[n-1]))
	}
	p.setFlags(0)
	for _, r := range raws {
		f := rawFlags(r)
		p.addCellFlags(f)
		if f&cellLarge != 0 {
			plen = min(plen, prefixCap(rawKey(r), rawKeyLen(r)))
		}
	}
	// Cells lie in the order of their keys, so that a scan reads memory forward.
	upper := len(p) + headerSize + leafSlotSize*n - leafSize(raws)
	off := upper
	for i, r := range raws {
		copy(p[off:], r)
		p.setHead(i, head(rawKey(r), plen))
		p.setSlotOffset(n, i, off)
		off += len(r)
	}
	lower := headerSize + leafSlotSize*n
	clear(p[lower:upper])
	p.setCount(n)
	p.setPrefixLen(plen)
	p.setLower(lower)
	p.setUpper(upper)
	p.setDead(0)
}

// --- branch pages

// ref is a reference to a child: where it is, what its sum must be, and how many
// pairs lie below it.
type ref struct {
	pgno  pgno
	sum   uint64
	count uint64 // pairs below; the top two bits are refRuns and refBuckets
}

// The flags of a child's page, kept beside the count in its reference.
const (
	refRuns    = 1 << 63
	refBuckets = 1 << 62
	refCount   = refBuckets - 1
)

func (r ref) pairs() uint64 { return r.count & refCount }

// countField returns the count field for pairs below a page with the given flags.
func countField(pairs uint64, pageFlags uint16) uint64 {
	if pageFlags&flagRuns != 0 {
		pairs |= refRuns
	}
	if pageFlags&flagBuckets != 0 {
		pairs |= refBuckets
	}
	return pairs
}

// childAt returns the reference in slot i of a branch of n slots.
func (p page) childAt(n, i int) ref {
	b := p[headerSize+6*n : headerSize+branchSlotSize*n]
	return ref{
		pgno:  pgno(binary.LittleEndian.Uint64(b[8*i:])),
		sum:   binary.LittleEndian.Uint64(b[8*(n+i):]),
		count: binary.LittleEndian.Uint64(b[8*(2*n+i):]),
	}
}

// childPlace returns number and sum of the child in slot i.
func (p page) childPlace(i int) (pgno, uint64) {
	n := p.count()
	b := p[headerSize+6*n : headerSize+branchSlotSize*n]
	return pgno(binary.LittleEndian.Uint64(b[8*i:])), binary.LittleEndian.Uint64(b[8*(n+i):])
}

func (p page) setChild(n, i int, r ref) {
	b := p[headerSize+6*n:]
	binary.LittleEndian.PutUint64(b[8*i:], uint64(r.pgno))
	binary.LittleEndian.PutUint64(b[8*(n+i):], r.sum)
	binary.LittleEndian.PutUint64(b[8*(2*n+i):], r.count)
}

// addPairs adds delta to the count of slot i of a branch of n slots.
func (p page) addPairs(n, i int, delta int64) {
	b := p[headerSize+6*n+8*(2*n+i):]
	c := binary.LittleEndian.Uint64(b)
	binary.LittleEndian.PutUint64(b, c&^refCount|(c&refCount+uint64(delta))&refCount)
}

// pairsBefore sums the counts of slots [0, i) of a branch of n slots.
func (p page) pairsBefore(n, i int) uint64 {
	b := p[headerSize+6*n+16*n : headerSize+branchSlotSize*n]
	var sum uint64
	for s := range i {
		sum += binary.LittleEndian.Uint64(b[8*s:]) & refCount
	}
	return sum
}

// totalPairs returns the number of pairs below the page.
func (p page) totalPairs() uint64 {
	if p.level() == 0 {
		return uint64(p.count())
	}
	n := p.count()
	return p.pairsBefore(n, n)
}

// branchPrefix returns the bytes that all separators of a branch share, kept at
// the page's end.
func (p page) branchPrefix() []byte { return p[len(p)-p.prefixLen():] }

// branchCellAt returns what slot i > 0 keeps of its separator after the page's
// prefix, and the run reference if a run holds the whole.
func (p page) branchCellAt(n, i int) (suffix, run []byte, ok bool) {
	off := p.slotOffset(n, i)
	if off+branchCellHeader > len(p) {
		return nil, nil, false
	}
	k := int(binary.LittleEndian.Uint16(p[off:]))
	large := k&cellFlag != 0
	k &^= cellFlag
	s := off + branchCellHeader
	end := s + k
	if large {
		end += runRefSize
	}
	if end > len(p) {
		return nil, nil, false
	}
	if large {
		run = p[s+k : end]
	}
	return p[s : s+k], run, true
}

// child is one child of a branch while the branch is taken apart and built anew.
type child struct {
	sep []byte // the separator to its left, or its first bytes where run holds it; unused in slot 0
	run []byte // encoded run reference of a long separator, or nil
	ref ref
}

// prefixCap returns the longest page prefix that the child's separator allows.
func (c *child) prefixCap() int {
	if c.run != nil {
		return max(0, len(c.sep)-4)
	}
	return len(c.sep)
}

// childrenPrefix returns the length of the prefix that the separators of
// children[1:] share.
func childrenPrefix(children []child) int {
	n := len(children)
	if n < 2 {
		return 0
	}
	plen := children[1].prefixCap()
	for i := 2; i < n && plen > 0; i++ {
		c := &children[i]
		plen = min(plen, c.prefixCap(), commonPrefix(children[1].sep, c.sep))
	}
	return plen
}

// branchSize returns the bytes that a branch of these children takes.
func branchSize(children []child) int {
	n := len(children)
	plen := childrenPrefix(children)
	size := headerSize + branchSlotSize*n + plen
	for i := 1; i < n; i++ {
		size += branchCellHeader + len(children[i].sep) - plen + len(children[i].run)
	}
	return size
}

// buildBranch fills p, whose header fields kind, level and tree are set. The
// children must fit, and must not alias p.
func (p page) buildBranch(children []child) {
	n := len(children)
	plen := childrenPrefix(children)
	off := len(p) - plen
	if n > 1 {
		copy(p[off:], children[1].sep[:plen])
	}
	var flags uint16
	for i := range children {
		c := &children[i]
		p.setChild(n, i, c.ref)
		flags |= childFlags(c.ref)
		if i == 0 {
			p.setHead(0, 0)
			p.setSlotOffset(n, 0, 0)
			continue
		}
		suffix := c.sep[plen:]
		off -= branchCellHeader + len(suffix) + len(c.run)
		k := uint16(len(suffix))
		if c.run != nil {
			k |= cellFlag
			flags |= flagRuns
		}
		binary.LittleEndian.PutUint16(p[off:], k)
		copy(p[off+branchCellHeader:], suffix)
		copy(p[off+branchCellHeader+len(suffix):], c.run)
		p.setHead(i, head(suffix, 0))
		p.setSlotOffset(n, i, off)
	}
	lower := headerSize + branchSlotSize*n
	clear(p[lower:off])
	p.setFlags(flags)
	p.setCount(n)
	p.setPrefixLen(plen)
	p.setLower(lower)
	p.setUpper(off)
	p.setDead(0)
}

// childFlags returns the page flags that a child's reference carries.
func childFlags(r ref) uint16 {
	var f uint16
	if r.count&refRuns != 0 {
		f |= flagRuns
	}
	if r.count&refBuckets != 0 {
		f |= flagBuckets
	}
	return f
}

// --- runs

// runRef is a reference to a run: a pair too large for a page, or a long separator
// (then valueLen is 0).
type runRef struct {
	pgno     pgno
	sum      uint64
	txid     txid // the commit that wrote it
	npages   int
	keyLen   int
	valueLen int
}

// putRunRef writes r to dst: pgno u64, sum u64, txid u64, pages u32, key length
// u32, value length u32.
func putRunRef(dst []byte, r runRef) {
	binary.LittleEndian.PutUint64(dst, uint64(r.pgno))
	binary.LittleEndian.PutUint64(dst[8:], r.sum)
	binary.LittleEndian.PutUint64(dst[16:], uint64(r.txid))
	binary.LittleEndian.PutUint32(dst[24:], uint32(r.npages))
	binary.LittleEndian.PutUint32(dst[28:], uint32(r.keyLen))
	binary.LittleEndian.PutUint32(dst[32:], uint32(r.valueLen))
}

// getRunRef decodes what putRunRef wrote.
func getRunRef(src []byte) runRef {
	_ = src[runRefSize-1]
	return runRef{
		pgno:     pgno(binary.LittleEndian.Uint64(src)),
		sum:      binary.LittleEndian.Uint64(src[8:]),
		txid:     txid(binary.LittleEndian.Uint64(src[16:])),
		npages:   int(binary.LittleEndian.Uint32(src[24:])),
		keyLen:   int(binary.LittleEndian.Uint32(src[28:])),
		valueLen: int(binary.LittleEndian.Uint32(src[32:])),
	}
}

// runPages returns how many pages of psize bytes a run of a key and value takes.
func runPages(psize, keyLen, valueLen int) int {
	return (headerSize + keyLen + valueLen + psize - 1) / psize
}

// initRun makes p, whole pages of zeros behind the header, a run that holds key and value.
func (p page) initRun(tree uint64, npages int, key, value []byte) {
	p.init(kindRun, 0, tree)
	p.setPages(npages)
	p.setLower(len(key))
	p.setUpper(len(value))
	n := headerSize + copy(p[headerSize:], key)
	n += copy(p[n:], value)
	clear(p[n:])
}

// runKey and runValue return the parts of a run whose lengths r names; the caller
// has checked that they lie inside.
func (p page) runKey(r runRef) []byte {
	end := headerSize + r.keyLen
	return p[headerSize:end:end]
}

func (p page) runValue(r runRef) []byte {
	start := headerSize + r.keyLen
	end := start + r.valueLen
	return p[start:end:end]
}

// --- bucket records

// record is a bucket's record: the inline value of its cell, or the root bucket's
// in the meta.
type record struct {
	root     ref
	id       uint64
	sequence uint64
	level    int // level of the root page
}

// putRecord writes r to dst: root pgno u64, sum u64, count u64, id u64, sequence
// u64, level u8, seven reserved bytes.
func putRecord(dst []byte, r record) {
	binary.LittleEndian.PutUint64(dst, uint64(r.root.pgno))
	binary.LittleEndian.PutUint64(dst[8:], r.root.sum)
	binary.LittleEndian.PutUint64(dst[16:], r.root.count)
	binary.LittleEndian.PutUint64(dst[24:], r.id)
	binary.LittleEndian.PutUint64(dst[32:], r.sequence)
	binary.LittleEndian.PutUint64(dst[40:], uint64(r.level))
}

// getRecord decodes what putRecord wrote. ok is false where reserved bytes are not
// zero or an empty bucket claims pairs.
func getRecord(src []byte) (r record, ok bool) {
	_ = src[recordSize-1]
	r.root.pgno = pgno(binary.LittleEndian.Uint64(src))
	r.root.sum = binary.LittleEndian.Uint64(src[8:])
	r.root.count = binary.LittleEndian.Uint64(src[16:])
	r.id = binary.LittleEndian.Uint64(src[24:])
	r.sequence = binary.LittleEndian.Uint64(src[32:])
	level := binary.LittleEndian.Uint64(src[40:])
	r.level = int(level & 0xff)
	if level > maxLevel || r.id > maxCounter {
		return r, false
	}
	if r.root.pgno == 0 && (r.root.count != 0 || r.root.sum != 0 || r.level != 0) {
		return r, false
	}
	return r, true
}

// --- validation

// validate checks what can be told from a tree page alone: kind, level, that the
// slot arrays and every cell lie where they may. It returns the broken rule, or "".
func (p page) validate() string {
	n := p.count()
	switch p.kind() {
	case kindLeaf:
		if p.level() != 0 {
			return "leaf above level 0"
		}
		return p.validateLeaf(n)
	case kindBranch:
		if p.level() < 1 || p.level() > maxLevel {
			return "branch at an impossible level"
		}
		return p.validateBranch(n)
	}
	return "kind " + p.kind().String() + " where a tree page should be"
}

func (p page) validateLayout(n, slotSize int) string {
	switch {
	case n == 0:
		return "tree page without slots"
	case p.flags()&^flagsKnown != 0:
		return "unknown page flags"
	case p.npages() != 1:
		return "tree page of more than one page"
	case p.lower() != headerSize+slotSize*n || p.lower() > p.upper() || p.upper() > len(p):
		return "slots and cells overlap"
	case p.dead() > len(p)-p.upper():
		return "more dead bytes than cells"
	}
	return ""
}

// inOrder reports whether a key that begins with a may stand before one that begins
// with b. Where one of them is cut short, so that the rest is in a run, one may be the
// beginning of the other.
func inOrder(a, b []byte, cut bool) bool {
	if cut && (bytes.HasPrefix(a, b) || bytes.HasPrefix(b, a)) {
		return true
	}
	return bytes.Compare(a, b) < 0
}

func (p page) validateLeaf(n int) string {
	if rule := p.validateLayout(n, leafSlotSize); rule != "" {
		return rule
	}
	plen := p.prefixLen()
	live := 0
	var first, last leafCell
	for i := range n {
		c, ok := p.leafCellAt(n, i)
		if !ok || p.slotOffset(n, i) < p.upper() {
			return "cell outside the cell area"
		}
		if len(c.key) < plen || len(c.key) == 0 {
			return "key shorter than the page's prefix"
		}
		if i == 0 {
			first = c
		}
		if leHead(p, i) != head(c.key, plen) || !bytes.Equal(c.key[:plen], first.key[:plen]) {
			return "head or prefix does not fit the key"
		}
		if i > 0 && !inOrder(last.key, c.key, (last.flags|c.flags)&cellLarge != 0) {
			return "keys are not in order"
		}
		last = c
		if !c.refersToFile() {
			return "reference to a page number that cannot be"
		}
		live += leafCellHeader + len(c.key) + len(c.value)
	}
	if live+p.dead() != len(p)-p.upper() {
		return "cells and dead bytes do not add up"
	}
	return ""
}

func (p page) validateBranch(n int) string {
	if rule := p.validateLayout(n, branchSlotSize); rule != "" {
		return rule
	}
	plen := p.prefixLen()
	if len(p)-plen < p.upper() {
		return "prefix outside the cell area"
	}
	live := plen
	var last []byte
	lastRun := false
	for i := range n {
		if p.childAt(n, i).pgno > maxPgno {
			return "reference to a page number that cannot be"
		}
		if i == 0 {
			continue
		}
		suffix, run, ok := p.branchCellAt(n, i)
		if !ok || p.slotOffset(n, i) < p.upper() {
			return "separator outside the cell area"
		}
		if run != nil && getRunRef(run).pgno > maxPgno {
			return "reference to a page number that cannot be"
		}
		if leHead(p, i) != head(suffix, 0) {
			return "head does not fit the separator"
		}
		if i > 1 && !inOrder(last, suffix, lastRun || run != nil) {
			return "separators are not in order"
		}
		last, lastRun = suffix, run != nil
		live += branchCellHeader + len(suffix) + len(run)
	}
	if live+p.dead() != len(p)-p.upper() {
		return "separators and dead bytes do not add up"
	}
	return ""
}

// cutsPrefix compares key with the page's branch prefix: negative where key sorts
// before all keys that have it, positive where after, 0 where key has the prefix.
func cutsPrefix(key, prefix []byte) int {
	if len(key) >= len(prefix) {
		return bytes.Compare(key[:len(prefix)], prefix)
	}
	if c := bytes.Compare(key, prefix[:len(key)]); c != 0 {
		return c
	}
	return -1 // a proper prefix of the prefix sorts before it
}

// leHead returns the head in slot i.
func leHead(p page, i int) uint32 { return binary.LittleEndian.Uint32(p[headerSize+4*i:]) }
