package main

// get_test.go tests `kvtool get`.

import "testing"

func TestGet(t *testing.T) { runScripts(t, "get_") }
