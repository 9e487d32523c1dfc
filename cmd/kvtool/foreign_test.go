package main

// foreign_test.go holds dump and load against the tools whose format it is: what one
// writes the other must read, and write again the same.

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// foreignTool is one family of dump and load commands.
type foreignTool struct {
	load, dump string
	// args for a database at a path: all of it, one unnamed database.
	loadArgs, dumpArgs, allArgs []string
}

var (
	lmdb     = foreignTool{"mdb_load", "mdb_dump", []string{"-n"}, []string{"-n"}, []string{"-n", "-a"}}
	berkeley = foreignTool{"db5.3_load", "db5.3_dump", nil, nil, nil}
)

func eachTool(t *testing.T, fn func(t *testing.T, f foreignTool)) {
	for _, f := range []foreignTool{lmdb, berkeley} {
		t.Run(f.dump, func(t *testing.T) {
			for _, name := range []string{f.load, f.dump} {
				if _, err := exec.LookPath(name); err != nil {
					t.Skipf("%s is not installed (Debian: lmdb-utils, db5.3-util): not tested against it", name)
				}
			}
			fn(t, f)
		})
	}
}

// command runs one of the tools, which must succeed, and returns what it wrote.
func command(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	c := exec.Command(name, args...)
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &out, &errs
	require.NoError(t, c.Run(), "%s %v: %s", name, args, errs.String())
	return out.String()
}

func (f *foreignTool) loads(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "foreign")
	command(t, text, f.load, append(f.loadArgs, path)...)
	return path
}

func (f *foreignTool) dumps(t *testing.T, path string, args []string, print bool) string {
	t.Helper()
	args = append(args[:len(args):len(args)], printFlag(print)...)
	return command(t, "", f.dump, append(args, path)...)
}

func printFlag(print bool) []string {
	if print {
		return []string{"-p"}
	}
	return nil
}

// bare is a dump without the header lines that only one of the tools writes.
func bare(text string) string {
	var out strings.Builder
	for line := range strings.SplitAfterSeq(text, "\n") {
		switch keyword, _, _ := strings.Cut(line, "="); keyword {
		case "mapsize", "maxreaders", "mapaddr", "db_pagesize":
		default:
			out.WriteString(line)
		}
	}
	return out.String()
}

var escape = regexp.MustCompile(`\\\\|\\[0-9a-f]{2}`)

// sameEscapes writes every escaped backslash as db_dump does.
func sameEscapes(text string) string {
	return escape.ReplaceAllStringFunc(text, func(s string) string {
		if s == `\5c` {
			return `\\`
		}
		return s
	})
}

// hexDump is a dump of one database with pairs that are hard on a text format.
func hexDump(rnd *rand.Rand, backslashes bool) string {
	var out strings.Builder
	out.WriteString("VERSION=3\nformat=bytevalue\ntype=btree\nHEADER=END\n")
	seen := map[string]bool{}
	for i := range 600 {
		key := randomBytes(rnd, 1+rnd.Intn(40), backslashes)
		if i%50 == 0 {
			key = randomBytes(rnd, 511, backslashes) // the longest that LMDB takes
		}
		if !seen[string(key)] {
			fmt.Fprintf(&out, " %x\n %x\n", key, randomBytes(rnd, rnd.Intn(60), backslashes))
		}
		seen[string(key)] = true
	}
	fmt.Fprintf(&out, " 62696700\n %x\nDATA=END\n", randomBytes(rnd, 100_000, backslashes))
	return out.String()
}

func randomBytes(rnd *rand.Rand, n int, backslashes bool) []byte {
	b := make([]byte, n)
	rnd.Read(b)
	for i := range b {
		if rnd.Intn(2) == 0 {
			b[i] = " \\a0\x00\n\xc3"[rnd.Intn(7)]
		}
		if b[i] == '\\' && !backslashes {
			b[i] = '/'
		}
	}
	return b
}

// keepsBackslashes reports whether what the tool prints can be read back: mdb_dump before
// 0.9.25 does not escape a backslash.
func (f *foreignTool) keepsBackslashes(t *testing.T) bool {
	path := f.loads(t, "VERSION=3\nformat=bytevalue\ntype=btree\nHEADER=END\n 5c\n 5c\nDATA=END\n")
	return strings.Contains(f.dumps(t, path, f.dumpArgs, true), " \\\\\n")
}

func TestForeignReadsOurs(t *testing.T) {
	const seed = 1
	eachTool(t, func(t *testing.T, f foreignTool) {
		store := filepath.Join(t.TempDir(), "s.folio")
		mustKvtool(t, hexDump(rand.New(rand.NewSource(seed)), true), "load", store)
		want := mustKvtool(t, "", "dump", store)
		for _, print := range []bool{false, true} {
			ours := mustKvtool(t, "", append([]string{"dump", store}, printFlag(print)...)...)
			path := f.loads(t, ours)
			require.Equal(t, want, bare(f.dumps(t, path, f.dumpArgs, false)), "print=%v", print)
			if f.keepsBackslashes(t) {
				require.Equal(t, sameEscapes(ours), bare(f.dumps(t, path, f.dumpArgs, print)), "print=%v", print)
			}
		}
	})
}

