//go:build cgo

package main

// store_lmdb.go drives LMDB.

import (
	"errors"
	"fmt"

	"github.com/PowerDNS/lmdb-go/lmdb"
)

var lmdbEngine = &engine{
	name:   "lmdb",
	module: "github.com/PowerDNS/lmdb-go",
	alone:  true,
	note:   "the root database; default flags, so every commit is synced; a map of 4 GiB or 4 KiB a pair; values read without a copy (RawRead); short reads renew one transaction",
	open:   openLMDB,
}

type lmdbStore struct {
	env *lmdb.Env
	dbi lmdb.DBI
}

func openLMDB(dir string, o openOptions) (store, error) {
	env, err := lmdb.NewEnv()
	if err != nil {
		return nil, err
	}
	s := &lmdbStore{env: env}
	if err := s.open(dir, o); err != nil {
		return nil, errors.Join(err, env.Close())
	}
	return s, nil
}

func (s *lmdbStore) open(dir string, o openOptions) error {
	if err := s.env.SetMapSize(max(4<<30, int64(o.npairs)*4096)); err != nil {
		return err
	}
	var flags uint
	if !o.durable {
		flags = lmdb.NoSync
	}
	if err := s.env.Open(dir, flags, 0o600); err != nil {
		return err
	}
	return s.env.View(func(tx *lmdb.Txn) (err error) {
		s.dbi, err = tx.OpenRoot(0)
		return err
	})
}

func (s *lmdbStore) apply(ops []op) error {
	return s.env.Update(func(tx *lmdb.Txn) error {
		for _, o := range ops {
			if o.value == nil {
				if err := tx.Del(s.dbi, o.key, nil); err != nil && !lmdb.IsNotFound(err) {
					return err
				}
			} else if err := tx.Put(s.dbi, o.key, o.value, 0); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *lmdbStore) gets(ls []lookup) error {
	return s.env.View(func(tx *lmdb.Txn) error {
		tx.RawRead = true
		for i := range ls {
			if err := s.get(tx, &ls[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// viewGets renews one transaction for each get, as LMDB's documentation advises for
// short ones.
func (s *lmdbStore) viewGets(ls []lookup) error {
	tx, err := s.env.BeginTxn(nil, lmdb.Readonly)
	if err != nil {
		return err
	}
	defer tx.Abort()
	tx.RawRead = true
	for i := range ls {
		tx.Reset()
		if err := tx.Renew(); err != nil {
			return err
		}
		if err := s.get(tx, &ls[i]); err != nil {
			return err
		}
	}
	return nil
}

func (s *lmdbStore) get(tx *lmdb.Txn, l *lookup) error {
	v, err := tx.Get(s.dbi, l.key[:])
	if err != nil {
		return fmt.Errorf("get %s: %w", l.key, err)
	}
	return l.check(v)
}

func (s *lmdbStore) ranges(rs []rangeLookup) error {
	return s.withCursor(func(c *lmdb.Cursor) error {
		for i := range rs {
			r := &rs[i]
			t, err := lmdbTally(c, r.first[:], lmdb.SetRange, r.want.pairs)
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

func (s *lmdbStore) scan() (t tally, err error) {
	err = s.withCursor(func(c *lmdb.Cursor) error {
		t, err = lmdbTally(c, nil, lmdb.First, -1)
		return err
	})
	return t, err
}

func (s *lmdbStore) withCursor(fn func(*lmdb.Cursor) error) error {
	return s.env.View(func(tx *lmdb.Txn) error {
		tx.RawRead = true
		c, err := tx.OpenCursor(s.dbi)
		if err != nil {
			return err
		}
		defer c.Close()
		return fn(c)
	})
}

// lmdbTally reads up to n pairs, all for a negative n, from where op with key leads.
func lmdbTally(c *lmdb.Cursor, key []byte, op uint, n int) (t tally, err error) {
	_, v, err := c.Get(key, nil, op)
	for ; err == nil; _, v, err = c.Get(nil, nil, lmdb.Next) {
		t.add(v)
		if t.pairs == n {
			return t, nil
		}
	}
	if lmdb.IsNotFound(err) {
		return t, nil
	}
	return t, err
}

func (s *lmdbStore) view(fn func(get func(key []byte) ([]byte, error)) error) error {
	return s.env.View(func(tx *lmdb.Txn) error {
		return fn(func(key []byte) ([]byte, error) {
			v, err := tx.Get(s.dbi, key)
			if lmdb.IsNotFound(err) {
				return nil, nil
			}
			return v, err
		})
	})
}

func (s *lmdbStore) close() error {
	return errors.Join(s.env.Sync(true), s.env.Close())
}
