// Tests that a broken rule panics exactly where the checks are built in.

package invariant_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/foliokv/folio/internal/invariant"
)

func TestCheck(t *testing.T) {
	invariant.Check(true, "page %d", 7)
	broken := func() { invariant.Check(false, "page %d", 7) }
	if !invariant.Enabled {
		require.NotPanics(t, broken)
		return
	}
	require.PanicsWithValue(t, "folio: broken invariant: page 7", broken)
}

func TestCheckAllocatesNothingWhenOff(t *testing.T) {
	if invariant.Enabled {
		t.Skip("the checks are on")
	}
	pgno := uint64(1 << 40)
	allocs := testing.AllocsPerRun(100, func() { invariant.Check(pgno == 0, "page %d", pgno) })
	require.Zero(t, allocs)
}