func TestOursReadsForeign(t *testing.T) {
	const seed = 2
	eachTool(t, func(t *testing.T, f foreignTool) {
		backslashes := f.keepsBackslashes(t)
		for _, print := range []bool{false, true} {
			in := hexDump(rand.New(rand.NewSource(seed)), backslashes || !print)
			path := f.loads(t, in)
			store := filepath.Join(t.TempDir(), "s.folio")
			mustKvtool(t, f.dumps(t, path, f.dumpArgs, print), "load", store)
			require.Equal(t, bare(f.dumps(t, path, f.dumpArgs, false)), mustKvtool(t, "", "dump", store), "print=%v", print)
			if !print || backslashes {
				ours := mustKvtool(t, "", append([]string{"dump", store}, printFlag(print)...)...)
				require.Equal(t, bare(f.dumps(t, path, f.dumpArgs, print)), sameEscapes(ours))
			}
		}
	})
}

// Buckets are named databases to the tools, and keep their names there and back.
func TestForeignBuckets(t *testing.T) {
	eachTool(t, func(t *testing.T, f foreignTool) {
		store := filepath.Join(t.TempDir(), "s.folio")
		for _, path := range []string{`a`, `a/b`, `a/b\/c`, `back\\slash`, `nul\x00/\xff`, `space and =`, "z\u00fc"} {
			mustKvtool(t, "v\\\x00", "put", "-b", path, store, "k\\"+path)
			mustKvtool(t, "", "put", "-b", path, store, "empty", "")
		}
		mustKvtool(t, "", "put", "-b", "empty/below", store, "k", "v")
		want := mustKvtool(t, "", "dump", store)
		foreign := f.dumps(t, f.loads(t, want), f.allArgs, false)
		copied := filepath.Join(t.TempDir(), "copy.folio")
		mustKvtool(t, foreign, "load", copied)
		require.Equal(t, want, mustKvtool(t, "", "dump", copied))
		require.Equal(t, mustKvtool(t, "", "buckets", store), mustKvtool(t, "", "buckets", copied))
	})
}

func TestLMDBTakesRootAndBuckets(t *testing.T) {
	eachTool(t, func(t *testing.T, f foreignTool) {
		store := filepath.Join(t.TempDir(), "s.folio")
		mustKvtool(t, "", "put", store, "zz", "v")
		mustKvtool(t, "", "put", "-b", "b", store, "k", "v")
		ours := mustKvtool(t, "", "dump", store)
		if f.dump != lmdb.dump {
			c := exec.Command(f.load, store+".db")
			c.Stdin = strings.NewReader(ours)
			require.Error(t, c.Run(), "the help says that it takes no named databases beside pairs")
			return
		}
		path := f.loads(t, ours)
		require.Contains(t, f.dumps(t, path, f.dumpArgs, true), " zz\n v\n")
		require.Contains(t, f.dumps(t, path, f.allArgs, true), "database=b\n")
	})
}

// mdb_load needs the map size for much data. It warns about the sequence, and goes on.
func TestLMDBMapSizeAndSequence(t *testing.T) {
	eachTool(t, func(t *testing.T, f foreignTool) {
		if f.dump != lmdb.dump {
			t.Skip("--lmdb is for mdb_load")
		}
		var in strings.Builder
		in.WriteString("VERSION=3\nformat=bytevalue\ntype=btree\nfolio_sequence=3\nHEADER=END\n")
		for i := range 40_000 {
			fmt.Fprintf(&in, " %08x\n %0128x\n", i, i)
		}
		in.WriteString("DATA=END\n")
		store := filepath.Join(t.TempDir(), "s.folio")
		mustKvtool(t, in.String(), "load", store)
		path := f.loads(t, mustKvtool(t, "", "dump", "--lmdb", "--sequence", store))
		require.Equal(t, mustKvtool(t, "", "dump", store), bare(f.dumps(t, path, f.dumpArgs, false)))
	})
}

// What the tools say of databases that a store can't hold must stop load.
func TestForeignRefused(t *testing.T) {
	eachTool(t, func(t *testing.T, f foreignTool) {
		headers := []string{"type=btree\nduplicates=1\ndupsort=1", "type=btree\nduplicates=1\ndupsort=1\ndupfixed=1", "type=btree\nreversekey=1", "type=btree\nintegerkey=1"}
		if f.dump != lmdb.dump {
			headers = []string{"type=btree\nduplicates=1", "type=hash\nduplicates=1\ndupsort=1", "type=recno", "type=recno\nrenumber=1", "type=queue\nre_len=4"}
		}
		for _, h := range headers {
			dir := t.TempDir()
			path := f.loads(t, "VERSION=3\nformat=print\n"+h+"\nHEADER=END\n 1111\n aa\n 2222\n bb\nDATA=END\n")
			dump := f.dumps(t, path, f.dumpArgs, false)
			_, errs, code := kvtool(dump, "load", filepath.Join(dir, "s.folio"))
			require.Equal(t, exitFailure, code, "%s\n%s", h, dump)
			require.Contains(t, errs, "kvtool: load: line ", h)
			left, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, left)
		}
	})
}

// The order of a hash database is not that of its keys.
func TestBerkeleyHash(t *testing.T) {
	eachTool(t, func(t *testing.T, f foreignTool) {
		if f.dump == lmdb.dump {
			t.Skip("LMDB has no hash databases")
		}
		in := hexDump(rand.New(rand.NewSource(3)), true)
		path := f.loads(t, strings.Replace(in, "type=btree", "type=hash\nh_ffactor=40\nh_nelem=100\nchksum=1", 1))
		a, b := filepath.Join(t.TempDir(), "a.folio"), filepath.Join(t.TempDir(), "b.folio")
		mustKvtool(t, f.dumps(t, path, nil, false), "load", a)
		mustKvtool(t, in, "load", b)
		require.Equal(t, mustKvtool(t, "", "dump", b), mustKvtool(t, "", "dump", a))
	})
}
