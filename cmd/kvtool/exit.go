package main

// exit.go says how a command ends: which error gives which exit code, and what the user
// reads about it.

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/foliokv/folio"
	"github.com/spf13/cobra"
)

// The exit codes, as rootHelp explains them.
const (
	exitOK = iota
	exitNotFound
	exitUsage
	exitDamage
	exitFailure
)

var (
	errNotFound = errors.New("not found")
	errDamaged  = errors.New("the store is damaged: restore it from a backup")
)

// usageError is a mistake on the command line.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usageErrorf(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// notFound is an error about a key or bucket that is not there.
type notFound struct{ msg string }

func (e notFound) Error() string { return e.msg }
func (e notFound) Unwrap() error { return errNotFound }

func notFoundf(format string, args ...any) error {
	return notFound{fmt.Sprintf(format, args...)}
}

// damage are the errors of a store that can't be trusted.
var damage = []error{errDamaged, folio.ErrCorrupt, folio.ErrInvalid, folio.ErrPageFault}

// exitCode maps a command's error. Damage goes first: a key may be missing because of it.
func exitCode(err error) int {
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case isDamage(err):
		return exitDamage
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, errNotFound):
		return exitNotFound
	}
	return exitFailure
}

func isDamage(err error) bool {
	for _, d := range damage {
		if errors.Is(err, d) {
			return true
		}
	}
	return false
}

// report writes err to w, with the command that it ended and what can be done.
func report(w io.Writer, cmd *cobra.Command, err error) {
	prefix := "kvtool: "
	if cmd.HasParent() {
		prefix += cmd.Name() + ": "
	}
	// Joined errors stand on lines of their own; a message is one line.
	fmt.Fprintf(w, "%s%s\n", prefix, strings.ReplaceAll(err.Error(), "\n", "; "))
	if hint := advice(cmd, err); hint != "" {
		fmt.Fprintf(w, "%s%s\n", prefix, hint)
	}
}

func advice(cmd *cobra.Command, err error) string {
	var usage usageError
	switch {
	case errors.As(err, &usage):
		return fmt.Sprintf("run \"%s --help\" for how it is used", cmd.CommandPath())
	case errors.Is(err, folio.ErrTimeout):
		return "close the process that holds the store, or wait longer with --timeout"
	case errors.Is(err, folio.ErrInvalid):
		return "check that the path is that of a store"
	case errors.Is(err, folio.ErrVersionMismatch):
		return "use the kvtool of the version that wrote the store"
	}
	return ""
}

// flagAdvice adds to cobra's error how to pass an argument that looks like a flag.
func flagAdvice(err error) error {
	if strings.Contains(err.Error(), "unknown") {
		return fmt.Errorf("%w (put -- before arguments that begin with -)", err)
	}
	return err
}
