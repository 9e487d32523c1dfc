package fuzz

// page_target_test.go writes arbitrary things into the pages of small stores and makes
// the sums right again, so that they get past them. A page that lies must give an error
// that names a page, never a panic, a loop without end, or a change of what lies
// elsewhere.

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/foliokv/folio"
)

// FuzzPage: edits are a list of edits of eight bytes each, see pageEdit; over is written
// over page number `at` of those in use, behind its sum.
func FuzzPage(f *testing.F) {
	// The last commit, and the last bucket, that there can be.
	f.Add(uint8(2), []byte{1, 0, 0, 2, 7, 0, 0, 0}, uint8(0), []byte{})
	f.Add(uint8(2), []byte{2, 0, 3, 2, 7, 0, 0, 0}, uint8(0), []byte{})
	for store, st := range forgeStores() {
		f.Add(uint8(store), []byte{}, uint8(0), []byte{})
		r := rand.New(rand.NewPCG(1, uint64(store)))
		for kind := range pageEdits {
			e := make([]byte, editSize)
			le.PutUint64(e, r.Uint64())
			e[0] = byte(kind)
			if (kind+store)%2 == 0 {
				f.Add(uint8(store), e, uint8(0), []byte{})
			}
		}
		g := newForger(st.file, st.psize)
		for i, p := range g.pages[:min(len(g.pages), 4)] {
			if st.psize == 4096 {
				f.Add(uint8(store), []byte{}, uint8(i+1), slices.Clone(g.page(p.n)[layout().pgno:]))
			}
		}
	}
	f.Fuzz(fuzzPage)
}

func fuzzPage(t *testing.T, mode uint8, edits []byte, at uint8, over []byte) {
	guardTime(t)
	stores := forgeStores()
	st := stores[int(mode)%len(stores)]
	e := &examination{
		t: t, path: filepath.Join(scratchDir(t), "store"),
		verify: [4]folio.VerifyMode{folio.VerifyFirstRead, folio.VerifyFirstRead, folio.VerifyAlways, folio.VerifyOff}[mode/8%4],
	}
	p := &pageForger{f: newForger(st.file, st.psize), log: func(format string, args ...any) { t.Logf(format, args...) }}
	p.overwrite(int(at), over)
	p.edit(edits)
	e.holds, e.partly = p.trusted(st.holds), true
	p.f.reseal()
	e.file = p.f.file
	e.usedUp = p.usedUp()
	e.run()
}

const (
	editSize  = 8
	mostEdits = 24
)

// pageForger changes pages by number: the number in the order of the forger's walk of
// the whole store, so that an edit means the same wherever the engine puts its pages.
type pageForger struct {
	f       *forger
	log     func(format string, args ...any)
	touched []int // indexes in f.pages
}

// pageEdit is one edit: a kind, the page, and arguments.
type pageEdit struct {
	kind, page byte
	args       [6]byte
}

// overwrite writes over behind the sum of a page.
func (p *pageForger) overwrite(at int, over []byte) {
	if len(over) == 0 {
		return
	}
	i, page := p.pick(at)
	n := copy(page[layout().pgno:], over)
	p.log("page %d: %d bytes written over it", p.f.pages[i].n, n)
}

// pick returns a page or run that is in use.
func (p *pageForger) pick(at int) (i int, page []byte) {
	i = at % len(p.f.pages)
	p.touched = append(p.touched, i)
	return i, p.f.run(p.f.pages[i].n, p.f.pages[i].npages)
}

// peek is pick of a page that is not changed.
func (p *pageForger) peek(at int) (n uint64, page []byte) {
	fp := p.f.pages[at%len(p.f.pages)]
	return fp.n, p.f.run(fp.n, fp.npages)
}

// edit makes the edits.
func (p *pageForger) edit(b []byte) {
	for n := 0; len(b) >= editSize && n < mostEdits; n++ {
		e := pageEdit{b[0], b[1], [6]byte(b[2:8])}
		kind := &pageEdits[int(e.kind)%len(pageEdits)]
		i, page := p.pick(int(e.page))
		kind.make(p, page, &e)
		p.log("page %d: %s %s", p.f.pages[i].n, kind.name, hex.EncodeToString(e.args[:]))
		b = b[editSize:]
	}
}

// trusted returns what the buckets of the root hold that no edit touched: that must
// stay, whatever the others say. Where the root's own pages were touched there is none.
func (p *pageForger) trusted(all *contents) *contents {
	c := newContents()
	owners := map[string]bool{}
	for _, i := range p.touched {
		owners[p.f.pages[i].owner] = true
	}
	if owners[""] {
		return c
	}
	for name, b := range all.buckets {
		if !owners[name] {
			c.buckets[name] = b
		}
	}
	return c
}

