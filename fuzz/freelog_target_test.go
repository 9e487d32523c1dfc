package fuzz

// freelog_target_test.go writes arbitrary lists of free space into the meta and the
// freelog pages of small stores, with right sums. Opening refuses a list that
// contradicts itself. One that is wrong about the trees it can't refuse, since it does not
// read them: that Check must find, and where a commit then overwrites what is in use,
// reading that must give an error, never other data.

import (
	"encoding/binary"
	"path/filepath"
	"slices"
	"testing"
)

// Ways to make a list, by the mode.
const (
	listSet     = iota // a single piece: what is really free, with pages put in or taken out
	listEntries        // entries after or in place of those in the tail
	listPage           // the same in a freelog page
	listRaw            // bytes in place of the tail's and a page's
	numListKinds
)

// FuzzFreelog: mode picks the store and how the list is made of script and raw.
func FuzzFreelog(f *testing.F) {
	for store := range uint8(2) {
		for kind := range uint8(numListKinds) {
			mode := kind | store<<2
			f.Add(mode, []byte{}, []byte{})
			f.Add(mode|1<<4, []byte{}, []byte{})
		}
		mode := store << 2
		f.Add(mode+listSet, []byte{1, 0, 0}, []byte{})                                   // a page in use is listed
		f.Add(mode+listSet, []byte{30, 1, 0}, []byte{})                                  // a free one is not
		f.Add(mode+listSet, []byte{4, 0x82, 9, 28, 0x41, 3}, []byte{})                   // pages wait
		f.Add(mode+listEntries, []byte{0, 0, 0, 0, 1, 3, 0, 1}, []byte{})                // the newest commit frees a page in use
		f.Add(mode+listEntries, []byte{0, 0, 0, 0, 2, 27, 0, 1}, []byte{})               // it allocates a free one
		f.Add(mode+listEntries, []byte{0, 0, 200, 9, 2, 27, 0, 0}, []byte{})             // the store grew
		f.Add(mode+listEntries|1<<4, []byte{3, 0, 0, 0, 4, 20, 9, 2}, []byte{})          // another piece
		f.Add(mode+listPage, []byte{0, 1, 0, 0, 1, 5, 1, 3, 2, 9, 1, 0}, []byte{})       // a commit of old
		f.Add(mode+listPage|1<<4, []byte{3, 0, 6, 0, 3, 6, 0, 0, 4, 20, 9, 0}, []byte{}) // two pieces
		f.Add(mode+listRaw, []byte{1, 5, 40, 1, 6, 2, 0}, []byte{2, 6, 40, 0, 0, 0})
		f.Add(mode+listRaw, []byte{}, []byte{1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 40, 0, 0})
	}
	f.Fuzz(func(t *testing.T, mode uint8, script, raw []byte) {
		guardTime(t)
		st := forgeStores()[mode>>2&1]
		e := &examination{t: t, path: filepath.Join(scratchDir(t), "store"), holds: st.holds, treesAreRight: true}
		l := &listForger{forger: newForger(st.file, st.psize), replace: mode>>4&1 == 1}
		switch mode % numListKinds {
		case listSet:
			isRight := l.set(script)
			e.mustBeSound, e.mustBeFound = isRight, !isRight
		case listEntries:
			l.setTail(l.entries(script, l.txid()))
		case listPage:
			l.setPage(l.entries(script, l.txid()-min(l.txid()-1, 40)))
		case listRaw:
			l.replace = true
			l.setTail(raw, 0)
			l.setPage(script, int(raw0(raw)))
		}
		l.reseal()
		e.file = l.file
		t.Logf("tail %x", l.tail())
		e.run()
	})
}

