package folio_test

// bench_test.go has benchmarks of single operations. The comparison with other
// engines is in bench/, a module of its own.

import (
	"encoding/binary"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/foliokv/folio"
)

const benchPairs = 1_000_000

// benchKey returns key i of a shuffled order: 16 hex digits.
func benchKey(dst []byte, i int) []byte {
	const digits = "0123456789abcdef"
	x := uint64(i+1) * 0x9e3779b97f4a7c15
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	for s := 60; s >= 0; s -= 4 {
		dst = append(dst, digits[x>>s&15])
	}
	return dst
}

func benchStore(b *testing.B, npairs int, opts *folio.Options) *folio.DB {
	b.Helper()
	db, err := folio.Open(filepath.Join(b.TempDir(), "bench.folio"), 0o600, opts)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	value := make([]byte, 100)
	for from := 0; from < npairs; from += 10_000 {
		err := db.Update(func(tx *folio.Tx) error {
			for i := from; i < min(npairs, from+10_000); i++ {
				binary.LittleEndian.PutUint64(value, uint64(i))
				if err := tx.Put(benchKey(nil, i), value); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	return db
}

func BenchmarkGet(b *testing.B) {
	db := benchStore(b, benchPairs, &folio.Options{Sync: folio.SyncOff})
	order := rand.New(rand.NewPCG(1, 2)).Perm(benchPairs)
	b.Run("InOneTx", func(b *testing.B) {
		db.View(func(tx *folio.Tx) error {
			var key []byte
			for i := 0; b.Loop(); i++ {
				key = benchKey(key[:0], order[i%benchPairs])
				if tx.Get(key) == nil {
					b.Fatal("missing")
				}
			}
			return nil
		})
	})
	b.Run("View", func(b *testing.B) {
		b.ReportAllocs()
		var key []byte
		for i := 0; b.Loop(); i++ {
			key = benchKey(key[:0], order[i%benchPairs])
			db.View(func(tx *folio.Tx) error {
				if tx.Get(key) == nil {
					b.Fatal("missing")
				}
				return nil
			})
		}
	})
	b.Run("Hot", func(b *testing.B) {
		db.View(func(tx *folio.Tx) error {
			key := benchKey(nil, 77)
			for b.Loop() {
				if tx.Get(key) == nil {
					b.Fatal("missing")
				}
			}
			return nil
		})
	})
}

func BenchmarkScan(b *testing.B) {
	db := benchStore(b, benchPairs, &folio.Options{Sync: folio.SyncOff})
	perPair := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchPairs, "ns/pair")
	}
	b.Run("Cursor", func(b *testing.B) {
		for b.Loop() {
			db.View(func(tx *folio.Tx) error {
				n := 0
				c := tx.Cursor()
				for k, _ := c.First(); k != nil; k, _ = c.Next() {
					n++
				}
				if n != benchPairs {
					b.Fatal(n)
				}
				return nil
			})
		}
		perPair(b)
	})
	b.Run("All", func(b *testing.B) {
		for b.Loop() {
			db.View(func(tx *folio.Tx) error {
				n := 0
				for range tx.Root().All() {
					n++
				}
				if n != benchPairs {
					b.Fatal(n)
				}
				return nil
			})
		}
		perPair(b)
	})
}

func BenchmarkPut(b *testing.B) {
	db := benchStore(b, 100_000, &folio.Options{Sync: folio.SyncOff})
	value := make([]byte, 100)
	b.Run("InOneTx", func(b *testing.B) {
		tx, err := db.Begin(true)
		if err != nil {
			b.Fatal(err)
		}
		defer tx.Rollback()
		var key []byte
		for i := 0; b.Loop(); i++ {
			key = benchKey(key[:0], i%100_000)
			if err := tx.Put(key, value); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkCommit(b *testing.B) {
	for name, sync := range map[string]folio.SyncMode{"Durable": folio.SyncFull, "SyncOff": folio.SyncOff} {
		b.Run(name, func(b *testing.B) {
			db := benchStore(b, 100_000, &folio.Options{Sync: sync})
			value := make([]byte, 100)
			before := db.Stats()
			for i := 0; b.Loop(); i++ {
				err := db.Update(func(tx *folio.Tx) error { return tx.Put(benchKey(nil, i*7919%100_000), value) })
				if err != nil {
					b.Fatal(err)
				}
			}
			st := db.Stats()
			b.ReportMetric(float64(st.PagesWritten-before.PagesWritten)/float64(st.Commits-before.Commits), "pages/commit")
		})
	}
}

func BenchmarkBulkLoad(b *testing.B) {
	for _, random := range []bool{false, true} {
		name := "Sequential"
		if random {
			name = "Random"
		}
		b.Run(name, func(b *testing.B) {
			const npairs = 200_000
			for b.Loop() {
				db, err := folio.Open(filepath.Join(b.TempDir(), "load.folio"), 0o600, nil)
				if err != nil {
					b.Fatal(err)
				}
				value := make([]byte, 100)
				for from := 0; from < npairs; from += 10_000 {
					err := db.Update(func(tx *folio.Tx) error {
						for i := from; i < from+10_000; i++ {
							key := binary.BigEndian.AppendUint64(nil, uint64(i))
							if random {
								key = benchKey(nil, i)
							}
							if err := tx.Put(key, value); err != nil {
								return err
							}
						}
						return nil
					})
					if err != nil {
						b.Fatal(err)
					}
				}
				db.Close()
			}
			b.ReportMetric(npairs*float64(b.N)/b.Elapsed().Seconds(), "pairs/s")
		})
	}
}
