package folio

// recovery.go decides which state is the truth when a store is opened.
//
// A commit writes its pages and its meta and syncs them together, in any order. So a
// meta that can be read may belong to a commit whose pages are not all there. It is
// believed only if it is proven: every page that its freelog lists as allocated since
// the commit it knew durable, and that its tree reaches, must have the sum that its
// parent's reference calls for. The work is bounded by what was written since the last
// durable commit. On the commit that is proven the redo log is replayed: see replay.go.
//
// Invariants:
//   - an I/O error fails the open; it refutes nothing;
//   - the state chosen is never older than one that any whole meta knows durable;
//   - nothing is written before a meta is proven.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"

	"github.com/foliokv/folio/internal/seeded"
)

// recovered is what recover found.
type recovered struct {
	base     meta
	free     *freelist
	slots    [numMetas]txid // which commit's meta is in which slot
	rejected []int          // slots of metas that are torn, or newer than base and refuted
	seen     txid           // the largest txid in any meta or record, as far as it is to be believed
	log      foundLog
}

// candidate is a meta that can be read.
type candidate struct {
	meta
	slot int
}

// recover picks the newest meta that can be proven.
func (db *DB) recover() (r recovered, err error) {
	if err := db.askDisk(0, numMetas*maxPageSize); err != nil {
		return r, err
	}
	found, err := db.readMetas()
	if err != nil {
		return r, err
	}
	ms := found.whole
	r.rejected = found.torn
	for _, slot := range found.torn {
		db.log.Warn("meta page is not whole: it is damaged, or a crash cut its commit short", "path", db.path, "page", slot)
	}
	var refuted error
	for len(ms) > 0 {
		i := newestOf(ms)
		c := ms[i]
		ms = append(ms[:i], ms[i+1:]...)
		r.seen = max(r.seen, c.txid)
		if r.free != nil {
			r.slots[c.slot] = c.txid
			continue
		}
		fl, log, err := db.prove(&c)
		if err == nil {
			r.base, r.free, r.log = c.meta, fl, log
			r.slots[c.slot] = c.txid
			continue
		}
		if !errors.Is(err, ErrCorrupt) {
			return r, err
		}
		refuted = err
		r.rejected = append(r.rejected, c.slot)
		db.log.Warn("commit is not whole, it is passed over", "path", db.path, "txid", c.txid, "because", err)
	}
	if r.free == nil {
		return r, fmt.Errorf("no commit of the store is whole: %w", refuted)
	}
	if r.log.err != nil {
		return r, fmt.Errorf("read the redo log: %w", r.log.err)
	}
	r.seen = max(r.seen, r.log.seen)
	if durable := max(found.durable, r.log.durable); durable > r.log.reached && !seeded.Has(seeded.SilentStepBack) {
		return r, errors.Join(corrupt(0, "commit %d was durable, but the newest that is whole is %d", durable, r.log.reached), refuted)
	}
	if found.claimed <= r.base.txid+maxClaim {
		r.seen = max(r.seen, found.claimed)
	}
	r.free.forgetRecords()
	return r, nil
}

// maxClaim bounds how far above the commit recovered the number in a torn meta page
// may lie: more commits than that are not made without a sync, so it is damage, and
// numbers are not to be used up by that.
const maxClaim = 1 << 40

func newestOf(ms []candidate) int {
	best := 0
	for i := range ms {
		if ms[i].txid > ms[best].txid {
			best = i
		}
	}
	return best
}

// askDisk makes durable what a killed process left in the page cache, and drops
// clean cached copies, so that what is read is what the disk has.
func (db *DB) askDisk(off, nbytes int64) error {
	if db.opts.ReadOnly || db.opts.InMemory || seeded.Has(seeded.RecoveryUnsynced) {
		return nil
	}
	if err := db.file.Sync(); err != nil {
		return fmt.Errorf("sync before reading: %w", err)
	}
	return db.dropCache(off, nbytes)
}

// cachePiece is the largest piece that the kernel caches as a whole.
const cachePiece = 2 << 20

// dropCache drops clean cached copies of a part of the file. The kernel keeps what it has
// cached in one piece with something else.
func (db *DB) dropCache(off, nbytes int64) error {
	if db.opts.ReadOnly || db.opts.InMemory || seeded.Has(seeded.RecoveryUnsynced) {
		return nil
	}
	nbytes = (off+nbytes+cachePiece-1)&^(cachePiece-1) - off&^(cachePiece-1)
	off &^= cachePiece - 1
	return db.file.DropCache(off, nbytes)
}

// metaPages is what the meta slots hold.
type metaPages struct {
	whole   []candidate // metas that can be believed, as far as the page tells
	torn    []int       // slots of those that can't: torn by a crash, or damaged
	durable txid        // the largest that any whole meta, misplaced or not, knows durable
	// claimed is the largest txid that a torn meta bears. It must not be used again: a
	// crash that tears the meta written over it, or its wiping, can make it whole.
	claimed txid
}

