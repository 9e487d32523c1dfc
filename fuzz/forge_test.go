package fuzz

// forge_test.go changes pages of a store as one would who has docs/format.md and nothing
// else: every offset comes from the tables there. After a change it makes all sums right
// again, in the page and in what refers to it, up to the meta, so that what was changed
// gets past them.

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/foliokv/folio"
	"github.com/stretchr/testify/require"
)

// --- the document

// docPlace is an offset such as 56+14n, or a value.
type docPlace struct {
	base    int
	perSlot int
}

// docTables has, of each table with a name, the offset of each field or the value of
// each name.
type docTables map[string]map[string]docPlace

var formatDoc = sync.OnceValue(func() docTables {
	raw, err := os.ReadFile(filepath.Join("..", "docs", "format.md"))
	if err != nil {
		panic(err)
	}
	doc := docTables{}
	var table map[string]docPlace
	var columns []string
	for line := range strings.Lines(string(raw)) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "<!-- table: "); ok {
			table, columns = map[string]docPlace{}, nil
			doc[strings.TrimSuffix(name, " -->")] = table
			continue
		}
		if !strings.HasPrefix(line, "|") {
			if columns != nil {
				table, columns = nil, nil
			}
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case table == nil || strings.HasPrefix(cells[0], "---"):
		case columns == nil:
			columns = cells
		default:
			addRow(table, columns, cells)
		}
	}
	return doc
})

func addRow(table map[string]docPlace, columns, cells []string) {
	name, number := "", ""
	for i, column := range columns[:min(len(columns), len(cells))] {
		switch column {
		case "offset", "value":
			number = cells[i]
		case "field", "kind", "flag", "state", "entry", "change", "name":
			name = cells[i]
		}
	}
	table[name] = parsePlace(number)
}

func parsePlace(s string) (p docPlace) {
	base, rest, _ := strings.Cut(s, "+")
	p.base, _ = strconv.Atoi(base)
	if factor, ok := strings.CutSuffix(rest, "n"); ok {
		p.perSlot, _ = strconv.Atoi(factor)
	}
	return p
}

func (d docTables) place(table, name string) docPlace {
	p, ok := d[table][name]
	if !ok {
		panic("docs/format.md: table " + table + " has no " + name)
	}
	return p
}

func (d docTables) at(table, name string) int { return d.place(table, name).base }

// layout is what the forger needs of the document.
var layout = sync.OnceValue(func() (l struct {
	headerSize                                                             int
	sum, pgno, txid, tree, kind, level, flags, count, prefix, lower, upper int
	runPages, dead                                                         int
	branch, leaf, run, freelog                                             byte
	heads, offsets, pgnos, sums, counts                                    docPlace // of a branch; heads and offsets of a leaf too
	suffix, key                                                            int      // in a cell
	refPgno, refSum, refTxid, refPages, refKeyLen, refValueLen, refSize    int
	recPgno, recSum, recSize                                               int
	magic, npages, root, freeHead, freeSum, freeOldest, freeStart          int
	chainLen, tailLen, tail                                                int
	prev, prevSum, entries                                                 int
	numMetas                                                               uint64
	record, piece                                                          byte
}) {
	d := formatDoc()
	h := func(name string) int { return d.at("page header", name) }
	l.sum, l.pgno, l.txid, l.tree, l.kind, l.level = h("sum"), h("pgno"), h("txid"), h("tree"), h("kind"), h("level")
	l.flags, l.count, l.prefix, l.lower, l.upper = h("flags"), h("count"), h("prefix"), h("lower"), h("upper")
	l.runPages, l.dead = h("pages"), h("dead")
	kind := func(name string) byte { return byte(d.at("page kinds", name)) }
	l.branch, l.leaf, l.run, l.freelog = kind("branch"), kind("leaf"), kind("run"), kind("freelog")
	l.heads, l.offsets = d.place("branch slots", "heads"), d.place("branch slots", "offsets")
	l.pgnos, l.sums, l.counts = d.place("branch slots", "pgnos"), d.place("branch slots", "sums"), d.place("branch slots", "counts")
	l.headerSize = l.heads.base
	l.suffix, l.key = d.at("branch cell", "suffix"), d.at("leaf cell", "key")
	r := func(name string) int { return d.at("run reference", name) }
	l.refPgno, l.refSum, l.refTxid, l.refPages = r("pgno"), r("sum"), r("txid"), r("pages")
	l.refKeyLen, l.refValueLen = r("key length"), r("value length")
	l.refSize = l.refValueLen + 4
	l.recPgno, l.recSum = d.at("bucket record", "root pgno"), d.at("bucket record", "root sum")
	l.recSize = d.at("bucket record", "reserved") + 7
	m := func(name string) int { return d.at("meta page", name) }
	l.magic, l.npages, l.root, l.freeHead, l.freeSum = m("magic"), m("npages"), m("root"), m("free head"), m("free sum")
	l.freeOldest, l.freeStart, l.chainLen, l.tailLen, l.tail = m("free oldest"), m("free start"), m("chain length"), m("tail length"), m("tail")
	l.prev, l.prevSum, l.entries = d.at("freelog page", "prev"), d.at("freelog page", "prev sum"), d.at("freelog page", "entries")
	l.numMetas = uint64(d.at("limits", "meta slots"))
	l.record, l.piece = byte(d.at("entry kinds", "record")), byte(d.at("entry kinds", "piece"))
	return l
})

