package main

// dump.go is `kvtool dump`: a store as the text that mdb_load and db_load read.

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/foliokv/folio"
	"github.com/foliokv/folio/cmd/kvtool/internal/bucketpath"
	"github.com/foliokv/folio/internal/dumptext"
	"github.com/spf13/cobra"
)

type dumpOptions struct {
	bucket   bucketFlag
	print    bool
	sequence bool
	lmdb     bool
	file     string
}

func newDumpCmd(a *app) *cobra.Command {
	var o dumpOptions
	cmd := &cobra.Command{
		Use:   "dump STORE",
		Short: "Write a store as text, as mdb_dump and db_dump do",
		Long: `Dump writes a snapshot of the whole store as text that kvtool load, mdb_load (LMDB)
and db_load (Berkeley DB) read: the pairs of the root, then each bucket as a database of
its own, its path as the name. With --bucket it writes the pairs of that one bucket, and
none of those nested in it; / is the root alone. Keys come in order. DATA=END ends each
part, and is written only when that part is complete.

The format has no place for sequence numbers. --sequence adds them as a header line that
mdb_load ignores, with a warning, and db_load refuses. --lmdb adds the map size, which
mdb_load needs for more than 1 MiB of data and db_load refuses. db_load keeps no pairs
beside named databases: if the root has both pairs and buckets, give it one at a time.

` + pathHelp,
		Example: `  kvtool dump app.folio > app.dump
  kvtool dump -p -b users/by-id app.folio
  kvtool dump --sequence -f app.dump app.folio && kvtool load copy.folio app.dump
  kvtool dump --lmdb app.folio | mdb_load -n app.lmdb`,
		Args: argCount(1, 1),
		RunE: func(_ *cobra.Command, args []string) error { return a.dump(&o, args[0]) },
	}
	o.bucket.register(cmd, "write this bucket alone, / for the root (default: all)")
	cmd.Flags().Lookup("bucket").DefValue = ""
	cmd.Flags().BoolVarP(&o.print, "print", "p", false, "write printable bytes as they are (format=print)")
	cmd.Flags().BoolVar(&o.sequence, "sequence", false, "keep the sequence numbers of buckets")
	cmd.Flags().BoolVar(&o.lmdb, "lmdb", false, "add the map size that mdb_load needs")
	cmd.Flags().StringVarP(&o.file, "file", "f", "", "write to this `file` instead of standard output")
	return cmd
}

func (a *app) dump(o *dumpOptions, path string) error {
	return a.view(path, func(tx *folio.Tx) error {
		start, err := findBucket(tx, o.bucket.names)
		if err != nil {
			return err
		}
		d := &dumper{o: o}
		if o.lmdb {
			d.mapSize = mapSize(tx.Size())
		}
		err = writeTo(o.file, a.out, path, func(w io.Writer) error {
			d.w = dumptext.NewWriter(w)
			return d.bucket(o.bucket.names, start)
		})
		if err == nil {
			d.notes(a.err)
		}
		return err
	})
}

// mapSize is enough for LMDB to hold what a store of n bytes does: its pages are filled
// less well, and one transaction needs room for old and new. A map that is not used
// costs address space only.
func mapSize(n int64) uint64 {
	const mib = 1 << 20
	return (4*uint64(n)/mib + 16) * mib
}

// dumper writes buckets, and counts what it has to leave out.
type dumper struct {
	o         *dumpOptions
	w         *dumptext.Writer
	mapSize   uint64
	sequences int
	nested    int
}

// bucket writes b, and what is nested in it unless one bucket alone was asked for.
func (d *dumper) bucket(path [][]byte, b *folio.Bucket) error {
	if err := checkDepth(path); err != nil {
		return err
	}
	below, err := d.pairs(path, b)
	if err != nil {
		return err
	}
	if d.o.bucket.given {
		d.nested = len(below)
		return nil
	}
	return eachBelow(b, path, below, d.bucket)
}

// pairs writes the section of b and returns the names of the buckets in it.
//
// A root that has buckets and no pairs gets no section, since db_load refuses to
// mix the main database with named ones.
func (d *dumper) pairs(path [][]byte, b *folio.Bucket) (below [][]byte, err error) {
	begun := len(path) > 0 || d.o.bucket.given || d.o.sequence && b.Sequence() > 0
	if begun {
		if err := d.begin(path, b); err != nil {
			return nil, err
		}
	}
	for key, value := range b.All() {
		if value == nil {
			below = append(below, key)
			continue
		}
		if !begun {
			begun = true
			d.begin(path, b)
		}
		if err := d.w.Pair(key, value); err != nil {
			return nil, err
		}
	}
	// Damage ends the loop early: then the section is not complete, and must not look so.
	if err := b.Tx().Err(); err != nil {
		return nil, err
	}
	if !begun && len(below) > 0 {
		d.skipSequence(b)
		return below, nil
	}
	if !begun {
		d.begin(path, b)
	}
	return below, d.w.End()
}

func (d *dumper) begin(path [][]byte, b *folio.Bucket) error {
	h := dumptext.Header{Print: d.o.print, MapSize: d.mapSize}
	if len(path) > 0 {
		h.Named, h.Database = true, dumptext.EscapeName(bucketpath.Format(path))
	}
	if d.o.sequence {
		h.Sequence = b.Sequence()
	} else {
		d.skipSequence(b)
	}
	return d.w.Begin(h)
}

func (d *dumper) skipSequence(b *folio.Bucket) {
	if b.Sequence() > 0 {
		d.sequences++
	}
}

// notes tells what the dump does not hold.
func (d *dumper) notes(w io.Writer) {
	if d.sequences > 0 {
		fmt.Fprintf(w, "kvtool: dump: note: sequence numbers left out: %d (--sequence keeps them)\n", d.sequences)
	}
	if d.nested > 0 {
		fmt.Fprintf(w, "kvtool: dump: note: nested buckets left out: %d (without --bucket all are written)\n", d.nested)
	}
}

// writeTo runs fn with a writer to file, or to out if file is empty. A regular file is
// replaced only when fn has succeeded: a failed dump costs nobody the one before.
func writeTo(file string, out io.Writer, store string, fn func(io.Writer) error) error {
	if file == "" {
		return fn(out)
	}
	st, err := os.Stat(file)
	if err == nil && !st.Mode().IsRegular() {
		return writeDevice(file, fn)
	}
	if self, err2 := os.Stat(store); err == nil && err2 == nil && os.SameFile(st, self) {
		return usageErrorf("--file %s is the store itself", file)
	}
	return replaceFile(file, fn)
}

func writeDevice(file string, fn func(io.Writer) error) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(fn(f), f.Close())
}

func replaceFile(file string, fn func(io.Writer) error) error {
	if target, err := filepath.EvalSymlinks(file); err == nil {
		file = target // the link stays, what it leads to is replaced
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".kvtool-dump-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	defer os.Remove(f.Name()) // after the rename there is nothing of that name
	defer removeOnSignal(f.Name())()
	if err := errors.Join(fn(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}
