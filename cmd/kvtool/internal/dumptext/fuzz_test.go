package dumptext

// fuzz_test.go feeds the Reader arbitrary text. It must not panic, and what it reads it
// must read again from what the Writer makes of it.

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func FuzzLoad(f *testing.F) {
	f.Add([]byte(hexHead + " 61\n 31\nDATA=END\n"))
	f.Add([]byte(printHead + " a\\\\\n \\ff\nDATA=END\n" + hexHead + "DATA=END\n"))
	f.Add([]byte("VERSION=3\nformat=print\ndatabase=a\\\\/b\ntype=hash\nmapsize=1\nfolio_sequence=3\nHEADER=END\n \\0a\n \nDATA=END"))
	f.Add([]byte(hexHead + " 6"))
	f.Fuzz(func(t *testing.T, in []byte) {
		first, err := readAll(bytes.NewReader(in))
		if err != nil {
			return
		}
		again, err := readAll(bytes.NewReader(write(t, first)))
		require.NoError(t, err)
		require.Len(t, again, len(first))
		for i := range first {
			sameSection(t, first[i], again[i])
		}
	})
}

func write(t *testing.T, all []section) []byte {
	var out bytes.Buffer
	w := NewWriter(&out)
	for _, s := range all {
		require.NoError(t, w.Begin(s.Header))
		for _, p := range s.pairs {
			require.NoError(t, w.Pair([]byte(p[0]), []byte(p[1])))
		}
		require.NoError(t, w.End())
	}
	return out.Bytes()
}

func sameSection(t *testing.T, a, b section) {
	a.Line, b.Line = 0, 0
	a.LMDB, b.LMDB = false, false // the Writer does not write all that shows it
	require.Equal(t, a.Header, b.Header)
	require.Equal(t, a.pairs, b.pairs)
	name, err := a.Name()
	if err != nil || !a.Named {
		return
	}
	back := Header{Database: EscapeName(name)}
	again, err := back.Name()
	require.NoError(t, err)
	require.Equal(t, name, again)
}
