package fuzz

// disk.go makes from a record what a disk could hold after a crash.
//
// The model of the disk: a sync makes everything written before it began durable, and a
// sync of a range what was written there, rounded out to pages of the machine, but no
// size of the file. Of what was written since, any set of 512-byte sectors may be there,
// in any order, and the file may have any of the sizes that it had since. Where a place
// was written twice, either content may be there: the later one hides the earlier only if
// it is itself on the disk. What a failed sync covered may be there or not, and no later
// sync changes that.

import (
	"math"
	"math/rand/v2"
	"slices"
)

const (
	sectorSize = 512
	unitSize   = 8 * sectorSize // what the page cache writes at once, if it is not torn
	numMetas   = 4
)

// unit is a part of a write, within one unit of the page cache, or a change of size.
type unit struct {
	off  int64
	data []byte // nil for a change of size
	size int64  // then
	lost bool   // a sync of it failed: none will make it durable
	seq  int    // its number among all units of the record
}

// sectors is the set of a unit's sectors that reached the disk, a bit each.
type sectors uint8

const wholeUnit sectors = 0xff

// choice says what of the pending units is on the disk: sectors for a write, and how
// many of the changes of size.
type choice struct {
	kept   []sectors
	nsizes int
}

// crashPoint is a moment of a recorded run: what is on the disk for sure, what may be,
// and what the run knew. It is valid during the visit only.
type crashPoint struct {
	index   int // of the event after which the crash comes
	synced  []byte
	pending []unit
	nunits  int           // units of the record so far
	covers  map[int]cover // of syncs in progress
	begun   int           // commits begun
	acked   int           // the newest acknowledged as durable
	failed  map[int]bool  // commits that must not be seen
	named   bool          // the file has its name
	nameOK  bool          // and keeps it
	fresh   int           // how many of the last pending units the event itself brought
}

// cover is what a sync covers: of the first nunits units those from off up to end, or all
// and the changes of size, where end is 0.
type cover struct {
	nunits   int
	off, end int64
}

// newCover returns what a sync covers that begins after nunits units.
func newCover(nunits int, e event) cover {
	c := cover{nunits: nunits}
	if e.nbytes > 0 { // the kernel writes whole pages
		c.off = e.off / unitSize * unitSize
		c.end = (e.off + e.nbytes + unitSize - 1) / unitSize * unitSize
	}
	return c
}

// has reports whether u is covered. A unit lies within one page, so it is as a whole or
// not at all.
func (c *cover) has(u *unit) bool {
	if c.end > 0 && (u.data == nil || u.off < c.off || u.off >= c.end) {
		return false
	}
	return u.seq < c.nunits
}

// points calls visit for the moment after each event that makes a difference.
func points(initial []byte, events []event, visit func(p *crashPoint)) {
	p := &crashPoint{synced: slices.Clone(initial), covers: map[int]cover{}, failed: map[int]bool{}}
	for i, e := range events {
		p.index = i
		p.fresh = 0
		switch e.kind {
		case evWrite:
			p.addWrite(e)
			visit(p)
		case evSize:
			p.add(unit{size: e.size})
			visit(p)
		case evSyncBegin:
			p.covers[e.id] = newCover(p.nunits, e)
			visit(p)
		case evSyncEnd:
			p.settle(e.id)
			visit(p)
		case evSyncFailed:
			p.lose(e.id)
		case evPublish:
			p.named = true
			visit(p)
		case evSyncDir:
			p.nameOK = true
		case evMark:
			if e.failed > 0 {
				p.failed[e.failed] = true
			}
			before := p.acked
			p.begun, p.acked = max(p.begun, e.begun), max(p.acked, e.acked)
			if p.acked > before || e.failed > 0 {
				visit(p)
			}
		}
	}
	p.index, p.fresh = len(events), 0
	visit(p)
}

func (p *crashPoint) add(u unit) {
	u.seq = p.nunits
	p.nunits++
	p.fresh++
	p.pending = append(p.pending, u)
}

// addWrite cuts a write into units.
func (p *crashPoint) addWrite(e event) {
	off, data := e.off, e.data
	for len(data) > 0 {
		n := min(len(data), int(unitSize-off%unitSize))
		p.add(unit{off: off, data: data[:n]})
		off += int64(n)
		data = data[n:]
	}
}

