package folio

// group.go is how write transactions of many goroutines share one commit.
//
// A transaction that ends while a sync is under way, or while others wait for the writer
// lock, is not written by itself: it joins the open group. Its changes stay in the
// writer's state as dirty pages, and the next transaction runs as a layer on top of
// them, which is taken back where it fails. The first that finds no reason to wait any
// longer seals the group: it writes all of it as one commit, with one redo record, gives
// up the writer lock, and syncs. Should there be no such transaction, the first member
// does it, once the sync is over that it waited for. A lone writer never has a group.
//
// Who was told that its commit is durable often has the next one at once. So a group that
// is to be sealed when a sync ends waits for those, an eighth of the time of a sync at
// most: half of all would wait for a second sync otherwise.
//
// Invariants:
//   - db.group is changed by the holder of the writer lock, under mu;
//   - while it is not nil, db.writeTx holds the changes of its members, at layer 0;
//   - each group that was opened is sealed, and done, exactly once.

import (
	"math"
	"runtime"
	"time"
)

// group is what several transactions become a commit with.
type group struct {
	nmembers int
	lead     chan struct{} // the first member is to see how it stands
	sealed   chan struct{} // closed when it was written, or could not be
	done     chan struct{} // closed when it is durable, or has failed
	handed   bool          // the first member has to sync it; set before sealed is closed
	commit   txid          // that it became; likewise
	err      error         // set before sealed and again before done is closed
}

// A group is sealed, whatever is under way, where it has more than this.
const (
	maxGroupRecord = 1 << 20 // bytes of redo record
	maxGroupDirty  = 8 << 20 // bytes of dirty pages
)

// shortTransaction is about what a sync takes. Who waits for a group waits for all that
// join it, so none are let in where transactions are usually longer than this.
const shortTransaction = 2 * time.Millisecond

// mayJoin reports whether the transaction that ends is to become part of a group rather
// than a commit of its own: where others are about to commit too, or were just now.
func (db *DB) mayJoin(s *txState) bool {
	if s.spilled || len(s.redo.record) > maxGroupRecord || s.w.nbytes > maxGroupDirty {
		return false
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	n := 1
	if db.group != nil {
		n += db.group.nmembers
	}
	if db.failed != nil || db.nsyncing < 2 && n >= db.halfOfAll() {
		return false
	}
	return db.nsyncing > 0 || db.gathering || db.lastMembers > 1 || db.nwaiting.Load() > 0
}

// halfOfAll returns how many members a group has that is sealed while another syncs, so
// that processor and disk work side by side: half of those that commit at the same time.
// Where they are few, or a sync takes longer than all of them, they had better share one.
// mu is held.
func (db *DB) halfOfAll() int {
	work := time.Duration(db.ncommitters*float64(db.usualLength)) + db.sealTime
	if db.ncommitters < fewCommitters || work < db.syncTime {
		return math.MaxInt
	}
	return int(db.ncommitters) / 2
}

const fewCommitters = 8

// noteLength keeps how long a write transaction usually is.
func (db *DB) noteLength(d time.Duration) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.usualLength += (d - db.usualLength) / 8
}

// joinGroup makes the transaction that has ended part of the open group, or of a new one,
// gives up the writer lock, and returns when the group is durable.
func (db *DB) joinGroup() error {
	db.mu.Lock()
	g, first := db.group, db.group == nil
	if first {
		g = &group{lead: make(chan struct{}, 1), sealed: make(chan struct{}), done: make(chan struct{})}
		db.group = g
		if db.nsyncing == 0 {
			db.gathering = true
			g.wake()
		}
	}
	g.nmembers++
	db.mu.Unlock()
	db.unlockWriter()
	if first {
		db.leadGroup(g)
	}
	<-g.done
	return g.err
}

// wake tells the first member to see how the group stands.
func (g *group) wake() {
	select {
	case g.lead <- struct{}{}:
	default: // it was told
	}
}

// isSealed reports whether g takes no more members.
func (g *group) isSealed() bool {
	select {
	case <-g.sealed:
		return true
	default:
		return false
	}
}

