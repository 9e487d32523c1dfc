package folio

// recovery_test.go tests what a recovery keeps in mind beyond the commit that it picks.

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/foliokv/folio/internal/mmap"
	"github.com/stretchr/testify/require"
)

// The number in a torn meta page is not used again: a crash that tears the meta written
// over it, or its wiping, can make it whole, and then two commits would have it.
func TestNumberOfTornMetaIsNotUsedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	db := testStore(t, path, nil)
	fill(t, db, 0, 100, 100)
	require.NoError(t, db.Close())
	torn, slot := db.newest.txid, int64(0)
	for i, txid := range db.slots {
		if txid == torn {
			slot = int64(i)
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("of an older meta"), (slot+1)*minPageSize-512)
	require.NoError(t, err)
	require.NoError(t, f.Close())

	db = testStore(t, path, nil)
	require.Greater(t, db.newest.txid, torn)
	mustBeSound(t, db)
}

// A store whose end is missing does not silently become an older one: a whole meta knows
// that a newer commit was durable.
func TestLostDurableCommitIsDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	db := testStore(t, path, nil)
	fill(t, db, 0, 10, 100)
	before := int64(db.newest.npages) << db.shift
	fill(t, db, 10, 1000, 100) // one commit
	require.NoError(t, db.Close())
	require.NoError(t, os.Truncate(path, before))
	for _, readOnly := range []bool{true, false} {
		_, err := Open(path, 0, &Options{ReadOnly: readOnly})
		require.ErrorIs(t, err, ErrCorrupt)
		require.ErrorContains(t, err, "was durable")
	}
}

// A meta page is believed for its sum alone: a byte that nothing else would miss makes
// it one that is not whole.
func TestMetaOfAWrongSum(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	db := testStore(t, path, nil)
	fill(t, db, 0, 10, 100)
	require.NoError(t, db.Close())
	for i, txid := range db.slots {
		if txid == db.newest.txid {
			flipByte(t, path, int64(i)*minPageSize+offUUID)
		}
	}
	db = testStore(t, path, &Options{ReadOnly: true})
	require.Len(t, db.unsettled, 1)
	require.EqualValues(t, 10, pairsOf(t, db))
	require.NoError(t, db.Close())
	db = testStore(t, path, nil)
	require.NoError(t, db.Close())
	db = testStore(t, path, &Options{ReadOnly: true})
	require.Empty(t, db.unsettled, "an open for writing has wiped it")
}

// An open for writing makes the name of the file durable, whoever created it: that
// process may have died before it did so, or the sync failed.
func TestOpenSyncsTheName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	h := intercept(t, path)
	nsynced, boom := 0, errors.New("boom")
	h.setFail(func(op mmap.Op) error {
		if op.Kind != mmap.OpSyncDir {
			return nil
		}
		nsynced++
		if nsynced <= 2 {
			return boom
		}
		return nil
	})
	for range 2 { // the creation, and then a store that is there
		_, err := Open(path, 0o600, nil)
		require.ErrorIs(t, err, boom)
		require.FileExists(t, path)
	}
	link := path + "-link"
	require.NoError(t, os.Symlink(path, link))
	for range 2 {
		require.NoError(t, testStore(t, path, nil).Close())
		require.NoError(t, testStore(t, link, nil).Close())
	}
	require.Equal(t, 4, nsynced)
	require.NoError(t, testStore(t, path, &Options{ReadOnly: true}).Close())
	require.Equal(t, 4, nsynced, "a reader acknowledges nothing")
}

func flipByte(t *testing.T, path string, off int64) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, off)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{b[0] ^ 0xff}, off)
	require.NoError(t, err)
}

func pairsOf(t *testing.T, db *DB) (n uint64) {
	require.NoError(t, db.View(func(tx *Tx) error { n = tx.Root().Len(); return nil }))
	return n
}

