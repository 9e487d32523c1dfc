package folio

// commit.go is how a transaction becomes the newest commit: places for its pages,
// the order of writes, what is synced when, and what happens where that fails.
//
// The order, under the writer lock:
//  1. open buckets' records go to their cells;
//  2. pages that no pin needs become reusable; each dirty page gets a place, which is that
//     of the page it was copied from where only memory has that;
//  3. how it becomes durable is chosen: by a record in the redo log, directly by a sync
//     of everything, or not yet;
//  4. children first, each page gets its number, commit and sum, and its parent the
//     reference to it (before 3 where the record names runs, whose sums it needs);
//  5. the freelog's record is worked out, and the file grown, so that a full disk
//     shows before anything refers to the new pages;
//  6. if it is logged, its record, and its pages stay in memory; else the pages, its own
//     and those that commits before it keep, and then the meta, into the slot that is
//     none of the durable commit's, the target's and the newest's;
//  7. one sync: of the log, without the writer lock, or of everything;
//  8. publish, acknowledge.
//
// One commit may be that of several transactions: see group.go.
//
// Invariants:
//   - up to the write of the record or the meta a failure leaves file and memory at the
//     commit before;
//   - a meta that can be seen has its record in the log, if it has one at all;
//   - a commit is logged only if every commit since the durable one is;
//   - the number of a commit that failed after it wrote a page or a record is never used
//     again;
//   - after a failed sync nothing is written any more.

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/foliokv/folio/internal/seeded"
	"github.com/foliokv/folio/internal/shm"
)

// placement is where one dirty page goes.
type placement struct {
	n pgno
	p page
}

// committer is one commit under way.
type committer struct {
	s         *txState
	db        *DB
	hwm       pgno     // high-water mark, growing
	ndirty    uint64   // pages in memory that it has places for
	allocated []extent // all places taken, to be given back should it fail
	singles   []extent // places for pages that are no runs
	writes    []placement
	truncated extent // reusable pages at the end that it gives back
	meta      meta
	freelog   freelogCommit

	route      route
	settles    bool      // it ends a recovery: the log begins anew
	replayed   *foundLog // what it does again: it is a recovery's
	runs       []extent  // runs that its record names
	recordAt   logPlace
	freedLog   []freedExtent // segments that it gives up
	newSegment extent        // added to the log; where it is logged, a checkpoint makes it ready
	wrote      bool          // its record, or a part of it, may be in the log
	recorded   bool          // all of it is
	wroteMeta  bool          // its meta, or a part of it, may be in slot
	slot       int
	ahead      chan struct{} // closed when the record is synced, if that was begun ahead
	pins       []txid        // commits that can still be read, or are to be synced
	oldestRead txid          // of the former
	inPlace    []pgno        // places of pages in memory that its own take
	freed      []freedExtent // what it lets go of
	kept       bool          // its pages stay in memory, and it writes no meta
}

// route is how a commit becomes durable.
type route uint8

const (
	routeNone    route = iota // not by itself
	routeDirect               // everything is synced
	routeLogged               // its record is
	routeResumed              // its records are in the log and synced: it is what was replayed of them
)

// commit makes the transaction durable as the mode has it, and ends it.
func (tx *Tx) commit() error {
	_, err := tx.commitAs(false)
	return err
}

// commitAsync commits without a sync.
func (tx *Tx) commitAsync() (wait func() error, err error) {
	db := tx.s.db
	t, err := tx.commitAs(true)
	if err != nil {
		return nil, err
	}
	return func() error { return db.waitDurable(t) }, nil
}

// commitAs commits, with a sync if the mode has it and the commit is not async, and ends
// the transaction. It returns the number of an async commit.
func (tx *Tx) commitAs(async bool) (t txid, err error) {
	s := tx.s
	db := s.db
	sync := db.opts.Sync == SyncFull && !async
	if err := tx.flush(); err != nil {
		tx.end()
		return 0, fmt.Errorf("commit: %w", err)
	}
	tx.s = nil
	if tx.member {
		s.mergeNested()
	}
	s.w.recycle()
	var hooks []func() // that wait for no sync
	if !sync && !async {
		hooks, s.hooks = s.hooks, nil
	}
	if sync {
		db.noteLength(time.Since(s.began))
	}
	if sync && db.mayJoin(s) {
		err = db.joinGroup()
	} else {
		t, err = db.commitNow(s, sync)
	}
	if err != nil {
		return 0, fmt.Errorf("commit: %w", err)
	}
	for _, fn := range hooks {
		fn()
	}
	db.runHooks()
	db.reportSlowReader()
	return t, nil
}

// flush brings the cells of all open buckets up to date.
func (tx *Tx) flush() error {
	s, done := tx.s, false
	defer func() {
		if !done {
			tx.s = nil
		}
		s.db.abandonUnless(done)
	}()
	if s.err == nil {
		s.guard(func() { s.flush() })
	}
	done = true
	return s.err
}

// commitNow seals the transaction, with the group that it may be part of, and gives up the
// writer lock; then it syncs, if that is wanted.
func (db *DB) commitNow(s *txState, sync bool) (t txid, err error) {
	g := db.group
	if g != nil {
		db.mu.Lock()
		g.nmembers++
		db.mu.Unlock()
	}
	t, err = db.seal(s, sync || g != nil, !sync)
	db.unlockWriter()
	if sync {
		return t, db.endCommit(g, t, err)
	}
	if g != nil {
		g.wake()
	}
	return t, err
}

