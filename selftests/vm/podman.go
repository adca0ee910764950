// SPDX-License-Identifier: GPL-2.0-or-later

// What selftests/vm/podman cannot ask of Podman's commands; built in its source.
//
//	ids DATABASE	the locks of all containers, pods and volumes in the database, a line
//			each: id, what it is of, its name
//	bench PATH	what locks cost through Podman's own calls, a line each: what, ns
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/containers/podman/libpod/lock"
	bolt "go.etcd.io/bbolt"
)

const (
	batch = 40
	runs  = 500
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// (Newer versions say so in inspect's lockNumber.)
func ids(database string) {
	db, err := bolt.Open(database, 0600, &bolt.Options{ReadOnly: true})
	check(err)
	check(db.View(func(tx *bolt.Tx) error {
		for _, kind := range []string{"ctr", "pod", "vol"} {
			bucket := tx.Bucket([]byte(kind))
			check(bucket.ForEach(func(key, _ []byte) error {
				var config struct {
					Name   string `json:"name"`
					LockID uint32 `json:"lockID"`
				}
				raw := bucket.Bucket(key).Get([]byte("config"))
				check(json.Unmarshal(raw, &config))
				fmt.Println(config.LockID, kind, config.Name)
				return nil
			}))
		}
		return nil
	}))
}

// The best of some runs: what disturbs only makes it slower.
type best struct{ ns float64 }

func (best *best) of(call func()) {
	began := time.Now()
	for i := 0; i < batch; i++ {
		call()
	}
	took := float64(time.Since(began).Nanoseconds()) / batch
	if best.ns == 0 || took < best.ns {
		best.ns = took
	}
}

func (best *best) say(what string) {
	fmt.Printf("%s\t%.0f\n", what, best.ns)
}

// What is allocated is freed in turn, the last one first.
func allocateAndFree(manager lock.Manager, taken string) {
	var allocate, free best
	for run := 0; run < runs; run++ {
		var lockers []lock.Locker
		allocate.of(func() {
			locker, err := manager.AllocateLock()
			check(err)
			lockers = append(lockers, locker)
		})
		free.of(func() {
			last := len(lockers) - 1
			check(lockers[last].Free())
			lockers = lockers[:last]
		})
	}
	allocate.say("allocate, " + taken + " taken")
	free.say("free, " + taken + " taken")
}

func bench(path string) {
	manager, err := lock.NewSHMLockManager(path, 2048)
	check(err)
	allocateAndFree(manager, "none")
	for i := 0; i < 2000; i++ {
		_, err := manager.AllocateLock()
		check(err)
	}
	allocateAndFree(manager, "2000")
	locker, err := manager.RetrieveLock(1000)
	check(err)
	var pair best
	for run := 0; run < runs; run++ {
		pair.of(func() {
			locker.Lock()
			locker.Unlock()
		})
	}
	pair.say("lock and unlock")
	check(manager.FreeAllLocks())
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: ids DATABASE | bench PATH")
		os.Exit(2)
	}
	switch os.Args[1] {
	case "ids":
		ids(os.Args[2])
	case "bench":
		bench(os.Args[2])
	}
}
