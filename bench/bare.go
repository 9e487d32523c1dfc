package main

// bare.go is the yardstick of a durable commit: one page written and synced, in a
// mapped file whose blocks are there already.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	bareName      = "bare"
	barePages     = 8192
	barePageBytes = 4096
)

type bareFile struct {
	f       *os.File
	mapping []byte
	page    [barePageBytes]byte
	writes  uint64
}

func openBare(path string) (*bareFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	b := &bareFile{f: f}
	if err := b.prepare(); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// prepare writes the whole file: a first write into a hole or an unwritten block
// changes the file's metadata, and the sync would have to write that too.
func (b *bareFile) prepare() (err error) {
	for range barePages {
		if _, err := b.f.Write(b.page[:]); err != nil {
			return err
		}
	}
	if err := b.f.Sync(); err != nil {
		return err
	}
	b.mapping, err = unix.Mmap(int(b.f.Fd()), 0, barePages*barePageBytes, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map %s: %w", b.f.Name(), err)
	}
	return nil
}

// commit writes the next page and syncs it through the mapping.
func (b *bareFile) commit() error {
	at := int64(b.writes%barePages) * barePageBytes
	b.writes++
	binary.LittleEndian.PutUint64(b.page[:], b.writes)
	if _, err := b.f.WriteAt(b.page[:], at); err != nil {
		return err
	}
	return unix.Msync(b.mapping[at:at+barePageBytes], unix.MS_SYNC)
}

func (b *bareFile) close() error {
	var err error
	if b.mapping != nil {
		err = unix.Munmap(b.mapping)
	}
	return errors.Join(err, b.f.Close())
}