const magicOfMeta = "FOLIO\r\n\x1a"

// --- the forger

var le = binary.LittleEndian

// forgedPage is a page or run that the walk came to.
type forgedPage struct {
	n      uint64
	npages int
	owner  string // the bucket of the root that it belongs to; "" for the root's own, and the freelog
}

// forger holds the bytes of a store.
type forger struct {
	file  []byte
	psize int
	slot  uint64 // of the meta
	sumOf func(b []byte) uint64

	pages []forgedPage      // in the order of the last walk
	sums  map[uint64]uint64 // of what was walked
	open  map[uint64]bool   // being walked: a cycle can't have right sums
	owner string
	depth int
}

// newForger returns a forger of file, of which only the newest meta is kept: nothing is
// there to fall back on.
func newForger(file []byte, psize int) *forger {
	l := layout()
	f := &forger{file: slices.Clone(file), psize: psize, sumOf: xxhash.Sum64}
	newest := uint64(0)
	for slot := range l.numMetas {
		p := f.page(slot)
		if t := le.Uint64(p[l.txid:]); string(p[l.magic:l.magic+8]) == magicOfMeta && t > newest {
			newest, f.slot = t, slot
		}
	}
	for slot := range l.numMetas {
		if slot != f.slot {
			clear(f.page(slot))
		}
	}
	f.reseal()
	return f
}

func (f *forger) clone() *forger {
	g := *f
	g.file, g.pages = slices.Clone(f.file), slices.Clone(f.pages)
	return &g
}

// page returns page n, which must exist.
func (f *forger) page(n uint64) []byte { return f.run(n, 1) }

func (f *forger) run(n uint64, npages int) []byte {
	from := int(n) * f.psize
	to := from + npages*f.psize
	return f.file[from:to:to]
}

// has reports whether the file has pages n to n+npages-1, and they may be referred to.
func (f *forger) has(n, npages uint64) bool {
	all := uint64(len(f.file) / f.psize)
	return n >= layout().numMetas && n < all && npages > 0 && npages <= all-n
}

// reseal walks the store and makes right the sum of each page that it comes to, and the
// sum in each reference to it. What makes no sense it leaves alone.
func (f *forger) reseal() {
	l := layout()
	f.pages, f.sums, f.open = nil, map[uint64]uint64{}, map[uint64]bool{}
	m := f.page(f.slot)
	f.pages = append(f.pages, forgedPage{f.slot, 1, ""})
	f.record(m[l.root : l.root+l.recSize])
	f.freelog(m)
	f.seal(m)
}

// seal makes the sum of a page or run right.
func (f *forger) seal(p []byte) uint64 {
	l := layout()
	sum := f.sumOf(p[l.pgno:])
	le.PutUint64(p[l.sum:], sum)
	return sum
}