// abandonUnless is deferred around the work of a commit. Where that was not done but
// panicked, Folio broke a rule of its own, and what it knows of its free space can't be
// trusted: nothing is written any more, and nobody waits for ever.
func (db *DB) abandonUnless(done bool) {
	if done {
		return
	}
	err := db.poison(ErrDatabaseReadOnly, errors.New("a commit panicked"))
	db.writeTx.slot.Release()
	db.writeTx = nil
	if g := db.group; g != nil {
		db.mu.Lock()
		db.group = nil
		db.mu.Unlock()
		g.err = err
		close(g.sealed)
		close(g.done)
	}
	<-db.writer
}

// commit does the work of a commit, after flush. It touches private buffers only, not
// the map.
func (s *txState) commit(sync bool) error {
	if s.isUnchanged() {
		s.id = s.base // an earlier CommitAsync is part of what was seen here
		return nil
	}
	if err := s.db.failure(); err != nil {
		return err
	}
	c := &committer{s: s, db: s.db, hwm: s.pg.npages}
	return c.run(sync, c.write)
}

// run makes the commit the newest, which write brings to the file, and syncs and publishes
// it as told.
func (c *committer) run(sync bool, write func(sync bool) error) error {
	at, err := c.place(sync, write)
	if err != nil {
		return err
	}
	return c.finish(at, sync)
}

// place makes the commit the newest. No checkpoint takes its target meanwhile.
func (c *committer) place(sync bool, write func(sync bool) error) (at syncPoint, err error) {
	c.awaitRoom()
	c.db.placing.Lock()
	defer c.db.placing.Unlock()
	c.writes = c.db.placements
	defer c.reuseWrites()
	c.release()
	if err := write(sync); err != nil {
		err = c.wipe(err)
		c.undo()
		return at, err
	}
	c.settle()
	return c.becomeNewest(), nil
}

// reuseWrites leaves the list of the pages to the next commit, but not the pages.
func (c *committer) reuseWrites() {
	const keep = 64 << 10
	c.db.placements = nil
	if cap(c.writes) <= keep {
		clear(c.writes)
		c.db.placements = c.writes[:0]
	}
}

// isUnchanged reports whether there is nothing to commit.
func (s *txState) isUnchanged() bool {
	m := &s.db.newest
	return s.root.rec == m.root && s.w.nextTree == m.nextTree && len(s.w.freed) == 0
}

// write brings all pages and the meta to the file. Where it fails, undo follows.
func (c *committer) write(sync bool) error {
	s, db := c.s, c.db
	s.w.unspill()
	// Where most of the store is free, new pages go to its start, so that its end can be
	// given back. Half is what a checkpoint frees of a store that is changed all over.
	// The log, which may well be most of a small store, counts for neither.
	content := uint64(c.hwm) - uint64(db.redo.nbytes(db.psize))>>db.shift
	db.free.lowFirst = db.free.freePages() > content/3*2
	if err := c.reserveWithRoom(); err != nil {
		return err
	}
	c.meta = db.newest
	c.meta.txid, c.meta.clean = s.id, false
	c.meta.durable = db.durableTxid()
	c.meta.root = s.root.rec
	c.meta.nextTree = s.w.nextTree
	if c.replayed == nil || c.settles {
		c.cutTail()
	}
	whole := len(s.redo.runs) == 0 // the record waits for no sums
	if whole {
		c.chooseRoute(sync)
		if err := c.syncAhead(sync); err != nil {
			return err
		}
	}
	if n := c.meta.root.root.pgno; n&virtual != 0 {
		r, flags := c.resolve(n)
		c.meta.root.root = ref{r.pgno, r.sum, countField(s.root.rec.root.pairs(), flags)}
	}
	if !whole {
		c.chooseRoute(sync)
	}
	if err := c.planFreelog(); err != nil {
		return err
	}
	return c.writeOut(sync)
}

// writeOut grows the file, writes the pages, and then the record and the meta that make
// them a commit.
func (c *committer) writeOut(sync bool) error {
	db := c.db
	if err := db.growFile(c.hwm); err != nil {
		return err
	}
	db.burned = max(db.burned, c.s.id)
	if c.kept = c.keeps(); c.kept {
		if err := c.writePages(c.namedRuns()); err != nil {
			return err
		}
		return c.writeRecord()
	}
	if err := db.flushResidents(c.inPlace); err != nil {
		return err
	}
	if seeded.Has(seeded.MetaFirst) {
		return errors.Join(c.writeMeta(), c.writePages(c.writes))
	}
	if err := c.writePages(c.writes); err != nil {
		return err
	}
	if err := errors.Join(db.zeroSegment(c.newSegment, nil), db.zeroComing()); err != nil {
		return err
	}
	if sync && db.opts.TwoPhase && len(c.writes) > 0 && !seeded.Has(seeded.OnePhase) {
		if err := db.fileSync(); err != nil {
			return err
		}
	}
	if err := c.writeRecord(); err != nil {
		return err
	}
	return c.writeMeta()
}

// writeMeta writes the commit's meta.
func (c *committer) writeMeta() (err error) {
	c.wroteMeta = true
	c.slot, err = c.db.writeMetaOf(&c.meta)
	return err
}

