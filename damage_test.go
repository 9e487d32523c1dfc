package folio_test

// damage_test.go gives Folio files that are damaged, foreign or hostile. Whatever is
// read from them must be an error that names the page, or exactly what was stored: never
// other data, a panic, a loop without end, or a changed file.
//
//	damage   what disks, crashes and people do to a file: the sums are wrong, or the page
//	         is an old one
//	foreign  what is no store at all
//	hostile  lies with right sums: see HostileCases. Here nobody can say what is right. But
//	         where Check finds nothing, all ways of reading must agree
//
// Everything derives from one seed. FOLIO_DAMAGE_SEED sets it, FOLIO_DAMAGE_ROUNDS makes
// more or fewer of each kind (default 5). A failure prints how to repeat it.

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/foliokv/folio"
	"github.com/stretchr/testify/require"
)

func envNumber(t testing.TB, name string, otherwise uint64) uint64 {
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	require.NoError(t, err)
	return n
}

func damageSeed(t testing.TB) uint64   { return envNumber(t, "FOLIO_DAMAGE_SEED", 1) }
func damageRounds(t testing.TB) uint64 { return envNumber(t, "FOLIO_DAMAGE_ROUNDS", 5) }

// damageDir returns a directory for a case, in memory where there is such a place: there
// are many cases, and what a sync does is not what they try.
func damageDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "folio-damage-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// damageDeadline is how long one case may take before it counts as hung.
const damageDeadline = 30 * time.Second

// --- a store, its history, and what it should hold

// damageBase is a store's file as it was after several commits, and what was in it.
type damageBase struct {
	name   string
	psize  int
	closed bool     // the last file is one that Close left
	files  [][]byte // after commits; the last is the one to damage
	newest uint64   // its newest commit
	states map[uint64]*content
}

// stateOf returns what commit txid holds: a commit that changes nothing holds what
// the one before it does.
func (b *damageBase) stateOf(txid uint64) *content {
	for ; txid > 0; txid-- {
		if c := b.states[txid]; c != nil {
			return c
		}
	}
	return newContent()
}

var damageBases []*damageBase

// bases builds the stores, once.
func bases(t *testing.T) []*damageBase {
	if damageBases == nil {
		damageBases = []*damageBase{
			buildDamageBase(t, "closed", 4096, true),
			buildDamageBase(t, "crashed", 4096, false),
			buildDamageBase(t, "closed, 8 KiB pages", 8192, true),
		}
	}
	return damageBases
}

func buildDamageBase(t *testing.T, name string, psize int, closed bool) *damageBase {
	b := &damageBase{name: name, psize: psize, closed: closed, states: map[uint64]*content{}}
	path := filepath.Join(damageDir(t), "base.folio")
	db, err := folio.Open(path, 0o600, &folio.Options{PageSize: psize, Sync: folio.SyncOff})
	require.NoError(t, err)
	c := newContent()
	update := func(fn func(tx *folio.Tx)) {
		require.NoError(t, db.Update(func(tx *folio.Tx) error { fn(tx); return nil }))
		require.NoError(t, db.View(func(tx *folio.Tx) error {
			b.newest = tx.ID()
			b.states[b.newest] = c.clone()
			return nil
		}))
	}
	put := func(bk *folio.Bucket, m *content, k string, v []byte) {
		require.NoError(t, bk.Put([]byte(k), v))
		m.pairs[k] = string(v)
	}
	sub := func(bk *folio.Bucket, m *content, name string) (*folio.Bucket, *content) {
		s, err := bk.CreateBucketIfNotExists([]byte(name))
		require.NoError(t, err)
		if m.subs[name] == nil {
			m.subs[name] = newContent()
		}
		return s, m.subs[name]
	}
	save := func() {
		file, err := os.ReadFile(path)
		require.NoError(t, err)
		b.files = append(b.files, file)
	}

	update(func(tx *folio.Tx) {
		for i := range 260 {
			put(tx.Root(), c, fmt.Sprintf("pair/%04d", i), value(i, i%90))
		}
	})
	save()
	update(func(tx *folio.Tx) {
		a, ma := sub(tx.Root(), c, "bucket a")
		require.NoError(t, a.SetSequence(77))
		ma.seq = 77
		n, mn := sub(a, ma, "nested")
		for i := range 150 {
			put(n, mn, fmt.Sprintf("n%04d", i*7), value(i, 50))
		}
		d, md := sub(n, mn, "deeper")
		put(d, md, "key", []byte("value"))
		sub(tx.Root(), c, "empty bucket")
		l, ml := sub(tx.Root(), c, strings.Repeat("a long name ", 200))
		put(l, ml, "key", []byte("value"))
	})
	save()
	update(func(tx *folio.Tx) {
		put(tx.Root(), c, "large 1", value(1, 3*psize))
		put(tx.Root(), c, "large 2", value(2, psize))
		l, ml := sub(tx.Root(), c, "long separators")
		for i := range 45 * psize / 4096 {
			put(l, ml, fmt.Sprintf("%s%03d", strings.Repeat("s", psize/4), i), nil)
		}
	})
	save()
	for i := range 400 * psize / 4096 { // so that the freelog gets pages
		update(func(tx *folio.Tx) {
			put(tx.Root(), c, fmt.Sprintf("pair/%04d", i*37%260), value(i, 20))
		})
		if i%90 == 80 {
			save()
		}
	}
	update(func(tx *folio.Tx) {
		for i := 100; i < 160; i++ {
			k := fmt.Sprintf("pair/%04d", i)
			require.NoError(t, tx.Delete([]byte(k)))
			delete(c.pairs, k)
		}
	})
	save()
	for i := range 4 {
		require.NoError(t, db.Sync())
		update(func(tx *folio.Tx) {
			n, mn := sub(tx.Root(), c, "bucket a")
			put(n, mn, fmt.Sprintf("late %d", i), value(i, 400))
			put(tx.Root(), c, "large 2", value(i+50, psize*2))
			put(tx.Root(), c, fmt.Sprintf("pair/%04d", i*60), value(i, 60))
		})
		save()
	}
	requireSound(t, db)
	require.NoError(t, db.Close())
	if closed {
		save()
	}
	return b
}

