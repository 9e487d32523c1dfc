package folio

// db.go opens and closes a store, and holds what its transactions share: the data
// file, its mapping, the reader table, the free list, the newest commit.
//
// Invariants:
//   - only the holder of the writer lock changes the free list, writes pages, or
//     moves `newest` and `slots`;
//   - mu guards newest, at, durable, secured, tip, target, slots and unsynced together;
//     it is held for moments;
//   - durable <= newest; the slots of the durable commit, the target and the newest
//     are never written;
//   - a mapping is unmapped only when no transaction that began under it is left.

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/bits"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/foliokv/folio/internal/mmap"
	"github.com/foliokv/folio/internal/seeded"
	"github.com/foliokv/folio/internal/shm"
	"golang.org/x/sys/unix"
)

// SyncMode says what is synced before a commit returns.
type SyncMode uint8

const (
	// SyncFull: a commit is durable when it returns. The default. A small one is by its
	// record in the redo log, which this mode alone has, and commits share syncs.
	SyncFull SyncMode = iota
	// SyncInterval: a commit returns at once; a sync follows within Options.SyncEvery.
	// A crash of the machine may lose the commits since, and nothing else.
	SyncInterval
	// SyncOff: only DB.Sync, Close and the limit on space that can't be reused sync.
	// A crash of the machine may lose the commits since, and nothing else.
	SyncOff
)

// Options say how a store is opened. The zero value is safe and durable.
type Options struct {
	// ReadOnly opens the store for reading; it must exist. Nothing is created or written:
	// what a crash left in the redo log is replayed in memory.
	ReadOnly bool
	// Exclusive keeps other processes out. Today every open for writing does; see Timeout.
	Exclusive bool
	// InMemory keeps the store in anonymous memory; the path only names it.
	InMemory bool
	// Timeout is how long Open waits for the file's lock; 0 stands for 3 seconds, a
	// negative one for not at all.
	Timeout time.Duration
	// PageSize in bytes, a power of two from 4096 to 65536, used when the store is
	// created; 0 stands for 4096.
	PageSize int
	// Sync says what is synced before a commit returns.
	Sync SyncMode
	// SyncEvery is the most that SyncInterval waits before a sync; 0 stands for 1 second.
	SyncEvery time.Duration
	// TwoPhase syncs the pages of a durable commit before its meta is written, for
	// stores whose values an attacker chooses: the page sums are no cryptographic hash.
	// It costs a second sync, and commits are not logged. Those that are not synced at
	// once are not covered.
	TwoPhase bool
	// MaxSize is the largest size of the file in bytes; 0 stands for no limit. The redo
	// log counts, and pages that wait for a checkpoint do: a commit that finds no room makes
	// one before it fails. A recovery may exceed it.
	MaxSize int64
	// DirtyLimit is how many bytes of dirty pages a transaction keeps in memory before
	// it writes some early; 0 stands for 256 MiB. Branch pages, leaves with nested
	// buckets, and pages of which a slice is in use stay in memory beyond it.
	DirtyLimit int64
	// Verify says when the sums of pages are checked.
	Verify VerifyMode
	// Logger gets what is worth knowing; nil is silent.
	Logger *slog.Logger
	// OnSlowReader is called, at most once a second, after a commit, with the reader
	// whose snapshot keeps the most space from being reused. It must not block.
	OnSlowReader func(Reader)
}

const (
	defaultTimeout    = 3 * time.Second
	defaultSyncEvery  = time.Second
	defaultDirtyLimit = 256 << 20
	minReservation    = 1 << 30 // bytes of address space mapped for a small store
)

