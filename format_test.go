package folio

// format_test.go holds docs/format.md and the code against each other:
//   - the tables of the document are parsed and compared with the constants;
//   - pages that the code encodes are decoded by hand, at the documented offsets;
//   - docReader, a reader of a whole store that takes every offset from the tables and
//     uses nothing of the engine, must see what the API shows.

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"
)

// --- the document's tables

// docTables are the tables of docs/format.md that have a name: rows of cells by
// column name.
type docTables map[string][]map[string]string

func readDoc(t testing.TB) docTables {
	raw, err := os.ReadFile("docs/format.md")
	require.NoError(t, err)
	doc := docTables{}
	name, columns := "", []string(nil)
	for line := range strings.Lines(string(raw)) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "<!-- table: "); ok {
			name, columns = strings.TrimSuffix(rest, " -->"), nil
			require.NotContains(t, doc, name, "two tables of one name")
			doc[name] = nil
			continue
		}
		switch {
		case name == "" || line == "" && columns == nil:
		case !strings.HasPrefix(line, "|"):
			require.NotEmpty(t, doc[name], "no table follows the comment %q", name)
			name = ""
		default:
			cells := strings.Split(strings.Trim(line, "|"), "|")
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			switch {
			case columns == nil:
				columns = cells
			case strings.HasPrefix(cells[0], "---"):
			default:
				require.Len(t, cells, len(columns), "table %q: %s", name, line)
				row := map[string]string{}
				for i, c := range columns {
					row[c] = cells[i]
				}
				doc[name] = append(doc[name], row)
			}
		}
	}
	return doc
}

// row returns the row of a table whose cell in column holds key.
func (d docTables) row(table, column, key string) map[string]string {
	for _, r := range d[table] {
		if r[column] == key {
			return r
		}
	}
	panic(fmt.Sprintf("docs/format.md: table %q has no row with %s %q", table, column, key))
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(fmt.Sprintf("docs/format.md: %q is no number", s))
	}
	return n
}

// at returns the documented offset and size of a field.
func (d docTables) at(table, field string) (off, size int) {
	r := d.row(table, "field", field)
	return number(r["offset"]), number(r["size"])
}

// value returns the number that a table of names has for one.
func (d docTables) value(table, column, name string) int {
	return number(d.row(table, column, name)["value"])
}

// linear evaluates an offset or a size like "56+14n", "4n", "2+s".
func linear(s string, vars map[byte]int) int {
	sum := 0
	for term := range strings.SplitSeq(s, "+") {
		digits := strings.TrimRight(term, "nksv")
		f := 1
		if digits != "" {
			f = number(digits)
		}
		if len(term) > len(digits) {
			f *= vars[term[len(term)-1]]
		}
		sum += f
	}
	return sum
}

func TestFormatTables(t *testing.T) {
	doc := readDoc(t)
	for _, c := range []struct {
		table  string
		fields []string // in order
		offs   []int    // of the code
		end    int
	}{
		{
			"page header",
			[]string{"sum", "pgno", "txid", "tree", "kind", "level", "flags", "count", "prefix", "lower", "upper", "pages", "dead"},
			[]int{offSum, offPgno, offTxid, offTree, offKind, offLevel, offFlags, offCount, offPrefix, offLower, offUpper, offPages, offDead},
			headerSize,
		},
		{
			"meta page",
			[]string{"magic", "version", "page size", "features", "uuid", "durable", "npages", "root", "next tree", "log segment", "log sector", "log sum", "log salt", "log segments", "free head", "free sum", "free oldest", "free start", "chain length", "tail length", "tail"},
			[]int{offMagic, offVersion, offPageSize, offFeatures, offUUID, offDurable, offNPages, offRoot, offNextTree, offLogSeg, offLogSect, offLogSum, offLogSalt, offLogSegs, offFreeHead, offFreeSum, offFreeOld, offFreeFrom, offFreeLen, offTailLen, offTail},
			offTail,
		},
		{
			"freelog page",
			[]string{"prev", "prev sum", "entries"},
			[]int{offFreelogPrev, offFreelogPrevSum, freelogPageHeader},
			freelogPageHeader,
		},
		{
			"run reference",
			[]string{"pgno", "sum", "txid", "pages", "key length", "value length"},
			[]int{0, 8, 16, 24, 28, 32},
			runRefSize,
		},
		{
			"redo record",
			[]string{"sum", "prev", "salt", "txid", "base", "durable", "length", "changes"},
			[]int{offRecordSum, offRecordPrev, offRecordSalt, offRecordTxid, offRecordBase, offRecordDurable, offRecordLen, offRecordOps},
			recordHeader,
		},
		{
			"bucket record",
			[]string{"root pgno", "root sum", "root count", "id", "sequence", "level", "reserved"},
			[]int{0, 8, 16, 24, 32, 40, 41},
			recordSize,
		},
	} {
		t.Run(c.table, func(t *testing.T) {
			require.Len(t, doc[c.table], len(c.fields), "fields of the table")
			for i, r := range doc[c.table] {
				require.Equal(t, c.fields[i], r["field"])
				require.Equal(t, c.offs[i], number(r["offset"]), r["field"])
				next := c.end
				if i+1 < len(c.offs) {
					next = c.offs[i+1]
				}
				require.Equal(t, next-c.offs[i], number(r["size"]), "size of %s: fields leave no gap", r["field"])
				require.NotEmpty(t, r["meaning"])
				require.NotEmpty(t, r["valid when"])
			}
		})
	}
}