// --- kinds of damage

// damageKind damages a file and returns it.
type damageKind struct {
	name string
	make func(b *damageBase, f []byte, r *rand.Rand) []byte
}

// old returns the file of an earlier commit.
func (b *damageBase) old(r *rand.Rand) []byte { return b.files[r.IntN(len(b.files)-1)] }

func (b *damageBase) pageOf(f []byte, n int) []byte { return f[n*b.psize : (n+1)*b.psize] }

func garbage(r *rand.Rand, b []byte) {
	for i := range b {
		b[i] = byte(r.Uint32())
	}
}

var damageKinds = []damageKind{
	{"one bit flipped", func(_ *damageBase, f []byte, r *rand.Rand) []byte {
		f[r.IntN(len(f))] ^= 1 << r.IntN(8)
		return f
	}},
	{"one bit of a page header flipped", func(b *damageBase, f []byte, r *rand.Rand) []byte {
		b.pageOf(f, r.IntN(len(f)/b.psize))[r.IntN(56)] ^= 1 << r.IntN(8)
		return f
	}},
	{"one bit of a meta flipped", func(b *damageBase, f []byte, r *rand.Rand) []byte {
		f[r.IntN(4)*b.psize+r.IntN(300)] ^= 1 << r.IntN(8)
		return f
	}},
	{"many bits flipped", func(_ *damageBase, f []byte, r *rand.Rand) []byte {
		for range 2 + r.IntN(200) {
			f[r.IntN(len(f))] ^= 1 << r.IntN(8)
		}
		return f
	}},
	{"bytes overwritten", func(_ *damageBase, f []byte, r *rand.Rand) []byte {
		at := r.IntN(len(f))
		garbage(r, f[at:min(len(f), at+1+r.IntN(600))])
		return f
	}},
	{"sector overwritten", func(_ *damageBase, f []byte, r *rand.Rand) []byte {
		at := r.IntN(len(f)/512) * 512
		garbage(r, f[at:at+512])
		return f
	}},
	{"sector of zeros", func(_ *damageBase, f []byte, r *rand.Rand) []byte {
		at := r.IntN(len(f)/512) * 512
		clear(f[at : at+512])
		return f
	}},
	{"page of zeros", func(b *damageBase, f []byte, r *rand.Rand) []byte {
		clear(b.pageOf(f, r.IntN(len(f)/b.psize)))
		return f
	}},
	{"meta of zeros", func(b *damageBase, f []byte, r *rand.Rand) []byte {
		clear(b.pageOf(f, r.IntN(4)))
		return f
	}},
	{"several metas gone", func(b *damageBase, f []byte, r *rand.Rand) []byte {
		for range 1 + r.IntN(4) {
			p := b.pageOf(f, r.IntN(4))
			if r.IntN(2) == 0 {
				clear(p)
			} else {
				garbage(r, p)
			}
		}
		return f
	}},
	{"range of zeros", func(_ *damageBase, f []byte, r *rand.Rand) []byte {
		at := r.IntN(len(f))
		clear(f[at:min(len(f), at+r.IntN(len(f)))])
		return f
	}},
	{"pages swapped", func(b *damageBase, f []byte, r *rand.Rand) []byte {
		n := len(f) / b.psize
		x, y := b.pageOf(f, r.IntN(n)), b.pageOf(f, r.IntN(n))
		t := bytes.Clone(x)
		copy(x, y)
		copy(y, t)
		return f
	}},
	{"page written over another", func(b *damageBase, f []byte, r *rand.Rand) []byte {
		n := len(f) / b.psize
		copy(b.pageOf(f, r.IntN(n)), b.pageOf(f, r.IntN(n)))
		return f
	}},
	{"stale page", func(b *damageBase, f []byte, r *rand.Rand) []byte {
		b.putStale(f, r)
		return f
	}},
	{"stale pages", func(b *damageBase, f []byte, r *rand.Rand) []byte {
		for range 2 + r.IntN(6) {
			b.putStale(f, r)
		}
		return f
	}},
	{"stale meta", func(b *damageBase, f []byte, r *rand.Rand) []byte {
		o, n := b.old(r), r.IntN(4)
		copy(b.pageOf(f, n), b.pageOf(o, n))
		return f
	}},
	{"file of an old commit with new pages", func(b *damageBase, f []byte, r *rand.Rand) []byte {
		o := append(bytes.Clone(b.old(r)), make([]byte, len(f))...)[:len(f)]
		for n := range len(f) / b.psize {
			if r.IntN(2) == 0 {
				copy(b.pageOf(o, n), b.pageOf(f, n))
			}
		}
		return o
	}},
	{"torn write of a page", func(b *damageBase, f []byte, r *rand.Rand) []byte {
		o := b.old(r)
		n := r.IntN(min(len(o), len(f)) / b.psize)
		for s := 0; s < b.psize; s += 512 {
			if r.IntN(2) == 0 {
				copy(b.pageOf(f, n)[s:s+512], b.pageOf(o, n)[s:])
			}
		}
		return f
	}},
	{"truncated", func(_ *damageBase, f []byte, r *rand.Rand) []byte { return f[:r.IntN(len(f))] }},
	{"truncated to whole pages", func(b *damageBase, f []byte, r *rand.Rand) []byte {
		return f[:r.IntN(len(f)/b.psize)*b.psize]
	}},
	{"bytes behind the end", func(_ *damageBase, f []byte, r *rand.Rand) []byte {
		more := make([]byte, r.IntN(30000))
		garbage(r, more)
		return append(f, more...)
	}},
	{"bytes before the start", func(_ *damageBase, f []byte, r *rand.Rand) []byte {
		more := make([]byte, []int{1, 512, 4096, 8192, 16384}[r.IntN(5)])
		garbage(r, more)
		return append(more, f...)
	}},
}

