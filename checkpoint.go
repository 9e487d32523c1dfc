package folio

// checkpoint.go brings the pages of logged commits to the disk, beside the writer, so
// that the log can be used again and a recovery stays short.
//
// A checkpoint makes the newest commit its target, writes what that has in memory, and its
// meta, and syncs the whole file; then the target is the durable commit. One in the
// background does it piece by piece, and has the kernel write each, so that commits beside
// it find the disk free. Where a write or a sync fails, nothing is written any more.

import (
	"sync/atomic"
	"time"

	"github.com/foliokv/folio/internal/seeded"
)

// CheckpointReason says why a checkpoint was made.
type CheckpointReason string

const (
	CheckpointLog    CheckpointReason = "log"    // the redo log has passed its limit
	CheckpointSpace  CheckpointReason = "space"  // much space waits for it
	CheckpointMemory CheckpointReason = "memory" // many pages are kept in memory for it
	CheckpointIdle   CheckpointReason = "idle"   // no commit has come for a while
	CheckpointAsked  CheckpointReason = "asked"  // by DB.Sync, a wait of CommitAsync, or Close
)

const (
	checkpointPiece = 128 << 10       // bytes that are written at once: a commit beside may wait for them
	checkpointSweep = 8 << 20         // bytes of the file that are looked through at once
	checkpointIdle  = 2 * time.Second // between two looks, without a commit, that call for one
)

// checkpointer is what the goroutine that makes checkpoints shares with the writer.
type checkpointer struct {
	wake   chan struct{}
	asleep atomic.Bool // nothing is to be written: the next commit wakes it

	stats CheckpointStats // mu guards it
}

// CheckpointStats tell what checkpoints cost since the store was opened.
type CheckpointStats struct {
	Count    uint64           // that were made
	Time     time.Duration    // spent in all of them
	Longest  time.Duration    // spent in one
	Pages    uint64           // that commits changed before them
	Reason   CheckpointReason // of the one under way, or of the last
	Progress float64          // of the one under way, from 0 to 1; 0 where there is none
}

// wakeCheckpointer is called after each commit.
func (db *DB) wakeCheckpointer() {
	if !db.logs || db.checkpointDue() == "" && !db.checkpointer.asleep.CompareAndSwap(true, false) {
		return
	}
	select {
	case db.checkpointer.wake <- struct{}{}:
	default: // it will look
	}
}

// checkpointDue returns why a checkpoint is to be made now, "" if it is not.
func (db *DB) checkpointDue() CheckpointReason {
	unwritten := db.residents.unwritten()
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.durable.txid >= db.at.txid {
		return ""
	}
	since := db.sinceDurable()
	switch {
	case since.nbytes >= uint64(db.pressure.logLimit) || since.nops >= maxLogOps || db.redo.coming.npages > 0:
		return CheckpointLog
	case unwritten >= db.checkpointFrom():
		return CheckpointMemory
	case db.pressure.held > maxHeldBytes && db.pressure.held > db.sizes.FileSize/4:
		return CheckpointSpace
	}
	return ""
}

// checkpointFrom returns how many bytes of pages in memory call for a checkpoint: three
// quarters of what may be there, so that the writer can go on while it runs.
func (db *DB) checkpointFrom() int64 { return db.maxResident / 4 * 3 }

// maxHeldBytes is how much space may wait for the durable commit alone, unless the
// store is large.
const maxHeldBytes = 256 << 20

// makeCheckpoints is the goroutine's loop.
func (db *DB) makeCheckpoints() {
	c := &db.checkpointer
	idle := time.NewTimer(checkpointIdle)
	defer idle.Stop()
	last := txid(0)
	for {
		select {
		case <-db.closing:
			return
		case <-c.wake:
			idle.Reset(checkpointIdle)
		case <-idle.C:
			c.asleep.Store(true) // before looking: a commit that is missed here wakes it
			db.mu.Lock()
			now, behind := db.at.txid, db.durable.txid < db.at.txid
			db.mu.Unlock()
			if !behind {
				dropBuffers(db.psize)
				continue
			}
			c.asleep.Store(false)
			if now == last && db.backgroundCheckpoint(CheckpointIdle) != nil {
				return
			}
			last = now
			idle.Reset(checkpointIdle)
		}
		for reason := db.checkpointDue(); reason != ""; reason = db.checkpointDue() {
			if db.backgroundCheckpoint(reason) != nil {
				return // logged, and every commit says so from here on
			}
		}
	}
}

// backgroundCheckpoint is checkpoint, and calls the OnCommit functions of what it made durable.
func (db *DB) backgroundCheckpoint(reason CheckpointReason) error {
	err := db.checkpoint(reason)
	if err == nil {
		db.runHooks()
	}
	return err
}

// checkpoint makes the newest commit durable, with all its pages, beside the writer.
func (db *DB) checkpoint(reason CheckpointReason) error {
	db.syncing.Lock()
	defer db.syncing.Unlock()
	return db.checkpointAlone(reason)
}