func TestFormatSlotTables(t *testing.T) {
	doc := readDoc(t)
	for _, c := range []struct {
		table string
		slot  int
		first int // offset of the first field where there are no slots
	}{
		{"branch slots", branchSlotSize, headerSize},
		{"leaf slots", leafSlotSize, headerSize},
	} {
		for _, n := range []int{1, 7, 100} {
			at := c.first
			for _, r := range doc[c.table] {
				vars := map[byte]int{'n': n}
				require.Equal(t, at, linear(r["offset"], vars), "%s: %s", c.table, r["field"])
				at += linear(r["size"], vars)
			}
			require.Equal(t, c.first+c.slot*n, at, c.table)
		}
	}
	for _, n := range []int{1, 70} {
		vars := map[byte]int{'s': n, 'k': n, 'v': 2 * n}
		at := 0
		for _, r := range doc["branch cell"] {
			require.Equal(t, at, linear(r["offset"], vars), r["field"])
			at += linear(r["size"], vars)
		}
		require.Equal(t, branchCellHeader+n+runRefSize, at)
		at = 0
		for _, r := range doc["leaf cell"] {
			require.Equal(t, at, linear(r["offset"], vars), r["field"])
			at += linear(r["size"], vars)
		}
		require.Equal(t, leafCellHeader+3*n, at)
	}
	for _, r := range doc["leaf values"] {
		var f cellFlags
		if r["bucket"] == "1" {
			f |= cellBucket
		}
		if r["run"] == "1" {
			f |= cellLarge
		}
		if f != 0 {
			require.Equal(t, inlineSize(f), number(r["v"]))
		}
	}
	require.Len(t, doc["leaf values"], 4)
}

func TestFormatValues(t *testing.T) {
	doc := readDoc(t)
	for _, c := range []struct {
		table, column string
		values        map[string]int
	}{
		{"limits", "name", map[string]int{
			"smallest page": minPageSize, "largest page": maxPageSize, "meta slots": numMetas, "highest level": maxLevel,
			"key": MaxKeySize, "value": MaxValueSize, "truncated key": truncatedKeySize,
			"page number": maxPgno, "counter": maxCounter,
		}},
		{"page kinds", "kind", map[string]int{
			"meta": int(kindMeta), "branch": int(kindBranch), "leaf": int(kindLeaf), "run": int(kindRun), "freelog": int(kindFreelog),
		}},
		{"page flags", "flag", map[string]int{"runs": flagRuns, "buckets": flagBuckets, "clean": flagClean}},
		{"redo changes", "change", map[string]int{
			"bucket": opBucket, "put": opPut, "put run": opPutRun, "delete": opDelete, "delete range": opDeleteRange,
			"create bucket": opCreateBucket, "delete bucket": opDeleteBucket, "move bucket": opMoveBucket,
			"sequence": opSequence, "nothing": opNothing, "nonce": opNonce,
		}},
		{"entry kinds", "entry", map[string]int{"record": freelogRecordKind, "piece": freelogPieceKind}},
		{"extent states", "state", map[string]int{"reusable": pieceFree, "waiting": pieceWaiting, "waiting, known": pieceWaitingA}},
	} {
		require.Len(t, doc[c.table], len(c.values), c.table)
		for name, v := range c.values {
			require.Equal(t, v, doc.value(c.table, c.column, name), "%s: %s", c.table, name)
		}
	}
	require.EqualValues(t, refCount, 1<<number(doc.row("count field", "field", "pairs")["bits"])-1)
	require.EqualValues(t, uint64(refBuckets), uint64(1)<<number(doc.row("count field", "field", "buckets")["bit"]))
	require.EqualValues(t, uint64(refRuns), uint64(1)<<number(doc.row("count field", "field", "runs")["bit"]))
	for _, psize := range []int{4096, 8192, 65536} {
		require.Equal(t, (psize-56)/4-30, maxCellSize(psize), "the quarter-page rule")
	}
}

// --- pages that the code encodes, by hand

