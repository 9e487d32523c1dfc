//go:build unix

// The birth of a data file: whole and durable under its name, or not at all.

package mmap

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/foliokv/folio/internal/seeded"
	"golang.org/x/sys/unix"
)

// Create makes a new file at path that holds content. It is written whole
// under another name in the same directory, synced, and only then put at path,
// so that nobody ever sees a part of it; at last the directory is synced.
// Nothing is ever replaced: where path exists by then, be it a dangling
// symbolic link, the error satisfies errors.Is(err, fs.ErrExist). The umask
// is taken off mode.
//
// On an error the other name is gone again. If it was the last step that
// failed, the directory's sync, then the file stays at path, since others may
// have opened it: it is whole, but a crash may yet undo its creation.
//
// It needs a file system with hard links, or with a rename that does not
// replace (some on Linux and macOS have only that), and fails elsewhere.
func Create(path string, mode os.FileMode, content []byte) error {
	if err := create(path, mode, content); err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	return nil
}

func create(path string, mode os.FileMode, content []byte) error {
	// The link below decides; to look first only spares the work.
	if _, err := os.Lstat(path); err == nil {
		return fs.ErrExist
	}
	// Not made from path's own name, which may have all the length there is.
	temp := filepath.Join(filepath.Dir(path), ".folio-"+rand.Text()+".tmp")
	if err := writeNew(temp, path, mode, content); err != nil {
		return err
	}
	return Publish(temp, path)
}

// Publish puts the file temp, which is synced, at path in the same directory, where
// nothing may be (else an error that is fs.ErrExist), and syncs the directory. Nothing
// is left at temp. The hook registered for path sees both steps.
func Publish(temp, path string) error {
	err := hooked(path, OpPublish, func() error { return publish(temp, path) })
	if err != nil {
		// Where a hook failed the step before it was done.
		return errors.Join(err, removeTemp(temp))
	}
	return SyncName(path)
}

// SyncName makes the name of the file at path durable, by a sync of its directory: that
// of the file itself, where path is a symbolic link. Whoever means to acknowledge
// writes to a file that another process may have just created has to do it: that one
// may have died before its own sync of the directory. A directory that may be searched
// but not read can't be synced; the error then satisfies errors.Is(err, fs.ErrPermission).
func SyncName(path string) error {
	if seeded.Has(seeded.DirectoryUnsynced) {
		return nil
	}
	return hooked(path, OpSyncDir, func() error {
		file, err := filepath.EvalSymlinks(path)
		if err != nil {
			return err
		}
		return syncDir(filepath.Dir(file))
	})
}

// hooked runs a step that is no File's, past the hook registered for path if there is one.
func hooked(path string, kind OpKind, run func() error) error {
	if h := hookFor(path); h != nil {
		return h.Do(Op{Kind: kind}, run)
	}
	return run()
}

// writeNew writes and syncs the new file temp, and removes it if that fails.
// The hook registered for path sees it.
func writeNew(temp, path string, mode os.FileMode, content []byte) error {
	var fd int
	err := retry(func() (err error) {
		const flags = unix.O_RDWR | unix.O_CREAT | unix.O_EXCL | unix.O_CLOEXEC
		fd, err = unix.Open(temp, flags, uint32(mode.Perm()))
		return err
	})
	if err != nil {
		return err
	}
	f := newFile(path, fd)
	err = f.Pwritev([][]byte{content}, 0)
	if err == nil && !seeded.Has(seeded.BornUnsynced) {
		err = f.Sync()
	}
	// A close can bring the write error of a network file system.
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return errors.Join(bare(err), removeTemp(temp))
	}
	return nil
}

// publish puts temp at path, where nothing may be. Where that fails, temp stays.
func publish(temp, path string) error {
	// The bare call: os.Link's error would name the other file.
	err := retry(func() error { return unix.Link(temp, path) })
	if err == nil {
		return removeTemp(temp)
	}
	if hasNoLinks(err) {
		renameErr := retry(func() error { return renameNoReplace(temp, path) })
		if renameErr == nil {
			return nil
		}
		// The newer error counts if it says more than "not supported here".
		if errors.Is(renameErr, fs.ErrExist) {
			err = renameErr
		}
	}
	return err
}

// hasNoLinks reports whether a failed link(2) may mean that the file system
// knows no hard links: FAT says EPERM, others that it is not supported, and
// sandboxes EACCES.
func hasNoLinks(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) ||
		errors.Is(err, unix.EMLINK)
}

// removeTemp removes a temporary file, which may be gone.
func removeTemp(temp string) error {
	err := retry(func() error { return unix.Unlink(temp) })
	if err == unix.ENOENT {
		return nil
	}
	return err
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	err = d.Sync()
	// Some file systems keep names durable on their own, and say EINVAL.
	if errors.Is(err, unix.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}