// visit seals page n, of npages pages, once; walk comes to what is below it first.
func (f *forger) visit(n uint64, npages int, walk func(p []byte)) (sum uint64, ok bool) {
	if sum, ok := f.sums[n]; ok || f.open[n] || !f.has(n, uint64(npages)) {
		return sum, ok
	}
	f.open[n] = true
	f.pages = append(f.pages, forgedPage{n, npages, f.owner})
	p := f.run(n, npages)
	walk(p)
	f.sums[n] = f.seal(p)
	return f.sums[n], true
}

func (f *forger) record(rec []byte) {
	l := layout()
	if sum, ok := f.tree(le.Uint64(rec[l.recPgno:])); ok {
		le.PutUint64(rec[l.recSum:], sum)
	}
}

func (f *forger) tree(n uint64) (sum uint64, ok bool) {
	return f.visit(n, 1, func(p []byte) {
		switch l := layout(); p[l.kind] {
		case l.branch:
			f.branch(p)
		case l.leaf:
			f.leaf(p)
		}
	})
}

// slotsOf returns the number of slots, none where they leave the page.
func (f *forger) slotsOf(p []byte) int {
	l := layout()
	n, size := int(le.Uint16(p[l.count:])), l.offsets.perSlot+2
	if p[l.kind] == l.branch {
		size = l.counts.perSlot + 8
	}
	if l.headerSize+size*n > len(p) {
		return 0
	}
	return n
}

// slot returns the bytes of slot i of n in the array at a place, from there on.
func slotAt(p []byte, a docPlace, n, i, size int) []byte {
	return p[a.base+a.perSlot*n+size*i:]
}

// cell returns the bytes from slot i's cell on, at least need of them, or nil.
func (f *forger) cell(p []byte, n, i, need int) []byte {
	off := int(le.Uint16(slotAt(p, layout().offsets, n, i, 2)))
	if off+need > len(p) {
		return nil
	}
	return p[off:]
}

const cellFlag = 1 << 15

func (f *forger) branch(p []byte) {
	l := layout()
	n := f.slotsOf(p)
	for i := range n {
		if c := f.cell(p, n, i, l.suffix); i > 0 && c != nil {
			k := int(le.Uint16(c))
			if end := l.suffix + k&^cellFlag; k&cellFlag != 0 && end+l.refSize <= len(c) {
				f.runRef(c[end : end+l.refSize])
			}
		}
		if sum, ok := f.tree(le.Uint64(slotAt(p, l.pgnos, n, i, 8))); ok {
			le.PutUint64(slotAt(p, l.sums, n, i, 8), sum)
		}
	}
}

func (f *forger) leaf(p []byte) {
	l := layout()
	n := f.slotsOf(p)
	for i := range n {
		c := f.cell(p, n, i, l.key)
		if c == nil {
			continue
		}
		k, v := int(le.Uint16(c)), int(le.Uint16(c[2:]))
		at, end := l.key+k&^cellFlag, l.key+k&^cellFlag+v&^cellFlag
		if end > len(c) {
			continue
		}
		if v&cellFlag != 0 && at+l.refSize <= end {
			f.runRef(c[at : at+l.refSize])
		}
		if k&cellFlag != 0 && end-at >= l.recSize {
			name := string(c[l.key:at])
			if v&cellFlag != 0 {
				name = f.keyOfRun(c[at:], name)
			}
			f.below(name, func() { f.record(c[end-l.recSize : end]) })
		}
	}
}

// below runs walk for the bucket called name of the bucket that is being walked.
func (f *forger) below(name string, walk func()) {
	owner := f.owner
	if f.depth == 0 {
		f.owner = name
	}
	f.depth++
	walk()
	f.depth--
	f.owner = owner
}

func (f *forger) runRef(r []byte) {
	l := layout()
	sum, ok := f.visit(le.Uint64(r[l.refPgno:]), int(le.Uint32(r[l.refPages:])), func([]byte) {})
	if ok {
		le.PutUint64(r[l.refSum:], sum)
	}
}

