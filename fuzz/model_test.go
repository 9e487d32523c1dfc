package fuzz

// model_test.go is what a store should hold: nested maps, and a digest that a store in
// the same state has too.

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/foliokv/folio"
)

// contents is what a bucket should hold.
type contents struct {
	pairs    map[string][]byte
	buckets  map[string]*contents
	sequence uint64
}

func newContents() *contents {
	return &contents{pairs: map[string][]byte{}, buckets: map[string]*contents{}}
}

func (c *contents) clone() *contents {
	to := &contents{pairs: maps.Clone(c.pairs), buckets: make(map[string]*contents, len(c.buckets)), sequence: c.sequence}
	for name, b := range c.buckets {
		to.buckets[name] = b.clone()
	}
	return to
}

// keysOf returns the names of pairs and buckets in order; none where c is nil.
func keysOf(c *contents) []string {
	if c == nil {
		return nil
	}
	keys := slices.AppendSeq(slices.Collect(maps.Keys(c.pairs)), maps.Keys(c.buckets))
	slices.Sort(keys)
	return keys
}

// digest is a fingerprint of a whole store.
type digest uint64

// digester hashes a store, or what one should hold, in the same way.
type digester struct {
	h   xxhash.Digest
	buf [8]byte
}

func (d *digester) number(n uint64) {
	binary.LittleEndian.PutUint64(d.buf[:], n)
	d.h.Write(d.buf[:])
}

func (d *digester) bytes(b []byte) {
	d.number(uint64(len(b)))
	d.h.Write(b)
}

// Marks between what would else run together.
const (
	markPair   = 1
	markBucket = 2
	markEnd    = 3
)

func (d *digester) contents(c *contents) {
	d.number(c.sequence)
	for _, k := range keysOf(c) {
		if b := c.buckets[k]; b != nil {
			d.number(markBucket)
			d.bytes([]byte(k))
			d.contents(b)
			continue
		}
		d.number(markPair)
		d.bytes([]byte(k))
		d.bytes(c.pairs[k])
	}
	d.number(markEnd)
}

func (d *digester) bucket(b *folio.Bucket) {
	d.number(b.Sequence())
	for k, v := range b.All() {
		if v == nil {
			d.number(markBucket)
			d.bytes(k)
			if sub := b.Bucket(k); sub != nil { // nil where it can't be read: tx.Err says so
				d.bucket(sub)
			}
			continue
		}
		d.number(markPair)
		d.bytes(k)
		d.bytes(v)
	}
	d.number(markEnd)
}

func (c *contents) digest() digest {
	var d digester
	d.h.Reset()
	d.contents(c)
	return digest(d.h.Sum64())
}

// digestOf returns the digest of all that tx sees.
func digestOf(tx *folio.Tx) (digest, error) {
	var d digester
	d.h.Reset()
	d.bucket(tx.Root())
	return digest(d.h.Sum64()), tx.Err()
}

// digestNow returns the digest of what new readers see.
func digestNow(db *folio.DB) (d digest, err error) {
	err = db.View(func(tx *folio.Tx) error {
		d, err = digestOf(tx)
		return err
	})
	return d, err
}