// namedRuns returns the pages of the runs that the record names: they are synced with it.
func (c *committer) namedRuns() (named []placement) {
	if len(c.runs) == 0 {
		return nil
	}
	left := c.writes[:0]
	for _, w := range c.writes {
		if slices.ContainsFunc(c.runs, func(e extent) bool { return e.start == w.n }) {
			named = append(named, w)
		} else {
			left = append(left, w)
		}
	}
	clear(c.writes[len(left):])
	c.writes = left
	return named
}

// pins returns, ascending, every commit whose pages must stay: those that are or can be
// read, the durable one, and a sync's target; and the oldest of those to be read.
func (db *DB) pins() (pins []txid, oldestRead txid) {
	if seeded.Has(seeded.NothingPinned) {
		return []txid{db.newest.txid}, db.newest.txid
	}
	db.mu.Lock()
	durable, target := db.durable.txid, db.target
	published, place := db.table.Published(), db.at.place
	db.mu.Unlock()
	pins = append(make([]txid, 0, 8+place-published), db.newest.txid)
	for at := published; at < place; at++ {
		pins = append(pins, txid(db.table.TxidAt(at)))
	}
	for _, r := range db.table.Readers(nil) {
		if !seeded.Has(seeded.ReadersUnpinned) {
			pins = append(pins, txid(r.Txid))
		}
	}
	oldestRead = slices.Min(pins)
	if !seeded.Has(seeded.DurableUnpinned) {
		pins = append(pins, durable)
	}
	if target != 0 && !seeded.Has(seeded.TargetUnpinned) {
		pins = append(pins, target)
	}
	slices.Sort(pins)
	return slices.Compact(pins), oldestRead
}

// npages returns how many pages the commit has to write.
func (c *committer) npages() (n uint64) {
	for _, w := range c.writes {
		n += uint64(w.p.npages())
	}
	return n
}

// --- places

// release makes pages reusable that no pin needs.
func (c *committer) release() {
	c.pins, c.oldestRead = c.db.pins()
	c.db.free.release(c.pins)
}

// reserveWithRoom is reserve, and makes sure that the file has room for it. Where it has
// none, pages that wait for a checkpoint alone may do.
func (c *committer) reserveWithRoom() error {
	db, hwm := c.db, c.hwm
	if err := c.reserve(); err != nil {
		return err
	}
	err := db.growFile(c.hwm)
	if err == nil {
		return nil
	}
	c.unreserve()
	if err := c.makeRoom(err); err != nil {
		return err
	}
	c.hwm = hwm
	c.release()
	if err := c.reserve(); err != nil {
		return err
	}
	return db.growFile(c.hwm)
}

// makeRoom is the store's, which may have to take a target.
func (c *committer) makeRoom(err error) error {
	c.db.placing.Unlock()
	defer c.db.placing.Lock()
	return c.db.makeRoom(err)
}

// makeRoom makes a checkpoint where err says that the file can't grow, and pages wait for
// one alone. Else, or where that fails, it returns an error.
func (db *DB) makeRoom(err error) error {
	if !isNoRoom(err) && !errors.Is(err, ErrMaxSize) || db.free.heldBy(db.durableTxid()) == 0 {
		return err
	}
	if cerr := db.checkpoint(CheckpointSpace); cerr != nil {
		return errors.Join(err, cerr)
	}
	return nil
}

// unreserve takes back what reserve did. Spilled pages, which come first, keep their places.
func (c *committer) unreserve() {
	nspilled := 0
	for i := range c.s.w.pages {
		d := &c.s.w.pages[i]
		switch {
		case d.place == 0:
		case d.buf == nil:
			nspilled++
		default:
			d.place = 0
		}
	}
	c.giveBack(c.allocated[nspilled:], pgno(c.db.newest.npages))
	c.allocated = c.allocated[:nspilled]
	c.singles, c.inPlace = nil, nil
}

// giveBack makes places reusable again, those below end.
func (c *committer) giveBack(places []extent, end pgno) {
	for _, e := range places {
		if e = e.clip(0, end); e.npages > 0 {
			c.db.free.giveBack(e)
		}
	}
}

// reserve finds places for all dirty pages that have none: one run if there is one.
func (c *committer) reserve() error {
	c.allocated, c.freed = nil, slices.Clone(c.s.w.freed)
	c.changeInPlace()
	total, nruns := uint64(0), 0
	for i := range c.s.w.pages {
		d := &c.s.w.pages[i]
		if d.place != 0 && d.buf == nil {
			c.allocated = append(c.allocated, extent{d.place, uint64(d.npages)})
		} else if d.buf != nil && d.place == 0 {
			total += uint64(d.npages)
			nruns += d.npages - 1
		}
	}
	c.ndirty = total + uint64(len(c.inPlace))
	if nruns == 0 {
		c.singles = c.take(total)
		return nil
	}
	return c.reserveRuns(total)
}

