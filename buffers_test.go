package folio

// buffers_test.go tests the page buffers that nobody uses.

import (
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// Buffers do not overlap, whether they were made one by one or many at once, and those that
// are given back are had again before others are made.
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
		b.await()
	}
	for i, p := range all {
		for at := 0; at < psize; at += 8 {
			require.EqualValues(t, i, binary.LittleEndian.Uint64(p[at:]))
		}
	}
	made := b.nbytes
	require.Equal(t, made, (len(all)+len(b.free))*psize)
	require.GreaterOrEqual(t, len(b.free), fewBuffers/psize, "made ahead")
	for _, p := range all {
		b.put(p)
	}
	have := map[*byte]bool{}
	for range all {
		have[&b.get(psize)[0]] = true
	}
	require.Len(t, have, len(all))
	require.Equal(t, made, b.nbytes)
}

// What is made when the pool is dropped does not stay.
func TestBuffersDropped(t *testing.T) {
	const psize = 4096
	var b bufferPool
	for range bufferSlab/psize + 1 {
		b.get(psize)
	}
	b.drop()
	b.await()
	require.Empty(t, b.free)
	require.Zero(t, b.nbytes)
	b.put(b.get(psize))
	require.Len(t, b.free, 1)
}

// await returns when no slab is made.
func (b *bufferPool) await() {
	for making := true; making; runtime.Gosched() {
		b.mu.Lock()
		making = b.making
		b.mu.Unlock()
	}
}
