package folio

// btree.go is the copy-on-write B+tree of one bucket, on pages: search, insert,
// delete, split, merge, ranges and counting. It knows pages and a pager, no files.
//
// Invariants:
//   - a descent is bounded by the level, which falls by one at each step: a
//     damaged file with a cycle gives an error, not a loop;
//   - all keys below slot i > 0 of a branch are >= its separator, all below
//     slot i-1 are less;
//   - the count in a reference is the number of pairs below it, at all times;
//   - no page without slots is ever left in a tree; an empty tree has no page;
//   - every write finishes with the tree whole: a failed one (damage, a full disk)
//     is followed by the rollback of its transaction.

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sort"
)

// tree is one bucket's B+tree within one transaction.
type tree struct {
	pg      *pager
	rec     record
	version uint64 // moves at every change, so that a cursor knows that it was outrun

	// In a write transaction:
	parent  *tree  // nil for the root bucket
	name    []byte // key of its cell in parent
	layer   int    // the layer that holds its latest saved state
	changed bool   // the record in the parent's cell is behind; it is in layers.changed
	dead    bool   // deleted
	stale   bool   // opened in a layer that was undone: see txState.current
}

// step is one page on the way from the root to a leaf, and the slot taken in it.
type step struct {
	p    page
	n    pgno
	slot int
}

// path is the way from the root (first) to a leaf (last).
type path []step

func (st *path) reset() {
	clear(*st)
	*st = (*st)[:0]
}

// scratch is memory that the tree's writes use again and again.
type scratch struct {
	raws     [][]byte
	children []child
	arena    []byte
	cell     []byte
	value    [runRefSize + recordSize]byte
}

func (s *scratch) reset() {
	clear(s.raws[:cap(s.raws)])
	clear(s.children[:cap(s.children)])
}

// --- search

// loadRoot returns the root page of a tree that has one.
func (t *tree) loadRoot() (page, error) {
	p, err := t.pg.load(t.rec.root.pgno, t.rec.root.sum)
	if err != nil {
		return nil, err
	}
	if p.level() != t.rec.level {
		return nil, wrongLevel(t.rec.root.pgno, p, t.rec.level)
	}
	return p, nil
}

// rootNumber returns the number of the tree's root in the file, for errors; of a dirty
// one that of the page that it was copied from, 0 where there is none.
func (t *tree) rootNumber() pgno {
	n := t.rec.root.pgno
	if n&virtual == 0 {
		return n
	}
	if p, err := t.pg.loadDirty(n); err == nil {
		return p.pgno()
	}
	return 0
}

// loadChild returns the child in slot i of branch p, and its reference.
func (pg *pager) loadChild(p page, i int) (page, ref, error) {
	r := p.childAt(p.count(), i)
	c, err := pg.load(r.pgno, r.sum)
	if err != nil {
		return nil, r, err
	}
	if c.level() != p.level()-1 {
		return nil, r, wrongLevel(r.pgno, c, p.level()-1)
	}
	return c, r, nil
}

// badPage is the error for a page whose content leaves its bounds after it was
// validated: it changed under the map.
func badPage(p page) error {
	return corrupt(p.pgno(), "a cell leaves the page")
}

// get finds the cell of key. found is false where there is none.
func (t *tree) get(key []byte) (c leafCell, found bool, err error) {
	if t.rec.root.pgno == 0 {
		return c, false, nil
	}
	// The counts of children stay unread: they are on cache lines of their own.
	n, sum := t.rec.root.pgno, t.rec.root.sum
	for level := t.rec.level; ; level-- {
		p, err := t.pg.load(n, sum)
		if err != nil {
			return c, false, err
		}
		if p.level() != level {
			return c, false, wrongLevel(n, p, level)
		}
		if level == 0 {
			return t.pg.findInLeaf(p, key)
		}
		i, err := t.pg.searchBranch(p, key)
		if err != nil {
			return c, false, err
		}
		n, sum = p.childPlace(i)
	}
}

func wrongLevel(n pgno, p page, level int) error {
	return corrupt(n, "level %d where %d should be", p.level(), level)
}