// checkpointAlone is checkpoint for the holder of syncing.
func (db *DB) checkpointAlone(reason CheckpointReason) error {
	target, err := db.beginSync()
	at := target.at
	if err != nil || at.txid == 0 {
		return err
	}
	begun := time.Now()
	db.noteProgress(reason, 0)
	if seeded.Has(seeded.CheckpointUnsynced) {
		db.setDurable(at)
	}
	err = db.writeTarget(&target, reason)
	if err == nil && reason != CheckpointAsked {
		err = db.writeOut(reason)
	}
	if err == nil {
		err = db.fileSync()
	}
	if seeded.Has(seeded.TargetTooLate) {
		db.mu.Lock()
		target.at = db.at
		db.mu.Unlock()
	}
	db.endSync(&target, time.Since(begun), err == nil)
	return err
}

// target is what a checkpoint makes durable.
type target struct {
	at     syncPoint
	meta   meta
	pages  []*resident // its pages that are in memory
	coming extent      // segment of the log that is to be made ready
}

// beginSync makes the newest commit the target, whose slot and pages stay while a sync
// of it is under way; its txid is 0 where it is durable already.
func (db *DB) beginSync() (c target, err error) {
	db.placing.Lock()
	defer db.placing.Unlock()
	db.residents.mu.Lock() // so that the newest commit stays what it is
	defer db.residents.mu.Unlock()
	if c, err = db.takeTarget(); err == nil && c.at.txid != 0 {
		c.pages = db.residents.unwrittenPages()
	}
	return c, err
}

// takeTarget is beginSync without the pages.
func (db *DB) takeTarget() (c target, err error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	switch {
	case db.failed != nil:
		return c, db.failed
	case db.fm.Load() == nil:
		return c, ErrDatabaseNotOpen
	case db.durable.txid >= db.at.txid:
		return c, nil
	}
	db.target = db.at.txid
	return target{at: db.at, meta: db.newest, coming: db.redo.coming}, nil
}

// writeTarget writes what the target has in memory, and then its meta. A failed write is
// as bad as a failed sync: the log can't be used again, and grows without end.
func (db *DB) writeTarget(c *target, reason CheckpointReason) error {
	var writeOut func(e extent) error
	var pause func(e extent, done float64) error
	if reason != CheckpointAsked {
		writeOut = func(e extent) error {
			return db.writeOutPiece(int64(e.start)<<db.shift, int64(e.npages)<<db.shift)
		}
		pause = func(e extent, done float64) error {
			db.noteProgress(reason, 0.8*done)
			return writeOut(e)
		}
	}
	err := db.writeResidents(c.pages, c.at.txid, pause)
	if err == nil {
		err = db.zeroSegment(c.coming, writeOut)
	}
	if err == nil {
		_, err = db.writeMetaOf(&c.meta)
	}
	return db.synced(err)
}

// endSync ends what beginSync began.
func (db *DB) endSync(c *target, took time.Duration, ok bool) {
	if ok {
		db.noteCheckpoint(c.at, took)
		db.setDurable(c.at)
	}
	rs := &db.residents
	rs.mu.Lock() // so that nobody who waits for the end misses it
	defer rs.mu.Unlock()
	db.mu.Lock()
	defer db.mu.Unlock()
	if ok && db.redo.coming == c.coming { // else that log was given up meanwhile
		db.redo.coming = extent{}
	}
	db.checkpointer.stats.Progress = 0
	db.target = 0
	rs.fewer.Broadcast()
}

// noteCheckpoint counts a checkpoint that has made at durable.
func (db *DB) noteCheckpoint(at syncPoint, took time.Duration) {
	db.mu.Lock()
	defer db.mu.Unlock()
	st := &db.checkpointer.stats
	st.Count++
	st.Time += took
	st.Longest = max(st.Longest, took)
	st.Pages += at.work.minus(db.durable.work).npages
}

// noteProgress tells Stats where a checkpoint is.
func (db *DB) noteProgress(reason CheckpointReason, progress float64) {
	db.mu.Lock()
	defer db.mu.Unlock()
	st := &db.checkpointer.stats
	st.Reason, st.Progress = reason, progress
}

// writeOut has the kernel write what is dirty, piece by piece. An error of it is that of
// a sync.
func (db *DB) writeOut(reason CheckpointReason) error {
	size, err := db.syncFile.Size()
	for off := int64(0); off < size && err == nil; off += checkpointSweep {
		select {
		case <-db.closing:
			return nil // the sync does the rest
		default:
		}
		db.noteProgress(reason, 0.8+0.2*float64(off)/float64(size))
		err = db.writeOutPiece(off, checkpointSweep)
	}
	return err
}

func (db *DB) writeOutPiece(off, nbytes int64) error {
	db.syncIO.Lock()
	defer db.syncIO.Unlock()
	if err := db.failure(); err != nil {
		return err
	}
	return db.synced(db.syncFile.WriteOut(off, nbytes))
}
