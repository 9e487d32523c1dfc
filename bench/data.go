package main

// data.go makes the pairs that every store gets, and keeps what each must hold, so
// that what is read can be checked.
//
// A pair's key is 16 hexadecimal digits, so keys come in no order of insertion; its
// value is 100 bytes that begin with a stamp, which differs from pair to pair and
// from version to version.

import (
	"bytes"
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

// stampOf is what the value of pair i begins with in one of its versions.
func stampOf(i int, version uint32) uint64 {
	return scramble(uint64(i) ^ uint64(version)<<40)
}

// filler is what values are cut from, at a place that depends on the stamp.
var filler = func() []byte {
	b := make([]byte, 8192+valueSize)
	rand.NewChaCha8([32]byte{}).Read(b)
	return b
}()

func putValue(dst []byte, stamp uint64) {
	copy(dst, filler[stamp%8192:])
	binary.LittleEndian.PutUint64(dst, stamp)
}

// op is one change: a put, or where value is nil a delete.
type op struct{ key, value []byte }

// lookup is one get and the stamp that must be found.
type lookup struct {
	key   [keySize]byte
	stamp uint64
}

// check reports whether v is the value that the lookup should find.
func (l *lookup) check(v []byte) error {
	if len(v) == valueSize && binary.LittleEndian.Uint64(v) == l.stamp {
		return nil
	}
	return fmt.Errorf("key %s: got a wrong value of %d bytes", l.key, len(v))
}

// model is what one store must hold: the version of every pair, 0 for none.
type model struct {
	versions []uint32
	latest   uint32
	present  int
}

// newModel is a model of npairs pairs, of which none is there yet.
func newModel(npairs int) *model { return &model{versions: make([]uint32, npairs)} }

func (m *model) clone() *model {
	c := *m
	c.versions = slices.Clone(m.versions)
	return &c
}

// put returns the change that gives pair i a new version, and notes it.
func (m *model) put(i int) op {
	m.latest++
	if m.versions[i] == 0 {
		m.present++
	}
	m.versions[i] = m.latest
	b := make([]byte, keySize+valueSize)
	putKey(b[:keySize], i)
	putValue(b[keySize:], stampOf(i, m.latest))
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

// lookups returns a get of each of n random pairs that are there, in random order.
func (m *model) lookups(rnd *rand.Rand, n int) []lookup {
	ls := make([]lookup, 0, n)
	for len(ls) < n {
		i := rnd.IntN(len(m.versions))
		if m.versions[i] == 0 {
			continue
		}
		l := lookup{stamp: stampOf(i, m.versions[i])}
		putKey(l.key[:], i)
		ls = append(ls, l)
	}
	return ls
}

// sum is the sum of the stamps of all pairs: what a scan must arrive at.
func (m *model) sum() (sum uint64) {
	for i, v := range m.versions {
		if v != 0 {
			sum += stampOf(i, v)
		}
	}
	return sum
}

// verify compares every pair, and the number of them, with the store.
func (m *model) verify(s store) error {
	var key [keySize]byte
	var want [valueSize]byte
	err := s.view(func(get func(key []byte) []byte) error {
		for i, version := range m.versions {
			putKey(key[:], i)
			got := get(key[:])
			if version == 0 {
				if got != nil {
					return fmt.Errorf("key %s: deleted, but still there", key)
				}
				continue
			}
			putValue(want[:], stampOf(i, version))
			if !bytes.Equal(got, want[:]) {
				return fmt.Errorf("key %s: got a wrong value of %d bytes", key, len(got))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return m.verifyScan(s.scan)
}

// verifyScan checks count and sum of one scan.
func (m *model) verifyScan(scan func() (tally, error)) error {
	got, err := scan()
	if err != nil {
		return err
	}
	if want := (tally{m.present, m.sum()}); got != want {
		return fmt.Errorf("scan saw %d pairs (sum of stamps %x), want %d (%x)", got.pairs, got.sum, want.pairs, want.sum)
	}
	return nil
}
