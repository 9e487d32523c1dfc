//go:build !folio_seeded

package seeded

// Has reports whether fault f is on: without the build tag, never.
func Has(Fault) bool { return false }
