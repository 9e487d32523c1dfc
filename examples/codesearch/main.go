// Command codesearch keeps a search index of source code in a Folio store: by default
// of the Go standard library's own. It is an example of how to use Folio.
//
//	codesearch index STORE [DIR]       index all files below DIR
//	codesearch word STORE WORD         lines that hold WORD
//	codesearch prefix STORE PREFIX     words that begin with PREFIX, and in how many files they are
//	codesearch file STORE FILE         content of FILE, or the files of a directory (end it with a slash)
package main

// main.go is the command line.

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/foliokv/folio"
)

const usage = `usage:
  codesearch index STORE [DIR]             index all files below DIR (default: the Go standard library)
  codesearch word [-n N] STORE WORD        lines that hold WORD
  codesearch prefix [-n N] STORE PREFIX    words that begin with PREFIX, and in how many files they are
  codesearch file [-n N] STORE FILE        content of FILE, or the files of a directory (end it with a slash)

-n N prints at most N results of each kind (default 10).
`

var errUsage = errors.New("wrong arguments")

func main() {
	err := run(os.Args[1:], os.Stdout)
	if errors.Is(err, errUsage) {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "codesearch:", err)
		os.Exit(1)
	}
}

// run does what args ask for and writes the answer to out.
func run(args []string, out io.Writer) error {
	if len(args) == 0 {
		return errUsage
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.SetOutput(io.Discard) // main prints the usage
	limit := flags.Int("n", 10, "")
	if err := flags.Parse(args[1:]); err != nil {
		return errUsage
	}
	w := bufio.NewWriter(out)
	if err := dispatch(w, args[0], flags.Args(), *limit); err != nil {
		return err
	}
	return w.Flush()
}

// dispatch runs one command.
func dispatch(w io.Writer, command string, args []string, limit int) error {
	if command == "index" && len(args) == 1 {
		dir, err := standardLibrary()
		if err != nil {
			return err
		}
		args = append(args, dir)
	}
	if len(args) != 2 {
		return errUsage
	}
	store, what := args[0], args[1]
	switch command {
	case "index":
		return buildIndex(w, store, what)
	case "word":
		return query(store, func(tx *folio.Tx) error { return printWord(w, tx, what, limit) })
	case "prefix":
		return query(store, func(tx *folio.Tx) error { return printPrefix(w, tx, what, limit) })
	case "file":
		if strings.HasSuffix(what, "/") {
			return query(store, func(tx *folio.Tx) error { return printDirectory(w, tx, what, limit) })
		}
		return query(store, func(tx *folio.Tx) error { return printFile(w, tx, what) })
	}
	return errUsage
}

// standardLibrary returns the directory of the Go standard library's source.
func standardLibrary() (string, error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find the Go standard library with \"go env GOROOT\": %w; or name a directory", err)
	}
	return filepath.Join(strings.TrimSpace(string(root)), "src"), nil
}
