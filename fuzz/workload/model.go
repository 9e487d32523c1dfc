package workload

// model.go is what the store should hold: nested maps, and the digests that say in
// eight bytes what a bucket and all below it hold. A digest does not depend on the
// order in which it was worked out, so the model keeps its own as it changes.

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// bucket is the model of one bucket.
type bucket struct {
	name   string
	number int // what the name was made from: see bucketName
	parent *bucket
	seq    uint64
	pairs  map[string]pair
	subs   []*bucket // ascending by name
	sum    uint64    // of the hashes of all pairs
	nbytes int       // of all keys and values
}

// pair is a value in the model, and the hash of the pair.
type pair struct {
	value value
	hash  uint64
}

// value stands for nbytes bytes that its seed determines.
type value struct {
	seed   uint64
	nbytes int
}

// appendTo appends the value's bytes to buf.
func (v value) appendTo(buf []byte) []byte {
	x := v.seed
	start := len(buf)
	buf = slices.Grow(buf, v.nbytes+8)
	for len(buf)-start < v.nbytes {
		x += 0x9e3779b97f4a7c15 // splitmix64
		z := (x ^ x>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		buf = binary.LittleEndian.AppendUint64(buf, z^z>>31)
	}
	return buf[:start+v.nbytes]
}

func newBucket(name string, number int, parent *bucket) *bucket {
	return &bucket{name: name, number: number, parent: parent, pairs: map[string]pair{}}
}

// clone returns a copy of b and of all below it.
func (b *bucket) clone(parent *bucket) *bucket {
	c := *b
	c.parent = parent
	c.pairs = maps.Clone(b.pairs)
	c.subs = make([]*bucket, len(b.subs))
	for i, s := range b.subs {
		c.subs[i] = s.clone(&c)
	}
	return &c
}

func (b *bucket) put(key string, v value, scratch []byte) []byte {
	b.remove(key)
	scratch = v.appendTo(scratch[:0])
	p := pair{v, hashPair([]byte(key), scratch)}
	b.pairs[key] = p
	b.sum += p.hash
	b.nbytes += len(key) + v.nbytes
	return scratch
}

func (b *bucket) remove(key string) {
	p, ok := b.pairs[key]
	if !ok {
		return
	}
	delete(b.pairs, key)
	b.sum -= p.hash
	b.nbytes -= len(key) + p.value.nbytes
}

// removeRange removes the pairs with lo <= key < hi, where an empty hi stands for an
// open end, and returns how many there were.
func (b *bucket) removeRange(lo, hi string) (n uint64) {
	for k := range b.pairs {
		if k >= lo && (hi == "" || k < hi) {
			b.remove(k)
			n++
		}
	}
	return n
}

// find returns the place of the bucket called name in b.subs.
func (b *bucket) find(name string) (int, bool) {
	return slices.BinarySearchFunc(b.subs, name, func(s *bucket, name string) int { return strings.Compare(s.name, name) })
}

func (b *bucket) has(name string) bool {
	_, ok := b.find(name)
	return ok
}

func (b *bucket) addSub(s *bucket) {
	i, _ := b.find(s.name)
	s.parent = b
	b.subs = slices.Insert(b.subs, i, s)
}

func (b *bucket) removeSub(name string) {
	if i, ok := b.find(name); ok {
		b.subs = slices.Delete(b.subs, i, i+1)
	}
}

// isBelow reports whether b is ancestor or lies below it.
func (b *bucket) isBelow(ancestor *bucket) bool {
	for ; b != nil; b = b.parent {
		if b == ancestor {
			return true
		}
	}
	return false
}

// path returns the names from the root to b.
func (b *bucket) path() []string {
	if b.parent == nil {
		return nil
	}
	return append(b.parent.path(), b.name)
}

// all appends b and all buckets below it to bs, in an order that depends on names alone.
func (b *bucket) all(bs []*bucket) []*bucket {
	bs = append(bs, b)
	for _, s := range b.subs {
		bs = s.all(bs)
	}
	return bs
}

func (b *bucket) digest() uint64 {
	s := summary{sequence: b.seq, npairs: uint64(len(b.pairs)), pairs: b.sum}
	for _, sub := range b.subs {
		s.addBucket([]byte(sub.name), sub.digest())
	}
	return s.digest()
}

// summary is what the digest of a bucket is made from.
type summary struct {
	sequence uint64
	npairs   uint64
	pairs    uint64 // sum of the hashes of its pairs
	buckets  uint64 // sum of the hashes of names and digests of the buckets in it
}

func (s *summary) addBucket(name []byte, digest uint64) {
	s.buckets += hashPair(name, binary.LittleEndian.AppendUint64(nil, digest))
}

func (s *summary) digest() uint64 {
	var b [32]byte
	for i, v := range []uint64{s.sequence, s.npairs, s.pairs, s.buckets} {
		binary.LittleEndian.PutUint64(b[8*i:], v)
	}
	return xxhash.Sum64(b[:])
}

// hashPair is a hash of key and value, and of where one ends and the other begins.
func hashPair(key, value []byte) uint64 {
	var length [8]byte
	binary.LittleEndian.PutUint64(length[:], uint64(len(key)))
	var d xxhash.Digest
	d.Reset()
	d.Write(length[:])
	d.Write(key)
	d.Write(value)
	return d.Sum64()
}