// DB is an open store. All its methods are safe for concurrent use.
type DB struct {
	path     string
	opts     Options
	log      *slog.Logger
	file     *mmap.File
	syncFile *mmap.File // the same file, for syncs of all of it beside those of the log
	psize    int
	shift    uint
	reserve  int64 // smallest mapping, in bytes

	table  *shm.Table
	readTx sync.Pool // *txState
	fm     atomic.Pointer[fileMap]

	writer     chan struct{} // holds one token while a write transaction is open
	writeTx    *txState      // the writer's state, used again and again
	placements []placement   // room for a commit's
	free       *freelist
	redo       redoLog
	logs       bool  // commits may be logged
	unlogged   txid  // the newest commit that has no record
	grown      txid  // no commit below it has changed the size of the file since
	burned     txid  // the largest txid that must not be used again
	nbytes     int64 // size of the file

	residents   residents  // pages that are committed and not in the file
	placing     sync.Mutex // from where a commit places its pages until it is the newest
	maxResident int64      // bytes of them

	nwaiting atomic.Int32 // write transactions that wait for the writer lock

	mu          sync.Mutex
	group       *group        // that takes members, or nil
	nsyncing    int           // commits that are being synced
	gathering   bool          // the group waits for a moment before it is sealed
	lastMembers int           // of the last commit that was synced
	nsealed     int           // transactions in the commits that are being synced
	ncommitters float64       // transactions that usually commit at the same time
	usualLength time.Duration // of a write transaction
	syncTime    time.Duration // that a sync of the log usually takes
	sealTime    time.Duration // that a commit usually takes before its sync
	newest      meta
	at          syncPoint // the newest commit
	durable     syncPoint // D: the last one whose pages are on the disk, with all before it
	secured     txid      // the last one that a crash can't take back
	tip         syncPoint // the last one that is logged
	unsynced    []logSpan // what has to be synced before tip is secured
	syncedAhead txid      // what belongs to it and to commits before it is synced
	target      txid      // C, 0 while no sync is in progress
	slots       [numMetas]txid
	waiters     []hook // OnCommit functions of commits that are not yet durable
	failed      error  // a sync failed: nothing is written any more
	sizes       Stats  // as of the newest commit
	pressure    pressure

	unsettled []int // meta slots that an open for writing would wipe

	syncing      sync.Mutex // held by the one sync outside a commit
	syncIO       sync.Mutex // held by whoever syncs the whole file: see fileSync
	logIO        sync.Mutex // held by whoever syncs the log
	checkpointer checkpointer
	hooking      bool // someone runs waiters, under mu
	closing      chan struct{}
	closed       atomic.Bool
	done         sync.WaitGroup // background goroutines
	retireMu     sync.Mutex
	retired      []*fileMap
	nretired     atomic.Int32

	lastSlow time.Time
	stats    counters
}

// pressure is what calls for a checkpoint, as of the newest commit.
type pressure struct {
	held     int64 // bytes that wait for the durable commit alone
	logLimit int64 // bytes in the log
}

// hook is an OnCommit function that waits for a commit to be durable.
type hook struct {
	txid txid
	fn   func()
}

// Open opens the store at path and creates it, with mode (before umask), where
// there is none. opts may be nil.
//
// A store is open in one process at a time, except that any number may have it open
// with ReadOnly; Open waits Options.Timeout for that and then fails with ErrTimeout
// and the name of the holder. Errors: ErrInvalid for a file that is no store,
// ErrVersionMismatch, ErrCorrupt, ErrTimeout, and those of the file system. A file
// that is no store is never changed.
//
// Where a crash has left something to recover, Open does that, and makes it durable. Where
// the disk has no room for it, the store is open all the same, recovered in memory and
// read-only (see DB.IsReadOnly); its file is left as it was.
func Open(path string, mode os.FileMode, opts *Options) (*DB, error) {
	db, err := open(path, mode, opts, minReservation)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	return db, nil
}

func open(path string, mode os.FileMode, opts *Options, reserve int64) (*DB, error) {
	db := &DB{path: path, reserve: reserve, maxResident: maxResident, writer: make(chan struct{}, 1), closing: make(chan struct{})}
	db.residents.fewer.L = &db.residents.mu
	if opts != nil {
		db.opts = *opts
	}
	if err := db.setDefaults(); err != nil {
		return nil, err
	}
	if err := db.openFile(mode); err != nil {
		return nil, err
	}
	if err := db.load(); err != nil {
		db.unmapAll()
		db.closeFiles()
		return nil, err
	}
	if db.opts.Sync == SyncInterval && !db.opts.ReadOnly {
		db.done.Go(db.syncEvery)
	}
	if db.logs {
		db.done.Go(db.makeCheckpoints)
	}
	return db, nil
}