// changeInPlace has dirty pages take the places of those that they are copies of, where
// nothing but memory and the log has these: neither the durable commit nor a target that a
// checkpoint is about to write shows them. Placing keeps it from taking another meanwhile.
// So a place is allocated, freed and written once, however often its page is changed
// between two checkpoints. Where the file is to shrink, pages move to its start.
func (c *committer) changeInPlace() {
	db, rs := c.db, &c.db.residents
	if db.free.lowFirst {
		return
	}
	db.mu.Lock()
	limit := max(db.durable.txid, db.target)
	if seeded.Has(seeded.TargetChanged) {
		limit = db.durable.txid
	}
	db.mu.Unlock()
	rs.mu.Lock()
	defer rs.mu.Unlock()
	c.inPlace = make([]pgno, 0, len(c.freed))
	for i := range c.s.w.pages {
		d := &c.s.w.pages[i]
		if d.freed == 0 || d.buf == nil {
			continue
		}
		from := &c.freed[d.freed-1]
		if r := rs.live(from.start); r != nil && r.made > limit {
			d.place = from.start
			c.inPlace = append(c.inPlace, d.place)
			from.npages = 0
		}
	}
	c.freed = slices.DeleteFunc(c.freed, func(f freedExtent) bool { return f.npages == 0 })
}

// reserveRuns places runs, which need consecutive pages, and then the rest.
func (c *committer) reserveRuns(total uint64) error {
	free := c.db.free
	start, adjacent := free.allocateRun(total, 0)
	if adjacent {
		c.allocated = append(c.allocated, extent{start, total})
	}
	for i := range c.s.w.pages {
		d := &c.s.w.pages[i]
		if d.buf == nil || d.npages == 1 {
			continue
		}
		n := uint64(d.npages)
		switch {
		case adjacent:
			d.place = start
			start += pgno(n)
		default:
			p, ok := free.allocateRun(n, 0)
			if !ok {
				p = c.grow(n)
			}
			d.place = p
			c.allocated = append(c.allocated, extent{p, n})
		}
		total -= n
	}
	if adjacent {
		c.singles = []extent{{start, total}}
		return nil
	}
	c.singles = c.take(total)
	return nil
}

// take allocates n pages, as few runs next to each other, and grows the store by
// what is not to be had.
func (c *committer) take(n uint64) []extent {
	got := c.db.free.allocate(n)
	for _, e := range got {
		n -= e.npages
	}
	if n > 0 {
		got = append(got, extent{c.grow(n), n})
	}
	c.allocated = append(c.allocated, got...)
	return slices.Clone(got)
}

// grow moves the high-water mark and returns the first new page.
func (c *committer) grow(n uint64) pgno {
	p := c.hwm
	c.hwm += pgno(n)
	return p
}

// nextSingle returns the next place for a page.
func (c *committer) nextSingle() pgno {
	e := &c.singles[0]
	p := e.start
	e.start++
	e.npages--
	if e.npages == 0 {
		c.singles = c.singles[1:]
	}
	return p
}

// resolve gives dirty page n and all below it their numbers and sums, children first,
// and returns the reference to it and its flags.
func (c *committer) resolve(n pgno) (runRef, uint16) {
	d := &c.s.w.pages[n&^virtual]
	if d.buf == nil { // spilled: written already
		return runRef{pgno: d.place, sum: d.sum, txid: c.s.id}, d.flags
	}
	p := d.buf
	switch p.kind() {
	case kindBranch:
		c.resolveBranch(p)
	case kindLeaf:
		p = c.tidy(d)
		c.resolveLeaf(p)
	}
	if d.place == 0 {
		d.place = c.nextSingle()
	}
	d.sum = p.seal(d.place, c.s.id)
	c.writes = append(c.writes, placement{d.place, p})
	return runRef{pgno: d.place, sum: d.sum, txid: c.s.id}, p.flags()
}

// tidy puts a leaf's cells in the order of their keys, where they are not, into a new
// buffer. It costs half a microsecond, once, and each scan of the page gains: memory is
// read forward.
func (c *committer) tidy(d *dirtyPage) page {
	p := d.buf
	if p.isTidy() {
		return p
	}
	raws, err := c.s.root.collect(p)
	if err != nil {
		broken("a dirty leaf is not whole: %v", err)
	}
	to := getBuffer(len(p))
	copy(to[:headerSize], p)
	to.buildLeaf(raws)
	c.s.w.retire(p)
	d.buf = to
	return to
}

// resolveBranch fills in the references of a branch to dirty children and runs.
func (c *committer) resolveBranch(p page) {
	n := p.count()
	var flags uint16
	for i := range n {
		r := p.childAt(n, i)
		if r.pgno&virtual != 0 {
			to, f := c.resolve(r.pgno)
			r = ref{to.pgno, to.sum, countField(r.pairs(), f)}
			p.setChild(n, i, r)
		}
		flags |= childFlags(r)
	}
	if p.flags()&flagRuns != 0 {
		for i := 1; i < n; i++ {
			if _, run, _ := p.branchCellAt(n, i); run != nil {
				flags |= flagRuns
				c.resolveRun(run)
			}
		}
	}
	p.setFlags(flags)
}

// resolveLeaf fills in the references of a leaf to dirty runs and buckets' roots.
func (c *committer) resolveLeaf(p page) {
	if p.flags() == 0 {
		return
	}
	n := p.count()
	for i := range n {
		cell, _ := p.leafCellAt(n, i)
		if cell.flags&cellLarge != 0 {
			c.resolveRun(cell.value)
		}
		raw, isBucket := bucketRecord(cell)
		if !isBucket {
			continue
		}
		rec, _ := getRecord(raw)
		if rec.root.pgno&virtual != 0 {
			to, f := c.resolve(rec.root.pgno)
			rec.root = ref{to.pgno, to.sum, countField(rec.root.pairs(), f)}
			putRecord(raw, rec)
		}
	}
}