// leadGroup is what the first member does until someone, which it may be itself, has
// taken on the sync of its group.
func (db *DB) leadGroup(g *group) {
	for {
		select {
		case <-g.done:
			return
		case <-g.lead:
		}
		if !g.isSealed() {
			db.gather(g)
			db.sealAsFirst(g)
		}
		if g.isSealed() && g.handed {
			db.endCommit(g, g.commit, g.err)
			return
		}
	}
}

// gather waits for as many more to join g as the last commit had, an eighth of the time of a
// sync at most.
func (db *DB) gather(g *group) {
	db.mu.Lock()
	want, until := min(g.nmembers+db.lastMembers, db.halfOfAll()), time.Now().Add(db.syncTime/8)
	for g.nmembers < want && db.group == g && time.Now().Before(until) {
		db.mu.Unlock()
		runtime.Gosched()
		db.mu.Lock()
	}
	db.gathering = false
	db.mu.Unlock()
}

// sealAsFirst seals g when the writer lock is to be had, unless someone else does.
func (db *DB) sealAsFirst(g *group) {
	select {
	case db.writer <- struct{}{}:
		if db.group == g {
			db.seal(db.writeTx, true, true)
		}
		db.unlockWriter()
	case <-g.sealed:
	}
}

// sealBefore seals the open group, if there is one, before something begins that is not
// to be part of it; its first member sees to the sync. The writer lock is held.
func (db *DB) sealBefore() {
	if g := db.group; g != nil {
		db.seal(db.writeTx, true, true)
		g.wake()
	}
}

// seal writes what the writer's state holds, be it of one transaction or a group, as one
// commit, and clears that state. Where sync is true the commit is to be synced: by the
// first member of its group if it is handed on, else by an endCommit that has to follow.
// The writer lock is held, before and after.
func (db *DB) seal(s *txState, sync, handOn bool) (t txid, err error) {
	g, done := db.group, false
	defer func() { db.abandonUnless(done) }()
	begun := time.Now()
	if err = s.commit(sync); err == nil {
		db.afterDurable(s.id, s.hooks)
	}
	if err == nil && s.id != s.base {
		db.stats.commits.Add(uint64(g.size()))
	}
	t = s.id
	db.clearWrite(s)
	db.mu.Lock()
	db.group, db.gathering = nil, false
	if err == nil && (sync || g != nil) {
		db.nsyncing++
		db.nsealed += g.size()
		db.sealTime += (time.Since(begun) - db.sealTime) / 8
	}
	db.mu.Unlock()
	if g != nil {
		g.handed, g.commit, g.err = handOn, t, err
		close(g.sealed)
	}
	done = true
	return t, err
}

// size returns how many transactions become a commit with g, which may be nil.
func (g *group) size() int {
	if g == nil {
		return 1
	}
	return g.nmembers
}

// endCommit syncs commit t, which was sealed with err, and tells its group, if it has one.
func (db *DB) endCommit(g *group, t txid, err error) error {
	failed := err != nil
	if !failed {
		err = db.secure(t)
	}
	if g != nil {
		g.err = err
		close(g.done)
	}
	if failed {
		return err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	now := db.nsealed + int(db.nwaiting.Load())
	if db.group != nil {
		now += db.group.nmembers
	}
	db.ncommitters += (float64(now) - db.ncommitters) / 8
	db.nsyncing--
	db.nsealed -= g.size()
	db.lastMembers = g.size()
	if db.group != nil && (db.nsyncing == 0 || db.nsyncing == 1 && db.group.nmembers >= db.halfOfAll()) {
		db.gathering = true
		db.group.wake()
	}
	return err
}

// beginMember starts a transaction on top of the open group.
func (db *DB) beginMember() *txState {
	s := db.writeTx
	s.began = time.Now()
	s.idBefore, s.id = s.id, max(s.id, db.burned)+1
	s.pushLayer()
	return s
}

// undoMember takes back a transaction on top of the open group.
func (s *txState) undoMember() {
	s.undoNested()
	s.w.recycle()
	s.id, s.err = s.idBefore, nil
}

// takesMembers reports whether a transaction that begins may run on top of the open group.
func (db *DB) takesMembers() bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.group != nil && db.usualLength < shortTransaction && max(db.writeTx.id, db.burned) < maxCounter
}
