// docker-machine-driver-standin: a docker-machine plugin as the Go library makes them, with a folder
// of JSON files for a provider. tests/support/goplugin/standin.py is the same in Python.
package main

import (
	"crypto/rand"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/rpc"
	"os"
	"path/filepath"
	"time"
)

type StringFlag struct{ Name, Usage, EnvVar, Value string }
type StringSliceFlag struct {
	Name, Usage, EnvVar string
	Value               []string
}
type IntFlag struct {
	Name, Usage, EnvVar string
	Value               int
}
type BoolFlag struct{ Name, Usage, EnvVar string }

func (f StringFlag) String() string      { return f.Name }
func (f StringSliceFlag) String() string { return f.Name }
func (f IntFlag) String() string         { return f.Name }
func (f BoolFlag) String() string        { return f.Name }

type Flag interface{ String() string }
type Options interface {
	Text(key string) string
	Texts(key string) []string
	Number(key string) int
	Switch(key string) bool
}
type RPCFlags struct{ Values map[string]interface{} }

func (r RPCFlags) Text(key string) string    { v, _ := r.Values[key].(string); return v }
func (r RPCFlags) Texts(key string) []string { v, _ := r.Values[key].([]string); return v }
func (r RPCFlags) Number(key string) int     { v, _ := r.Values[key].(int); return v }
func (r RPCFlags) Switch(key string) bool    { v, _ := r.Values[key].(bool); return v }

type State int // docker-machine's: 1 running, 4 stopped

type Server struct {
	ID, Name, Store string
	State           State
}

// Driver is what docker-machine calls the driver: its exported fields are its configuration.
type Driver struct {
	IPAddress, MachineName, SSHUser, SSHKeyPath, StorePath string
	SSHPort                                                int
	Token, Endpoint, RootPassword, Cloud, ServerID         string
	Labels                                                 []string
	Fast                                                   bool
	source                                                 string
}

func (d *Driver) place(id string) string { return filepath.Join(d.Cloud, id+".json") }

func (d *Driver) server() (*Server, error) {
	if d.Token == "" || d.Token == "bad" {
		return nil, errors.New("401 Unauthorized: unable to authenticate you")
	}
	data, err := os.ReadFile(d.place(d.ServerID))
	if d.ServerID == "" || err != nil {
		return nil, fmt.Errorf("404 Not Found: server %q", d.ServerID)
	}
	server := &Server{}
	return server, json.Unmarshal(data, server)
}

func (d *Driver) write(server *Server) error {
	data, _ := json.Marshal(server)
	return os.WriteFile(d.place(server.ID), data, 0o600)
}

func (d *Driver) turn(state State) error {
	server, err := d.server()
	if err != nil {
		return err
	}
	server.State = state
	return d.write(server)
}

func random() string {
	data := make([]byte, 8)
	rand.Read(data)
	return hex.EncodeToString(data)
}

type RPCServerDriver struct {
	driver    *Driver
	end, beat chan bool
}