// resolveRun fills in an encoded reference to a run, if that is dirty.
func (c *committer) resolveRun(encoded []byte) {
	r := getRunRef(encoded)
	if r.pgno&virtual == 0 {
		return
	}
	to, _ := c.resolve(r.pgno)
	r.pgno, r.sum, r.txid = to.pgno, to.sum, to.txid
	putRunRef(encoded, r)
}

// --- free space

// Pages at the end are given back when they are many: a file that breathes a little
// keeps its size.
const (
	truncateMinPages = 256
	truncateFraction = 4
)

// cutTail lowers the high-water mark where many pages at the end are reusable.
func (c *committer) cutTail() {
	free := c.db.free
	if tail := free.tail(c.hwm); tail >= truncateMinPages && tail > uint64(c.hwm)/truncateFraction {
		c.hwm -= pgno(tail)
		c.truncated = extent{c.hwm, tail}
		free.truncate(c.hwm)
	}
}

// planFreelog works out the freelog's record and pages, and the new high-water mark.
func (c *committer) planFreelog() error {
	free := c.db.free
	c.takeAdopted()
	durable, freed := c.meta.durable, slices.Concat(c.freed, c.freedLog)
	if seeded.Has(seeded.RecordsDroppedEarly) {
		durable = c.s.id
	}
	if seeded.Has(seeded.FreedForgotten) {
		freed = nil
	}
	plan, err := free.plan(commitPlan{
		txid: c.s.id, durable: durable,
		freed: freed, allocated: c.allocated,
		alloc: func() (pgno, error) {
			e := c.take(1)[0]
			return e.start, nil
		},
		npages:  func() uint64 { return uint64(c.hwm) },
		tailCap: tailCap(c.db.psize), psize: c.db.psize,
	})
	if err != nil {
		return err
	}
	c.freelog = plan
	c.meta.free, c.meta.npages = plan.state, uint64(c.hwm)
	for _, p := range plan.pages {
		c.writes = append(c.writes, placement{p.pgno(), p})
	}
	return nil
}

// takeAdopted takes the runs of replayed records for the store's. One that a later
// record let go of is free again, but not before this commit is durable: should a crash
// undo it, the records are replayed once more.
func (c *committer) takeAdopted() {
	if c.replayed == nil {
		return
	}
	for _, e := range c.replayed.runs {
		n := len(c.freed)
		c.freed = slices.DeleteFunc(c.freed, func(f freedExtent) bool { return f.extent == e })
		if len(c.freed) == n {
			c.allocated = append(c.allocated, e)
		} else {
			c.db.free.holdBack(e, c.s.id)
		}
	}
}

// undo gives back what a failed commit took.
func (c *committer) undo() {
	free, old := c.db.free, pgno(c.db.newest.npages)
	free.abandon(c.freelog)
	for i := range c.s.w.pages {
		c.s.w.pages[i].place = 0 // given back here, not once more by the pages' owner
	}
	if c.truncated.npages > 0 { // all of it, whatever was taken again
		old = c.truncated.start
		free.giveBack(c.truncated)
	}
	if !seeded.Has(seeded.FailedCommitLeaks) {
		c.giveBack(c.allocated, old)
	}
}

// --- writing

// growFile makes the file at least npages long, by allocation, so that a full disk
// shows here and not in a sync.
func (db *DB) growFile(npages pgno) error {
	need := int64(npages) << db.shift
	if db.opts.MaxSize > 0 && need > max(db.opts.MaxSize, int64(db.newest.npages)<<db.shift) {
		return fmt.Errorf("grow the file to %d bytes: %w: it may have %d", need, ErrMaxSize, db.opts.MaxSize)
	}
	if need > db.nbytes {
		if err := db.allocate(need); err != nil {
			return err
		}
	}
	return db.ensureMapped(need)
}

// allocate grows the file to need bytes, and some more, so that not each commit has to.
func (db *DB) allocate(need int64) error {
	const least, most = 64 << 10, 64 << 20
	want := need + min(max(db.nbytes/4, least), most)
	if db.opts.MaxSize > 0 {
		want = max(need, min(want, db.opts.MaxSize))
	}
	want &^= int64(db.psize) - 1
	err := db.file.Allocate(db.nbytes, want-db.nbytes)
	if err != nil && want > need {
		// What is left of the disk may be enough.
		want = need
		err = db.file.Allocate(db.nbytes, want-db.nbytes)
	}
	if err != nil {
		if terr := db.file.Truncate(db.nbytes); terr != nil { // it may have grown in part
			err = errors.Join(err, terr)
		}
		return fmt.Errorf("grow the file from %d to %d bytes: %w", db.nbytes, want, err)
	}
	db.nbytes = want
	db.grown = db.newest.txid + 1 // no commit has a lower number from here on
	return nil
}