// keyOfRun returns the key in the run that r refers to, otherwise what stands for it.
func (f *forger) keyOfRun(r []byte, otherwise string) string {
	l := layout()
	n, npages, k := le.Uint64(r[l.refPgno:]), uint64(le.Uint32(r[l.refPages:])), int(le.Uint32(r[l.refKeyLen:]))
	if !f.has(n, npages) || l.headerSize+k > int(npages)*f.psize {
		return otherwise
	}
	return string(f.run(n, int(npages))[l.headerSize : l.headerSize+k])
}

// freelog seals the chain from its oldest page on: each refers to the one before it.
func (f *forger) freelog(m []byte) {
	l := layout()
	var chain []uint64
	for n := le.Uint64(m[l.freeHead:]); f.has(n, 1) && !slices.Contains(chain, n) && len(chain) < int(le.Uint32(m[l.chainLen:])); {
		chain = append(chain, n)
		n = le.Uint64(f.page(n)[l.prev:])
	}
	for i, n := range slices.Backward(chain) {
		sum, ok := f.visit(n, 1, func([]byte) {})
		if !ok {
			continue
		}
		if i == 0 {
			le.PutUint64(m[l.freeSum:], sum)
			continue
		}
		le.PutUint64(f.page(chain[i-1])[l.prevSum:], sum)
	}
}

// live returns the pages that are reached, each once.
func (f *forger) live() map[uint64]bool {
	live := map[uint64]bool{}
	for _, p := range f.pages[1:] {
		for i := range p.npages {
			live[p.n+uint64(i)] = true
		}
	}
	return live
}

// --- stores to forge

// forgeStore is a small store, closed, and what is in it.
type forgeStore struct {
	name  string
	psize int
	file  []byte
	holds *contents
}

// forgeStores are built once.
var forgeStores = sync.OnceValue(func() []*forgeStore {
	return []*forgeStore{
		buildForgeStore("tall", 4096, fillTall),
		buildForgeStore("runs", 4096, fillRuns),
		buildForgeStore("nested", 8192, fillNested),
		buildForgeStore("wide", 65536, fillWide),
	}
})

// buildForgeStore runs fill's transactions and closes the store. Its bytes but for the
// UUID are the same each time.
func buildForgeStore(name string, psize int, fill func(update func(fn func(w *forgeWriter)))) *forgeStore {
	dir, err := os.MkdirTemp("", "folio-forge-")
	check := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	check(err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "store")
	db, err := folio.Open(path, 0o600, &folio.Options{PageSize: psize, Sync: folio.SyncOff})
	check(err)
	fill(func(fn func(w *forgeWriter)) {
		check(db.Update(func(tx *folio.Tx) error { fn(&forgeWriter{tx.Root(), check}); return nil }))
	})
	st := &forgeStore{name: name, psize: psize}
	check(db.View(func(tx *folio.Tx) (err error) { st.holds, err = contentsOf(tx); return err }))
	check(db.Close())
	st.file, err = os.ReadFile(path)
	check(err)
	return st
}

// forgeWriter writes to a bucket.
type forgeWriter struct {
	b     *folio.Bucket
	check func(error)
}

func (w *forgeWriter) put(key string, nbytes int) {
	w.check(w.b.Put([]byte(key), patterned(len(key)+nbytes, nbytes)))
}

func (w *forgeWriter) sub(name string) *forgeWriter {
	b, err := w.b.CreateBucketIfNotExists([]byte(name))
	w.check(err)
	return &forgeWriter{b, w.check}
}

// patterned is a value of nbytes bytes.
func patterned(seed, nbytes int) []byte {
	v := make([]byte, nbytes)
	for i := range v {
		v[i] = byte(seed + i*7 + i>>8)
	}
	return v
}

// fillTall makes a bucket of three levels: its separators are long and share no prefix,
// so that a branch holds few.
func fillTall(update func(func(w *forgeWriter))) {
	update(func(w *forgeWriter) {
		tall := w.sub("tall")
		for group := range 12 {
			for i := range 6 {
				tall.put(strings.Repeat(string(rune('a'+group)), 850)+strconv.Itoa(i), 5)
			}
		}
		other := w.sub("other")
		for i := range 120 {
			other.put("key/"+strconv.Itoa(1000+i*7), 30)
		}
	})
	for i := range 2200 { // so that the freelog has pages
		update(func(w *forgeWriter) { w.put("pair"+strconv.Itoa(i*37%50), 40) })
	}
}

