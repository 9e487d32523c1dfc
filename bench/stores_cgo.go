//go:build cgo

package main

// stores_cgo.go lists the stores that are written in C.

var cgoEngines = []*engine{lmdbEngine, mdbxEngine, sqliteEngine}

// withoutCgo is what a message about an unknown store adds.
const withoutCgo = ""