// putStale puts an old version of a page in, one that differs if there is one.
func (b *damageBase) putStale(f []byte, r *rand.Rand) {
	for range 50 {
		o := b.old(r)
		n := 4 + r.IntN(min(len(o), len(f))/b.psize-4)
		if !bytes.Equal(b.pageOf(f, n), b.pageOf(o, n)) {
			copy(b.pageOf(f, n), b.pageOf(o, n))
			return
		}
	}
}

// --- one case

// damageCase is one file to be read.
type damageCase struct {
	base    *damageBase // nil for a file that is not one of ours, or that lies
	path    string
	hostile bool
	verify  folio.VerifyMode
	file    []byte
	seed    uint64

	changedMetas int  // meta pages that differ from the base's
	changedPages int  // other pages that do
	faults       int  // errors met while reading
	sound        bool // the last Check found nothing
}

// wrong is what must not happen.
type wrong struct{ error }

func wrongf(format string, args ...any) error { return wrong{fmt.Errorf(format, args...)} }

// damageAllowed reports whether err is an error that damage may cause: it names a page,
// or what the file is.
func damageAllowed(err error) bool {
	var fault *folio.Fault
	switch {
	case errors.Is(err, folio.ErrCorrupt):
		return errors.As(err, &fault) && fault.Rule != ""
	case errors.Is(err, folio.ErrPageFault):
		return strings.Contains(err.Error(), "page")
	}
	return false
}

// refusal reports whether err is one of the API's own that may come in a hostile store:
// what is there is not what was expected.
func refusal(err error) bool {
	return errors.Is(err, folio.ErrIncompatibleValue) || errors.Is(err, folio.ErrBucketNotFound) || errors.Is(err, folio.ErrBucketExists)
}

// damageError is nil where err may be; faults are counted.
func (c *damageCase) damageError(what string, err error) error {
	if err == nil || c.hostile && refusal(err) {
		return nil
	}
	var w wrong
	if errors.As(err, &w) {
		return fmt.Errorf("%s: %w", what, err)
	}
	if !damageAllowed(err) {
		return wrongf("%s: an error that names no page, or is none of damage: %v", what, err)
	}
	c.faults++
	return nil
}

// run tries the file in all ways. Its error is what went wrong.
func (c *damageCase) run() error {
	if err := os.WriteFile(c.path, c.file, 0o600); err != nil {
		return err
	}
	if c.base != nil {
		c.countChanges()
	}
	want, err := c.readOnly()
	if err != nil {
		return fmt.Errorf("read-only: %w", err)
	}
	if err := c.unchanged(); err != nil {
		return fmt.Errorf("read-only: %w", err)
	}
	if c.verify == folio.VerifyOff {
		return nil
	}
	if err := c.writable(want); err != nil {
		return fmt.Errorf("writable: %w", err)
	}
	return nil
}

func (c *damageCase) unchanged() error {
	after, err := os.ReadFile(c.path)
	if err != nil {
		return err
	}
	if !bytes.Equal(after, c.file) {
		return wrongf("the file was changed")
	}
	return nil
}

// countChanges counts the pages that the damage changed.
func (c *damageCase) countChanges() {
	whole := c.base.files[len(c.base.files)-1]
	for at := 0; at < len(whole); at += c.base.psize {
		end := min(at+c.base.psize, len(c.file))
		if at >= end || !bytes.Equal(c.file[at:end], whole[at:at+c.base.psize]) {
			if at < 4*c.base.psize {
				c.changedMetas++
			} else {
				c.changedPages++
			}
		}
	}
}

// expected returns what a store that shows commit txid must hold, nil where nobody
// knows.
func (c *damageCase) expected(txid uint64) (*content, error) {
	if c.base == nil || c.hostile {
		return nil, nil
	}
	b := c.base
	// Close leaves two metas of the same state, so one can be lost. In the crashed store
	// the newest commit is not known durable: damage to it looks like a crash, and so it
	// does where Close's meta is lost and a page of the commit before it as well.
	mustBeNewest := c.changedMetas+c.changedPages == 0 ||
		b.closed && (c.changedMetas == 0 || c.changedMetas == 1 && c.changedPages == 0)
	if mustBeNewest && txid < b.newest {
		return nil, wrongf("it shows commit %d in silence, of %d", txid, b.newest)
	}
	if !b.closed && c.changedMetas+c.changedPages == 1 && txid+1 < b.newest {
		return nil, wrongf("it shows commit %d after damage to one page, of %d", txid, b.newest)
	}
	return b.stateOf(txid), nil
}

func (c *damageCase) open(readOnly bool) (*folio.DB, error) {
	return folio.Open(c.path, 0o600, &folio.Options{ReadOnly: readOnly, Verify: c.verify, Timeout: -1, Sync: folio.SyncOff})
}

// closeSoon closes db but does not wait for a transaction that a panic has left open: the
// panic is what is to be reported.
func closeSoon(db *folio.DB) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	db.CloseContext(ctx)
}

// openError is nil where Open may fail with err.
func (c *damageCase) openError(err error) error {
	if errors.Is(err, folio.ErrInvalid) || errors.Is(err, folio.ErrVersionMismatch) {
		c.faults++
		return nil
	}
	return c.damageError("open", err)
}

// readOnly opens the store for reading and reads all of it. It returns what should be
// in it.
func (c *damageCase) readOnly() (want *content, err error) {
	db, err := c.open(true)
	if err != nil {
		return nil, c.openError(err)
	}
	defer closeSoon(db)
	var txid uint64
	if err := db.View(func(tx *folio.Tx) error { txid = tx.ID(); return nil }); err != nil {
		return nil, err
	}
	if want, err = c.expected(txid); err != nil {
		return nil, err
	}
	if err := c.readAll(db, want); err != nil {
		return nil, err
	}
	return want, db.Close()
}