func TestFormatLeafBytes(t *testing.T) {
	p := make(page, minPageSize)
	p.init(kindLeaf, 0, 7)
	var run [runRefSize]byte
	putRunRef(run[:], runRef{pgno: 5, sum: 6, txid: 7, npages: 1, keyLen: 600, valueLen: 9})
	p.insertLeafSlot(0, 0, []byte("pre-a"), []byte("one"), 5, false)
	p.insertLeafSlot(1, 0, []byte("pre-bcdefg"), nil, 10, false)
	p.insertLeafSlot(2, cellLarge, bytes.Repeat([]byte("pre-z"), 10), run[:], 600, false)
	sum := p.seal(9, 11)

	le := binary.LittleEndian
	require.Equal(t, sum, le.Uint64(p[0:]))
	require.Equal(t, xxhash.Sum64(p[8:]), le.Uint64(p[0:]))
	require.EqualValues(t, 9, le.Uint64(p[8:]))
	require.EqualValues(t, 11, le.Uint64(p[16:]))
	require.EqualValues(t, 7, le.Uint64(p[24:]))
	require.EqualValues(t, 3, p[32])
	require.EqualValues(t, 0, p[33])
	require.EqualValues(t, 1, le.Uint16(p[34:]), "a run")
	require.EqualValues(t, 3, le.Uint16(p[36:]))
	require.EqualValues(t, 4, le.Uint16(p[38:]), "pre-")
	require.EqualValues(t, 56+3*6, le.Uint32(p[40:]))
	cells := 4 + 5 + 3 + 4 + 10 + 4 + 50 + 36
	require.EqualValues(t, 4096-cells, le.Uint32(p[44:]))
	require.EqualValues(t, 1, le.Uint32(p[48:]))
	require.EqualValues(t, 0, le.Uint32(p[52:]))
	require.Equal(t, []byte{0, 0, 0, 'a', 'e', 'd', 'c', 'b', 'e', 'r', 'p', 'z'}, []byte(p[56:68]), "heads: big-endian numbers, stored little-endian")
	require.EqualValues(t, 4096-12, le.Uint16(p[68:]))
	require.Equal(t, "\x05\x00\x03\x00pre-aone", string(p[4084:]))
	off := le.Uint16(p[72:])
	require.EqualValues(t, 50, le.Uint16(p[off:]))
	require.EqualValues(t, 1<<15|36, le.Uint16(p[off+2:]))
	require.Equal(t, run[:], []byte(p[off+54:off+90]))
	require.Equal(t, "\x05\x00\x00\x00\x00\x00\x00\x00"+"\x06\x00\x00\x00\x00\x00\x00\x00"+"\x07\x00\x00\x00\x00\x00\x00\x00"+
		"\x01\x00\x00\x00"+"\x58\x02\x00\x00"+"\x09\x00\x00\x00", string(run[:]))
}

func TestFormatBranchBytes(t *testing.T) {
	p := make(page, minPageSize)
	p.init(kindBranch, 2, 3)
	p.buildBranch([]child{
		{ref: ref{10, 110, countField(5, flagBuckets)}},
		{sep: []byte("key1"), ref: ref{20, 120, countField(6, flagRuns)}},
		{sep: []byte("key2longer"), ref: ref{30, 130, 7}},
	})
	le := binary.LittleEndian
	require.EqualValues(t, 2, p[32])
	require.EqualValues(t, 2, p[33])
	require.EqualValues(t, 3, le.Uint16(p[34:]), "flags of all children")
	require.EqualValues(t, 3, le.Uint16(p[36:]))
	require.EqualValues(t, 3, le.Uint16(p[38:]))
	require.EqualValues(t, 56+3*30, le.Uint32(p[40:]))
	require.EqualValues(t, 4096-3-(2+1)-(2+7), le.Uint32(p[44:]))
	require.Equal(t, "\x00\x00\x00\x00"+"\x00\x00\x001"+"nol2", string(p[56:68]), "heads")
	require.Equal(t, "key", string(p[4093:]), "the prefix is at the end")
	require.EqualValues(t, 0, le.Uint16(p[68:]))
	require.EqualValues(t, 4090, le.Uint16(p[70:]))
	require.Equal(t, "\x01\x001", string(p[4090:4093]))
	require.Equal(t, "\x07\x002longer", string(p[4081:4090]))
	for i := range uint64(3) {
		require.Equal(t, 10*(i+1), le.Uint64(p[74+8*i:]))
		require.Equal(t, 110+10*i, le.Uint64(p[98+8*i:]))
	}
	require.Equal(t, uint64(1)<<62|5, le.Uint64(p[122:]))
	require.Equal(t, uint64(1)<<63|6, le.Uint64(p[130:]))
	require.Equal(t, uint64(7), le.Uint64(p[138:]))
}

func TestFormatNewStoreBytes(t *testing.T) {
	for _, psize := range []int{4096, 65536} {
		b := newStore(psize)
		require.Len(t, b, 4*psize)
		require.True(t, isZero(b[psize:]))
		le := binary.LittleEndian
		require.Equal(t, xxhash.Sum64(b[8:psize]), le.Uint64(b))
		require.EqualValues(t, 1, le.Uint64(b[16:]))
		require.EqualValues(t, 1, b[32])
		require.EqualValues(t, 1, le.Uint16(b[34:]), "clean")
		require.EqualValues(t, 424+6, le.Uint32(b[40:]))
		require.EqualValues(t, psize, le.Uint32(b[44:]))
		require.Equal(t, "FOLIO\r\n\x1a", string(b[56:64]))
		require.EqualValues(t, 3, le.Uint32(b[64:]))
		require.EqualValues(t, psize, le.Uint32(b[68:]))
		require.EqualValues(t, 0, le.Uint64(b[72:]))
		require.False(t, isZero(b[80:96]), "uuid")
		require.EqualValues(t, 1, le.Uint64(b[96:]))
		require.EqualValues(t, 4, le.Uint64(b[104:]))
		require.True(t, isZero(b[112:420]))
		require.EqualValues(t, 6, le.Uint32(b[420:]))
		require.Equal(t, []byte{2, 1, 4, 0, 0, 0}, b[424:430])
		require.True(t, isZero(b[430:psize]))
	}
}

// TestFormatReservedBytes: what is reserved is refused when it is not zero.
func TestFormatReservedBytes(t *testing.T) {
	for _, off := range []int{offLogSeg, offLogSect, offLogSegs, offLogSegs + logSegmentSize, offLogSum + 3, offLogSalt + 7, offRoot + 41, offRoot + 47, offTail + 6, minPageSize - 1} {
		p := page(newStore(minPageSize)[:minPageSize])
		p[off] = 1
		p.seal(0, 1)
		_, err := decodeMeta(p, 0)
		require.ErrorIs(t, err, ErrCorrupt, "byte %d", off)
	}
	for off, v := range map[int]byte{offVersion: 1, offFeatures: 1, offFeatures + 7: 0x80} {
		p := page(newStore(minPageSize)[:minPageSize])
		p[off] = v
		p.seal(0, 1)
		_, err := decodeMeta(p, 0)
		require.ErrorIs(t, err, ErrVersionMismatch, "byte %d", off)
	}
}

