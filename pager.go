package folio

// pager.go is where a transaction's pages come from: verified reads of the
// mapped file, and for a writer private dirty pages in layers.
//
// Invariants:
//   - a page of the file is handed out only after its sum has matched the sum in
//     the reference that led to it, and after its layout was validated;
//   - a committed page never changes: to change it, touch copies it;
//   - a dirty page has a virtual number until the commit gives it a place;
//   - a dirty page is changed in place only by the layer that owns it; a nested
//     transaction's layer copies it first, and keeps the old one to go back to;
//   - bytes of a dirty leaf's cells stay as they are until the transaction ends:
//     a buffer that is replaced is not used again before that.

import (
	"sync/atomic"

	"github.com/foliokv/folio/internal/seeded"
)

// virtual marks the number of a dirty page; the rest is its index in layers.pages.
const virtual pgno = 1 << 63

// VerifyMode says when a page's sum is checked.
type VerifyMode uint8

const (
	// VerifyFirstRead checks a page's sum when this process first reads it. The default.
	VerifyFirstRead VerifyMode = iota
	// VerifyAlways checks it at every read of the page: for media that are not trusted.
	VerifyAlways
	// VerifyOff checks number and layout of a page when it is first read, but no sums.
	VerifyOff
)

// pager reads the pages of one snapshot and holds a writer's changes to it.
type pager struct {
	data     []byte          // the mapping; at least npages pages of it are in the file
	verified []atomic.Uint32 // per page what fold made of the sum last proven
	shift    uint            // log2 of the page size
	psize    int
	npages   pgno // high-water mark: pages from here on do not exist
	verify   VerifyMode
	visits   int        // pages seen by the walk under way
	resident *residents // pages that are not in the file yet
	copies   *copies    // where pages are read rather than mapped
	w        *layers    // nil in a read transaction
}

// copies are verified pages that a replay read from the file. It needs some thousand pages
// from all over it: to map them takes many times as long as to copy them.
type copies struct {
	read   func(p page, n pgno) error
	pages  map[pgno]page
	nbytes int
}

// maxCopies is how many bytes of pages are copied. Who needs more comes by the neighbours
// of most pages too, and the kernel maps those along with them.
const maxCopies = 16 << 20

// loadCopy is load by a copy of page n; it returns nil where there are too many.
func (pg *pager) loadCopy(n pgno, sum uint64) (page, error) {
	c := pg.copies
	if p := c.pages[n]; p != nil && p.sum() == sum {
		return p, nil
	}
	if c.nbytes >= maxCopies {
		return nil, nil
	}
	p := getBuffer(pg.psize)
	err := c.read(p, n)
	if err == nil {
		err = pg.examine(p, n, sum)
	}
	if err != nil {
		putBuffer(p)
		return nil, err
	}
	c.pages[n] = p
	c.nbytes += pg.psize
	return p, nil
}

// copyPages has pg read pages with read, until end is called. Then nobody may have one.
func (pg *pager) copyPages(read func(p page, n pgno) error) (end func()) {
	c := &copies{read: read, pages: map[pgno]page{}}
	pg.copies = c
	return func() {
		pg.copies = nil
		for _, p := range c.pages {
			putBuffer(p)
		}
	}
}

// Words kept per page that are no page's sum.
const (
	unverified uint32 = iota
	insideRun         // it belongs to the run that begins at the next lower page of another word
)

// fold reduces a sum to the word kept per page.
func fold(sum uint64) uint32 {
	if f := uint32(sum); f > insideRun {
		return f
	}
	return insideRun + 1
}

// foldRun is fold for a run. It differs, so that what was proven as a run is not taken
// for a tree page whose layout was validated, or the other way round.
func foldRun(sum uint64) uint32 { return fold(sum ^ 0x9e3779b9) }