func (db *DB) setDefaults() error {
	o := &db.opts
	switch {
	case o.Timeout == 0:
		o.Timeout = defaultTimeout
	case o.Timeout < 0:
		o.Timeout = 0
	}
	if o.PageSize == 0 {
		o.PageSize = minPageSize
	}
	if !isPageSize(o.PageSize) {
		return fmt.Errorf("page size %d: it must be a power of two from %d to %d", o.PageSize, minPageSize, maxPageSize)
	}
	if o.Sync > SyncOff {
		return fmt.Errorf("unknown sync mode %d", o.Sync)
	}
	if o.Verify > VerifyOff {
		return fmt.Errorf("unknown verify mode %d", o.Verify)
	}
	if least := int64(2 * numMetas * o.PageSize); o.MaxSize != 0 && o.MaxSize < least {
		return fmt.Errorf("size limit of %d bytes: it must be at least %d", o.MaxSize, least)
	}
	if o.SyncEvery <= 0 {
		o.SyncEvery = defaultSyncEvery
	}
	if o.DirtyLimit <= 0 {
		o.DirtyLimit = defaultDirtyLimit
	}
	if o.ReadOnly && o.InMemory {
		return errors.New("a store in memory cannot be opened read-only: it would be empty for ever")
	}
	db.log = o.Logger
	if db.log == nil {
		db.log = slog.New(slog.DiscardHandler)
	}
	return nil
}

func isPageSize(n int) bool {
	return n >= minPageSize && n <= maxPageSize && n&(n-1) == 0
}

// openFile opens and locks the data file, and creates it where there is none.
func (db *DB) openFile(mode os.FileMode) (err error) {
	if db.opts.InMemory {
		return db.openMemory()
	}
	db.file, err = mmap.Open(db.path, db.opts.ReadOnly)
	created := false
	if errors.Is(err, fs.ErrNotExist) && !db.opts.ReadOnly {
		err = mmap.Create(db.path, mode, newStore(db.opts.PageSize))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		created = err == nil
		db.file, err = mmap.Open(db.path, false)
	}
	if errors.Is(err, mmap.ErrNotRegular) {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err != nil {
		return err
	}
	err = db.lockFile()
	if err == nil && !created && !db.opts.ReadOnly {
		err = db.syncName()
	}
	db.syncFile = db.file
	if err == nil && !db.opts.ReadOnly {
		db.syncFile, err = db.file.Reopen()
	}
	if err != nil {
		db.file.Close()
	}
	return err
}

// closeFiles closes the data file.
func (db *DB) closeFiles() error {
	var err error
	if db.syncFile != db.file {
		err = db.syncFile.Close()
	}
	return errors.Join(err, db.file.Close())
}

func (db *DB) lockFile() error {
	err := db.file.Lock(!db.opts.ReadOnly, db.opts.Timeout)
	if errors.Is(err, mmap.ErrLocked) {
		return fmt.Errorf("%w after %v: %w", ErrTimeout, db.opts.Timeout, err)
	}
	return err
}

// syncName makes the file's name durable before anything is acknowledged: the process
// that created it may have died before it did that.
func (db *DB) syncName() error {
	err := mmap.SyncName(db.path)
	if errors.Is(err, fs.ErrPermission) {
		db.log.Warn("the directory can't be synced: the name of a store just created may be lost in a crash", "path", db.path, "err", err)
		return nil
	}
	return err
}

func (db *DB) openMemory() (err error) {
	if db.file, err = mmap.Memory(db.path); err != nil {
		return err
	}
	db.syncFile = db.file
	db.opts.Sync = SyncOff
	if err = db.file.Pwritev([][]byte{newStore(db.opts.PageSize)}, 0); err != nil {
		db.file.Close()
	}
	return err
}

// newStore returns the content of a new, empty store: four meta slots, one of them used.
func newStore(psize int) []byte {
	b := make([]byte, numMetas*psize)
	m := meta{txid: 1, durable: 1, clean: true, psize: psize, npages: numMetas, free: newFreelist(numMetas, 1).state()}
	rand.Read(m.uuid[:]) // it never fails
	m.encode(b[:psize], 0)
	return b
}

// load finds the newest good commit and makes it the current one.
func (db *DB) load() error {
	r, err := db.recover()
	if err != nil {
		return err
	}
	if len(r.log.records) > 0 && db.opts.ReadOnly {
		if err := db.goPrivate(); err != nil {
			return err
		}
	}
	err = db.start(&r)
	if !isNoRoom(err) || db.file.IsPrivate() {
		return err
	}
	// What is durable can be read all the same.
	full := err
	db.unmapAll()
	if r, err = db.recover(); err == nil {
		err = db.goPrivate()
	}
	if err == nil {
		err = db.start(&r)
	}
	if err != nil {
		return errors.Join(full, err)
	}
	db.poison(ErrDatabaseReadOnly, full)
	return nil
}

// isNoRoom reports whether err says that the disk or a quota is full.
func isNoRoom(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)
}