// readers are the ways to read all of a store. want is nil where nobody knows what is
// in it; then they only must end.
var readers = []struct {
	name string
	read func(tx *folio.Tx, want *content) error
}{
	{"walk", func(tx *folio.Tx, want *content) error { return walk(tx, tx.Root(), want, 0, new(int)) }},
	{"backward", readBackward},
	{"get", readByKey},
	{"at", readByIndex},
	{"count", readCounts},
	{"seek", readSeek},
	{"stats", func(tx *folio.Tx, want *content) error { tx.Root().Stats(); return nil }},
	{"edges of buckets", readEdges},
}

// readEdges looks at the buckets of the root from all sides.
func readEdges(tx *folio.Tx, want *content) error {
	return tx.ForEach(func(name []byte, b *folio.Bucket) error {
		b.Stats()
		b.At(b.Len() - 1)
		b.Rank([]byte("m"))
		first, _ := b.Cursor().First()
		last, _ := b.Cursor().Last()
		if want == nil || tx.Err() != nil {
			return nil
		}
		sub := want.subs[string(name)]
		if sub == nil {
			return wrongf("bucket %.40q is new", name)
		}
		keys := sub.keys()
		if len(keys) == 0 && first == nil && last == nil {
			return nil
		}
		if len(keys) == 0 || string(first) != keys[0] || string(last) != keys[len(keys)-1] {
			return wrongf("bucket %.40q goes from %.40q to %.40q", name, first, last)
		}
		return nil
	})
}

// readAll reads the store in every way, checks it, and copies it.
func (c *damageCase) readAll(db *folio.DB, want *content) error {
	before := c.faults
	for _, r := range readers {
		err := db.View(func(tx *folio.Tx) error { return r.read(tx, want) })
		if err := c.damageError(r.name, err); err != nil {
			return err
		}
	}
	if err := c.copyStore(db, want); err != nil {
		return err
	}
	faults := c.faults - before
	found := 0
	for err := range db.Check(context.Background()) {
		if err := c.damageError("check", err); err != nil {
			return err
		}
		if found++; found > 100000 {
			return wrongf("check finds faults without end")
		}
	}
	c.sound = found == 0
	if c.sound && faults > 0 && c.verify != folio.VerifyOff {
		return wrongf("check finds nothing, but reading met %d faults", faults)
	}
	if c.sound && c.hostile {
		return c.agree(db)
	}
	return nil
}

// agree reads a store that Check finds sound in every way, and compares.
func (c *damageCase) agree(db *folio.DB) error {
	return db.View(func(tx *folio.Tx) error {
		all := readContent(tx.Root())
		for _, r := range readers {
			if err := r.read(tx, all); err != nil {
				return fmt.Errorf("check finds nothing, but %s: %w", r.name, err)
			}
		}
		return nil
	})
}

// limitedWriter fails after so many bytes.
type limitedWriter struct {
	bytes.Buffer
	left int
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, io.ErrShortWrite
	}
	return w.Buffer.Write(p)
}

// copyStore makes a copy with WriteTo. Where that works, it is a good store.
func (c *damageCase) copyStore(db *folio.DB, want *content) error {
	w := &limitedWriter{left: 4*len(c.file) + 1<<20}
	err := db.View(func(tx *folio.Tx) error {
		_, err := tx.WriteTo(w)
		return err
	})
	if err != nil {
		return c.damageError("write to", err)
	}
	path := c.path + ".copy"
	if err := os.WriteFile(path, w.Bytes(), 0o600); err != nil {
		return err
	}
	copied, err := folio.Open(path, 0, &folio.Options{ReadOnly: true})
	if err != nil {
		return wrongf("the copy can't be opened: %w", err)
	}
	defer closeSoon(copied)
	if c.hostile || c.verify == folio.VerifyOff {
		return nil
	}
	for err := range copied.Check(context.Background()) {
		return wrongf("the copy is damaged: %w", err)
	}
	return copied.View(func(tx *folio.Tx) error { return walk(tx, tx.Root(), want, 0, new(int)) })
}

// Bounds for what is read from stores that lie.
const (
	hostilePairs = 50_000
	hostileDepth = 40
)

// walk reads a bucket and all in it in order. What comes before a fault must be right, and
// without a fault it must be all.
func walk(tx *folio.Tx, b *folio.Bucket, want *content, depth int, npairs *int) error {
	var keys []string
	if want != nil {
		keys = want.keys()
		if got := b.Sequence(); got != want.seq {
			return wrongf("sequence %d, not %d", got, want.seq)
		}
	}
	i := 0
	for k, v := range b.All() {
		if *npairs++; want == nil && (*npairs > hostilePairs || depth > hostileDepth) {
			return nil
		}
		if want != nil {
			if i >= len(keys) || string(k) != keys[i] {
				return wrongf("pair %d has key %.40q", i, k)
			}
			if v, isPair := comparePair(want, k, v); !isPair {
				return v
			}
		}
		i++
		if v != nil {
			continue
		}
		sub := b.Bucket(k)
		if sub == nil {
			if tx.Err() == nil && want != nil {
				return wrongf("bucket %.40q is gone", k)
			}
			continue
		}
		var below *content
		if want != nil {
			below = want.subs[string(k)]
		}
		if err := walk(tx, sub, below, depth+1, npairs); err != nil {
			return err
		}
	}
	if want != nil && tx.Err() == nil && i != len(keys) {
		return wrongf("%d pairs, not %d", i, len(keys))
	}
	return nil
}

// comparePair reports whether the value of k is right, and if not, why.
func comparePair(want *content, k, v []byte) (error, bool) {
	w, isPair := want.pairs[string(k)]
	if isPair != (v != nil) {
		return wrongf("key %.40q: is a pair: %t, should be: %t", k, v != nil, isPair), false
	}
	if isPair && w != string(v) {
		return wrongf("key %.40q: a wrong value of %d bytes", k, len(v)), false
	}
	return nil, true
}

