package main

// get.go is `kvtool get`: the value of one key.

import (
	"encoding/hex"
	"io"

	"github.com/foliokv/folio"
	"github.com/foliokv/folio/cmd/kvtool/internal/bucketpath"
	"github.com/spf13/cobra"
)

type getOptions struct {
	bucket bucketFlag
	hex    bool
	json   bool
}

func newGetCmd(a *app) *cobra.Command {
	var o getOptions
	cmd := &cobra.Command{
		Use:   "get STORE KEY",
		Short: "Write the value of a key",
		Long: `Get writes the bytes of the value of KEY, and nothing else: no newline follows them.
With --hex KEY is in hex, and the value is written as hex digits and a newline. With
--json the pair is written as an object; its fields key and value are there only where
the bytes are UTF-8, key_hex and value_hex always.

A key or bucket that is not there exits 1 and writes nothing to standard output.

` + pathHelp,
		Example: `  kvtool get app.folio greeting
  kvtool get --bucket users/by-id --hex app.folio 0000002a
  kvtool get --json app.folio greeting | jq -r .value_hex`,
		Args: argCount(2, 2),
		RunE: func(_ *cobra.Command, args []string) error { return a.get(&o, args[0], args[1]) },
	}
	o.bucket.register(cmd, "path of the bucket")
	cmd.Flags().BoolVar(&o.hex, "hex", false, "the key is given, and the value written, in hex")
	cmd.Flags().BoolVar(&o.json, "json", false, "write a JSON object")
	return cmd
}

func (a *app) get(o *getOptions, path, arg string) error {
	key, err := keyArg(arg, o.hex)
	if err != nil {
		return err
	}
	return a.view(path, func(tx *folio.Tx) error {
		b, err := findBucket(tx, o.bucket.names)
		if err != nil {
			return err
		}
		value := b.Get(key)
		if value == nil {
			return missing(b, key, o.bucket.names, o.hex)
		}
		return o.write(a.out, key, value)
	})
}

// missing is the error for a key that Get did not give.
func missing(b *folio.Bucket, key []byte, names [][]byte, isHex bool) error {
	isBucket := b.Bucket(key) != nil
	if err := b.Tx().Err(); err != nil {
		return err
	}
	if isBucket {
		names = append(names[:len(names):len(names)], key)
		return notFoundf("%s is a bucket and has no value (look into it with --bucket)", bucketpath.Format(names))
	}
	return notFoundf("there is no key %s in bucket %s", showKey(key, isHex), bucketpath.Format(names))
}

// pairJSON is a pair for other programs.
type pairJSON struct {
	Bucket   string  `json:"bucket"`
	Key      *string `json:"key,omitempty"`
	KeyHex   string  `json:"key_hex"`
	Value    *string `json:"value,omitempty"`
	ValueHex string  `json:"value_hex"`
}

func (o *getOptions) write(w io.Writer, key, value []byte) (err error) {
	switch {
	case o.json:
		return writeJSON(w, pairJSON{
			Bucket: o.bucket.String(),
			Key:    text(key), KeyHex: hex.EncodeToString(key),
			Value: text(value), ValueHex: hex.EncodeToString(value),
		})
	case o.hex:
		if _, err = hex.NewEncoder(w).Write(value); err == nil {
			_, err = io.WriteString(w, "\n")
		}
	default:
		_, err = w.Write(value)
	}
	return err
}
