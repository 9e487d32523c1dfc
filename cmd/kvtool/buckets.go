package main

// buckets.go is `kvtool buckets`: the tree of buckets.

import (
	"bufio"
	"fmt"
	"io"

	"github.com/foliokv/folio"
	"github.com/foliokv/folio/cmd/kvtool/internal/bucketpath"
	"github.com/spf13/cobra"
)

type bucketsOptions struct {
	bucket bucketFlag
	json   bool
}

func newBucketsCmd(a *app) *cobra.Command {
	var o bucketsOptions
	cmd := &cobra.Command{
		Use:   "buckets STORE",
		Short: "List the buckets",
		Long: `Buckets lists the root and every bucket in it, parents first and names in order. Each
line has the path, as --bucket takes it, the number of pairs, and the number of buckets
right below, with tabs between them. With --bucket the list begins at that bucket. With
--json it is an array of objects; len is the number of pairs and buckets together.

` + pathHelp,
		Example: `  kvtool buckets app.folio
  kvtool buckets app.folio | cut -f1
  kvtool buckets --bucket users --json app.folio`,
		Args: argCount(1, 1),
		RunE: func(_ *cobra.Command, args []string) error { return a.buckets(&o, args[0]) },
	}
	o.bucket.register(cmd, "path of the bucket to begin at")
	cmd.Flags().BoolVar(&o.json, "json", false, "write a JSON array")
	return cmd
}

// bucketJSON is a bucket for other programs.
type bucketJSON struct {
	Path     string `json:"path"`
	Len      uint64 `json:"len"`
	Pairs    uint64 `json:"pairs"`
	Buckets  uint64 `json:"buckets"`
	Sequence uint64 `json:"sequence"`
}

func (a *app) buckets(o *bucketsOptions, path string) error {
	return a.view(path, func(tx *folio.Tx) error {
		start, err := findBucket(tx, o.bucket.names)
		if err != nil {
			return err
		}
		if o.json {
			return jsonBuckets(a.out, start, o.bucket.names)
		}
		w := bufio.NewWriter(a.out)
		err = walkBuckets(start, o.bucket.names, func(path [][]byte, b *folio.Bucket, below [][]byte) error {
			j := describe(path, b, below)
			_, err := fmt.Fprintf(w, "%s\t%d\t%d\n", j.Path, j.Pairs, j.Buckets)
			return err
		})
		if err != nil {
			return err
		}
		return w.Flush()
	})
}

func jsonBuckets(w io.Writer, start *folio.Bucket, names [][]byte) error {
	var all []bucketJSON
	err := walkBuckets(start, names, func(path [][]byte, b *folio.Bucket, below [][]byte) error {
		all = append(all, describe(path, b, below))
		return nil
	})
	if err != nil {
		return err
	}
	return writeJSON(w, all)
}

func describe(path [][]byte, b *folio.Bucket, below [][]byte) bucketJSON {
	n, nested := b.Len(), uint64(len(below))
	return bucketJSON{
		Path: bucketpath.Format(path), Len: n, Pairs: n - nested, Buckets: nested, Sequence: b.Sequence(),
	}
}