func readBackward(tx *folio.Tx, want *content) error {
	var keys []string
	if want != nil {
		keys = want.keys()
	}
	i := len(keys)
	n := 0
	for k, v := range tx.Root().Backward() {
		if n++; want == nil && n > hostilePairs {
			return nil
		}
		if want == nil {
			continue
		}
		if i--; i < 0 || string(k) != keys[i] {
			return wrongf("pair %d has key %.40q", i, k)
		}
		if err, ok := comparePair(want, k, v); !ok {
			return err
		}
	}
	if want != nil && tx.Err() == nil && i != 0 {
		return wrongf("%d pairs are missing at the start", i)
	}
	return nil
}

// someKeys are keys that the stores of these tests have, or do not.
func someKeys() []string {
	keys := []string{"a", "b", "c", "d", "k", "x", "large 1", "large 2", "pair/0100x", "\x00", "\xff\xff", "bucket a", "empty bucket", strings.Repeat("s", 1024) + "010"}
	for i := 0; i < 270; i += 9 {
		keys = append(keys, fmt.Sprintf("pair/%04d", i))
	}
	return keys
}

// readByKey gets every key, and some that are not there.
func readByKey(tx *folio.Tx, want *content) error {
	if want == nil {
		for _, k := range someKeys() {
			tx.Get([]byte(k))
			if b := tx.Bucket([]byte(k)); b != nil {
				b.Get([]byte(k))
			}
		}
		return nil
	}
	for _, k := range append(someKeys(), want.keys()...) {
		v := tx.Get([]byte(k))
		w, ok := want.pairs[k]
		if v == nil && tx.Err() != nil {
			return nil
		}
		if ok != (v != nil) || w != string(v) {
			return wrongf("get %.40q: present: %t, %d bytes, should be: %t, %d bytes", k, v != nil, len(v), ok, len(w))
		}
		b := tx.Bucket([]byte(k))
		if (want.subs[k] != nil) != (b != nil) && tx.Err() == nil {
			return wrongf("bucket %.40q: present: %t", k, b != nil)
		}
	}
	return nil
}

func readByIndex(tx *folio.Tx, want *content) error {
	if want == nil {
		for _, i := range []uint64{0, 1, 2, 50, 200, tx.Root().Len() / 2, tx.Root().Len() - 1, tx.Root().Len(), 1 << 62, 1<<64 - 1} {
			tx.Root().At(i)
		}
		return nil
	}
	keys := want.keys()
	if n := tx.Root().Len(); n != uint64(len(keys)) {
		return wrongf("length %d, not %d", n, len(keys))
	}
	for i := range keys {
		k, v := tx.Root().At(uint64(i))
		if tx.Err() != nil {
			return nil
		}
		if string(k) != keys[i] {
			return wrongf("at %d: key %.40q", i, k)
		}
		if err, ok := comparePair(want, k, v); !ok {
			return err
		}
	}
	return nil
}

func readCounts(tx *folio.Tx, want *content) error {
	lo, hi := []byte("pair/0033"), []byte("pair/0190")
	n, rank := tx.Root().Count(lo, hi), tx.Root().Rank(hi)
	tx.Root().Count(nil, hi)
	tx.Root().Count(lo, nil)
	if want == nil || tx.Err() != nil {
		return nil
	}
	wantN, wantRank := uint64(0), uint64(0)
	for _, k := range want.keys() {
		if k < string(hi) {
			wantRank++
			if k >= string(lo) {
				wantN++
			}
		}
	}
	if n != wantN || rank != wantRank {
		return wrongf("count %d, rank %d; should be %d, %d", n, rank, wantN, wantRank)
	}
	return nil
}

func readSeek(tx *folio.Tx, want *content) error {
	var keys []string
	if want != nil {
		keys = want.keys()
	}
	c := tx.Cursor()
	for _, k := range someKeys() {
		got, v := c.Seek([]byte(k))
		c.Prev()
		c.Next()
		if tx.Err() != nil {
			return nil
		}
		if want == nil {
			continue
		}
		i, _ := slices.BinarySearch(keys, k)
		switch {
		case i == len(keys) && got != nil:
			return wrongf("seek %.40q: %.40q, should be the end", k, got)
		case i < len(keys) && string(got) != keys[i]:
			return wrongf("seek %.40q: %.40q, should be %.40q", k, got, keys[i])
		case got != nil:
			if err, ok := comparePair(want, got, v); !ok {
				return err
			}
		}
	}
	return nil
}

// --- writing

// writable opens the store for writing, changes it, commits, and reads it again.
func (c *damageCase) writable(want *content) error {
	db, err := c.open(false)
	if err != nil {
		if err := c.openError(err); err != nil {
			return err
		}
		return c.unchanged() // what is refused is never changed
	}
	defer closeSoon(db)
	wasSound := c.sound
	if want != nil {
		want = want.clone()
	}
	for round := range 3 {
		after := want
		if want != nil {
			after = want.clone()
		}
		err := db.Update(func(tx *folio.Tx) error { return c.change(tx, after, round) })
		if err == nil {
			want = after
		}
		if err := c.damageError("update", err); err != nil {
			return err
		}
		if err != nil && wasSound && c.hostile && !refusal(err) {
			return wrongf("check found nothing, but a change met: %w", err)
		}
	}
	if err := c.readAll(db, want); err != nil {
		return fmt.Errorf("after changes: %w", err)
	}
	if wasSound && !c.sound {
		return wrongf("sound before the changes, damaged after them")
	}
	if err := c.damageError("close", db.Close()); err != nil {
		return err
	}
	again, err := c.open(true)
	if err != nil {
		return fmt.Errorf("reopen: %w", c.openError(err))
	}
	defer closeSoon(again)
	if err := c.readAll(again, want); err != nil {
		return fmt.Errorf("reopened: %w", err)
	}
	return again.Close()
}

