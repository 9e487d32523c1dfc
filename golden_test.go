package folio_test

// golden_test.go opens stores that an earlier build of this format version wrote, for
// ever. testdata/golden/v3.folio is a store that was closed, v3-log.folio the same as a
// crash left it, with its last commits in the redo log alone, v3.json what must be in them.
//
// To write both anew, only where the format may still change (no release has it):
//
//	go test -run '^TestGolden$' -update-golden .

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/foliokv/folio"
	"github.com/stretchr/testify/require"
)

var updateGolden = flag.Bool("update-golden", false, "write testdata/golden anew")

const (
	goldenStore   = "testdata/golden/v3.folio"
	goldenLog     = "testdata/golden/v3-log.folio"
	goldenContent = "testdata/golden/v3.json"
	goldenMaxSize = 500 << 10 // bytes
)

// content is what a bucket holds: pairs, nested buckets, its sequence.
type content struct {
	pairs map[string]string
	subs  map[string]*content
	seq   uint64
}

func newContent() *content {
	return &content{pairs: map[string]string{}, subs: map[string]*content{}}
}

func (c *content) clone() *content {
	d := &content{pairs: maps.Clone(c.pairs), subs: map[string]*content{}, seq: c.seq}
	for name, s := range c.subs {
		d.subs[name] = s.clone()
	}
	return d
}

// keys returns the keys of pairs and the names of buckets, in order.
func (c *content) keys() []string {
	return slices.Sorted(func(yield func(string) bool) {
		for k := range c.pairs {
			if !yield(k) {
				return
			}
		}
		for k := range c.subs {
			if !yield(k) {
				return
			}
		}
	})
}

// readContent reads a bucket and all in it.
func readContent(b *folio.Bucket) *content {
	c := newContent()
	c.seq = b.Sequence()
	for k, v := range b.All() {
		if v == nil {
			c.subs[string(k)] = readContent(b.Bucket(k))
		} else {
			c.pairs[string(k)] = string(v)
		}
	}
	return c
}

// --- the content as JSON

// goldenText is a key or value as it stands in v3.json: readable, and short.
type goldenText struct {
	Text string `json:"text,omitempty"` // all of it, quoted as Go does; the first bytes where it is long
	Len  int    `json:"len"`
	Sum  string `json:"xxh64"`
}

type goldenPair struct {
	Key   goldenText `json:"key"`
	Value goldenText `json:"value"`
}

type goldenBucket struct {
	Name     []goldenText `json:"name"` // from the root down
	Sequence uint64       `json:"sequence"`
	Pairs    []goldenPair `json:"pairs"`
}

func textOf(s string) goldenText {
	const most = 32
	q := fmt.Sprintf("%q", s[:min(len(s), most)])
	return goldenText{Text: q[1 : len(q)-1], Len: len(s), Sum: fmt.Sprintf("%016x", xxhash.Sum64String(s))}
}

// goldenBuckets flattens c, parents before children.
func goldenBuckets(c *content, name []goldenText) []goldenBucket {
	b := goldenBucket{Name: name, Sequence: c.seq, Pairs: []goldenPair{}}
	for _, k := range slices.Sorted(maps.Keys(c.pairs)) {
		b.Pairs = append(b.Pairs, goldenPair{textOf(k), textOf(c.pairs[k])})
	}
	all := []goldenBucket{b}
	for _, k := range slices.Sorted(maps.Keys(c.subs)) {
		all = append(all, goldenBuckets(c.subs[k], append(slices.Clone(name), textOf(k)))...)
	}
	return all
}

func marshalContent(t *testing.T, c *content) []byte {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	require.NoError(t, enc.Encode(goldenBuckets(c, []goldenText{})))
	return out.Bytes()
}

// --- writing it