// TestFormatMetaHeaderFields: header fields that a meta has no use for are 0, and
// refused when they are not.
func TestFormatMetaHeaderFields(t *testing.T) {
	for _, c := range []struct {
		field string
		off   int
	}{
		{"tree", offTree}, {"level", offLevel}, {"count", offCount}, {"prefix", offPrefix},
		{"upper", offUpper}, {"pages", offPages + 1}, {"dead", offDead},
	} {
		p := page(newStore(minPageSize)[:minPageSize])
		p[c.off] = 7
		p.seal(0, 1)
		_, err := decodeMeta(p, 0)
		require.ErrorIs(t, err, ErrCorrupt, "field %s of a meta's header is not what the format says", c.field)
	}
}

// --- a reader made of the document alone

// docBucket is what docReader finds in a bucket.
type docBucket struct {
	pairs    map[string]string
	subs     map[string]*docBucket
	sequence uint64
}

// docReader reads a whole store by the tables of docs/format.md.
type docReader struct {
	t     testing.TB
	doc   docTables
	file  []byte
	psize int
	seen  map[uint64]string // what each page is part of
}

// u reads the documented field of b.
func (r *docReader) u(table, field string, b []byte) uint64 {
	off, size := r.doc.at(table, field)
	switch size {
	case 1:
		return uint64(b[off])
	case 2:
		return uint64(binary.LittleEndian.Uint16(b[off:]))
	case 4:
		return uint64(binary.LittleEndian.Uint32(b[off:]))
	case 8:
		return binary.LittleEndian.Uint64(b[off:])
	}
	panic(fmt.Sprintf("field %s has %d bytes", field, size))
}

// array reads element i of a documented array of n.
func (r *docReader) array(table, field string, b []byte, n, i int) uint64 {
	row := r.doc.row(table, "field", field)
	vars := map[byte]int{'n': n}
	size := linear(row["size"], vars) / n
	b = b[linear(row["offset"], vars)+i*size:]
	switch size {
	case 2:
		return uint64(binary.LittleEndian.Uint16(b))
	case 4:
		return uint64(binary.LittleEndian.Uint32(b))
	}
	return binary.LittleEndian.Uint64(b)
}

// pageAt returns npages pages from n on, and checks number, sum and kind.
func (r *docReader) pageAt(n, npages, sum uint64, kind string) []byte {
	for i := range npages {
		was, seen := r.seen[n+i]
		require.False(r.t, seen, "page %d is reached twice: %s and %s", n+i, was, kind)
		r.seen[n+i] = kind
	}
	p := r.file[n*uint64(r.psize) : (n+npages)*uint64(r.psize)]
	require.Equal(r.t, n, r.u("page header", "pgno", p))
	require.Equal(r.t, sum, r.u("page header", "sum", p))
	require.Equal(r.t, sum, xxhash.Sum64(p[8:]), "page %d", n)
	require.EqualValues(r.t, r.doc.value("page kinds", "kind", kind), r.u("page header", "kind", p), "page %d", n)
	require.Equal(r.t, npages, r.u("page header", "pages", p))
	return p
}

// metas finds the page size and all metas whose sum is right, the newest first. The
// stores of this test are whole, so that it can be proven.
func (r *docReader) metas() (all [][]byte) {
	smallest, largest := r.doc.value("limits", "name", "smallest page"), r.doc.value("limits", "name", "largest page")
	magicAt, magicSize := r.doc.at("meta page", "magic")
	for psize := smallest; psize <= largest && len(all) == 0; psize *= 2 {
		for slot := range r.doc.value("limits", "name", "meta slots") {
			if len(r.file) < (slot+1)*psize {
				continue
			}
			p := r.file[slot*psize : (slot+1)*psize]
			if string(p[magicAt:magicAt+magicSize]) != "FOLIO\r\n\x1a" ||
				r.u("meta page", "version", p) != 3 || r.u("meta page", "page size", p) != uint64(psize) ||
				r.u("page header", "sum", p) != xxhash.Sum64(p[8:]) {
				continue
			}
			all, r.psize = append(all, p), psize
		}
	}
	require.NotEmpty(r.t, all, "no meta page")
	slices.SortFunc(all, func(a, b []byte) int {
		return cmp.Compare(r.u("page header", "txid", b), r.u("page header", "txid", a))
	})
	return all
}

// read returns the root bucket as meta m has it.
func (r *docReader) read(m []byte) *docBucket {
	r.seen = map[uint64]string{}
	for _, s := range r.segments(m) {
		for n := range s[1] {
			r.seen[s[0]+n] = "redo log"
		}
	}
	off, size := r.doc.at("meta page", "root")
	root := r.bucket(m[off : off+size])
	free := r.freePages(m)
	npages := r.u("meta page", "npages", m)
	require.LessOrEqual(r.t, npages*uint64(r.psize), uint64(len(r.file)))
	for n := uint64(4); n < npages; n++ {
		was, reached := r.seen[n]
		require.NotEqual(r.t, reached, free[n], "page %d: in use as %q, free: %t", n, was, free[n])
	}
	return root
}

