package folio

// check.go is the walk that proves a whole store sound, and names every fault if it
// is not.
//
// What it proves, for the newest commit:
//   - every page reached has its own number, the sum and the count that its parent
//     says, the tree id of its bucket, a level one below its parent's, and a layout
//     that holds together;
//   - keys ascend strictly and lie between the separators above them; heads and
//     prefixes are what the keys call for;
//   - runs hold the key that their cell begins with; what is behind them is zero;
//   - every page below the high-water mark is reached once, or part of the freelog or of
//     the redo log, or free, and never two of these;
//   - the freelog read back from the file gives the free pages that are in use.

import (
	"bytes"
	"context"
	"fmt"
	"iter"
)

// Check walks the whole store as of its newest commit and yields every fault that it
// finds, each a *Fault that names the page and the rule (or an I/O error); nothing
// when the store is sound. When ctx is done it ends, and yields ctx's error last.
//
// Check reads every page, verifying its sum whether or not that was done before. It
// keeps the writer waiting only while it copies the list of free pages, but the
// snapshot that it walks is held like that of a read transaction. It waits for a write
// transaction that is open, so it must not be called inside one.
func (db *DB) Check(ctx context.Context) iter.Seq[error] {
	return func(yield func(error) bool) {
		c, err := db.newChecker(ctx)
		if err != nil {
			yield(fmt.Errorf("check: %w", err))
			return
		}
		defer db.endRead(c.s)
		c.yield = yield
		c.s.guard(c.run)
		if err := c.s.err; err != nil && !c.stopped {
			yield(err)
		}
	}
}

// checker is one check under way.
type checker struct {
	db      *DB
	s       *txState
	ctx     context.Context
	yield   func(error) bool
	stopped bool
	partial bool // some page could not be read: what is below it is not known
	pg      pager
	root    record
	free    bitmap // free and waiting pages
	chain   []pgno
	log     []extent // segments of the redo log
	early   []error  // found while the lists were copied
	reached bitmap
	trees   map[uint64]bool // bucket ids seen
	largest uint64          // the largest id given out
	newest  txid
}

// newChecker copies the free list and takes a snapshot of the newest commit.
func (db *DB) newChecker(ctx context.Context) (*checker, error) {
	if err := db.takeWriter(ctx); err != nil {
		return nil, err
	}
	defer func() { <-db.writer }()
	if db.residents.size() > 0 && db.failure() == nil {
		if err := db.writeNewest(); err != nil {
			return nil, err
		}
	}
	m := db.newest
	s := &txState{db: db}
	s.slot, s.slotHint = db.table.AcquireAt(0, uint64(m.txid))
	s.base, s.id = m.txid, m.txid
	s.start(db.fm.Load(), m.npages, m.root)
	c := &checker{
		db: db, s: s, ctx: ctx, pg: s.pg, root: m.root, newest: m.txid,
		largest: m.nextTree, trees: map[uint64]bool{}, chain: db.free.chainPages(), log: m.log.segments,
	}
	c.pg.verify = VerifyAlways
	c.free.grow(m.npages)
	c.reached.grow(m.npages)
	c.copyFree(db.free)
	c.early = append(c.early, db.checkFreelog(&m, &c.free)...)
	for _, slot := range db.unsettled {
		c.early = append(c.early, corrupt(pgno(slot), "the meta page is not whole: it is damaged, or a crash cut its commit short; an open for writing wipes it"))
	}
	return c, nil
}

func (c *checker) copyFree(f *freelist) {
	for e := range f.freeExtents() {
		c.free.setRange(e)
	}
	for w := range f.waitingExtents() {
		if !c.free.none(w.extent) {
			c.early = append(c.early, corrupt(w.start, "it is reusable and waits at once"))
			continue
		}
		c.free.setRange(w.extent)
	}
}