// writePages writes all pages in the order of their places, neighbours together.
func (c *committer) writePages(w []placement) error {
	slices.SortFunc(w, func(a, b placement) int { return cmp.Compare(a.n, b.n) })
	fm := c.db.fm.Load()
	var bufs [][]byte
	for i := 0; i < len(w); {
		bufs = bufs[:0]
		from, first, next := i, w[i].n, w[i].n
		for ; i < len(w) && w[i].n == next; i++ {
			bufs = append(bufs, w[i].p)
			next += pgno(len(w[i].p) >> c.db.shift)
		}
		fm.forget(first, next)
		if err := c.db.file.Pwritev(bufs, int64(first)<<c.db.shift); err != nil {
			return fmt.Errorf("write pages %d to %d: %w", first, next-1, err)
		}
		for _, w := range w[from:i] {
			fm.know(w.p)
		}
		c.db.stats.pagesWritten.Add(uint64(next - first))
	}
	return nil
}

// writeMetaOf writes the meta of a commit into a slot that nothing needs, unless it is in
// one already, and returns the slot.
func (db *DB) writeMetaOf(m *meta) (slot int, err error) {
	slot, ok := db.takeSlot(m.txid)
	if !ok {
		return slot, nil
	}
	p := getBuffer(db.psize)
	defer putBuffer(p)
	m.encode(p, slot)
	if err := db.file.Pwritev([][]byte{p}, int64(slot)<<db.shift); err != nil {
		db.mu.Lock()
		db.slots[slot] = 0
		db.mu.Unlock()
		return slot, fmt.Errorf("write meta page %d: %w", slot, err)
	}
	db.stats.pagesWritten.Add(1)
	return slot, nil
}

// wipe makes sure that a commit which failed with err is never taken for one: its record
// and its meta may have been written. Where that fails too, nothing is written to the store
// any more. A full disk cuts a write short, and what is short is no record and no meta.
func (c *committer) wipe(err error) error {
	db := c.db
	if c.ahead != nil {
		<-c.ahead
	}
	if !c.wrote && !c.wroteMeta || isNoRoom(err) && !c.recorded || seeded.Has(seeded.FailedMetaStays) {
		return err
	}
	zero := getBuffer(db.psize)
	defer putBuffer(zero)
	clear(zero)
	var zerr error
	if c.wrote && !seeded.Has(seeded.FailedRecordStays) {
		zerr = db.file.Pwritev([][]byte{zero[:logSector]}, c.meta.log.offset(c.recordAt, db.psize))
	}
	if c.wroteMeta {
		zerr = errors.Join(zerr, db.file.Pwritev([][]byte{zero}, int64(c.slot)<<db.shift))
	}
	if zerr != nil {
		return db.poison(ErrDatabaseReadOnly, errors.Join(err, zerr))
	}
	if serr := db.fileSync(); serr != nil {
		return errors.Join(err, serr)
	}
	return err
}

// takeSlot makes the meta slot with the oldest commit that nobody needs commit t's; ok is
// false where t has one.
func (db *DB) takeSlot(t txid) (slot int, ok bool) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if i := slices.Index(db.slots[:], t); i >= 0 {
		return i, false
	}
	best := -1
	durable, target := db.durable.txid, db.target
	if seeded.Has(seeded.DurableSlotReused) {
		durable = 0
	}
	if seeded.Has(seeded.TargetUnpinned) {
		target = 0
	}
	for i, have := range db.slots {
		if have != 0 && (have == durable || have == target || have == db.newest.txid) {
			continue
		}
		if best < 0 || have < db.slots[best] {
			best = i
		}
	}
	if best < 0 {
		broken("no meta slot is free: %v hold durable %d, target %d, newest %d", db.slots, db.durable.txid, db.target, db.newest.txid)
	}
	db.slots[best] = t
	return best, true
}

// settle makes the written commit's places and log the store's.
func (c *committer) settle() {
	db := c.db
	// Places are not the transaction's to give back.
	for i := range c.s.w.pages {
		c.s.w.pages[i].place = 0
	}
	db.free.apply(c.freelog)
	db.stats.groups.Add(1)
	if c.route == routeLogged {
		db.stats.logged.Add(1)
	}
	c.applyLog()
}

// finish syncs the newest commit, as told, and publishes it.
func (c *committer) finish(at syncPoint, sync bool) error {
	db := c.db
	db.noteSizes()
	if seeded.Has(seeded.PublishedEarly) {
		db.publish(at.place)
	}
	var err error
	switch {
	case c.route == routeLogged && db.mustSync():
		err = db.syncLog()
	case c.route == routeLogged: // who wants it durable syncs the log, without the writer lock
	case c.route == routeResumed && seeded.Has(seeded.ReplayDurable):
		db.setDurable(at)
	case c.route == routeResumed:
		db.noteSecured(at)
	case c.settles && seeded.Has(seeded.ReplayUnsynced):
		db.setDurable(at)
	case sync || db.mustSync():
		err = db.syncCommit(at)
	case db.opts.InMemory: // there is no disk to lose it
		db.setDurable(at)
	case db.opts.Sync != SyncFull:
		db.publish(at.place)
	}
	if err != nil {
		return err
	}
	db.wakeCheckpointer()
	return db.giveBackTail(c.route)
}