// change makes some changes. c's model follows. An error of the API that says why
// nothing was done is none; a fault ends it.
func (c *damageCase) change(tx *folio.Tx, m *content, round int) error {
	ignore := func(err error) error {
		if c.hostile && refusal(err) {
			return nil
		}
		return err
	}
	for i := range 40 {
		k, v := fmt.Sprintf("pair/%04d", (i*13+round*101)%300), value(i, 30+100*round)
		if err := tx.Put([]byte(k), v); ignore(err) != nil {
			return err
		}
		if m != nil {
			m.pairs[k] = string(v)
		}
	}
	if round == 0 {
		return nil // a small one
	}
	if err := tx.Put([]byte("large 3"), value(round, 9000)); ignore(err) != nil {
		return err
	}
	if m != nil {
		m.pairs["large 3"] = string(value(round, 9000))
	}
	lo, hi := fmt.Sprintf("pair/%04d", 40*round), fmt.Sprintf("pair/%04d", 40*round+90)
	n, err := tx.Root().DeleteRange([]byte(lo), []byte(hi))
	if ignore(err) != nil {
		return err
	}
	if m != nil {
		was := len(m.pairs)
		maps.DeleteFunc(m.pairs, func(k, _ string) bool { return k >= lo && k < hi })
		if int(n) != was-len(m.pairs) {
			return wrongf("delete range: %d pairs, should be %d", n, was-len(m.pairs))
		}
	}
	if round == 2 {
		return c.changeBuckets(tx, m, ignore)
	}
	return nil
}

func (c *damageCase) changeBuckets(tx *folio.Tx, m *content, ignore func(error) error) error {
	var names []string
	if m != nil {
		names = slices.Sorted(maps.Keys(m.subs))
	} else {
		tx.ForEach(func(name []byte, _ *folio.Bucket) error { names = append(names, string(name)); return nil })
	}
	for i, name := range names[:min(len(names), 6)] {
		if i%2 == 0 {
			if err := tx.DeleteBucket([]byte(name)); ignore(err) != nil {
				return err
			}
			if m != nil {
				delete(m.subs, name)
			}
			continue
		}
		b := tx.Bucket([]byte(name))
		if b == nil {
			if tx.Err() == nil && m != nil {
				return wrongf("bucket %.40q is gone", name)
			}
			continue
		}
		if err := b.Put([]byte("new"), []byte("pair")); ignore(err) != nil {
			return err
		}
		if m != nil {
			m.subs[name].pairs["new"] = "pair"
		}
	}
	b, err := tx.CreateBucket([]byte("one more"))
	if ignore(err) != nil {
		return err
	}
	if b == nil {
		return nil
	}
	if m != nil {
		m.subs["one more"] = newContent()
	}
	return nil
}

// --- running cases

// runCase runs one case under a watchdog, with panics caught.
func runCase(t *testing.T, c *damageCase) {
	t.Helper()
	repeat := fmt.Sprintf("repeat with: FOLIO_DAMAGE_SEED=%d FOLIO_DAMAGE_ROUNDS=%d go test -run '^%s$'", c.seed, damageRounds(t), strings.ReplaceAll(t.Name(), "/", "$/^"))
	done := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- wrongf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		done <- c.run()
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("%v\n%s", err, repeat)
		}
	case <-time.After(damageDeadline):
		buf := make([]byte, 1<<20)
		t.Fatalf("hung: more than %v\n%s\n%s", damageDeadline, repeat, buf[:runtime.Stack(buf, true)])
	}
}

// caseRand returns the random numbers of one case: those of another do not matter.
func caseRand(seed uint64, name string) *rand.Rand {
	h := uint64(14695981039346656037)
	for _, b := range []byte(name) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return rand.New(rand.NewPCG(seed, h))
}

func TestDamage(t *testing.T) {
	seed, rounds := damageSeed(t), damageRounds(t)
	all := bases(t)
	for _, kind := range damageKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			for _, b := range all {
				for i := range rounds {
					name := fmt.Sprintf("%s/%d", b.name, i)
					t.Run(name, func(t *testing.T) {
						r := caseRand(seed, t.Name())
						file := kind.make(b, bytes.Clone(b.files[len(b.files)-1]), r)
						c := &damageCase{base: b, path: filepath.Join(damageDir(t), "d.folio"), file: file, seed: seed}
						if i%4 == 3 {
							c.verify = folio.VerifyAlways
						}
						runCase(t, c)
					})
				}
			}
		})
	}
}

// TestDamageVerifyOff: without sums wrong data can't be told, but nothing may panic or
// go on for ever.
func TestDamageVerifyOff(t *testing.T) {
	seed, rounds := damageSeed(t), damageRounds(t)
	all := bases(t)
	for _, kind := range damageKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			for i := range rounds {
				t.Run(fmt.Sprint(i), func(t *testing.T) {
					r := caseRand(seed, t.Name())
					b := all[r.IntN(len(all))]
					file := kind.make(b, bytes.Clone(b.files[len(b.files)-1]), r)
					runCase(t, &damageCase{hostile: true, verify: folio.VerifyOff, path: filepath.Join(damageDir(t), "d.folio"), file: file, seed: seed})
				})
			}
		})
	}
}

// TestDamageNone: the harness itself finds nothing wrong with whole files.
func TestDamageNone(t *testing.T) {
	for _, b := range bases(t) {
		for i := len(b.files) - 3; i < len(b.files); i++ {
			t.Run(fmt.Sprintf("%s/%d", b.name, i), func(t *testing.T) {
				c := &damageCase{base: b, path: filepath.Join(damageDir(t), "d.folio"), file: b.files[i]}
				whole := i == len(b.files)-1
				runCase(t, c)
				require.True(t, c.sound)
				require.Zero(t, c.faults)
				require.Equal(t, whole, c.changedMetas == 0)
			})
		}
	}
}

