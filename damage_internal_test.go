package folio

// damage_internal_test.go lets damage_test.go operate on a store's file: change a page
// as one who knows the format would, and make all sums above it right again.

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
)

// Surgeon holds the bytes of a store's file and knows which page refers to which.
type Surgeon struct {
	B        []byte
	psize    int
	slot     int // of the newest meta
	up       map[pgno]upRef
	Branches []uint64 // pages of the newest commit, by kind
	Leaves   []uint64
	Runs     []uint64
	Freelog  []uint64 // newest first
	records  []place  // where bucket records are
	runRefs  []place  // where run references are
}

// place is an offset in a page.
type place struct {
	n   pgno
	off int
}

// upRef is where the sum of a page or run stands in the page that refers to it.
type upRef struct {
	place
	npages int
}

// NewSurgeon looks at a whole store of the given page size.
func NewSurgeon(b []byte, psize int) *Surgeon {
	s := &Surgeon{B: b, psize: psize, slot: -1, up: map[pgno]upRef{}}
	for slot := range numMetas {
		if p := s.page(pgno(slot)); hasMagic(p) && (s.slot < 0 || p.txid() > s.meta().txid()) {
			s.slot = slot
		}
	}
	m := s.meta()
	n := pgno(binary.LittleEndian.Uint64(m[offFreeHead:]))
	at := upRef{place{pgno(s.slot), offFreeSum}, 1}
	for range binary.LittleEndian.Uint32(m[offFreeLen:]) {
		s.up[n] = at
		s.Freelog = append(s.Freelog, uint64(n))
		at = upRef{place{n, offFreelogPrevSum}, 1}
		n = pgno(binary.LittleEndian.Uint64(s.page(n)[offFreelogPrev:]))
	}
	s.record(place{pgno(s.slot), offRoot})
	return s
}

func (s *Surgeon) page(n pgno) page { return page(s.B[int(n)*s.psize : (int(n)+1)*s.psize]) }
func (s *Surgeon) meta() page       { return s.page(pgno(s.slot)) }

func (s *Surgeon) record(at place) {
	s.records = append(s.records, at)
	rec, _ := getRecord(s.page(at.n)[at.off:])
	if rec.root.pgno != 0 {
		s.tree(rec.root.pgno, upRef{place{at.n, at.off + 8}, 1})
	}
}

func (s *Surgeon) tree(n pgno, at upRef) {
	s.up[n] = at
	p := s.page(n)
	p = p[:len(p):len(p)]
	count := p.count()
	if p.level() > 0 {
		s.Branches = append(s.Branches, uint64(n))
		for i := range count {
			if i > 0 {
				off := p.slotOffset(count, i)
				if k := int(binary.LittleEndian.Uint16(p[off:])); k&cellFlag != 0 {
					s.run(place{n, off + branchCellHeader + k&^cellFlag})
				}
			}
			s.tree(p.childAt(count, i).pgno, upRef{place{n, headerSize + 6*count + 8*(count+i)}, 1})
		}
		return
	}
	s.Leaves = append(s.Leaves, uint64(n))
	for i := range count {
		c, _ := p.leafCellAt(count, i)
		value := p.slotOffset(count, i) + leafCellHeader + len(c.key)
		if c.flags&cellLarge != 0 {
			s.run(place{n, value})
		}
		if c.flags&cellBucket != 0 {
			s.record(place{n, value + len(c.value) - recordSize})
		}
	}
}

func (s *Surgeon) run(at place) {
	s.runRefs = append(s.runRefs, at)
	r := getRunRef(s.page(at.n)[at.off:])
	s.Runs = append(s.Runs, uint64(r.pgno))
	s.up[r.pgno] = upRef{place{at.n, at.off + 8}, r.npages}
}

// Reseal makes the sum of page n right, and those of all pages above it.
func (s *Surgeon) Reseal(n uint64) {
	at, ok := s.up[pgno(n)]
	npages := 1
	if ok {
		npages = at.npages
	}
	p := page(s.B[int(n)*s.psize : (int(n)+npages)*s.psize])
	sum := p.computeSum()
	binary.LittleEndian.PutUint64(p[offSum:], sum)
	if !ok {
		return
	}
	binary.LittleEndian.PutUint64(s.page(at.n)[at.off:], sum)
	s.Reseal(uint64(at.n))
}