// usedUp reports whether the meta's largest numbers are nearly the largest that there are.
func (p *pageForger) usedUp() bool {
	m, d := p.f.page(p.f.slot), formatDoc()
	counter := uint64(d.at("limits", "counter"))
	return le.Uint64(m[d.at("page header", "txid"):]) > counter-100 || le.Uint64(m[d.at("meta page", "next tree"):]) > counter-100
}

// lie returns what a number of size bytes is to become: something near it, an edge, a
// number of a page, or the bytes of the edit.
func (p *pageForger) lie(is uint64, size int, args []byte) uint64 {
	v := uint64(args[1])
	switch args[0] % 6 {
	case 0:
		return is + v%16 + 1
	case 1:
		return is - v%16 - 1
	case 2:
		return [...]uint64{0, 1, 1 << 15, 1<<16 - 1, 1 << 31, 1<<32 - 1, 1 << 48, 1<<62 - 1, 1 << 62, 1 << 63, 1<<64 - 1, 40, 41}[v%13]
	case 3:
		n, _ := p.peek(int(v))
		return n
	case 4:
		return is ^ 1<<(v%uint64(8*size))
	}
	return v | uint64(args[2])<<8
}

// put puts a lie in the place of the integer of size bytes at off, if that is on the page.
func (p *pageForger) put(page []byte, off, size int, args []byte) {
	if off < 0 || off+size > len(page) {
		return
	}
	var b [8]byte
	copy(b[:], page[off:off+size])
	le.PutUint64(b[:], p.lie(le.Uint64(b[:]), size, args))
	copy(page[off:off+size], b[:])
}

// field is an integer of a structure.
type field struct{ off, size int }

// headerFields are those of the page header but for sum and number.
func headerFields() []field {
	l := layout()
	return []field{
		{l.txid, 8}, {l.tree, 8}, {l.kind, 1}, {l.level, 1}, {l.flags, 2}, {l.count, 2}, {l.prefix, 2},
		{l.lower, 4}, {l.upper, 4}, {l.runPages, 4}, {l.dead, 4}, {l.pgno, 8},
	}
}

