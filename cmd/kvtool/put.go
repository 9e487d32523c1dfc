package main

// put.go is `kvtool put`: one pair into a store.

import (
	"fmt"
	"io"

	"github.com/foliokv/folio"
	"github.com/spf13/cobra"
)

type putOptions struct {
	bucket bucketFlag
	hex    bool
}

func newPutCmd(a *app) *cobra.Command {
	var o putOptions
	cmd := &cobra.Command{
		Use:   "put STORE KEY [VALUE]",
		Short: "Store a pair",
		Long: `Put stores VALUE under KEY, in place of the value that is there. Where VALUE is absent
or - it is read from standard input, byte for byte, with a newline at its end if there
is one, and never as hex. With --hex KEY and VALUE are in hex.

A store that does not exist is created (for its owner alone), and so are the buckets of
--bucket. When put returns, the pair is durable.

` + pathHelp,
		Example: `  kvtool put app.folio greeting hello
  kvtool put --bucket files/images app.folio cat.png < cat.png
  kvtool put --hex app.folio 00ff cafe
  kvtool put app.folio -- -key -value`,
		Args: argCount(2, 3),
		RunE: func(_ *cobra.Command, args []string) error { return a.put(&o, args) },
	}
	o.bucket.register(cmd, "path of the bucket; created where missing")
	cmd.Flags().BoolVar(&o.hex, "hex", false, "key and value are given in hex")
	return cmd
}

func (a *app) put(o *putOptions, args []string) error {
	key, err := keyArg(args[1], o.hex)
	if err != nil {
		return err
	}
	// The whole value comes first: a store is neither made nor locked for one that fails.
	value, err := a.putValue(o, args[2:])
	if err != nil {
		return err
	}
	return a.update(args[0], func(tx *folio.Tx) error {
		b, err := makeBucket(tx, o.bucket.names)
		if err != nil {
			return err
		}
		if err := b.Put(key, value); err != nil {
			return fmt.Errorf("key %s: %w", showKey(key, o.hex), err)
		}
		return nil
	})
}

func (a *app) putValue(o *putOptions, args []string) ([]byte, error) {
	asked := len(args) == 1 && args[0] == "-"
	if len(args) == 1 && !asked {
		return bytesArg("value", args[0], o.hex)
	}
	in, err := a.input(asked, "VALUE")
	if err != nil {
		return nil, err
	}
	value, err := io.ReadAll(io.LimitReader(in, folio.MaxValueSize+1))
	if err != nil {
		return nil, fmt.Errorf("read the value: %w", err)
	}
	if len(value) > folio.MaxValueSize {
		return nil, usageErrorf("the value has more than %d bytes", folio.MaxValueSize)
	}
	return value, nil
}