// becomeNewest makes the commit the newest.
func (c *committer) becomeNewest() syncPoint {
	db := c.db
	db.residents.mu.Lock()
	defer db.residents.mu.Unlock()
	c.keep()
	db.mu.Lock()
	at := db.at
	at.txid = c.meta.txid
	at.place++
	at.work.npages += c.npages()
	at.work.add(c.logWork())
	db.newest, db.at = c.meta, at
	switch c.route {
	case routeLogged:
		db.tip = at
		db.noteUnsynced(c)
		if c.newSegment.npages > 0 {
			db.redo.coming = c.newSegment
		}
	case routeResumed:
		db.tip = at
	}
	if len(c.meta.log.segments) == 0 {
		db.redo.coming = extent{}
	}
	db.mu.Unlock()
	db.table.Put(at.place, c.meta.commit())
	return at
}

// publish makes the commit at place the one that new readers get, unless a later one is.
func (db *DB) publish(place uint64) { db.setDurable(syncPoint{place: place}) }

// giveBackTail truncates the file where a commit with fewer pages is durable. The
// pages past its end were reusable: no reader's snapshot reaches them.
func (db *DB) giveBackTail(how route) error {
	size := int64(db.newest.npages) << db.shift
	const slack = 64 << 20 // what allocate may have added
	if (how != routeDirect && !seeded.Has(seeded.TruncatedEarly)) || db.nbytes <= size+min(size/truncateFraction, slack)+truncateMinPages<<db.shift {
		return nil
	}
	if err := db.file.Truncate(size); err != nil {
		db.log.Warn("giving back the end of the file failed", "path", db.path, "err", err)
		return nil // the commit is durable all the same
	}
	db.nbytes = size
	return nil
}

// --- syncs

// syncPoint is a commit as syncs see it.
type syncPoint struct {
	txid  txid
	place uint64 // in the reader table's ring
	work  work   // done up to it
}

// work is what commits have done since the store was opened, as far as it is what a
// checkpoint has to write, or a replay to do again.
type work struct {
	nbytes uint64 // of the log
	nops   uint64 // changes, and pages that they freed
	npages uint64 // pages written
}

func (w *work) add(o work) {
	w.nbytes += o.nbytes
	w.nops += o.nops
	w.npages += o.npages
}

func (w work) minus(o work) work {
	return work{w.nbytes - o.nbytes, w.nops - o.nops, w.npages - o.npages}
}

// sinceDurable returns what commits have done since the durable one; mu is held.
func (db *DB) sinceDurable() work { return db.at.work.minus(db.durable.work) }

// mustSync reports whether a commit that need not be synced is synced all the same:
// too many commits are unpublished, or too much space waits only for the durable one
// and no checkpoint will see to that.
func (db *DB) mustSync() bool {
	if db.at.place-db.table.Published() >= shm.MaxUnpublished {
		return true
	}
	const limit = 64 << 20
	held := int64(db.free.heldBy(db.durableTxid())) << db.shift
	return !db.logs && !db.opts.InMemory && held > limit && held > db.nbytes/4
}

// syncCommit makes the newest commit durable, with all its pages, and publishes it.
func (db *DB) syncCommit(at syncPoint) error {
	if err := db.fileSync(); err != nil {
		return err
	}
	db.setDurable(at)
	return nil
}

// fileSync syncs the whole file. Where that fails, the kernel may have dropped dirty
// pages, so nothing is written to the store any more.
func (db *DB) fileSync() error {
	if !seeded.Has(seeded.SyncsBeside) {
		db.syncIO.Lock()
		defer db.syncIO.Unlock()
	}
	if seeded.Has(seeded.SyncSkipped) {
		return nil
	}
	if err := db.failure(); err != nil {
		return err
	}
	db.stats.syncs.Add(1)
	return db.synced(db.syncFile.Sync())
}

// synced turns the store read-only if err, of a sync, is one.
func (db *DB) synced(err error) error {
	if err == nil {
		return nil
	}
	if seeded.Has(seeded.FailureForgotten) {
		return fmt.Errorf("%w: %w", ErrSyncFailed, err)
	}
	return db.poison(ErrSyncFailed, err)
}

// poison turns the store read-only because of err; sentinel is what callers may ask for.
func (db *DB) poison(sentinel, err error) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.failed == nil {
		db.failed = fmt.Errorf("%w: nothing is written until the store is reopened: %w", sentinel, err)
		db.log.Error("store turned read-only", "path", db.path, "err", err)
	}
	return db.failed
}

// failure returns why the store can't be written any more, or nil.
func (db *DB) failure() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.failed
}

func (db *DB) durableTxid() txid {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.durable.txid
}

// securedTxid returns the last commit that a crash can't take back: durable, or with
// its record and all before it in the log.
func (db *DB) securedTxid() txid {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.secured
}

// setDurable notes that all pages up to a commit are on the disk, and publishes it.
func (db *DB) setDurable(at syncPoint) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if at.txid > db.durable.txid || seeded.Has(seeded.DurableSteps) {
		db.durable = at
	}
	db.setSecured(at)
}

// noteSecured is setSecured for who does not hold mu.
func (db *DB) noteSecured(at syncPoint) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.setSecured(at)
}

// setSecured notes that a crash can't take a commit back, and publishes it; mu is held.
func (db *DB) setSecured(at syncPoint) {
	db.secured = max(db.secured, at.txid)
	db.forgetUnsynced(at.txid)
	if at.place > db.table.Published() {
		db.table.Publish(at.place)
	}
}

