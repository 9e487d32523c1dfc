// Package dumptext reads and writes the text format in which mdb_dump of LMDB and
// db_dump of Berkeley DB write a database, and mdb_load and db_load read it.
//
// A dump is one section after another, one for each database:
//
//	VERSION=3
//	format=bytevalue
//	database=NAME
//	type=btree
//	HEADER=END
//	 6b6579
//	 76616c7565
//	DATA=END
//
// Keys and values stand on lines of their own that begin with a space: as hex digits, or
// with format=print as they are, but for `\\` and `\hh`. The main database has no
// database= line. A section without DATA=END is incomplete.
//
// header.go knows the header: what its keywords mean, and how a name is escaped in it.
package dumptext

import (
	"fmt"
	"strconv"
	"strings"
)

// sequenceKeyword is Folio's own: mdb_load warns and goes on, db_load refuses it.
const sequenceKeyword = "folio_sequence"

// Header is what a section's header says.
type Header struct {
	Named    bool   // it has a database= line
	Database string // what follows database=, as it stands there: see Name and EscapeName
	Print    bool   // format=print
	MapSize  uint64 // mapsize=; 0: none
	Sequence uint64 // folio_sequence=; 0: none
	LMDB     bool   // written by mdb_dump; the Writer ignores it
	Line     int64  // the line of database=, or the first; the Writer ignores it
}

// EscapeName returns name as it stands in a database= line: a form that both tools
// keep unchanged, although db_load unescapes it and mdb_load does not.
func EscapeName(name string) string {
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case c == '\\':
			b.WriteString(`\\`)
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&b, `\%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// Name returns the name that the database= line gives.
//
// LMDB does not escape names, so one with a backslash is ambiguous: it is taken only
// where it is what EscapeName writes, since a wrong name would be worse than an error.
func (h *Header) Name() (string, error) {
	d := decoder{print: true}
	name, err := d.feed(nil, []byte(h.Database))
	if err == nil {
		err = d.finish()
	}
	if err != nil {
		return "", syntax(h.Line, "database=%s: %v", h.Database, err)
	}
	if h.LMDB && EscapeName(string(name)) != h.Database {
		return "", syntax(h.Line, "database=%s: mdb_dump does not escape names, so this one is ambiguous", h.Database)
	}
	return string(name), nil
}

// harmless keywords tell how the database was stored, not what is in it.
var harmless = map[string]bool{
	"maxreaders": true, "mapaddr": true, // LMDB
	"db_pagesize": true, "db_lorder": true, "bt_minkey": true, "h_ffactor": true, "h_nelem": true,
	"chksum": true, "compressed": true, "recnum": true, // Berkeley DB
}

// foreign keywords are flags: 1 says that the database orders keys in another way, or
// keeps several values under one.
var foreign = map[string]bool{
	"duplicates": true, "dupsort": true, "dupfixed": true, "reversekey": true, "integerkey": true,
	"integerdup": true, "reversedup": true, "renumber": true,
}

// header is a header while it is read.
type header struct {
	Header
	seen map[string]bool
}

// set takes in one line of the header.
func (h *header) set(line int64, text string) error {
	keyword, value, ok := strings.Cut(text, "=")
	if !ok {
		return syntax(line, "%.40q is no header line (a header ends with HEADER=END)", text)
	}
	if h.seen[keyword] {
		return syntax(line, "%s= appears twice in one header", keyword)
	}
	h.seen[keyword] = true
	return h.keyword(line, keyword, value)
}

func (h *header) keyword(line int64, keyword, value string) error {
	switch keyword {
	case "HEADER":
		return h.end(line, value)
	case "format":
		h.Print = value == "print"
		return oneOf(line, keyword, value, "bytevalue", "print")
	case "type":
		return oneOf(line, keyword, value, "btree", "hash")
	case "keys":
		return oneOf(line, keyword, value, "1")
	case "database", "subdatabase":
		return h.setName(line, value)
	case "mapsize":
		h.LMDB = true
		return number(line, keyword, value, &h.MapSize)
	case sequenceKeyword:
		return number(line, keyword, value, &h.Sequence)
	}
	return h.option(line, keyword, value)
}

func (h *header) setName(line int64, value string) error {
	if h.Named {
		return syntax(line, "a second name for the database")
	}
	if value == "" {
		return syntax(line, "empty database name")
	}
	h.Named, h.Database, h.Line = true, value, line
	return nil
}

func (h *header) option(line int64, keyword, value string) error {
	switch {
	case foreign[keyword] && value != "0":
		return syntax(line, "%s=%s: an order of keys, or several values of one key, that a store cannot keep", keyword, value)
	case !foreign[keyword] && !harmless[keyword]:
		return syntax(line, "unknown header keyword %.40q", keyword)
	}
	h.LMDB = h.LMDB || keyword == "maxreaders"
	return nil
}

func (h *header) end(line int64, value string) error {
	if value != "END" {
		return syntax(line, "HEADER=%.40s: want HEADER=END", value)
	}
	if !h.seen["format"] {
		return syntax(line, "the header has no format= line")
	}
	return nil
}

func oneOf(line int64, keyword, value string, allowed ...string) error {
	for _, a := range allowed {
		if value == a {
			return nil
		}
	}
	return syntax(line, "%s=%.40s is not supported (want %s)", keyword, value, strings.Join(allowed, " or "))
}

func number(line int64, keyword, value string, n *uint64) (err error) {
	if *n, err = strconv.ParseUint(value, 10, 64); err != nil {
		return syntax(line, "%s=%.40s: want a number", keyword, value)
	}
	return nil
}
