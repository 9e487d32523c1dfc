package main

// put_test.go tests `kvtool put`.

import "testing"

func TestPut(t *testing.T) { runScripts(t, "put_") }
