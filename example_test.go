package folio_test

// example_test.go shows each main use, as godoc shows it.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/foliokv/folio"
)

// exampleStore opens a new store in a directory that is removed with it.
func exampleStore() (db *folio.DB, done func()) {
	dir, err := os.MkdirTemp("", "folio-example-")
	if err != nil {
		log.Fatal(err)
	}
	db, err = folio.Open(filepath.Join(dir, "app.folio"), 0o600, nil)
	if err != nil {
		log.Fatal(err)
	}
	return db, func() {
		if err := errors.Join(db.Close(), os.RemoveAll(dir)); err != nil {
			log.Fatal(err)
		}
	}
}

// planets puts the planets by their order, and prints what goes wrong.
func planets(db *folio.DB) {
	err := db.Update(func(tx *folio.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte("planets"))
		if err != nil {
			return err
		}
		for i, name := range strings.Fields("Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune") {
			if err := b.Put(fmt.Appendf(nil, "%02d", i+1), []byte(name)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
}

func Example() {
	dir, err := os.MkdirTemp("", "folio-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	db, err := folio.Open(filepath.Join(dir, "app.folio"), 0o600, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	// All of it, or nothing; durable when Update returns nil.
	err = db.Update(func(tx *folio.Tx) error {
		if err := tx.Put([]byte("colour"), []byte("green")); err != nil {
			return err
		}
		return tx.Put([]byte("shape"), []byte("round"))
	})
	if err != nil {
		log.Fatal(err)
	}

	// A snapshot. The slices are valid until fn returns.
	err = db.View(func(tx *folio.Tx) error {
		fmt.Printf("colour: %s\n", tx.Get([]byte("colour")))
		fmt.Println("size is absent:", tx.Get([]byte("size")) == nil)
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// colour: green
	// size is absent: true
}

func ExampleOpen_errors() {
	dir, err := os.MkdirTemp("", "folio-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "notes.txt")
	if err := os.WriteFile(path, []byte("not a store"), 0o600); err != nil {
		log.Fatal(err)
	}
	_, err = folio.Open(path, 0o600, nil)
	fmt.Println(errors.Is(err, folio.ErrInvalid))
	// Output: true
}

func ExampleOptions_inMemory() {
	db, err := folio.Open("scratch", 0, &folio.Options{InMemory: true})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close() // everything is gone then
	err = db.Update(func(tx *folio.Tx) error { return tx.Put([]byte("k"), []byte("v")) })
	fmt.Println(err)
	_, err = os.Stat("scratch")
	fmt.Println("a file:", err == nil)
	// Output:
	// <nil>
	// a file: false
}

func ExampleDB_Begin() {
	db, done := exampleStore()
	defer done()

	tx, err := db.Begin(true)
	if err != nil {
		log.Fatal(err)
	}
	defer tx.Rollback() // after Commit it does nothing
	if err := tx.Put([]byte("k"), []byte("v")); err != nil {
		log.Fatal(err)
	}
	fmt.Println(tx.Commit())
	fmt.Println(errors.Is(tx.Rollback(), folio.ErrTxClosed))
	// Output:
	// <nil>
	// true
}

func ExampleTx_Nested() {
	db, done := exampleStore()
	defer done()

	err := db.Update(func(tx *folio.Tx) error {
		for _, item := range []string{"pen", "", "ink"} { // the empty key is refused
			err := tx.Nested(func(tx *folio.Tx) error {
				if err := tx.Put([]byte("last"), []byte(item)); err != nil {
					return err
				}
				return tx.Put([]byte(item), []byte("in stock"))
			})
			if errors.Is(err, folio.ErrKeyRequired) {
				fmt.Printf("skipped; last is still %s\n", tx.Get([]byte("last")))
				continue
			}
			if err != nil {
				return err
			}
		}
		fmt.Println("keys:", tx.Root().Len())
		return nil
	})
	fmt.Println(err)
	// Output:
	// skipped; last is still pen
	// keys: 3
	// <nil>
}

func ExampleTx_CommitAsync() {
	db, done := exampleStore()
	defer done()

	var waits []func() error
	for i := range 3 {
		tx, err := db.Begin(true)
		if err != nil {
			log.Fatal(err)
		}
		if err := tx.Put(fmt.Appendf(nil, "event %d", i), []byte("...")); err != nil {
			log.Fatal(err)
		}
		wait, err := tx.CommitAsync() // the next transaction can begin at once
		if err != nil {
			log.Fatal(err)
		}
		waits = append(waits, wait)
	}
	// Durable from here on. One sync covers all three.
	for _, wait := range waits {
		if err := wait(); err != nil {
			log.Fatal(err)
		}
	}
	db.View(func(tx *folio.Tx) error {
		fmt.Println(tx.Root().Len(), "events")
		return nil
	})
	// Output: 3 events
}

func ExampleTx_OnCommit() {
	db, done := exampleStore()
	defer done()

	put := func(key string, fail error) {
		db.Update(func(tx *folio.Tx) error {
			tx.OnCommit(func() { fmt.Println(key, "is on the disk") })
			return errors.Join(tx.Put([]byte(key), nil), fail)
		})
	}
	put("first", nil)
	put("second", errors.New("no"))
	// Output: first is on the disk
}

func ExampleTx_CopyFile() {
	db, done := exampleStore()
	defer done()
	planets(db)

	// A hot backup: others read and write meanwhile. The copy must not exist yet.
	backup := db.Path() + ".backup"
	err := db.View(func(tx *folio.Tx) error { return tx.CopyFile(backup, 0o600) })
	if err != nil {
		log.Fatal(err)
	}

	copied, err := folio.Open(backup, 0, &folio.Options{ReadOnly: true})
	if err != nil {
		log.Fatal(err)
	}
	defer copied.Close()
	copied.View(func(tx *folio.Tx) error {
		fmt.Println(tx.Bucket([]byte("planets")).Len(), "planets")
		return nil
	})
	// Output: 8 planets
}

func ExampleDB_Check() {
	db, done := exampleStore()
	defer done()
	planets(db)

	sound := true
	for err := range db.Check(context.Background()) {
		sound = false
		var f *folio.Fault
		if errors.As(err, &f) {
			fmt.Printf("page %d: %s\n", f.Page, f.Rule)
		} else {
			fmt.Println(err)
		}
	}
	fmt.Println("sound:", sound)
	// Output: sound: true
}

func ExampleBucket() {
	db, done := exampleStore()
	defer done()

	err := db.Update(func(tx *folio.Tx) error {
		users, err := tx.CreateBucketIfNotExists([]byte("users"))
		if err != nil {
			return err
		}
		for _, name := range []string{"ada", "bob"} {
			user, err := users.CreateBucketIfNotExists([]byte(name))
			if err != nil {
				return err
			}
			if err := user.Put([]byte("mail"), []byte(name+"@example.org")); err != nil {
				return err
			}
		}
		return users.Put([]byte("owner"), []byte("ada")) // a pair beside the buckets
	})
	if err != nil {
		log.Fatal(err)
	}

	db.View(func(tx *folio.Tx) error {
		users := tx.Bucket([]byte("users")) // nil if it is not there
		fmt.Printf("owner: %s\n", users.Get([]byte("owner")))
		return users.ForEachBucket(func(name []byte) error {
			fmt.Printf("%s: %s\n", name, users.Bucket(name).Get([]byte("mail")))
			return nil
		})
	})
	// Output:
	// owner: ada
	// ada: ada@example.org
	// bob: bob@example.org
}

func ExampleTx_MoveBucket() {
	db, done := exampleStore()
	defer done()
	planets(db)

	err := db.Update(func(tx *folio.Tx) error {
		archive, err := tx.CreateBucket([]byte("archive"))
		if err != nil {
			return err
		}
		return tx.MoveBucket([]byte("planets"), nil, archive) // nil is the root
	})
	fmt.Println(err)
	db.View(func(tx *folio.Tx) error {
		return tx.ForEach(func(name []byte, b *folio.Bucket) error {
			fmt.Printf("%s holds planets: %t\n", name, b.Bucket([]byte("planets")) != nil)
			return nil
		})
	})
	// Output:
	// <nil>
	// archive holds planets: true
}

func ExampleCursor() {
	db, done := exampleStore()
	defer done()
	planets(db)

	err := db.Update(func(tx *folio.Tx) error {
		// A cursor keeps its place while the bucket changes.
		c := tx.Bucket([]byte("planets")).Cursor()
		for k, v := c.Seek([]byte("05")); k != nil; k, v = c.Next() {
			if bytes.HasSuffix(v, []byte("us")) {
				continue
			}
			if err := c.Delete(); err != nil {
				return err
			}
		}
		for k, v := c.Last(); k != nil; k, v = c.Prev() {
			fmt.Printf("%s %s\n", k, v)
		}
		return nil
	})
	fmt.Println(err)
	// Output:
	// 07 Uranus
	// 04 Mars
	// 03 Earth
	// 02 Venus
	// 01 Mercury
	// <nil>
}

func ExampleBucket_All() {
	db, done := exampleStore()
	defer done()
	planets(db)

	db.View(func(tx *folio.Tx) error {
		for k, v := range tx.Bucket([]byte("planets")).All() {
			fmt.Printf("%s %s\n", k, v)
			if string(k) == "03" {
				break
			}
		}
		return nil
	})
	// Output:
	// 01 Mercury
	// 02 Venus
	// 03 Earth
}

func ExampleBucket_Range() {
	db, done := exampleStore()
	defer done()
	planets(db)

	db.View(func(tx *folio.Tx) error {
		b := tx.Bucket([]byte("planets"))
		for _, v := range b.Range([]byte("03"), []byte("05")) { // 03 <= key < 05
			fmt.Printf("%s ", v)
		}
		for _, v := range b.Range([]byte("07"), nil) { // no end
			fmt.Printf("%s ", v)
		}
		fmt.Println()
		return nil
	})
	// Output: Earth Mars Uranus Neptune
}

func ExampleBucket_Prefix() {
	db, done := exampleStore()
	defer done()

	err := db.Update(func(tx *folio.Tx) error {
		for _, k := range []string{"file/a", "file/b", "fill", "user/a"} {
			if err := tx.Put([]byte(k), nil); err != nil {
				return err
			}
		}
		for k := range tx.Root().Prefix([]byte("file/")) {
			fmt.Printf("%s\n", k)
		}
		return nil
	})
	fmt.Println(err)
	// Output:
	// file/a
	// file/b
	// <nil>
}

func ExampleBucket_DeleteRange() {
	db, done := exampleStore()
	defer done()
	planets(db)

	db.Update(func(tx *folio.Tx) error {
		b := tx.Bucket([]byte("planets"))
		n, err := b.DeleteRange([]byte("02"), []byte("05")) // 02 <= key < 05
		fmt.Println(n, "deleted,", b.Len(), "left,", err)
		return err
	})
	// Output: 3 deleted, 5 left, <nil>
}

// Each of these looks at one path of pages, however many pairs there are.
func ExampleBucket_Rank() {
	db, done := exampleStore()
	defer done()
	planets(db)

	db.View(func(tx *folio.Tx) error {
		b := tx.Bucket([]byte("planets"))
		fmt.Println("in all:", b.Len())
		fmt.Println("below 05:", b.Rank([]byte("05")))
		fmt.Println("from 03 to below 07:", b.Count([]byte("03"), []byte("07")))
		k, v := b.At(b.Len() - 1)
		fmt.Printf("last: %s %s\n", k, v)
		return nil
	})
	// Output:
	// in all: 8
	// below 05: 4
	// from 03 to below 07: 4
	// last: 08 Neptune
}

func ExampleBucket_NextSequence() {
	db, done := exampleStore()
	defer done()

	for range 2 {
		err := db.Update(func(tx *folio.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("orders"))
			if err != nil {
				return err
			}
			id, err := b.NextSequence()
			if err != nil {
				return err
			}
			return b.Put(fmt.Appendf(nil, "%08d", id), []byte("paid"))
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	db.View(func(tx *folio.Tx) error {
		b := tx.Bucket([]byte("orders"))
		k, _ := b.Cursor().Last()
		fmt.Printf("sequence %d, last key %s\n", b.Sequence(), k)
		return nil
	})
	// Output: sequence 2, last key 00000002
}
