//go:build cgo

package main

// store_sqlite.go drives SQLite through database/sql, as Go programs use it.

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"path/filepath"

	sqlite3 "github.com/mattn/go-sqlite3"
)

var sqliteEngine = &engine{
	name:   "sqlite",
	module: "github.com/mattn/go-sqlite3",
	alone:  true,
	note:   "a table WITHOUT ROWID with a blob as its key; WAL, synchronous=FULL, a cache of 64 MiB, mmap_size 1 GiB; prepared statements through database/sql; one connection writes, goroutines queue for it",
	open:   openSQLite,
}

const (
	sqlitePut    = "INSERT INTO pairs (k, v) VALUES (?, ?) ON CONFLICT (k) DO UPDATE SET v = excluded.v"
	sqliteDelete = "DELETE FROM pairs WHERE k = ?"
	sqliteGet    = "SELECT v FROM pairs WHERE k = ?"
	sqliteRange  = "SELECT v FROM pairs WHERE k >= ? ORDER BY k LIMIT ?"
	sqliteCreate = "CREATE TABLE pairs (k BLOB NOT NULL PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID"
)

// sqliteConnector opens connections with the pragmas set.
type sqliteConnector struct {
	driver sqlite3.SQLiteDriver
	dsn    string
}

func (c *sqliteConnector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }
func (c *sqliteConnector) Driver() driver.Driver                        { return &c.driver }

func newSQLiteConnector(path string, durable bool) *sqliteConnector {
	level := "FULL"
	if !durable {
		level = "OFF"
	}
	c := &sqliteConnector{dsn: "file:" + path + "?_txlock=immediate&_busy_timeout=10000&_journal_mode=WAL&_cache_size=-65536&_synchronous=" + level}
	c.driver.ConnectHook = func(conn *sqlite3.SQLiteConn) error {
		_, err := conn.Exec("PRAGMA mmap_size = 1073741824", nil)
		return err
	}
	return c
}

type sqliteStore struct {
	writer, readers  *sql.DB
	put, delete      *sql.Stmt // on the writer
	get, rangeOfKeys *sql.Stmt // on the readers
}

func openSQLite(dir string, o openOptions) (_ store, err error) {
	c := newSQLiteConnector(filepath.Join(dir, "pairs.sqlite"), o.durable)
	s := &sqliteStore{writer: sql.OpenDB(c), readers: sql.OpenDB(c)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	s.writer.SetMaxOpenConns(1)
	s.readers.SetMaxIdleConns(64) // none is opened anew for each read
	if o.create {
		if _, err := s.writer.Exec(sqliteCreate); err != nil {
			return nil, err
		}
	}
	return s, s.prepare()
}

func (s *sqliteStore) prepare() (err error) {
	for _, p := range []struct {
		db   *sql.DB
		stmt **sql.Stmt
		text string
	}{
		{s.writer, &s.put, sqlitePut},
		{s.writer, &s.delete, sqliteDelete},
		{s.readers, &s.get, sqliteGet},
		{s.readers, &s.rangeOfKeys, sqliteRange},
	} {
		if *p.stmt, err = p.db.Prepare(p.text); err != nil {
			return fmt.Errorf("prepare %s: %w", p.text, err)
		}
	}
	return nil
}

// apply leaves a single change to SQLite's own transaction around a statement.
func (s *sqliteStore) apply(ops []op) error {
	if len(ops) == 1 {
		return sqliteChange(s.put, s.delete, ops[0])
	}
	tx, err := s.writer.Begin()
	if err != nil {
		return err
	}
	put, del := tx.Stmt(s.put), tx.Stmt(s.delete)
	for _, o := range ops {
		if err := sqliteChange(put, del, o); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	return tx.Commit()
}

func sqliteChange(put, del *sql.Stmt, o op) (err error) {
	if o.value == nil {
		_, err = del.Exec(o.key)
	} else {
		_, err = put.Exec(o.key, o.value)
	}
	return err
}

// inRead runs fn in a read transaction.
func (s *sqliteStore) inRead(fn func(conn *sql.Conn) error) (err error) {
	ctx := context.Background()
	conn, err := s.readers.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err := conn.ExecContext(ctx, "BEGIN DEFERRED"); err != nil {
		return err
	}
	defer func() {
		_, e := conn.ExecContext(ctx, "ROLLBACK")
		err = errors.Join(err, e)
	}()
	return fn(conn)
}

func (s *sqliteStore) gets(ls []lookup) error {
	return s.inRead(func(conn *sql.Conn) error {
		get, err := conn.PrepareContext(context.Background(), sqliteGet)
		if err != nil {
			return err
		}
		defer get.Close()
		return sqliteGets(get, ls)
	})
}

func (s *sqliteStore) viewGets(ls []lookup) error { return sqliteGets(s.get, ls) }

func sqliteGets(get *sql.Stmt, ls []lookup) error {
	for i := range ls {
		l := &ls[i]
		t, err := sqliteRows(get, l.check, l.key[:])
		if err != nil {
			return err
		}
		if t.pairs == 0 {
			return fmt.Errorf("get %s: %w", l.key, sql.ErrNoRows)
		}
	}
	return nil
}

// sqliteRows runs a query and looks at the value of each row.
func sqliteRows(query *sql.Stmt, look func(value []byte) error, args ...any) (t tally, err error) {
	rows, err := query.Query(args...)
	if err != nil {
		return t, err
	}
	defer rows.Close()
	var value sql.RawBytes // not copied
	for rows.Next() {
		if err := rows.Scan(&value); err != nil {
			return t, err
		}
		t.add(value)
		if err := look(value); err != nil {
			return t, err
		}
	}
	return t, rows.Err()
}

func nothingToCheck([]byte) error { return nil }

func (s *sqliteStore) ranges(rs []rangeLookup) error {
	return s.inRead(func(conn *sql.Conn) error {
		query, err := conn.PrepareContext(context.Background(), sqliteRange)
		if err != nil {
			return err
		}
		defer query.Close()
		for i := range rs {
			r := &rs[i]
			t, err := sqliteRows(query, nothingToCheck, r.first[:], r.want.pairs)
			if err != nil {
				return err
			}
			if err := t.check(r.want); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *sqliteStore) scan() (tally, error) {
	return sqliteRows(s.rangeOfKeys, nothingToCheck, []byte{}, -1) // -1: no limit
}

func (s *sqliteStore) view(fn func(get func(key []byte) ([]byte, error)) error) error {
	return fn(func(key []byte) (value []byte, err error) {
		err = s.get.QueryRow(key).Scan(&value)
		if errors.Is(err, sql.ErrNoRows) {
			return nil, nil
		}
		return value, err
	})
}

// close closes the writer last, which then brings the log into the file.
func (s *sqliteStore) close() error { return errors.Join(s.readers.Close(), s.writer.Close()) }