// forceSum changes the last eight bytes of page n so that its sum becomes want. The
// sum is no cryptographic hash: each step from the last word on can be undone.
func (s *Surgeon) forceSum(n pgno, want uint64) {
	const (
		p1 = 0x9E3779B185EBCA87
		p2 = 0xC2B2AE3D27D4EB4F
		p3 = 0x165667B19E3779F9
		p4 = 0x85EBCA77C2B2AE63
	)
	inverse := func(x uint64) uint64 {
		y := x
		for range 6 {
			y *= 2 - x*y
		}
		return y
	}
	undo := func(h uint64) uint64 { // the avalanche, and the last word's multiply and add
		h ^= h >> 32
		h *= inverse(p3)
		h ^= h>>29 ^ h>>58
		h *= inverse(p2)
		h ^= h >> 33
		return (h - p4) * inverse(p1)
	}
	p := s.page(n)
	last := p[len(p)-8:]
	clear(last) // round(0, 0) is 0: what is left is the state before the word
	before := bits.RotateLeft64(undo(p.computeSum()), -27)
	k := before ^ bits.RotateLeft64(undo(want), -27)
	k = bits.RotateLeft64(k*inverse(p1), -31) * inverse(p2)
	binary.LittleEndian.PutUint64(last, k)
	if p.computeSum() != want {
		broken("forceSum")
	}
	binary.LittleEndian.PutUint64(p[offSum:], want)
}

// --- hostile pages

// HostileCase makes one lie in a store whose sums are all right after it. It
// returns false where the store has nothing to lie about.
type HostileCase struct {
	Name string
	Make func(s *Surgeon, r *rand.Rand) bool
}

func pick[T any](r *rand.Rand, list []T) (v T, ok bool) {
	if len(list) == 0 {
		return v, false
	}
	return list[r.IntN(len(list))], true
}

// lie returns a number of nbits bits that is not what it is.
func lie(r *rand.Rand, is uint64, nbits int) uint64 {
	limit := ^uint64(0) >> (64 - nbits)
	for {
		var v uint64
		switch r.IntN(6) {
		case 0:
			v = is + uint64(r.IntN(3)) + 1
		case 1:
			v = is - uint64(r.IntN(3)) - 1
		case 2:
			v = limit - uint64(r.IntN(2))
		case 3:
			v = uint64(r.IntN(3))
		case 4:
			v = r.Uint64()
		case 5:
			v = is ^ 1<<r.IntN(nbits)
		}
		if v &= limit; v != is&limit {
			return v
		}
	}
}

// lieAt puts a lie in the place of the integer of size bytes at b.
func lieAt(r *rand.Rand, b []byte, size int) {
	le := binary.LittleEndian
	switch size {
	case 1:
		b[0] = byte(lie(r, uint64(b[0]), 8))
	case 2:
		le.PutUint16(b, uint16(lie(r, uint64(le.Uint16(b)), 16)))
	case 4:
		le.PutUint32(b, uint32(lie(r, uint64(le.Uint32(b)), 32)))
	case 8:
		le.PutUint64(b, lie(r, le.Uint64(b), 64))
	}
}

// field is an integer at an offset.
type field struct{ off, size int }

func (s *Surgeon) lieInField(r *rand.Rand, n uint64, fields []field) bool {
	f, _ := pick(r, fields)
	lieAt(r, s.page(pgno(n))[f.off:], f.size)
	s.Reseal(n)
	return true
}

var headerFields = []field{
	{offTxid, 8}, {offTree, 8}, {offKind, 1}, {offLevel, 1}, {offFlags, 2}, {offCount, 2}, {offPrefix, 2},
	{offLower, 4}, {offUpper, 4}, {offPages, 4}, {offDead, 4},
}

// treePages are all pages of trees.
func (s *Surgeon) treePages() []uint64 {
	return append(append([]uint64(nil), s.Branches...), s.Leaves...)
}

// onPage makes a case of a change to a random page among what list gives.
func onPage(list func(s *Surgeon) []uint64, fn func(s *Surgeon, r *rand.Rand, p page, n uint64) bool) func(*Surgeon, *rand.Rand) bool {
	return func(s *Surgeon, r *rand.Rand) bool {
		n, ok := pick(r, list(s))
		if !ok || !fn(s, r, s.page(pgno(n)), n) {
			return false
		}
		s.Reseal(n)
		return true
	}
}

