package folio

// stats.go is what a store tells of its sizes, its work and its readers.

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// counters count what happened since the store was opened.
type counters struct {
	commits      atomic.Uint64
	groups       atomic.Uint64
	logged       atomic.Uint64
	syncs        atomic.Uint64
	logSyncs     atomic.Uint64
	pagesWritten atomic.Uint64
}

// Stats are the sizes of a store and counters since it was opened.
type Stats struct {
	PageSize     int    // bytes
	FileSize     int64  // bytes, space allocated ahead included
	Pages        uint64 // pages in use or free: the high-water mark
	FreePages    uint64 // pages that can be reused now
	WaitingPages uint64 // free pages that a reader or the last checkpoint still needs
	FreelogPages int    // pages that hold the list of free pages
	LogSize      int64  // bytes of the redo log
	LogUsed      int64  // bytes of records that a recovery would replay
	Resident     int64  // bytes of committed pages that are in memory and not in the file
	Newest       uint64 // number of the newest commit
	Durable      uint64 // number of the last commit that a crash can't take back
	Checkpoint   uint64 // number of the last commit with all its pages on the disk
	Readers      int    // transactions that are open

	Commits      uint64 // transactions committed since open
	Groups       uint64 // commits that they became: transactions that shared one count once
	Logged       uint64 // those of them that have a redo record
	Syncs        uint64 // syncs of the whole file since open
	LogSyncs     uint64 // syncs of a part of the redo log, or of what it refers to, since open
	PagesWritten uint64 // pages written since open, redo records not included
	Checkpoints  CheckpointStats
}

// Stats returns the store's sizes, as of the newest commit, and counters. It never
// waits, and is safe for concurrent use.
func (db *DB) Stats() Stats {
	db.mu.Lock()
	st := db.sizes
	st.Durable, st.Checkpoint = uint64(db.secured), uint64(db.durable.txid)
	st.LogUsed = int64(db.sinceDurable().nbytes)
	st.Checkpoints = db.checkpointer.stats
	db.mu.Unlock()
	st.Resident = db.residents.unwritten()
	st.Readers = len(db.table.Readers(nil))
	st.Commits = db.stats.commits.Load()
	st.Groups = db.stats.groups.Load()
	st.Logged = db.stats.logged.Load()
	st.LogSyncs = db.stats.logSyncs.Load()
	st.Syncs = db.stats.syncs.Load()
	st.PagesWritten = db.stats.pagesWritten.Load()
	return st
}

// noteSizes keeps the sizes for Stats; the writer lock is held.
func (db *DB) noteSizes() {
	st := Stats{
		PageSize:     db.psize,
		FileSize:     db.nbytes,
		Pages:        db.newest.npages,
		FreePages:    db.free.freePages(),
		WaitingPages: db.free.waitingPages(),
		FreelogPages: len(db.free.chain.pages),
		LogSize:      db.redo.nbytes(db.psize),
		Newest:       uint64(db.newest.txid),
	}
	held := db.free.heldBy(db.durableTxid())
	limit := db.logLimit()
	db.mu.Lock()
	db.pressure = pressure{held: int64(held) << db.shift, logLimit: limit}
	db.sizes = st
	db.mu.Unlock()
}

// Reader is a snapshot that a transaction is reading.
type Reader struct {
	TxID      uint64 // the commit that it sees
	Slot      int    // its place in the reader table
	HeldPages uint64 // pages that wait for it, and for no newer snapshot, to end
}

// Readers returns every transaction that is open. It waits for a write transaction
// that is open, so it must not be called inside one.
func (db *DB) Readers() ([]Reader, error) {
	if err := db.takeWriter(context.Background()); err != nil {
		return nil, fmt.Errorf("list readers: %w", err)
	}
	defer func() { <-db.writer }()
	var rs []Reader
	for _, r := range db.table.Readers(nil) {
		rs = append(rs, Reader{TxID: r.Txid, Slot: r.Slot, HeldPages: db.free.heldBy(txid(r.Txid))})
	}
	return rs, nil
}

// slowReaderPages is how much a snapshot must hold back to be reported.
const slowReaderPages = 1024

// reportSlowReader calls OnSlowReader if some reader holds back much space. It is
// called after a commit, without the writer lock.
func (db *DB) reportSlowReader() {
	if db.opts.OnSlowReader == nil {
		return
	}
	select {
	case db.writer <- struct{}{}:
	default:
		return // another commit will look
	}
	worst := Reader{}
	if now := time.Now(); !db.closed.Load() && now.Sub(db.lastSlow) >= time.Second {
		for _, r := range db.table.Readers(nil) {
			if held := db.free.heldBy(txid(r.Txid)); held > worst.HeldPages {
				worst = Reader{TxID: r.Txid, Slot: r.Slot, HeldPages: held}
			}
		}
		if worst.HeldPages >= slowReaderPages {
			db.lastSlow = now
		}
	}
	<-db.writer
	if worst.HeldPages >= slowReaderPages {
		db.opts.OnSlowReader(worst)
	}
}

// BucketStats are the sizes of one bucket, nested buckets not included.
type BucketStats struct {
	Pairs       uint64 // key/value pairs
	Buckets     uint64 // nested buckets
	Depth       int    // levels of pages, 0 for an empty bucket
	BranchPages uint64
	LeafPages   uint64
	RunPages    uint64 // pages of runs, which hold large pairs and separators
	BranchUsed  uint64 // bytes in use in branch pages, headers included
	LeafUsed    uint64 // bytes in use in leaf pages, headers included
	RunUsed     uint64 // bytes in use in runs, headers included
}

// Stats walks the whole bucket and returns its sizes; zero where the bucket can't be read.
func (b *Bucket) Stats() (st BucketStats) {
	b.read(func(t *tree) error {
		if t.rec.root.pgno == 0 {
			return nil
		}
		p, err := t.loadRoot()
		if err != nil {
			return err
		}
		st.Depth = p.level() + 1
		t.pg.visits = 0
		return t.pg.addStats(&st, p)
	})
	return st
}

func (pg *pager) addStats(st *BucketStats, p page) error {
	if err := pg.visit(p); err != nil {
		return err
	}
	n := p.count()
	if p.level() == 0 {
		st.LeafPages++
		st.LeafUsed += uint64(headerSize + p.used())
		for i := range n {
			c, ok := p.leafCellAt(n, i)
			if !ok {
				return badPage(p)
			}
			if c.flags&cellLarge != 0 {
				st.addRun(getRunRef(c.value))
			}
			if c.flags&cellBucket != 0 {
				st.Buckets++
			} else {
				st.Pairs++
			}
		}
		return nil
	}
	st.BranchPages++
	st.BranchUsed += uint64(headerSize + p.used())
	for i := range n {
		if i > 0 {
			if _, run, ok := p.branchCellAt(n, i); ok && run != nil {
				st.addRun(getRunRef(run))
			}
		}
		c, _, err := pg.loadChild(p, i)
		if err != nil {
			return err
		}
		if err := pg.addStats(st, c); err != nil {
			return err
		}
	}
	return nil
}

func (st *BucketStats) addRun(r runRef) {
	st.RunPages += uint64(r.npages)
	st.RunUsed += uint64(headerSize + r.keyLen + r.valueLen)
}
