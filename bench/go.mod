module github.com/foliokv/folio/bench

go 1.26.0

require (
	github.com/foliokv/folio v0.0.0
	go.etcd.io/bbolt v1.5.0
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	golang.org/x/sys v0.50.0 // indirect
)

replace github.com/foliokv/folio => ../
