#!/usr/bin/env bash
# Shows Folio at work: builds kvtool and the example, indexes the source of the Go
# standard library into a store, asks it three questions, and looks at it with kvtool.
#
#   ./run.sh          in a temporary directory, removed at the end
#   ./run.sh DIR      the store is DIR/codesearch.folio, made anew, and stays
#
# It needs Go and nothing else.
set -euo pipefail

if [[ $# -gt 1 || ${1:-} == -* ]]; then
	echo "usage: run.sh [DIR]    DIR: where to put the store and leave it" >&2
	exit 2
fi

tmp=$(mktemp -d "${TMPDIR:-/tmp}/folio-run.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
dir=$tmp
if [[ $# -eq 1 ]]; then
	mkdir -p "$1"
	dir=$(cd "$1" && pwd)
fi
cd "$(dirname "${BASH_SOURCE[0]}")"
store=$dir/codesearch.folio
PATH=$tmp:$PATH # so that the commands below read as one would type them
TIMEFORMAT='   (took %R s)'

step() { printf '\n== %s\n' "$1"; }

# run prints a command as one would type it, runs it, and says how long that took.
run() {
	local words=${*//"$store"/codesearch.folio}
	printf '$ %s\n' "${words//"$tmp"/bin}"
	# The command's errors go where they belong, and the time among its output.
	{ time "$@" 2>&3; } 3>&2 2>&1
}

step "Build the command kvtool and the example codesearch"
run go build -o "$tmp/" ./cmd/kvtool ./examples/codesearch

step "Index every word of the Go standard library: $(go env GOROOT)/src"
rm -f "$store" "$store-lock"
run codesearch index "$store"
printf '   the store has %s bytes\n' "$(wc -c <"$store" | tr -d ' ')"

step "Which lines hold the word ErrUnexpectedEOF? (the first three of each kind)"
run codesearch word -n 3 "$store" ErrUnexpectedEOF

step "Which words begin with Marshal, and in how many files is each?"
run codesearch prefix -n 5 "$store" Marshal

step "What is in the file os/executable.go?"
run codesearch file "$store" os/executable.go

step "What does the store consist of?"
run kvtool stat "$store"

step "Read one value of it with kvtool: the file go.mod"
run kvtool get "$store" go.mod --bucket files

step "Is the store sound? Check reads every page and proves it"
run kvtool check "$store"

if [[ $dir != "$tmp" ]]; then
	printf '\nThe store is %s\n' "$store"
fi
