package fuzz

// dump_target_test.go reads arbitrary text as a dump. It must give pairs, or an error
// with the line. What was read must come out again of what is written of it, and of a
// store that it was loaded into.

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/foliokv/folio"
	"github.com/foliokv/folio/internal/dumptext"
	"github.com/stretchr/testify/require"
)

// dumpSection is one section of a dump.
type dumpSection struct {
	dumptext.Header
	pairs [][2][]byte
}

// FuzzDump: the input is the text of a dump.
func FuzzDump(f *testing.F) {
	const hex, print = "VERSION=3\nformat=bytevalue\ntype=btree\nHEADER=END\n", "VERSION=3\nformat=print\ntype=btree\nHEADER=END\n"
	for _, text := range []string{
		"",
		hex + " 61\n 31\nDATA=END\n",
		hex + " 61\n 31\n 62\n \nDATA=END",
		print + " a\\\\\n \\ff\nDATA=END\n" + hex + "DATA=END\n",
		"VERSION=3\nformat=print\ndatabase=a\\\\/b\ntype=hash\nmapsize=1\nfolio_sequence=3\nHEADER=END\n \\0a\n \nDATA=END",
		"VERSION=3\nformat=bytevalue\ndatabase=x\ndb_pagesize=4096\nduplicates=0\nmaxreaders=126\nHEADER=END\n 00\n ff\nDATA=END\n",
		print + " b\n 1\n a\n 2\n a b \n \\5c\\\\\nDATA=END\nVERSION=3\nformat=print\ndatabase=\\c3\\a9\nHEADER=END\nDATA=END\n",
		hex + " 6",
		hex + " 61\nDATA=END\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		guardTime(t)
		first, err := readDump(bytes.NewReader(text))
		inPieces, errInPieces := readDump(iotest.HalfReader(bytes.NewReader(text)))
		require.Equal(t, err, errInPieces)
		require.Equal(t, first, inPieces)
		if err != nil {
			var syntax *dumptext.SyntaxError
			require.ErrorAs(t, err, &syntax)
			require.Positive(t, syntax.Line)
			require.LessOrEqual(t, syntax.Line, int64(bytes.Count(text, []byte("\n"))+2))
			return
		}
		again, err := readDump(bytes.NewReader(writeDump(t, first)))
		require.NoError(t, err)
		requireSameDump(t, first, again)

		loaded := loadDump(t, first)
		again, err = readDump(bytes.NewReader(writeDump(t, dumpOf(t, loaded))))
		require.NoError(t, err)
		reloaded := loadDump(t, again)
		require.Equal(t, holdsOf(t, loaded).digest(), holdsOf(t, reloaded).digest())
		require.Equal(t, contentsOfDump(t, first).digest(), holdsOf(t, loaded).digest())
	})
}

func readDump(in io.Reader) (all []dumpSection, err error) {
	r := dumptext.NewReader(in, dumptext.Limits{Key: folio.MaxKeySize, Value: 1 << 20})
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		s := dumpSection{Header: h}
		for {
			k, v, err := r.Pair()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return all, err
			}
			s.pairs = append(s.pairs, [2][]byte{bytes.Clone(k), append([]byte{}, v...)})
		}
		all = append(all, s)
	}
}

func writeDump(t *testing.T, all []dumpSection) []byte {
	var out bytes.Buffer
	w := dumptext.NewWriter(&out)
	for _, s := range all {
		require.NoError(t, w.Begin(s.Header))
		for _, p := range s.pairs {
			require.NoError(t, w.Pair(p[0], p[1]))
		}
		require.NoError(t, w.End())
	}
	return out.Bytes()
}

func requireSameDump(t *testing.T, a, b []dumpSection) {
	require.Len(t, b, len(a))
	for i := range a {
		x, y := a[i], b[i]
		x.Line, y.Line = 0, 0
		x.LMDB, y.LMDB = false, false // the Writer does not write all that shows it
		require.Equal(t, x, y)
	}
}

// bucketOfSection returns the name of the bucket that a section goes to. A name that can't be
// read stands for itself.
func bucketOfSection(s *dumpSection) string {
	if !s.Named {
		return "main"
	}
	name, err := s.Name()
	if err != nil {
		name = s.Database
	}
	return "named " + name[:min(len(name), folio.MaxKeySize-6)]
}

// contentsOfDump returns what a store holds that a dump was loaded into.
func contentsOfDump(t *testing.T, all []dumpSection) *contents {
	root := newContents()
	for i := range all {
		name := bucketOfSection(&all[i])
		if root.buckets[name] == nil {
			root.buckets[name] = newContents()
		}
		c := root.buckets[name]
		for _, p := range all[i].pairs {
			c.pairs[string(p[0])] = p[1]
		}
		if all[i].Sequence > 0 {
			c.sequence = all[i].Sequence
		}
	}
	return root
}

func loadDump(t *testing.T, all []dumpSection) *folio.DB {
	db, err := folio.Open("dump", 0, &folio.Options{InMemory: true})
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	require.NoError(t, db.Update(func(tx *folio.Tx) error {
		for i := range all {
			b, err := tx.CreateBucketIfNotExists([]byte(bucketOfSection(&all[i])))
			require.NoError(t, err)
			for _, p := range all[i].pairs {
				require.NoError(t, b.Put(p[0], p[1]))
			}
			if all[i].Sequence > 0 {
				require.NoError(t, b.SetSequence(all[i].Sequence))
			}
		}
		return nil
	}))
	return db
}

func holdsOf(t *testing.T, db *folio.DB) (c *contents) {
	require.NoError(t, db.View(func(tx *folio.Tx) (err error) {
		c, err = contentsOf(tx)
		return err
	}))
	return c
}

// dumpOf returns what is dumped of a store: a section for each bucket, in the two
// formats by turns.
func dumpOf(t *testing.T, db *folio.DB) (all []dumpSection) {
	c := holdsOf(t, db)
	for i, name := range slices.Sorted(maps.Keys(c.buckets)) {
		b := c.buckets[name]
		s := dumpSection{Header: dumptext.Header{Print: i%2 == 0, Sequence: b.sequence}}
		if named, ok := bytes.CutPrefix([]byte(name), []byte("named ")); ok {
			s.Named, s.Database = true, dumptext.EscapeName(string(named))
		}
		for _, k := range slices.Sorted(maps.Keys(b.pairs)) {
			s.pairs = append(s.pairs, [2][]byte{[]byte(k), b.pairs[k]})
		}
		all = append(all, s)
	}
	return all
}
