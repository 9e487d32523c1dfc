package main

// load.go is `kvtool load`: what kvtool dump, mdb_dump or db_dump wrote, into a store.

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/foliokv/folio"
	"github.com/foliokv/folio/cmd/kvtool/internal/bucketpath"
	"github.com/foliokv/folio/internal/dumptext"
	"github.com/spf13/cobra"
)

type loadOptions struct {
	bucket bucketFlag
	keep   bool
}

func newLoadCmd(a *app) *cobra.Command {
	var o loadOptions
	cmd := &cobra.Command{
		Use:   "load STORE [FILE]",
		Short: "Read a dump into a store",
		Long: `Load reads FILE, or standard input where it is absent or -, as kvtool dump, mdb_dump
(LMDB) or db_dump (Berkeley DB) wrote it, and stores its pairs: those of the main
database in the root, those of a named database in the bucket that has the name as its
path. With --bucket the dump must hold one database, and its name does not matter. What
the store held before stays; a pair with the same key is replaced, or kept with -n.

A store that does not exist is created (for its owner alone), and so are buckets.

Load is strict. A bad line, a missing DATA=END, a database with duplicates or another
order of keys, an empty key: any of it ends the load with the number of the line, and
nothing is changed or created. All is one transaction.

Dump an LMDB environment with named databases by mdb_dump -a: without -a it writes the
records of LMDB as if they were pairs. mdb_dump before 0.9.25 does not escape backslashes
under -p: do without -p.

` + pathHelp,
		Example: `  kvtool load copy.folio app.dump
  kvtool dump app.folio | kvtool load copy.folio
  mdb_dump -a app.lmdb | kvtool load app.folio
  db_dump users.db | kvtool load --bucket users app.folio`,
		Args: argCount(1, 2),
		RunE: func(_ *cobra.Command, args []string) error { return a.load(&o, args) },
	}
	o.bucket.register(cmd, "load one database into this bucket, / for the root")
	cmd.Flags().Lookup("bucket").DefValue = ""
	cmd.Flags().BoolVarP(&o.keep, "no-overwrite", "n", false, "keep the pairs that are in the store already")
	return cmd
}

func (a *app) load(o *loadOptions, args []string) error {
	in, err := a.dumpInput(args[1:])
	if err != nil {
		return err
	}
	defer in.Close()
	l := &loader{o: o}
	err = a.updateOrCreate(args[0], func(tx *folio.Tx) error {
		l.r = dumptext.NewReader(in, dumptext.Limits{Key: folio.MaxKeySize, Value: folio.MaxValueSize})
		return l.all(tx)
	})
	if err != nil {
		return err
	}
	if l.kept > 0 {
		fmt.Fprintf(a.err, "kvtool: load: note: pairs kept as they were: %d\n", l.kept)
	}
	return nil
}

// dumpInput opens the file to be read.
func (a *app) dumpInput(args []string) (io.ReadCloser, error) {
	if len(args) == 0 || args[0] == "-" {
		in, err := a.input(len(args) == 1, "FILE")
		return io.NopCloser(in), err
	}
	f, err := os.Open(args[0])
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usageErrorf("there is no file %s", args[0])
	}
	return f, err
}

// loader is one load under way.
type loader struct {
	o    *loadOptions
	r    *dumptext.Reader
	kept int
}

func (l *loader) all(tx *folio.Tx) error {
	for n := 0; ; n++ {
		h, err := l.r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if n > 0 && l.o.bucket.given {
			return fmt.Errorf("line %d: a second database, which --bucket has no place for", h.Line)
		}
		if err := l.section(tx, &h); err != nil {
			return err
		}
	}
}

func (l *loader) section(tx *folio.Tx, h *dumptext.Header) error {
	b, err := l.target(tx, h)
	if err != nil {
		return err
	}
	for {
		key, value, err := l.r.Pair()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if err := l.put(b, key, value); err != nil {
			return fmt.Errorf("line %d: %w", l.r.KeyLine(), err)
		}
	}
	if h.Sequence == 0 || l.o.keep && b.Sequence() > 0 {
		return nil
	}
	return b.SetSequence(h.Sequence)
}

func (l *loader) put(b *folio.Bucket, key, value []byte) error {
	if l.o.keep && b.Get(key) != nil {
		l.kept++
		return nil
	}
	err := b.Put(key, value)
	if errors.Is(err, folio.ErrIncompatibleValue) {
		err = fmt.Errorf("the key is the name of a bucket (was this mdb_dump without -a?): %w", err)
	}
	return err
}

// target returns the bucket that a section goes to.
func (l *loader) target(tx *folio.Tx, h *dumptext.Header) (*folio.Bucket, error) {
	names := l.o.bucket.names
	if h.Named && !l.o.bucket.given {
		var err error
		if names, err = bucketNames(h); err != nil {
			return nil, fmt.Errorf("%w (dump that database alone and load it with --bucket)", err)
		}
	}
	b, err := makeBucket(tx, names)
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", h.Line, err)
	}
	return b, nil
}

func bucketNames(h *dumptext.Header) ([][]byte, error) {
	path, err := h.Name()
	if err != nil {
		return nil, err
	}
	names, err := bucketpath.Parse(path)
	if err == nil && len(names) == 0 {
		err = errors.New(`a database called "/", which is the root's path`)
	}
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", h.Line, err)
	}
	return names, nil
}