func (r *docReader) bucket(rec []byte) *docBucket {
	b := &docBucket{pairs: map[string]string{}, subs: map[string]*docBucket{}, sequence: r.u("bucket record", "sequence", rec)}
	id := r.u("bucket record", "id", rec)
	root, sum, count := r.u("bucket record", "root pgno", rec), r.u("bucket record", "root sum", rec), r.u("bucket record", "root count", rec)
	off, size := r.doc.at("bucket record", "reserved")
	require.Equal(r.t, make([]byte, size), rec[off:off+size])
	if root == 0 {
		require.Zero(r.t, sum|count)
		return b
	}
	r.tree(b, id, root, sum, count, r.u("bucket record", "level", rec), nil, nil)
	return b
}

// tree reads the page at n and what is below it; its keys are >= lo and < hi.
func (r *docReader) tree(b *docBucket, id, n, sum, count, level uint64, lo, hi []byte) {
	kind := "leaf"
	if level > 0 {
		kind = "branch"
	}
	p := r.pageAt(n, 1, sum, kind)
	require.Equal(r.t, level, r.u("page header", "level", p))
	require.Equal(r.t, id, r.u("page header", "tree", p))
	flags := r.u("page header", "flags", p)
	require.Zero(r.t, flags&uint64(r.doc.value("page flags", "flag", "runs"))<<63&^count, "flag runs")
	require.Zero(r.t, flags>>1<<62&^count, "flag buckets")
	slots := int(r.u("page header", "count", p))
	before := len(b.pairs) + len(b.subs)
	if level == 0 {
		r.leaf(b, id, p, slots, lo, hi)
	} else {
		r.branch(b, id, p, slots, level, lo, hi)
	}
	require.EqualValues(r.t, len(b.pairs)+len(b.subs)-before, count&(1<<62-1), "pairs below page %d", n)
}

// headOf is the documented head of rest.
func headOf(rest []byte) uint64 {
	var b [4]byte
	copy(b[:], rest)
	return uint64(binary.BigEndian.Uint32(b[:]))
}

func (r *docReader) branch(b *docBucket, id uint64, p []byte, n int, level uint64, lo, hi []byte) {
	plen := int(r.u("page header", "prefix", p))
	prefix := p[len(p)-plen:]
	seps := make([][]byte, n+1)
	seps[0], seps[n] = lo, hi
	require.EqualValues(r.t, 56+30*n, r.u("page header", "lower", p))
	for i := 1; i < n; i++ {
		c := p[r.array("branch slots", "offsets", p, n, i):]
		s := int(binary.LittleEndian.Uint16(c))
		large := s&0x8000 != 0
		s &^= 0x8000
		suffix := c[2 : 2+s]
		require.Equal(r.t, headOf(suffix), r.array("branch slots", "heads", p, n, i))
		sep := slices.Concat(prefix, suffix)
		if large {
			whole, value := r.run(id, c[2+s:2+s+36])
			require.Empty(r.t, value)
			require.Len(r.t, sep, 64)
			require.Equal(r.t, sep, whole[:64])
			sep = whole
		}
		if i > 1 {
			require.Negative(r.t, bytes.Compare(seps[i-1], sep))
		}
		seps[i] = sep
	}
	for i := range n {
		r.tree(b, id, r.array("branch slots", "pgnos", p, n, i), r.array("branch slots", "sums", p, n, i),
			r.array("branch slots", "counts", p, n, i), level-1, seps[i], seps[i+1])
	}
}

func (r *docReader) leaf(b *docBucket, id uint64, p []byte, n int, lo, hi []byte) {
	require.EqualValues(r.t, 56+6*n, r.u("page header", "lower", p))
	plen := int(r.u("page header", "prefix", p))
	m := (r.psize-56)/4 - 30
	var last, prefix []byte
	live := 0
	for i := range n {
		c := p[r.array("leaf slots", "offsets", p, n, i):]
		k, v := int(binary.LittleEndian.Uint16(c)), int(binary.LittleEndian.Uint16(c[2:]))
		isBucket, large := k&0x8000 != 0, v&0x8000 != 0
		k, v = k&^0x8000, v&^0x8000
		key, value := c[4:4+k], c[4+k:4+k+v]
		require.LessOrEqual(r.t, 4+k+v, m, "the quarter-page rule")
		live += 4 + k + v
		if i == 0 {
			prefix = key[:plen]
		}
		require.Equal(r.t, prefix, key[:plen])
		require.Equal(r.t, headOf(key[plen:]), r.array("leaf slots", "heads", p, n, i))
		var rec []byte
		if isBucket {
			rec = value[v-48:]
			value = value[:v-48]
		}
		if large {
			require.Len(r.t, value, 36)
			whole, long := r.run(id, value)
			require.Equal(r.t, key, whole[:k])
			key, value = whole, long
		} else if isBucket {
			require.Empty(r.t, value)
		}
		require.True(r.t, i == 0 || bytes.Compare(last, key) < 0, "keys ascend")
		require.True(r.t, lo == nil || bytes.Compare(lo, key) <= 0)
		require.True(r.t, hi == nil || bytes.Compare(key, hi) < 0)
		last = key
		if isBucket {
			b.subs[string(key)] = r.bucket(rec)
		} else {
			b.pairs[string(key)] = string(value)
		}
	}
	upper, dead := int(r.u("page header", "upper", p)), int(r.u("page header", "dead", p))
	require.Equal(r.t, len(p)-upper, live+dead)
}

