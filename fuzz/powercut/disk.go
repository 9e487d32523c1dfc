package powercut

// disk.go is the disk: what it holds for sure, what else it may hold, and what of that
// is left after a power cut.
//
// Rules, as strict as POSIX allows:
//   - a file's sync makes durable what was written to it before the sync began, data and
//     size, and nothing else: not its name, and no other file;
//   - a sync of the directory makes the names in it durable, and no file's data;
//   - of all other writes a cut leaves any set of 512-byte sectors;
//   - of the other changes of a file's size it leaves some number of the first ones, and
//     likewise of the changes of names. What a truncation took away reads as zeros when
//     the file grows again;
//   - once it has stopped, every operation fails with EIO, so that a program does no more
//     before it is killed.
//
// There is one directory.

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	sectorSize = 512
	metaBytes  = 4 * 4096 // where a store with pages of 4096 bytes has its metas

	// firstNode is the first file's node number: 1 is the directory's.
	firstNode = 2

	// syncTime is how long a sync takes, so that writes can come in meanwhile, which it
	// does not cover.
	syncTime = 100 * time.Microsecond
)

// Options are what is odd about a disk.
type Options struct {
	NoLinks bool // hard links are refused, as on FAT
}

// Disk is a disk with its file system, as one boot of the machine sees it.
type Disk struct {
	opts Options

	mu        sync.Mutex
	stopped   chan struct{}    // closed once nothing works any more
	nodes     []*file          // by node number, from firstNode on; they stay when their last name is gone
	names     map[string]*file // as the running system sees them
	durable   map[string]*file // as the disk has them
	renamings []renaming       // from durable to names, oldest first
	left      int              // changes that go through before it stops; negative: all
	prevented string           // the change at which it stopped
}

// file is a file's data, as the running system sees it and as the disk has it.
type file struct {
	node    uint64
	mode    uint32
	now     []byte
	synced  []byte
	pending []change // from synced to now, oldest first
	nsynced int      // changes that came before pending
}

// change is a write, or a change of the size (data is nil). No write passes the size.
type change struct {
	off  int64 // the new size, for a change of size
	data []byte
}

// renaming binds names to files, or to none, all at once.
type renaming []binding

type binding struct {
	name string
	file *file
}

// NewDisk returns an empty disk.
func NewDisk(opts Options) *Disk {
	return &Disk{
		opts: opts, stopped: make(chan struct{}), left: -1,
		names: map[string]*file{}, durable: map[string]*file{},
	}
}

// Arm plans the stop: n more changes go through, the one after them does not. Changes are
// writes, new sizes and names, and syncs. Reads are not counted: what the kernel reads,
// and when, is its own affair.
func (d *Disk) Arm(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left = n
}

// Stopped is closed once the disk has stopped.
func (d *Disk) Stopped() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stopped
}

// Resume lets the disk work again after a stop, as if nothing but the program had died.
func (d *Disk) Resume() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hasStopped() {
		d.stopped, d.left = make(chan struct{}), -1
	}
}

func (d *Disk) stop(before string) {
	if !d.hasStopped() {
		d.prevented = before
		close(d.stopped)
	}
}

func (d *Disk) hasStopped() bool {
	select {
	case <-d.stopped:
		return true
	default:
		return false
	}
}

// look runs fn, which changes nothing, unless the disk has stopped.
func (d *Disk) look(fn func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hasStopped() {
		return syscall.EIO
	}
	return fn()
}

// change runs fn, which changes something, unless the disk has stopped or stops here.
func (d *Disk) change(what string, fn func() error) error {
	return d.look(func() error {
		if d.left == 0 {
			d.stop(what)
			return syscall.EIO
		}
		d.left--
		return fn()
	})
}

func (d *Disk) file(node uint64) (*file, error) {
	if node < firstNode || node-firstNode >= uint64(len(d.nodes)) {
		return nil, syscall.ENOENT
	}
	return d.nodes[node-firstNode], nil
}

func (d *Disk) newFile(mode uint32, data []byte) *file {
	f := &file{node: firstNode + uint64(len(d.nodes)), mode: mode, now: slices.Clone(data), synced: data}
	d.nodes = append(d.nodes, f)
	return f
}

// Attr is what the disk tells of a file.
type Attr struct {
	Node   uint64
	Mode   uint32
	Size   int64
	NLinks int
}

func (d *Disk) attr(f *file) Attr {
	a := Attr{Node: f.node, Mode: f.mode, Size: int64(len(f.now))}
	for _, other := range d.names {
		if other == f {
			a.NLinks++
		}
	}
	return a
}

// Lookup finds a file by its name.
func (d *Disk) Lookup(name string) (a Attr, err error) {
	err = d.look(func() error {
		f := d.names[name]
		if f == nil {
			return syscall.ENOENT
		}
		a = d.attr(f)
		return nil
	})
	return a, err
}

// Stat tells of the file at a node.
func (d *Disk) Stat(node uint64) (a Attr, err error) {
	err = d.look(func() error {
		f, err := d.file(node)
		if err != nil {
			return err
		}
		a = d.attr(f)
		return nil
	})
	return a, err
}