// settle makes durable what sync id covers.
func (p *crashPoint) settle(id int) {
	covered := p.covers[id]
	delete(p.covers, id)
	end := int64(math.MaxInt64)
	if covered.end > 0 {
		end = p.surelyThere()
	}
	c := p.none()
	left := p.pending[:0:0]
	for i, u := range p.pending {
		switch {
		case !covered.has(&u) || u.lost || u.off+int64(len(u.data)) > end:
			left = append(left, u)
		case u.data == nil:
			c.nsizes++
		default:
			c.kept[i] = wholeUnit
		}
	}
	p.synced = p.image(c, nil)
	p.pending = left
}

// surelyThere returns up to where the file reaches, whichever size it has after a crash.
// What lies behind that no sync of a range makes durable.
func (p *crashPoint) surelyThere() int64 {
	end := int64(len(p.synced))
	for _, u := range p.pending {
		if u.data == nil {
			end = min(end, u.size)
		}
	}
	return end
}

// lose marks what failed sync id covers.
func (p *crashPoint) lose(id int) {
	covered := p.covers[id]
	for i := range p.pending {
		// A change of size is journaled: the next sync has it.
		if u := &p.pending[i]; covered.has(u) && u.data != nil {
			u.lost = true
		}
	}
	delete(p.covers, id)
}

func (p *crashPoint) none() choice { return choice{kept: make([]sectors, len(p.pending))} }

func (p *crashPoint) all() choice {
	c := p.none()
	for i, u := range p.pending {
		if u.data == nil {
			c.nsizes++
		} else {
			c.kept[i] = wholeUnit
		}
	}
	return c
}

// sizes returns how many changes of size are pending.
func (p *crashPoint) sizes() (n int) {
	for _, u := range p.pending {
		if u.data == nil {
			n++
		}
	}
	return n
}

// image returns what the disk holds under c, in buf's memory if that is large enough.
func (p *crashPoint) image(c choice, buf []byte) []byte {
	img := append(buf[:0], p.synced...)
	size := int64(len(img))
	changes := 0
	for i, u := range p.pending {
		if u.data == nil {
			if changes < c.nsizes {
				size = u.size
				if size < int64(len(img)) {
					img = img[:size] // grown again it reads as zeros
				}
			}
			changes++
			continue
		}
		for s := 0; s*sectorSize < len(u.data); s++ {
			if c.kept[i]>>s&1 == 1 {
				img = place(img, u.data[s*sectorSize:min((s+1)*sectorSize, len(u.data))], u.off+int64(s*sectorSize))
			}
		}
	}
	return extend(img, size)[:size]
}

// place copies data to img at off, which grows where it must.
func place(img, data []byte, off int64) []byte {
	img = extend(img, off+int64(len(data)))
	copy(img[off:], data)
	return img
}

// extend makes img at least size long, with zeros.
func extend(img []byte, size int64) []byte {
	if have := int64(len(img)); have < size {
		img = slices.Grow(img, int(size-have))[:size]
		clear(img[have:])
	}
	return img
}

// isMeta reports whether unit i belongs to a meta page.
func (p *crashPoint) isMeta(i, psize int) bool {
	return p.pending[i].data != nil && p.pending[i].off < int64(numMetas*psize)
}

// sampler chooses which images of a point are made.
type sampler struct {
	rnd     *rand.Rand
	psize   int
	maxAll  int // up to so many pending units every subset is made
	nrandom int // random subsets besides
	sparse  bool
	hurried bool // only the extremes
}

// choices yields the choices for p: every subset where few units are pending, else a
// sample that has none, all, each one missing, each one alone, the metas only, all but
// the metas, each one torn, and random ones. After a write only what holds the new
// units is made, as all else was made at the point before.
func (s *sampler) choices(p *crashPoint, yield func(c choice) bool) {
	switch {
	case s.hurried:
		if p.fresh == 0 {
			s.extremes(p, yield)
		}
	case len(p.pending) <= s.maxAll:
		_ = s.everySubset(p, yield) && s.tears(p, yield)
	case p.fresh > 0:
		s.newest(p, yield)
	default:
		_ = s.extremes(p, yield) && s.eachOne(p, yield) && s.random(p, s.nrandom, yield)
	}
}

