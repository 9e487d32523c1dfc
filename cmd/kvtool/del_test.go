package main

// del_test.go tests `kvtool del`.

import "testing"

func TestDel(t *testing.T) { runScripts(t, "del_") }
