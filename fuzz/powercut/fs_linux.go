package powercut

// fs_linux.go shows a Disk to the kernel.
//
// The kernel's page cache stays in use, as mappings need it, but only as a cache of what
// was written through: without FUSE's writeback mode each pwrite is here before it
// returns. Locks are the kernel's own affair, since none are asked for.

import (
	"io"
	"log"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// fileSystem answers the kernel for one boot's disk. A node number is all that it needs
// of an open file. Nothing is cached by time: the zero timeouts.
type fileSystem struct {
	fuse.RawFileSystem // ENOSYS for what a store does not need
	disk               *Disk
}

// mount shows disk at dir, until it is unmounted.
func mount(disk *Disk, dir string) error {
	server, err := fuse.NewServer(&fileSystem{fuse.NewDefaultRawFileSystem(), disk}, dir, &fuse.MountOptions{
		Name:               "powercut",
		FsName:             "powercut",
		MaxWrite:           1 << 20,
		DirectMountStrict:  true,
		DisableXAttrs:      true,
		DisableReadDirPlus: true,
		DisableSplice:      true,
		// It would log replies to programs that were killed meanwhile.
		Logger:       log.New(io.Discard, "", 0),
		PanicHandler: func(r any) fuse.Status { panic(r) },
	})
	if err != nil {
		return err
	}
	go server.Serve()
	return server.WaitMount()
}

// unmount takes a mount away at once. Who still has a file of it open keeps that alone.
func unmount(dir string) error { return unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) }

func (a Attr) fill(out *fuse.Attr) {
	*out = fuse.Attr{
		Ino:     a.Node,
		Mode:    syscall.S_IFREG | a.Mode&0o7777,
		Size:    uint64(a.Size),
		Blocks:  uint64(a.Size+sectorSize-1) / sectorSize,
		Blksize: 4096,
		Nlink:   uint32(a.NLinks),
		Owner:   *fuse.CurrentOwner(),
	}
}

func (a Attr) entry(out *fuse.EntryOut) {
	out.NodeId = a.Node
	a.fill(&out.Attr)
}

// Lookup finds a name in the directory.
func (s *fileSystem) Lookup(_ <-chan struct{}, _ *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	a, err := s.disk.Lookup(name)
	a.entry(out)
	return fuse.ToStatus(err)
}

// GetAttr is stat and fstat.
func (s *fileSystem) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if in.NodeId == fuse.FUSE_ROOT_ID {
		out.Attr = fuse.Attr{Ino: in.NodeId, Mode: syscall.S_IFDIR | 0o700, Nlink: 1, Owner: *fuse.CurrentOwner()}
		return fuse.OK
	}
	a, err := s.disk.Stat(in.NodeId)
	a.fill(&out.Attr)
	return fuse.ToStatus(err)
}

// SetAttr is truncate. Other attributes stay as they are.
func (s *fileSystem) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if nbytes, ok := in.GetSize(); ok {
		if err := s.disk.Truncate(in.NodeId, int64(nbytes)); err != nil {
			return fuse.ToStatus(err)
		}
	}
	a, err := s.disk.Stat(in.NodeId)
	a.fill(&out.Attr)
	return fuse.ToStatus(err)
}

// Create is open with O_CREAT of a name that is not there.
func (s *fileSystem) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	a, err := s.disk.Create(name, in.Mode)
	a.entry(&out.EntryOut)
	return fuse.ToStatus(err)
}

// Open opens a file that is there.
func (s *fileSystem) Open(_ <-chan struct{}, in *fuse.OpenIn, _ *fuse.OpenOut) fuse.Status {
	_, err := s.disk.Stat(in.NodeId)
	return fuse.ToStatus(err)
}

// Read fills the page cache.
func (s *fileSystem) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	buf = buf[:min(len(buf), int(in.Size))]
	n, err := s.disk.Read(in.NodeId, buf, int64(in.Offset))
	return fuse.ReadResultData(buf[:n]), fuse.ToStatus(err)
}

// Write is a write, or a part of a large one.
func (s *fileSystem) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	if err := s.disk.Write(in.NodeId, data, int64(in.Offset)); err != nil {
		return 0, fuse.ToStatus(err)
	}
	return uint32(len(data)), fuse.OK
}

// Fallocate knows the plain mode alone.
func (s *fileSystem) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	if in.Mode != 0 {
		return fuse.ENOTSUP
	}
	return fuse.ToStatus(s.disk.Allocate(in.NodeId, int64(in.Offset+in.Length)))
}

// Fsync is fsync, fdatasync, and msync through a mapping. FUSE does not hand on the range
// of an msync, so that one makes all of the file durable here: what a sync of the redo log
// must not be taken for, the crash tests at the seam in the store see.
func (s *fileSystem) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return fuse.ToStatus(s.disk.Sync(in.NodeId))
}

// Flush is a close, which makes nothing durable.
func (s *fileSystem) Flush(_ <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	_, err := s.disk.Stat(in.NodeId)
	return fuse.ToStatus(err)
}

// Link is link.
func (s *fileSystem) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	a, err := s.disk.Link(in.Oldnodeid, name)
	a.entry(out)
	return fuse.ToStatus(err)
}

// Unlink is unlink.
func (s *fileSystem) Unlink(_ <-chan struct{}, _ *fuse.InHeader, name string) fuse.Status {
	return fuse.ToStatus(s.disk.Unlink(name))
}

// Rename is rename, and renameat2 with RENAME_NOREPLACE.
func (s *fileSystem) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	if in.Flags&^unix.RENAME_NOREPLACE != 0 {
		return fuse.EINVAL
	}
	return fuse.ToStatus(s.disk.Rename(from, to, in.Flags&unix.RENAME_NOREPLACE == 0))
}

// OpenDir opens the directory.
func (s *fileSystem) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	_, err := s.disk.Names()
	return fuse.ToStatus(err)
}

// ReadDir lists the directory. An offset is an index into the names in order: nobody
// lists it while it changes.
func (s *fileSystem) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	names, err := s.disk.Names()
	if err != nil {
		return fuse.ToStatus(err)
	}
	for _, name := range names[min(in.Offset, uint64(len(names))):] {
		if !out.AddDirEntry(fuse.DirEntry{Name: name, Mode: syscall.S_IFREG}) {
			break
		}
	}
	return fuse.OK
}

// FsyncDir is fsync of the directory.
func (s *fileSystem) FsyncDir(<-chan struct{}, *fuse.FsyncIn) fuse.Status {
	return fuse.ToStatus(s.disk.SyncNames())
}
