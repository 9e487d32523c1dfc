package main

// check_test.go tests `kvtool check`.

import "testing"

func TestCheck(t *testing.T) { runScripts(t, "check_") }
