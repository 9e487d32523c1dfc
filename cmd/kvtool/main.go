// Kvtool looks inside a Folio store and changes single pairs, and carries stores to and
// from the text format of mdb_dump and db_dump. `kvtool help` tells more.
package main

// main.go hands the process's arguments and streams to the command.

import "os"

func main() {
	os.Exit(run(os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}))
}
