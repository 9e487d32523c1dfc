package dumptext

// reader.go reads a dump as a stream, strictly: whatever it does not understand is an
// error with its line, never skipped.

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

const (
	maxHeaderLine = 16 << 20 // bytes; the path of a deep bucket is long
	endOfData     = "DATA=END"
)

// Limits are the largest lengths that a Reader accepts, in bytes.
type Limits struct {
	Key   int
	Value int
}

// SyntaxError says which line of a dump can't be read, and why.
type SyntaxError struct {
	Line int64
	Msg  string
}

// Error implements error.
func (e *SyntaxError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Msg) }

func syntax(line int64, format string, args ...any) error {
	return &SyntaxError{Line: line, Msg: fmt.Sprintf(format, args...)}
}

// Reader reads a dump: Next for each section, then Pair until io.EOF.
type Reader struct {
	br       *bufio.Reader
	limits   Limits
	line     int64 // that was begun last, from 1
	sections int64
	inData   bool // a header was read, its DATA=END was not
	format   decoder
	key      []byte
	value    []byte
	prev     []byte // the key before
	prevLine int64  // its line, 0: none
	keyLine  int64
	err      error
}

// NewReader returns a Reader of the dump in r.
func NewReader(r io.Reader, limits Limits) *Reader {
	return &Reader{br: bufio.NewReaderSize(r, 64<<10), limits: limits}
}

// KeyLine returns the line of the key that Pair returned last.
func (r *Reader) KeyLine() int64 { return r.keyLine }

// Next returns the header of the next section, io.EOF after the last. Pairs of the
// section before that were not read are read and dropped.
func (r *Reader) Next() (Header, error) {
	for r.inData && r.err == nil {
		r.Pair()
	}
	if r.err != nil {
		return Header{}, r.err
	}
	h, err := r.header()
	if err != nil {
		r.err = err
		return Header{}, err
	}
	r.sections++
	r.inData, r.prevLine = true, 0
	r.format = decoder{print: h.Print, lmdb: h.LMDB}
	return h, nil
}

func (r *Reader) header() (Header, error) {
	text, err := r.headerLine()
	switch {
	case err == io.EOF && r.sections > 0:
		return Header{}, io.EOF
	case err == io.EOF:
		return Header{}, syntax(1, "empty input: no dump")
	case err != nil:
		return Header{}, err
	case text != "VERSION=3":
		return Header{}, syntax(r.line, "%.40q: a dump begins with VERSION=3", text)
	}
	h := header{Header: Header{Line: r.line}, seen: map[string]bool{"VERSION": true}}
	for !h.seen["HEADER"] {
		text, err := r.headerLine()
		if err == io.EOF {
			return Header{}, syntax(r.line, "the input ends within a header")
		}
		if err != nil {
			return Header{}, err
		}
		if err := h.set(r.line, text); err != nil {
			return Header{}, err
		}
	}
	return h.Header, nil
}

// headerLine returns the next line; io.EOF where there is none.
func (r *Reader) headerLine() (string, error) {
	r.line++
	var text []byte
	for {
		part, err := r.br.ReadSlice('\n')
		text = append(text, part...)
		switch {
		case len(text) > maxHeaderLine:
			return "", syntax(r.line, "header line too long")
		case err == nil:
			return string(text[:len(text)-1]), nil
		case err == io.EOF && len(text) > 0:
			return "", syntax(r.line, "the input ends within a header")
		case !errors.Is(err, bufio.ErrBufferFull):
			return "", r.ioError(err)
		}
	}
}

// Pair returns the next pair of the section, io.EOF after the last. The slices are
// valid until the next call.
func (r *Reader) Pair() (key, value []byte, err error) {
	if r.err != nil {
		return nil, nil, r.err
	}
	if !r.inData {
		return nil, nil, io.EOF
	}
	err = r.pair()
	if err == io.EOF {
		r.inData = false
	} else if err != nil {
		r.err = err
	}
	if err != nil {
		return nil, nil, err
	}
	return r.key, r.value, nil
}

func (r *Reader) pair() (err error) {
	r.key, r.prev = r.prev, r.key
	if r.key, err = r.data(r.key[:0], r.limits.Key, "key"); err != nil {
		return err
	}
	r.keyLine = r.line
	if err := r.checkKey(); err != nil {
		return err
	}
	r.value, err = r.data(r.value[:0], r.limits.Value, "value")
	if err == io.EOF {
		return syntax(r.line, "%s where the value of the key on line %d should be", endOfData, r.keyLine)
	}
	r.prevLine = r.keyLine
	return err
}

// checkKey refuses what no store holds. A database that keeps several values under one
// key says so in its header; the same key twice in a row is how it shows without one.
func (r *Reader) checkKey() error {
	if len(r.key) == 0 {
		return syntax(r.line, "empty key")
	}
	if r.prevLine > 0 && bytes.Equal(r.key, r.prev) {
		return syntax(r.line, "the key of line %d once more: a store keeps one value of a key", r.prevLine)
	}
	return nil
}

// data reads the line of a key or value onto dst; io.EOF at the end of the section.
func (r *Reader) data(dst []byte, limit int, what string) ([]byte, error) {
	r.line++
	first, err := r.br.ReadByte()
	if err == io.EOF {
		return dst, syntax(r.line, "the input ends without %s: the dump is incomplete", endOfData)
	}
	if err != nil {
		return dst, r.ioError(err)
	}
	if first != ' ' {
		return dst, r.endOfData(first)
	}
	d := r.format
	for {
		part, err := r.br.ReadSlice('\n')
		whole := err == nil
		if whole {
			part = part[:len(part)-1]
		} else if err == io.EOF {
			return dst, syntax(r.line, "the input ends within a %s: the dump is incomplete", what)
		} else if !errors.Is(err, bufio.ErrBufferFull) {
			return dst, r.ioError(err)
		}
		if dst, err = d.feed(dst, part); err != nil {
			return dst, syntax(r.line, "%s: %v", what, err)
		}
		if len(dst) > limit {
			return dst, syntax(r.line, "%s longer than %d bytes", what, limit)
		}
		if whole {
			return dst, r.finish(&d, what)
		}
	}
}

func (r *Reader) finish(d *decoder, what string) error {
	if err := d.finish(); err != nil {
		return syntax(r.line, "%s: %v", what, err)
	}
	return nil
}

// endOfData reads the rest of a line that begins with first, and returns io.EOF if it
// is the end of the section.
func (r *Reader) endOfData(first byte) error {
	if first == '\n' {
		return syntax(r.line, "empty line: want a line that begins with a space, or %s", endOfData)
	}
	rest, err := r.br.ReadSlice('\n')
	if err != nil && err != io.EOF && !errors.Is(err, bufio.ErrBufferFull) {
		return r.ioError(err)
	}
	text := string(first) + string(bytes.TrimSuffix(rest, []byte("\n")))
	if text != endOfData {
		return syntax(r.line, "%.40q: want a line that begins with a space, or %s", text, endOfData)
	}
	return io.EOF
}

func (r *Reader) ioError(err error) error {
	if err == io.EOF {
		return err
	}
	return fmt.Errorf("line %d: read: %w", r.line, err)
}
