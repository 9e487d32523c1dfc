package main

// dump_test.go tests `kvtool dump`.

import "testing"

func TestDump(t *testing.T) { runScripts(t, "dump_") }
