package powercut

// machine_linux.go is a machine whose power can be cut: a process that has the disk and
// mounts it, and the handle on it for the test.

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/rpc"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// serverEnv tells a test binary that it is to be the machine's process.
const serverEnv = "FOLIO_POWERCUT_SERVER"

// patience is how long anything may take that takes no time.
const patience = 20 * time.Second

// ErrRefused is returned where this system mounts no file system of ours.
var ErrRefused = errors.New("mounting is refused")

// Machine is a machine with one disk, mounted at Dir. It runs until Close.
type Machine struct {
	Dir string

	server *exec.Cmd
	client *rpc.Client
}

// Start starts a machine with an empty disk, mounted at the directory dir. It runs this
// program anew, which must call ServeIfAsked first of all.
func Start(dir string, opts Options) (*Machine, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	m := &Machine{Dir: dir, server: exec.Command(self)}
	m.server.Env = append(os.Environ(), serverEnv+"="+dir)
	m.server.Stderr = os.Stderr
	in, err := m.server.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := m.server.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := m.server.Start(); err != nil {
		return nil, err
	}
	m.client = rpc.NewClient(stream{out, in})
	if err := m.Format(opts); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// Format boots the machine with a new, empty disk.
func (m *Machine) Format(opts Options) error {
	var refusal string
	if err := m.call("Format", opts, &refusal); err != nil {
		return err
	}
	if refusal != "" {
		return fmt.Errorf("%w: %s", ErrRefused, refusal)
	}
	return nil
}

// Arm plans to stop the disk after n more changes; see Disk.Arm. The channel gets a value
// once it has stopped.
func (m *Machine) Arm(n int) (stopped <-chan error, err error) {
	if err := m.call("Arm", n, nil); err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() { done <- m.call("Wait", 0, nil) }()
	return done, nil
}

// Resume lets the disk work again, with all that was written. The programs that saw it
// stop should be dead.
func (m *Machine) Resume() error { return m.call("Resume", 0, nil) }

// Reboot cuts the power and boots again from what the disk has then. It says what that
// is. The programs of the old boot must be dead.
func (m *Machine) Reboot(seed uint64) (what string, err error) {
	err = m.call("Reboot", seed, &what)
	return what, err
}

// Image returns what a file was when the machine booted last.
func (m *Machine) Image(name string) (img []byte, err error) {
	err = m.call("Image", name, &img)
	return img, err
}

func (m *Machine) call(method string, args, reply any) error {
	call := m.client.Go("Machine."+method, args, reply, nil)
	select {
	case <-call.Done:
		return call.Error
	case <-time.After(patience):
		return fmt.Errorf("%s: no answer in %v", method, patience)
	}
}

// Close ends the machine and its mount.
func (m *Machine) Close() {
	m.client.Close() // the server sees the end of its input, unmounts and exits
	kill := time.AfterFunc(patience, func() { m.server.Process.Kill() })
	m.server.Wait()
	kill.Stop()
	for unmount(m.Dir) == nil { // if it had to be killed
	}
}

// stream joins a process's pipes for RPC.
type stream struct {
	io.ReadCloser
	io.WriteCloser
}

func (s stream) Close() error { return errors.Join(s.WriteCloser.Close(), s.ReadCloser.Close()) }

// ServeIfAsked makes this process a machine, if that is what it was started for, and
// does not return then.
func ServeIfAsked() {
	dir := os.Getenv(serverEnv)
	if dir == "" {
		return
	}
	// What ends the test ends the input here, and that unmounts.
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGPIPE)
	h := &host{dir: dir}
	server := rpc.NewServer()
	if err := server.RegisterName("Machine", h); err != nil {
		panic(err)
	}
	server.ServeConn(stream{input{os.Stdin, h.exit}, os.Stdout})
}

// input calls atEnd at its end. ServeConn would first wait for calls that nobody waits
// for any more.
type input struct {
	io.ReadCloser
	atEnd func()
}

func (in input) Read(b []byte) (int, error) {
	n, err := in.ReadCloser.Read(b)
	if err != nil {
		in.atEnd()
	}
	return n, err
}

// host is the machine's side: its exported methods are what Machine calls.
type host struct {
	dir   string
	disk  *Disk             // of this boot
	found map[string][]byte // what it held at boot

	mu      sync.Mutex // held while a mount comes or goes
	mounted bool
}

// exit ends the process.
func (h *host) exit() {
	h.mu.Lock()
	h.unmount()
	os.Exit(0)
}

// Format boots from an empty disk. The reply says why mounting is refused.
func (h *host) Format(opts Options, refusal *string) error {
	err := h.boot(NewDisk(opts))
	for _, errno := range []error{unix.EPERM, unix.EACCES, unix.ENOENT, unix.ENODEV, unix.ENXIO} {
		if errors.Is(err, errno) {
			*refusal = err.Error()
			return nil
		}
	}
	return err
}

// Arm plans the stop.
func (h *host) Arm(n int, _ *string) error {
	h.disk.Arm(n)
	return nil
}

// Wait replies once the disk has stopped.
func (h *host) Wait(_ int, _ *string) error {
	<-h.disk.Stopped()
	return nil
}

// Resume ends the stop.
func (h *host) Resume(_ int, _ *string) error {
	h.disk.Resume()
	return nil
}

// Reboot boots from what a cut leaves.
func (h *host) Reboot(seed uint64, what *string) error {
	next, said := h.disk.Reboot(rand.New(rand.NewPCG(seed, 0)))
	*what = said
	return h.boot(next)
}

// Image replies with a file as this boot found it.
func (h *host) Image(name string, img *[]byte) error {
	*img = h.found[name]
	return nil
}

func (h *host) boot(disk *Disk) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unmount()
	h.disk, h.found = disk, disk.Content()
	if err := mount(disk, h.dir); err != nil {
		return fmt.Errorf("mount %s: %w", h.dir, err)
	}
	h.mounted = true
	return nil
}

func (h *host) unmount() {
	if !h.mounted {
		return
	}
	if err := unmount(h.dir); err != nil {
		fmt.Fprintf(os.Stderr, "unmount %s: %v\n", h.dir, err)
	}
	h.mounted = false
}