// goPrivate keeps what a recovery makes in memory: the file is not to be written, or
// there is no room in it.
func (db *DB) goPrivate() error {
	const room = 8 << 30 // address space: only what is written takes memory
	size, err := db.file.Size()
	if err != nil {
		return err
	}
	return db.file.GoPrivate(2*size + room)
}

// start makes what a recovery found the current state.
func (db *DB) start(r *recovered) (err error) {
	m := r.base
	db.psize, db.shift = m.psize, uint(bits.TrailingZeros(uint(m.psize)))
	if db.nbytes, err = db.file.Size(); err != nil {
		return err
	}
	fm, err := newFileMap(db.file, max(db.reserve, 2*db.nbytes), db.psize)
	if err != nil {
		return fmt.Errorf("map the file: %w", err)
	}
	db.fm.Store(fm)
	db.free = r.free
	at := syncPoint{txid: m.txid}
	db.newest, db.at, db.durable, db.secured, db.tip, db.slots = m, at, at, m.txid, at, r.slots
	db.unlogged, db.grown = 0, 0
	if seeded.Has(seeded.DurableStale) {
		db.durable.txid = m.durable
	}
	db.redo.load(m.log, m.txid)
	db.burned = r.seen
	db.table = shm.NewTable(m.commit())
	db.free.release([]txid{m.txid})
	o := &db.opts
	db.logs = o.Sync == SyncFull && !o.ReadOnly && !o.InMemory && !o.TwoPhase && !db.file.IsPrivate()
	db.checkpointer.wake = make(chan struct{}, 1)
	db.checkpointer.asleep.Store(true)
	db.noteSizes()
	return db.settle(r)
}

// settle ends a recovery. Where something was passed over, a meta or a record, what was
// replayed, and a new salt for the log, become a commit that is newer than all that was
// there; it is synced, and only then the metas that were passed over are wiped.
func (db *DB) settle(r *recovered) error {
	whole := (len(r.rejected) == 0 || seeded.Has(seeded.RejectedStay)) && (!r.log.cut || seeded.Has(seeded.CutIgnored))
	if whole && len(r.log.records) == 0 {
		return nil
	}
	if db.opts.ReadOnly && !db.file.IsPrivate() {
		db.unsettled = r.rejected
		return nil
	}
	limit := db.opts.MaxSize
	db.opts.MaxSize = 0 // recovery may need more
	resumed, err := db.commitRecovery(r, whole && db.logs)
	db.opts.MaxSize = limit
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	if resumed {
		return nil
	}
	zero := make([]byte, db.psize)
	for _, slot := range r.rejected {
		if db.slots[slot] != 0 {
			continue // the new meta went there
		}
		if err := db.file.Pwritev([][]byte{zero}, int64(slot)<<db.shift); err != nil {
			return fmt.Errorf("recover: wipe meta page %d: %w", slot, err)
		}
	}
	if seeded.Has(seeded.ReplayUnsynced) {
		return nil
	}
	return db.fileSync()
}

// commitRecovery makes the commit that a recovery ends with. Where it may, and does, leave
// the log as it is, resumed is true.
func (db *DB) commitRecovery(r *recovered, resumes bool) (resumed bool, err error) {
	if len(r.log.records) == 0 {
		return false, db.commitEmpty(true)
	}
	begun := time.Now()
	if resumed, err = db.replay(&r.log, resumes); err != nil {
		return false, err
	}
	db.log.Info("recovered from the redo log", "path", db.path, "records", len(r.log.records), "changes", r.log.work.nops, "seconds", time.Since(begun).Seconds())
	return resumed, nil
}