// pageEdits are the kinds of edits. Arguments that do not fit the page do nothing.
var pageEdits = []struct {
	name string
	make func(p *pageForger, page []byte, e *pageEdit)
}{
	{"bytes at an offset", func(_ *pageForger, page []byte, e *pageEdit) {
		off := int(binary.BigEndian.Uint16(e.args[:]))
		if off = off % len(page); off >= layout().pgno {
			copy(page[off:], e.args[2:])
		}
	}},
	{"field of the header", func(p *pageForger, page []byte, e *pageEdit) {
		fields := headerFields()
		f := fields[int(e.args[0])%len(fields)]
		p.put(page, f.off, f.size, e.args[1:])
	}},
	{"field of the meta", func(p *pageForger, _ []byte, e *pageEdit) {
		_, m := p.pick(0)
		d := formatDoc()["meta page"]
		names := []string{"durable", "npages", "root", "next tree", "free head", "free sum", "free oldest", "free start", "chain length", "tail length"}
		name := names[int(e.args[0])%len(names)]
		size := 8
		if name == "chain length" || name == "tail length" {
			size = 4
		}
		p.put(m, d[name].base, size, e.args[1:])
	}},
	{"child is another page", func(p *pageForger, page []byte, e *pageEdit) {
		l := layout()
		if n, i, ok := p.slot(page, e.args[0]); ok && page[l.kind] == l.branch {
			to, _ := p.peek(int(e.args[1]))
			le.PutUint64(slotAt(page, l.pgnos, n, i, 8), to)
		}
	}},
	{"number of a child", func(p *pageForger, page []byte, e *pageEdit) {
		l := layout()
		if n, i, ok := p.slot(page, e.args[0]); ok && page[l.kind] == l.branch {
			p.put(page, l.pgnos.base+l.pgnos.perSlot*n+8*i, 8, e.args[1:])
		}
	}},
	{"count of a child", func(p *pageForger, page []byte, e *pageEdit) {
		l := layout()
		if n, i, ok := p.slot(page, e.args[0]); ok && page[l.kind] == l.branch {
			p.put(page, l.counts.base+l.counts.perSlot*n+8*i, 8, e.args[1:])
		}
	}},
	{"offset of a slot", func(p *pageForger, page []byte, e *pageEdit) {
		l := layout()
		if n, i, ok := p.slot(page, e.args[0]); ok {
			p.put(page, l.offsets.base+l.offsets.perSlot*n+2*i, 2, e.args[1:])
		}
	}},
	{"offset and head of two slots exchanged", func(p *pageForger, page []byte, e *pageEdit) {
		l := layout()
		n, i, ok := p.slot(page, e.args[0])
		_, j, _ := p.slot(page, e.args[1])
		if ok {
			swap(slotAt(page, l.heads, n, i, 4)[:4], slotAt(page, l.heads, n, j, 4)[:4])
			swap(slotAt(page, l.offsets, n, i, 2)[:2], slotAt(page, l.offsets, n, j, 2)[:2])
		}
	}},
	{"slot with the cell of another", func(p *pageForger, page []byte, e *pageEdit) {
		l := layout()
		n, i, ok := p.slot(page, e.args[0])
		_, j, _ := p.slot(page, e.args[1])
		if ok {
			copy(slotAt(page, l.heads, n, i, 4)[:4], slotAt(page, l.heads, n, j, 4))
			copy(slotAt(page, l.offsets, n, i, 2)[:2], slotAt(page, l.offsets, n, j, 2))
		}
	}},
	{"length in a cell", func(p *pageForger, page []byte, e *pageEdit) {
		if c := p.cell(page, e.args[0]); c != nil {
			p.put(c, 2*int(e.args[1]&1), 2, e.args[2:])
		}
	}},
	{"byte of a key", func(p *pageForger, page []byte, e *pageEdit) {
		if c := p.cell(page, e.args[0]); c != nil {
			if k := int(le.Uint16(c)) &^ cellFlag; k > 0 && layout().key+k <= len(c) {
				c[layout().key+int(binary.BigEndian.Uint16(e.args[1:]))%k] = e.args[3]
			}
			p.fixHeads(page)
		}
	}},
	{"bytes behind a key", func(p *pageForger, page []byte, e *pageEdit) {
		if v := p.value(page, e.args[0]); v != nil {
			p.put(v, int(e.args[1])%len(v), min(8, len(v)-int(e.args[1])%len(v)), e.args[2:])
		}
	}},
	{"field of a run reference", func(p *pageForger, page []byte, e *pageEdit) {
		l := layout()
		fields := []field{{l.refPgno, 8}, {l.refTxid, 8}, {l.refPages, 4}, {l.refKeyLen, 4}, {l.refValueLen, 4}}
		if r := p.runRef(page, e.args[0]); r != nil {
			f := fields[int(e.args[1])%len(fields)]
			p.put(r, f.off, f.size, e.args[2:])
		}
	}},
	{"run reference of another cell", func(p *pageForger, page []byte, e *pageEdit) {
		_, from := p.peek(int(e.args[1]))
		if to, r := p.runRef(page, e.args[0]), p.runRef(from, e.args[2]); to != nil && r != nil {
			copy(to, r[:layout().refSize])
		}
	}},
	{"field of a bucket record", func(p *pageForger, page []byte, e *pageEdit) {
		fields := []field{{0, 8}, {16, 8}, {24, 8}, {32, 8}, {40, 1}, {41, 1}}
		if r := p.bucketRecord(page, e.args[0]); r != nil {
			f := fields[int(e.args[1])%len(fields)]
			p.put(r, f.off, f.size, e.args[2:])
		}
	}},
	{"bucket with another root", func(p *pageForger, page []byte, e *pageEdit) {
		if r := p.bucketRecord(page, e.args[0]); r != nil {
			n, root := p.peek(int(e.args[1]))
			le.PutUint64(r[layout().recPgno:], n)
			r[formatDoc().at("bucket record", "level")] = root[layout().level]
			p.put(r, formatDoc().at("bucket record", "root count"), 8, e.args[2:])
		}
	}},
	{"bucket record of another", func(p *pageForger, page []byte, e *pageEdit) {
		_, from := p.peek(int(e.args[1]))
		if to, r := p.bucketRecord(page, e.args[0]), p.bucketRecord(from, e.args[2]); to != nil && r != nil {
			copy(to[:layout().recSize], r)
		}
	}},
	{"content of another page", func(p *pageForger, page []byte, e *pageEdit) {
		_, from := p.peek(int(e.args[0]))
		copy(page[layout().tree:], from[layout().tree:])
	}},
	{"bytes moved", func(_ *pageForger, page []byte, e *pageEdit) {
		from, to := int(binary.BigEndian.Uint16(e.args[:]))%len(page), int(binary.BigEndian.Uint16(e.args[2:]))%len(page)
		if n := int(e.args[4]); to >= layout().pgno && from+n <= len(page) {
			copy(page[to:], slices.Clone(page[from:from+n]))
		}
	}},
	{"heads made right", func(p *pageForger, page []byte, _ *pageEdit) { p.fixHeads(page) }},
	{"dead bytes made right", func(p *pageForger, page []byte, _ *pageEdit) { p.fixDead(page) }},
}

