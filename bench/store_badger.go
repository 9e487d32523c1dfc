package main

// store_badger.go drives Badger.

import (
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
)

var badgerEngine = &engine{
	name:   "badger",
	module: "github.com/dgraph-io/badger/v4",
	note:   "SyncWrites, no logger; the rest by default, so with Snappy, a memtable of 64 MiB, a block cache of 256 MiB and detection of conflicts; flattened after the fill",
	open:   openBadger,
}

// badgerCompactors is how many workers flatten the tree.
const badgerCompactors = 2

type badgerStore struct {
	db      *badger.DB
	durable bool
}

func openBadger(dir string, o openOptions) (store, error) {
	db, err := badger.Open(badger.DefaultOptions(dir).WithSyncWrites(o.durable).WithLogger(nil))
	if err != nil {
		return nil, err
	}
	return &badgerStore{db, o.durable}, nil
}

func (s *badgerStore) apply(ops []op) error {
	return s.db.Update(func(tx *badger.Txn) error {
		for _, o := range ops {
			if o.value == nil {
				if err := tx.Delete(o.key); err != nil {
					return err
				}
			} else if err := tx.Set(o.key, o.value); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *badgerStore) gets(ls []lookup) error {
	return s.db.View(func(tx *badger.Txn) error {
		for i := range ls {
			if err := badgerGet(tx, &ls[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *badgerStore) viewGets(ls []lookup) error {
	var l *lookup
	get := func(tx *badger.Txn) error { return badgerGet(tx, l) }
	for i := range ls {
		l = &ls[i]
		if err := s.db.View(get); err != nil {
			return err
		}
	}
	return nil
}

func badgerGet(tx *badger.Txn, l *lookup) error {
	item, err := tx.Get(l.key[:])
	if err != nil {
		return fmt.Errorf("get %s: %w", l.key, err)
	}
	return item.Value(l.check)
}

func (s *badgerStore) ranges(rs []rangeLookup) error {
	return s.db.View(func(tx *badger.Txn) error {
		it := tx.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for i := range rs {
			r := &rs[i]
			it.Seek(r.first[:])
			t, err := badgerTally(it, r.want.pairs)
			if err != nil {
				return err
			}
			if err := t.check(r.want); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *badgerStore) scan() (t tally, err error) {
	err = s.db.View(func(tx *badger.Txn) error {
		it := tx.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		it.Rewind()
		t, err = badgerTally(it, -1)
		return err
	})
	return t, err
}

// badgerTally reads up to n pairs from where the iterator is, all for a negative n.
func badgerTally(it *badger.Iterator, n int) (t tally, err error) {
	look := func(v []byte) error { t.add(v); return nil }
	for ; it.Valid() && t.pairs != n; it.Next() {
		if err := it.Item().Value(look); err != nil {
			return t, err
		}
	}
	return t, nil
}

func (s *badgerStore) view(fn func(get func(key []byte) ([]byte, error)) error) error {
	return s.db.View(func(tx *badger.Txn) error {
		return fn(func(key []byte) ([]byte, error) {
			item, err := tx.Get(key)
			if errors.Is(err, badger.ErrKeyNotFound) {
				return nil, nil
			}
			if err != nil {
				return nil, err
			}
			return item.ValueCopy(nil)
		})
	})
}

func (s *badgerStore) settle() error { return s.db.Flatten(badgerCompactors) }

func (s *badgerStore) close() error {
	if !s.durable {
		if err := s.db.Sync(); err != nil {
			return errors.Join(err, s.db.Close())
		}
	}
	return s.db.Close()
}
