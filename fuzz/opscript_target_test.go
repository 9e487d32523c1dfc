package fuzz

// opscript_target_test.go makes of arbitrary bytes a script of operations on a store, and of
// the script a text, one operation a line, that can be read and parsed again.

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/foliokv/folio"
	"github.com/stretchr/testify/require"
)

// Bounds for what one input may do.
const (
	mostOps      = 250
	mostBytes    = 1 << 20 // of keys and values put, and so much for each
	putOverhead  = 100
	mostNesting  = 4
	mostHandles  = 4
	mostCursors  = 3
	mostReaders  = 3
	scriptHeader = 3 // bytes
)

// storeOp is one operation of a script.
type storeOp struct {
	kind *storeOpKind
	args opArgs
}

// opArgs are the arguments of an operation. Which of them it has, its kind says.
type opArgs struct {
	bucket, other int // numbers of buckets, in the order of the whole tree
	key, key2     int // see keyOf
	value         int // see sizeOf
	n, m          int
}

// storeOpKind is a kind of operation.
type storeOpKind struct {
	name   string
	args   string // a letter for each: see argOf
	weight int
	inTx   bool // it needs a write transaction, which begins for it
	run    func(r *opsRun, a *opArgs)
}

// argOf returns the argument that a letter stands for, its name and its width in bytes.
func (a *opArgs) argOf(letter byte) (arg *int, name string, nbytes int) {
	switch letter {
	case 'b':
		return &a.bucket, "bucket", 1
	case 'o':
		return &a.other, "other", 1
	case 'k':
		return &a.key, "key", 2
	case 'l':
		return &a.key2, "key2", 2
	case 'v':
		return &a.value, "value", 2
	case 'n':
		return &a.n, "n", 1
	}
	return &a.m, "m", 1
}

// opsScript is what an input says.
type opsScript struct {
	header [scriptHeader]byte
	ops    []storeOp
}

// parseInput decodes an input. Every input has a meaning: what is missing is zero.
func parseInput(b []byte) *opsScript {
	s := &opsScript{}
	b = b[copy(s.header[:], b):]
	next := func(nbytes int) int {
		var raw [8]byte
		b = b[copy(raw[8-nbytes:], b):]
		return int(binary.BigEndian.Uint64(raw[:]))
	}
	for len(b) > 0 && len(s.ops) < mostOps {
		op := storeOp{kind: weighted[next(1)%len(weighted)]}
		for _, letter := range []byte(op.kind.args) {
			arg, _, nbytes := op.args.argOf(letter)
			if *arg = 0; len(b) > 0 {
				*arg = next(min(nbytes, len(b)))
			}
		}
		s.ops = append(s.ops, op)
	}
	return s
}

// bytes is the inverse of parseInput.
func (s *opsScript) bytes() []byte {
	b := slices.Clone(s.header[:])
	for _, op := range s.ops {
		b = append(b, byte(slices.Index(weighted, op.kind)))
		for _, letter := range []byte(op.kind.args) {
			arg, _, nbytes := op.args.argOf(letter)
			if nbytes == 2 {
				b = append(b, byte(*arg>>8))
			}
			b = append(b, byte(*arg))
		}
	}
	return b
}

// parseText is the inverse of String, but for comments.
func parseText(text string) *opsScript {
	s := &opsScript{}
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if words[0] == "store" {
			for i := range s.header {
				s.header[i] = byte(mustAtoi(words[1+i]))
			}
			continue
		}
		i := slices.IndexFunc(weighted, func(k *storeOpKind) bool { return k.name == words[0] })
		if i < 0 {
			panic("no operation " + words[0])
		}
		op := storeOp{kind: weighted[i]}
		for _, word := range words[1:] {
			name, number, _ := strings.Cut(word, "=")
			for _, letter := range []byte(op.kind.args) {
				if arg, n, _ := op.args.argOf(letter); n == name {
					*arg = mustAtoi(number)
				}
			}
		}
		s.ops = append(s.ops, op)
	}
	return s
}

func mustAtoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