func (r *RPCServerDriver) GetVersion(_ *struct{}, reply *int) error { *reply = 1; return nil }
func (r *RPCServerDriver) Close(_, _ *struct{}) error               { r.end <- true; return nil }
func (r *RPCServerDriver) Heartbeat(_, _ *struct{}) error           { r.beat <- true; return nil }
func (r *RPCServerDriver) GetConfigRaw(_ *struct{}, reply *[]byte) (err error) {
	*reply, err = json.Marshal(r.driver)
	return
}
func (r *RPCServerDriver) SetConfigRaw(data []byte, _ *struct{}) error {
	return json.Unmarshal(data, r.driver)
}
func (r *RPCServerDriver) GetCreateFlags(_ *struct{}, reply *[]Flag) error {
	*reply = []Flag{
		StringFlag{"standin-token", "Token of the account", "STANDIN_TOKEN", ""},
		StringFlag{"standin-cloud", "Folder of the provider", "STANDIN_CLOUD", ""},
		StringFlag{"standin-address", "Address of the next server", "STANDIN_ADDRESS", "192.0.2.1"},
		StringFlag{"standin-ssh-user", "User to log in as", "", "root"},
		StringFlag{"standin-ssh-key", "Private key to copy", "STANDIN_SSH_KEY", ""},
		IntFlag{"standin-ssh-port", "Port of SSH", "", 22},
		StringSliceFlag{"standin-label", "Labels", "STANDIN_LABEL", []string{"made-by-machine"}},
		BoolFlag{"standin-fast", "A fast one", ""},
	}
	return nil
}
func (r *RPCServerDriver) SetConfigFromFlags(options *Options, _ *struct{}) error {
	d, o := r.driver, *options
	d.Token, d.Cloud = o.Text("standin-token"), o.Text("standin-cloud")
	d.Endpoint = "https://user:" + d.Token + "@cloud.example"
	d.IPAddress, d.SSHUser = o.Text("standin-address"), o.Text("standin-ssh-user")
	d.SSHPort, d.source = o.Number("standin-ssh-port"), o.Text("standin-ssh-key")
	d.Labels, d.Fast = o.Texts("standin-label"), o.Switch("standin-fast")
	if d.Cloud == "" {
		return errors.New("standin driver requires the --standin-cloud option")
	}
	return nil
}
func (r *RPCServerDriver) PreCreateCheck(_, _ *struct{}) error {
	if _, err := r.driver.server(); err != nil && r.driver.Token != "good-token" {
		return err
	}
	return nil
}
func (r *RPCServerDriver) Create(_, _ *struct{}) error {
	d := r.driver
	fmt.Println("Creating server...")
	fmt.Fprintln(os.Stderr, "asking with the token", d.Token)
	if d.source != "" {
		d.SSHKeyPath = filepath.Join(d.StorePath, "machines", d.MachineName, "id_rsa")
		data, err := os.ReadFile(d.source)
		if err == nil {
			err = os.WriteFile(d.SSHKeyPath, data, 0o600)
		}
		if err != nil {
			return err
		}
	}
	server := &Server{ID: random(), Name: d.MachineName, Store: d.StorePath, State: 1}
	if err := d.write(server); err != nil {
		return err
	}
	d.ServerID, d.RootPassword = server.ID, random()
	for wanted := os.Getenv("STANDIN_WAIT"); wanted != ""; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(wanted); err == nil {
			break
		}
	}
	return nil
}
func (r *RPCServerDriver) Remove(_, _ *struct{}) error {
	if _, err := r.driver.server(); err != nil {
		return err
	}
	return os.Remove(r.driver.place(r.driver.ServerID))
}
func (r *RPCServerDriver) GetState(_ *struct{}, reply *State) error {
	server, err := r.driver.server()
	if err == nil {
		*reply = server.State
	}
	return err
}
func (r *RPCServerDriver) Start(_, _ *struct{}) error   { return r.driver.turn(1) }
func (r *RPCServerDriver) Stop(_, _ *struct{}) error    { return r.driver.turn(4) }
func (r *RPCServerDriver) Kill(_, _ *struct{}) error    { return r.driver.turn(4) }
func (r *RPCServerDriver) Restart(_, _ *struct{}) error { return r.driver.turn(1) }
func (r *RPCServerDriver) GetIP(_ *struct{}, reply *string) error {
	*reply = r.driver.IPAddress
	return nil
}
func (r *RPCServerDriver) GetSSHHostname(_ *struct{}, reply *string) error {
	*reply = r.driver.IPAddress
	return nil
}
func (r *RPCServerDriver) GetSSHUsername(_ *struct{}, reply *string) error {
	*reply = r.driver.SSHUser
	return nil
}
func (r *RPCServerDriver) GetSSHKeyPath(_ *struct{}, reply *string) error {
	*reply = r.driver.SSHKeyPath
	return nil
}
func (r *RPCServerDriver) GetSSHPort(_ *struct{}, reply *int) error {
	*reply = r.driver.SSHPort
	return nil
}
func (r *RPCServerDriver) GetURL(_ *struct{}, reply *string) error {
	*reply = "tcp://" + net.JoinHostPort(r.driver.IPAddress, "2376")
	return nil
}

// register gives the types the names that a plugin of that family has on the wire.
func register(family string) string {
	service, flags, options := "RPCServerDriver", "*mcnflag.", "*rpcdriver.RPCFlags"
	switch family {
	case "old":
		service, options = "RpcServerDriver", "*rpcdriver.RpcFlags"
	case "docker", "rancher":
		base := "github.com/" + family + "/machine/libmachine/"
		flags, options = base+"mcnflag.", base+"drivers/rpc.RPCFlags"
	}
	gob.RegisterName(options, RPCFlags{})
	gob.RegisterName(flags+"StringFlag", StringFlag{})
	gob.RegisterName(flags+"StringSliceFlag", StringSliceFlag{})
	gob.RegisterName(flags+"IntFlag", IntFlag{})
	gob.RegisterName(flags+"BoolFlag", BoolFlag{})
	return service
}

func main() {
	if os.Getenv("MACHINE_PLUGIN_TOKEN") != "42" {
		fmt.Fprintln(os.Stderr, "This is a Docker Machine plugin binary.")
		os.Exit(1)
	}
	served := &RPCServerDriver{&Driver{}, make(chan bool), make(chan bool)}
	rpc.RegisterName(register(os.Getenv("STANDIN_FAMILY")), served)
	rpc.HandleHTTP()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(listener.Addr())
	go http.Serve(listener, nil)
	for {
		select {
		case <-served.end:
			os.Exit(0)
		case <-served.beat:
		case <-time.After(10 * time.Second):
			os.Exit(1)
		}
	}
}
