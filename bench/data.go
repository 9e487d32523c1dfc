package main

// data.go makes the pairs that every store gets, and keeps what each must hold, so
// that what is read can be checked.
//
// A pair's key is 16 hexadecimal digits, so keys come in no order of insertion; its
// value is 100 bytes that do not compress: a stamp, the version and what follows from
// the stamp. A stamp differs from pair to pair, from version to version and from run
// to run, so that no put is of what is there already.

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
)

const (
	keySize   = 16
	valueSize = 100
)

// scramble maps numbers to numbers that look random, no two to the same (splitmix64).
func scramble(i uint64) uint64 {
	i += 0x9E3779B97F4A7C15
	i = (i ^ i>>30) * 0xBF58476D1CE4E5B9
	i = (i ^ i>>27) * 0x94D049BB133111EB
	return i ^ i>>31
}

// putKey writes the key of pair i.
func putKey(dst []byte, i int) {
	const digits = "0123456789abcdef"
	for n, at := scramble(uint64(i)), keySize-1; at >= 0; at, n = at-1, n>>4 {
		dst[at] = digits[n&15]
	}
}

// putValue writes the value with this stamp and version.
func putValue(dst []byte, stamp uint64, version uint32) {
	binary.LittleEndian.PutUint64(dst, stamp)
	binary.LittleEndian.PutUint32(dst[8:], version)
	for at, n := 12, stamp; at < valueSize; at += 8 {
		n = scramble(n)
		binary.LittleEndian.PutUint64(dst[at:], n)
	}
}

// op is one change: a put, or where value is nil a delete.
type op struct{ key, value []byte }

// lookup is one get and what must be found: this version of the pair, or where a
// writer is at work beside it this version or a later one.
type lookup struct {
	key     [keySize]byte
	stamp   uint64
	pair    int
	version uint32
	moving  bool
	salt    uint64
}

// check reports whether v is a value that the lookup may find.
func (l *lookup) check(v []byte) error {
	if len(v) == valueSize && binary.LittleEndian.Uint64(v) == l.stamp {
		return nil
	}
	if l.moving && len(v) == valueSize {
		version := binary.LittleEndian.Uint32(v[8:])
		if version >= l.version && binary.LittleEndian.Uint64(v) == stampOf(l.salt, l.pair, version) {
			return nil
		}
	}
	return fmt.Errorf("key %s: got a wrong value of %d bytes", l.key, len(v))
}

// stampOf is what the value of pair i begins with in one of its versions.
func stampOf(salt uint64, i int, version uint32) uint64 {
	return scramble(salt ^ uint64(i) ^ uint64(version)<<32)
}

// tally is what a scan adds up.
type tally struct {
	pairs int
	sum   uint64 // of the values' stamps: every value is looked at
}

// add looks at one value.
func (t *tally) add(value []byte) {
	t.pairs++
	t.sum += binary.LittleEndian.Uint64(value)
}

// check reports whether the scan saw what it had to.
func (t tally) check(want tally) error {
	if t == want {
		return nil
	}
	return fmt.Errorf("scan saw %d pairs (sum of stamps %x), want %d (%x)", t.pairs, t.sum, want.pairs, want.sum)
}

// rangeLookup is one range scan: its first key, and what must be found.
type rangeLookup struct {
	first [keySize]byte
	want  tally // want.pairs is how many to read
}

// model is what one store must hold: the version of every pair, 0 for none.
type model struct {
	salt     uint64 // of the run
	versions []uint32
	latest   uint32
	present  int
}

// newModel is a model of npairs pairs, of which none is there yet.
func newModel(salt uint64, npairs int) *model {
	return &model{salt: salt, versions: make([]uint32, npairs)}
}

func (m *model) clone() *model {
	c := *m
	c.versions = slices.Clone(m.versions)
	return &c
}

// note gives pair i a new version.
func (m *model) note(i int) {
	m.latest++
	if m.versions[i] == 0 {
		m.present++
	}
	m.versions[i] = m.latest
}

// put returns the change that gives pair i a new version, and notes it.
func (m *model) put(i int) op {
	m.note(i)
	b := make([]byte, keySize+valueSize)
	putKey(b[:keySize], i)
	putValue(b[keySize:], stampOf(m.salt, i, m.latest), m.latest)
	return op{b[:keySize:keySize], b[keySize:]}
}

