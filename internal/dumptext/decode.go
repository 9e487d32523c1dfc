package dumptext

// decode.go turns the text of one key or value back into its bytes, piece by piece,
// since a line can be longer than what one likes to hold twice.

import "errors"

var (
	errOddHex = errors.New("odd number of hex digits")
	errBadHex = errors.New("not a hex digit")
	errEscape = errors.New(`bad escape (want \\ or a backslash and two hex digits)`)
	// mdb_dump before 0.9.25 writes a backslash as it is. Such a dump can't be read
	// safely, and this is how most of them show.
	errRawBackslash = errors.New("the escape of a printable byte, which mdb_dump never writes: " +
		"this mdb_dump does not escape backslashes; dump without -p")
)

const noDigit = 0xff

// hexDigit gives the value of a hex digit, noDigit for other bytes.
var hexDigit = func() (t [256]byte) {
	for i := range t {
		t[i] = noDigit
	}
	for i := range byte(16) {
		t["0123456789abcdef"[i]] = i
		t["0123456789ABCDEF"[i]] = i
	}
	return t
}()

// decoder decodes one line.
type decoder struct {
	print bool
	lmdb  bool // refuse what mdb_dump does not write

	escaped bool // after a backslash
	half    bool // hi holds the first digit of a byte
	hi      byte
}

// feed appends what text stands for to dst.
func (d *decoder) feed(dst, text []byte) ([]byte, error) {
	for _, c := range text {
		if d.print && !d.escaped {
			if c == '\\' {
				d.escaped = true
			} else {
				dst = append(dst, c)
			}
			continue
		}
		if d.escaped && !d.half && c == '\\' {
			d.escaped = false
			dst = append(dst, c)
			continue
		}
		b, whole, err := d.digit(c)
		if err != nil {
			return dst, err
		}
		if whole {
			dst = append(dst, b)
		}
	}
	return dst, nil
}

// digit takes in one hex digit, and gives the byte when it is whole.
func (d *decoder) digit(c byte) (b byte, whole bool, err error) {
	v := hexDigit[c]
	switch {
	case v == noDigit && d.print:
		return 0, false, errEscape
	case v == noDigit:
		return 0, false, errBadHex
	case !d.half:
		d.half, d.hi = true, v
		return 0, false, nil
	}
	b = d.hi<<4 | v
	if d.print && d.lmdb && b >= ' ' && b < 0x7f && b != '\\' {
		return 0, false, errRawBackslash
	}
	d.half, d.escaped = false, false
	return b, true, nil
}

// finish says whether the line may end here.
func (d *decoder) finish() error {
	switch {
	case d.escaped:
		return errEscape
	case d.half:
		return errOddHex
	}
	return nil
}