func swap(a, b []byte) {
	for i := range a {
		a[i], b[i] = b[i], a[i]
	}
}

// slot returns the number of slots of a tree page and the one that arg picks.
func (p *pageForger) slot(page []byte, arg byte) (n, i int, ok bool) {
	if k := page[layout().kind]; k != layout().branch && k != layout().leaf {
		return 0, 0, false
	}
	if n = p.f.slotsOf(page); n == 0 {
		return 0, 0, false
	}
	return n, int(arg) % n, true
}

// cell returns the bytes from the cell of a slot on.
func (p *pageForger) cell(page []byte, arg byte) []byte {
	n, i, ok := p.slot(page, arg)
	if !ok {
		return nil
	}
	return p.f.cell(page, n, i, layout().key)
}

// value returns what follows the key or suffix of a cell.
func (p *pageForger) value(page []byte, arg byte) []byte {
	l := layout()
	c := p.cell(page, arg)
	if c == nil {
		return nil
	}
	from := l.key + int(le.Uint16(c))&^cellFlag
	to := from + int(le.Uint16(c[2:]))&^cellFlag
	if page[l.kind] == l.branch {
		from, to = l.suffix+int(le.Uint16(c))&^cellFlag, len(c)
	}
	if from >= to || to > len(c) {
		return nil
	}
	return c[from:to]
}

// runRef returns the run reference of a cell, or nil.
func (p *pageForger) runRef(page []byte, arg byte) []byte {
	l := layout()
	c, v := p.cell(page, arg), p.value(page, arg)
	flags := 2
	if page[l.kind] == l.branch {
		flags = 0
	}
	if len(v) < l.refSize || le.Uint16(c[flags:])&cellFlag == 0 {
		return nil
	}
	return v[:l.refSize]
}

// bucketRecord returns the bucket record in a cell, that of the root bucket in a meta, or nil.
func (p *pageForger) bucketRecord(page []byte, arg byte) []byte {
	l := layout()
	if string(page[l.magic:l.magic+8]) == magicOfMeta {
		return page[l.root : l.root+l.recSize]
	}
	c, v := p.cell(page, arg), p.value(page, arg)
	if page[l.kind] != l.leaf || len(v) < l.recSize || le.Uint16(c)&cellFlag == 0 {
		return nil
	}
	return v[len(v)-l.recSize:]
}

// suffixOf returns the bytes whose first four make the head of slot i.
func (p *pageForger) suffixOf(page []byte, i int) []byte {
	l := layout()
	c := p.cell(page, byte(i))
	from, skip := l.key, int(le.Uint16(page[l.prefix:]))
	if page[l.kind] == l.branch {
		from, skip = l.suffix, 0
	}
	if c == nil {
		return nil
	}
	to := from + int(le.Uint16(c))&^cellFlag
	if from += skip; from > to || to > len(c) {
		return nil
	}
	return c[from:to]
}

// fixHeads makes the heads of a page what its keys call for.
func (p *pageForger) fixHeads(page []byte) {
	l := layout()
	n, _, _ := p.slot(page, 0)
	for i := range min(n, 256) {
		if page[l.kind] == l.branch && i == 0 {
			continue
		}
		var head [4]byte
		copy(head[:], p.suffixOf(page, i))
		le.PutUint32(slotAt(page, l.heads, n, i, 4), binary.BigEndian.Uint32(head[:]))
	}
}

// fixDead makes the dead bytes of a page what its cells call for.
func (p *pageForger) fixDead(page []byte) {
	l := layout()
	n, _, ok := p.slot(page, 0)
	if !ok || n > 256 {
		return
	}
	live := 0
	if page[l.kind] == l.branch {
		live = int(le.Uint16(page[l.prefix:]))
	}
	for i := range n {
		c := p.cell(page, byte(i))
		switch {
		case c == nil:
		case page[l.kind] == l.leaf:
			live += l.key + int(le.Uint16(c))&^cellFlag + int(le.Uint16(c[2:]))&^cellFlag
		case i > 0:
			live += l.suffix + int(le.Uint16(c))&^cellFlag
			if le.Uint16(c)&cellFlag != 0 {
				live += l.refSize
			}
		}
	}
	le.PutUint32(page[l.dead:], uint32(len(page)-int(le.Uint32(page[l.upper:]))-live))
}
