package main

// store_bbolt.go drives bbolt.

import (
	"errors"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
)

var bboltEngine = &engine{
	name:    "bbolt",
	module:  "go.etcd.io/bbolt",
	alone:   true,
	note:    "pairs in a bucket; the default sync, FreelistMapType, NoStatistics, a mapping large enough from the start; FillPercent 0.9 where keys are put in order",
	batches: "bbolt, Batch",
	open:    openBolt,
}

type boltStore struct {
	db     *bolt.DB
	sorted bool
}

func openBolt(dir string, o openOptions) (store, error) {
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
	db, err := bolt.Open(filepath.Join(dir, "pairs.bolt"), 0o600, &opts)
	if err != nil {
		return nil, err
	}
	s := &boltStore{db, o.sorted}
	if !o.create {
		return s, nil
	}
	return s, db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucket(bucketName)
		return err
	})
}

func (s *boltStore) apply(ops []op) error {
	return s.db.Update(func(tx *bolt.Tx) error { return s.change(tx, ops) })
}

func (s *boltStore) batch(ops []op) error {
	return s.db.Batch(func(tx *bolt.Tx) error { return s.change(tx, ops) })
}

func (s *boltStore) change(tx *bolt.Tx, ops []op) error {
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

func (s *boltStore) ranges(rs []rangeLookup) error {
	return s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketName).Cursor()
		for i := range rs {
			r := &rs[i]
			var t tally
			for k, v := c.Seek(r.first[:]); k != nil && t.pairs < r.want.pairs; k, v = c.Next() {
				t.add(v)
			}
			if err := t.check(r.want); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *boltStore) scan() (t tally, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketName).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			t.add(v)
		}
		return nil
	})
	return t, err
}

func (s *boltStore) view(fn func(get func(key []byte) ([]byte, error)) error) error {
	return s.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketName)
		return fn(func(key []byte) ([]byte, error) { return b.Get(key), nil })
	})
}

func (s *boltStore) close() error {
	if s.db.NoSync { // make it durable, as Folio's Close does
		if err := s.db.Sync(); err != nil {
			return errors.Join(err, s.db.Close())
		}
	}
	return s.db.Close()
}