func TestHostilePages(t *testing.T) {
	seed, rounds := damageSeed(t), damageRounds(t)
	all := bases(t)
	for _, kind := range folio.HostileCases {
		t.Run(kind.Name, func(t *testing.T) {
			t.Parallel()
			for _, b := range all[:2] {
				for i := range rounds {
					t.Run(fmt.Sprintf("%s/%d", b.name, i), func(t *testing.T) {
						r := caseRand(seed, t.Name())
						s := folio.NewSurgeon(bytes.Clone(b.files[len(b.files)-1]), b.psize)
						made := false
						for try := 0; try < 20 && !made; try++ {
							made = kind.Make(s, r)
						}
						require.True(t, made, "nothing to lie about")
						runCase(t, &damageCase{base: b, hostile: true, path: filepath.Join(damageDir(t), "d.folio"), file: s.B, seed: seed})
					})
				}
			}
		})
	}
}

// --- stores that lie as a whole, each in a process of its own: a stack that is full
// can't be caught.

// hostileEnv tells the other process which of HostileStores is its.
const hostileEnv = "FOLIO_HOSTILE_STORE"

func TestHostileStores(t *testing.T) {
	for i, h := range folio.HostileStores {
		t.Run(h.Name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), 2*damageDeadline)
			defer cancel()
			cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestHostileProcess$", "-test.v")
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", hostileEnv, i))
			out, err := cmd.CombinedOutput()
			if err != nil {
				lines := strings.Split(string(out), "\n")
				if len(lines) > 40 {
					lines = append(lines[:40], "...")
				}
				t.Errorf("%v; repeat with: %s=%d go test -run '^TestHostileProcess$'\n%s", err, hostileEnv, i, strings.Join(lines, "\n"))
			}
		})
	}
}

// TestHostileProcess is the other process: it tries one store in all ways.
func TestHostileProcess(t *testing.T) {
	if os.Getenv(hostileEnv) == "" {
		t.Skip("TestHostileStores runs it")
	}
	h := folio.HostileStores[envNumber(t, hostileEnv, 0)]
	debug.SetMaxStack(64 << 20)
	go func() { // before the machine's memory is gone
		var m runtime.MemStats
		for range time.Tick(10 * time.Millisecond) {
			if runtime.ReadMemStats(&m); m.Sys > 1<<30 {
				fmt.Println("memory without end: a small store takes more than 1 GiB")
				os.Exit(3)
			}
		}
	}()
	go func() {
		time.Sleep(damageDeadline)
		buf := make([]byte, 64<<10)
		fmt.Printf("hung: more than %v\n%s", damageDeadline, buf[:runtime.Stack(buf, true)])
		os.Exit(4)
	}()
	for _, op := range []string{"read", "put", "delete range", "delete bucket", "create bucket"} {
		t.Run(op, func(t *testing.T) {
			c := &damageCase{hostile: true, path: filepath.Join(damageDir(t), "h.folio"), file: h.Make()}
			require.NoError(t, os.WriteFile(c.path, c.file, 0o600))
			tryHostile(t, c, op, folio.OddStores[h.Name])
		})
	}
}

// tryHostile does one thing with a store that lies, or (odd) that only looks so.
func tryHostile(t *testing.T, c *damageCase, op string, odd bool) {
	if op == "read" {
		_, err := c.readOnly()
		require.NoError(t, err)
		require.NoError(t, c.unchanged())
		require.True(t, odd || !c.sound, "Check finds nothing")
		return
	}
	db, err := c.open(false)
	if err != nil {
		require.NoError(t, c.openError(err))
		require.NoError(t, c.unchanged())
		return
	}
	defer closeSoon(db)
	err = db.Update(func(tx *folio.Tx) error {
		tx.Get([]byte("a")) // proves what it reads
		return changeHostile(tx, op)
	})
	require.NoError(t, c.damageError("update", err))
	if err == nil && odd {
		requireSound(t, db)
	}
	require.NoError(t, c.damageError("close", db.Close()))
}

