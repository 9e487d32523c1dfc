package dumptext

// reader_test.go holds the Reader against a table of what it takes and what it refuses.

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

var testLimits = Limits{Key: 100, Value: 1 << 20}

const (
	hexHead   = "VERSION=3\nformat=bytevalue\ntype=btree\nHEADER=END\n"
	printHead = "VERSION=3\nformat=print\ntype=btree\nHEADER=END\n"
)

type section struct {
	Header
	pairs [][2]string
}

func readAll(in io.Reader) (all []section, err error) {
	r := NewReader(in, testLimits)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		s := section{Header: h}
		for {
			k, v, err := r.Pair()
			if err == io.EOF {
				break
			}
			if err != nil {
				return all, err
			}
			s.pairs = append(s.pairs, [2]string{string(k), string(v)})
		}
		all = append(all, s)
	}
}

func TestReaderTakes(t *testing.T) {
	for in, want := range map[string][][2]string{
		hexHead + "DATA=END\n":                                            nil,
		hexHead + "DATA=END":                                              nil,
		hexHead + " 61\n \nDATA=END\n":                                    {{"a", ""}},
		hexHead + " 00fFAa\n 6\x310A\nDATA=END\n":                         {{"\x00\xff\xaa", "a\n"}},
		hexHead + " 62\n 31\n 61\n 32\nDATA=END\n":                        {{"b", "1"}, {"a", "2"}},
		printHead + " a b \n \\\\n\\0a\\FF\nDATA=END\n":                   {{"a b ", "\\n\n\xff"}},
		printHead + " é\t\n \\5c\\61\nDATA=END\n":                         {{"é\t", "\\a"}},
		hexHead + " 61\n " + strings.Repeat("41", 1<<20) + "\nDATA=END\n": {{"a", strings.Repeat("A", 1<<20)}},
	} {
		got, err := readAll(strings.NewReader(in))
		require.NoError(t, err, "%.200q", in)
		require.Len(t, got, 1)
		require.Equal(t, want, got[0].pairs, "%.200q", in)
		again, err := readAll(iotest.OneByteReader(strings.NewReader(in)))
		require.NoError(t, err)
		require.Equal(t, got, again)
	}
}

func TestReaderHeader(t *testing.T) {
	got, err := readAll(strings.NewReader("VERSION=3\nformat=print\ndatabase=a\\\\/b/c\ntype=hash\n" +
		"mapsize=1048576\nmaxreaders=126\ndb_pagesize=4096\nh_ffactor=40\nh_nelem=7\nkeys=1\nchksum=1\nduplicates=0\n" +
		"db_lorder=4321\nfolio_sequence=77\nHEADER=END\n a\n 1\nDATA=END\n" +
		"VERSION=3\nsubdatabase=\\c3\\a9\nformat=bytevalue\nHEADER=END\nDATA=END\n"))
	require.NoError(t, err)
	require.Len(t, got, 2)
	h := got[0].Header
	require.Equal(t, Header{
		Named: true, Database: `a\\/b/c`, Print: true, MapSize: 1 << 20, Sequence: 77, LMDB: true, Line: 3,
	}, h)
	name, err := h.Name()
	require.NoError(t, err)
	require.Equal(t, `a\/b/c`, name)
	name, err = got[1].Name()
	require.NoError(t, err)
	require.Equal(t, "é", name)
	require.False(t, got[1].LMDB)
}

