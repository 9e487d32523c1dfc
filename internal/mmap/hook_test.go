//go:build unix

// Tests of the seam: each kind of operation is seen, can be failed, skipped.

package mmap

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

var errInjected = errors.New("injected")

// recorder notes what passes and fails or skips the kinds it is told to.
type recorder struct {
	seen       []string
	written    []string
	failBefore map[OpKind]bool
	failAfter  map[OpKind]bool
	skip       map[OpKind]bool
}

func (r *recorder) Do(op Op, run func() error) error {
	r.seen = append(r.seen, op.Kind.String())
	if op.Kind == OpWrite {
		for _, buf := range op.Bufs {
			r.written = append(r.written, string(buf))
		}
	}
	if r.failBefore[op.Kind] {
		return errInjected
	}
	if r.skip[op.Kind] {
		return nil
	}
	err := run()
	if r.failAfter[op.Kind] {
		return errInjected
	}
	return err
}

// intercepted returns a file whose operations r sees, opened by another
// spelling of the path than the intercepted one.
func intercepted(t *testing.T, r *recorder) *File {
	t.Helper()
	path := newStore(t, []byte("hello")).Path()
	remove := Intercept(filepath.Join(filepath.Dir(path), "x", "..", "store"), r)
	t.Cleanup(remove)
	return open(t, path, false)
}

// everyOp does each kind of operation on a File once, and returns its error.
var everyOp = map[OpKind]func(f *File, m *Mapping) error{
	OpRead:      func(f *File, _ *Mapping) error { _, err := f.Pread(make([]byte, 5), 0); return err },
	OpWrite:     func(f *File, _ *Mapping) error { return f.Pwritev([][]byte{[]byte("ab"), []byte("c")}, 1) },
	OpTruncate:  func(f *File, _ *Mapping) error { return f.Truncate(100) },
	OpAllocate:  func(f *File, _ *Mapping) error { return f.Allocate(0, 200) },
	OpSync:      func(f *File, _ *Mapping) error { return f.Sync() },
	OpSyncRange: func(f *File, m *Mapping) error { return f.SyncRange(m, 0, 5) },
	OpWriteOut:  func(f *File, _ *Mapping) error { return f.WriteOut(0, 5) },
	OpMap: func(f *File, _ *Mapping) error {
		m, err := f.Map(100)
		if err == nil {
			return m.Unmap()
		}
		return err
	},
}

func TestHookSeesAndFailsEveryKind(t *testing.T) {
	require.Len(t, everyOp, int(OpPublish), "all but those of a file's birth: TestHookOnCreate")
	for kind, do := range everyOp {
		t.Run(kind.String(), func(t *testing.T) {
			r := &recorder{}
			f := intercepted(t, r)
			m := mapped(t, f, 4096)
			r.seen = nil
			require.NoError(t, do(f, m))
			require.Equal(t, []string{kind.String()}, r.seen)

			r.failBefore = map[OpKind]bool{kind: true}
			require.ErrorIs(t, do(f, m), errInjected)
			r.failBefore, r.failAfter = nil, r.failBefore
			require.ErrorIs(t, do(f, m), errInjected)
		})
	}
}

func TestHookFailsBeforeOrAfterTheWrite(t *testing.T) {
	r := &recorder{failBefore: map[OpKind]bool{OpWrite: true}}
	f := intercepted(t, r)
	content := func() string {
		got, err := os.ReadFile(f.Path())
		require.NoError(t, err)
		return string(got)
	}
	require.ErrorIs(t, everyOp[OpWrite](f, nil), errInjected)
	require.Equal(t, "hello", content())
	require.Equal(t, []string{"ab", "c"}, r.written)

	r.failBefore, r.skip = nil, map[OpKind]bool{OpWrite: true}
	require.NoError(t, everyOp[OpWrite](f, nil))
	require.Equal(t, "hello", content(), "skipped")

	r.skip, r.failAfter = nil, map[OpKind]bool{OpWrite: true}
	require.ErrorIs(t, everyOp[OpWrite](f, nil), errInjected)
	require.Equal(t, "habco", content())
}