// readMetas reads the meta slots.
func (db *DB) readMetas() (found metaPages, err error) {
	psize, err := db.findPageSize()
	if err != nil {
		return found, err
	}
	var bad error
	for slot := range numMetas {
		p := make(page, psize)
		if _, err := db.readAt(p, int64(slot*psize)); err != nil {
			return found, err
		}
		if isZero(p) {
			continue
		}
		m, err := readMeta(p, slot)
		if errors.Is(err, ErrVersionMismatch) {
			return found, err
		}
		found.durable = max(found.durable, m.durable)
		if err != nil {
			bad = err
			found.torn = append(found.torn, slot)
			if hasMagic(p) {
				found.claimed = max(found.claimed, p.txid())
			}
			continue
		}
		found.whole = append(found.whole, candidate{m, slot})
	}
	if len(found.whole) == 0 {
		if bad == nil {
			bad = corrupt(0, "all meta pages are empty")
		}
		return found, bad
	}
	return found, nil
}

// readMeta decodes the meta in p, if it was written as a whole.
func readMeta(p page, slot int) (meta, error) {
	if !hasMagic(p) || !isWhole(p) && !seeded.Has(seeded.TornMetaBelieved) {
		return meta{}, corrupt(pgno(slot), "damaged meta page")
	}
	return decodeMeta(p, slot)
}

// readAt reads into p; what lies past the end of the file is zeros, and n tells how
// much of it was there.
func (db *DB) readAt(p []byte, off int64) (n int, err error) {
	n, err = db.file.Pread(p, off)
	if err == io.EOF {
		clear(p[n:])
		err = nil
	}
	return n, err
}

// findPageSize looks for a meta in the slots of every legal page size.
func (db *DB) findPageSize() (int, error) {
	best := page(nil)
	seen := false // something like a meta page, damaged
	version := uint32(formatVersion)
	for psize := minPageSize; psize <= maxPageSize; psize *= 2 {
		for slot := range numMetas {
			p := make(page, psize)
			n, err := db.readAt(p, int64(slot*psize))
			if err != nil {
				return 0, err
			}
			if n < minPageSize || !hasMagic(p) {
				continue
			}
			v := binary.LittleEndian.Uint32(p[offVersion:])
			if v != formatVersion {
				version = v
				continue
			}
			seen = true
			claims := int(binary.LittleEndian.Uint32(p[offPageSize:]))
			if claims == psize && isWhole(p) && (best == nil || p.txid() > best.txid()) {
				best = p
			}
		}
		if best != nil {
			return psize, nil
		}
	}
	if seen {
		return 0, corrupt(0, "no meta page is whole")
	}
	if version != formatVersion {
		return 0, versionError(version)
	}
	return 0, db.foreign()
}

// foreign says what a file that is no store seems to be.
func (db *DB) foreign() error {
	head := make([]byte, 64)
	n, err := db.readAt(head, 0)
	if err != nil {
		return err
	}
	what := "it has no meta page"
	switch {
	case n == 0:
		what = "the file is empty"
	case binary.LittleEndian.Uint32(head[16:]) == 0xED0CDAED:
		what = "it looks like a bbolt database"
	case binary.LittleEndian.Uint32(head[16:]) == 0xBEEFC0DE, binary.LittleEndian.Uint32(head[24:]) == 0xBEEFC0DE:
		what = "it looks like an LMDB database"
	case string(head[:15]) == "SQLite format 3":
		what = "it looks like an SQLite database"
	}
	return fmt.Errorf("%w: %s", ErrInvalid, what)
}

// prover walks the part of a commit's tree that was written since the last commit
// known durable.
type prover struct {
	db      *DB
	psize   int
	durable txid          // known to be
	need    map[pgno]txid // pages yet to be proven, each with its commit
}

// prove returns c's free list, and what follows c in the log, if c is whole.
func (db *DB) prove(c *candidate) (fl *freelist, log foundLog, err error) {
	size, err := db.file.Size()
	if err != nil {
		return nil, log, err
	}
	if have := uint64(size) / uint64(c.psize); have < c.npages {
		return nil, log, corrupt(pgno(have), "the file ends here, but commit %d has %d pages", c.txid, c.npages)
	}
	if log, err = db.scanLog(&c.meta); err != nil && !errors.Is(err, ErrCorrupt) {
		return nil, log, err
	}
	log.err = err // c may be refuted yet
	// Whoever wrote a record that follows c, after c was durable, says so in it.
	durable := max(c.durable, min(log.durable, c.txid))
	p := &prover{db: db, psize: c.psize, durable: durable}
	fl, err = loadReusable(c.free, pgno(c.slot), c.npages, c.txid, durable, c.psize, p.readFreelog)
	if err != nil {
		return nil, log, err
	}
	for _, e := range c.log.segments {
		if !fl.untouched(e) {
			return nil, log, corrupt(e.start, "free pages in a redo log segment")
		}
	}
	p.need = fl.allocatedSince(durable)
	if err := p.askDisk(); err != nil {
		return nil, log, err
	}
	if seeded.Has(seeded.ProofSkipped) {
		return fl, log, nil
	}
	return fl, log, p.walk(c.root.root, c.root.level)
}