// Where the numbers of commits and buckets are used up, which takes a meta that lies,
// nothing is written that could not be read again.
func TestNumbersUsedUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	b := newStore(minPageSize)
	m, err := decodeMeta(b[:minPageSize], 0)
	require.NoError(t, err)
	write := func() {
		m.encode(b[:minPageSize], 0)
		require.NoError(t, os.WriteFile(path, b, 0o600))
	}
	m.txid, m.nextTree = 7, maxCounter
	m.free = newFreelist(numMetas, 7).state()
	write()
	db := testStore(t, path, nil)
	require.ErrorIs(t, db.Update(func(tx *Tx) error {
		_, err := tx.CreateBucket([]byte("b"))
		return err
	}), ErrCorrupt)
	require.NoError(t, db.Close())

	m.txid, m.nextTree = maxCounter-1, 0
	m.free = newFreelist(numMetas, maxCounter-1).state()
	write()
	db = testStore(t, path, nil)
	fill(t, db, 0, 1, 1) // the last commit
	err = db.Update(func(tx *Tx) error { return nil })
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, "is the last that there is")
	require.NoError(t, db.Close())
	db = testStore(t, path, nil)
	require.EqualValues(t, 1, pairsOf(t, db))
	mustBeSound(t, db)
}

// A page that is written is no longer taken for verified, nor is the run that it lies
// in: a free list that lies may give a page that is in use, and what is read there must
// then be found to be wrong.
func TestWrittenPagesAreVerifiedAgain(t *testing.T) {
	db := testStore(t, filepath.Join(t.TempDir(), "s"), nil)
	fm := db.fm.Load()
	words := func(n ...uint32) {
		for i, w := range n {
			fm.verified[10+i].Store(w)
		}
	}
	read := func() (got [6]uint32) {
		for i := range got {
			got[i] = fm.verified[10+i].Load()
		}
		return got
	}
	words(5, 6, insideRun, insideRun, insideRun, 7)
	fm.forget(13, 14)
	require.Equal(t, [6]uint32{5, 0, insideRun, 0, insideRun, 7}, read(), "with the head of its run")
	words(5, 6, insideRun, insideRun, insideRun, 7)
	fm.forget(10, 12)
	require.Equal(t, [6]uint32{0, 0, insideRun, insideRun, insideRun, 7}, read())
	require.NotContains(t, []uint32{unverified, insideRun}, fold(0))
	require.NotContains(t, []uint32{unverified, insideRun}, fold(1))
}

// What a recovery may have to prove can be told from the freelog: it lists every page of the
// newest commit that was written since the one that its meta knows durable, also after the
// freelog was written anew.
func TestFreelogListsWhatIsToBeProven(t *testing.T) {
	db := testStore(t, filepath.Join(t.TempDir(), "s"), &Options{Sync: SyncOff})
	fill(t, db, 0, 2000, 100)
	require.NoError(t, db.Sync())
	nmoves, start := 0, pgno(0)
	for i := range 3000 {
		fill(t, db, i*7919%2000, i*7919%2000+1, 100)
		if i%700 == 699 {
			require.NoError(t, db.Sync())
		}
		m := db.newest
		if m.free.start != start {
			nmoves, start = nmoves+1, m.free.start
		} else if i%100 != 0 {
			continue
		}
		pr := prover{db: db, psize: db.psize}
		fl, err := loadFreelist(m.free, 0, m.npages, m.txid, db.psize, pr.readFreelog)
		require.NoError(t, err)
		listed := fl.allocatedSince(m.durable)
		require.NoError(t, db.View(func(tx *Tx) error {
			root := tx.Root().t
			return root.pg.walkPages(root.rec, func(n pgno, p page, _ int) error {
				if p.txid() > m.durable {
					require.Equal(t, p.txid(), listed[n], "page %d", n)
				}
				return nil
			}, nil)
		}))
	}
	require.Positive(t, nmoves, "reading never begins anew")
}

// staleCache is a page cache that has pages which the disk lost: a read sees them until the
// cache is told to drop them.
type staleCache struct {
	mu     sync.Mutex
	cached map[int64][]byte // by offset
}

func (c *staleCache) Do(op mmap.Op, run func() error) error {
	err := run()
	c.mu.Lock()
	defer c.mu.Unlock()
	for off, p := range c.cached {
		switch {
		case op.Kind == mmap.OpDropCache && op.Off <= off && (op.NBytes == 0 || off < op.Off+op.NBytes),
			op.Kind == mmap.OpWrite && op.Off <= off && off < op.Off+op.NBytes:
			delete(c.cached, off)
		case op.Kind == mmap.OpRead && off < op.Off+op.NBytes && op.Off < off+int64(len(p)):
			to := op.Bufs[0]
			if off >= op.Off {
				copy(to[off-op.Off:], p)
			} else {
				copy(to, p[op.Off-off:])
			}
		}
	}
	return err
}