func TestReaderRefuses(t *testing.T) {
	type bad struct{ in, msg string }
	head := func(line string) string { return "VERSION=3\nformat=bytevalue\n" + line + "\nHEADER=END\nDATA=END\n" }
	for _, b := range []bad{
		{"", "line 1: empty input"},
		{"hello\n", "line 1: \"hello\": a dump begins with VERSION=3"},
		{"VERSION=4\n", "line 1:"},
		{"VERSION=3\n", "line 2: the input ends within a header"},
		{"VERSION=3\nformat=bytevalue", "line 2: the input ends within a header"},
		{"VERSION=3\nHEADER=END\nDATA=END\n", "line 2: the header has no format="},
		{head("format=print"), "line 3: format= appears twice"},
		{head("VERSION=3"), "line 3: VERSION= appears twice"},
		{head("comment"), "line 3: \"comment\" is no header line"},
		{head("sparkle=1"), "line 3: unknown header keyword \"sparkle\""},
		{head("type=recno"), "line 3: type=recno is not supported"},
		{head("type=queue"), "line 3: type=queue"},
		{head("type=heap"), "line 3: type=heap"},
		{head("keys=0"), "line 3: keys=0"},
		{head("duplicates=1"), "line 3: duplicates=1: an order"},
		{head("dupsort=1"), "line 3: dupsort=1"},
		{head("dupfixed=1"), "line 3: dupfixed=1"},
		{head("integerkey=1"), "line 3: integerkey=1"},
		{head("reversekey=1"), "line 3: reversekey=1"},
		{head("renumber=1"), "line 3: renumber=1"},
		{head("mapsize=x"), "line 3: mapsize=x"},
		{head("folio_sequence=-1"), "line 3: folio_sequence=-1"},
		{head("database="), "line 3: empty database name"},
		{head("database=a\nsubdatabase=b"), "line 4: a second name"},
		{"VERSION=3\nformat=hex\nHEADER=END\nDATA=END\n", "line 2: format=hex is not supported"},
		{"VERSION=3\nformat=print\nHEADER=NO\nDATA=END\n", "line 3: HEADER=NO"},
		{hexHead + " 61\n 3\nDATA=END\n", "line 6: value: odd number of hex digits"},
		{hexHead + " 616\n 31\nDATA=END\n", "line 5: key: odd number of hex digits"},
		{hexHead + " 6g\n 31\nDATA=END\n", "line 5: key: not a hex digit"},
		{hexHead + " 61 \n 31\nDATA=END\n", "line 5: key: not a hex digit"},
		{hexHead + " 61\r\n 31\r\nDATA=END\n", "line 5: key: not a hex digit"},
		{hexHead + " \n 31\nDATA=END\n", "line 5: empty key"},
		{hexHead + " 61\nDATA=END\n", "line 6: DATA=END where the value of the key on line 5"},
		{hexHead + " 61\n 31\n", "line 7: the input ends without DATA=END"},
		{hexHead + " 61\n 31", "line 6: the input ends within a value"},
		{hexHead + " 61", "line 5: the input ends within a key"},
		{hexHead + " 61\n 31\nDATA=EN", "line 7: \"DATA=EN\""},
		{hexHead + " 61\n 31\nDATA=END \n", "line 7: \"DATA=END \""},
		{hexHead + " 61\n 31\n\nDATA=END\n", "line 7: empty line"},
		{hexHead + "61\n 31\nDATA=END\n", "line 5: \"61\""},
		{hexHead + " 61\n 31\n 61\n 32\nDATA=END\n", "line 7: the key of line 5 once more"},
		{hexHead + " 61\n 31\nDATA=END\n\n", "line 8: \"\": a dump begins with"},
		{hexHead + " 61\n 31\nDATA=END\nDATA=END\n", "line 8:"},
		{hexHead + " " + strings.Repeat("61", 101) + "\n 31\nDATA=END\n", "line 5: key longer than 100 bytes"},
		{printHead + " a\\\n 31\nDATA=END\n", "line 5: key: bad escape"},
		{printHead + " a\\6\n 31\nDATA=END\n", "line 5: key: bad escape"},
		{printHead + " a\\zz\n 31\nDATA=END\n", "line 5: key: bad escape"},
		{printHead + " a\\6\\\n 31\nDATA=END\n", "line 5: key: bad escape"},
		{"VERSION=3\nformat=print\nmapsize=4096\nHEADER=END\n \\61\n 31\nDATA=END\n", "line 5: key: the escape of a printable byte"},
	} {
		_, err := readAll(strings.NewReader(b.in))
		var s *SyntaxError
		require.ErrorAs(t, err, &s, "%.200q", b.in)
		require.Contains(t, err.Error(), b.msg, "%.200q", b.in)
	}
}

func TestReaderName(t *testing.T) {
	for _, h := range []Header{
		{Database: `a\b`}, {Database: `a\`}, {Database: `\zz`},
		{Database: `a\61`, LMDB: true}, {Database: `a\bbc`, LMDB: true}, {Database: `\c3\a9`, LMDB: true},
	} {
		_, err := h.Name()
		require.Error(t, err, h.Database)
	}
	for _, name := range []string{"a", `\`, `\\61`, "é\xff", "\n\t\x00\x7f"} {
		h := Header{Database: EscapeName(name), LMDB: true}
		back, err := h.Name()
		require.NoError(t, err)
		require.Equal(t, name, back)
	}
}

func TestReaderInputFails(t *testing.T) {
	broken := errors.New("the disk is gone")
	for _, in := range []string{"", "VERS", "VERSION=3\n", hexHead, hexHead + " 6", hexHead + " 61\n", hexHead + "DATA=END\n"} {
		_, err := readAll(io.MultiReader(strings.NewReader(in), iotest.ErrReader(broken)))
		require.ErrorIs(t, err, broken, in)
	}
}

func TestNextDropsTheRest(t *testing.T) {
	r := NewReader(strings.NewReader(hexHead+" 61\n 31\n 62\n 32\nDATA=END\n"+printHead+" c\n 3\nDATA=END\n"), testLimits)
	_, err := r.Next()
	require.NoError(t, err)
	h, err := r.Next()
	require.NoError(t, err)
	require.True(t, h.Print)
	k, v, err := r.Pair()
	require.NoError(t, err)
	require.Equal(t, "c3", string(k)+string(v))
	_, err = r.Next()
	require.ErrorIs(t, err, io.EOF)
	_, err = NewReader(bytes.NewReader([]byte(hexHead+" 6x\nDATA=END\n")), testLimits).Next()
	require.NoError(t, err)
}