// commit returns what readers need to know of m.
func (m *meta) commit() shm.Commit {
	var raw [recordSize]byte
	putRecord(raw[:], m.root)
	c := shm.Commit{Txid: uint64(m.txid), NPages: m.npages}
	for i := range c.Root {
		c.Root[i] = binary.LittleEndian.Uint64(raw[8*i:])
	}
	return c
}

// rootRecord returns the root bucket's record of a commit in the reader table.
func rootRecord(c *shm.Commit) record {
	w := &c.Root
	return record{
		root:     ref{pgno: pgno(w[0]), sum: w[1], count: w[2]},
		id:       w[3],
		sequence: w[4],
		level:    int(w[5]),
	}
}

// beginRead takes a snapshot of the published commit.
func (db *DB) beginRead() (*txState, error) {
	if db.closed.Load() {
		return nil, fmt.Errorf("begin read transaction: %w", ErrDatabaseNotOpen)
	}
	s, _ := db.readTx.Get().(*txState)
	if s == nil {
		s = &txState{db: db}
	}
	var c shm.Commit
	again := s.slot != nil && db.table.AcquireAgain(s.slot, s.ringPlace, uint64(s.base))
	if !again {
		s.slot, s.slotHint, c, s.ringPlace = db.table.Acquire(s.slotHint)
	}
	// Close sets closed and then looks at the slots: either it sees this one, and waits,
	// or its mapping must not be touched here.
	if db.closed.Load() {
		s.slot.Release()
		return nil, fmt.Errorf("begin read transaction: %w", ErrDatabaseNotOpen)
	}
	fm := db.fm.Load()
	if again { // it has read this commit before
		s.err = nil
		s.setGuarded(false)
		if s.maps[0] != fm {
			s.maps = s.maps[:0]
			s.useMap(fm)
		}
		return s, nil
	}
	s.base, s.id = txid(c.Txid), txid(c.Txid)
	s.start(fm, c.NPages, rootRecord(&c))
	return s, nil
}

// start makes s ready to read a snapshot through fm.
func (s *txState) start(fm *fileMap, npages uint64, root record) {
	s.maps = s.maps[:0]
	s.useMap(fm)
	s.err = nil
	s.setGuarded(false)
	pg := &s.pg
	pg.shift, pg.psize, pg.resident = s.db.shift, s.db.psize, &s.db.residents
	pg.npages, pg.verify = pgno(npages), s.db.opts.Verify
	s.root = tree{pg: pg, rec: root}
}

// useMap makes fm the mapping that is read from here on; slices of those before stay.
func (s *txState) useMap(fm *fileMap) {
	s.maps = append(s.maps, fm)
	s.pg.data, s.pg.verified = fm.m.Data, fm.verified
}

// endRead gives up a read transaction.
func (db *DB) endRead(s *txState) {
	s.slot.Release()
	db.readTx.Put(s)
	if db.nretired.Load() > 0 {
		db.releaseMaps()
	}
}

// beginWrite waits for the writer lock and starts a write transaction, on the newest
// commit or on top of the open group.
func (db *DB) beginWrite(ctx context.Context) (*Tx, error) {
	tx, err := db.lockWriter(ctx)
	if err != nil {
		return nil, fmt.Errorf("begin write transaction: %w", err)
	}
	return tx, nil
}