func changeHostile(tx *folio.Tx, op string) error {
	switch op {
	case "put":
		for i := range 200 {
			if err := tx.Put(fmt.Appendf(nil, "a/%03d", i), make([]byte, 100)); err != nil {
				return err
			}
			if err := tx.Put(fmt.Appendf(nil, "g%s%d", strings.Repeat("g", 900), i), nil); err != nil {
				return err
			}
		}
		if b := tx.Bucket([]byte("b")); b != nil {
			return b.Put([]byte("c2"), make([]byte, 100))
		}
	case "delete range":
		_, err := tx.Root().DeleteRange([]byte("a"), nil)
		if errors.Is(err, folio.ErrIncompatibleValue) {
			err = tx.Delete([]byte("a"))
		}
		if b := tx.Bucket([]byte("b")); b != nil {
			_, err = b.DeleteRange(nil, []byte("a5"))
		}
		return err
	case "delete bucket":
		return tx.DeleteBucket([]byte("b"))
	case "create bucket":
		for i := range 2 {
			b, err := tx.CreateBucket(fmt.Appendf(nil, "a/%d", i))
			if err != nil {
				return err
			}
			if err := b.Put([]byte("key"), []byte("value")); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestHostileRunOfTwoLengths: a run whose sum was proven through one reference is not
// thereby proven for a reference that says that it is longer.
func TestHostileRunOfTwoLengths(t *testing.T) {
	i := slices.IndexFunc(folio.HostileStores, func(h folio.HostileStore) bool { return h.Name == "run of two lengths" })
	path := filepath.Join(damageDir(t), "h.folio")
	require.NoError(t, os.WriteFile(path, folio.HostileStores[i].Make(), 0o600))
	db, err := folio.Open(path, 0, &folio.Options{ReadOnly: true})
	require.NoError(t, err)
	defer db.Close()
	var v []byte
	err = db.View(func(tx *folio.Tx) error {
		require.Equal(t, "value", string(tx.Get([]byte("a"))))
		v = tx.Get([]byte("b"))
		return nil
	})
	require.Nil(t, v, "%d bytes that no sum covers", len(v))
	require.ErrorIs(t, err, folio.ErrCorrupt)
}

// --- files that are no store

func TestForeignFiles(t *testing.T) {
	le := binary.LittleEndian
	sized := func(n int, fn func(b []byte)) []byte {
		b := make([]byte, n)
		fn(b)
		return b
	}
	r := caseRand(damageSeed(t), t.Name())
	for _, f := range []struct {
		name string
		says string // part of the error
		file []byte
	}{
		{"empty", "empty", nil},
		{"one byte", "", []byte("x")},
		{"text", "", []byte(strings.Repeat("This is a text, and no store.\n", 2000))},
		{"magic alone", "", []byte("FOLIO\r\n\x1a")},
		{"magic at the start", "", append([]byte("FOLIO\r\n\x1a"), make([]byte, 20000)...)},
		{"zeros", "", make([]byte, 64<<10)},
		{"ones", "", bytes.Repeat([]byte{0xff}, 64<<10)},
		{"random bytes", "", sized(300<<10, func(b []byte) { garbage(r, b) })},
		{"a few random bytes", "", sized(100, func(b []byte) { garbage(r, b) })},
		{"SQLite", "SQLite", sized(8192, func(b []byte) {
			copy(b, "SQLite format 3\x00\x10\x00\x01\x01\x00\x40\x20\x20")
			le.PutUint32(b[96:], 0x002e6ea1)
		})},
		{"bbolt", "bbolt", sized(4*4096, func(b []byte) { // two metas, a freelist, an empty leaf
			for i := range 2 {
				p := b[i*4096:]
				le.PutUint64(p, uint64(i))
				le.PutUint16(p[8:], 0x04)
				le.PutUint32(p[16:], 0xED0CDAED)
				le.PutUint32(p[20:], 2)
				le.PutUint32(p[24:], 4096)
				le.PutUint64(p[32:], 3)
				le.PutUint64(p[48:], 2)
				le.PutUint64(p[56:], 4)
				le.PutUint64(p[64:], uint64(i))
			}
			le.PutUint64(b[2*4096:], 2)
			le.PutUint16(b[2*4096+8:], 0x10)
			le.PutUint64(b[3*4096:], 3)
			le.PutUint16(b[3*4096+8:], 0x02)
		})},
		{"LMDB", "LMDB", sized(2*4096, func(b []byte) {
			for i := range 2 {
				p := b[i*4096:]
				le.PutUint64(p, uint64(i))
				le.PutUint16(p[10:], 0x08)
				le.PutUint32(p[16:], 0xBEEFC0DE)
				le.PutUint32(p[20:], 1)
			}
		})},
		{"gzip", "", append([]byte{0x1f, 0x8b, 8, 0}, sized(10000, func(b []byte) { garbage(r, b) })...)},
	} {
		t.Run(f.name, func(t *testing.T) {
			c := &damageCase{path: filepath.Join(damageDir(t), "f.folio"), file: f.file, seed: damageSeed(t)}
			runCase(t, c)
			for _, readOnly := range []bool{true, false} {
				_, err := c.open(readOnly)
				require.ErrorIs(t, err, folio.ErrInvalid)
				require.ErrorContains(t, err, f.says)
				require.ErrorContains(t, err, c.path)
			}
		})
	}

	t.Run("directory", func(t *testing.T) {
		dir := t.TempDir()
		for _, readOnly := range []bool{true, false} {
			_, err := folio.Open(dir, 0o600, &folio.Options{ReadOnly: readOnly, Timeout: -1})
			require.ErrorIs(t, err, folio.ErrInvalid)
		}
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, entries)
	})

	t.Run("other versions", func(t *testing.T) {
		whole := bases(t)[0]
		for _, change := range []func(p []byte){
			func(p []byte) { le.PutUint32(p[64:], 2) },
			func(p []byte) { le.PutUint32(p[64:], 4) },
			func(p []byte) { le.PutUint32(p[64:], 0) },
			func(p []byte) { le.PutUint64(p[72:], 1<<40) },
		} {
			file := bytes.Clone(whole.files[len(whole.files)-1])
			s := folio.NewSurgeon(file, whole.psize)
			for slot := range 4 {
				change(file[slot*whole.psize:])
				s.Reseal(uint64(slot))
			}
			c := &damageCase{path: filepath.Join(damageDir(t), "v.folio"), file: file}
			runCase(t, c)
			for _, readOnly := range []bool{true, false} {
				_, err := c.open(readOnly)
				require.ErrorIs(t, err, folio.ErrVersionMismatch)
			}
		}
	})
}

// TestTruncatedWhileOpen: a file that gets shorter under an open store gives an error,
// and the process lives.
func TestTruncatedWhileOpen(t *testing.T) {
	b := bases(t)[0]
	whole := b.files[len(b.files)-1]
	for _, npages := range []int{0, 4, 20, len(whole)/b.psize - 1} {
		t.Run(fmt.Sprint(npages), func(t *testing.T) {
			c := &damageCase{base: b, path: filepath.Join(damageDir(t), "t.folio"), file: whole}
			require.NoError(t, os.WriteFile(c.path, whole, 0o600))
			db, err := c.open(true)
			require.NoError(t, err)
			defer closeSoon(db)
			require.NoError(t, os.Truncate(c.path, int64(npages*b.psize)))
			want := b.stateOf(b.newest)
			for _, r := range readers {
				err := db.View(func(tx *folio.Tx) error { return r.read(tx, want) })
				require.NoError(t, c.damageError(r.name, err))
			}
			for err := range db.Check(context.Background()) {
				var fault *folio.Fault
				require.True(t, errors.Is(err, folio.ErrPageFault) || errors.As(err, &fault), "%v", err)
			}
			if npages < 100 {
				require.NotZero(t, c.faults)
			}
		})
	}
}
