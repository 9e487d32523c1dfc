//go:build !folio_invariants

// This file turns the checks off.

package invariant

// Enabled reports whether this binary checks Folio's invariants. It is a
// constant, so that code behind it is left out of the binary where it is false.
const Enabled = false
