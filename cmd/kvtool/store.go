package main

// store.go opens stores and finds buckets in them, the same way for every command.

import (
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"github.com/foliokv/folio"
	"github.com/foliokv/folio/cmd/kvtool/internal/bucketpath"
	"github.com/spf13/cobra"
)

const (
	// storeMode is for new stores: what is in one is its owner's business.
	storeMode = 0o600

	// maxDepth is how deep buckets are followed: a damaged file may have cycles.
	maxDepth = 4096

	pathHelp = `A bucket is named by its path from the root, as in a/b/c; / is the root itself. In a
name, write \/ for a slash, \\ for a backslash, and \xHH for any byte.`
)

// bucketFlag is the value of --bucket.
type bucketFlag struct {
	names [][]byte
	given bool
}

// String implements pflag.Value.
func (b *bucketFlag) String() string { return bucketpath.Format(b.names) }

// Type implements pflag.Value: it stands for the value in help texts.
func (b *bucketFlag) Type() string { return "path" }

// Set implements pflag.Value.
func (b *bucketFlag) Set(s string) (err error) {
	b.given = true
	b.names, err = bucketpath.Parse(s)
	return err
}

func (b *bucketFlag) register(cmd *cobra.Command, usage string) {
	cmd.Flags().VarP(b, "bucket", "b", usage)
}

// warnings is a logger that says on stderr what the user should know of a store that
// opens all the same, such as a meta page that is damaged.
func (a *app) warnings() *slog.Logger {
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{
		Level: slog.LevelWarn,
		ReplaceAttr: func(_ []string, at slog.Attr) slog.Attr {
			if at.Key == slog.TimeKey {
				return slog.Attr{} // it is now
			}
			return at
		},
	}))
}

// options are those with which the store at path is opened.
func (a *app) options(readOnly bool) (*folio.Options, error) {
	o := &folio.Options{ReadOnly: readOnly, Timeout: a.timeout, Logger: a.warnings()}
	switch {
	case a.timeout < 0:
		return nil, usageErrorf("--timeout %v is negative", a.timeout)
	case a.timeout == 0:
		o.Timeout = -1 * time.Nanosecond // to the library 0 is the default
	}
	return o, nil
}

// view opens the store at path for reading and runs fn on a snapshot of it.
func (a *app) view(path string, fn func(*folio.Tx) error) error {
	return a.open(path, true, func(db *folio.DB) error { return db.View(fn) })
}

// update opens the store at path for writing and runs fn in one transaction.
func (a *app) update(path string, fn func(*folio.Tx) error) error {
	return a.open(path, false, func(db *folio.DB) error { return db.Update(fn) })
}

// open opens the store at path and closes it after fn. A reader never creates it.
func (a *app) open(path string, readOnly bool, fn func(*folio.DB) error) error {
	o, err := a.options(readOnly)
	if err != nil {
		return err
	}
	db, err := folio.Open(path, storeMode, o)
	if errors.Is(err, fs.ErrNotExist) {
		return usageErrorf("there is no store %s", path)
	}
	if err != nil {
		return err
	}
	err = fn(db)
	return errors.Join(err, db.Close())
}

// findBucket returns the bucket that names lead to.
func findBucket(tx *folio.Tx, names [][]byte) (*folio.Bucket, error) {
	b := tx.Root()
	for i, name := range names {
		next := b.Bucket(name)
		if err := tx.Err(); err != nil {
			return nil, err
		}
		if next == nil {
			return nil, notFoundf("there is no bucket %s (kvtool buckets lists them)", bucketpath.Format(names[:i+1]))
		}
		b = next
	}
	return b, nil
}

// makeBucket returns the bucket that names lead to, and creates what is missing on the way.
func makeBucket(tx *folio.Tx, names [][]byte) (_ *folio.Bucket, err error) {
	b := tx.Root()
	for i, name := range names {
		if b, err = b.CreateBucketIfNotExists(name); err != nil {
			return nil, &bucketError{bucketpath.Format(names[:i+1]), err}
		}
	}
	return b, nil
}

// bucketError says at which bucket something went wrong.
type bucketError struct {
	path string
	err  error
}

func (e *bucketError) Error() string { return "bucket " + e.path + ": " + e.err.Error() }
func (e *bucketError) Unwrap() error { return e.err }

// walkBuckets calls fn for b, whose path is path, and then for every bucket in it,
// parents first, names in order. fn also gets the names of the buckets right below.
func walkBuckets(b *folio.Bucket, path [][]byte, fn func(path [][]byte, b *folio.Bucket, below [][]byte) error) error {
	if err := checkDepth(path); err != nil {
		return err
	}
	var below [][]byte
	err := b.ForEachBucket(func(name []byte) error {
		below = append(below, name)
		return nil
	})
	if err := errors.Join(err, b.Tx().Err()); err != nil {
		return err
	}
	if err := fn(path, b, below); err != nil {
		return err
	}
	return eachBelow(b, path, below, func(path [][]byte, b *folio.Bucket) error { return walkBuckets(b, path, fn) })
}

// eachBelow calls fn for the buckets in b that have the names below.
func eachBelow(b *folio.Bucket, path, below [][]byte, fn func(path [][]byte, b *folio.Bucket) error) error {
	for _, name := range below {
		next := b.Bucket(name)
		if next == nil {
			return b.Tx().Err()
		}
		if err := fn(append(path[:len(path):len(path)], name), next); err != nil {
			return err
		}
	}
	return nil
}

func checkDepth(path [][]byte) error {
	if len(path) > maxDepth {
		return &bucketError{bucketpath.Format(path[:4]) + "/...", errors.New("buckets nest too deep: run kvtool check")}
	}
	return nil
}
