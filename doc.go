// Package folio is an embedded, ordered, transactional key-value store in one file.
//
// A store is an ordered map of byte keys to byte values, with buckets (maps in maps)
// nested as deep as one likes. Many read transactions run at once, each on a snapshot
// of its own; one write transaction runs at a time; neither waits for the other. In the
// default mode a commit is on the disk when it returns: by its record in a redo log, or
// with all its pages. Commits of many goroutines share a sync.
//
//	db, err := folio.Open("app.folio", 0o600, nil)
//	if err != nil {
//		return err
//	}
//	defer db.Close()
//	err = db.Update(func(tx *folio.Tx) error {
//		return tx.Put([]byte("greeting"), []byte("hello"))
//	})
//	// ...
//	err = db.View(func(tx *folio.Tx) error {
//		fmt.Printf("%s\n", tx.Get([]byte("greeting")))
//		return nil
//	})
//
// # Slices
//
// Get, cursors and iterators hand out slices of the mapped file or of the transaction's
// own pages, without a copy. They are valid, and unchanged, until the transaction ends,
// and must not be modified. Copy what is to outlive it (bytes.Clone). Put copies its
// arguments, so the caller may use its own buffers again at once.
//
// # Errors
//
// Errors wrap the sentinels of this package (ErrCorrupt, ErrTimeout and so on) with what
// was being done: test them with errors.Is. Methods that return no error, such as
// Bucket.Get, give nothing where they meet damage or an I/O error. The transaction
// keeps the first such fault: Tx.Err tells it, View and Update return it, and Commit
// refuses.
//
// # Goroutines
//
// A DB is safe for concurrent use. A Tx, and what was had from it, is for one goroutine
// at a time. A goroutine that has a write transaction open must not wait for another
// one of the same DB: Update, Begin(true), Close, Readers and Check would wait for ever.
// Tx.Nested runs a transaction within a transaction.
//
// The file is read through a mapping. Where the operating system can't supply a page of
// it, the transaction gets ErrPageFault. That works on the goroutine that runs fn of
// View, Update or Nested, and within each call of a transaction from Begin. A slice that
// is read on another goroutine, or between the calls of a transaction from Begin, is not
// guarded: a fault there ends the process.
package folio
