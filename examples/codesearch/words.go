package main

// words.go finds the words of a file.

import (
	"bytes"
	"go/scanner"
	"go/token"
	"path"
	"unicode"
	"unicode/utf8"
)

// kinds of words: three of Go files, one of all others.
var kinds = []string{"identifier", "comment", "string", "text"}

const (
	minWord = 2  // runes: shorter ones are noise
	maxWord = 64 // bytes: longer ones are data
)

type word struct{ kind, text string }

// wordLines holds in which lines each word stands, ascending.
type wordLines map[word][]int

func (ws wordLines) add(kind, text string, line int) {
	if utf8.RuneCountInString(text) < minWord || len(text) > maxWord {
		return
	}
	w := word{kind, text}
	if lines := ws[w]; len(lines) == 0 || lines[len(lines)-1] != line {
		ws[w] = append(lines, line)
	}
}

// addText adds the words of text, which begins in the given line.
func (ws wordLines) addText(kind, text string, line int) {
	start := -1
	for i, r := range text {
		inWord := r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r)
		if inWord && start < 0 {
			start = i
		}
		if !inWord && start >= 0 {
			ws.add(kind, text[start:i], line)
			start = -1
		}
		if r == '\n' {
			line++
		}
	}
	if start >= 0 {
		ws.add(kind, text[start:], line)
	}
}

// wordsOf returns the words of a file. Binary files have none.
func wordsOf(name string, content []byte) wordLines {
	ws := wordLines{}
	switch {
	case bytes.IndexByte(content, 0) >= 0:
	case path.Ext(name) == ".go":
		ws.addGo(content)
	default:
		ws.addText("text", string(content), 1)
	}
	return ws
}

// addGo adds the words of a Go file. Errors in it do not matter: what can be read is.
func (ws wordLines) addGo(src []byte) {
	f := token.NewFileSet().AddFile("", -1, len(src))
	var s scanner.Scanner
	s.Init(f, src, nil, scanner.ScanComments)
	for {
		pos, tok, text := s.Scan()
		line := f.PositionFor(pos, false).Line
		switch tok {
		case token.EOF:
			return
		case token.IDENT:
			ws.add("identifier", text, line)
		case token.COMMENT:
			ws.addText("comment", text, line)
		case token.STRING:
			ws.addText("string", text, line)
		}
	}
}
