package main

// load_test.go tests `kvtool load`.

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

func TestLoad(t *testing.T) { runScripts(t, "load_") }

// A value larger than any buffer goes through whole, in both formats.
func TestLoadLargeValue(t *testing.T) {
	dir := t.TempDir()
	store, copied := filepath.Join(dir, "s.folio"), filepath.Join(dir, "copy.folio")
	value := strings.Repeat("0123456789\x00\\\xff", 1<<19)
	mustKvtool(t, value, "put", store, "big")
	for _, flags := range [][]string{nil, {"-p"}} {
		dump := mustKvtool(t, "", append([]string{"dump", store}, flags...)...)
		mustKvtool(t, dump, "load", copied)
		require.True(t, value == mustKvtool(t, "", "get", copied, "big"))
		require.NoError(t, os.Remove(copied))
	}
}

func TestLoadInputFails(t *testing.T) {
	dir := t.TempDir()
	store := filepath.Join(dir, "s.folio")
	in := io.MultiReader(strings.NewReader("VERSION=3\nformat=print\nHEADER=END\n k\n v\n"), iotest.ErrReader(errors.New("pipe broke")))
	var errs strings.Builder
	require.Equal(t, exitFailure, run([]string{"load", store}, streams{in: in, out: io.Discard, err: &errs}))
	require.Contains(t, errs.String(), "line 6: read: pipe broke")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}
