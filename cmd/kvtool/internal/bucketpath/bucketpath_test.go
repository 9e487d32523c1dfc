package bucketpath

// bucketpath_test.go holds Parse and Format against each other and against a table.

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	for path, want := range map[string][]string{
		"/":                nil,
		"a":                {"a"},
		"a/b/c":            {"a", "b", "c"},
		`a\/b/c`:           {"a/b", "c"},
		`\/`:               {"/"},
		`a\\/b`:            {`a\`, "b"},
		`\x00\xFF\xfe`:     {"\x00\xff\xfe"},
		`\x2f\x5c`:         {`/\`},
		"käse/brot und so": {"käse", "brot und so"},
	} {
		names, err := Parse(path)
		require.NoError(t, err, path)
		require.Len(t, names, len(want), path)
		for i := range want {
			require.Equal(t, want[i], string(names[i]), path)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, path := range []string{"", "/a", "a/", "a//b", `a\`, `a\b`, `\x`, `\x0`, `\x0g`, `\x+1`, "//"} {
		_, err := Parse(path)
		require.Error(t, err, path)
	}
}

func TestFormat(t *testing.T) {
	for want, names := range map[string][][]byte{
		"/":                 {},
		`a\/b/c`:            {[]byte("a/b"), []byte("c")},
		`\\x41`:             {[]byte(`\x41`)},
		`\x0a\x00\xff ~`:    {[]byte("\n\x00\xff ~")},
		`é\xc2\xa0\xef\xbf`: {[]byte("é\u00a0\xef\xbf")},
		"\ufffd":            {[]byte("\ufffd")},
	} {
		require.Equal(t, want, Format(names))
	}
}

func FuzzPath(f *testing.F) {
	f.Add("a", "b/")
	f.Add("\\", "\xff\x00")
	f.Fuzz(func(t *testing.T, a, b string) {
		if a == "" || b == "" {
			return
		}
		names := [][]byte{[]byte(a), []byte(b)}
		path := Format(names)
		require.NotContains(t, path, "\n")
		back, err := Parse(path)
		require.NoError(t, err)
		require.Equal(t, names, back)
		if parsed, err := Parse(a); err == nil {
			back, err := Parse(Format(parsed))
			require.NoError(t, err)
			require.Equal(t, parsed, back)
		}
	})
}