// Names lists the directory, in order.
func (d *Disk) Names() (names []string, err error) {
	err = d.look(func() error {
		names = slices.Sorted(maps.Keys(d.names))
		return nil
	})
	return names, err
}

// Content returns all files, by name.
func (d *Disk) Content() map[string][]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	content := map[string][]byte{}
	for name, f := range d.names {
		content[name] = slices.Clone(f.now)
	}
	return content
}

// Read fills buf from off on, as far as the file goes.
func (d *Disk) Read(node uint64, buf []byte, off int64) (n int, err error) {
	err = d.look(func() error {
		f, err := d.file(node)
		if err != nil {
			return err
		}
		n = copy(buf, f.now[min(off, int64(len(f.now))):])
		return nil
	})
	return n, err
}

// Create makes an empty file.
func (d *Disk) Create(name string, mode uint32) (a Attr, err error) {
	err = d.change("create "+name, func() error {
		if d.names[name] != nil {
			return syscall.EEXIST
		}
		f := d.newFile(mode, nil)
		d.rename(renaming{{name, f}})
		a = d.attr(f)
		return nil
	})
	return a, err
}

// Link gives a file one more name.
func (d *Disk) Link(node uint64, name string) (a Attr, err error) {
	err = d.change("link "+name, func() error {
		f, err := d.file(node)
		switch {
		case err != nil:
			return err
		case d.opts.NoLinks:
			return syscall.EPERM
		case d.names[name] != nil:
			return syscall.EEXIST
		}
		d.rename(renaming{{name, f}})
		a = d.attr(f)
		return nil
	})
	return a, err
}

// Unlink takes a name away.
func (d *Disk) Unlink(name string) error {
	return d.change("unlink "+name, func() error {
		if d.names[name] == nil {
			return syscall.ENOENT
		}
		d.rename(renaming{{name, nil}})
		return nil
	})
}

// Rename gives a file another name, in the place of what had that name, if replace.
func (d *Disk) Rename(from, to string, replace bool) error {
	return d.change("rename "+from+" "+to, func() error {
		f := d.names[from]
		switch {
		case f == nil:
			return syscall.ENOENT
		case d.names[to] != nil && !replace:
			return syscall.EEXIST
		case d.names[to] == f:
			return nil
		}
		d.rename(renaming{{from, nil}, {to, f}})
		return nil
	})
}

func (d *Disk) rename(r renaming) {
	r.apply(d.names)
	d.renamings = append(d.renamings, r)
}

func (r renaming) apply(names map[string]*file) {
	for _, b := range r {
		if b.file == nil {
			delete(names, b.name)
		} else {
			names[b.name] = b.file
		}
	}
}

// Write writes data at off, and makes the file longer where it must.
func (d *Disk) Write(node uint64, data []byte, off int64) error {
	return d.change(fmt.Sprintf("write of %d bytes at %d", len(data), off), func() error {
		f, err := d.file(node)
		if err != nil {
			return err
		}
		f.grow(off + int64(len(data)))
		f.change(change{off: off, data: slices.Clone(data)})
		return nil
	})
}

// Allocate makes the file at least nbytes long.
func (d *Disk) Allocate(node uint64, nbytes int64) error {
	return d.change(fmt.Sprintf("allocate to %d bytes", nbytes), func() error {
		f, err := d.file(node)
		if err == nil {
			f.grow(nbytes)
		}
		return err
	})
}

// Truncate makes the file nbytes long.
func (d *Disk) Truncate(node uint64, nbytes int64) error {
	return d.change(fmt.Sprintf("truncate to %d bytes", nbytes), func() error {
		f, err := d.file(node)
		if err == nil {
			f.change(change{off: nbytes})
		}
		return err
	})
}

func (f *file) grow(nbytes int64) {
	if nbytes > int64(len(f.now)) {
		f.change(change{off: nbytes})
	}
}

func (f *file) change(c change) {
	f.now = c.apply(f.now)
	f.pending = append(f.pending, c)
}

func (c *change) apply(b []byte) []byte {
	if c.data == nil {
		return resize(b, c.off)
	}
	copy(b[c.off:], c.data)
	return b
}

// resize makes b nbytes long; new bytes are zero, those of before a cut too.
func resize(b []byte, nbytes int64) []byte {
	if more := nbytes - int64(len(b)); more > 0 {
		return append(b, make([]byte, more)...)
	}
	return b[:nbytes]
}

// Sync makes durable what was written to the file so far.
func (d *Disk) Sync(node uint64) error {
	var f *file
	var upTo int
	err := d.change("sync", func() (err error) {
		if f, err = d.file(node); err == nil {
			upTo = f.nsynced + len(f.pending)
		}
		return err
	})
	if err != nil {
		return err
	}
	time.Sleep(syncTime)
	return d.look(func() error {
		f.sync(upTo - f.nsynced)
		return nil
	})
}

// sync makes the n oldest pending changes durable.
func (f *file) sync(n int) {
	for ; n > 0; n-- {
		f.synced = f.pending[0].apply(f.synced)
		f.pending = f.pending[1:]
		f.nsynced++
	}
}

