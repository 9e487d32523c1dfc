package main

// query.go answers questions from the store.

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/foliokv/folio"
)

// query runs fn in a read transaction: a snapshot that nothing changes, whatever
// is written meanwhile. Slices that the transaction hands out point into the mapped
// file and are valid until fn returns; fn prints what it needs of them.
func query(store string, fn func(*folio.Tx) error) error {
	db, err := folio.Open(store, 0, &folio.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	err = db.View(func(tx *folio.Tx) error {
		// A bucket that is not there is nil, so look before using one.
		meta := tx.Bucket(metaBucket)
		if meta == nil || !bytes.Equal(meta.Get(formatKey), format) {
			return fmt.Errorf("%s holds no whole index: build one with \"codesearch index\"", store)
		}
		return fn(tx)
	})
	return errors.Join(err, db.Close())
}

// printWord prints the lines that hold a word, by kind, from the first files that do.
func printWord(w io.Writer, tx *folio.Tx, word string, limit int) error {
	contents := tx.Bucket(filesBucket)
	return forEachKind(tx, func(kind string, postings *folio.Bucket) error {
		nfiles := countFiles(postings, []byte(word))
		if nfiles == 0 {
			return nil
		}
		fmt.Fprintf(w, "%s: %s\n", kind, files(nfiles))
		left := limit
		for key, value := range postings.Prefix(postingKey(word, "")) {
			lines, err := decodeLines(value)
			if err != nil {
				return fmt.Errorf("entry %q: %w", key, err)
			}
			_, path := splitKey(key)
			content := contents.Get(path)
			for _, n := range lines {
				if left--; left < 0 {
					fmt.Fprintln(w, "  ...")
					return nil
				}
				fmt.Fprintf(w, "  %s:%d: %s\n", path, n, lineOf(content, n))
			}
		}
		return nil
	})
}

// printPrefix prints the words that begin with prefix, by kind, and in how many files
// each stands. It reads one entry per word, however many a word has: it counts the
// files without looking at them, and seeks over them to the next word.
func printPrefix(w io.Writer, tx *folio.Tx, prefix string, limit int) error {
	return forEachKind(tx, func(kind string, postings *folio.Bucket) error {
		c := postings.Cursor()
		key, _ := c.Seek([]byte(prefix))
		for n := 0; key != nil && bytes.HasPrefix(key, []byte(prefix)); n++ {
			if n == 0 {
				fmt.Fprintf(w, "%s:\n", kind)
			}
			if n == limit {
				fmt.Fprintln(w, "  ...")
				return nil
			}
			word, _ := splitKey(key)
			fmt.Fprintf(w, "  %s: %s\n", word, files(countFiles(postings, word)))
			key, _ = c.Seek(after(word))
		}
		return nil
	})
}

// printFile prints a file.
func printFile(w io.Writer, tx *folio.Tx, path string) error {
	content := tx.Bucket(filesBucket).Get([]byte(path))
	if content == nil {
		return fmt.Errorf("no file %s in the index", path)
	}
	_, err := w.Write(content)
	return err
}

// printDirectory prints the sizes of the first files whose path begins with dir.
func printDirectory(w io.Writer, tx *folio.Tx, dir string, limit int) error {
	for path, content := range tx.Bucket(filesBucket).Prefix([]byte(dir)) {
		if limit--; limit < 0 {
			fmt.Fprintln(w, "...")
			break
		}
		fmt.Fprintf(w, "%8d  %s\n", len(content), path)
	}
	return nil
}

// forEachKind calls fn for the nested bucket of each kind of word.
func forEachKind(tx *folio.Tx, fn func(kind string, postings *folio.Bucket) error) error {
	words := tx.Bucket(wordsBucket)
	for _, kind := range kinds {
		if err := fn(kind, words.Bucket([]byte(kind))); err != nil {
			return err
		}
	}
	return nil
}

// countFiles returns in how many files word stands: the number of keys between its
// first and the first of the words after it, which Folio knows without a scan.
func countFiles(postings *folio.Bucket, word []byte) uint64 {
	return postings.Count(postingKey(string(word), ""), after(word))
}

// after returns a key above all entries of word and below all of the words that follow.
func after(word []byte) []byte { return append(bytes.Clone(word), 1) }

func files(n uint64) string {
	if n == 1 {
		return "1 file"
	}
	return fmt.Sprintf("%d files", n)
}

// lineOf returns line n of text, counted from 1, without the space around it.
func lineOf(text []byte, n int) []byte {
	for ; n > 1; n-- {
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	return bytes.TrimSpace(line)
}
