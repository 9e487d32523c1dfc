package powercut

// main_linux_test.go is what the tests share: a machine, a seed, and the processes that
// this test binary can be instead of a test.

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	ServeIfAsked()
	countIfAsked()
	os.Exit(m.Run())
}

// start starts a machine for the length of the test, or skips it.
func start(t *testing.T, opts Options) *Machine {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "disk")
	require.NoError(t, os.Mkdir(dir, 0o700))
	m, err := Start(dir, opts)
	if errors.Is(err, ErrRefused) {
		t.Skipf("needs FUSE and the right to mount (as root, or with `unshare -Urm go test`): %v", err)
	}
	require.NoError(t, err)
	t.Cleanup(m.Close)
	return m
}

// seedOf returns the seed of a test: FOLIO_SEED, or the time.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("FOLIO_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		require.NoError(t, err, "FOLIO_SEED")
	}
	return seed
}