func (db *DB) lockWriter(ctx context.Context) (*Tx, error) {
	if db.opts.ReadOnly {
		return nil, fmt.Errorf("%w: it was opened with ReadOnly", ErrDatabaseReadOnly)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := db.takeWriter(ctx); err != nil {
		return nil, err
	}
	if err := db.failure(); err != nil {
		<-db.writer
		return nil, err
	}
	if db.takesMembers() {
		return &Tx{s: db.beginMember(), member: true}, nil
	}
	db.sealBefore()
	s, err := db.startWrite()
	if err != nil {
		<-db.writer
		return nil, err
	}
	return &Tx{s: s}, nil
}

// takeWriter takes the writer lock, of a store that need not be writable.
func (db *DB) takeWriter(ctx context.Context) error {
	if db.closed.Load() {
		return ErrDatabaseNotOpen
	}
	select {
	case db.writer <- struct{}{}:
		return db.ifOpen()
	default:
	}
	db.nwaiting.Add(1)
	defer db.nwaiting.Add(-1)
	select { // waiters are served in the order in which they came
	case db.writer <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-db.closing:
		return ErrDatabaseNotOpen
	}
	return db.ifOpen()
}

// ifOpen gives the writer lock up again where the store is closed.
func (db *DB) ifOpen() error {
	if db.closed.Load() {
		<-db.writer
		return ErrDatabaseNotOpen
	}
	return nil
}

// startWrite sets the writer's state up; the writer lock is held. It fails where there
// is no number for another commit: a meta with a larger one could not be read again. No
// store gets there, so it is one that lies.
func (db *DB) startWrite() (*txState, error) {
	last := max(db.newest.txid, db.burned)
	if last >= maxCounter {
		return nil, corrupt(0, "commit number %d is the last that there is", last)
	}
	s := db.writeTx
	if s == nil {
		s = &txState{db: db, writable: true, byName: map[treeName]*tree{}}
		s.pg.w = &s.w
		s.w.spiller, s.w.psize, s.w.limit = s, db.psize, db.opts.DirtyLimit
		db.writeTx = s
	}
	m := &db.newest // only the writer changes it
	s.base, s.id, s.spilled = m.txid, last+1, false
	s.began = time.Now()
	s.slot, s.slotHint = db.table.AcquireAt(s.slotHint, uint64(m.txid))
	s.start(db.fm.Load(), m.npages, m.root)
	s.w.nextTree = m.nextTree
	s.redo.begin(db.logs, !db.redo.begun, &s.root)
	return s, nil
}

// endWrite gives up a write transaction and the writer lock.
func (db *DB) endWrite(s *txState) {
	db.clearWrite(s)
	db.unlockWriter()
}

// clearWrite ends what the writer's state holds. What was not committed is undone.
func (db *DB) clearWrite(s *txState) {
	s.w.reset()
	db.free.truncate(pgno(db.newest.npages)) // what it grew the store by and did not commit
	clear(s.byName)
	clear(s.trees)
	clear(s.hooks)
	s.trees, s.hooks = s.trees[:0], s.hooks[:0]
	s.slot.Release()
	clear(s.maps)
	s.root, s.err = tree{}, nil
}

// unlockWriter gives up the writer lock.
func (db *DB) unlockWriter() {
	<-db.writer
	if db.nretired.Load() > 0 {
		db.releaseMaps()
	}
}

// ensureMapped makes sure that the mapping covers nbytes. A larger one is made beside
// the old, which goes when its last transaction has ended.
func (db *DB) ensureMapped(nbytes int64) error {
	old := db.fm.Load()
	if nbytes <= int64(len(old.m.Data)) {
		return nil
	}
	fm, err := newFileMap(db.file, max(db.reserve, 2*nbytes), db.psize)
	if err != nil {
		return fmt.Errorf("map the file, grown to %d bytes: %w", nbytes, err)
	}
	fm.inherit(old)
	db.fm.Store(fm)
	// Who loads the pointer from here on gets the new one, so only those whose slot
	// is set by now, at this commit or an older one, can have the old.
	old.retired = db.newest.txid
	db.retireMu.Lock()
	db.retired = append(db.retired, old)
	db.retireMu.Unlock()
	db.nretired.Add(1)
	return nil
}

// releaseMaps unmaps old mappings that no transaction uses.
func (db *DB) releaseMaps() {
	if !db.retireMu.TryLock() {
		return // someone is at it
	}
	defer db.retireMu.Unlock()
	oldest := ^uint64(0)
	for _, r := range db.table.Readers(nil) {
		oldest = min(oldest, r.Txid)
	}
	kept := db.retired[:0]
	for _, fm := range db.retired {
		if uint64(fm.retired) < oldest {
			fm.unmap()
			db.nretired.Add(-1)
		} else {
			kept = append(kept, fm)
		}
	}
	clear(db.retired[len(kept):])
	db.retired = kept
}

func (db *DB) unmapAll() {
	db.retireMu.Lock()
	defer db.retireMu.Unlock()
	for _, fm := range db.retired {
		fm.unmap()
	}
	db.retired = nil
	db.nretired.Store(0)
	if fm := db.fm.Load(); fm != nil {
		fm.unmap()
	}
}

// --- close

// Close ends the store. It waits for open transactions, and logs who holds them after
// seconds; those who wait for the writer lock, and all who come later, get
// ErrDatabaseNotOpen. It makes everything durable, transactions that wait to share a commit
// among it. Closing twice is no error.
func (db *DB) Close() error { return db.CloseContext(context.Background()) }

// CloseContext is Close, but gives up waiting for open transactions when ctx is done;
// the store is then still open to those, and closed to new ones. Call it again to
// finish.
func (db *DB) CloseContext(ctx context.Context) error {
	if db.closed.CompareAndSwap(false, true) {
		close(db.closing)
	}
	if err := db.drain(ctx); err != nil {
		return fmt.Errorf("close store %s: %w", db.path, err)
	}
	db.done.Wait()
	db.syncing.Lock() // a wait of CommitAsync may still sync
	defer db.syncing.Unlock()
	db.logIO.Lock() // and so may a group
	defer db.logIO.Unlock()
	if db.fm.Load() == nil {
		<-db.writer
		return nil // closed before
	}
	err := db.finish()
	db.runHooks()
	db.unmapAll()
	db.fm.Store(nil)
	dropBuffers(db.psize)
	if cerr := db.closeFiles(); err == nil {
		err = cerr
	}
	<-db.writer
	if err != nil {
		return fmt.Errorf("close store %s: %w", db.path, err)
	}
	return nil
}

// drain takes the writer lock and waits until no transaction is open.
func (db *DB) drain(ctx context.Context) error {
	slow := time.NewTicker(5 * time.Second)
	defer slow.Stop()
	for got := false; !got; {
		select {
		case db.writer <- struct{}{}:
			got = true
		case <-ctx.Done():
			return fmt.Errorf("a write transaction is open: %w", ctx.Err())
		case <-slow.C:
			db.log.Warn("close waits for a write transaction", "path", db.path)
		}
	}
	db.sealBefore()
	pause := time.Millisecond
	for {
		open := db.table.Readers(nil)
		if len(open) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			<-db.writer
			return fmt.Errorf("%d read transactions are open: %w", len(open), ctx.Err())
		case <-slow.C:
			db.log.Warn("close waits for read transactions", "path", db.path, "open", len(open), "oldest", oldestReader(open))
		case <-time.After(pause):
			pause = min(2*pause, 50*time.Millisecond)
		}
	}
}

