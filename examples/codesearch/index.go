package main

// index.go is the schema of the store and how an index is built.
//
//	files                 file's path -> its content
//	words                 one nested bucket per kind of word (see words.go):
//	  identifier, ...     word, a zero byte, file's path -> numbers of the lines
//	meta                  "format" -> version of this schema, once the index is whole
//
// Keys are ordered by their bytes, so all files of a word are next to each other, and
// so are all words with the same beginning: each query is a scan of one range.

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/foliokv/folio"
)

var (
	filesBucket = []byte("files")
	wordsBucket = []byte("words")
	metaBucket  = []byte("meta")
	formatKey   = []byte("format")
	format      = []byte("1")
)

// batchSize is how many bytes of source go into one transaction. Each one changes pages
// all over the index and syncs them to disk, so it is built in few and large ones.
const batchSize = 32 << 20

// batch is what the next transaction will put.
type batch struct {
	files    []file
	postings []posting
	nbytes   int
}

type file struct {
	path    string
	content []byte
}

// posting says in which lines of a file a word stands.
type posting struct {
	kind  string
	key   []byte // word, zero byte, path
	lines []byte // encoded
}

// buildIndex indexes all files below dir into the store, in place of what it held.
func buildIndex(w io.Writer, store, dir string) error {
	db, err := folio.Open(store, 0o644, nil)
	if err != nil {
		return err
	}
	if err := errors.Join(fillIndex(w, db, os.DirFS(dir)), db.Close()); err != nil {
		return fmt.Errorf("index %s: %w", dir, err)
	}
	return nil
}

func fillIndex(w io.Writer, db *folio.DB, source fs.FS) error {
	if err := db.Update(createBuckets); err != nil {
		return err
	}
	var b batch
	err := fs.WalkDir(source, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := fs.ReadFile(source, path)
		if err != nil {
			return err
		}
		b.add(path, content)
		if b.nbytes < batchSize {
			return nil
		}
		return b.flush(db)
	})
	if err != nil {
		return err
	}
	if err := b.flush(db); err != nil {
		return err
	}
	// Only a whole index has its format noted, so that no query trusts half of one.
	return db.Update(func(tx *folio.Tx) error {
		printSizes(w, tx)
		return tx.Bucket(metaBucket).Put(formatKey, format)
	})
}

// createBuckets makes all buckets anew.
func createBuckets(tx *folio.Tx) error {
	for _, name := range [][]byte{filesBucket, wordsBucket, metaBucket} {
		if err := tx.DeleteBucket(name); err != nil && !errors.Is(err, folio.ErrBucketNotFound) {
			return err
		}
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	for _, kind := range kinds {
		if _, err := tx.Bucket(wordsBucket).CreateBucket([]byte(kind)); err != nil {
			return err
		}
	}
	return nil
}

// add notes a file and its words for the next transaction.
func (b *batch) add(path string, content []byte) {
	b.files = append(b.files, file{path, content})
	b.nbytes += len(content)
	for w, lines := range wordsOf(path, content) {
		b.postings = append(b.postings, posting{w.kind, postingKey(w.text, path), encodeLines(lines)})
	}
}

// flush puts everything in one transaction and empties the batch.
func (b *batch) flush(db *folio.DB) error {
	// In the order of the keys a page is changed once and is then done with.
	slices.SortFunc(b.postings, func(x, y posting) int { return bytes.Compare(x.key, y.key) })
	err := db.Update(func(tx *folio.Tx) error {
		contents, words := tx.Bucket(filesBucket), tx.Bucket(wordsBucket)
		for _, f := range b.files {
			if err := contents.Put([]byte(f.path), f.content); err != nil {
				return err
			}
		}
		for _, p := range b.postings {
			if err := words.Bucket([]byte(p.kind)).Put(p.key, p.lines); err != nil {
				return err
			}
		}
		return nil
	})
	*b = batch{}
	return err
}

func printSizes(w io.Writer, tx *folio.Tx) {
	fmt.Fprintln(w, files(tx.Bucket(filesBucket).Len()))
	words := tx.Bucket(wordsBucket)
	for _, kind := range kinds {
		fmt.Fprintf(w, "%d entries of the kind %q\n", words.Bucket([]byte(kind)).Len(), kind)
	}
}

// --- coding

func postingKey(word, path string) []byte { return []byte(word + "\x00" + path) }

// splitKey is the reverse of postingKey.
func splitKey(key []byte) (word, path []byte) {
	word, path, _ = bytes.Cut(key, []byte{0})
	return word, path
}

// encodeLines codes ascending line numbers as the distances between them, which are
// small and take a byte or two as varints.
func encodeLines(lines []int) []byte {
	var b []byte
	last := 0
	for _, n := range lines {
		b = binary.AppendUvarint(b, uint64(n-last))
		last = n
	}
	return b
}

// decodeLines is the reverse of encodeLines.
func decodeLines(b []byte) (lines []int, err error) {
	last := 0
	for len(b) > 0 {
		distance, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, errors.New("malformed line numbers")
		}
		last += int(distance)
		lines = append(lines, last)
		b = b[n:]
	}
	return lines, nil
}
