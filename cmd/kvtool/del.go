package main

// del.go is `kvtool del`: one pair out of a store.

import (
	"github.com/foliokv/folio"
	"github.com/spf13/cobra"
)

type delOptions struct {
	bucket bucketFlag
	hex    bool
}

func newDelCmd(a *app) *cobra.Command {
	var o delOptions
	cmd := &cobra.Command{
		Use:   "del STORE KEY",
		Short: "Remove a pair",
		Long: `Del removes KEY and its value. A key or bucket that is not there exits 1 and changes
nothing, and so does the name of a bucket: buckets are not removed. With --hex KEY is
in hex.

` + pathHelp,
		Example: `  kvtool del app.folio greeting
  kvtool del --bucket users/by-id --hex app.folio 0000002a`,
		Args: argCount(2, 2),
		RunE: func(_ *cobra.Command, args []string) error { return a.del(&o, args[0], args[1]) },
	}
	o.bucket.register(cmd, "path of the bucket")
	cmd.Flags().BoolVar(&o.hex, "hex", false, "the key is given in hex")
	return cmd
}

func (a *app) del(o *delOptions, path, arg string) error {
	key, err := keyArg(arg, o.hex)
	if err != nil {
		return err
	}
	if err := mustExist(path); err != nil {
		return err
	}
	return a.update(path, func(tx *folio.Tx) error {
		b, err := findBucket(tx, o.bucket.names)
		if err != nil {
			return err
		}
		if b.Get(key) == nil {
			return missing(b, key, o.bucket.names, o.hex)
		}
		return b.Delete(key)
	})
}
