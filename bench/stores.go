package main

// stores.go drives each store through its own API, the way its documentation
// advises. The timed loops are here, one per store, so that no indirection of the
// benchmark's own is measured.

import (
	"encoding/binary"
	"os"

	"github.com/foliokv/folio"
	bolt "go.etcd.io/bbolt"
)

// store is one open store under test.
type store interface {
	apply(ops []op) error // all of them in one transaction
	gets(ls []lookup) error
	viewGets(ls []lookup) error
	scan() (tally, error)
	view(fn func(get func(key []byte) []byte) error) error
	close() error
}

// tally is what a scan adds up.
type tally struct {
	pairs int
	sum   uint64 // of the values' stamps: every value is looked at
}

// openOptions say what a store is opened for.
type openOptions struct {
	durable bool // each commit is on disk when it returns
	sorted  bool // keys will be put in ascending order
	npairs  int  // how many it will hold
}

// engine is a kind of store.
type engine struct {
	name string
	note string // how it is used, for the report
	open func(path string, o openOptions) (store, error)
}

var bucketName = []byte("pairs")

var (
	folioEngine = engine{
		name: "folio",
		note: "pairs in the root bucket, default options",
		open: func(path string, o openOptions) (store, error) { return openFolio(path, o, false) },
	}
	folioBucketEngine = engine{
		name: "folio, bucket",
		note: "pairs in a bucket, as bbolt needs them, default options",
		open: func(path string, o openOptions) (store, error) { return openFolio(path, o, true) },
	}
	bboltEngine = engine{
		name: "bbolt",
		note: "pairs in a bucket; FreelistMapType, NoStatistics, a mapping large enough from the start; FillPercent 0.9 where keys are put in order",
		open: openBolt,
	}
)

// --- Folio

type folioStore struct {
	db     *folio.DB
	bucket bool
}

func openFolio(path string, o openOptions, bucket bool) (store, error) {
	opts := &folio.Options{}
	if !o.durable {
		opts.Sync = folio.SyncOff
	}
	db, err := folio.Open(path, 0o600, opts)
	if err != nil {
		return nil, err
	}
	s := &folioStore{db, bucket}
	if !bucket {
		return s, nil
	}
	return s, db.Update(func(tx *folio.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucketName)
		return err
	})
}

// pairs is the bucket that holds the pairs.
func (s *folioStore) pairs(tx *folio.Tx) *folio.Bucket {
	if s.bucket {
		return tx.Bucket(bucketName)
	}
	return tx.Root()
}