func TestHookedRead(t *testing.T) {
	r := &recorder{}
	f := intercepted(t, r)
	buf := make([]byte, 8)
	n, err := f.Pread(buf, 0)
	require.True(t, err == io.EOF)
	require.Equal(t, "hello", string(buf[:n]))

	r.failBefore = map[OpKind]bool{OpRead: true}
	n, err = f.Pread(buf, 0)
	require.ErrorIs(t, err, errInjected)
	require.Zero(t, n)

	r.failBefore, r.skip = nil, map[OpKind]bool{OpRead: true}
	n, err = f.Pread(buf, 0)
	require.NoError(t, err)
	require.Equal(t, 8, n, "the hook has filled the buffer")
}

func TestHookedMap(t *testing.T) {
	r := &recorder{skip: map[OpKind]bool{OpMap: true}}
	f := intercepted(t, r)
	m, err := f.Map(10)
	require.ErrorIs(t, err, errMapSkipped)
	require.Nil(t, m)
	r.skip, r.failAfter = nil, r.skip
	m, err = f.Map(10)
	require.ErrorIs(t, err, errInjected)
	require.Nil(t, m)
}

func TestHookSeesTheSyncThatIsPromised(t *testing.T) {
	r := &recorder{}
	f := intercepted(t, r)
	m := mapped(t, f, 4096)
	stranger := mapped(t, open(t, f.Path(), false), 4096)
	r.seen = nil
	require.NoError(t, f.SyncRange(m, 4000, 96))
	require.NoError(t, f.SyncRange(m, 0, int64(len(m.Data))+1), "leaves the mapping")
	require.NoError(t, f.SyncRange(m, -1, 2))
	require.NoError(t, f.SyncRange(m, 1<<62, 1<<62))
	require.NoError(t, f.SyncRange(stranger, 0, 10), "another File's mapping")
	require.NoError(t, f.SyncRange(nil, 0, 10))
	require.Equal(t, []string{"syncrange", "sync", "sync", "sync", "sync", "sync"}, r.seen)
}

func TestHookOnMemory(t *testing.T) {
	r := &recorder{}
	name := filepath.Join(t.TempDir(), "memory")
	defer Intercept(name, r)()
	f, err := Memory(name)
	require.NoError(t, err)
	defer f.Close()
	m := mapped(t, f, 4096)
	require.NoError(t, f.Sync())
	require.NoError(t, f.SyncRange(m, 0, 1))
	require.Equal(t, []string{"map", "sync", "syncrange"}, r.seen)
}

func TestHookOnCreate(t *testing.T) {
	birth := []OpKind{OpWrite, OpSync, OpPublish, OpSyncDir}
	for _, kind := range birth {
		dir := t.TempDir()
		path := filepath.Join(dir, "store")
		r := &recorder{failBefore: map[OpKind]bool{kind: true}}
		remove := Intercept(path, r)
		require.ErrorIs(t, Create(path, 0o600, []byte("content")), errInjected)
		if kind != OpSyncDir {
			require.Empty(t, files(t, dir), "a failed %v leaves nothing", kind)
			r.failBefore, r.seen = nil, nil
			require.NoError(t, Create(path, 0o600, []byte("content")))
		}
		require.Equal(t, []string{"write", "sync", "publish", "syncdir"}, r.seen)
		require.Equal(t, []string{"store"}, files(t, dir), "whole, and nothing beside it")
		remove()
	}
}

func TestInterceptEnds(t *testing.T) {
	path := newStore(t, nil).Path()
	first := &recorder{}
	remove := Intercept(path, first)
	require.Panics(t, func() { Intercept(path, first) })
	remove()
	second := &recorder{}
	defer Intercept(path, second)()
	remove() // the old one again: the new one stays
	require.NoError(t, open(t, path, false).Sync())
	require.Empty(t, first.seen)
	require.Equal(t, []string{"sync"}, second.seen)
}

func TestOpKindString(t *testing.T) {
	require.Equal(t, "syncrange", OpSyncRange.String())
	require.Equal(t, "map", OpMap.String())
	require.Equal(t, "op99", OpKind(99).String())
}
