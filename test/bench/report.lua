-- One line of JSON at the end, for bench.py and the drills that replace the program.
function done(summary, latency, requests)
	local e = summary.errors
	io.write(string.format('\n{"requests":%d,"seconds":%.6f,"p50_us":%d,"p99_us":%d,'
		.. '"p999_us":%d,"max_us":%d,"errors":%d}\n',
		summary.requests, summary.duration / 1e6, latency:percentile(50),
		latency:percentile(99), latency:percentile(99.9), latency.max,
		e.connect + e.read + e.write + e.status + e.timeout))
end