// String returns the script as text.
func (s *opsScript) String() string {
	var b strings.Builder
	opts, inMemory, home := s.options()
	fmt.Fprintf(&b, "store %d %d %d  # in memory: %t, page size %d, sync %d, two phase: %t, verify %d, dirty limit %d, keys %s\n",
		s.header[0], s.header[1], s.header[2], inMemory, opts.PageSize, opts.Sync, opts.TwoPhase, opts.Verify, opts.DirtyLimit, keyFamilies[home].name)
	for _, op := range s.ops {
		b.WriteString(op.kind.name)
		var notes []string
		for _, letter := range []byte(op.kind.args) {
			arg, name, _ := op.args.argOf(letter)
			fmt.Fprintf(&b, " %s=%d", name, *arg)
			switch letter {
			case 'k', 'l':
				family, i := keyNumber(*arg, home)
				notes = append(notes, fmt.Sprintf("%s %d", keyFamilies[family].name, i))
			case 'v':
				notes = append(notes, fmt.Sprintf("%d bytes", sizeOf(*arg, opts.PageSize)))
			}
		}
		if len(notes) > 0 {
			b.WriteString("  # " + strings.Join(notes, ", "))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// options returns how the store is to be opened. A script that opens it again needs a file.
func (s *opsScript) options() (opts folio.Options, inMemory bool, home int) {
	h := s.header
	opts = folio.Options{
		PageSize:   [4]int{4096, 4096, 8192, 65536}[h[0]%4],
		DirtyLimit: [4]int64{0, 0, 32 << 10, 256 << 10}[h[0]/4%4],
		TwoPhase:   h[0]/16%4 == 0,
		Sync:       [4]folio.SyncMode{folio.SyncFull, folio.SyncFull, folio.SyncOff, folio.SyncInterval}[h[1]%4],
		Verify:     [4]folio.VerifyMode{folio.VerifyFirstRead, folio.VerifyFirstRead, folio.VerifyAlways, folio.VerifyOff}[h[1]/4%4],
		SyncEvery:  time.Millisecond,
		Timeout:    -1,
	}
	inMemory = h[1]/16%4 != 0
	for _, op := range s.ops {
		inMemory = inMemory && op.kind.name != "reopen" && op.kind.name != "kill"
	}
	opts.InMemory = inMemory
	return opts, inMemory, int(h[2]) % len(keyFamilies)
}

// --- keys and values

// keyFamilies are shapes of keys. Key i of a family is made when it is needed.
var keyFamilies = []struct {
	name string
	n    int
	key  func(i, psize int) []byte
}{
	{"byte", 257, func(i, _ int) []byte {
		if i == 256 {
			return nil // no key may be empty
		}
		return []byte{byte(i)}
	}},
	{"decimal", 1500, func(i, _ int) []byte { return fmt.Append(nil, i) }},
	{"hashed", 1500, func(i, _ int) []byte { return le.AppendUint64(nil, uint64(i+1)*0x9e3779b97f4a7c15) }},
	{"zeros", 300, func(i, _ int) []byte { return make([]byte, i+1) }},
	{"shared", 600, func(i, _ int) []byte { return fmt.Appendf(nil, "%s%06d", strings.Repeat("shared/", 43), i) }},
	{"cell", 300, func(i, psize int) []byte { // its cell just fits a quarter of a page, or does not
		return append(bytes.Repeat([]byte{'c'}, psize/4-160+i%140), fmt.Append(nil, i)...)
	}},
	{"longest", 40, func(i, _ int) []byte { // one more byte, and none may be so long
		k := fmt.Appendf(nil, "%s%03d", strings.Repeat("k", 32_000), i*7)
		return append(k, make([]byte, folio.MaxKeySize-len(k)+i/39)...)
	}},
	{"lengths", 500, func(i, _ int) []byte {
		return append(bytes.Repeat([]byte{byte(i % 5)}, i*i%3000), fmt.Append(nil, i)...)
	}},
	{"in runs", 300, func(i, psize int) []byte { // and what separates them is too
		return fmt.Appendf(nil, "%s%04d", strings.Repeat("r", psize/4+20), i*3)
	}},
}

// The low bits of a key's number say which of its family it is.
const (
	keyIndexBits = 11
	keyIndex     = 1<<keyIndexBits - 1
)

// keyNumber splits the number of a key: most are of the script's own family.
func keyNumber(key, home int) (family, i int) {
	family = home
	if key&0x8000 != 0 {
		family = key >> keyIndexBits & 15 % len(keyFamilies)
	}
	return family, key & keyIndex % keyFamilies[family].n
}

// keyAfter returns the number of the key that is so far from key in its family.
func keyAfter(key, distance int) int { return key&^keyIndex | (key+distance)&keyIndex }

func keyOf(key, home, psize int) []byte {
	family, i := keyNumber(key, home)
	return keyFamilies[family].key(i, psize)
}

// sizeOf returns the length of a value.
func sizeOf(value, psize int) int {
	fine := value & 0xff
	return [...]int{
		0, 1, 10, 50, 100, 100, 300, 1000, 2000,
		max(0, psize/4-200+fine), // about the largest cell
		psize - 72 + fine%32,     // about one page of a run
		3*psize - 100 + fine,
		70_000,
	}[value>>8%13]
}

func valueBytes(value, psize int) []byte { return patterned(value, sizeOf(value, psize)) }

// --- the text and the bytes

func TestScriptText(t *testing.T) {
	for _, text := range opsSeeds {
		s := parseText(text)
		again := parseInput(s.bytes())
		require.Equal(t, s.String(), again.String())
		require.Equal(t, s.String(), parseText(s.String()).String())
		require.Equal(t, s.bytes(), parseText(s.String()).bytes())
	}
	require.Empty(t, parseInput(nil).ops)
	require.Len(t, parseInput(bytes.Repeat([]byte{0xff}, 10_000)).ops, mostOps)
}
