package main

// system_linux.go is what the benchmark asks of Linux: what is on the disk and in the
// page cache, and a description of the machine.

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// disk is the device that holds a directory.
type disk struct {
	dir   string
	name  string // "" where the file system has no device of its own
	major uint32
	minor uint32
}

// diskOf finds the device through the directory's st_dev.
func diskOf(dir string) (*disk, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", dir, err)
	}
	d := &disk{dir: dir, major: unix.Major(st.Dev), minor: unix.Minor(st.Dev)}
	link, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", d.major, d.minor))
	if err == nil {
		d.name = filepath.Base(link)
	}
	return d, nil
}

// writtenBytes returns how much was written to the device since the machine started,
// by whomever; false where the kernel doesn't tell.
func (d *disk) writtenBytes() (int64, bool) {
	if d.name == "" {
		return 0, false
	}
	text, err := os.ReadFile("/proc/diskstats")
	if err != nil {
		return 0, false
	}
	return writtenBytesIn(string(text), d.major, d.minor)
}

// sync makes the whole file system durable, so that nothing left over from before is
// written while the next thing is measured.
func (d *disk) sync() error {
	f, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// dropCache asks the kernel to forget the content of a file, which must be synced.
func dropCache(f *os.File) error { return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }

// allocatedBytes returns how much of the disk a file takes.
func allocatedBytes(info os.FileInfo, path string) (int64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, err
	}
	return st.Blocks * 512, nil
}

// eachExtent calls fn for each part of a file that is no hole: some stores keep files
// that are mostly holes.
func eachExtent(f *os.File, fn func(start int64, content io.Reader) error) error {
	for at := int64(0); ; {
		start, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // nothing but a hole is left
		}
		if err != nil {
			return fmt.Errorf("seek data in %s: %w", f.Name(), err)
		}
		end, err := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("seek hole in %s: %w", f.Name(), err)
		}
		if err := fn(start, io.NewSectionReader(f, start, end-start)); err != nil {
			return err
		}
		at = end
	}
}

// fileSystem returns the type of the file system that holds dir.
func fileSystem(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "unknown"
	}
	switch uint32(st.Type) {
	case 0xEF53:
		return "ext4"
	case 0x58465342:
		return "xfs"
	case 0x9123683E:
		return "btrfs"
	case 0x01021994:
		return "tmpfs (in memory: syncs cost nothing)"
	case 0x794C7630:
		return "overlayfs"
	case 0x2FC12FC1:
		return "zfs"
	}
	return "unknown"
}

func kernel() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "Linux"
	}
	return "Linux " + strings.TrimSpace(string(b))
}

func cpuModel() string { return procField("/proc/cpuinfo", "model name", "unknown CPU") }

// procField returns the value of the first line "name : value" of a file in /proc.
func procField(path, name, otherwise string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return otherwise
	}
	for line := range strings.Lines(string(b)) {
		if field, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(field) == name {
			return strings.TrimSpace(value)
		}
	}
	return otherwise
}

func memory() string {
	var kib float64
	if _, err := fmt.Sscanf(procField("/proc/meminfo", "MemTotal", ""), "%f kB", &kib); err != nil {
		return "unknown"
	}
	return fmt.Sprintf("%.1f GiB", kib/(1<<20))
}