// load returns tree page n, which must have the given sum. It stays valid and unchanged
// until the transaction ends.
func (pg *pager) load(n pgno, sum uint64) (page, error) {
	if n >= pg.npages || n < numMetas {
		return pg.loadElsewhere(n)
	}
	off := n << pg.shift
	p := page(pg.data[off : off+pgno(pg.psize)])
	if pg.verified[n].Load() == fold(sum) && p.sum() == sum && pg.verify != VerifyAlways {
		return p, nil
	}
	return pg.loadFirst(p, n, sum)
}

// loadFirst is load for a page that is in memory, or was not verified before.
func (pg *pager) loadFirst(p page, n pgno, sum uint64) (page, error) {
	if r := pg.resident.at(n, sum); r != nil && r.kind() != kindRun {
		if pg.verify == VerifyAlways {
			return r, checkSum(r, n, sum)
		}
		return r, nil
	}
	if pg.copies != nil {
		if c, err := pg.loadCopy(n, sum); c != nil || err != nil {
			return c, err
		}
	}
	return p, pg.verifyPage(p, n, sum)
}

// inFile reports whether p, which was loaded, is a part of the mapped file.
func (pg *pager) inFile(p page) bool {
	return &p[0] == &pg.data[min(p.pgno()<<pg.shift, pgno(len(pg.data)-1))]
}

// loadElsewhere is load for what is no page of the file: a dirty page, or damage.
func (pg *pager) loadElsewhere(n pgno) (page, error) {
	if n&virtual != 0 {
		return pg.loadDirty(n)
	}
	return nil, corrupt(n, "reference outside the store's %d pages", pg.npages)
}

// verifyPage checks tree page n of the file against the reference that led to it.
func (pg *pager) verifyPage(p page, n pgno, sum uint64) error {
	err := pg.examine(p, n, sum)
	if err == nil {
		pg.verified[n].Store(fold(sum))
	}
	return err
}

// examine checks sum and layout of tree page n.
func (pg *pager) examine(p page, n pgno, sum uint64) error {
	if err := pg.verifySum(p, n, sum); err != nil {
		return err
	}
	if rule := p.validate(); rule != "" {
		return corrupt(n, "%s", rule)
	}
	return nil
}

// verifySum checks number and sum of a page or run of the file.
func (pg *pager) verifySum(p page, n pgno, sum uint64) error {
	if pg.verify == VerifyOff {
		if p.pgno() != n {
			return wrongNumber(p, n)
		}
		return nil
	}
	return checkSum(p, n, sum)
}

func wrongNumber(p page, n pgno) error { return corrupt(n, "it says to be page %d", p.pgno()) }

// checkSum checks that p is page n with the given sum.
func checkSum(p page, n pgno, sum uint64) error {
	if p.pgno() != n {
		return wrongNumber(p, n)
	}
	if p.sum() != sum {
		return corrupt(n, "sum %016x in the page, %016x in the reference to it", p.sum(), sum)
	}
	if got := p.computeSum(); got != sum {
		return corrupt(n, "sum %016x of the content, %016x in the page", got, sum)
	}
	return nil
}

// loadRun returns the run that r refers to.
func (pg *pager) loadRun(r runRef) (page, error) {
	if r.pgno&virtual != 0 {
		return pg.loadDirty(r.pgno)
	}
	n := pgno(r.npages)
	if r.pgno < numMetas || r.pgno >= pg.npages || n > pg.npages-r.pgno {
		return nil, corrupt(r.pgno, "run of %d pages outside the store's %d pages", n, pg.npages)
	}
	if r.npages != runPages(pg.psize, r.keyLen, r.valueLen) {
		return nil, corrupt(r.pgno, "run of %d pages for a key of %d and a value of %d bytes", n, r.keyLen, r.valueLen)
	}
	p := page(pg.data[r.pgno<<pg.shift : (r.pgno+n)<<pg.shift])
	known := pg.verified[r.pgno].Load() == foldRun(r.sum) && p.sum() == r.sum
	inMemory := false
	if !known {
		if m := pg.resident.at(r.pgno, r.sum); m != nil && len(m) == len(p) {
			p, inMemory = m, true
		}
	}
	// The lengths are compared each time: another reference, with the same sum, may lie.
	if rule := validateRun(p, r); rule != "" {
		return nil, corrupt(r.pgno, "%s", rule)
	}
	if pg.verify != VerifyAlways && (known || inMemory) {
		return p, nil
	}
	if err := pg.verifySum(p, r.pgno, r.sum); err != nil {
		return nil, err
	}
	if inMemory {
		return p, nil
	}
	for i := r.pgno + 1; i < r.pgno+n; i++ {
		pg.verified[i].Store(insideRun)
	}
	pg.verified[r.pgno].Store(foldRun(r.sum))
	return p, nil
}

