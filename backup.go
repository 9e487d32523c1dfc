package folio

// backup.go writes a whole, openable store from a snapshot while others go on
// writing.
//
// The copy keeps page numbers, since references hold them: pages that the snapshot
// does not reach become free pages of zeros, and its freelog and meta are made anew.
// Every page is verified on the way.

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/foliokv/folio/internal/mmap"
)

// WriteTo writes the store as the transaction sees it to w: a whole store that can be
// opened, under a UUID of its own. It returns the number of bytes written. In a write
// transaction it writes the state before the transaction's own changes. Damage met on
// the way ends it with an error; what was written by then is no store.
func (tx *Tx) WriteTo(w io.Writer) (int64, error) {
	s, err := tx.state()
	if err != nil {
		return 0, fmt.Errorf("write store: %w", err)
	}
	var n int64
	s.guard(func() {
		var c *copier
		if c, err = newCopier(s); err == nil {
			n, err = c.writeTo(w)
		}
		if errors.Is(err, ErrCorrupt) {
			s.fail(err)
		}
	})
	if s.err != nil {
		err = s.err
	}
	if err != nil {
		return n, fmt.Errorf("write store: %w", err)
	}
	return n, nil
}

// CopyFile writes the store as WriteTo does to a new file at path, which must not
// exist, synced and whole, or not at all.
func (tx *Tx) CopyFile(path string, mode os.FileMode) (err error) {
	temp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".copy-*")
	if err != nil {
		return fmt.Errorf("copy store: %w", err)
	}
	defer os.Remove(temp.Name())
	defer temp.Close()
	if _, err := tx.WriteTo(temp); err != nil {
		return fmt.Errorf("copy store to %s: %w", path, err)
	}
	if err := errors.Join(temp.Chmod(mode), temp.Sync()); err != nil {
		return fmt.Errorf("copy store: %w", err)
	}
	if err := mmap.Publish(temp.Name(), path); err != nil {
		return fmt.Errorf("copy store to %s: %w", path, err)
	}
	return nil
}

// maxCopyPages bounds the pages that are handed to the writer at once.
const maxCopyPages = 256

// copier copies one snapshot.
type copier struct {
	pg       pager
	root     record
	base     txid
	reached  bitmap
	resident map[pgno]page // of those, what is in memory only
	largest  uint64        // the largest bucket id
	npages   uint64
	freelog  []page // made anew, at the end
	meta     meta
}

func newCopier(s *txState) (*copier, error) {
	c := &copier{pg: s.pg, base: s.base, npages: uint64(s.pg.npages), resident: map[pgno]page{}}
	c.pg.w = nil
	c.root = s.root.rec
	if s.writable {
		c.root, c.npages = s.db.newest.root, s.db.newest.npages
	}
	c.reached.grow(c.npages)
	if err := c.walk(c.root); err != nil {
		return nil, err
	}
	c.meta = meta{
		txid: c.base, durable: c.base, clean: true, psize: c.pg.psize,
		root: c.root, nextTree: c.largest,
	}
	rand.Read(c.meta.uuid[:]) // it never fails
	c.buildFreelog()
	return c, nil
}

// walk marks every page of a bucket's tree, and verifies it.
func (c *copier) walk(rec record) error {
	c.largest = max(c.largest, rec.id)
	return c.pg.walkPages(rec, func(n pgno, p page, npages int) error {
		e := extent{n, uint64(npages)}
		if !c.reached.none(e) {
			return corrupt(n, "it is reached twice")
		}
		c.reached.setRange(e)
		if !c.pg.inFile(p) {
			c.resident[n] = p
		}
		return nil
	}, c.walk)
}

// buildFreelog makes the copy's freelog: all that is not reached is free.
func (c *copier) buildFreelog() {
	var free []extent
	for n := pgno(numMetas); uint64(n) < c.npages; {
		next, ok := c.reached.next(n)
		if !ok {
			next = pgno(c.npages)
		}
		if next > n {
			free = append(free, extent{n, uint64(next - n)})
		}
		n = next
		for uint64(n) < c.npages && c.reached.test(n) {
			n++
		}
	}
	if k := len(free); k > 0 && free[k-1].end() == pgno(c.npages) { // nothing needs the end
		c.npages = uint64(free[k-1].start)
		free = free[:k-1]
	}
	end := pgno(c.npages)
	alloc := func() pgno {
		end++
		return end - 1
	}
	c.freelog, c.meta.free, c.meta.npages = buildFreelog(free, c.npages, c.base, c.pg.psize, tailCap(c.pg.psize), alloc)
}

func (c *copier) writeTo(w io.Writer) (n int64, err error) {
	buf := make(page, c.pg.psize)
	c.meta.encode(buf, 0)
	put := func(b []byte) {
		if err == nil {
			var k int
			k, err = w.Write(b)
			n += int64(k)
		}
	}
	put(buf)
	clear(buf)
	for at := pgno(1); uint64(at) < c.meta.npages-uint64(len(c.freelog)) && err == nil; {
		if !c.reached.test(at) {
			put(buf)
			at++
			continue
		}
		if p := c.resident[at]; p != nil {
			put(p)
			at += pgno(len(p) >> c.pg.shift)
			continue
		}
		npages := c.inFile(at)
		put(c.pg.data[at<<c.pg.shift : (at+npages)<<c.pg.shift])
		at += npages
	}
	for _, p := range c.freelog {
		put(p)
	}
	return n, err
}

// inFile returns how many reached pages from at on are in the file.
func (c *copier) inFile(at pgno) pgno {
	n := pgno(c.reached.runLen(at, maxCopyPages))
	for i := pgno(1); i < n; i++ {
		if c.resident[at+i] != nil {
			return i
		}
	}
	return n
}

// walkPages calls visit for every page and run of a bucket's tree, verified, parents
// first, and nested for every nested bucket's record. It is bounded by visit, which
// refuses a page that it has seen.
func (pg *pager) walkPages(rec record, visit func(n pgno, p page, npages int) error, nested func(record) error) error {
	if rec.root.pgno == 0 {
		return nil
	}
	return pg.walkPage(rec.root, rec.level, visit, nested)
}

func (pg *pager) walkPage(r ref, level int, visit func(n pgno, p page, npages int) error, nested func(record) error) error {
	p, err := pg.load(r.pgno, r.sum)
	if err != nil {
		return err
	}
	if p.level() != level {
		return wrongLevel(r.pgno, p, level)
	}
	if err := visit(r.pgno, p, 1); err != nil {
		return err
	}
	visitRun := func(encoded []byte) error {
		rr := getRunRef(encoded)
		run, err := pg.loadRun(rr)
		if err != nil {
			return err
		}
		return visit(rr.pgno, run, rr.npages)
	}
	n := p.count()
	for i := range n {
		if level > 0 {
			if i > 0 {
				_, run, ok := p.branchCellAt(n, i)
				if !ok {
					return badPage(p)
				}
				if run != nil {
					if err := visitRun(run); err != nil {
						return err
					}
				}
			}
			if err := pg.walkPage(p.childAt(n, i), level-1, visit, nested); err != nil {
				return err
			}
			continue
		}
		c, ok := p.leafCellAt(n, i)
		if !ok {
			return badPage(p)
		}
		if c.flags&cellLarge != 0 {
			if err := visitRun(c.value); err != nil {
				return err
			}
		}
		if raw, isBucket := bucketRecord(c); isBucket {
			rec, ok := getRecord(raw)
			if !ok {
				return corrupt(r.pgno, "bad bucket record in slot %d", i)
			}
			if err := nested(rec); err != nil {
				return err
			}
		}
	}
	return nil
}
