package dumptext

// writer.go writes a dump as a stream, in the form that both mdb_load and db_load read:
// lower-case hex, and no header line that either of them refuses unless it is asked for.

import (
	"bufio"
	"encoding/hex"
	"io"
	"strconv"
)

// Writer writes a dump: for each section Begin, Pair for each pair, End. After an error
// it does nothing more and returns it again.
type Writer struct {
	bw     *bufio.Writer
	print  bool
	digits [1024]byte
}

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer {
	return &Writer{bw: bufio.NewWriterSize(w, 64<<10)}
}

// Begin writes the header of a section.
func (w *Writer) Begin(h Header) error {
	w.print = h.Print
	format := "bytevalue"
	if h.Print {
		format = "print"
	}
	w.line("VERSION=", "3")
	w.line("format=", format)
	if h.Named {
		w.line("database=", h.Database)
	}
	w.line("type=", "btree")
	if h.MapSize > 0 {
		w.line("mapsize=", strconv.FormatUint(h.MapSize, 10))
	}
	if h.Sequence > 0 {
		w.line(sequenceKeyword+"=", strconv.FormatUint(h.Sequence, 10))
	}
	return w.line("HEADER=", "END")
}

// Pair writes one pair.
func (w *Writer) Pair(key, value []byte) error {
	w.data(key)
	return w.data(value)
}

// End ends the section, and hands on what is still buffered.
func (w *Writer) End() error {
	w.line(endOfData, "")
	return w.bw.Flush()
}

// line writes a line. Its error is the first of the Writer: bufio keeps that.
func (w *Writer) line(keyword, value string) error {
	w.bw.WriteString(keyword)
	w.bw.WriteString(value)
	return w.bw.WriteByte('\n')
}

func (w *Writer) data(b []byte) error {
	w.bw.WriteByte(' ')
	if w.print {
		w.writePrint(b)
	} else {
		w.writeHex(b)
	}
	return w.bw.WriteByte('\n')
}

func (w *Writer) writeHex(b []byte) {
	for len(b) > 0 {
		n := min(len(b), len(w.digits)/2)
		hex.Encode(w.digits[:], b[:n])
		if _, err := w.bw.Write(w.digits[:2*n]); err != nil {
			return // a long value would take long to go nowhere
		}
		b = b[n:]
	}
}

// writePrint escapes what is not printable, and backslashes. db_dump writes a backslash
// as two. mdb_load before 0.9.25 silently misreads these after another escape in the same
// line; a backslash as hex digits all tools read right, so from there on it is written so.
func (w *Writer) writePrint(b []byte) {
	const digits = "0123456789abcdef"
	escaped := false
	for _, c := range b {
		var err error
		switch {
		case c >= ' ' && c < 0x7f && c != '\\':
			err = w.bw.WriteByte(c)
		case c == '\\' && !escaped:
			_, err = w.bw.WriteString(`\\`)
			escaped = true
		default:
			_, err = w.bw.Write([]byte{'\\', digits[c>>4], digits[c&15]})
			escaped = true
		}
		if err != nil {
			return
		}
	}
}
