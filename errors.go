package folio

// errors.go names every error that a caller can tell apart, and the few
// helpers that wrap them with their context.

import (
	"errors"
	"fmt"
)

// Sentinels for errors.Is. The errors that Folio returns wrap one of these with
// what was being done, where, and what to do about it.
var (
	// ErrDatabaseNotOpen: the DB is closed or closing.
	ErrDatabaseNotOpen = errors.New("database is not open")
	// ErrDatabaseReadOnly: the DB was opened with ReadOnly, or the file can only be read, or
	// something failed after which nothing may be written: no room for a recovery, a failed
	// commit that could not be taken back. The message says which.
	ErrDatabaseReadOnly = errors.New("database is read-only")
	// ErrInvalid: the file is not a Folio store.
	ErrInvalid = errors.New("not a folio store")
	// ErrVersionMismatch: the store was written by a version of Folio that this one can't read.
	ErrVersionMismatch = errors.New("unsupported format version")
	// ErrCorrupt: a page of the store is damaged. A *Fault in the chain names it.
	ErrCorrupt = errors.New("store is damaged")
	// ErrPageFault: the operating system could not supply a page of the mapped file
	// (an I/O error, or the file was truncated under the store).
	ErrPageFault = errors.New("page fault in the mapped file")
	// ErrTimeout: a file lock was not had within Options.Timeout.
	ErrTimeout = errors.New("timed out waiting for the file lock")
	// ErrMaxSize: the commit would grow the file past Options.MaxSize.
	ErrMaxSize = errors.New("file size limit reached")
	// ErrSyncFailed: a sync failed, so the store is read-only until it is reopened.
	ErrSyncFailed = errors.New("sync failed")
	// ErrTxClosed: the transaction has ended.
	ErrTxClosed = errors.New("transaction is closed")
	// ErrTxNotWritable: a write in a read-only transaction.
	ErrTxNotWritable = errors.New("transaction is not writable")
	// ErrBucketNotFound: no bucket has this name.
	ErrBucketNotFound = errors.New("bucket not found")
	// ErrBucketExists: a bucket has this name already.
	ErrBucketExists = errors.New("bucket already exists")
	// ErrBucketNameRequired: an empty bucket name.
	ErrBucketNameRequired = errors.New("bucket name required")
	// ErrKeyRequired: an empty key.
	ErrKeyRequired = errors.New("key required")
	// ErrKeyTooLarge: a key or bucket name longer than MaxKeySize.
	ErrKeyTooLarge = errors.New("key too large")
	// ErrValueTooLarge: a value longer than MaxValueSize.
	ErrValueTooLarge = errors.New("value too large")
	// ErrIncompatibleValue: a pair where a bucket was asked for, or the other way round.
	ErrIncompatibleValue = errors.New("incompatible value")
)

// Fault says which page of a store is damaged and which rule of the format it breaks.
// errors.Is(err, ErrCorrupt) holds for it.
type Fault struct {
	Page uint64 // number of the damaged page
	Rule string // what is wrong with it
}

// Error implements error.
func (e *Fault) Error() string {
	return fmt.Sprintf("page %d: %s: %v (run `kvtool check` and restore from a backup)", e.Page, e.Rule, ErrCorrupt)
}

// Unwrap makes errors.Is(err, ErrCorrupt) hold.
func (e *Fault) Unwrap() error { return ErrCorrupt }

// corrupt returns a *Fault for page n.
func corrupt(n pgno, format string, args ...any) error {
	return &Fault{Page: uint64(n), Rule: fmt.Sprintf(format, args...)}
}

// broken reports that Folio broke a rule of its own: a bug here, never damage in a
// file. Nothing could be trusted after it, so it panics.
func broken(format string, args ...any) {
	panic("folio: broken invariant: " + fmt.Sprintf(format, args...))
}
