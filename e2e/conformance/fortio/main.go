// Reads results of `meshctl load` with Fortio's own types, and checks their numbers with Fortio's own code.
package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"

	"fortio.org/fortio/fgrpc"
	"fortio.org/fortio/fhttp"
	"fortio.org/fortio/periodic"
	"fortio.org/fortio/stats"
	"fortio.org/fortio/tcprunner"
	"fortio.org/fortio/udprunner"
)

func fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

// The result with the type that Fortio has for it.
func read(text []byte) periodic.HasRunnerResult {
	var common periodic.RunnerResults
	if err := json.Unmarshal(text, &common); err != nil {
		fail("no result: %v", err)
	}
	var result periodic.HasRunnerResult
	switch {
	case common.RunType == "HTTP":
		result = &fhttp.HTTPRunnerResults{}
	case common.RunType == "TCP":
		result = &tcprunner.RunnerResults{}
	case common.RunType == "UDP":
		result = &udprunner.RunnerResults{}
	default:
		result = &fgrpc.GRPCRunnerResults{}
	}
	if err := json.Unmarshal(text, result); err != nil {
		fail("%s: %v", common.RunType, err)
	}
	return result
}

// Every key that Fortio writes is there: its own value of what it read has no others.
func checkKeys(text []byte, result any) {
	var ours, theirs map[string]any
	again, err := json.Marshal(result)
	if err != nil {
		fail("%v", err)
	}
	if json.Unmarshal(text, &ours) != nil || json.Unmarshal(again, &theirs) != nil {
		fail("no object")
	}
	for key, value := range theirs {
		mine, found := ours[key]
		if !found {
			fail("key %s is missing", key)
		}
		if fmt.Sprint(mine) != fmt.Sprint(value) {
			fail("key %s changes when Fortio reads it: %v, %v", key, mine, value)
		}
	}
}

func checkHistogram(h *stats.HistogramData) {
	if h == nil || h.Count == 0 || len(h.Data) == 0 {
		fail("no data in the histogram")
	}
	var count int64
	for _, bucket := range h.Data {
		count += bucket.Count
		if percent := 100 * float64(count) / float64(h.Count); math.Abs(percent-bucket.Percent) > 1e-9 {
			fail("%v %% instead of %v", bucket.Percent, percent)
		}
	}
	if count != h.Count || h.Data[0].Start != h.Min || h.Data[len(h.Data)-1].End != h.Max {
		fail("buckets do not cover the values")
	}
	for _, p := range h.Percentiles {
		if value := h.CalcPercentile(p.Percentile); math.Abs(value-p.Value) > 1e-12 {
			fail("p%v is %v, Fortio says %v", p.Percentile, p.Value, value)
		}
	}
}

func main() {
	for _, path := range os.Args[1:] {
		text, err := os.ReadFile(path)
		if err != nil {
			fail("%v", err)
		}
		result := read(text)
		checkKeys(text, result)
		checkHistogram(result.Result().DurationHistogram)
		fmt.Println(result.Result().RunType, result.Result().DurationHistogram.Count)
	}
}
