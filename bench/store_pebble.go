package main

// store_pebble.go drives Pebble.

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
)

var pebbleEngine = &engine{
	name:   "pebble",
	module: "github.com/cockroachdb/pebble/v2",
	note:   "commits with pebble.Sync; newest format, a memtable of 64 MiB as CockroachDB has it, a block cache of 128 MiB, Bloom filters of 10 bits a key; the rest by default, so with Snappy; compacted after the fill",
	open:   openPebble,
}

const (
	pebbleMemTableBytes = 64 << 20
	pebbleCacheBytes    = 128 << 20
	bloomBitsPerKey     = 10
)

type pebbleStore struct {
	db    *pebble.DB
	write *pebble.WriteOptions
}

// quiet is a logger for what nobody needs to see; what is fatal ends the run.
type quiet struct{}

func (quiet) Infof(string, ...any)              {}
func (quiet) Errorf(string, ...any)             {}
func (quiet) Fatalf(format string, args ...any) { panic("pebble: " + fmt.Sprintf(format, args...)) }

func openPebble(dir string, o openOptions) (store, error) {
	opts := &pebble.Options{
		FormatMajorVersion: pebble.FormatNewest,
		MemTableSize:       pebbleMemTableBytes,
		CacheSize:          pebbleCacheBytes,
		Logger:             quiet{},
		ErrorIfNotExists:   !o.create,
	}
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(bloomBitsPerKey)
	}
	db, err := pebble.Open(dir, opts)
	if err != nil {
		return nil, err
	}
	if o.durable {
		return &pebbleStore{db, pebble.Sync}, nil
	}
	return &pebbleStore{db, pebble.NoSync}, nil
}

func (s *pebbleStore) apply(ops []op) error {
	b := s.db.NewBatch()
	for _, o := range ops {
		var err error
		if o.value == nil {
			err = b.Delete(o.key, nil)
		} else {
			err = b.Set(o.key, o.value, nil)
		}
		if err != nil {
			return errors.Join(err, b.Close())
		}
	}
	return b.Commit(s.write)
}

func (s *pebbleStore) gets(ls []lookup) error {
	snapshot := s.db.NewSnapshot()
	return errors.Join(pebbleGets(snapshot, ls), snapshot.Close())
}

// viewGets needs no transaction: a get of the store itself sees one state of it.
func (s *pebbleStore) viewGets(ls []lookup) error { return pebbleGets(s.db, ls) }

func pebbleGets(r pebble.Reader, ls []lookup) error {
	for i := range ls {
		l := &ls[i]
		v, closer, err := r.Get(l.key[:])
		if err != nil {
			return fmt.Errorf("get %s: %w", l.key, err)
		}
		if err := errors.Join(l.check(v), closer.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (s *pebbleStore) ranges(rs []rangeLookup) error {
	it, err := s.db.NewIter(nil)
	if err != nil {
		return err
	}
	for i := range rs {
		r := &rs[i]
		var t tally
		for ok := it.SeekGE(r.first[:]); ok && t.pairs < r.want.pairs; ok = it.Next() {
			t.add(it.Value())
		}
		if err := t.check(r.want); err != nil {
			return errors.Join(err, it.Close())
		}
	}
	return it.Close() // tells of errors met on the way
}

func (s *pebbleStore) scan() (t tally, err error) {
	it, err := s.db.NewIter(nil)
	if err != nil {
		return t, err
	}
	for ok := it.First(); ok; ok = it.Next() {
		t.add(it.Value())
	}
	return t, it.Close()
}

func (s *pebbleStore) view(fn func(get func(key []byte) ([]byte, error)) error) error {
	return fn(func(key []byte) ([]byte, error) {
		v, closer, err := s.db.Get(key)
		if errors.Is(err, pebble.ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return bytes.Clone(v), closer.Close()
	})
}

// settle brings everything to the lowest level.
func (s *pebbleStore) settle() error {
	if err := s.db.Flush(); err != nil {
		return err
	}
	return s.db.Compact(context.Background(), []byte{0}, []byte{0xFF}, false)
}

func (s *pebbleStore) close() error {
	if s.write == pebble.NoSync {
		if err := s.db.Flush(); err != nil {
			return errors.Join(err, s.db.Close())
		}
	}
	return s.db.Close()
}
