package main

// root.go puts the commands together and runs the one that was asked for.

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

// streams are what a command reads and writes: data on out, talk on err.
type streams struct {
	in  io.Reader
	out io.Writer
	err io.Writer
}

// app is what all commands share.
type app struct {
	streams
	timeout time.Duration
}

const rootHelp = `Kvtool looks inside a Folio store and changes single pairs in it, and carries
stores to and from the text format of mdb_dump (LMDB) and db_dump (Berkeley DB).

Commands that only read open the store read-only: they create and change no file.
Data goes to standard output, messages go to standard error.

Exit codes:
  0  done
  1  the key or bucket is not there
  2  wrong usage: arguments, flags, hex digits, or a file that does not exist
  3  the store is damaged, or the file is no store
  4  anything else: a lock not had in time, no permission, disk full, a bad dump`

// run runs one command line and returns its exit code.
func run(args []string, s streams) int {
	root := newRootCmd(&app{streams: s})
	root.SetArgs(args)
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	cmd, err := root.ExecuteC()
	if err != nil {
		report(s.err, cmd, err)
	}
	return exitCode(err)
}

func newRootCmd(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "kvtool",
		Short: "Look inside a Folio store",
		Long:  rootHelp,
		Args:  knownCommand,
		RunE: func(*cobra.Command, []string) error {
			return usageErrorf("no command given")
		},
		SilenceErrors:              true, // report writes them
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
		CompletionOptions:          cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.PersistentFlags().DurationVar(&a.timeout, "timeout", 3*time.Second,
		"how long to wait for the store's lock; 0: not at all")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{flagAdvice(err)} })
	root.AddCommand(newGetCmd(a), newPutCmd(a), newDelCmd(a), newDumpCmd(a), newLoadCmd(a),
		newStatCmd(a), newCheckCmd(a), newBucketsCmd(a))
	root.SetHelpCommand(newHelpCmd(root))
	return root
}

// knownCommand gets the arguments of a command line that names no command of ours.
func knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	msg := fmt.Sprintf("unknown command %q", args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		msg += fmt.Sprintf(" (do you mean %s?)", near[0])
	}
	return usageErrorf("%s", msg)
}

// newHelpCmd makes `kvtool help`, which unlike cobra's own fails for an unknown command.
func newHelpCmd(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Explain a command",
		Args:  argCount(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return knownCommand(root, args)
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}

// argCount checks the number of arguments.
func argCount(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usageErrorf("too few arguments: want %s", cmd.Use)
		case len(args) > most:
			return usageErrorf("too many arguments, from %q: want %s", args[most], cmd.Use)
		}
		return nil
	}
}