// twoSlots picks two of the slots [first, n).
func twoSlots(r *rand.Rand, n, first int) (i, j int, ok bool) {
	if n-first < 2 {
		return 0, 0, false
	}
	i = first + r.IntN(n-first)
	j = first + r.IntN(n-first-1)
	if j >= i {
		j++
	}
	return i, j, true
}

// HostileCases is the table of lies.
var HostileCases = []HostileCase{
	{"header field of a leaf", func(s *Surgeon, r *rand.Rand) bool {
		n, ok := pick(r, s.Leaves)
		return ok && s.lieInField(r, n, headerFields)
	}},
	{"header field of a branch", func(s *Surgeon, r *rand.Rand) bool {
		n, ok := pick(r, s.Branches)
		return ok && s.lieInField(r, n, headerFields)
	}},
	{"header field of a run", func(s *Surgeon, r *rand.Rand) bool {
		n, ok := pick(r, s.Runs)
		return ok && s.lieInField(r, n, headerFields)
	}},
	{"header or reference of a freelog page", func(s *Surgeon, r *rand.Rand) bool {
		n, ok := pick(r, s.Freelog)
		return ok && s.lieInField(r, n, append([]field{{offFreelogPrev, 8}, {offFreelogPrevSum, 8}}, headerFields...))
	}},
	{"field of the meta", func(s *Surgeon, r *rand.Rand) bool {
		return s.lieInField(r, uint64(s.slot), append([]field{
			{offVersion, 4}, {offPageSize, 4}, {offFeatures, 8}, {offDurable, 8}, {offNPages, 8},
			{offRoot, 8}, {offRoot + 8, 8}, {offRoot + 16, 8}, {offRoot + 24, 8}, {offRoot + 32, 8}, {offRoot + 40, 1}, {offRoot + 41, 1},
			{offNextTree, 8}, {offLogSeg, 4}, {offLogSect, 4}, {offLogSum, 8}, {offLogSalt, 8}, {offLogSegs, 8}, {offLogSegs + 8, 4}, {offLogSegs + 12, 8},
			{offFreeHead, 8}, {offFreeSum, 8}, {offFreeOld, 8}, {offFreeFrom, 8}, {offFreeLen, 4}, {offTailLen, 4},
		}, headerFields...))
	}},
	{"largest txid in the meta", func(s *Surgeon, r *rand.Rand) bool {
		s.meta().setTxid(^txid(0))
		s.Reseal(uint64(s.slot))
		return true
	}},
	{"bytes of a tree page", onPage((*Surgeon).treePages, func(s *Surgeon, r *rand.Rand, p page, _ uint64) bool {
		for range 1 + r.IntN(4) {
			p[offTxid+r.IntN(len(p)-offTxid)] ^= byte(1 << r.IntN(8))
		}
		return true
	})},
	{"bytes of a page's slots", onPage((*Surgeon).treePages, func(s *Surgeon, r *rand.Rand, p page, _ uint64) bool {
		for range 1 + r.IntN(3) {
			p[headerSize+r.IntN(max(1, p.lower()-headerSize))] = byte(r.Uint32())
		}
		return true
	})},
	{"garbage behind a page's header", onPage((*Surgeon).treePages, func(s *Surgeon, r *rand.Rand, p page, _ uint64) bool {
		for i := headerSize; i < len(p); i++ {
			p[i] = byte(r.Uint32())
		}
		return true
	})},
	{"offset of a slot", onPage((*Surgeon).treePages, func(s *Surgeon, r *rand.Rand, p page, _ uint64) bool {
		i := r.IntN(p.count())
		lieAt(r, p[headerSize+4*p.count()+2*i:], 2)
		return true
	})},
	{"two slots with one cell", onPage((*Surgeon).treePages, func(s *Surgeon, r *rand.Rand, p page, _ uint64) bool {
		i, j, ok := twoSlots(r, p.count(), min(p.level(), 1))
		if ok {
			p.setSlotOffset(p.count(), i, p.slotOffset(p.count(), j))
		}
		return ok
	})},
	{"slots out of order", onPage((*Surgeon).treePages, func(s *Surgeon, r *rand.Rand, p page, _ uint64) bool {
		n := p.count()
		i, j, ok := twoSlots(r, n, min(p.level(), 1))
		if ok {
			a, b := p.slotOffset(n, i), p.slotOffset(n, j)
			p.setSlotOffset(n, i, b)
			p.setSlotOffset(n, j, a)
			if r.IntN(2) == 0 { // heads as well
				ha, hb := leHead(p, i), leHead(p, j)
				p.setHead(i, hb)
				p.setHead(j, ha)
			}
		}
		return ok
	})},
	{"head of a slot", onPage((*Surgeon).treePages, func(s *Surgeon, r *rand.Rand, p page, _ uint64) bool {
		lieAt(r, p[headerSize+4*r.IntN(p.count()):], 4)
		return true
	})},
	{"lengths of a leaf's cell", onPage(func(s *Surgeon) []uint64 { return s.Leaves }, func(s *Surgeon, r *rand.Rand, p page, _ uint64) bool {
		off := p.slotOffset(p.count(), r.IntN(p.count()))
		if r.IntN(2) == 0 { // their sum stays
			d := uint16(r.IntN(6)) - 3
			k, v := binary.LittleEndian.Uint16(p[off:]), binary.LittleEndian.Uint16(p[off+2:])
			binary.LittleEndian.PutUint16(p[off:], k+d)
			binary.LittleEndian.PutUint16(p[off+2:], v-d)
			return true
		}
		lieAt(r, p[off+2*r.IntN(2):], 2)
		return true
	})},
	{"length of a separator", onPage(func(s *Surgeon) []uint64 { return s.Branches }, func(s *Surgeon, r *rand.Rand, p page, _ uint64) bool {
		if p.count() < 2 {
			return false
		}
		lieAt(r, p[p.slotOffset(p.count(), 1+r.IntN(p.count()-1)):], 2)
		return true
	})},
	{"field of a run reference", func(s *Surgeon, r *rand.Rand) bool {
		at, ok := pick(r, s.runRefs)
		if !ok {
			return false
		}
		f, _ := pick(r, []field{{0, 8}, {8, 8}, {16, 8}, {24, 4}, {28, 4}, {32, 4}})
		lieAt(r, s.page(at.n)[at.off+f.off:], f.size)
		s.Reseal(uint64(at.n))
		return true
	}},
	{"run reference of another cell", func(s *Surgeon, r *rand.Rand) bool {
		i, j, ok := twoSlots(r, len(s.runRefs), 0)
		if ok {
			to, from := s.runRefs[i], s.runRefs[j]
			copy(s.page(to.n)[to.off:to.off+runRefSize], s.page(from.n)[from.off:])
			s.Reseal(uint64(to.n))
		}
		return ok
	}},
	{"field of a bucket record", func(s *Surgeon, r *rand.Rand) bool {
		at, _ := pick(r, s.records)
		f, _ := pick(r, []field{{0, 8}, {8, 8}, {16, 8}, {24, 8}, {32, 8}, {40, 1}, {41, 1}})
		lieAt(r, s.page(at.n)[at.off+f.off:], f.size)
		s.Reseal(uint64(at.n))
		return true
	}},
	{"bucket record with a foreign root", func(s *Surgeon, r *rand.Rand) bool {
		at, _ := pick(r, s.records)
		raw := s.page(at.n)[at.off:]
		rec, _ := getRecord(raw)
		n, _ := pick(r, s.treePages())
		p := s.page(pgno(n))
		rec.root = ref{pgno(n), p.sum(), countField(p.totalPairs(), p.flags())}
		rec.level = p.level()
		putRecord(raw, rec)
		s.Reseal(uint64(at.n))
		return true
	}},
	{"bucket record of another bucket", func(s *Surgeon, r *rand.Rand) bool {
		i, j, ok := twoSlots(r, len(s.records), 0)
		if ok {
			to, from := s.records[i], s.records[j]
			copy(s.page(to.n)[to.off:to.off+recordSize], s.page(from.n)[from.off:])
			s.Reseal(uint64(to.n))
		}
		return ok
	}},
	{"child with a foreign reference", onPage(func(s *Surgeon) []uint64 { return s.Branches }, func(s *Surgeon, r *rand.Rand, p page, _ uint64) bool {
		n, _ := pick(r, s.treePages())
		c := s.page(pgno(n))
		p.setChild(p.count(), r.IntN(p.count()), ref{pgno(n), c.sum(), countField(c.totalPairs(), c.flags())})
		return true
	})},
	{"all children the same", onPage(func(s *Surgeon) []uint64 { return s.Branches }, func(s *Surgeon, r *rand.Rand, p page, _ uint64) bool {
		c := p.childAt(p.count(), r.IntN(p.count()))
		for i := range p.count() {
			p.setChild(p.count(), i, c)
		}
		return true
	})},
	{"child's number", onPage(func(s *Surgeon) []uint64 { return s.Branches }, func(s *Surgeon, r *rand.Rand, p page, _ uint64) bool {
		n, i := p.count(), r.IntN(p.count())
		c := p.childAt(n, i)
		c.pgno = pgno(lie(r, uint64(c.pgno), 64))
		p.setChild(n, i, c)
		return true
	})},
	{"child's count", onPage(func(s *Surgeon) []uint64 { return s.Branches }, func(s *Surgeon, r *rand.Rand, p page, _ uint64) bool {
		n, i := p.count(), r.IntN(p.count())
		c := p.childAt(n, i)
		c.count = lie(r, c.count, 64)
		p.setChild(n, i, c)
		return true
	})},
	{"cycle: a child is an ancestor", onPage(func(s *Surgeon) []uint64 { return s.Branches }, func(s *Surgeon, r *rand.Rand, p page, n uint64) bool {
		up := pgno(n)
		for range r.IntN(3) {
			if at, ok := s.up[up]; ok && at.n >= numMetas {
				up = at.n
			}
		}
		a := s.page(up)
		p.setChild(p.count(), r.IntN(p.count()), ref{up, a.sum(), countField(a.totalPairs(), a.flags())})
		return true
	})},
	{"entries of the freelog's tail", func(s *Surgeon, r *rand.Rand) bool {
		m := s.meta()
		n := int(binary.LittleEndian.Uint32(m[offTailLen:]))
		if n == 0 {
			return false
		}
		for range 1 + r.IntN(3) {
			m[offTail+r.IntN(n)] ^= byte(1 << r.IntN(8))
		}
		s.Reseal(uint64(s.slot))
		return true
	}},
	{"entries of a freelog page", onPage(func(s *Surgeon) []uint64 { return s.Freelog }, func(s *Surgeon, r *rand.Rand, p page, _ uint64) bool {
		for range 1 + r.IntN(3) {
			p[freelogPageHeader+r.IntN(max(1, p.lower()-freelogPageHeader))] ^= byte(1 << r.IntN(8))
		}
		return true
	})},
	{"freelog that lists a page in use", func(s *Surgeon, r *rand.Rand) bool {
		n, _ := pick(r, append(s.treePages(), s.Runs...))
		m := s.meta()
		tailLen := int(binary.LittleEndian.Uint32(m[offTailLen:]))
		e := freelogRecord{
			txid: m.txid(), npages: binary.LittleEndian.Uint64(m[offNPages:]),
			freed: []freedExtent{{extent: extent{pgno(n), 1}}},
		}
		tail := e.appendTo(append([]byte(nil), m[offTail:offTail+tailLen]...))
		if len(tail) > tailCap(s.psize) {
			return false
		}
		copy(m[offTail:], tail)
		binary.LittleEndian.PutUint32(m[offTailLen:], uint32(len(tail)))
		m.setLower(offTail + len(tail))
		s.Reseal(uint64(s.slot))
		return true
	}},
}