// validateRun checks a run's header against the reference to it.
func validateRun(p page, r runRef) string {
	switch {
	case p.kind() != kindRun:
		return "kind " + p.kind().String() + " where a run should be"
	case p.npages() != r.npages || p.lower() != r.keyLen || p.upper() != r.valueLen:
		return "run's lengths differ from those in the reference to it"
	case p.txid() != r.txid:
		return "run's commit differs from that in the reference to it"
	}
	return ""
}

// --- dirty pages

// dirtyPage is a page or run that the transaction made.
type dirtyPage struct {
	buf    page // nil where it was spilled, or is gone
	place  pgno // where it was spilled to, or 0
	sum    uint64
	npages int
	flags  uint16 // the page's, where it was spilled
	layer  int    // the nested transaction that owns it
	recent bool   // used since the spill's hand came by
	freed  int    // which of layers.freed, from 1 on, is the page that it is a copy of; or 0
}

func (d *dirtyPage) live() bool { return d.buf != nil || d.place != 0 }

// spiller writes dirty pages early, when memory runs short.
type spiller interface {
	// spill gives p a place, writes it there and returns place and sum.
	spill(p page, npages int) (pgno, uint64, error)
	// unspill gives a place back that was never committed.
	unspill(e extent)
}

// undo is how a dirty page looked before a layer changed it.
type undo struct {
	index int
	old   dirtyPage
}

// frame is what it takes to undo one layer.
type frame struct {
	undos    []undo
	npages   int // len(layers.pages) when it began
	nfreed   int
	nextTree uint64
	trees    []treeUndo
	ntrees   int
	nhooks   int
	redo     redoMark
}

// layers holds a write transaction's dirty pages.
type layers struct {
	pages    []dirtyPage
	freed    []freedExtent
	frames   []frame  // one per nested transaction that is open
	retired  []page   // buffers that may have been lent: reused after the transaction
	spent    []extent // places of spilled pages that are gone: slices of them may have been lent
	nbytes   int64    // bytes of the dirty pages in memory
	limit    int64    // spill beyond this
	enough   int64    // and beyond this: the last scan found no more to spill
	hand     int      // the spill's clock hand
	psize    int
	spiller  spiller
	nextTree uint64  // the largest bucket id given out
	changed  []*tree // open buckets whose cells are behind
	path     path    // scratch of the tree's writes
	scratch  scratch
}

// maxRetired bounds the buffers kept for reuse; more are left to the collector.
const maxRetired = 4096

func (w *layers) layer() int { return len(w.frames) }

// add makes p, of npages pages, a dirty page and returns its number.
func (w *layers) add(p page, npages int) pgno {
	w.pages = append(w.pages, dirtyPage{buf: p, npages: npages, layer: w.layer(), recent: true})
	w.nbytes += int64(len(p))
	return virtual | pgno(len(w.pages)-1)
}

// loadDirty returns a dirty page, from where it was spilled to if need be.
func (pg *pager) loadDirty(n pgno) (page, error) {
	d := &pg.w.pages[n&^virtual]
	d.recent = true
	if d.buf != nil {
		return d.buf, nil
	}
	if !d.live() {
		broken("page %d: a dropped dirty page is still referred to", n&^virtual)
	}
	p := page(pg.data[d.place<<pg.shift : (d.place+pgno(d.npages))<<pg.shift])
	return p, checkSum(p, d.place, d.sum)
}

