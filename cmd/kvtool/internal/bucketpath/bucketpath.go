// Package bucketpath writes the place of a nested bucket as one line of text.
//
// A path is the names from the root down, joined by slashes; the root itself is "/".
// In a name `\/` stands for a slash, `\\` for a backslash and `\xHH` for any byte.
// Format escapes whatever is not printable UTF-8, so that its result is one line, and
// Parse gives back exactly the names that Format was given.
package bucketpath

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Root is the path of the root bucket.
const Root = "/"

// Parse returns the names in path, none for the root.
func Parse(path string) ([][]byte, error) {
	if path == Root {
		return nil, nil
	}
	if path == "" {
		return nil, errors.New(`empty bucket path (the root is "/")`)
	}
	var names [][]byte
	name := []byte{}
	for i := 0; i < len(path); {
		c, size, err := next(path[i:])
		if err != nil {
			return nil, fmt.Errorf("bucket path %q: %w", path, err)
		}
		i += size
		if c == '/' && size == 1 {
			if len(name) == 0 {
				return nil, noName(path)
			}
			names, name = append(names, name), []byte{}
			continue
		}
		name = append(name, c)
	}
	if len(name) == 0 {
		return nil, noName(path)
	}
	return append(names, name), nil
}

func noName(path string) error {
	return fmt.Errorf(`bucket path %q: empty name (write a slash in a name as \/)`, path)
}

// next returns the first byte that s, which is not empty, stands for, and how much of s does so.
func next(s string) (byte, int, error) {
	switch {
	case s[0] != '\\':
		return s[0], 1, nil
	case len(s) >= 2 && (s[1] == '/' || s[1] == '\\'):
		return s[1], 2, nil
	case len(s) >= 4 && s[1] == 'x':
		if v, err := strconv.ParseUint(s[2:4], 16, 8); err == nil {
			return byte(v), 4, nil
		}
	}
	return 0, 0, errors.New(`bad escape (a backslash begins \/, \\ or \xHH)`)
}

// Format returns the path of the bucket that names lead to.
func Format(names [][]byte) string {
	if len(names) == 0 {
		return Root
	}
	var b strings.Builder
	for i, name := range names {
		if i > 0 {
			b.WriteByte('/')
		}
		writeName(&b, name)
	}
	return b.String()
}

func writeName(b *strings.Builder, name []byte) {
	for len(name) > 0 {
		r, size := utf8.DecodeRune(name)
		switch {
		case r == '/' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == utf8.RuneError && size == 1, !unicode.IsPrint(r):
			for _, c := range name[:size] {
				fmt.Fprintf(b, `\x%02x`, c)
			}
		default:
			b.Write(name[:size])
		}
		name = name[size:]
	}
}