// newHostile returns a store file of npages pages at least, with a meta and nothing free,
// that holds the pages put to it; the root bucket is an empty one until Root.
func newHostile(psize, npages int) *Surgeon {
	s := &Surgeon{B: make([]byte, npages*psize), psize: psize, up: map[pgno]upRef{}}
	m := meta{txid: 5, durable: 5, psize: psize, npages: uint64(npages), nextTree: 100, free: newFreelist(uint64(npages), 5).state()}
	m.encode(s.page(0), 0)
	return s
}

func (s *Surgeon) setRoot(r ref, level int) {
	putRecord(s.meta()[offRoot:], record{root: r, level: level})
	s.Reseal(0)
}

// leaf and branch build page n and return the right reference to it.
func (s *Surgeon) leaf(n pgno, raws ...[]byte) ref {
	p := s.page(n)
	p.init(kindLeaf, 0, 0)
	p.buildLeaf(raws)
	return ref{n, p.seal(n, 5), countField(p.totalPairs(), p.flags())}
}

func (s *Surgeon) branch(n pgno, level int, children ...child) ref {
	p := s.page(n)
	p.init(kindBranch, level, 0)
	p.buildBranch(children)
	return ref{n, p.seal(n, 5), countField(p.totalPairs(), p.flags())}
}

