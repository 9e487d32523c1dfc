//go:build cgo

package main

// store_mdbx.go drives libmdbx.

import (
	"fmt"

	"github.com/erigontech/mdbx-go/mdbx"
)

var mdbxEngine = &engine{
	name:   "mdbx",
	module: "github.com/erigontech/mdbx-go",
	alone:  true,
	note:   "the root table; default flags, so the durable mode (SYNC_DURABLE); pages of 4 KiB, a map of 4 GiB or 4 KiB a pair, the file grows by 16 MiB; short reads renew one transaction",
	open:   openMDBX,
}

const (
	mdbxPageBytes   = 4096
	mdbxGrowthBytes = 16 << 20
)

type mdbxStore struct {
	env *mdbx.Env
	dbi mdbx.DBI
}

func openMDBX(dir string, o openOptions) (store, error) {
	env, err := mdbx.NewEnv(mdbx.Default)
	if err != nil {
		return nil, err
	}
	s := &mdbxStore{env: env}
	if err := s.open(dir, o); err != nil {
		env.Close()
		return nil, err
	}
	return s, nil
}

func (s *mdbxStore) open(dir string, o openOptions) error {
	size := max(4<<30, o.npairs*4096)
	if err := s.env.SetGeometry(-1, -1, size, mdbxGrowthBytes, -1, mdbxPageBytes); err != nil {
		return err
	}
	flags := uint(mdbx.Durable)
	if !o.durable {
		flags = mdbx.SafeNoSync
	}
	if err := s.env.Open(dir, flags, 0o600); err != nil {
		return err
	}
	return s.env.View(func(tx *mdbx.Txn) (err error) {
		s.dbi, err = tx.OpenRoot(0)
		return err
	})
}

func (s *mdbxStore) apply(ops []op) error {
	return s.env.Update(func(tx *mdbx.Txn) error {
		for _, o := range ops {
			if o.value == nil {
				if err := tx.Del(s.dbi, o.key, nil); err != nil && !mdbx.IsNotFound(err) {
					return err
				}
			} else if err := tx.Put(s.dbi, o.key, o.value, mdbx.Upsert); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *mdbxStore) gets(ls []lookup) error {
	return s.env.View(func(tx *mdbx.Txn) error {
		for i := range ls {
			if err := s.get(tx, &ls[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// viewGets renews one transaction for each get, as the documentation advises for
// short ones.
func (s *mdbxStore) viewGets(ls []lookup) error {
	tx, err := s.env.BeginTxn(nil, mdbx.Readonly)
	if err != nil {
		return err
	}
	defer tx.Abort()
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

func (s *mdbxStore) get(tx *mdbx.Txn, l *lookup) error {
	v, err := tx.Get(s.dbi, l.key[:])
	if err != nil {
		return fmt.Errorf("get %s: %w", l.key, err)
	}
	return l.check(v)
}

func (s *mdbxStore) ranges(rs []rangeLookup) error {
	return s.withCursor(func(c *mdbx.Cursor) error {
		for i := range rs {
			r := &rs[i]
			t, err := mdbxTally(c, r.first[:], mdbx.SetRange, r.want.pairs)
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

func (s *mdbxStore) scan() (t tally, err error) {
	err = s.withCursor(func(c *mdbx.Cursor) error {
		t, err = mdbxTally(c, nil, mdbx.First, -1)
		return err
	})
	return t, err
}

func (s *mdbxStore) withCursor(fn func(*mdbx.Cursor) error) error {
	return s.env.View(func(tx *mdbx.Txn) error {
		c, err := tx.OpenCursor(s.dbi)
		if err != nil {
			return err
		}
		defer c.Close()
		return fn(c)
	})
}

// mdbxTally reads up to n pairs, all for a negative n, from where op with key leads.
func mdbxTally(c *mdbx.Cursor, key []byte, op uint, n int) (t tally, err error) {
	_, v, err := c.Get(key, nil, op)
	for ; err == nil; _, v, err = c.Get(nil, nil, mdbx.Next) {
		t.add(v)
		if t.pairs == n {
			return t, nil
		}
	}
	if mdbx.IsNotFound(err) {
		return t, nil
	}
	return t, err
}

func (s *mdbxStore) view(fn func(get func(key []byte) ([]byte, error)) error) error {
	return s.env.View(func(tx *mdbx.Txn) error {
		return fn(func(key []byte) ([]byte, error) {
			v, err := tx.Get(s.dbi, key)
			if mdbx.IsNotFound(err) {
				return nil, nil
			}
			return v, err
		})
	})
}

func (s *mdbxStore) close() error {
	defer s.env.Close()
	return s.env.Sync(true, false)
}