func (s *folioStore) apply(ops []op) error {
	return s.db.Update(func(tx *folio.Tx) error {
		b := s.pairs(tx)
		for _, o := range ops {
			if o.value == nil {
				if err := b.Delete(o.key); err != nil {
					return err
				}
			} else if err := b.Put(o.key, o.value); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *folioStore) gets(ls []lookup) error {
	return s.db.View(func(tx *folio.Tx) error {
		b := s.pairs(tx)
		for i := range ls {
			l := &ls[i]
			if err := l.check(b.Get(l.key[:])); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *folioStore) viewGets(ls []lookup) error {
	var l *lookup
	get := func(tx *folio.Tx) error { return l.check(tx.Get(l.key[:])) }
	if s.bucket {
		get = func(tx *folio.Tx) error { return l.check(tx.Bucket(bucketName).Get(l.key[:])) }
	}
	for i := range ls {
		l = &ls[i]
		if err := s.db.View(get); err != nil {
			return err
		}
	}
	return nil
}

func (s *folioStore) scan() (t tally, err error) {
	err = s.db.View(func(tx *folio.Tx) error {
		c := s.pairs(tx).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			t.pairs++
			t.sum += binary.LittleEndian.Uint64(v)
		}
		return nil
	})
	return t, err
}

// iterate is scan by range-over-func, which bbolt has nothing like.
func (s *folioStore) iterate() (t tally, err error) {
	err = s.db.View(func(tx *folio.Tx) error {
		for _, v := range s.pairs(tx).All() {
			t.pairs++
			t.sum += binary.LittleEndian.Uint64(v)
		}
		return nil
	})
	return t, err
}

func (s *folioStore) view(fn func(get func(key []byte) []byte) error) error {
	return s.db.View(func(tx *folio.Tx) error { return fn(s.pairs(tx).Get) })
}

func (s *folioStore) close() error { return s.db.Close() }

// --- bbolt

type boltStore struct {
	db     *bolt.DB
	sorted bool
}

func openBolt(path string, o openOptions) (store, error) {
	opts := *bolt.DefaultOptions
	// The map is the faster free list in almost all circumstances, by bbolt's own
	// documentation, though not its default.
	opts.FreelistType = bolt.FreelistMapType
	// Left at its default, false: the free list is written with each commit. Without
	// it commits are cheaper, but opening has to read the whole tree.
	opts.NoFreelistSync = false
	// Statistics cost a lock at the end of each transaction; nothing here reads them.
	opts.NoStatistics = true
	// Growing the mapping unmaps it, so that every page faults once more. Folio
	// reserves address space at the start; so may bbolt, for what the store will need.
	opts.InitialMmapSize = max(1<<30, o.npairs*1024)
	opts.NoSync = !o.durable
	db, err := bolt.Open(path, 0o600, &opts)
	if err != nil {
		return nil, err
	}
	s := &boltStore{db, o.sorted}
	return s, db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucketName)
		return err
	})
}

func (s *boltStore) apply(ops []op) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketName)
		if s.sorted {
			b.FillPercent = 0.9 // for keys in order its documentation advises more than the default 0.5
		}
		for _, o := range ops {
			if o.value == nil {
				if err := b.Delete(o.key); err != nil {
					return err
				}
			} else if err := b.Put(o.key, o.value); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *boltStore) gets(ls []lookup) error {
	return s.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketName)
		for i := range ls {
			l := &ls[i]
			if err := l.check(b.Get(l.key[:])); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *boltStore) viewGets(ls []lookup) error {
	var l *lookup
	get := func(tx *bolt.Tx) error { return l.check(tx.Bucket(bucketName).Get(l.key[:])) }
	for i := range ls {
		l = &ls[i]
		if err := s.db.View(get); err != nil {
			return err
		}
	}
	return nil
}

func (s *boltStore) scan() (t tally, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketName).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			t.pairs++
			t.sum += binary.LittleEndian.Uint64(v)
		}
		return nil
	})
	return t, err
}

func (s *boltStore) view(fn func(get func(key []byte) []byte) error) error {
	return s.db.View(func(tx *bolt.Tx) error { return fn(tx.Bucket(bucketName).Get) })
}

func (s *boltStore) close() error {
	if s.db.NoSync { // make it durable, as Folio's Close does
		if err := s.db.Sync(); err != nil {
			s.db.Close()
			return err
		}
	}
	return s.db.Close()
}

// --- the bare disk

// bareFile is what a durable commit can't beat: one page written and synced, in a
// file whose blocks are there already.
type bareFile struct {
	f    *os.File
	page [4096]byte
	next int64
}

const barePages = 4096

func openBare(path string) (*bareFile, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	b := &bareFile{f: f}
	// Written, not just allocated: a first write into a hole or an unwritten block
	// changes the file's metadata, and the sync would have to write that too.
	if _, err := f.Write(make([]byte, barePages*len(b.page))); err != nil {
		return nil, err
	}
	return b, f.Sync()
}

// commit writes the next page and syncs it.
func (b *bareFile) commit() error {
	b.next = (b.next + 1) % barePages
	binary.LittleEndian.PutUint64(b.page[:], uint64(b.next))
	if _, err := b.f.WriteAt(b.page[:], b.next*int64(len(b.page))); err != nil {
		return err
	}
	return datasync(b.f)
}