func rawCell(f cellFlags, key string, value []byte) []byte {
	b := make([]byte, leafCellHeader+len(key)+len(value))
	putLeafCell(b, f, []byte(key), value)
	return b
}

func recordOf(r record) []byte {
	b := make([]byte, recordSize)
	putRecord(b, r)
	return b
}

// HostileStore is a store made by hand, with right sums, that lies as a whole.
type HostileStore struct {
	Name string
	Make func() []byte
}

// OddStores break no rule: Check may find nothing, but then changes keep them sound.
var OddStores = map[string]bool{"largest txid": true, "largest bucket id": true}

// HostileStores each have a bucket "b" in the root, or a root to be read and written.
var HostileStores = []HostileStore{
	{"bucket that is nested in itself", func() []byte {
		// The leaf holds the record of a bucket whose root is this very leaf, with the
		// right sum.
		s := newHostile(minPageSize, 6)
		const sum = 0x1234567890abcdef
		self := ref{4, sum, countField(3, flagBuckets)}
		s.leaf(4, // the first cell or the last ends with the page
			rawCell(0, "a", make([]byte, 16)),
			rawCell(cellBucket, "b", recordOf(record{root: self, id: 1})),
			rawCell(0, "c", make([]byte, 16)))
		s.forceSum(4, sum)
		s.leaf(5, rawCell(0, "x", nil))
		s.setRoot(self, 0)
		return s.B
	}},
	{"tree of forty levels on forty-one pages", func() []byte {
		// Every branch has one child, four times.
		s := newHostile(minPageSize, 4+maxLevel+2)
		r := s.leaf(4, rawCell(cellBucket, "c", recordOf(record{id: 2})))
		for level := 1; level <= maxLevel; level++ {
			cs := []child{{ref: r}}
			for i := range 3 {
				cs = append(cs, child{sep: []byte{'d' + byte(i)}, ref: r})
			}
			r = s.branch(4+pgno(level), level, cs...)
		}
		root := s.leaf(4+maxLevel+1, rawCell(cellBucket, "b", recordOf(record{root: r, id: 1, level: maxLevel})))
		s.setRoot(root, 0)
		return s.B
	}},
	{"run that is read as a branch", func() []byte {
		// A run whose header, as a branch's, counts more slots than the page has. It is
		// read as a run first, and so its sum is proven.
		s := newHostile(minPageSize, 6)
		p := s.page(4)
		p.initRun(0, 1, []byte("a"), []byte("value"))
		p[offLevel] = 1
		p.setCount(60000)
		sum := p.seal(4, 5)
		rr := make([]byte, runRefSize)
		putRunRef(rr, runRef{4, sum, 5, 1, 1, 5})
		s.setRoot(s.leaf(5,
			rawCell(cellLarge, "a", rr),
			rawCell(cellBucket, "b", recordOf(record{root: ref{4, sum, 1}, id: 1, level: 1}))), 0)
		return s.B
	}},
	{"run of two lengths", func() []byte {
		// Two references to one run: after the short one has been proven, the long one must
		// not hand out what was never summed.
		s := newHostile(minPageSize, 8)
		p := s.page(4)
		p.initRun(0, 1, []byte("a"), []byte("value"))
		sum := p.seal(4, 5)
		short, long := make([]byte, runRefSize), make([]byte, runRefSize)
		putRunRef(short, runRef{4, sum, 5, 1, 1, 5})
		putRunRef(long, runRef{4, sum, 5, 3, 1, 9000})
		s.setRoot(s.leaf(7, rawCell(cellLarge, "a", short), rawCell(cellLarge, "b", long)), 0)
		return s.B
	}},
	{"references with the top bit", func() []byte {
		s := newHostile(minPageSize, 6)
		s.leaf(4, rawCell(0, "x", nil))
		s.setRoot(s.leaf(5, rawCell(0, "a", nil), rawCell(cellBucket, "b", recordOf(record{root: ref{1<<63 | 4, 1, 1}, id: 1}))), 0)
		return s.B
	}},
	{"child with the top bit", func() []byte {
		s := newHostile(minPageSize, 6)
		l := s.leaf(4, rawCell(0, "a", nil))
		s.setRoot(s.branch(5, 1, child{ref: l}, child{sep: []byte("b"), ref: ref{1 << 63, 1, 1}}), 1)
		return s.B
	}},
	{"run with the top bit", func() []byte {
		s := newHostile(minPageSize, 5)
		rr := make([]byte, runRefSize)
		putRunRef(rr, runRef{1<<63 | 1, 7, 5, 1, 1, 5})
		s.setRoot(s.leaf(4, rawCell(0, "a", nil), rawCell(cellLarge, "b", rr)), 0)
		return s.B
	}},
	{"separators out of order", func() []byte {
		s := newHostile(minPageSize, 10)
		cs := make([]child, 5)
		for i, sep := range []string{"", "prefix/1", "b", "prefix/2", "prefix/3"} {
			cs[i] = child{sep: []byte(sep), ref: s.leaf(4+pgno(i), rawCell(0, sep+"k", nil))}
		}
		p := s.page(9)
		p.init(kindBranch, 1, 0)
		sorted := []child{cs[0], cs[2], cs[1], cs[3], cs[4]} // no prefix is shared
		p.buildBranch(sorted)
		n := p.count()
		one, two := p.slotOffset(n, 1), p.slotOffset(n, 2)
		p.setSlotOffset(n, 1, two)
		p.setSlotOffset(n, 2, one)
		s.setRoot(ref{9, p.seal(9, 5), 5}, 1)
		return s.B
	}},
	{"separators larger than a quarter of a page", func() []byte {
		s := newHostile(minPageSize, 12)
		long := func(c byte) []byte {
			b := make([]byte, 3900)
			for i := range b {
				b[i] = c
			}
			return b
		}
		var l []ref
		for i := range 4 {
			l = append(l, s.leaf(4+pgno(i), rawCell(0, string(rune('b'+2*i))+"k", nil)))
		}
		x := s.branch(8, 1, child{ref: l[0]}, child{sep: long('d'), ref: l[1]})
		y := s.branch(9, 1, child{ref: l[2]}, child{sep: long('h'), ref: l[3]})
		s.setRoot(s.branch(10, 2, child{ref: x}, child{sep: long('f'), ref: y}), 2)
		return s.B
	}},
	{"page that two references with wrong sums share", func() []byte {
		s := newHostile(minPageSize, 6)
		l := s.leaf(4, rawCell(0, "a", nil))
		bad := ref{4, l.sum + 1, 1}
		s.setRoot(s.branch(5, 1, child{ref: l}, child{sep: []byte("b"), ref: bad}, child{sep: []byte("c"), ref: bad}), 1)
		return s.B
	}},
	{"largest txid", func() []byte {
		s := newHostile(minPageSize, 5)
		s.setRoot(s.leaf(4, rawCell(0, "a", nil)), 0)
		s.meta().setTxid(^txid(0))
		s.Reseal(0)
		return s.B
	}},
	{"largest bucket id", func() []byte {
		s := newHostile(minPageSize, 5)
		s.setRoot(s.leaf(4, rawCell(0, "a", nil)), 0)
		binary.LittleEndian.PutUint64(s.meta()[offNextTree:], ^uint64(0))
		s.Reseal(0)
		return s.B
	}},
	{"counts that add up to more than 2^64", func() []byte {
		s := newHostile(minPageSize, 7)
		a, b := s.leaf(4, rawCell(0, "a", nil)), s.leaf(5, rawCell(0, "k", nil))
		a.count, b.count = refCount, refCount
		s.setRoot(s.branch(6, 1, child{ref: a}, child{sep: []byte("k"), ref: b}), 1)
		return s.B
	}},
}
