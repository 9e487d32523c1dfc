package main

// store_folio.go drives Folio.

import (
	"path/filepath"

	"github.com/foliokv/folio"
)

var (
	folioEngine = &engine{
		name:   "folio",
		module: "github.com/foliokv/folio",
		note:   "pairs in the root bucket; default options, among them SyncFull",
		open:   func(dir string, o openOptions) (store, error) { return openFolio(dir, o, false) },
	}
	folioBucketEngine = &engine{
		name:     "folio-bucket",
		module:   "github.com/foliokv/folio",
		note:     "as folio, but with the pairs in a bucket, as bbolt needs them",
		optional: true,
		open:     func(dir string, o openOptions) (store, error) { return openFolio(dir, o, true) },
	}
)

// bucketName is the bucket of stores that need one.
var bucketName = []byte("pairs")

type folioStore struct {
	db     *folio.DB
	bucket bool
}

func openFolio(dir string, o openOptions, bucket bool) (store, error) {
	opts := &folio.Options{}
	if !o.durable {
		opts.Sync = folio.SyncOff
	}
	db, err := folio.Open(filepath.Join(dir, "pairs.folio"), 0o600, opts)
	if err != nil {
		return nil, err
	}
	s := &folioStore{db, bucket}
	if !bucket || !o.create {
		return s, nil
	}
	return s, db.Update(func(tx *folio.Tx) error {
		_, err := tx.CreateBucket(bucketName)
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

func (s *folioStore) ranges(rs []rangeLookup) error {
	return s.db.View(func(tx *folio.Tx) error {
		c := s.pairs(tx).Cursor()
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

func (s *folioStore) scan() (t tally, err error) {
	err = s.db.View(func(tx *folio.Tx) error {
		c := s.pairs(tx).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			t.add(v)
		}
		return nil
	})
	return t, err
}

func (s *folioStore) view(fn func(get func(key []byte) ([]byte, error)) error) error {
	return s.db.View(func(tx *folio.Tx) error {
		b := s.pairs(tx)
		return fn(func(key []byte) ([]byte, error) { return b.Get(key), nil })
	})
}

func (s *folioStore) close() error { return s.db.Close() }