// run returns the key and the value in the run that encoded refers to.
func (r *docReader) run(id uint64, encoded []byte) (key, value []byte) {
	u := func(field string) uint64 { return r.u("run reference", field, encoded) }
	p := r.pageAt(u("pgno"), u("pages"), u("sum"), "run")
	require.Equal(r.t, id, r.u("page header", "tree", p))
	require.Equal(r.t, u("txid"), r.u("page header", "txid", p))
	k, v := u("key length"), u("value length")
	require.Equal(r.t, k, r.u("page header", "lower", p))
	require.Equal(r.t, v, r.u("page header", "upper", p))
	require.Equal(r.t, (56+k+v+uint64(r.psize)-1)/uint64(r.psize), u("pages"))
	require.True(r.t, isZero(p[56+k+v:]))
	return p[56 : 56+k], p[56+k : 56+k+v]
}

// --- the freelog, by the document

type docEntries struct {
	t testing.TB
	b []byte
}

func (e *docEntries) next() uint64 {
	x, n := binary.Uvarint(e.b)
	require.Positive(e.t, n, "uvarint")
	e.b = e.b[n:]
	return x
}

// freePages replays the freelog that meta m refers to.
func (r *docReader) freePages(m []byte) map[uint64]bool {
	u := func(field string) uint64 { return r.u("meta page", field, m) }
	var parts [][]byte // newest first
	n, sum := u("free head"), u("free sum")
	reading := true
	for i := range u("chain length") {
		p := r.pageAt(n, 1, sum, "freelog")
		off, _ := r.doc.at("freelog page", "entries")
		if reading {
			parts = append(parts, p[off:r.u("page header", "lower", p)])
		}
		reading = reading && n != u("free start")
		require.Equal(r.t, i+1 == u("chain length"), n == u("free oldest"))
		n, sum = r.u("freelog page", "prev", p), r.u("freelog page", "prev sum", p)
	}
	slices.Reverse(parts)
	off, _ := r.doc.at("meta page", "tail")
	parts = append(parts, m[off:off+int(u("tail length"))])

	const everything = ^uint64(0)
	free := map[uint64]bool{}
	known, npages, began, snapEnd := uint64(0), uint64(0), false, uint64(0)
	for _, part := range parts {
		for e := (&docEntries{r.t, part}); len(e.b) > 0; {
			kind := e.b[0]
			e.b = e.b[1:]
			e.next() // txid
			now := e.next()
			switch int(kind) {
			case r.doc.value("entry kinds", "entry", "record"):
				for p := npages; began && p < now; p++ {
					if p < known {
						free[p] = true
					}
				}
				for p := now; p < npages; p++ {
					if p < known {
						require.True(r.t, free[p])
						delete(free, p)
					}
				}
				end := uint64(0)
				for range e.next() {
					start := end + e.next()
					length := e.next()
					if length&1 != 0 {
						require.Positive(r.t, e.next())
					}
					for end = start; end < start+length>>1; end++ {
						if end < known {
							require.False(r.t, free[end], "page %d is freed twice", end)
							free[end] = true
						}
					}
				}
				end = 0
				for range e.next() {
					start := end + e.next()
					length := e.next()
					for end = start; end < start+length; end++ {
						if end < known {
							require.True(r.t, free[end], "page %d is allocated twice", end)
							delete(free, end)
						}
					}
				}
			case r.doc.value("entry kinds", "entry", "piece"):
				lo, length, count := e.next(), e.next(), e.next()
				hi := lo + length
				if length == 0 {
					hi = everything
				}
				require.True(r.t, lo == 0 || lo == snapEnd, "piece out of turn")
				snapEnd = hi
				fill := known != everything
				end := lo
				for range count {
					start := end + e.next()
					length := e.next()
					if length&3 > 0 {
						e.next()
					}
					if length&3 > 1 {
						require.Positive(r.t, e.next())
					}
					for p := end; !fill && p < start; p++ {
						require.False(r.t, free[p], "page %d is missing in the piece", p)
					}
					for end = start; end < start+length>>2; end++ {
						if fill {
							free[end] = true
						} else {
							require.True(r.t, free[end], "page %d is only in the piece", end)
						}
					}
				}
				if fill {
					known = hi
				}
			default:
				require.Fail(r.t, "entry", "kind %d", kind)
			}
			npages, began = now, true
		}
	}
	require.Equal(r.t, everything, known)
	require.Equal(r.t, npages, u("npages"))
	return free
}

// --- the comparison

// apiBucket reads a bucket through the API.
func apiBucket(b *Bucket) *docBucket {
	d := &docBucket{pairs: map[string]string{}, subs: map[string]*docBucket{}, sequence: b.Sequence()}
	for k, v := range b.All() {
		if v == nil {
			d.subs[string(k)] = apiBucket(b.Bucket(k))
		} else {
			d.pairs[string(k)] = string(v)
		}
	}
	return d
}

func requireSameBucket(t testing.TB, want, got *docBucket, path string) {
	t.Helper()
	require.Equal(t, want.sequence, got.sequence, "sequence of %q", path)
	wantKeys, gotKeys := slices.Sorted(maps.Keys(want.pairs)), slices.Sorted(maps.Keys(got.pairs))
	require.Equal(t, len(wantKeys), len(gotKeys), "pairs of %q", path)
	for i, k := range wantKeys {
		if k != gotKeys[i] || want.pairs[k] != got.pairs[k] {
			require.Fail(t, "pairs differ", "bucket %q, key %.80q (%d bytes)", path, k, len(k))
		}
	}
	require.Equal(t, slices.Sorted(maps.Keys(want.subs)), slices.Sorted(maps.Keys(got.subs)))
	for name := range want.subs {
		requireSameBucket(t, want.subs[name], got.subs[name], path+"/"+name[:min(len(name), 20)])
	}
}

