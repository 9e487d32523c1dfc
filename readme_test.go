package folio_test

// readme_test.go runs what README.md tells people to type.
//
// The convention, by the fence that a block has:
//
//	go    that begins with "package main": a program of its own. All others are the body
//	      of a function that has db, an open store, and returns an error; they run one
//	      after another, in order, in one program on one store, so each may use what
//	      those before it have put. Imports are added from the names that a body uses.
//	sh    a script. All run in order in one directory, with kvtool in the PATH; the first
//	      command that fails fails the test. Lines that would fetch something, or run
//	      this test from inside itself, are only looked at: see formOnly.
//	text  what the block right before it must write to standard output, to the byte.
//
// Other fences are not allowed, so that nothing slips through. The Go programs are built
// offline in a module of their own that is pointed at this checkout.

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const readmeModule = "github.com/foliokv/folio"

// fence is a fenced block of README.md.
type fence struct {
	lang string
	line int // of its first line of text
	text string
	want *string // the text block that follows
}

func readFences(t *testing.T) (all []*fence) {
	raw, err := os.ReadFile("README.md")
	require.NoError(t, err)
	var open, last *fence // last: the block that a text block right here would belong to
	number := 0
	for line := range strings.Lines(string(raw)) {
		number++
		lang, isFence := strings.CutPrefix(line, "```")
		lang = strings.TrimSpace(lang)
		switch {
		case open != nil && !isFence:
			open.text += line
		case open != nil:
			require.Empty(t, lang, "line %d: the fence of line %d is still open", number, open.line-1)
			if open.lang != "text" {
				all, last = append(all, open), open
			} else {
				require.NotNil(t, last, "line %d: output of what?", open.line)
				last.want, last = &open.text, nil
			}
			open = nil
		case isFence:
			require.Contains(t, []string{"go", "sh", "text"}, lang, "line %d: unknown fence", number)
			open = &fence{lang: lang, line: number + 1}
		case strings.TrimSpace(line) != "":
			last = nil
		}
	}
	require.Nil(t, open, "the last fence is open")
	return all
}

func fencesOf(t *testing.T, lang string) []*fence {
	all := slices.DeleteFunc(readFences(t), func(f *fence) bool { return f.lang != lang })
	require.NotEmpty(t, all)
	return all
}

// check compares what f wrote with what README.md shows.
func (f *fence) check(t *testing.T, got string) {
	if f.want != nil && *f.want != got {
		t.Errorf("README.md:%d: it writes\n%s\nREADME.md shows\n%s", f.line, got, *f.want)
	}
}

// --- Go

// readmeImports are the packages that bodies may use, by name.
var readmeImports = map[string]string{
	"bytes": "bytes", "context": "context", "errors": "errors", "fmt": "fmt", "fs": "io/fs",
	"os": "os", "strings": "strings", "time": "time", "folio": readmeModule,
}

// wrapBodies makes one program of the bodies. It opens the store at os.Args[1] and writes
// a line of readmeMark after what each body writes.
func wrapBodies(bodies []*fence) string {
	const head = `
func main() {
	db, err := folio.Open(os.Args[1], 0o600, nil)
	if err != nil {
		panic(err)
	}
	for i, body := range bodies {
		if err := body(db); err != nil {
			fmt.Fprintf(os.Stderr, "README.md:%d: %v\n", lines[i], err)
			os.Exit(1)
		}
		fmt.Println("` + readmeMark + `")
	}
	if err := db.Close(); err != nil {
		panic(err)
	}
}
`
	var code, table, lines strings.Builder
	for i, f := range bodies {
		fmt.Fprintf(&code, "\nfunc body%d(db *folio.DB) error {\n//line README.md:%d\n%s\nreturn nil\n}\n", i, f.line, f.text)
		fmt.Fprintf(&table, "body%d, ", i)
		fmt.Fprintf(&lines, "%d, ", f.line)
	}
	var imports strings.Builder
	for name, path := range readmeImports {
		if regexp.MustCompile(`\b` + name + `\.[A-Z]`).MatchString(head + code.String()) {
			fmt.Fprintf(&imports, "import %q\n", path)
		}
	}
	return fmt.Sprintf("package main\n\n%s\nvar bodies = []func(*folio.DB) error{%s}\nvar lines = []int{%s}\n%s%s",
		imports.String(), table.String(), lines.String(), head, code.String())
}

const readmeMark = "-- end of a block of README.md --"