// SyncNames makes the names in the directory durable.
func (d *Disk) SyncNames() error {
	return d.change("sync of the directory", func() error {
		d.durable, d.renamings = maps.Clone(d.names), nil
		return nil
	})
}

// Reboot cuts the power: it stops the disk for good, if it has not stopped, and returns
// it as the next boot finds it, everything on it durable, and a description of what is
// left.
func (d *Disk) Reboot(rnd *rand.Rand) (next *Disk, what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stop("nothing")
	said := []string{"cut before " + d.prevented}
	images := map[*file][]byte{}
	for _, f := range d.nodes {
		var how string
		images[f], how = f.remains(rnd)
		if len(f.pending) > 0 {
			said = append(said, how)
		}
	}
	names := maps.Clone(d.durable)
	nkept := someOf(rnd, len(d.renamings))
	for _, r := range d.renamings[:nkept] {
		r.apply(names)
	}
	if n := len(d.renamings); n > 0 {
		said = append(said, fmt.Sprintf("%d of %d changes of names", nkept, n))
	}
	return newBoot(d.opts, names, images), strings.Join(said, "; ")
}

// newBoot returns a disk that holds the named files, with durable content.
func newBoot(opts Options, names map[string]*file, images map[*file][]byte) *Disk {
	d := NewDisk(opts)
	renumbered := map[*file]*file{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		old := names[name]
		if renumbered[old] == nil {
			renumbered[old] = d.newFile(old.mode, images[old])
		}
		d.names[name] = renumbered[old]
	}
	d.durable = maps.Clone(d.names)
	return d
}

// remains returns what a cut leaves of the file, and says how it was chosen.
func (f *file) remains(rnd *rand.Rand) (img []byte, how string) {
	nwrites := 0
	for _, c := range f.pending {
		if c.data != nil {
			nwrites++
		}
	}
	nsizes := len(f.pending) - nwrites
	nkept := someOf(rnd, nsizes)
	name, keep := sieve(rnd, nwrites)
	how = fmt.Sprintf("file %d: of %d writes %s, and %d of %d changes of size", f.node, nwrites, name, nkept, nsizes)
	return f.image(nkept, keep), how
}

// image returns what the disk has of the file after its first nsizes pending changes of
// size, and with those sectors for which keep(write, offset) is true.
func (f *file) image(nsizes int, keep func(write int, off int64) bool) []byte {
	img := slices.Clone(f.synced)
	size := int64(len(img))
	write := 0
	for _, c := range f.pending {
		switch {
		case c.data != nil:
			img = c.applySectors(img, func(off int64) bool { return keep(write, off) })
			write++
		case nsizes > 0:
			nsizes--
			size = c.off
			img = img[:min(size, int64(len(img)))] // what is behind is gone for good
		}
	}
	return resize(img, size)
}

// applySectors puts those sectors of a write into img for which keep is true, and makes
// img longer for them.
func (c *change) applySectors(img []byte, keep func(off int64) bool) []byte {
	end := c.off + int64(len(c.data))
	for from := c.off; from < end; {
		to := min(end, from/sectorSize*sectorSize+sectorSize)
		if keep(from) {
			img = resize(img, max(to, int64(len(img))))
			copy(img[from:to], c.data[from-c.off:])
		}
		from = to
	}
	return img
}

// someOf returns how many of the first n changes a cut leaves.
func someOf(rnd *rand.Rand, n int) int {
	switch rnd.IntN(4) {
	case 0:
		return 0
	case 1:
		return rnd.IntN(n + 1)
	default:
		return n
	}
}

// sieve decides which sectors of n pending writes a cut leaves. The extremes come often:
// they are where a wrong order of writes shows.
func sieve(rnd *rand.Rand, n int) (name string, keep func(write int, off int64) bool) {
	one := rnd.IntN(max(n, 1))
	density := [...]float64{0.03, 0.5, 0.97, rnd.Float64()}[rnd.IntN(4)]
	whole := make([]bool, n)
	for i := range whole {
		whole[i] = rnd.Float64() < density
	}
	switch rnd.IntN(12) {
	case 0:
		return "none", func(int, int64) bool { return false }
	case 1:
		return "all", func(int, int64) bool { return true }
	case 2:
		return "the last", func(i int, _ int64) bool { return i == n-1 }
	case 3:
		return "all but the last", func(i int, _ int64) bool { return i < n-1 }
	case 4:
		return fmt.Sprintf("number %d", one+1), func(i int, _ int64) bool { return i == one }
	case 5:
		return fmt.Sprintf("all but number %d", one+1), func(i int, _ int64) bool { return i != one }
	case 6:
		return "the metas", func(_ int, off int64) bool { return off < metaBytes }
	case 7:
		return "all but the metas", func(_ int, off int64) bool { return off >= metaBytes }
	case 8:
		return fmt.Sprintf("%.2f, whole", density), func(i int, _ int64) bool { return whole[i] }
	default:
		return fmt.Sprintf("%.2f, torn", density), func(int, int64) bool { return rnd.Float64() < density }
	}
}
