// Prints the vectors of tests/unit/drivers/plugins/vectors.json: values as the real encoding/gob
// and net/rpc write them. Run it with `go run .` in this folder.
package main

import (
	"bytes"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"sync"
	"time"
)

type Point struct{ X, Y int }

type Inner struct {
	Name string
	Deep []Point
}

type Everything struct {
	Bool    bool
	Int     int64
	Uint    uint64
	Float   float64
	Complex complex128
	Bytes   []byte
	String  string
	Array   [3]int
	Nested  Inner
	Map     map[string]int
	Any     interface{}
	Next    *Everything
}

type Stamp struct{ text string }

func (s Stamp) GobEncode() ([]byte, error)   { return []byte(s.text), nil }
func (s *Stamp) GobDecode(data []byte) error { s.text = string(data); return nil }

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
type Flag interface{ String() string }

func (f StringFlag) String() string      { return f.Name }
func (f StringSliceFlag) String() string { return f.Name }
func (f IntFlag) String() string         { return f.Name }
func (f BoolFlag) String() string        { return f.Name }

type RPCFlags struct{ Values map[string]interface{} }
type Options interface{ String(key string) string }

func (r RPCFlags) String(key string) string { return "" }

type RPCServerDriver struct{}

func (*RPCServerDriver) GetVersion(_ *struct{}, reply *int) error         { *reply = 1; return nil }
func (*RPCServerDriver) Create(_, _ *struct{}) error                      { return fmt.Errorf("no capacity") }
func (*RPCServerDriver) SetConfigRaw(_ []byte, _ *struct{}) error         { return nil }
func (*RPCServerDriver) SetConfigFromFlags(_ *Options, _ *struct{}) error { return nil }
func (*RPCServerDriver) GetCreateFlags(_ *struct{}, reply *[]Flag) error {
	*reply = []Flag{StringFlag{"s", "Text", "S", "v"}, IntFlag{"i", "Number", "I", 22},
		BoolFlag{"b", "Switch", "B"}, StringSliceFlag{"l", "List", "", []string{"x", "y"}}}
	return nil
}

// one is a stream of its own: several values on one encoder.
func one(values ...interface{}) string {
	var buffer bytes.Buffer
	encoder := gob.NewEncoder(&buffer)
	for _, value := range values {
		if err := encoder.Encode(value); err != nil {
			panic(err)
		}
	}
	return hex.EncodeToString(buffer.Bytes())
}

type tapped struct {
	net.Conn
	lock      sync.Mutex
	sent, got bytes.Buffer
}

func (t *tapped) Write(data []byte) (int, error) {
	t.lock.Lock()
	t.sent.Write(data)
	t.lock.Unlock()
	return t.Conn.Write(data)
}
func (t *tapped) Read(data []byte) (int, error) {
	n, err := t.Conn.Read(data)
	t.lock.Lock()
	t.got.Write(data[:n])
	t.lock.Unlock()
	return n, err
}

// dialogue is what a docker-machine client and a plugin say to each other.
func dialogue(out map[string]string) {
	server := rpc.NewServer()
	server.Register(&RPCServerDriver{})
	near, far := net.Pipe()
	go server.ServeConn(far)
	tap := &tapped{Conn: near}
	client := rpc.NewClient(tap)
	var version int
	client.Call("RPCServerDriver.GetVersion", struct{}{}, &version)
	client.Call("RPCServerDriver.SetConfigRaw", []byte(`{"MachineName":"m"}`), nil)
	var flags Options = &RPCFlags{map[string]interface{}{"l": []string{"x", "y"}}}
	if err := client.Call("RPCServerDriver.SetConfigFromFlags", &flags, nil); err != nil {
		panic(err)
	}
	var list []Flag
	if err := client.Call("RPCServerDriver.GetCreateFlags", struct{}{}, &list); err != nil {
		panic(err)
	}
	client.Call("RPCServerDriver.Create", struct{}{}, nil)
	client.Call("RPCServerDriver.Nothing", struct{}{}, nil)
	time.Sleep(50 * time.Millisecond)
	tap.lock.Lock()
	defer tap.lock.Unlock()
	out["rpc requests"] = hex.EncodeToString(tap.sent.Bytes())
	out["rpc responses"] = hex.EncodeToString(tap.got.Bytes())
}

func main() {
	gob.RegisterName("*rpcdriver.RPCFlags", new(RPCFlags))
	gob.RegisterName("*mcnflag.StringFlag", new(StringFlag))
	gob.RegisterName("*mcnflag.StringSliceFlag", new(StringSliceFlag))
	gob.RegisterName("*mcnflag.IntFlag", new(IntFlag))
	gob.RegisterName("*mcnflag.BoolFlag", new(BoolFlag))
	gob.RegisterName("p.Point", Point{})
	gob.RegisterName("p.Inner", Inner{})
	gob.RegisterName("[]interface {}", []interface{}{})
	out := map[string]string{
		"bools":        one(false, true),
		"ints":         one(0, 3, -1, 63, 64, -129, 1<<40, -1<<63, 1<<63-1),
		"uints":        one(uint(0), uint(7), uint(127), uint(128), uint(256), uint64(1<<64-1)),
		"floats":       one(0.0, 17.0, -1.5, 1e300),
		"complex":      one(complex(1, -2)),
		"strings":      one("", "hello", "grün"),
		"bytes":        one([]byte{}, []byte{0, 255}),
		"point":        one(Point{22, 33}, Point{}, Point{0, 5}),
		"empty struct": one(struct{}{}),
		"slices":       one([]string{"x", ""}, []int{}, [][]int{{1}, {}}),
		"array":        one([2]bool{true, false}),
		"map":          one(map[string]int{"one": 1}, map[int]string{}),
		"everything": one(Everything{true, -7, 9, 2.5, complex(0, 1), []byte("ab"), "text", [3]int{0, 1, 0},
			Inner{"in", []Point{{1, 2}, {}}}, map[string]int{"k": 0}, Inner{"any", nil},
			&Everything{String: "next", Any: []string{"deep"}}}),
		"nothing":  one(Everything{}),
		"opaque":   one(Stamp{"stamp"}),
		"anything": one([]interface{}{nil, 1, "s", true, 2.5, []string{"a"}, Point{1, 0}, []interface{}{Inner{"x", []Point{{3, 4}}}}}),
	}
	dialogue(out)
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	encoder.Encode(out)
}
