//go:build folio_seeded

package seeded

import "os"

var on = Fault(os.Getenv("FOLIO_SEEDED"))

// Has reports whether fault f is on.
func Has(f Fault) bool { return on == f }
