package folio

// buffers_test.go tests the page buffers that nobody uses.

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

// Buffers do not overlap, whether they were made one by one or many at once, and each that
// is given back is had again before others are made.
func TestBuffers(t *testing.T) {
	const psize = 8192
	var b bufferPool
	var all []page
	for i := range 3 * bufferSlab / psize {
		p := b.get(psize)
		require.Len(t, p, psize)
		require.Equal(t, psize, cap(p))
		for at := 0; at < psize; at += 8 {
			binary.LittleEndian.PutUint64(p[at:], uint64(i))
		}
		all = append(all, p)
	}
	require.Empty(t, b.free)
	for i, p := range all {
		for at := 0; at < psize; at += 8 {
			require.EqualValues(t, i, binary.LittleEndian.Uint64(p[at:]))
		}
	}
	have := map[*byte]bool{}
	for _, p := range all {
		have[&p[0]] = true
		b.put(p)
	}
	for range all {
		p := b.get(psize)
		require.True(t, have[&p[0]])
		delete(have, &p[0])
	}
	b.put(all[0])
	b.drop()
	require.Empty(t, b.free)
	require.NotSame(t, &all[0][0], &b.get(psize)[0])
}