// writeGolden makes the stores and their content.
func writeGolden(t *testing.T) {
	path := filepath.Join(t.TempDir(), "v3.folio")
	// Not synced, so that the log is small.
	db, err := folio.Open(path, 0o644, &folio.Options{Sync: folio.SyncOff})
	require.NoError(t, err)
	put := func(b *folio.Bucket, k, v string) { require.NoError(t, b.Put([]byte(k), []byte(v))) }
	sub := func(b *folio.Bucket, name string) *folio.Bucket {
		s, err := b.CreateBucketIfNotExists([]byte(name))
		require.NoError(t, err)
		return s
	}
	update := func(fn func(tx *folio.Tx)) {
		require.NoError(t, db.Update(func(tx *folio.Tx) error { fn(tx); return nil }))
	}
	update(func(tx *folio.Tx) {
		for i := range 150 {
			put(tx.Root(), fmt.Sprintf("pair/%04d", i), string(value(i, i%70)))
		}
		put(tx.Root(), "empty value", "")
		put(tx.Root(), "\x00", "the lowest key")
		put(tx.Root(), "\xff\xff\xff\xff\xff", "the highest key")
		put(tx.Root(), "large", string(value(1, 9000)))
		put(tx.Root(), "just inline", string(value(2, 980-4-len("just inline"))))
		put(tx.Root(), "just too large", string(value(3, 981-4-len("just too large"))))
		put(tx.Root(), strings.Repeat("long key ", 300), "its value is short")
		put(tx.Root(), strings.Repeat("k", 960), string(value(4, 2000))) // the cell has 64 bytes of it
		put(tx.Root(), strings.Repeat("l", 900), string(value(5, 2000))) // the cell has all of it
		require.NoError(t, tx.Root().SetSequence(1<<63))
	})
	update(func(tx *folio.Tx) {
		a := sub(tx.Root(), "a bucket")
		require.NoError(t, a.SetSequence(42))
		b := sub(a, "nested")
		c := sub(b, "nested deeper")
		put(c, "key", "value")
		for i := range 60 {
			put(b, fmt.Sprintf("n%03d", i), string(value(i, 40)))
		}
		sub(tx.Root(), "empty bucket")
		sub(a, strings.Repeat("a bucket with a long name ", 60))
		put(sub(a, strings.Repeat("another long name ", 60)), "key", "value")
	})
	update(func(tx *folio.Tx) { // the leaf splits between two long keys: a separator that lies in a run
		b := sub(tx.Root(), "long separators")
		for _, k := range []string{"a1", "a2", "z1", "z2"} {
			put(b, k, string(value(6, 944)))
		}
		for i := range 2 {
			put(b, fmt.Sprintf("%s%03d", strings.Repeat("s", 1000), i), "")
		}
	})
	// Many commits that each free and allocate, so that the freelog gets pages.
	for i := range 400 {
		update(func(tx *folio.Tx) {
			put(tx.Root(), fmt.Sprintf("pair/%04d", i%150), string(value(i, i%50)))
			put(sub(tx.Root(), "churn"), fmt.Sprint(i%7), fmt.Sprint(i))
		})
	}
	update(func(tx *folio.Tx) { // free pages
		for i := 20; i < 100; i++ {
			require.NoError(t, tx.Delete(fmt.Appendf(nil, "pair/%04d", i)))
		}
	})
	// Room for what follows: a file that grows is synced as a whole.
	update(func(tx *folio.Tx) { put(tx.Root(), "room", string(value(7, 200_000))) })
	update(func(tx *folio.Tx) { require.NoError(t, tx.Delete([]byte("room"))) })
	require.NoError(t, db.Close())
	db, err = folio.Open(path, 0, nil)
	require.NoError(t, err)
	for i := range 9 { // in the log, but for the first
		update(func(tx *folio.Tx) {
			b := sub(tx.Root(), "logged")
			put(b, fmt.Sprint("small ", i), string(value(i, 30)))
			if i == 2 {
				put(b, "large", string(value(i, 66_000)))
			}
			if i%3 == 2 {
				require.NoError(t, b.Delete(fmt.Append(nil, "small ", i-1)))
			}
			require.NoError(t, b.SetSequence(uint64(i)))
		})
	}
	var c *content
	require.NoError(t, db.View(func(tx *folio.Tx) error { c = readContent(tx.Root()); return nil }))
	requireSound(t, db)
	crashed, err := os.ReadFile(path)
	require.NoError(t, err)
	loseMetas(t, crashed)
	require.NoError(t, db.Close())

	file, err := os.ReadFile(path)
	require.NoError(t, err)
	require.LessOrEqual(t, len(file), goldenMaxSize)
	requireKinds(t, file)
	require.NoError(t, os.MkdirAll(filepath.Dir(goldenStore), 0o755))
	require.NoError(t, os.WriteFile(goldenStore, file, 0o644))
	require.NoError(t, os.WriteFile(goldenLog, crashed, 0o644))
	require.NoError(t, os.WriteFile(goldenContent, marshalContent(t, c), 0o644))
}

// loseMetas takes from a store the metas of the commits after the one that the newest
// knows durable, as a crash may.
func loseMetas(t *testing.T, file []byte) {
	le := binary.LittleEndian
	newest, durable := uint64(0), uint64(0)
	for slot := range 4 {
		if p := file[slot*4096:]; le.Uint64(p[16:]) > newest {
			newest, durable = le.Uint64(p[16:]), le.Uint64(p[96:])
		}
	}
	require.Greater(t, newest, durable+5, "commits in the log")
	for slot := range 4 {
		if p := file[slot*4096 : (slot+1)*4096]; le.Uint64(p[16:]) > durable {
			clear(p)
		}
	}
}