// touch returns a version of page n, now p, that the current layer may change.
func (pg *pager) touch(n pgno, p page) (pgno, page) {
	w := pg.w
	if n&virtual == 0 {
		buf := getBuffer(pg.psize)
		copy(buf, p)
		w.freed = append(w.freed, freedExtent{extent: extent{n, 1}, A: p.txid()})
		copied := w.add(buf, 1)
		w.pages[copied&^virtual].freed = len(w.freed)
		return copied, buf
	}
	d := &w.pages[n&^virtual]
	d.recent = true
	if d.buf != nil && d.layer == w.layer() {
		return n, d.buf
	}
	buf := getBuffer(pg.psize)
	copy(buf, p)
	pg.swap(n, buf)
	return n, buf
}

// swap puts buf in the place of dirty page n's content. The old content is kept
// for slices that were lent, and for a layer below.
func (pg *pager) swap(n pgno, buf page) {
	w := pg.w
	index := int(n &^ virtual)
	old := w.pages[index]
	w.forget(index)
	w.pages[index] = dirtyPage{buf: buf, npages: old.npages, layer: w.layer(), recent: true, freed: old.freed}
	w.nbytes += int64(len(buf))
}

// drop removes dirty page n, which nothing refers to any more.
func (w *layers) drop(n pgno) {
	index := int(n &^ virtual)
	w.forget(index)
	w.pages[index] = dirtyPage{layer: w.layer()}
}

// forget lets go of what pages[index] holds, or keeps it for the layer below.
func (w *layers) forget(index int) {
	old := w.pages[index]
	if old.layer == w.layer() {
		w.discard(old)
		return
	}
	top := &w.frames[len(w.frames)-1]
	top.undos = append(top.undos, undo{index, old})
}

// discard gives up a dirty page that can't come back.
func (w *layers) discard(d dirtyPage) {
	if d.place != 0 {
		w.spent = append(w.spent, extent{d.place, uint64(d.npages)})
	}
	if d.buf != nil {
		w.nbytes -= int64(len(d.buf))
		w.retire(d.buf)
	}
}

// unspill gives back the places of spilled pages that are gone. They must not be
// written again while a slice of them can be in use.
func (w *layers) unspill() {
	for _, e := range w.spent {
		w.spiller.unspill(e)
	}
	w.spent = w.spent[:0]
}

// retire keeps a buffer, parts of which may have been lent, for after the transaction.
func (w *layers) retire(p page) {
	if len(p) == w.psize && len(w.retired) < maxRetired {
		w.retired = append(w.retired, p)
	}
}

// free notes that the committed or dirty pages at n are no longer reached.
func (w *layers) free(n pgno, npages int, a txid) {
	if n&virtual != 0 {
		w.drop(n)
		return
	}
	w.freed = append(w.freed, freedExtent{extent: extent{n, uint64(npages)}, A: a})
}

// freeRun notes that the run at r is no longer reached.
func (w *layers) freeRun(r runRef) {
	w.free(r.pgno, r.npages, r.txid)
	if r.pgno&virtual == 0 {
		w.freed[len(w.freed)-1].run = true
	}
}

// recycle gives up the buffers that were kept for slices: no transaction has any.
func (w *layers) recycle() {
	for _, p := range w.retired {
		putBuffer(p)
	}
	clear(w.retired)
	w.retired = w.retired[:0]
}

// push opens a layer over the current one.
func (w *layers) push(f frame) {
	f.npages, f.nfreed, f.nextTree = len(w.pages), len(w.freed), w.nextTree
	if n := len(w.frames); n < cap(w.frames) { // the lists of one that has ended
		ended := &w.frames[:n+1][n]
		f.undos, f.trees = ended.undos[:0], ended.trees[:0]
	}
	w.frames = append(w.frames, f)
}