// fillRuns makes pairs and separators that are in runs.
func fillRuns(update func(func(w *forgeWriter))) {
	update(func(w *forgeWriter) {
		long := w.sub("long")
		for i := range 40 {
			long.put(strings.Repeat("s", 1100)+strconv.Itoa(100+i), i%3)
		}
		large := w.sub("large")
		large.put("two pages", 6000)
		large.put("three pages", 9000)
		large.put("one page", 1200)
		large.put("small", 10)
		w.put(strings.Repeat("k", 2000), 3000)
		w.put("pair", 5)
		w.sub(strings.Repeat("a long name ", 200)).put("key", 5)
	})
	update(func(w *forgeWriter) {
		_, err := w.sub("long").b.DeleteRange([]byte(strings.Repeat("s", 1100)+"108"), []byte(strings.Repeat("s", 1100)+"128"))
		w.check(err)
	})
}

// fillNested makes buckets in buckets.
func fillNested(update func(func(w *forgeWriter))) {
	update(func(w *forgeWriter) {
		a := w.sub("a")
		w.check(a.b.SetSequence(77))
		for i := range 60 {
			a.put("a"+strconv.Itoa(100+i), 100)
		}
		deep := a.sub("b").sub("c")
		for i := range 300 {
			deep.put("deep/"+strconv.Itoa(1000+i*3), 60)
		}
		deep.put("large", 70_000)
		w.sub("empty")
		z := w.sub("z")
		z.sub("y").sub("x").put("key", 3)
		z.put("m", 2000)
		for i := range 90 {
			w.put("pair/"+strconv.Itoa(100+i), i%120)
		}
	})
	update(func(w *forgeWriter) {
		_, err := w.sub("a").b.DeleteRange([]byte("a120"), []byte("a140"))
		w.check(err)
	})
}

// fillWide makes few large pages.
func fillWide(update func(func(w *forgeWriter))) {
	update(func(w *forgeWriter) {
		a := w.sub("a")
		for i := range 700 {
			a.put("deep/"+strconv.Itoa(1000+i), 150)
		}
		a.put("large", 20_000)
		w.sub("b").put("key", 10_000)
	})
}

// TestForge shows that the document tells where each sum is and what it covers: the
// sums of a whole store, taken away and made anew, are those that the engine wrote.
func TestForge(t *testing.T) {
	for _, st := range forgeStores() {
		t.Run(st.name, func(t *testing.T) {
			f, holds := newForger(st.file, st.psize), st.holds
			for n := uint64(0); n < uint64(len(f.file)/st.psize); n++ {
				if n == f.slot || n >= layout().numMetas {
					require.Equal(t, st.file[int(n)*st.psize:int(n+1)*st.psize], f.page(n), "page %d", n)
				}
			}
			blank := f.clone()
			blank.sumOf = func([]byte) uint64 { return 0 }
			blank.reseal()
			path := filepath.Join(scratchDir(t), "store")
			require.NoError(t, os.WriteFile(path, blank.file, 0o600))
			_, err := folio.Open(path, 0o600, nil)
			require.ErrorIs(t, err, folio.ErrCorrupt)
			require.NotEqual(t, f.file, blank.file)
			blank.sumOf = xxhash.Sum64
			blank.reseal()
			require.Equal(t, f.file, blank.file)

			require.NoError(t, os.WriteFile(path, blank.file, 0o600))
			db, err := folio.Open(path, 0o600, nil)
			require.NoError(t, err)
			defer db.Close()
			require.NoError(t, sound(db))
			st := db.Stats()
			require.Equal(t, st.Pages, st.FreePages+st.WaitingPages+layout().numMetas+uint64(len(f.live())))
			require.NoError(t, db.View(func(tx *folio.Tx) error {
				got, err := contentsOf(tx)
				require.Equal(t, holds.digest(), got.digest())
				return err
			}))
		})
	}
}