// remove returns the change that deletes pair i, and notes it.
func (m *model) remove(i int) op {
	if m.versions[i] != 0 {
		m.present--
	}
	m.versions[i] = 0
	key := make([]byte, keySize)
	putKey(key, i)
	return op{key: key}
}

// random returns a random pair that is there, or one that is not.
func (m *model) random(rnd *rand.Rand, present bool) int {
	for {
		if i := rnd.IntN(len(m.versions)); (m.versions[i] != 0) == present {
			return i
		}
	}
}

// puts returns new versions of n random pairs that are there.
func (m *model) puts(rnd *rand.Rand, n int) []op {
	ops := make([]op, n)
	for at := range ops {
		ops[at] = m.put(m.random(rnd, true))
	}
	return ops
}

// lookup returns a get of pair i.
func (m *model) lookup(i int, moving bool) lookup {
	version := m.versions[i]
	l := lookup{stamp: stampOf(m.salt, i, version), pair: i, version: version, moving: moving, salt: m.salt}
	putKey(l.key[:], i)
	return l
}

// lookups returns a get of each of n random pairs that are there, in random order.
func (m *model) lookups(rnd *rand.Rand, n int, moving bool) []lookup {
	ls := make([]lookup, n)
	for at := range ls {
		ls[at] = m.lookup(m.random(rnd, true), moving)
	}
	return ls
}

// ranges returns n range scans of length pairs each, from random keys.
func (m *model) ranges(rnd *rand.Rand, n, length int) []rangeLookup {
	order := m.inOrder()
	length = min(length, len(order))
	rs := make([]rangeLookup, n)
	for at := range rs {
		part := order[rnd.IntN(len(order)-length+1):][:length]
		putKey(rs[at].first[:], part[0])
		rs[at].want = m.tallyOf(part)
	}
	return rs
}

// inOrder returns the pairs that are there, in the order of their keys.
func (m *model) inOrder() []int {
	order := make([]int, 0, m.present)
	for i, version := range m.versions {
		if version != 0 {
			order = append(order, i)
		}
	}
	sortByKey(order)
	return order
}

// sortByKey sorts the numbers of pairs by the pairs' keys.
func sortByKey(pairs []int) {
	slices.SortFunc(pairs, func(i, j int) int { return cmp.Compare(scramble(uint64(i)), scramble(uint64(j))) })
}

// tallyOf is what a scan of these pairs must arrive at.
func (m *model) tallyOf(pairs []int) tally {
	t := tally{pairs: len(pairs)}
	for _, i := range pairs {
		t.sum += stampOf(m.salt, i, m.versions[i])
	}
	return t
}

// tally is what a scan of all pairs must arrive at.
func (m *model) tally() tally {
	t := tally{pairs: m.present}
	for i, version := range m.versions {
		if version != 0 {
			t.sum += stampOf(m.salt, i, version)
		}
	}
	return t
}

// verify scans the whole store, which must hold every pair in its version and no
// other, and reads sample pairs by key, whose values it compares to the last byte.
func (m *model) verify(s store, rnd *rand.Rand, sample int) error {
	got, err := s.scan()
	if err != nil {
		return err
	}
	if err := got.check(m.tally()); err != nil {
		return err
	}
	return s.view(func(get func(key []byte) ([]byte, error)) error {
		for range sample {
			if err := m.verifyPair(get, rnd.IntN(len(m.versions))); err != nil {
				return err
			}
		}
		return nil
	})
}

// verifyPair reads pair i and compares it, or its absence.
func (m *model) verifyPair(get func(key []byte) ([]byte, error), i int) error {
	var key [keySize]byte
	var want [valueSize]byte
	putKey(key[:], i)
	got, err := get(key[:])
	if err != nil {
		return err
	}
	version := m.versions[i]
	if version == 0 {
		if got != nil {
			return fmt.Errorf("key %s: deleted, but still there", key)
		}
		return nil
	}
	putValue(want[:], stampOf(m.salt, i, version), version)
	if !bytes.Equal(got, want[:]) {
		return fmt.Errorf("key %s: got a wrong value of %d bytes", key, len(got))
	}
	return nil
}
