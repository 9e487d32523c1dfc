package dumptext

// writer_test.go fixes the bytes that the Writer writes, and that its errors are kept.

import (
	"bytes"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWriter(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out)
	require.NoError(t, w.Begin(Header{}))
	require.NoError(t, w.Pair([]byte("\x00\xabk"), nil))
	require.NoError(t, w.End())
	require.NoError(t, w.Begin(Header{Named: true, Database: EscapeName(`a\/b`), Print: true, MapSize: 4096, Sequence: 9}))
	require.NoError(t, w.Pair([]byte("a b\\\x7f~"), []byte("\\é\\\n")))
	require.NoError(t, w.End())
	require.Equal(t, `VERSION=3
format=bytevalue
type=btree
HEADER=END
 00ab6b
 
DATA=END
VERSION=3
format=print
database=a\\/b
type=btree
mapsize=4096
folio_sequence=9
HEADER=END
 a b\\\7f~
 \\\c3\a9\5c\0a
DATA=END
`, out.String())
}

// failing takes some bytes and then none.
type failing struct{ left int }

var errFull = errors.New("full")

func (f *failing) Write(b []byte) (int, error) {
	if len(b) > f.left {
		return 0, errFull
	}
	f.left -= len(b)
	return len(b), nil
}

func TestWriterFails(t *testing.T) {
	for _, print := range []bool{false, true} {
		w := NewWriter(&failing{left: 1 << 17})
		require.NoError(t, w.Begin(Header{Print: print}))
		big := make([]byte, 1<<20)
		require.ErrorIs(t, w.Pair(big, big), errFull)
		require.ErrorIs(t, w.Pair(nil, nil), errFull)
		require.ErrorIs(t, w.End(), errFull)
	}
}