func raw0(b []byte) byte {
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

// listForger writes lists of free space.
type listForger struct {
	*forger
	replace bool // what is there, where not: add to it
}

func (l *listForger) meta() []byte   { return l.page(l.slot) }
func (l *listForger) txid() uint64   { return le.Uint64(l.meta()[layout().txid:]) }
func (l *listForger) npages() uint64 { return le.Uint64(l.meta()[layout().npages:]) }

func (l *listForger) tail() []byte {
	m, at := l.meta(), layout()
	return m[at.tail : at.tail+int(le.Uint32(m[at.tailLen:]))]
}

// setTail writes entries into the meta, as many bytes as it has room for.
func (l *listForger) setTail(entries []byte, _ int) {
	m, at := l.meta(), layout()
	if !l.replace {
		entries = slices.Concat(l.tail(), entries)
	}
	clear(m[at.tail:])
	n := copy(m[at.tail:], entries)
	le.PutUint32(m[at.tailLen:], uint32(n))
	le.PutUint32(m[at.lower:], uint32(at.tail+n))
}

// setPage writes n entries into the newest freelog page. Where there is none, there is
// nothing to do.
func (l *listForger) setPage(entries []byte, n int) {
	at := layout()
	head := le.Uint64(l.meta()[at.freeHead:])
	if !l.has(head, 1) {
		l.setTail(entries, n)
		return
	}
	p := l.page(head)
	if !l.replace {
		entries = slices.Concat(p[at.entries:le.Uint32(p[at.lower:])], entries)
		n += int(le.Uint16(p[at.count:]))
	}
	clear(p[at.entries:])
	k := copy(p[at.entries:], entries)
	le.PutUint32(p[at.lower:], uint32(at.entries+k))
	le.PutUint16(p[at.count:], uint16(n))
}

// set makes the list a single piece: what is free in truth, less or more what script
// says, three bytes for each change: a page, how many and the state, an age. It reports
// whether the list is right.
func (l *listForger) set(script []byte) bool {
	at, m := layout(), l.meta()
	for _, off := range []int{at.freeHead, at.freeSum, at.freeOldest, at.freeStart} {
		le.PutUint64(m[off:], 0)
	}
	le.PutUint32(m[at.chainLen:], 0)
	l.reseal()
	live, npages := l.live(), l.npages()
	type state struct {
		free bool
		how  byte
		age  byte
	}
	states := make([]state, npages)
	for n := at.numMetas; n < npages; n++ {
		states[n].free = !live[n]
	}
	isRight := true
	for ; len(script) >= 3; script = script[3:] {
		n := at.numMetas + uint64(script[0])%(npages-at.numMetas)
		for range script[1]%4 + 1 {
			if n < npages {
				states[n] = state{!states[n].free || script[1]&0x20 != 0, script[1] >> 6 % 3, script[2]}
			}
			n++
		}
	}
	w := &listWriter{}
	w.begin(at.piece, l.txid(), npages)
	w.lo, w.length = 0, 0
	for n := at.numMetas; n < npages; n++ {
		if states[n].free == live[n] {
			isRight = false
		}
		if states[n].free {
			s := states[n]
			age := uint64(s.age) % l.txid() // T is a commit
			life := 1 + uint64(s.age)%3
			if T := l.txid() - age; s.how == 2 && life >= T {
				s.how = 1
			}
			w.extents[0] = append(w.extents[0], listExtent{n, 1, uint64(s.how), age, life})
		}
	}
	w.end()
	l.replace = true
	if len(w.b) > l.psize-at.tail {
		w = &listWriter{}
	}
	l.setTail(w.b, 1)
	return isRight && len(w.b) > 0
}

// --- entries

// listExtent is an extent of an entry.
type listExtent struct {
	start, npages, state, age, life uint64
}

// listWriter encodes entries.
type listWriter struct {
	b       []byte
	n       int
	kind    byte
	lo      uint64 // of a piece
	length  uint64
	extents [2][]listExtent // freed and allocated; a piece's are in the first
}

func (w *listWriter) begin(kind byte, txid, npages uint64) {
	w.end()
	w.kind, w.extents = kind, [2][]listExtent{}
	w.b = append(w.b, kind)
	w.b = binary.AppendUvarint(w.b, txid)
	w.b = binary.AppendUvarint(w.b, npages)
	w.n++
}

// end writes the extents of the entry that was begun.
func (w *listWriter) end() {
	isPiece := w.kind == layout().piece
	switch {
	case w.kind == 0:
	case isPiece:
		w.b = binary.AppendUvarint(w.b, w.lo)
		w.b = binary.AppendUvarint(w.b, w.length)
		w.list(w.extents[0], w.lo, func(e listExtent) {
			w.b = binary.AppendUvarint(w.b, e.npages<<2|e.state)
			if e.state > 0 {
				w.b = binary.AppendUvarint(w.b, e.age)
			}
			if e.state > 1 {
				w.b = binary.AppendUvarint(w.b, e.life)
			}
		})
	default:
		w.list(w.extents[0], 0, func(e listExtent) {
			w.b = binary.AppendUvarint(w.b, e.npages<<1|e.state&1)
			if e.state&1 != 0 {
				w.b = binary.AppendUvarint(w.b, e.age+1)
			}
		})
		w.list(w.extents[1], 0, func(e listExtent) { w.b = binary.AppendUvarint(w.b, e.npages) })
	}
	w.kind = 0
}

// list writes the extents of one list in order; of two that overlap, one.
func (w *listWriter) list(es []listExtent, from uint64, write func(e listExtent)) {
	slices.SortFunc(es, func(a, b listExtent) int { return int(a.start) - int(b.start) })
	kept := es[:0]
	end := from
	for _, e := range es {
		if e.start >= end {
			kept = append(kept, e)
			end = e.start + e.npages
		}
	}
	w.b = binary.AppendUvarint(w.b, uint64(len(kept)))
	end = from
	for _, e := range kept {
		w.b = binary.AppendUvarint(w.b, e.start-end)
		write(e)
		end = e.start + e.npages
	}
}

// entries makes entries of script, four bytes for each step: a record or piece begins,
// or it gets an extent. The first is of commit txid. It returns how many there are.
func (l *listForger) entries(script []byte, txid uint64) (b []byte, n int) {
	at, npages := layout(), l.npages()
	w := &listWriter{}
	for steps := 0; len(script) >= 4 && steps < 64; steps++ {
		a, b, c := script[1], script[2], script[3]
		e := listExtent{
			start: at.numMetas + uint64(a)%(npages-at.numMetas), npages: uint64(b)%5 + 1,
			state: uint64(c) & 3, age: uint64(c) >> 2 % 8, life: uint64(b)>>3%4 + 1,
		}
		switch script[0] % 6 {
		case 0:
			txid += uint64(a) % 3
			if b >= 200 {
				npages += uint64(c) % 16
			} else if b >= 150 {
				npages -= min(uint64(c)%16, npages-at.numMetas)
			}
			w.begin(at.record, txid, npages)
		case 1:
			w.extents[0] = append(w.extents[0], e)
		case 2:
			w.extents[1] = append(w.extents[1], e)
		case 3:
			w.begin(at.piece, txid, npages)
			w.lo, w.length = uint64(a), uint64(b)
		case 4:
			e.state %= 3
			w.extents[0] = append(w.extents[0], e)
		case 5:
			w.end()
			w.b = append(w.b, a, b, c)
		}
		script = script[4:]
	}
	w.end()
	return w.b, w.n
}