// findInLeaf looks for exactly key. It does not look at the page's prefix: where
// key lacks it, the search goes astray, and the last comparison tells.
func (pg *pager) findInLeaf(p page, key []byte) (c leafCell, found bool, err error) {
	n := p.count()
	if !p.leafSlotsFit(n) {
		return c, false, badPage(p)
	}
	h := head(key, p.prefixLen())
	heads := p.heads(n)
	lo, hi := 0, n
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		mh := binary.LittleEndian.Uint32(heads[4*m:])
		if mh < h {
			lo = m + 1
			continue
		}
		if mh > h {
			hi = m
			continue
		}
		c, ok := p.leafCellAt(n, m)
		if !ok {
			return c, false, badPage(p)
		}
		cmp, err := pg.compareCell(c, key)
		if err != nil {
			return c, false, err
		}
		if cmp == 0 {
			return c, true, nil
		}
		if cmp < 0 {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return leafCell{}, false, nil
}

// lowerBound returns the first slot of a leaf whose key is >= key, and whether it
// is equal.
func (pg *pager) lowerBound(p page, key []byte) (slot int, exact bool, err error) {
	n := p.count()
	if !p.leafSlotsFit(n) {
		return 0, false, badPage(p)
	}
	plen := p.prefixLen()
	if plen > 0 {
		first, ok := p.leafCellAt(n, 0)
		if !ok || len(first.key) < plen {
			return 0, false, badPage(p)
		}
		switch c := cutsPrefix(key, first.key[:plen]); {
		case c < 0:
			return 0, false, nil
		case c > 0:
			return n, false, nil
		}
	}
	h := head(key, plen)
	heads := p.heads(n)
	lo, hi := 0, n
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		mh := binary.LittleEndian.Uint32(heads[4*m:])
		cmp := 0
		switch {
		case mh < h:
			cmp = -1
		case mh > h:
			cmp = 1
		default:
			c, ok := p.leafCellAt(n, m)
			if !ok {
				return 0, false, badPage(p)
			}
			if cmp, err = pg.compareCell(c, key); err != nil {
				return 0, false, err
			}
		}
		if cmp == 0 {
			return m, true, nil
		}
		if cmp < 0 {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo, false, nil
}

// compareCell compares a cell's whole key with key.
func (pg *pager) compareCell(c leafCell, key []byte) (int, error) {
	if c.flags&cellLarge == 0 {
		return bytes.Compare(c.key, key), nil
	}
	return pg.compareLong(c.key, c.value, key)
}

// compareLong compares the key whose first bytes are inline, and which the run that
// encoded refers to holds whole, with key. The run is read only if it must be.
func (pg *pager) compareLong(inline, encoded, key []byte) (int, error) {
	r := getRunRef(encoded)
	if r.keyLen == len(inline) {
		return bytes.Compare(inline, key), nil
	}
	if len(key) <= len(inline) {
		if c := bytes.Compare(inline[:len(key)], key); c != 0 {
			return c, nil
		}
		return 1, nil
	}
	if c := bytes.Compare(inline, key[:len(inline)]); c != 0 {
		return c, nil
	}
	run, err := pg.loadRun(r)
	if err != nil {
		return 0, err
	}
	return bytes.Compare(run.runKey(r), key), nil
}

// searchBranch returns the slot of the child that key belongs under.
func (pg *pager) searchBranch(p page, key []byte) (int, error) {
	n := p.count()
	if !p.branchSlotsFit(n) {
		return 0, badPage(p)
	}
	plen := p.prefixLen()
	if plen > 0 {
		if plen > len(p)-headerSize {
			return 0, badPage(p)
		}
		switch c := cutsPrefix(key, p.branchPrefix()); {
		case c < 0:
			return 0, nil
		case c > 0:
			return n - 1, nil
		}
	}
	rest := key[plen:]
	h := head(rest, 0)
	heads := p.heads(n)
	lo, hi := 1, n
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		mh := binary.LittleEndian.Uint32(heads[4*m:])
		if mh < h {
			lo = m + 1
			continue
		}
		if mh > h {
			hi = m
			continue
		}
		cmp, err := pg.compareSeparator(p, n, m, key, rest)
		if err != nil {
			return 0, err
		}
		if cmp <= 0 {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo - 1, nil
}

// compareSeparator compares separator i with key, whose rest follows the page's prefix.
func (pg *pager) compareSeparator(p page, n, i int, key, rest []byte) (int, error) {
	suffix, run, ok := p.branchCellAt(n, i)
	if !ok {
		return 0, badPage(p)
	}
	if run == nil {
		return bytes.Compare(suffix, rest), nil
	}
	if len(rest) <= len(suffix) || !bytes.HasPrefix(rest, suffix) {
		if c := bytes.Compare(suffix, rest[:min(len(rest), len(suffix))]); c != 0 {
			return c, nil
		}
		return 1, nil // the separator is longer than key, which it starts with
	}
	r := getRunRef(run)
	rp, err := pg.loadRun(r)
	if err != nil {
		return 0, err
	}
	return bytes.Compare(rp.runKey(r), key), nil
}

// cellKey returns the whole key of a cell.
func (pg *pager) cellKey(c leafCell) ([]byte, error) {
	if c.flags&cellLarge == 0 {
		return c.key, nil
	}
	r := getRunRef(c.value)
	if r.keyLen == len(c.key) {
		return c.key, nil
	}
	run, err := pg.loadRun(r)
	if err != nil {
		return nil, err
	}
	return run.runKey(r), nil
}

// cellValue returns the value of a cell, nil for a bucket. An empty value is not nil.
func (pg *pager) cellValue(c leafCell) ([]byte, error) {
	if c.flags == 0 {
		return c.value, nil
	}
	if c.flags&cellBucket != 0 {
		return nil, nil
	}
	r := getRunRef(c.value)
	run, err := pg.loadRun(r)
	if err != nil {
		return nil, err
	}
	return run.runValue(r), nil
}

// seek makes st the path to the first pair >= key; the slot may be past the leaf's
// last. exact tells whether the pair's key is key. The tree must not be empty.
func (t *tree) seek(st *path, key []byte) (exact bool, err error) {
	*st = (*st)[:0]
	p, err := t.loadRoot()
	if err != nil {
		return false, err
	}
	n := t.rec.root.pgno
	for p.level() > 0 {
		i, err := t.pg.searchBranch(p, key)
		if err != nil {
			return false, err
		}
		*st = append(*st, step{p, n, i})
		var r ref
		if p, r, err = t.pg.loadChild(p, i); err != nil {
			return false, err
		}
		n = r.pgno
	}
	i, exact, err := t.pg.lowerBound(p, key)
	*st = append(*st, step{p, n, i})
	return exact, err
}

// leafNumber returns the number of the leaf where key belongs, without a look at it; 0
// where there is none, or damage on the way.
func (t *tree) leafNumber(key []byte) pgno {
	if t.rec.root.pgno == 0 || t.rec.level == 0 {
		return t.rec.root.pgno
	}
	p, err := t.loadRoot()
	for err == nil {
		var i int
		if i, err = t.pg.searchBranch(p, key); err != nil {
			break
		}
		if p.level() == 1 {
			n, _ := p.childPlace(i)
			return n
		}
		p, _, err = t.pg.loadChild(p, i)
	}
	return 0
}

// edge makes st the path to the first or the last pair. The tree must not be empty.
func (t *tree) edge(st *path, last bool) error {
	*st = (*st)[:0]
	p, err := t.loadRoot()
	if err != nil {
		return err
	}
	return t.descendEdge(st, p, t.rec.root.pgno, last)
}

// descendEdge extends st from page p down to the first or last pair below it.
func (t *tree) descendEdge(st *path, p page, n pgno, last bool) error {
	for {
		i := 0
		if last {
			i = p.count() - 1
		}
		*st = append(*st, step{p, n, i})
		if p.level() == 0 {
			return nil
		}
		c, r, err := t.pg.loadChild(p, i)
		if err != nil {
			return err
		}
		p, n = c, r.pgno
	}
}

// nextLeaf moves st to the first pair of the next leaf, prevLeaf to the last of the
// one before. ok is false at the end of the tree; st is then as it was.
func (t *tree) nextLeaf(st *path) (ok bool, err error) { return t.stepLeaf(st, +1) }
func (t *tree) prevLeaf(st *path) (ok bool, err error) { return t.stepLeaf(st, -1) }

func (t *tree) stepLeaf(st *path, dir int) (ok bool, err error) {
	for d := len(*st) - 2; d >= 0; d-- {
		s := &(*st)[d]
		i := s.slot + dir
		if i < 0 || i >= s.p.count() {
			continue
		}
		p, r, err := t.pg.loadChild(s.p, i)
		if err != nil {
			return false, err
		}
		s.slot = i
		*st = (*st)[:d+1]
		return true, t.descendEdge(st, p, r.pgno, dir < 0)
	}
	return false, nil
}

// --- counting

// rank returns the number of pairs whose key is below key.
func (t *tree) rank(key []byte) (uint64, error) {
	if t.rec.root.pgno == 0 {
		return 0, nil
	}
	p, err := t.loadRoot()
	if err != nil {
		return 0, err
	}
	var below uint64
	for p.level() > 0 {
		i, err := t.pg.searchBranch(p, key)
		if err != nil {
			return 0, err
		}
		below += p.pairsBefore(p.count(), i)
		if p, _, err = t.pg.loadChild(p, i); err != nil {
			return 0, err
		}
	}
	i, _, err := t.pg.lowerBound(p, key)
	return below + uint64(i), err
}

// at returns the cell of the i-th pair, from 0. ok is false past the last.
func (t *tree) at(i uint64) (c leafCell, ok bool, err error) {
	if i >= t.rec.root.pairs() {
		return c, false, nil
	}
	p, err := t.loadRoot()
	if err != nil {
		return c, false, err
	}
	for p.level() > 0 {
		n := p.count()
		if !p.branchSlotsFit(n) {
			return c, false, badPage(p)
		}
		s := 0
		for ; s < n-1; s++ {
			pairs := p.childAt(n, s).pairs()
			if i < pairs {
				break
			}
			i -= pairs
		}
		if p, _, err = t.pg.loadChild(p, s); err != nil {
			return c, false, err
		}
	}
	n := p.count()
	if i >= uint64(n) {
		return c, false, corrupt(p.pgno(), "fewer pairs than the references above it count")
	}
	c, ok = p.leafCellAt(n, int(i))
	if !ok {
		return c, false, badPage(p)
	}
	return c, true, nil
}

// --- insert

// put stores value under key, as a pair or (flags cellBucket) as a bucket record.
// It replaces what was there, which is of the same kind.
func (t *tree) put(key []byte, flags cellFlags, value []byte) error {
	exact, err := t.seekFor(key, flags)
	if err != nil {
		return err
	}
	if leafCellHeader+len(key)+len(value) <= maxCellSize(t.pg.psize) {
		return t.putCell(exact, flags, key, value, len(key))
	}
	flags |= cellLarge
	ikey, ivalue := t.newLargeCell(key, flags, value)
	return t.putCell(exact, flags, ikey, ivalue, len(key))
}

// adopt stores under key the pair that r holds, a run that is in the file already.
func (t *tree) adopt(key []byte, r runRef) error {
	exact, err := t.seekFor(key, 0)
	if err != nil {
		return err
	}
	ivalue := t.pg.w.scratch.value[:runRefSize]
	putRunRef(ivalue, r)
	return t.putCell(exact, cellLarge, t.inlineKey(key, ivalue), ivalue, len(key))
}

// seekFor sets the writer's path to where key is or belongs, and reports which. A cell
// of another kind must not be there.
func (t *tree) seekFor(key []byte, flags cellFlags) (exact bool, err error) {
	if t.rec.root.pgno == 0 {
		return false, nil
	}
	st := &t.pg.w.path
	if exact, err = t.seek(st, key); err != nil || !exact {
		return false, err
	}
	return true, t.checkKind(*st, flags)
}

// putCell stores a cell where seekFor has set the path; key may be cut.
func (t *tree) putCell(exact bool, flags cellFlags, key, value []byte, wholeKeyLen int) error {
	t.version++
	if t.rec.root.pgno == 0 {
		t.newRootLeaf(flags, key, value, wholeKeyLen)
		return nil
	}
	st := &t.pg.w.path
	isCopy := t.touchPath(*st)
	if exact {
		return t.overwrite(*st, flags, key, value, wholeKeyLen, isCopy)
	}
	t.addPairs(*st, +1)
	leaf := (*st)[len(*st)-1]
	need := leafSlotSize + leafCellHeader + len(key) + len(value)
	if need <= leaf.p.upper()-leaf.p.lower() {
		leaf.p.insertLeafSlot(leaf.slot, flags, key, value, wholeKeyLen, isCopy)
		return nil
	}
	return t.insertFull(*st, t.encodeCell(flags, key, value))
}

// cellAt decodes the cell that the path ends at.
func (st path) cellAt() (leafCell, error) {
	leaf := &st[len(st)-1]
	c, ok := leaf.p.leafCellAt(leaf.p.count(), leaf.slot)
	if !ok {
		return c, badPage(leaf.p)
	}
	return c, nil
}

// checkKind refuses to let a pair take a bucket's place, or a bucket a pair's.
func (t *tree) checkKind(st path, flags cellFlags) error {
	c, err := st.cellAt()
	if err != nil {
		return err
	}
	if c.flags&cellBucket != flags&cellBucket {
		return ErrIncompatibleValue
	}
	return nil
}

// patchRecord writes the record of the bucket called name into its cell. A record
// is never lent, so it is changed in place.
func (t *tree) patchRecord(name []byte, rec record) error {
	st := &t.pg.w.path
	exact, err := t.seek(st, name)
	if err != nil {
		return err
	}
	if !exact {
		return corrupt(t.rootNumber(), "the cell of bucket %s cannot be found again below it", quoted(name))
	}
	t.version++
	t.touchPath(*st)
	c, err := st.cellAt()
	if err != nil {
		return err
	}
	raw, ok := bucketRecord(c)
	if !ok {
		return corrupt(t.rootNumber(), "the cell of bucket %s below it holds a pair", quoted(name))
	}
	putRecord(raw, rec)
	return nil
}

// newLargeCell puts a pair that is too large for a page into a run and returns what
// stays in the cell.
func (t *tree) newLargeCell(key []byte, flags cellFlags, value []byte) (ikey, ivalue []byte) {
	ivalue = t.pg.w.scratch.value[:runRefSize]
	runValue := value
	if flags&cellBucket != 0 {
		ivalue = append(ivalue, value...) // the record changes often: it stays in the cell
		runValue = nil
	}
	t.newRun(ivalue, key, runValue)
	return t.inlineKey(key, ivalue), ivalue
}

// inlineKey returns what of a key stays in a cell whose pair is in a run.
func (t *tree) inlineKey(key, ivalue []byte) []byte {
	if leafCellHeader+len(key)+len(ivalue) > maxCellSize(t.pg.psize) {
		return key[:truncatedKeySize]
	}
	return key
}

// newRun makes a dirty run and writes the reference to it to dst.
func (t *tree) newRun(dst, key, value []byte) {
	npages := runPages(t.pg.psize, len(key), len(value))
	p := make(page, npages*t.pg.psize)
	p.initRun(t.rec.id, npages, key, value)
	n := t.pg.w.add(p, npages)
	putRunRef(dst, runRef{pgno: n, npages: npages, keyLen: len(key), valueLen: len(value)})
}

// freeRun frees the run that an encoded reference names.
func (t *tree) freeRun(encoded []byte) {
	r := getRunRef(encoded)
	t.pg.w.freeRun(r)
}

// freeCellRun frees the run of slot i, if it has one.
func (t *tree) freeCellRun(p page, i int) error {
	c, ok := p.leafCellAt(p.count(), i)
	if !ok {
		return badPage(p)
	}
	if c.flags&cellLarge != 0 {
		t.freeRun(c.value)
	}
	return nil
}

// encodeCell returns a cell's bytes, in scratch memory.
func (t *tree) encodeCell(flags cellFlags, key, value []byte) []byte {
	s := &t.pg.w.scratch
	size := leafCellHeader + len(key) + len(value)
	if cap(s.cell) < size {
		s.cell = make([]byte, size)
	}
	s.cell = s.cell[:size]
	putLeafCell(s.cell, flags, key, value)
	return s.cell
}

func (t *tree) newRootLeaf(flags cellFlags, key, value []byte, wholeKeyLen int) {
	p := getBuffer(t.pg.psize)
	p.init(kindLeaf, 0, t.rec.id)
	clear(p[headerSize:])
	p.insertLeafSlot(0, flags, key, value, wholeKeyLen, true)
	t.setRoot(ref{pgno: t.pg.w.add(p, 1), count: 1}, 0)
}

func (t *tree) setRoot(r ref, level int) {
	t.rec.root, t.rec.level = r, level
	t.markChanged()
}

// markChanged notes that the record in the parent's cell is behind.
func (t *tree) markChanged() {
	if !t.changed {
		t.changed = true
		t.pg.w.changed = append(t.pg.w.changed, t)
	}
}

// touchPath makes every page on the path one that the current layer may change, and reports
// whether the last of them was copied for that: then nobody has a slice of it yet.
func (t *tree) touchPath(st path) (isCopy bool) {
	t.markChanged()
	for d := range st {
		s := &st[d]
		n, p := t.pg.touch(s.n, s.p)
		isCopy = &p[0] != &s.p[0]
		if n != s.n {
			if d == 0 {
				t.rec.root.pgno, t.rec.root.sum = n, 0
			} else {
				up := &st[d-1]
				r := up.p.childAt(up.p.count(), up.slot)
				r.pgno, r.sum = n, 0
				up.p.setChild(up.p.count(), up.slot, r)
			}
		}
		s.n, s.p = n, p
	}
	return isCopy
}

// addPairs adds delta to the counts of all references along the path.
func (t *tree) addPairs(st path, delta int64) {
	t.rec.root.count = t.rec.root.count&^refCount | (t.rec.root.pairs()+uint64(delta))&refCount
	for d := range len(st) - 1 {
		s := &st[d]
		s.p.addPairs(s.p.count(), s.slot, delta)
	}
}

// overwrite replaces the cell that the path, touched, ends at. Other cells of the leaf may
// be moved if that was just copied.
func (t *tree) overwrite(st path, flags cellFlags, key, value []byte, wholeKeyLen int, isCopy bool) error {
	leaf := &st[len(st)-1]
	old, ok := leaf.p.rawLeafCell(leaf.p.count(), leaf.slot)
	if !ok {
		return badPage(leaf.p)
	}
	if err := t.freeCellRun(leaf.p, leaf.slot); err != nil {
		return err
	}
	size := leafCellHeader + len(key) + len(value)
	need := size
	if isCopy {
		need -= len(old)
	}
	if need <= leaf.p.upper()-leaf.p.lower() {
		shrinks := size < len(old)
		leaf.p.replaceLeafCell(leaf.slot, flags, key, value, wholeKeyLen, isCopy)
		if shrinks {
			return t.fixUnderflow(st, len(st)-1)
		}
		return nil
	}
	raws, err := t.collect(leaf.p)
	if err != nil {
		return err
	}
	shrinks := size < len(old)
	raws[leaf.slot] = t.encodeCell(flags, key, value)
	if err := t.rebuildLeaf(st, raws, leafSplit(raws)); err != nil || !shrinks {
		return err
	}
	return t.fixUnderflow(st, len(st)-1)
}

// insertFull inserts a cell into a leaf without room at its end: by compaction, or
// by a split.
func (t *tree) insertFull(st path, cell []byte) error {
	leaf := &st[len(st)-1]
	raws, err := t.collect(leaf.p)
	if err != nil {
		return err
	}
	raws = append(raws, nil)
	copy(raws[leaf.slot+1:], raws[leaf.slot:])
	raws[leaf.slot] = cell
	t.pg.w.scratch.raws = raws
	if leaf.slot == len(raws)-1 && isRightmost(st) && leaf.p.dead() == 0 {
		// An append at the end leaves the full leaf alone, so that a sequential
		// load fills its pages.
		return t.rebuildLeaf(st, raws, len(raws)-1)
	}
	return t.rebuildLeaf(st, raws, leafSplit(raws))
}

// isRightmost reports whether the path takes the last slot of every branch.
func isRightmost(st path) bool {
	for _, s := range st[:len(st)-1] {
		if s.slot != s.p.count()-1 {
			return false
		}
	}
	return true
}

// collect returns the cells of a leaf, in scratch memory.
func (t *tree) collect(pages ...page) ([][]byte, error) {
	raws := t.pg.w.scratch.raws[:0]
	for _, p := range pages {
		n := p.count()
		if !p.leafSlotsFit(n) {
			return nil, badPage(p)
		}
		for i := range n {
			raw, ok := p.rawLeafCell(n, i)
			if !ok {
				return nil, badPage(p)
			}
			raws = append(raws, raw)
		}
	}
	t.pg.w.scratch.raws = raws
	return raws, nil
}

// leafSplit returns where to cut cells so that both halves are about equally large.
func leafSplit(raws [][]byte) int {
	total := leafSize(raws) - headerSize
	left := 0
	for i, r := range raws {
		size := leafSlotSize + len(r)
		if left+size/2 >= total/2 && i > 0 {
			return i
		}
		left += size
	}
	return len(raws) - 1
}

// rebuildLeaf gives the leaf at the path's end the cells raws, in a new buffer; where
// they don't fit one page, those from cut on go to a new leaf.
func (t *tree) rebuildLeaf(st path, raws [][]byte, cut int) error {
	d := len(st) - 1
	leaf := &st[d]
	if leafSize(raws) <= t.pg.psize {
		leaf.p = t.rebuildInto(leaf.n, raws)
		return nil
	}
	items, err := t.splitLeaf(leaf.n, raws, cut)
	if err != nil {
		return err
	}
	return t.replace(st, d-1, 1, items)
}

// rebuildInto fills a new buffer with cells and makes it dirty page n's content.
func (t *tree) rebuildInto(n pgno, raws [][]byte) page {
	p := getBuffer(t.pg.psize)
	p.init(kindLeaf, 0, t.rec.id)
	p.buildLeaf(raws)
	t.pg.swap(n, p)
	return p
}

// splitLeaf puts raws[:cut] into dirty page n and the rest into a new page, and
// returns both as children.
func (t *tree) splitLeaf(n pgno, raws [][]byte, cut int) ([]child, error) {
	sep, run, err := t.separator(raws[cut-1], raws[cut])
	if err != nil {
		return nil, err
	}
	right := getBuffer(t.pg.psize)
	right.init(kindLeaf, 0, t.rec.id)
	right.buildLeaf(raws[cut:])
	left := t.rebuildInto(n, raws[:cut])
	rn := t.pg.w.add(right, 1)
	return []child{
		{ref: dirtyRef(n, left)},
		{sep: sep, run: run, ref: dirtyRef(rn, right)},
	}, nil
}

// dirtyRef returns the reference to a dirty page; the commit fills in number and sum.
func dirtyRef(n pgno, p page) ref {
	return ref{pgno: n, count: countField(p.totalPairs(), p.flags())}
}

// separator returns the shortest key that is above left's and not above right's,
// and puts it into a run where it is too long for a cell.
func (t *tree) separator(left, right []byte) (sep, run []byte, err error) {
	lk, err := t.rawWholeKey(left)
	if err != nil {
		return nil, nil, err
	}
	rk, err := t.rawWholeKey(right)
	if err != nil {
		return nil, nil, err
	}
	shared := commonPrefix(lk, rk)
	if shared == len(rk) {
		return nil, nil, corrupt(t.rootNumber(), "keys below it are not in order")
	}
	whole := rk[:shared+1]
	if len(whole) <= maxCellSize(t.pg.psize)-branchCellHeader {
		return bytes.Clone(whole), nil, nil
	}
	run = make([]byte, runRefSize)
	t.newRun(run, whole, nil)
	return bytes.Clone(whole[:truncatedKeySize]), run, nil
}

// rawWholeKey returns the whole key of an encoded cell.
func (t *tree) rawWholeKey(raw []byte) ([]byte, error) {
	k := rawKey(raw)
	return t.pg.cellKey(leafCell{flags: rawFlags(raw), key: k, value: raw[leafCellHeader+len(k):]})
}

// --- branches

// children appends the children of branch p to dst; sep and run stand for what is
// left of the first. Separators are made whole again, in memory of their own.
func (t *tree) children(dst []child, p page, sep, run []byte) ([]child, error) {
	n := p.count()
	if !p.branchSlotsFit(n) {
		return nil, badPage(p)
	}
	prefix := p.branchPrefix()
	arena := t.pg.w.scratch.arena
	for i := range n {
		c := child{sep: sep, run: run, ref: p.childAt(n, i)}
		if i > 0 {
			suffix, run, ok := p.branchCellAt(n, i)
			if !ok {
				return nil, badPage(p)
			}
			start := len(arena)
			arena = append(append(arena, prefix...), suffix...)
			c.sep, c.run = arena[start:len(arena):len(arena)], run
		}
		dst = append(dst, c)
	}
	t.pg.w.scratch.arena = arena
	return dst, nil
}

// separatorAt returns separator i > 0 of branch p in memory of its own.
func (t *tree) separatorAt(p page, i int) (sep, run []byte, err error) {
	suffix, run, ok := p.branchCellAt(p.count(), i)
	if !ok {
		return nil, nil, badPage(p)
	}
	return append(bytes.Clone(p.branchPrefix()), suffix...), bytes.Clone(run), nil
}

// replace puts items in the place of nold children of the branch at depth d of the
// path, from the slot that the path takes on; d = -1 stands for the root reference.
// The first item stands right of the separator of the first old child; separators
// between the old ones are the caller's to free or to use again.
func (t *tree) replace(st path, d, nold int, items []child) error {
	if d < 0 {
		return t.replaceRoot(st, items)
	}
	s := &st[d]
	all, err := t.spliced(s.p, s.slot, nold, items)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		t.pg.w.free(s.n, 1, 0)
		return t.replace(st, d-1, 1, nil)
	}
	appended := len(items) > 1 && s.slot+nold == s.p.count() && isRightmost(st[:d+1])
	groups := partition(all, t.pg.psize, appended)
	up := make([]child, len(groups))
	for g, group := range groups {
		p := getBuffer(t.pg.psize)
		p.init(kindBranch, s.p.level(), t.rec.id)
		p.buildBranch(group)
		n := s.n
		if g == 0 {
			t.pg.swap(n, p)
		} else {
			n = t.pg.w.add(p, 1)
		}
		up[g] = child{sep: group[0].sep, run: group[0].run, ref: dirtyRef(n, p)}
	}
	s.p = t.pg.w.pages[s.n&^virtual].buf
	if len(groups) > 1 {
		detach(up)
		return t.replace(st, d-1, 1, up)
	}
	if d == 0 {
		t.rec.root = up[0].ref
		return t.collapseRoot()
	}
	if len(items) >= nold {
		return nil // a page that an append has just begun may be nearly empty
	}
	return t.fixUnderflow(st, d)
}

// detach gives separators memory of their own: they outlive the scratch that they are in.
func detach(children []child) {
	for i := range children {
		children[i].sep = bytes.Clone(children[i].sep)
		children[i].run = bytes.Clone(children[i].run)
	}
}

// spliced returns the children of branch p with items in the place of [slot, slot+nold).
func (t *tree) spliced(p page, slot, nold int, items []child) ([]child, error) {
	w := t.pg.w
	w.scratch.arena = w.scratch.arena[:0]
	all, err := t.children(w.scratch.children[:0], p, nil, nil)
	if err != nil {
		return nil, err
	}
	if len(items) == 0 {
		// What was the separator left of the removed child goes; where it was the
		// first child, the next one's, since that one is now the first.
		gone := max(slot, nold)
		if gone < len(all) && all[gone].run != nil {
			t.freeRun(all[gone].run)
		}
	} else {
		items[0].sep, items[0].run = all[slot].sep, all[slot].run
	}
	all = slices.Replace(all, slot, slot+nold, items...)
	w.scratch.children = all
	return all, nil
}

// replaceRoot makes items the tree's root: nothing, one page, or a new branch over several.
func (t *tree) replaceRoot(st path, items []child) error {
	switch len(items) {
	case 0:
		t.setRoot(ref{}, 0)
		return nil
	case 1:
		broken("tree %d: the root is replaced by a single child", t.rec.id)
	}
	level := st[0].p.level() + 1
	if level > maxLevel {
		return corrupt(st[0].p.pgno(), "tree deeper than %d levels", maxLevel)
	}
	p := getBuffer(t.pg.psize)
	p.init(kindBranch, level, t.rec.id)
	p.buildBranch(items)
	t.setRoot(dirtyRef(t.pg.w.add(p, 1), p), level)
	return nil
}

// collapseRoot drops root branches that have a single child.
func (t *tree) collapseRoot() error {
	for t.rec.level > 0 {
		p, err := t.loadRoot()
		if err != nil {
			return err
		}
		if p.count() > 1 {
			return nil
		}
		r := p.childAt(1, 0)
		t.pg.w.free(t.rec.root.pgno, 1, pageTxid(t.rec.root.pgno, p))
		t.setRoot(r, t.rec.level-1)
	}
	return nil
}

// pageTxid returns the commit that wrote page n, for the free list; 0 for a dirty page.
func pageTxid(n pgno, p page) txid {
	if n&virtual != 0 {
		return 0
	}
	return p.txid()
}

// partition cuts children into groups that fit a page each. Mostly that is one group,
// or two of like size; where an odd separator costs a page its prefix, it can be more.
func partition(all []child, psize int, appended bool) [][]child {
	if branchSize(all) <= psize {
		return [][]child{all}
	}
	n := len(all)
	if appended && n > 3 && branchSize(all[:n-2]) <= psize {
		return [][]child{all[:n-2], all[n-2:]} // sequential load: leave the left one full
	}
	// A cut near the middle, moved until both sides fit.
	for off := 0; off < n; off++ {
		for _, cut := range [2]int{n/2 - off, n/2 + off} {
			if cut < 1 || cut >= n {
				continue
			}
			if branchSize(all[:cut]) <= psize && branchSize(all[cut:]) <= psize {
				return [][]child{all[:cut], all[cut:]}
			}
		}
	}
	cut := sort.Search(n-1, func(i int) bool { return branchSize(all[:i+2]) > psize }) + 1
	return append([][]child{all[:cut]}, partition(all[cut:], psize, false)...)
}

// --- delete

// delete removes the pair at the end of the path, which seek found.
func (t *tree) delete(st path) error {
	t.version++
	isCopy := t.touchPath(st)
	leaf := &st[len(st)-1]
	if err := t.freeCellRun(leaf.p, leaf.slot); err != nil {
		return err
	}
	t.addPairs(st, -1)
	if leaf.p.count() == 1 {
		t.pg.w.free(leaf.n, 1, 0)
		return t.replace(st, len(st)-2, 1, nil)
	}
	if isCopy {
		leaf.p.removeLeafCell(leaf.slot)
	} else {
		leaf.p.removeLeafSlots(leaf.slot, leaf.slot+1)
	}
	return t.fixUnderflow(st, len(st)-1)
}

// isUnderfull reports whether a page is less than a quarter full.
func isUnderfull(p page) bool { return p.used() < p.capacity()/4 }

// fixUnderflow merges the page at depth d of the path, if it is underfull, with a
// sibling, or evens the two out.
func (t *tree) fixUnderflow(st path, d int) error {
	s := &st[d]
	if d == 0 || !isUnderfull(s.p) {
		return nil
	}
	up := &st[d-1]
	if up.p.count() == 1 {
		return nil // no sibling: the branch itself is underfull and merges first
	}
	left := up.slot - 1 // left neighbour of the pair to join
	if left < 0 {
		left = 0
	} else if up.slot < up.p.count()-1 {
		better, err := t.joinsRight(s.p, up)
		if err != nil {
			return err
		}
		if better {
			left = up.slot
		}
	}
	return t.join(st, d, left)
}

// joinsRight reports whether p is better joined with its right sibling: that is the
// less full one.
func (t *tree) joinsRight(p page, up *step) (bool, error) {
	l, _, err := t.pg.loadChild(up.p, up.slot-1)
	if err != nil {
		return false, err
	}
	r, _, err := t.pg.loadChild(up.p, up.slot+1)
	if err != nil {
		return false, err
	}
	return r.used() < l.used(), nil
}

// join merges children left and left+1 of the branch at depth d-1, or evens them out.
func (t *tree) join(st path, d, left int) error {
	up := &st[d-1]
	lp, lr, err := t.pg.loadChild(up.p, left)
	if err != nil {
		return err
	}
	rp, rr, err := t.pg.loadChild(up.p, left+1)
	if err != nil {
		return err
	}
	up.slot = left
	ln, lp := t.pg.touch(lr.pgno, lp)
	var items []child
	if lp.level() == 0 {
		items, err = t.joinLeaves(up.p, left, ln, lp, rr.pgno, rp)
	} else {
		items, err = t.joinBranches(up.p, left, ln, lp, rr.pgno, rp)
	}
	if err != nil {
		return err
	}
	return t.replace(st, d-1, 2, items)
}

// joinLeaves makes one or two leaves of ln and rn, the children left and left+1 of up.
func (t *tree) joinLeaves(up page, left int, ln pgno, lp page, rn pgno, rp page) ([]child, error) {
	raws, err := t.collect(lp, rp)
	if err != nil {
		return nil, err
	}
	_, run, err := t.separatorAt(up, left+1)
	if err != nil {
		return nil, err
	}
	if run != nil {
		t.freeRun(run)
	}
	if leafSize(raws) <= t.pg.psize {
		p := t.rebuildInto(ln, raws)
		t.pg.w.free(rn, 1, pageTxid(rn, rp))
		return []child{{ref: dirtyRef(ln, p)}}, nil
	}
	items, err := t.splitLeaf(ln, raws, leafSplit(raws))
	if err != nil {
		return nil, err
	}
	t.pg.w.free(rn, 1, pageTxid(rn, rp))
	return items, nil
}

// joinBranches makes one or more branches of ln and rn, the children left and left+1 of up.
func (t *tree) joinBranches(up page, left int, ln pgno, lp page, rn pgno, rp page) ([]child, error) {
	sep, run, err := t.separatorAt(up, left+1)
	if err != nil {
		return nil, err
	}
	t.pg.w.scratch.arena = t.pg.w.scratch.arena[:0]
	all, err := t.children(nil, lp, nil, nil)
	if err != nil {
		return nil, err
	}
	if all, err = t.children(all, rp, sep, run); err != nil {
		return nil, err
	}
	var items []child
	for g, group := range partition(all, t.pg.psize, false) {
		p := getBuffer(t.pg.psize)
		p.init(kindBranch, lp.level(), t.rec.id)
		p.buildBranch(group)
		n := ln
		if g == 0 {
			t.pg.swap(n, p)
		} else {
			n = t.pg.w.add(p, 1)
		}
		items = append(items, child{sep: group[0].sep, run: group[0].run, ref: dirtyRef(n, p)})
	}
	detach(items)
	t.pg.w.free(rn, 1, pageTxid(rn, rp))
	return items, nil
}

// --- ranges

// deleteRange removes all pairs with lo <= key < hi (nil: open end) and returns how
// many there were. Subtrees inside are cut off without reading their leaves, unless
// those may hold runs. The caller has made sure that there is no bucket among them.
func (t *tree) deleteRange(lo, hi []byte) (uint64, error) {
	if t.rec.root.pgno == 0 {
		return 0, nil
	}
	t.version++
	p, err := t.loadRoot()
	if err != nil {
		return 0, err
	}
	before := t.rec.root.pairs()
	t.pg.visits = 0
	r, err := t.cut(t.rec.root, p, lo, hi)
	if err != nil {
		return 0, err
	}
	if r.pgno == t.rec.root.pgno && r.count == t.rec.root.count {
		return 0, nil
	}
	level := t.rec.level
	if r.pgno == 0 {
		level = 0
	}
	t.setRoot(r, level)
	ndeleted := before - r.pairs()
	if err := t.collapseRoot(); err != nil {
		return 0, err
	}
	// What is left on both sides of the cut may be nearly empty.
	for _, key := range [2][]byte{lo, hi} {
		if err := t.mend(key); err != nil {
			return 0, err
		}
	}
	return ndeleted, nil
}

// cut removes the range below page p, which r refers to, and returns the reference
// to what is left: r itself where nothing changed, a zero one where nothing is left.
func (t *tree) cut(r ref, p page, lo, hi []byte) (ref, error) {
	if p.level() == 0 {
		return t.cutLeaf(r, p, lo, hi)
	}
	first, last, err := t.pg.branchRange(p, lo, hi)
	if err != nil {
		return ref{}, err
	}
	n, m := p.count(), p.level()
	kept := make([]child, 0, n)
	t.pg.w.scratch.arena = nil // the recursion uses it too
	all, err := t.children(nil, p, nil, nil)
	if err != nil {
		return ref{}, err
	}
	changed := false
	for i, c := range all {
		if i >= first && i <= last {
			old := c.ref
			inside := (i > first || lo == nil) && (i < last || hi == nil)
			if inside {
				c.ref, err = ref{}, t.freeSubtree(old, m-1)
			} else {
				c.ref, err = t.cutChild(p, i, lo, hi)
			}
			if err != nil {
				return ref{}, err
			}
			changed = changed || c.ref != old
		}
		if c.ref.pgno != 0 {
			if len(kept) == 0 && c.run != nil {
				t.freeRun(c.run)
				c.run = nil
			}
			kept = append(kept, c)
			continue
		}
		if c.run != nil {
			t.freeRun(c.run)
		}
	}
	if !changed {
		return r, nil
	}
	if len(kept) == 0 {
		t.pg.w.free(r.pgno, 1, pageTxid(r.pgno, p))
		return ref{}, nil
	}
	wn, _ := t.pg.touch(r.pgno, p)
	buf := getBuffer(t.pg.psize)
	buf.init(kindBranch, m, t.rec.id)
	buf.buildBranch(kept)
	t.pg.swap(wn, buf)
	return dirtyRef(wn, buf), nil
}

// cutChild cuts the range out of child i of p.
func (t *tree) cutChild(p page, i int, lo, hi []byte) (ref, error) {
	c, r, err := t.pg.loadChild(p, i)
	if err != nil {
		return ref{}, err
	}
	return t.cut(r, c, lo, hi)
}

// branchRange returns the first and last child of p that can hold keys of [lo, hi).
func (pg *pager) branchRange(p page, lo, hi []byte) (first, last int, err error) {
	last = p.count() - 1
	if lo != nil {
		if first, err = pg.searchBranch(p, lo); err != nil {
			return 0, 0, err
		}
	}
	if hi != nil {
		if last, err = pg.searchBranch(p, hi); err != nil {
			return 0, 0, err
		}
	}
	return first, last, nil
}

// leafRange returns the slots [i, j) of a leaf whose keys are in [lo, hi).
func (pg *pager) leafRange(p page, lo, hi []byte) (i, j int, err error) {
	j = p.count()
	if lo != nil {
		if i, _, err = pg.lowerBound(p, lo); err != nil {
			return 0, 0, err
		}
	}
	if hi != nil {
		if j, _, err = pg.lowerBound(p, hi); err != nil {
			return 0, 0, err
		}
	}
	return i, max(i, j), nil
}

func (t *tree) cutLeaf(r ref, p page, lo, hi []byte) (ref, error) {
	i, j, err := t.pg.leafRange(p, lo, hi)
	if err != nil || i == j {
		return r, err
	}
	for s := i; s < j; s++ {
		if err := t.freeCellRun(p, s); err != nil {
			return ref{}, err
		}
	}
	if j-i == p.count() {
		t.pg.w.free(r.pgno, 1, pageTxid(r.pgno, p))
		return ref{}, nil
	}
	n, p := t.pg.touch(r.pgno, p)
	p.removeLeafSlots(i, j)
	return dirtyRef(n, p), nil
}

// freeSubtree frees everything below and at r. Leaves without runs and buckets are
// not read; what is read knows the commit that allocated it.
func (t *tree) freeSubtree(r ref, level int) error {
	if w := t.pg.w; pgno(len(w.freed)) > t.pg.npages {
		return corrupt(r.pgno, "more pages are reached than the store has")
	}
	isDirty := r.pgno&virtual != 0
	if level == 0 && !isDirty && r.count&(refRuns|refBuckets) == 0 {
		t.pg.w.free(r.pgno, 1, 0)
		return nil
	}
	p, err := t.pg.load(r.pgno, r.sum)
	if err != nil {
		return err
	}
	if p.level() != level {
		return wrongLevel(r.pgno, p, level)
	}
	if err := t.pg.visit(p); err != nil {
		return err
	}
	n := p.count()
	for i := range n {
		if level == 0 {
			err = t.freeCell(p, n, i)
		} else {
			err = t.freeChild(p, n, i)
		}
		if err != nil {
			return err
		}
	}
	t.pg.w.free(r.pgno, 1, pageTxid(r.pgno, p))
	return nil
}

// freeChild frees child i of branch p and the run of its separator.
func (t *tree) freeChild(p page, n, i int) error {
	if i > 0 {
		_, run, ok := p.branchCellAt(n, i)
		if !ok {
			return badPage(p)
		}
		if run != nil {
			t.freeRun(run)
		}
	}
	return t.freeSubtree(p.childAt(n, i), p.level()-1)
}

// freeCell frees what slot i of leaf p refers to: a run, a nested bucket.
func (t *tree) freeCell(p page, n, i int) error {
	c, ok := p.leafCellAt(n, i)
	if !ok {
		return badPage(p)
	}
	if c.flags&cellLarge != 0 {
		t.freeRun(c.value)
	}
	raw, isBucket := bucketRecord(c)
	if !isBucket {
		return nil
	}
	rec, ok := getRecord(raw)
	if !ok {
		return corrupt(p.pgno(), "bad bucket record in slot %d", i)
	}
	sub := tree{pg: t.pg, rec: rec}
	return sub.freeAll()
}

// freeAll frees every page of the tree, nested buckets included.
func (t *tree) freeAll() error {
	if t.rec.root.pgno == 0 {
		return nil
	}
	if err := t.freeSubtree(t.rec.root, t.rec.level); err != nil {
		return err
	}
	t.setRoot(ref{}, 0)
	return nil
}

// hasBucket reports whether a bucket's name lies in [lo, hi); subtrees that hold no
// bucket are not read.
func (t *tree) hasBucket(lo, hi []byte) (bool, error) {
	if t.rec.root.pgno == 0 {
		return false, nil
	}
	p, err := t.loadRoot()
	if err != nil {
		return false, err
	}
	t.pg.visits = 0
	return t.pg.hasBucketBelow(p, lo, hi)
}

// visit counts the pages that a walk of a tree sees, and ends one that sees more
// than there are: references of a damaged file may lead to the same page many times.
func (pg *pager) visit(p page) error {
	pg.visits++
	most := pg.npages
	if pg.w != nil {
		most += pgno(len(pg.w.pages))
	}
	if pgno(pg.visits) > most {
		return corrupt(p.pgno(), "more pages are reached than the store has")
	}
	return nil
}

func (pg *pager) hasBucketBelow(p page, lo, hi []byte) (bool, error) {
	if err := pg.visit(p); err != nil {
		return false, err
	}
	n := p.count()
	if p.level() == 0 {
		i, j, err := pg.leafRange(p, lo, hi)
		if err != nil {
			return false, err
		}
		for ; i < j; i++ {
			c, ok := p.leafCellAt(n, i)
			if !ok {
				return false, badPage(p)
			}
			if c.flags&cellBucket != 0 {
				return true, nil
			}
		}
		return false, nil
	}
	first, last, err := pg.branchRange(p, lo, hi)
	if err != nil {
		return false, err
	}
	for i := first; i <= last; i++ {
		r := p.childAt(n, i)
		if r.pgno&virtual == 0 && r.count&refBuckets == 0 {
			continue
		}
		c, _, err := pg.loadChild(p, i)
		if err != nil {
			return false, err
		}
		if found, err := pg.hasBucketBelow(c, lo, hi); found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// mend fixes underfull pages on the path to key, which a range delete left behind.
// Each round either fixes one or ends; a round can't undo another's work.
func (t *tree) mend(key []byte) error {
	for range 4 * (maxLevel + 1) {
		if t.rec.root.pgno == 0 {
			return nil
		}
		st := &t.pg.w.path
		var err error
		if key == nil {
			err = t.edge(st, true)
		} else {
			_, err = t.seek(st, key)
		}
		if err != nil {
			return err
		}
		d := t.underfullDepth(*st)
		if d == 0 {
			return nil
		}
		t.touchPath((*st)[:d+1])
		if err := t.fixUnderflow((*st)[:d+1], d); err != nil {
			return err
		}
	}
	return nil
}

// underfullDepth returns the depth of an underfull page with a sibling, 0 if none.
func (t *tree) underfullDepth(st path) int {
	for d := len(st) - 1; d > 0; d-- {
		if isUnderfull(st[d].p) && st[d-1].p.count() > 1 {
			return d
		}
	}
	return 0
}
