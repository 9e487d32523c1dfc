package fuzz

// open_target_test.go opens arbitrary bytes as a store. What is no store is refused and
// never changed; what can be opened is read in all ways.

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/foliokv/folio"
)

// FuzzOpen: file is the file; verify says when sums are checked.
func FuzzOpen(f *testing.F) {
	for _, file := range openSeeds(f) {
		f.Add(file, uint8(0))
		f.Add(file, uint8(folio.VerifyOff))
	}
	f.Fuzz(func(t *testing.T, file []byte, verify uint8) {
		guardTime(t)
		e := &examination{t: t, path: filepath.Join(scratchDir(t), "store"), file: file, verify: folio.VerifyMode(verify % 3)}
		e.run()
	})
}

// openSeeds returns stores, and what is left of some, and other files.
func openSeeds(f *testing.F) (files [][]byte) {
	for _, psize := range []int{4096, 8192, 16384} {
		closed, crashed := smallStore(f, psize)
		files = append(files, closed, crashed)
		for slot := range 4 {
			torn := bytes.Clone(crashed)
			clear(torn[slot*psize : (slot+1)*psize])
			files = append(files, torn)
		}
		half := bytes.Clone(crashed) // only some of the newest commit's pages are there
		clear(half[len(half)/2:])
		files = append(files, half, closed[:len(closed)-1], closed[:psize], closed[psize:])
	}
	magic := layout().magic
	version := bytes.Clone(files[0][:5*4096])
	version[magic+8] = 2
	return append(files, version, nil, []byte("SQLite format 3\x00"), make([]byte, 20_000), []byte(strings.Repeat(magicOfMeta, 3000)))
}

// smallStore returns a store's file after it was closed, and as it was while it was open.
func smallStore(f *testing.F, psize int) (closed, open []byte) {
	path := filepath.Join(f.TempDir(), fmt.Sprint(psize))
	must := func(err error) {
		if err != nil {
			f.Fatal(err)
		}
	}
	db, err := folio.Open(path, 0o600, &folio.Options{PageSize: psize, Sync: folio.SyncOff})
	must(err)
	for i := range 6 {
		must(db.Update(func(tx *folio.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("bucket"))
			must(err)
			must(b.Put(fmt.Appendf(nil, "large %d", i%2), patterned(i, psize)))
			for k := range 30 {
				must(tx.Put(fmt.Appendf(nil, "pair %d", k*7+i), patterned(i, 40)))
			}
			return nil
		}))
	}
	open, err = os.ReadFile(path)
	must(err)
	must(db.Close())
	closed, err = os.ReadFile(path)
	must(err)
	return closed, bytes.TrimRight(open, "\x00")
}
