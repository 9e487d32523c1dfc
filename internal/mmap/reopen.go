//go:build unix

// What a sync beside another needs: a descriptor of its own, and pacing.

package mmap

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Reopen returns another File on the same file, with an open file description of its
// own: where the system reports a failed write once to each of those (SyncsApart),
// two Files can be synced at once and neither hides a failure from the other. The lock
// stays f's. The caller closes both.
func (f *File) Reopen() (*File, error) {
	fd, err := openFd(f.path, f.readOnly)
	if err != nil {
		return nil, f.fail("open again", err)
	}
	err = f.use("open again", func(own int) error {
		var a, b unix.Stat_t
		if err := errors.Join(unix.Fstat(own, &a), unix.Fstat(fd, &b)); err != nil {
			return err
		}
		if a.Dev != b.Dev || a.Ino != b.Ino {
			return unix.ESTALE // renamed or replaced in between
		}
		return nil
	})
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	again := newFile(f.path, fd)
	again.readOnly = f.readOnly
	return again, nil
}

// WriteOut has the kernel write the dirty pages of the nbytes bytes from off on, and
// waits for them, so that a Sync that follows has less to do. It promises nothing by
// itself; an error has to be taken as one of Sync. Only Linux does it; elsewhere
// nothing happens.
func (f *File) WriteOut(off, nbytes int64) error {
	if f.hook == nil {
		return f.writeOut(off, nbytes)
	}
	return f.hook.Do(
		Op{Kind: OpWriteOut, Off: off, NBytes: nbytes},
		func() error { return f.writeOut(off, nbytes) },
	)
}

func (f *File) writeOut(off, nbytes int64) error {
	return f.use("write out", func(fd int) error {
		if f.memory {
			return nil
		}
		return writeOutRange(fd, off, nbytes)
	})
}
