package folio

// checkpoint.go brings the pages of logged commits to the disk, beside the writer, so
// that the log can be used again and a recovery stays short.
//
// A checkpoint makes the newest commit its target, has the kernel write what is dirty
// piece by piece, so that commits beside it find the disk free, and syncs the rest; then
// the target is the durable commit. It is a sync as any other: where it fails, nothing
// is written any more.

import (
	"sync/atomic"
	"time"
)

// CheckpointReason says why a checkpoint was made.
type CheckpointReason string

const (
	CheckpointLog   CheckpointReason = "log"   // the redo log has passed its limit
	CheckpointSpace CheckpointReason = "space" // much space waits for it
	CheckpointIdle  CheckpointReason = "idle"  // no commit has come for a while
)

const (
	checkpointPiece = 8 << 20         // bytes that are written out at once
	checkpointIdle  = 2 * time.Second // without a commit
)

// checkpointer is what the goroutine that makes checkpoints shares with the writer.
type checkpointer struct {
	wake   chan struct{}
	asleep atomic.Bool // nothing is to be written: the next commit wakes it

	count  atomic.Uint64
	nanos  atomic.Int64 // spent in checkpoints
	done   atomic.Int64 // bytes of the file that the one under way has been over
	reason atomic.Value // CheckpointReason, of the last one
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
	db.mu.Lock()
	defer db.mu.Unlock()
	since := db.at.work.minus(db.durable.work)
	switch {
	case since.nbytes >= uint64(db.pressure.logLimit) || since.nops >= maxLogOps:
		return CheckpointLog
	case db.pressure.held > maxHeldBytes && db.pressure.held > db.sizes.FileSize/4:
		return CheckpointSpace
	}
	return ""
}

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
				continue
			}
			c.asleep.Store(false)
			if now == last && db.checkpoint(CheckpointIdle) != nil {
				return
			}
			last = now
			idle.Reset(checkpointIdle)
		}
		for reason := db.checkpointDue(); reason != ""; reason = db.checkpointDue() {
			if db.checkpoint(reason) != nil {
				return // logged, and every commit says so from here on
			}
		}
	}
}

// checkpoint makes the newest commit durable, with all its pages.
func (db *DB) checkpoint(reason CheckpointReason) error {
	c := &db.checkpointer
	begun := time.Now()
	err := db.syncNow(db.writeOut)
	c.done.Store(0)
	c.nanos.Add(int64(time.Since(begun)))
	c.count.Add(1)
	c.reason.Store(reason)
	if err == nil {
		db.runHooks()
	}
	return err
}

// writeOut has the kernel write what is dirty, piece by piece. An error of it is that of
// a sync.
func (db *DB) writeOut() error {
	size, err := db.syncFile.Size()
	for off := int64(0); off < size && err == nil; off += checkpointPiece {
		select {
		case <-db.closing:
			return nil // the sync does the rest
		default:
		}
		db.checkpointer.done.Store(off + 1)
		err = db.writeOutPiece(off)
	}
	return err
}

func (db *DB) writeOutPiece(off int64) error {
	db.syncIO.Lock()
	defer db.syncIO.Unlock()
	if err := db.failure(); err != nil {
		return err
	}
	return db.synced(db.syncFile.WriteOut(off, checkpointPiece))
}