// everySubset yields all subsets of the pending units, with each size that the file may
// have; after a write those that hold a new unit.
func (s *sampler) everySubset(p *crashPoint, yield func(c choice) bool) bool {
	n := len(p.pending)
	fresh := (1<<p.fresh - 1) << (n - p.fresh)
	for set := range 1 << n {
		if fresh != 0 && set&fresh == 0 {
			continue
		}
		c := p.none()
		for i, u := range p.pending {
			switch {
			case set>>i&1 == 0:
			case u.data == nil:
				c.nsizes++ // in order: as many as the subset has
			default:
				c.kept[i] = wholeUnit
			}
		}
		if !yield(c) {
			return false
		}
	}
	return true
}

// tears yields each unit that is new, or all if none is, torn: with all others whole,
// and among a random set.
func (s *sampler) tears(p *crashPoint, yield func(c choice) bool) bool {
	from := 0
	if p.fresh > 0 {
		from = len(p.pending) - p.fresh
	}
	for i := from; i < len(p.pending); i++ {
		if p.pending[i].data == nil {
			continue
		}
		c := p.all()
		c.kept[i] = s.torn()
		if !yield(c) {
			return false
		}
		c = s.randomSet(p)
		c.kept[i] = s.torn()
		if !yield(c) {
			return false
		}
	}
	return true
}

// torn returns some but not all sectors of a unit: its start, its end, or any.
func (s *sampler) torn() sectors {
	switch n := 1 + s.rnd.IntN(7); s.rnd.IntN(3) {
	case 0:
		return wholeUnit >> n
	case 1:
		return wholeUnit << n
	}
	return sectors(1 + s.rnd.IntN(254))
}

// extremes yields none, all, metas only, all but the metas, with the size as it was and
// as it will be.
func (s *sampler) extremes(p *crashPoint, yield func(c choice) bool) bool {
	all, none := p.all(), p.none()
	metas, rest := p.all(), p.all()
	for i := range p.pending {
		if p.isMeta(i, s.psize) {
			rest.kept[i] = 0
		} else {
			metas.kept[i] = 0
		}
	}
	for _, c := range []choice{none, all, metas, rest} {
		if !yield(c) {
			return false
		}
		c.nsizes = s.rnd.IntN(p.sizes() + 1)
		if !yield(c) {
			return false
		}
	}
	return true
}

// eachOne yields each unit missing, alone, and torn; for a sparse sampler of some.
func (s *sampler) eachOne(p *crashPoint, yield func(c choice) bool) bool {
	for i, u := range p.pending {
		if u.data == nil || s.sparse && s.rnd.IntN(len(p.pending)) > 4 {
			continue
		}
		missing, alone, torn := p.all(), p.none(), p.all()
		missing.kept[i], alone.kept[i], torn.kept[i] = 0, wholeUnit, s.torn()
		alone.nsizes = missing.nsizes
		if !yield(missing) || !yield(alone) || !yield(torn) {
			return false
		}
	}
	return true
}

// newest yields a few choices that hold the newest unit.
func (s *sampler) newest(p *crashPoint, yield func(c choice) bool) {
	last := len(p.pending) - 1
	alone, torn := p.none(), p.all()
	alone.nsizes = torn.nsizes
	if p.pending[last].data != nil {
		alone.kept[last], torn.kept[last] = wholeUnit, s.torn()
	}
	if yield(p.all()) && !s.sparse && yield(alone) && yield(torn) {
		c := s.randomSet(p)
		c.kept[last] = alone.kept[last]
		yield(c)
	}
}

// random yields n random sets, half of them of torn units.
func (s *sampler) random(p *crashPoint, n int, yield func(c choice) bool) bool {
	for range n {
		c := s.randomSet(p)
		if s.rnd.IntN(2) == 0 {
			for i := range c.kept {
				c.kept[i] &= sectors(s.rnd.IntN(256))
			}
		}
		if !yield(c) {
			return false
		}
	}
	return true
}

// randomSet returns a random set of whole units, of a random density.
func (s *sampler) randomSet(p *crashPoint) choice {
	c := p.none()
	density := s.rnd.Float64()
	for i, u := range p.pending {
		if u.data != nil && s.rnd.Float64() < density {
			c.kept[i] = wholeUnit
		}
	}
	c.nsizes = s.rnd.IntN(p.sizes() + 1)
	return c
}