// merge makes the top layer's changes part of the one below, by swapping pointers.
func (w *layers) merge() frame {
	top := w.frames[len(w.frames)-1]
	w.frames = w.frames[:len(w.frames)-1]
	below := w.layer()
	for _, u := range top.undos {
		w.pages[u.index].layer = below
		if u.old.layer == below {
			w.discard(u.old)
			continue
		}
		f := &w.frames[below-1]
		f.undos = append(f.undos, u)
	}
	for i := top.npages; i < len(w.pages); i++ {
		w.pages[i].layer = below
	}
	return top
}

// undo takes the top layer's changes back.
func (w *layers) undo() frame {
	top := w.frames[len(w.frames)-1]
	for _, u := range top.undos {
		w.discard(w.pages[u.index])
		w.pages[u.index] = u.old
	}
	for _, d := range w.pages[top.npages:] {
		w.discard(d)
	}
	w.frames = w.frames[:len(w.frames)-1]
	w.pages = w.pages[:top.npages]
	if !seeded.Has(seeded.UndoKeepsFreed) {
		w.freed = w.freed[:top.nfreed]
	}
	w.nextTree = top.nextTree
	return top
}

// reset ends the transaction: nothing that it lent may be used from here on.
func (w *layers) reset() {
	for i := range w.pages {
		w.discard(w.pages[i])
	}
	clear(w.pages)
	w.unspill()
	w.recycle()
	w.pages, w.freed = w.pages[:0], w.freed[:0]
	clear(w.changed[:cap(w.changed)])
	w.changed = w.changed[:0]
	w.frames, w.nbytes, w.enough, w.hand = nil, 0, 0, 0
	w.path.reset()
	w.scratch.reset()
}

// spillSome writes dirty pages early until memory is below the limit. Only pages
// that refer to no dirty page can go: runs, and leaves that hold
// neither a dirty run nor a bucket. The hand passes over pages used since it last came by.
func (pg *pager) spillSome() error {
	w := pg.w
	if w.nbytes <= max(w.limit, w.enough) {
		return nil
	}
	target := w.limit - w.limit/8
	for step := 0; step < 2*len(w.pages) && w.nbytes > target; step++ {
		if w.hand >= len(w.pages) {
			w.hand = 0
		}
		d := &w.pages[w.hand]
		w.hand++
		if d.buf == nil || d.layer != w.layer() {
			continue
		}
		if d.recent {
			d.recent = false
			continue
		}
		if !pg.canSpill(d.buf) {
			continue
		}
		if err := pg.spill(d); err != nil {
			return err
		}
	}
	w.enough = 0
	if w.nbytes > w.limit {
		w.enough = w.nbytes + w.limit/8 // a scan for each change would be quadratic
	}
	return nil
}

func (pg *pager) spill(d *dirtyPage) error {
	place, sum, err := pg.w.spiller.spill(d.buf, d.npages)
	if err != nil {
		return err
	}
	pg.w.nbytes -= int64(len(d.buf))
	d.flags = d.buf.flags()
	d.buf, d.place, d.sum = nil, place, sum // the collector frees it unless it is lent
	return nil
}

// canSpill reports whether nothing in p waits for the commit.
func (pg *pager) canSpill(p page) bool {
	if p.kind() == kindRun {
		return true
	}
	if p.kind() != kindLeaf || p.flags()&flagBuckets != 0 {
		return false
	}
	return p.flags()&flagRuns == 0 || !hasDirtyRuns(p)
}

// hasDirtyRuns reports whether a leaf refers to a run that waits for its place.
func hasDirtyRuns(p page) bool {
	n := p.count()
	for i := range n {
		c, _ := p.leafCellAt(n, i)
		if c.flags&cellLarge != 0 && getRunRef(c.value).pgno&virtual != 0 {
			return true
		}
	}
	return false
}