func TestFormatReaderOfTheDocument(t *testing.T) {
	doc := readDoc(t)
	seen := map[byte]int{} // changes in redo records
	for _, psize := range []int{4096, 16384, 65536} {
		t.Run(strconv.Itoa(psize), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "doc.folio")
			open := func() *DB {
				db, err := Open(path, 0o600, &Options{PageSize: psize})
				require.NoError(t, err)
				return db
			}
			db, nrecords := open(), 0
			compare := func() {
				t.Helper()
				file, durable := fileNow(t, db)
				r := &docReader{t: t, doc: doc, file: file}
				got := (*docBucket)(nil)
				for _, m := range r.metas() { // the durable commit, and the log after it
					if r.u("page header", "txid", m) == uint64(durable) {
						got = r.read(m)
						nrecords += r.replayLog(m, got, seen)
					}
				}
				require.NotNil(t, got)
				require.NoError(t, db.View(func(tx *Tx) error {
					requireSameBucket(t, apiBucket(tx.Root()), got, "")
					return nil
				}))
				for err := range db.Check(context.Background()) {
					require.NoError(t, err)
				}
			}
			rng := rand.New(rand.NewPCG(1, uint64(psize)))
			for round := range 40 {
				require.NoError(t, db.Update(func(tx *Tx) error {
					fillForDoc(t, tx, rng, round)
					return nil
				}))
				for range 4 {
					require.NoError(t, db.Update(func(tx *Tx) error {
						changeForDoc(t, tx, rng)
						return nil
					}))
				}
				if round%4 == 0 {
					compare()
				}
				if round%9 == 5 {
					require.NoError(t, db.Close())
					db = open()
				}
			}
			compare()
			require.NoError(t, db.Close())
			db = open()
			compare()
			require.NoError(t, db.Close())
			require.Greater(t, nrecords, 5, "redo records")
		})
	}
	require.Len(t, seen, len(doc["redo changes"]), "kinds of changes in redo records: %v", seen)
}

// changeForDoc makes a few changes, as small commits do.
func changeForDoc(t testing.TB, tx *Tx, rng *rand.Rand) {
	b := tx.Root()
	name := fmt.Appendf(nil, "small %d", rng.IntN(3))
	if rng.IntN(2) == 0 {
		var err error
		b, err = b.CreateBucketIfNotExists(name)
		require.NoError(t, err)
	}
	require.NoError(t, b.Put(fmt.Appendf(nil, "small key %d", rng.IntN(50)), make([]byte, rng.IntN(90))))
	switch rng.IntN(8) {
	case 0:
		require.NoError(t, b.Put([]byte("by reference"), make([]byte, 70_000)))
		if rng.IntN(2) == 0 {
			require.NoError(t, b.Delete([]byte("by reference")))
		}
	case 1:
		require.NoError(t, b.Delete(fmt.Appendf(nil, "small key %d", rng.IntN(50))))
	case 2:
		if lo := fmt.Appendf(nil, "small key %d", rng.IntN(50)); rng.IntN(2) == 0 {
			_, err := b.DeleteRange(lo, append(lo, 0xff))
			require.NoError(t, err)
		}
	case 3:
		if tx.Bucket([]byte("moved")) == nil && tx.Bucket(name) != nil {
			to, err := tx.CreateBucket([]byte("moved"))
			require.NoError(t, err)
			require.NoError(t, tx.MoveBucket(name, tx.Root(), to))
		} else if tx.Bucket([]byte("moved")) != nil {
			require.NoError(t, tx.DeleteBucket([]byte("moved")))
		}
	case 4:
		require.NoError(t, b.SetSequence(rng.Uint64()))
	}
}

// --- the redo log

// segments returns first page and pages of each segment that meta m lists.
func (r *docReader) segments(m []byte) (all [][2]uint64) {
	off, size := r.doc.at("meta page", "log segments")
	for b := m[off : off+size]; len(b) > 0 && !isZero(b); b = b[12:] {
		all = append(all, [2]uint64{binary.LittleEndian.Uint64(b), uint64(binary.LittleEndian.Uint32(b[8:]))})
	}
	return all
}

// replayLog applies the records after meta m to root, and returns how many there are;
// seen counts the kinds of changes.
func (r *docReader) replayLog(m []byte, root *docBucket, seen map[byte]int) (nrecords int) {
	segments := r.segments(m)
	at, sector := int(r.u("meta page", "log segment", m)), r.u("meta page", "log sector", m)
	sum, reached := r.u("meta page", "log sum", m), r.u("page header", "txid", m)
	for {
		var rec []byte
		for i := 0; i <= len(segments) && rec == nil && len(segments) > 0; i++ {
			if i > 0 {
				at, sector = (at+1)%len(segments), 0
			}
			rec = r.record(m, segments[at], sector, sum, reached)
		}
		if rec == nil {
			return nrecords
		}
		r.applyRecord(rec, root, seen)
		sum, reached = r.u("redo record", "sum", rec), r.u("redo record", "txid", rec)
		sector += uint64(len(rec)+511) / 512
		nrecords++
	}
}