// checkFreelog reads the newest meta and its freelog from the file and compares
// what they say is free with what is in use.
func (db *DB) checkFreelog(m *meta, free *bitmap) []error {
	slot := -1
	for i, t := range db.slots {
		if t == m.txid {
			slot = i
		}
	}
	if slot < 0 { // the store failed before it was written
		return nil
	}
	p := make(page, db.psize)
	if _, err := db.readAt(p, int64(slot)<<db.shift); err != nil {
		return []error{err}
	}
	if !hasMagic(p) || !isWhole(p) {
		return []error{corrupt(pgno(slot), "damaged meta page")}
	}
	stored, err := decodeMeta(p, slot)
	if err != nil {
		return []error{err}
	}
	if stored.txid != m.txid || stored.root != m.root || stored.npages != m.npages {
		return []error{corrupt(pgno(slot), "the meta page differs from the newest commit %d", m.txid)}
	}
	pr := prover{db: db, psize: db.psize, durable: m.txid}
	fl, err := loadFreelist(stored.free, pgno(slot), stored.npages, stored.txid, db.psize, pr.readFreelog)
	if err != nil {
		return []error{err}
	}
	var onFile bitmap
	onFile.grow(m.npages)
	for e := range fl.freeExtents() {
		onFile.setRange(e)
	}
	for w := range fl.waitingExtents() {
		if onFile.none(w.extent) {
			onFile.setRange(w.extent)
		}
	}
	for n := pgno(numMetas); uint64(n) < m.npages; n++ {
		if onFile.test(n) != free.test(n) {
			return []error{corrupt(n, "free says the freelog: %t, says the list in use: %t", onFile.test(n), free.test(n))}
		}
	}
	return nil
}

// run does the walk.
func (c *checker) run() {
	for _, err := range c.early {
		c.report(err)
	}
	for _, n := range c.chain {
		c.reach(n, 1)
	}
	for _, e := range c.log {
		c.reach(e.start, int(e.npages))
	}
	c.checkTree(c.root)
	if !c.stopped {
		c.checkOwners()
	}
}

// report hands a fault to the caller.
func (c *checker) report(err error) {
	if !c.stopped && err != nil && !c.yield(err) {
		c.stopped = true
	}
}

func (c *checker) fault(n pgno, format string, args ...any) {
	c.report(corrupt(n, format, args...))
}

// done reports whether the walk is to end, and yields the context's error once.
func (c *checker) done() bool {
	if err := c.ctx.Err(); err != nil && !c.stopped {
		c.report(err)
		c.stopped = true
	}
	return c.stopped
}

// reach notes that npages pages from n on are in use; false where they were already.
func (c *checker) reach(n pgno, npages int) bool {
	e := extent{n, uint64(npages)}
	if !c.reached.none(e) {
		c.fault(n, "it is reached twice")
		return false
	}
	c.reached.setRange(e)
	return true
}

// checkTree checks a bucket's tree and all buckets in it.
func (c *checker) checkTree(rec record) {
	if rec.id > c.largest || c.trees[rec.id] {
		c.fault(rec.root.pgno, "bucket id %d is used twice or was never given out", rec.id)
	}
	c.trees[rec.id] = true
	if rec.root.pgno != 0 {
		c.checkPage(rec, rec.root, rec.level, nil, nil)
	}
}

// checkPage checks the page at r and what is below it. Its keys must be >= lo and
// < hi; nil stands for an open end.
func (c *checker) checkPage(rec record, r ref, level int, lo, hi []byte) {
	if c.done() {
		return
	}
	p, err := c.pg.load(r.pgno, r.sum)
	if err != nil {
		if e := (extent{r.pgno, 1}); r.pgno >= numMetas && r.pgno < c.pg.npages && c.reached.none(e) {
			c.reached.setRange(e) // damaged, but owned
		}
		c.partial = true
		c.report(err)
		return
	}
	if !c.reach(r.pgno, 1) {
		return
	}
	switch {
	case p.level() != level:
		c.partial = true
		c.fault(r.pgno, "level %d where %d should be", p.level(), level)
		return
	case p.tree() != rec.id:
		c.fault(r.pgno, "it belongs to bucket %d, and is in the tree of bucket %d", p.tree(), rec.id)
	case p.txid() > c.newest:
		c.fault(r.pgno, "it was written by commit %d, which is yet to come", p.txid())
	case p.totalPairs() != r.pairs():
		c.fault(r.pgno, "%d pairs below it, %d in the reference to it", p.totalPairs(), r.pairs())
	case p.flags()&^childFlags(r) != 0:
		c.fault(r.pgno, "flags %#x are missing in the reference to it", p.flags()&^childFlags(r))
	}
	if level == 0 {
		c.checkLeaf(rec, r.pgno, p, lo, hi)
	} else {
		c.checkBranch(rec, r.pgno, p, lo, hi)
	}
}

// inFences checks key against what came before it and the fences of its page.
func (c *checker) inFences(n pgno, slot int, key, last, lo, hi []byte) {
	switch {
	case last != nil && bytes.Compare(last, key) >= 0:
		c.fault(n, "slot %d: the key does not sort after the one before it", slot)
	case lo != nil && bytes.Compare(key, lo) < 0, hi != nil && bytes.Compare(key, hi) >= 0:
		c.fault(n, "slot %d: the key lies outside the separators above it", slot)
	}
}