// shownBy returns what a store opened on file shows, or that it can't be opened or read.
func shownBy(t *testing.T, file []byte, cached map[int64][]byte) string {
	path := filepath.Join(t.TempDir(), "s")
	require.NoError(t, os.WriteFile(path, file, 0o600))
	defer os.Remove(path)
	if cached != nil {
		defer mmap.Intercept(path, &staleCache{cached: cached})()
	}
	db, err := Open(path, 0o600, nil)
	if err != nil {
		require.ErrorIs(t, err, ErrCorrupt)
		return "damage"
	}
	defer db.Close()
	h := sha256.New()
	err = db.View(func(tx *Tx) error {
		for k, v := range tx.Root().All() {
			h.Write(binary.AppendUvarint(nil, uint64(len(k))))
			h.Write(k)
			h.Write(v)
		}
		return tx.Err()
	})
	if err != nil {
		require.ErrorIs(t, err, ErrCorrupt)
		return "damage"
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// A page that was written since the durable commit and is in the page cache alone, clean,
// because its write failed once, is not believed: an open sees what the disk has.
func TestRecoveryBelievesTheDisk(t *testing.T) {
	// The cache is dropped by pieces of 2 MiB, so metas, log, runs and freelog have to lie
	// megabytes apart.
	const many = 40_000
	put := func(db *DB, key string, nbytes int) {
		require.NoError(t, db.Update(func(tx *Tx) error { return tx.Put([]byte(key), make([]byte, nbytes)) }))
	}
	logged := testStore(t, filepath.Join(t.TempDir(), "logged"), nil)
	fill(t, logged, 0, many/2, 100)
	put(logged, "room for runs", 300_000)
	fill(t, logged, many/2, many, 100)
	put(logged, "room for runs", 0)
	require.NoError(t, logged.Sync())
	for i := 0; logged.Stats().Logged < 3; i++ {
		require.Less(t, i, 10)
		fill(t, logged, i, i+1, 100)
	}
	require.NoError(t, logged.Sync())
	withoutCheckpoints(t, logged)
	before := logged.Stats()
	put(logged, "by reference", 100_000)
	fill(t, logged, 1, 2, 100)
	require.Equal(t, before.Logged+2, logged.Stats().Logged)

	unsynced := testStore(t, filepath.Join(t.TempDir(), "unsynced"), &Options{Sync: SyncOff})
	fill(t, unsynced, 0, many, 100)
	require.NoError(t, unsynced.Sync())
	for i := range 400 {
		fill(t, unsynced, i*many/400, i*many/400+1, 200)
	}
	for _, db := range []*DB{logged, unsynced} {
		t.Run(filepath.Base(db.path), func(t *testing.T) {
			file, durable := fileNow(t, db)
			kinds, ndiffers, ntree, ntrials := map[pageKind]int{}, 0, 0, 0
			whole := shownBy(t, file, nil)
			for off := int64(numMetas * minPageSize); off < int64(len(file)); off += minPageSize {
				p := page(file[off : off+minPageSize])
				isPage := p.pgno() == pgno(off/minPageSize)
				if bytes.Equal(p, zeros[:]) || isPage && p.txid() <= durable {
					continue
				}
				if isPage && (p.kind() == kindLeaf || p.kind() == kindBranch) {
					if ntree++; ntree%60 != 0 {
						continue // there are many
					}
				}
				ntrials++
				lost := slices.Clone(file)
				clear(lost[off : off+minPageSize])
				want := shownBy(t, lost, nil)
				require.Equal(t, want, shownBy(t, lost, map[int64][]byte{off: p}), "page %d, kind %v", off/minPageSize, p.kind())
				if want != whole {
					ndiffers++
					if isPage {
						kinds[p.kind()]++
					}
				}
			}
			t.Log(ntrials, "pages lost;", ndiffers, "pages whose loss shows;", kinds)
			require.NotZero(t, ndiffers)
			if db == logged {
				require.NotZero(t, kinds[kindRun])
			} else {
				require.NotZero(t, kinds[kindFreelog])
				require.NotZero(t, kinds[kindLeaf])
			}
		})
	}
}
