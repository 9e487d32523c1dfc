#!/usr/bin/env bash
# Passes every test. Needs Go; with root, the tests on a small mounted file system run
# too, and with lmdb-utils and db5.3-util those against mdb_load and its kin.
#
#   ./test.sh          everything, in under 20 minutes
#   ./test.sh quick    formatting, vet and the tests once, without the race detector
#   ./test.sh soak     crash and model tests with new seeds, until interrupted or failed
set -euo pipefail
cd "$(dirname "$0")"

step() { printf '\n== %s\n' "$*"; }

check_format() {
	step gofmt
	local bad
	bad=$(gofmt -l .)
	[ -z "$bad" ] || { printf 'not formatted:\n%s\n' "$bad"; exit 1; }
}

# vet_for OS ARCH: the library and its tests compile there.
vet_for() { GOOS=$1 GOARCH=$2 CGO_ENABLED=0 go vet ./...; }

# fuzz_round PACKAGE SECONDS: each fuzz target of the package for so long.
fuzz_round() {
	local target
	for target in $(grep -ho 'func Fuzz[A-Za-z0-9_]*' "$1"/*_test.go | sed 's/func //'); do
		echo "$1 $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$2s" "$1"
	done
}

quick() {
	check_format
	step vet
	go vet ./...
	step tests
	go test ./...
}

soak() {
	for ((round = 1; ; round++)); do
		step "round $round"
		go test -count=1 -timeout 60m -run 'TestModel|TestFreel|TestDamage' . -rapid.checks=2000
		go test -count=1 -timeout 60m -v -run TestCrash ./fuzz
	done
}

full() {
	check_format
	step "vet, here and for other systems"
	go vet ./...
	go vet -tags folio_invariants ./...
	vet_for linux arm64
	vet_for darwin arm64
	vet_for freebsd amd64
	step staticcheck
	go build -C tools -o ../build/staticcheck honnef.co/go/tools/cmd/staticcheck
	build/staticcheck ./...
	step "tests, with the race detector and with invariants checked"
	go test -race -timeout 30m $(go list ./... | grep -v '^github.com/foliokv/folio$')
	go test -race -timeout 30m -tags folio_invariants . -rapid.checks=200
	step "tests, as they are built for use"
	go test -timeout 30m ./...
	step "a round of each fuzz target"
	fuzz_round . 10
	fuzz_round ./cmd/kvtool/internal/dumptext 10
	fuzz_round ./cmd/kvtool/internal/bucketpath 5
	step "bench module"
	(cd bench && go vet ./... && go test ./...)
}

case "${1:-full}" in
full) full ;;
quick) quick ;;
soak) soak ;;
*) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