// readmeProgram builds source as a program that uses this checkout and returns its path.
func readmeProgram(t *testing.T, source string) string {
	checkout, err := os.Getwd()
	require.NoError(t, err)
	dir := t.TempDir()
	mod, err := os.ReadFile("go.mod")
	require.NoError(t, err)
	// The same requirements as here, so that the module cache is sure to have them.
	text := strings.Replace(string(mod), "module "+readmeModule, "module readme", 1)
	require.NotEqual(t, string(mod), text)
	text += fmt.Sprintf("\nrequire %s v0.0.0\nreplace %s => %q\n", readmeModule, readmeModule, checkout)
	sum, err := os.ReadFile("go.sum")
	require.NoError(t, err)
	for name, content := range map[string]string{"go.mod": text, "go.sum": string(sum), "main.go": source} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	program := filepath.Join(dir, "program")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir = dir
	build.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s\n%s", out, source)
	return program
}

// runIn runs a command in dir and returns its standard output.
func runIn(t *testing.T, dir, name string, args ...string) string {
	var out, errs bytes.Buffer
	c := exec.Command(name, args...)
	c.Dir, c.Stdout, c.Stderr = dir, &out, &errs
	require.NoError(t, c.Run(), "%s%s", out.String(), errs.String())
	return out.String()
}

func TestReadmeGo(t *testing.T) {
	var bodies []*fence
	for _, f := range fencesOf(t, "go") {
		if !strings.HasPrefix(f.text, "package main\n") {
			bodies = append(bodies, f)
			continue
		}
		t.Run(fmt.Sprintf("program at line %d", f.line), func(t *testing.T) {
			t.Parallel()
			f.check(t, runIn(t, t.TempDir(), readmeProgram(t, f.text)))
		})
	}
	t.Run("bodies", func(t *testing.T) {
		t.Parallel()
		parts := strings.Split(runIn(t, t.TempDir(), readmeProgram(t, wrapBodies(bodies)), "readme.folio"), readmeMark+"\n")
		require.Len(t, parts, len(bodies)+1)
		for i, f := range bodies {
			f.check(t, parts[i])
		}
	})
}

// --- shell

// formOnly are the lines that are not run, with what is looked at instead.
var formOnly = []struct {
	form  *regexp.Regexp
	check func(t *testing.T, m []string)
}{
	// This test is part of test.sh, and run.sh takes long.
	{regexp.MustCompile(`^\./(\w+\.sh)( \w+)?$`), func(t *testing.T, m []string) {
		info, err := os.Stat(m[1])
		require.NoError(t, err)
		require.NotZero(t, info.Mode()&0o111, "%s is not executable", m[1])
	}},
	{regexp.MustCompile(`^go (?:get|install) ` + readmeModule + `(/[\w/]+)?(?:@latest)?$`), func(t *testing.T, m []string) {
		require.DirExists(t, "."+m[1])
	}},
	{regexp.MustCompile(`^cd (\w+) && go run \.( -\w+ [\w.]+)*$`), func(t *testing.T, m []string) {
		require.FileExists(t, filepath.Join(m[1], "main.go"))
	}},
}

// isFormOnly looks at a line that is not run, and reports whether line is one.
func isFormOnly(t *testing.T, line string) bool {
	for _, f := range formOnly {
		if m := f.form.FindStringSubmatch(line); m != nil {
			f.check(t, m)
			return true
		}
	}
	return false
}

func TestReadmeShell(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed: the commands of README.md are not run")
	}
	bin, dir := t.TempDir(), t.TempDir()
	out, err := exec.Command("go", "build", "-buildvcs=false", "-o", bin+"/", "./cmd/kvtool").CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	for _, f := range fencesOf(t, "sh") {
		script := "set -euo pipefail\n"
		for line := range strings.Lines(f.text) {
			if !isFormOnly(t, strings.TrimSpace(line)) {
				require.NotRegexp(t, `\bgo (get|install|run)\b|\.sh\b`, line, "formOnly has no form like this")
				script += line
			}
		}
		t.Run(fmt.Sprintf("line %d", f.line), func(t *testing.T) {
			f.check(t, runIn(t, dir, bash, "-c", script))
		})
	}
}

// --- links

// Links of the documents lead to files that are there.
func TestDocumentLinks(t *testing.T) {
	docs, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	link := regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)
	for _, doc := range append(docs, "README.md", "CONTRIBUTING.md", "CHANGELOG.md") {
		raw, err := os.ReadFile(doc)
		require.NoError(t, err)
		for _, m := range link.FindAllStringSubmatch(string(raw), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			_, err := os.Stat(filepath.Join(filepath.Dir(doc), m[1]))
			require.NoError(t, err, "%s links to %s", doc, m[1])
		}
	}
}