func (c *checker) checkLeaf(rec record, n pgno, p page, lo, hi []byte) {
	count, plen := p.count(), p.prefixLen()
	var last, prefix []byte
	for i := range count {
		cell, ok := p.leafCellAt(count, i)
		if !ok {
			c.report(badPage(p))
			return
		}
		if i == 0 {
			prefix = cell.key[:plen]
		}
		key, err := c.cellKey(cell)
		if err != nil {
			c.report(err)
			continue
		}
		c.inFences(n, i, key, last, lo, hi)
		last = key
		if len(key) > MaxKeySize || !bytes.HasPrefix(cell.key, prefix) || leHead(p, i) != head(cell.key, plen) {
			c.fault(n, "slot %d: head or prefix does not fit the key", i)
		}
		if leafCellHeader+len(cell.key)+len(cell.value) > maxCellSize(len(p)) {
			c.fault(n, "slot %d: the cell is too large for a page", i)
		}
		c.checkNested(n, p, i, cell)
	}
}

// checkNested checks the bucket in a cell, if it is one.
func (c *checker) checkNested(n pgno, p page, i int, cell leafCell) {
	if cell.flags&cellLarge != 0 && p.flags()&flagRuns == 0 || cell.flags&cellBucket != 0 && p.flags()&flagBuckets == 0 {
		c.fault(n, "slot %d: the page's flags do not say what the cell holds", i)
	}
	raw, isBucket := bucketRecord(cell)
	if !isBucket {
		return
	}
	sub, ok := getRecord(raw)
	if !ok {
		c.fault(n, "slot %d: bad bucket record", i)
		return
	}
	c.checkTree(sub)
}

// cellKey returns a cell's whole key and checks its run.
func (c *checker) cellKey(cell leafCell) ([]byte, error) {
	if cell.flags&cellLarge == 0 {
		return cell.key, nil
	}
	return c.checkRun(cell.key, cell.value)
}

// checkRun checks the run that an encoded reference names and returns the key in it.
func (c *checker) checkRun(inline, encoded []byte) ([]byte, error) {
	r := getRunRef(encoded)
	run, err := c.pg.loadRun(r)
	if err != nil {
		c.partial = true
		return nil, err
	}
	if !c.reach(r.pgno, r.npages) {
		return inline, nil
	}
	key := run.runKey(r)
	if !bytes.HasPrefix(key, inline) {
		return nil, corrupt(r.pgno, "the run's key differs from the one in its cell")
	}
	if !isZero(run[headerSize+r.keyLen+r.valueLen:]) {
		return nil, corrupt(r.pgno, "bytes behind the run's value are not zero")
	}
	return key, nil
}

func (c *checker) checkBranch(rec record, n pgno, p page, lo, hi []byte) {
	count := p.count()
	seps := make([][]byte, count+1)
	seps[0], seps[count] = lo, hi
	prefix := p.branchPrefix()
	for i := 1; i < count; i++ {
		suffix, run, ok := p.branchCellAt(count, i)
		if !ok {
			c.report(badPage(p))
			return
		}
		sep := append(bytes.Clone(prefix), suffix...)
		if run != nil {
			whole, err := c.checkRun(sep, run)
			if err != nil {
				c.report(err)
				return
			}
			sep = whole
		}
		if leHead(p, i) != head(suffix, 0) {
			c.fault(n, "slot %d: the head does not fit the separator", i)
		}
		var last []byte
		if i > 1 {
			last = seps[i-1]
		}
		c.inFences(n, i, sep, last, lo, hi)
		seps[i] = sep
	}
	var flags uint16
	for i := range count {
		r := p.childAt(count, i)
		flags |= childFlags(r)
		c.checkPage(rec, r, p.level()-1, seps[i], seps[i+1])
	}
	if flags&^p.flags() != 0 {
		c.fault(n, "the page's flags %#x lack its children's %#x", p.flags(), flags)
	}
}

// checkOwners checks that every page is reached or free, and not both.
func (c *checker) checkOwners() {
	var leak extent
	endLeak := func() {
		if leak.npages > 0 && !c.partial {
			c.fault(leak.start, "%d pages from here on are neither reached nor free", leak.npages)
		}
		leak = extent{}
	}
	for n := pgno(numMetas); n < c.pg.npages && !c.stopped; n++ {
		isReached, isFree := c.reached.test(n), c.free.test(n)
		if isReached && isFree {
			c.fault(n, "it is free, and reached")
		}
		if isReached || isFree {
			endLeak()
			continue
		}
		if leak.npages == 0 {
			leak.start = n
		}
		leak.npages++
	}
	endLeak()
}