// Sync makes every commit durable that has returned, in any mode, with all its pages:
// it is a checkpoint. A recovery has nothing to replay then, and what waited for it can be
// reused. It is safe for concurrent use. Transactions run beside it; on Linux so do commits
// that are logged, and one that is synced with all its pages waits its turn. Errors:
// ErrSyncFailed, ErrDatabaseNotOpen.
func (db *DB) Sync() error {
	if db.opts.ReadOnly {
		return nil
	}
	if err := db.checkpoint(CheckpointAsked); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	db.runHooks()
	return nil
}

// secure returns once a crash can't take commit t back: the log is synced if that is
// enough, else everything.
func (db *DB) secure(t txid) error {
	db.mu.Lock()
	secured, logged := db.secured >= t, db.tip.txid >= t
	db.mu.Unlock()
	var err error
	switch {
	case secured:
		return nil
	case logged:
		err = db.syncLog()
	default:
		err = db.checkpoint(CheckpointAsked)
	}
	if errors.Is(err, ErrDatabaseNotOpen) && db.securedTxid() >= t {
		return nil // Close has done it meanwhile
	}
	return err
}

// waitDurable returns once commit t is durable.
func (db *DB) waitDurable(t txid) error {
	if !seeded.Has(seeded.WaitSkipped) {
		if err := db.secure(t); err != nil {
			return fmt.Errorf("wait for commit %d: %w", t, err)
		}
	}
	db.runHooks()
	return nil
}

// syncEvery is SyncInterval's goroutine.
func (db *DB) syncEvery() {
	tick := time.NewTicker(db.opts.SyncEvery)
	defer tick.Stop()
	for {
		select {
		case <-db.closing:
			return
		case <-tick.C:
			if err := db.Sync(); err != nil {
				return // logged, and every commit says so from here on
			}
		}
	}
}

// afterDurable keeps the OnCommit functions of commit t until it is durable.
func (db *DB) afterDurable(t txid, fns []func()) {
	if len(fns) == 0 {
		return
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	for _, fn := range fns {
		db.waiters = append(db.waiters, hook{t, fn})
	}
}

// runHooks calls the OnCommit functions of all commits that are durable, in order;
// whoever is at it does it for all.
func (db *DB) runHooks() {
	for fn := db.nextHook(true); fn != nil; fn = db.nextHook(false) {
		db.runHook(fn)
	}
}

// nextHook takes the next function that is due, unless someone else runs them.
func (db *DB) nextHook(begin bool) func() {
	db.mu.Lock()
	defer db.mu.Unlock()
	if begin && db.hooking {
		return nil
	}
	db.hooking = len(db.waiters) > 0 && db.waiters[0].txid <= db.secured
	if !db.hooking {
		return nil
	}
	fn := db.waiters[0].fn
	db.waiters = db.waiters[1:]
	return fn
}

// runHook calls fn; where that panics, the others can still be run later.
func (db *DB) runHook(fn func()) {
	returned := false
	defer func() {
		if !returned {
			db.mu.Lock()
			db.hooking = false
			db.mu.Unlock()
		}
	}()
	fn()
	returned = true
}

// --- commits that change nothing

// commitEmpty writes a meta that says that the commit before it is durable, so that
// the next open has nothing to prove; that one is durable, the writer lock is held.
func (db *DB) commitEmpty(settles bool) error {
	s, err := db.startWrite()
	if err != nil {
		return err
	}
	defer s.slot.Release()
	c := &committer{s: s, db: db, hwm: s.pg.npages, settles: settles}
	c.meta = db.newest
	c.meta.txid, c.meta.clean, c.meta.durable = s.id, true, db.newest.txid
	return c.run(true, func(sync bool) error {
		c.chooseRoute(sync)
		if err := c.planFreelog(); err != nil {
			return err
		}
		return c.writeOut(sync)
	})
}

// --- spilling

// place takes n consecutive pages for the transaction, before its commit.
func (s *txState) place(n uint64) (pgno, error) {
	db := s.db
	if p, ok := db.free.allocateRun(n, 0); ok {
		return p, nil
	}
	p := s.pg.npages
	if err := db.growFile(p + pgno(n)); err != nil {
		if err := db.makeRoom(err); err != nil {
			return 0, err
		}
		pins, _ := db.pins()
		db.free.release(pins)
		p, ok := db.free.allocateRun(n, 0)
		if !ok {
			return 0, err
		}
		return p, nil
	}
	s.pg.npages += pgno(n)
	if fm := db.fm.Load(); fm != s.maps[len(s.maps)-1] {
		s.useMap(fm)
	}
	return p, nil
}

// spill writes a dirty page early, to a place that no commit refers to.
func (s *txState) spill(p page, npages int) (pgno, uint64, error) {
	n, err := s.place(uint64(npages))
	if err != nil {
		return 0, 0, fmt.Errorf("write a page early: %w", err)
	}
	s.db.burned, s.spilled = max(s.db.burned, s.id), true
	sum := p.seal(n, s.id)
	s.db.fm.Load().forget(n, n+pgno(npages))
	if err := s.db.file.Pwritev([][]byte{p}, int64(n)<<s.db.shift); err != nil {
		s.unspill(extent{n, uint64(npages)})
		return 0, 0, fmt.Errorf("write page %d early: %w", n, err)
	}
	return n, sum, nil
}

// unspill gives back the place of a page that is not to be committed.
func (s *txState) unspill(e extent) {
	if !seeded.Has(seeded.RollbackLeaks) {
		s.db.free.giveBack(e)
	}
}