// requireKinds checks that the store shows what the format has, by docs/format.md.
func requireKinds(t *testing.T, file []byte) {
	le := binary.LittleEndian
	kinds := map[byte]int{}
	longSeparators, chain, newest := 0, uint32(0), uint64(0)
	for p := file; len(p) >= 4096; p = p[4096:] {
		kinds[p[32]]++
		if txid := le.Uint64(p[16:]); p[32] == 1 && txid > newest {
			newest, chain = txid, le.Uint32(p[416:])
		}
		if p[32] != 2 {
			continue
		}
		n := int(le.Uint16(p[36:]))
		for i := 1; i < n; i++ {
			if off := le.Uint16(p[56+4*n+2*i:]); le.Uint16(p[off:])&0x8000 != 0 {
				longSeparators++
			}
		}
	}
	for kind := byte(1); kind <= 5; kind++ {
		require.NotZero(t, kinds[kind], "pages of kind %d", kind)
	}
	require.NotZero(t, longSeparators)
	require.NotZero(t, chain, "freelog pages")
}

func requireSound(t testing.TB, db *folio.DB) {
	t.Helper()
	for err := range db.Check(context.Background()) {
		require.NoError(t, err)
	}
}

// --- the test

func TestGolden(t *testing.T) {
	if *updateGolden {
		writeGolden(t)
	}
	for _, path := range []string{goldenStore, goldenLog} {
		t.Run(filepath.Base(path), func(t *testing.T) { testGolden(t, path) })
	}
}

func testGolden(t *testing.T, golden string) {
	file, err := os.ReadFile(golden)
	require.NoError(t, err)
	requireKinds(t, file)
	want, err := os.ReadFile(goldenContent)
	require.NoError(t, err)
	same := func(t *testing.T, db *folio.DB) {
		t.Helper()
		require.NoError(t, db.View(func(tx *folio.Tx) error {
			got := marshalContent(t, readContent(tx.Root()))
			require.True(t, bytes.Equal(want, got), "content differs from %s:\n%s", goldenContent, firstDifference(want, got))
			return nil
		}))
		requireSound(t, db)
	}
	readOnly := func(t *testing.T, path string) {
		db, err := folio.Open(path, 0, &folio.Options{ReadOnly: true})
		require.NoError(t, err)
		same(t, db)
		require.NoError(t, db.Close())
		after, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, bytes.Equal(file, after), "a read-only open changed the file")
	}

	t.Run("read-only", func(t *testing.T) { readOnly(t, golden) })

	t.Run("read-only file in a read-only directory", func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "v3.folio")
		require.NoError(t, os.WriteFile(path, file, 0o444))
		require.NoError(t, os.Chmod(dir, 0o555))
		t.Cleanup(func() { os.Chmod(dir, 0o755) })
		readOnly(t, path)
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Len(t, entries, 1, "a read-only open made a file")
	})

	t.Run("writable", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "v3.folio")
		require.NoError(t, os.WriteFile(path, file, 0o644))
		open := func() *folio.DB {
			db, err := folio.Open(path, 0, nil)
			require.NoError(t, err)
			return db
		}
		db := open()
		same(t, db)
		var c *content
		require.NoError(t, db.Update(func(tx *folio.Tx) error {
			c = readContent(tx.Root())
			for i := range 100 {
				k, v := fmt.Sprintf("pair/%04d", i*3), value(i, 300)
				require.NoError(t, tx.Put([]byte(k), v))
				c.pairs[k] = string(v)
			}
			for i := range 30 {
				k := fmt.Sprintf("pair/%04d", i*5)
				require.NoError(t, tx.Delete([]byte(k)))
				delete(c.pairs, k)
			}
			require.NoError(t, tx.DeleteBucket([]byte("long separators")))
			delete(c.subs, "long separators")
			require.NoError(t, tx.MoveBucket([]byte("nested"), tx.Bucket([]byte("a bucket")), nil))
			c.subs["nested"] = c.subs["a bucket"].subs["nested"]
			delete(c.subs["a bucket"].subs, "nested")
			n, err := tx.Bucket([]byte("a bucket")).NextSequence()
			require.NoError(t, err)
			require.EqualValues(t, 43, n)
			c.subs["a bucket"].seq = 43
			return nil
		}))
		for range 2 {
			require.NoError(t, db.View(func(tx *folio.Tx) error {
				want, got := marshalContent(t, c), marshalContent(t, readContent(tx.Root()))
				require.True(t, bytes.Equal(want, got), "%s", firstDifference(want, got))
				return nil
			}))
			requireSound(t, db)
			require.NoError(t, db.Close())
			db = open()
		}
		require.NoError(t, db.Close())
	})
}

// firstDifference shows where two texts part.
func firstDifference(want, got []byte) string {
	w, g := strings.Split(string(want), "\n"), strings.Split(string(got), "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("line %d: want %s, got %s", i+1, w[i], g[i])
		}
	}
	return fmt.Sprintf("want %d lines, got %d", len(w), len(g))
}