// record returns the record at a sector of a segment, if it counts.
func (r *docReader) record(m []byte, segment [2]uint64, sector, sum, reached uint64) []byte {
	b := r.file[segment[0]*uint64(r.psize):][:segment[1]*uint64(r.psize)][sector*512:]
	if len(b) == 0 || r.u("redo record", "salt", b) != r.u("meta page", "log salt", m) {
		return nil
	}
	n := r.u("redo record", "length", b)
	if n < 56 || n > uint64(len(b)) || xxhash.Sum64(b[8:n]) != r.u("redo record", "sum", b) ||
		r.u("redo record", "prev", b) != sum || r.u("redo record", "base", b) != reached {
		return nil
	}
	require.True(r.t, isZero(b[n:(n+511)/512*512]), "the rest of a record's last sector")
	return b[:n]
}

// applyRecord makes the changes of a record, and counts their kinds.
func (r *docReader) applyRecord(rec []byte, root *docBucket, seen map[byte]int) {
	e := &docEntries{r.t, rec[56:]}
	text := func() string {
		n := e.next()
		s := string(e.b[:n])
		e.b = e.b[n:]
		return s
	}
	at := func() *docBucket {
		b := root
		for range e.next() {
			b = b.subs[text()]
			require.NotNil(r.t, b)
		}
		return b
	}
	value := func(name string) byte { return byte(r.doc.value("redo changes", "change", name)) }
	b, nchanges := root, uint64(0)
	for len(e.b) > 0 {
		kind := e.b[0]
		e.b = e.b[1:]
		nchanges++
		seen[kind]++
		switch kind {
		case value("bucket"):
			b = at()
			nchanges--
		case value("put"):
			k := text()
			b.pairs[k] = text()
		case value("put run"):
			ref := e.b[:36]
			e.b = e.b[36:]
			npages := r.u("run reference", "pages", ref)
			off := r.u("run reference", "pgno", ref) * uint64(r.psize)
			p := r.file[off:][:npages*uint64(r.psize)]
			require.Equal(r.t, r.u("run reference", "sum", ref), xxhash.Sum64(p[8:]))
			k, v := r.u("run reference", "key length", ref), r.u("run reference", "value length", ref)
			b.pairs[string(p[56:56+k])] = string(p[56+k : 56+k+v])
		case value("delete"):
			delete(b.pairs, text())
		case value("delete range"):
			flags := e.next()
			lo, hi := text(), text()
			maps.DeleteFunc(b.pairs, func(k, _ string) bool { return k >= lo && (flags&2 == 0 || k < hi) })
		case value("create bucket"):
			name := text()
			e.next()
			b.subs[name] = &docBucket{pairs: map[string]string{}, subs: map[string]*docBucket{}}
		case value("delete bucket"):
			delete(b.subs, text())
		case value("move bucket"):
			name := text()
			at().subs[name] = b.subs[name]
			delete(b.subs, name)
		case value("sequence"):
			b.sequence = e.next()
		case value("nothing"):
			e.b = e.b[36:]
		case value("nonce"):
			e.b = e.b[8:]
			nchanges--
		default:
			require.Fail(r.t, "unknown change", "%d", kind)
		}
	}
	require.Equal(r.t, r.u("redo record", "changes", rec), nchanges)
}

// fillForDoc makes some changes of all kinds.
func fillForDoc(t testing.TB, tx *Tx, rng *rand.Rand, round int) {
	key := func() []byte {
		i := rng.IntN(500)
		switch i % 10 {
		case 0:
			return fmt.Appendf(nil, "%s%04d", strings.Repeat("long/", 50+i*4), i)
		case 1:
			return fmt.Appendf(nil, "%s%04d", strings.Repeat("s", 17000), i) // a separator in a run, at every page size
		case 2:
			return []byte(strconv.Itoa(i) + "/" + strings.Repeat("u", rng.IntN(80)))
		}
		return fmt.Appendf(nil, "key/%06d", i)
	}
	b := tx.Root()
	for depth := rng.IntN(4); depth > 0; depth-- {
		name := fmt.Appendf(nil, "bucket %d", rng.IntN(4))
		if rng.IntN(8) == 0 {
			name = bytes.Repeat(name, 700) // a long name
		}
		var err error
		b, err = b.CreateBucketIfNotExists(name)
		require.NoError(t, err)
	}
	for range 30 {
		sizes := [...]int{0, 5, 60, 300, 990, 5000, 40000}
		v := make([]byte, sizes[min(rng.IntN(12), rng.IntN(len(sizes)))])
		for i := range v {
			v[i] = byte(rng.Uint32())
		}
		require.NoError(t, b.Put(key(), v))
	}
	for range 10 {
		require.NoError(t, b.Delete(key()))
	}
	require.NoError(t, b.SetSequence(uint64(round)<<40|b.Sequence()))
	if round%5 == 4 {
		lo, hi := key(), key()
		if cmp.Compare(string(lo), string(hi)) > 0 {
			lo, hi = hi, lo
		}
		if _, err := b.DeleteRange(lo, hi); err != nil {
			require.ErrorIs(t, err, ErrIncompatibleValue)
		}
	}
	if round%11 == 10 {
		if err := tx.DeleteBucket([]byte("bucket 1")); err != nil {
			require.ErrorIs(t, err, ErrBucketNotFound)
		}
	}
}
