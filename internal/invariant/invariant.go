// Package invariant is where Folio's own rules are checked while it runs: a
// broken one is a bug in Folio, never damage in a file, so it panics.
//
// The checks exist only in binaries built with the tag folio_invariants.
package invariant

import "fmt"

// Check panics with "folio: broken invariant: " and the formatted message
// when ok is false. Without the build tag folio_invariants it does nothing,
// but its arguments are still evaluated: where they are dear, write
//
//	if invariant.Enabled {
//		invariant.Check(...)
//	}
//
// which compiles to nothing. Check is safe for concurrent use.
func Check(ok bool, format string, args ...any) {
	if Enabled && !ok {
		panic("folio: broken invariant: " + fmt.Sprintf(format, args...))
	}
}
