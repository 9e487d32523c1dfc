package main

// stat.go is `kvtool stat`: the sizes of a store and of its buckets.

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/foliokv/folio"
	"github.com/foliokv/folio/cmd/kvtool/internal/bucketpath"
	"github.com/spf13/cobra"
)

type statOptions struct {
	bucket  bucketFlag
	buckets bool
	json    bool
}

func newStatCmd(a *app) *cobra.Command {
	var o statOptions
	cmd := &cobra.Command{
		Use:   "stat STORE",
		Short: "Show the sizes of a store",
		Long: `Stat shows the sizes of a store: of its file and of its redo log in bytes, of the rest in
pages. Waiting pages are free, but a reader or the last durable commit still needs them.
--buckets adds a line for each bucket, and reads the whole store for it; --bucket adds one
for that bucket alone. The column used is how much of the bucket's pages is filled.

` + pathHelp,
		Example: `  kvtool stat app.folio
  kvtool stat --buckets app.folio
  kvtool stat --bucket users/by-id --json app.folio`,
		Args: argCount(1, 1),
		RunE: func(_ *cobra.Command, args []string) error { return a.stat(&o, args[0]) },
	}
	o.bucket.register(cmd, "add the sizes of this bucket")
	cmd.Flags().Lookup("bucket").DefValue = ""
	cmd.Flags().BoolVar(&o.buckets, "buckets", false, "add the sizes of every bucket")
	cmd.Flags().BoolVar(&o.json, "json", false, "write a JSON object")
	return cmd
}

// statJSON is what stat shows, for other programs.
type statJSON struct {
	Path         string           `json:"path"`
	PageSize     int              `json:"page_size"`
	FileSize     int64            `json:"file_size"`
	Pages        uint64           `json:"pages"`
	FreePages    uint64           `json:"free_pages"`
	WaitingPages uint64           `json:"waiting_pages"`
	FreelogPages int              `json:"freelog_pages"`
	LogSize      int64            `json:"log_size"`
	Newest       uint64           `json:"newest_txid"`
	Durable      uint64           `json:"durable_txid"`
	Buckets      []bucketStatJSON `json:"buckets,omitempty"`
}

// bucketStatJSON is what stat shows of one bucket.
type bucketStatJSON struct {
	Path        string `json:"path"`
	Pairs       uint64 `json:"pairs"`
	Buckets     uint64 `json:"buckets"`
	Sequence    uint64 `json:"sequence"`
	Depth       int    `json:"depth"`
	BranchPages uint64 `json:"branch_pages"`
	LeafPages   uint64 `json:"leaf_pages"`
	RunPages    uint64 `json:"run_pages"`
	BranchUsed  uint64 `json:"branch_used"`
	LeafUsed    uint64 `json:"leaf_used"`
	RunUsed     uint64 `json:"run_used"`
}

func (a *app) stat(o *statOptions, path string) error {
	return a.open(path, true, func(db *folio.DB) error {
		s := storeStat(path, db.Stats())
		if o.buckets || o.bucket.given {
			err := db.View(func(tx *folio.Tx) (err error) {
				s.Buckets, err = o.bucketStats(tx)
				return err
			})
			if err != nil {
				return err
			}
		}
		if o.json {
			return writeJSON(a.out, s)
		}
		return s.write(a.out)
	})
}

func storeStat(path string, st folio.Stats) *statJSON {
	return &statJSON{
		Path: path, PageSize: st.PageSize, FileSize: st.FileSize,
		Pages: st.Pages, FreePages: st.FreePages, WaitingPages: st.WaitingPages, FreelogPages: st.FreelogPages,
		LogSize: st.LogSize, Newest: st.Newest, Durable: st.Durable,
	}
}

// bucketStats are those of the bucket that was asked for, and with --buckets of all in it.
func (o *statOptions) bucketStats(tx *folio.Tx) (all []bucketStatJSON, err error) {
	start, err := findBucket(tx, o.bucket.names)
	if err != nil {
		return nil, err
	}
	add := func(path [][]byte, b *folio.Bucket, _ [][]byte) error {
		all = append(all, bucketStat(path, b))
		return tx.Err()
	}
	if o.buckets {
		err = walkBuckets(start, o.bucket.names, add)
	} else {
		err = add(o.bucket.names, start, nil)
	}
	return all, err
}

func bucketStat(path [][]byte, b *folio.Bucket) bucketStatJSON {
	st := b.Stats()
	return bucketStatJSON{
		Path: bucketpath.Format(path), Pairs: st.Pairs, Buckets: st.Buckets, Sequence: b.Sequence(), Depth: st.Depth,
		BranchPages: st.BranchPages, LeafPages: st.LeafPages, RunPages: st.RunPages,
		BranchUsed: st.BranchUsed, LeafUsed: st.LeafUsed, RunUsed: st.RunUsed,
	}
}

// write writes s for people.
func (s *statJSON) write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "path\t%s\npage size\t%d\nfile size\t%d\n", s.Path, s.PageSize, s.FileSize)
	fmt.Fprintf(w, "pages\t%d\nfree pages\t%d\nwaiting pages\t%d\n", s.Pages, s.FreePages, s.WaitingPages)
	fmt.Fprintf(w, "freelog pages\t%d\nredo log size\t%d\n", s.FreelogPages, s.LogSize)
	fmt.Fprintf(w, "newest txid\t%d\ndurable txid\t%d\n", s.Newest, s.Durable)
	if err := w.Flush(); err != nil || len(s.Buckets) == 0 {
		return err
	}
	fmt.Fprintln(out)
	// The path stands last: it may be long, and is the one that is not a number.
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "pairs\tbuckets\tsequence\tdepth\tbranches\tleaves\trun pages\tused\t  bucket")
	for _, b := range s.Buckets {
		fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t  %s\n", b.Pairs, b.Buckets, b.Sequence, b.Depth,
			b.BranchPages, b.LeafPages, b.RunPages, b.used(s.PageSize), b.Path)
	}
	return w.Flush()
}

// used is the filled part of the bucket's pages.
func (b *bucketStatJSON) used(pageSize int) string {
	total := (b.BranchPages + b.LeafPages + b.RunPages) * uint64(pageSize)
	if total == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f%%", 100*float64(b.BranchUsed+b.LeafUsed+b.RunUsed)/float64(total))
}