func oldestReader(open []shm.Reader) uint64 {
	oldest := open[0].Txid
	for _, r := range open {
		oldest = min(oldest, r.Txid)
	}
	return oldest
}

// finish makes the store whole for the next open: everything durable, a last meta
// that says so, no space behind the last page.
func (db *DB) finish() error {
	if db.opts.ReadOnly || db.opts.InMemory || db.file.IsPrivate() {
		return nil
	}
	if err := db.failure(); err != nil {
		return err
	}
	if db.durableTxid() < db.newest.txid && !seeded.Has(seeded.CloseUnsynced) {
		if err := db.checkpointAlone(CheckpointAsked); err != nil {
			return err
		}
	}
	if !db.newest.clean {
		if err := db.commitEmpty(false); err != nil {
			if db.failure() != nil {
				return err
			}
			// All is durable; the next open only has more to prove.
			db.log.Info("no last meta was written", "path", db.path, "err", err)
		}
	}
	if size := int64(db.newest.npages) << db.shift; db.nbytes > size {
		return db.file.Truncate(size)
	}
	return nil
}

// --- what a DB tells of itself

// Path returns the path that the store was opened with.
func (db *DB) Path() string { return db.path }

// IsReadOnly reports whether the store can't be written: it was opened so, there was no
// room to recover it, or a sync has failed, or what a failed commit wrote could not be
// taken back.
func (db *DB) IsReadOnly() bool { return db.opts.ReadOnly || db.failure() != nil }

// String returns a short description for logs.
func (db *DB) String() string { return fmt.Sprintf("folio.DB<%q>", db.path) }