// askDisk sees to it that what is to be proven is read from the disk, all of it at once.
func (p *prover) askDisk() error {
	pages := slices.Sorted(maps.Keys(p.need))
	for e := range runsOfPages(pages, p.psize) {
		if err := p.db.dropCache(int64(e.start)*int64(p.psize), int64(e.npages)*int64(p.psize)); err != nil {
			return err
		}
	}
	return p.db.readAhead(pages, p.psize)
}

// readAhead has the kernel read pages, which ascend, beside each other.
func (db *DB) readAhead(pages []pgno, psize int) error {
	for e := range runsOfPages(pages, psize) {
		if err := db.file.ReadAhead(int64(e.start)*int64(psize), int64(e.npages)*int64(psize)); err != nil {
			return err
		}
	}
	return nil
}

// runsOfPages yields ascending pages as extents; small gaps are read along with them.
func runsOfPages(pages []pgno, psize int) iter.Seq[extent] {
	gap := pgno(64<<10/psize) + 1
	return func(yield func(extent) bool) {
		for len(pages) > 0 {
			n := 1
			for n < len(pages) && pages[n]-pages[n-1] <= gap {
				n++
			}
			if !yield(extent{pages[0], uint64(pages[n-1]-pages[0]) + 1}) {
				return
			}
			pages = pages[n:]
		}
	}
}

// read reads page n, which has npages pages, and checks number and sum.
func (p *prover) read(buf page, n pgno, sum uint64) error {
	if _, err := p.db.readAt(buf, int64(n)*int64(p.psize)); err != nil {
		return err
	}
	if seeded.Has(seeded.ParentSumIgnored) {
		sum = buf.computeSum()
	}
	return checkSum(buf, n, sum)
}

// readFreelog reads a freelog page: from the disk where it was written since the durable
// commit, which is when its cached copy may be all that there is of it.
func (p *prover) readFreelog(n pgno, sum uint64) (page, error) {
	buf := make(page, p.psize)
	if err := p.read(buf, n, sum); err != nil || buf.txid() <= p.durable || seeded.Has(seeded.FreelogFromCache) {
		return buf, err
	}
	if err := p.db.dropCache(int64(n)*int64(p.psize), int64(p.psize)); err != nil {
		return nil, err
	}
	return buf, p.read(buf, n, sum)
}

// isNew reports whether page n is to be proven, and takes it off the list.
func (p *prover) isNew(n pgno) (txid, bool) {
	t, ok := p.need[n]
	delete(p.need, n)
	return t, ok
}

// walk proves the page at r and what is new below it.
func (p *prover) walk(r ref, level int) error {
	t, ok := p.isNew(r.pgno)
	if !ok {
		return nil
	}
	pg := make(page, p.psize)
	if err := p.read(pg, r.pgno, r.sum); err != nil {
		return err
	}
	if rule := pg.validate(); rule != "" {
		return corrupt(r.pgno, "%s", rule)
	}
	// A page that was changed in memory, at its place, is younger than the place.
	if pg.level() != level || pg.txid() < t {
		return corrupt(r.pgno, "level %d of commit %d where level %d of commit %d or later should be", pg.level(), pg.txid(), level, t)
	}
	n := pg.count()
	for i := range n {
		var err error
		if level == 0 {
			err = p.walkCell(pg, n, i)
		} else {
			err = p.walkChild(pg, n, i)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *prover) walkChild(pg page, n, i int) error {
	if i > 0 {
		_, run, ok := pg.branchCellAt(n, i)
		if !ok {
			return badPage(pg)
		}
		if run != nil {
			if err := p.walkRun(getRunRef(run)); err != nil {
				return err
			}
		}
	}
	return p.walk(pg.childAt(n, i), pg.level()-1)
}

func (p *prover) walkCell(pg page, n, i int) error {
	c, ok := pg.leafCellAt(n, i)
	if !ok {
		return badPage(pg)
	}
	if c.flags&cellLarge != 0 {
		if err := p.walkRun(getRunRef(c.value)); err != nil {
			return err
		}
	}
	raw, isBucket := bucketRecord(c)
	if !isBucket {
		return nil
	}
	rec, ok := getRecord(raw)
	if !ok {
		return corrupt(pg.pgno(), "bad bucket record in slot %d", i)
	}
	if seeded.Has(seeded.BucketsUnproven) {
		return nil
	}
	return p.walk(rec.root, rec.level)
}

func (p *prover) walkRun(r runRef) error {
	if _, ok := p.isNew(r.pgno); !ok || seeded.Has(seeded.RunsUnproven) {
		return nil
	}
	if r.npages != runPages(p.psize, r.keyLen, r.valueLen) {
		return corrupt(r.pgno, "run of %d pages for a key of %d and a value of %d bytes", r.npages, r.keyLen, r.valueLen)
	}
	for i := 1; i < r.npages; i++ {
		if _, ok := p.isNew(r.pgno + pgno(i)); !ok {
			return corrupt(r.pgno, "its page %d was not allocated with it", i)
		}
	}
	buf := make(page, r.npages*p.psize)
	if err := p.read(buf, r.pgno, r.sum); err != nil {
		return err
	}
	if rule := validateRun(buf, r); rule != "" {
		return corrupt(r.pgno, "%s", rule)
	}
	return nil
}
