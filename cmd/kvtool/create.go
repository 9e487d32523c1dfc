package main

// create.go makes a new store that appears whole, with all that is to be in it, or not
// at all, also when it is interrupted.

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/foliokv/folio"
)

// mustExist refuses a path at which there is nothing: opening it to write would create it.
func mustExist(path string) error {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return usageErrorf("there is no store %s", path)
	}
	return err
}

// updateOrCreate runs fn in one transaction of the store at path. Where there is none,
// it is created if fn succeeds.
func (a *app) updateOrCreate(path string, fn func(*folio.Tx) error) error {
	switch _, err := os.Stat(path); {
	case err == nil:
		return a.update(path, fn)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return a.create(path, fn)
}

// create makes the store in a directory of its own beside path, and gives it its name
// when it is complete.
func (a *app) create(path string, fn func(*folio.Tx) error) error {
	dir := filepath.Dir(path)
	tmp, err := os.MkdirTemp(dir, ".kvtool-new-*")
	if errors.Is(err, fs.ErrNotExist) {
		return usageErrorf("there is no directory %s for the store", dir)
	}
	if err != nil {
		return fmt.Errorf("create store %s: %w", path, err)
	}
	defer os.RemoveAll(tmp)
	defer removeOnSignal(tmp)()
	made := filepath.Join(tmp, "store")
	if err := a.update(made, fn); err != nil {
		return err
	}
	if err := place(made, path); err != nil {
		return fmt.Errorf("create store %s: %w", path, err)
	}
	return syncDir(dir)
}

// place gives the file made the name path. A link, unlike a rename, never replaces what
// has appeared there meanwhile; some file systems have none.
func place(made, path string) error {
	err := os.Link(made, path)
	if !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	if _, err := os.Lstat(path); err == nil {
		return fs.ErrExist
	}
	return os.Rename(made, path)
}

// removeOnSignal removes path, and what is in it, when the process is asked to end. The
// function that it returns calls that off.
func removeOnSignal(path string) (stop func()) {
	asked, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(asked, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		select {
		case <-asked:
			os.RemoveAll(path)
			os.Exit(exitFailure)
		case <-done:
		}
	}()
	return func() {
		signal.Stop(asked)
		close(done)
	}
}

// syncDir makes a new name in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
