package main

// arguments.go reads the keys and values of a command line, and writes them out again.

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	"github.com/foliokv/folio"
)

// keyArg returns the key that arg stands for.
func keyArg(arg string, isHex bool) ([]byte, error) {
	key, err := bytesArg("key", arg, isHex)
	switch {
	case err != nil:
		return nil, err
	case len(key) == 0:
		return nil, usageErrorf("the key is empty: a key has at least one byte")
	case len(key) > folio.MaxKeySize:
		return nil, usageErrorf("the key has %d bytes: the most is %d", len(key), folio.MaxKeySize)
	}
	return key, nil
}

func bytesArg(what, arg string, isHex bool) ([]byte, error) {
	if !isHex {
		return []byte(arg), nil
	}
	b, err := hex.DecodeString(arg)
	if err != nil {
		return nil, usageErrorf("%s %q: want hex digits, two a byte: %w", what, arg, err)
	}
	return b, nil
}

// showKey returns key for a message, as the command line has it.
func showKey(key []byte, isHex bool) string {
	if isHex {
		return hex.EncodeToString(key)
	}
	return fmt.Sprintf("%q", key)
}

// input returns standard input for a command that was given no other source, unless
// somebody would have to type it who was not told so.
func (a *app) input(asked bool, instead string) (io.Reader, error) {
	if !asked && isTerminal(a.in) {
		return nil, usageErrorf("standard input is a terminal: give %s, or - to type it", instead)
	}
	return a.in, nil
}

// isTerminal reports whether r is a character device that somebody may type at.
func isTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	if err != nil || st.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(st, null)
}

// text is s for JSON: nil where its bytes are not UTF-8, so that nothing is lost unseen.
func text(b []byte) *string {
	if !utf8.Valid(b) {
		return nil
	}
	s := string(b)
	return &s
}

// writeJSON writes v as one indented document.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
