package folio

// recovery_test.go tests what a recovery keeps in mind beyond the commit that it picks.

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The number in a torn meta page is not used again: a crash that tears the meta written
// over it, or its wiping, can make it whole, and then two commits would have it.
func TestNumberOfTornMetaIsNotUsedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	db := testStore(t, path, nil)
	fill(t, db, 0, 100, 100)
	require.NoError(t, db.Close())
	torn, slot := db.newest.txid, int64(0)
	for i, txid := range db.slots {
		if txid == torn {
			slot = int64(i)
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("of an older meta"), (slot+1)*minPageSize-512)
	require.NoError(t, err)
	require.NoError(t, f.Close())

	db = testStore(t, path, nil)
	require.Greater(t, db.newest.txid, torn)
	mustBeSound(t, db)
}
