package main

// files.go copies, measures and drops from the cache the directories that stores are.

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// eachFile calls fn for every file below dir.
func eachFile(dir string, fn func(path string, info os.FileInfo) error) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return fn(path, info)
	})
}

// copyStore copies a closed store to a new directory, synced.
func copyStore(from, to string) error {
	return eachFile(from, func(path string, _ os.FileInfo) error {
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
			return err
		}
		return copyFile(path, target)
	})
}

func copyFile(from, to string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.Create(to)
	if err != nil {
		return err
	}
	defer w.Close()
	if err := copyContent(w, r); err != nil {
		return err
	}
	return w.Sync()
}

// copyContent copies a file and leaves its holes out: what a store has not written yet
// shall stay so.
func copyContent(w, r *os.File) error {
	info, err := r.Stat()
	if err != nil {
		return err
	}
	if err := w.Truncate(info.Size()); err != nil {
		return err
	}
	return eachExtent(r, func(start int64, content io.Reader) error {
		_, err := io.Copy(io.NewOffsetWriter(w, start), content)
		return err
	})
}

// allocatedIn returns how much of the disk a store takes.
func allocatedIn(dir string) (nbytes int64, err error) {
	err = eachFile(dir, func(path string, info os.FileInfo) error {
		n, err := allocatedBytes(info, path)
		nbytes += n
		return err
	})
	return nbytes, err
}

// warmCache reads all files of a store.
func warmCache(dir string) error {
	return eachFile(dir, func(path string, _ os.FileInfo) error {
		return withFile(path, func(f *os.File) error {
			return eachExtent(f, func(_ int64, content io.Reader) error {
				_, err := io.Copy(io.Discard, content)
				return err
			})
		})
	})
}

// coolCache syncs all files of a store and asks the kernel to drop them from its cache.
func coolCache(dir string) error {
	return eachFile(dir, func(path string, _ os.FileInfo) error {
		return withFile(path, func(f *os.File) error {
			if err := f.Sync(); err != nil {
				return err
			}
			return dropCache(f)
		})
	})
}

func withFile(path string, fn func(f *os.File) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return fn(f)
}
