package main

// check.go is `kvtool check`: whether a store is sound, and what is wrong if not.

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/foliokv/folio"
	"github.com/spf13/cobra"
)

func newCheckCmd(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check STORE",
		Short: "Prove a store sound, or list its faults",
		Long: `Check reads every page of a store and compares it with all that the format promises.
It writes "ok" and what it looked at, or a line for each fault with the page and the
rule that it breaks, and then exits 3. It repairs nothing. With --json it writes an
object with the fields ok, pages, txid and faults.`,
		Example: `  kvtool check app.folio
  kvtool check --json app.folio | jq .faults`,
		Args: argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := &checker{path: args[0]}
			if asJSON {
				return c.json(a)
			}
			return c.text(a)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write a JSON object")
	return cmd
}

// checker is one check, and what it looked at.
type checker struct {
	path   string
	stats  folio.Stats
	faults int
}

// faultJSON is a fault for other programs. A fault that is of no one page has none.
type faultJSON struct {
	Page *uint64 `json:"page,omitempty"`
	Rule string  `json:"rule"`
}

// checkJSON is the result for other programs.
type checkJSON struct {
	OK     bool        `json:"ok"`
	Path   string      `json:"path"`
	Pages  uint64      `json:"pages"`
	Txid   uint64      `json:"txid"`
	Faults []faultJSON `json:"faults"`
}

// each calls fn for every fault. What keeps a store from being opened is one, too.
func (c *checker) each(a *app, fn func(faultJSON) error) error {
	err := a.open(c.path, true, func(db *folio.DB) error {
		c.stats = db.Stats()
		for err := range db.Check(context.Background()) {
			if err := c.fault(err, fn); err != nil {
				return err
			}
		}
		return nil
	})
	if isDamage(err) {
		return c.fault(err, fn)
	}
	return err
}

func (c *checker) fault(err error, fn func(faultJSON) error) error {
	c.faults++
	var f *folio.Fault
	if errors.As(err, &f) {
		return fn(faultJSON{Page: &f.Page, Rule: f.Rule})
	}
	return fn(faultJSON{Rule: err.Error()})
}

func (c *checker) text(a *app) error {
	err := c.each(a, func(f faultJSON) error { return f.write(a.out) })
	if err != nil {
		return err
	}
	if c.faults > 0 {
		return fmt.Errorf("%s: faults found: %d: %w", c.path, c.faults, errDamaged)
	}
	_, err = fmt.Fprintf(a.out, "ok: %d pages, %d of them free, commit %d\n",
		c.stats.Pages, c.stats.FreePages+c.stats.WaitingPages, c.stats.Newest)
	return err
}

func (f *faultJSON) write(w io.Writer) (err error) {
	if f.Page == nil {
		_, err = fmt.Fprintln(w, f.Rule)
	} else {
		_, err = fmt.Fprintf(w, "page %d: %s\n", *f.Page, f.Rule)
	}
	return err
}

func (c *checker) json(a *app) error {
	faults := []faultJSON{}
	err := c.each(a, func(f faultJSON) error {
		faults = append(faults, f)
		return nil
	})
	if err != nil {
		return err
	}
	err = writeJSON(a.out, checkJSON{
		OK: c.faults == 0, Path: c.path, Pages: c.stats.Pages, Txid: c.stats.Newest, Faults: faults,
	})
	if err == nil && c.faults > 0 {
		err = fmt.Errorf("%s: faults found: %d: %w", c.path, c.faults, errDamaged)
	}
	return err
}
