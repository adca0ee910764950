# SPDX-License-Identifier: GPL-2.0-or-later
#
# What `report` makes of results.json: tables as lines of cells between tabs, after
# a title and a heading (in which > says that a column is aligned to the right) and
# before an empty line; and the data of plots.

def median: sort | (.[(length - 1) / 2 | floor] + .[length / 2 | floor]) / 2;

def quartile($n): sort | .[(length - 1) * $n / 4 | round];

# How far the middle half of the samples is spread, in percent of the median.
def spread: median as $median | if length < 3 or $median == 0 then "" else
	"\((quartile(3) - quartile(1)) / $median * 100 | round | fabs)%" end;

# Rounds were measured in turn: what disturbed one side disturbed the other.
def ratio($base): if . == null or $base == null then null else
	[., $base] | transpose | map(select(.[1] != 0) | .[0] / .[1]) |
	if length == 0 then null else median end end;

def fixed($digits): if . < 0 then "-" + (-. | fixed($digits)) else
	pow(10; $digits) as $one | (. * $one | round) as $n | "\($n / $one | floor)" +
	if $digits == 0 then "" else ".\($n % $one + $one | tostring[1:])" end end;

def number: if . == null then "" elif fabs >= 100 then fixed(0)
	elif fabs >= 10 then fixed(1) else fixed(2) end;

def row: map(if type == "string" then . else number end) | join("\t");

def in_order: reduce .[] as $x ([]; if index([$x]) then . else . + [$x] end);

. as $all |
(reduce .figures[] as $f ({}; .[[$f.axis, $f.case, $f.kind, $f.metric] | join("|")] = $f.samples))
	as $samples |
"robust mutex" as $robust | "klock mapped" as $mapped | "klock ioctl" as $ioctl |
(($samples["uncontended|lock and unlock|klock mapped|mapped"] // [0] | max) == 1) as $is_mapped |

def samples($axis; $case; $kind; $metric): $samples["\($axis)|\($case)|\($kind)|\($metric)"];
def cases($axis): $all.figures | map(select(.axis == $axis) | .case) | in_order;
def kinds($axis; $case; $metric): $all.figures |
	map(select(.axis == $axis and .case == $case and .metric == $metric) | .kind) | in_order;
def scaled($by): if . == null then null else median / $by end;

def where: "\($all.date), commit \($all.commit), Linux \($all.vm.kernel) in a VM with 2 processors " +
	"(\($all.vm.cpu); \($all.machine.qemu)) on \($all.machine.cpu); \($all.compiler)" +
	if $all.quick then "; QUICK: few rounds" else "" end +
	if $is_mapped then "" else "; this libklock maps nothing, so both of klock's kinds are ioctls" end;

# A row for each kind, and its ratio to some of them.
def compared($axis; $case; $metric; $unit; $by; $bases):
	(["kind", ">" + $unit, ">spread"] + ($bases | map(">× " + .)) | row),
	(kinds($axis; $case; $metric)[] as $kind | samples($axis; $case; $kind; $metric) |
	 [$kind, scaled($by), spread] + [ratio(samples($axis; $case; $bases[]; $metric))] | row),
	"";

def uncontended: "Lock and unlock, nobody else about",
	compared("uncontended"; "lock and unlock"; "ns"; "ns"; 1;
		 ["2 compare-and-swaps", "2 empty ioctls", $robust]);

def contended: cases("contended") | map(capture("(?<n>[0-9]+) processes, (?<of>.*)")) |
	(map(.of) | in_order[]) as $of | (map(.n) | in_order) as $processes |
	"Contended: \($of); waits in µs",
	(["processes", "kind", ">locks/s", ">spread", ">× robust mutex", ">fairness", ">p50", ">p99",
	  ">p99.9", ">max"] | row),
	($processes[] as $n | "\($n) processes, \($of)" as $case |
	 kinds("contended"; $case; "locks/s")[] as $kind |
	 samples("contended"; $case; $kind; "locks/s") |
	 [$n, $kind, scaled(1), spread, ratio(samples("contended"; $case; $robust; "locks/s")),
	  (samples("contended"; $case; $kind; "fairness") | scaled(1)),
	  (samples("contended"; $case; $kind; "p50 ns", "p99 ns", "p99.9 ns", "max ns") |
	   scaled(1000))] | row),
	"";

def handover: cases("handover")[] as $case | "From an unlock to a sleeping process, \($case)",
	compared("handover"; $case; "ns"; "µs"; 1000; [$robust]);

def death: "From SIGKILL of the holder to the next one running",
	compared("death"; "SIGKILL to next holder"; "ns"; "µs"; 1000; [$robust]);

def ids: "Allocate and free",
	(["ids", ">ns", ">spread", ">× 1,000 taken"] | row),
	(cases("ids")[] as $case | samples("ids"; $case; "klock"; "ns") |
	 [$case, scaled(1), spread, ratio(samples("ids"; "1,000 taken"; "klock"; "ns"))] | row),
	"";

def life: cases("short life")[] as $case | "A short life: open, lock, unlock, close; \($case)",
	compared("short life"; $case; "ns"; "µs"; 1000; if $case | contains("locks") then [] else [$robust] end);

def close: "The last close",
	(["locks held", "kind", ">µs", ">spread"] | row),
	(cases("close")[] as $case | kinds("close"; $case; "ns")[] as $kind |
	 samples("close"; $case; $kind; "ns") | [$case, $kind, scaled(1000), spread] | row),
	"";

def memory: "Memory that the kernel charges for a lock",
	(["", "kind", ">bytes"] | row),
	(cases("memory")[] as $case | kinds("memory"; $case; "bytes")[] as $kind |
	 [$case, $kind, (samples("memory"; $case; $kind; "bytes") | scaled(1))] | row),
	"";

def instructions: "Instructions",
	(["", "kind", ">user", ">kernel", ">all"] | row),
	(cases("instructions")[] as $case | kinds("instructions"; $case; "user")[] as $kind |
	 [$case, $kind, (samples("instructions"; $case; $kind; "user", "kernel") | scaled(1))] |
	 . + [.[2] + .[3]] | row),
	"";

# Without a mapping, what was measured is not what is to be judged.
def if_mapped: if $is_mapped then . else null end;

# Each thing to reach: what was measured, the bound, the aim.
def judged($what; $value; $bound; $limit; $aim):
	[$what, $value, "\($bound) \($limit)", ($aim | tostring),
	 if $value == null then "not measured"
	 elif ($bound == "≤" and $value <= $limit) or ($bound == "≥" and $value >= $limit) then "met"
	 else "missed" end] | row;

def pair($kind; $base): samples("uncontended"; "lock and unlock"; $kind; "ns") |
	ratio(samples("uncontended"; "lock and unlock"; $base; "ns"));

def crowds: cases("contended")[] | select(test("^[248] processes, 1 lock,"));

def reached: "Figures to reach",
	(["what", ">measured", ">bound", ">aim", "verdict"] | row),
	judged("uncontended, mapped, against the robust mutex"; pair($mapped; $robust) | if_mapped;
	       "≤"; 0.35; 0.28),
	judged("uncontended, mapped, against 2 compare-and-swaps";
	       pair($mapped; "2 compare-and-swaps") | if_mapped; "≤"; 1.3; 1.1),
	judged("uncontended, ioctl, against 2 empty ioctls"; pair($ioctl; "2 empty ioctls");
	       "≤"; 1.5; 1.3),
	judged("uncontended, ioctl, against ntsync"; pair($ioctl; "ntsync"); "≤"; 0.40; 0.33),
	(crowds as $case | judged("\($case): throughput against the robust mutex";
		samples("contended"; $case; $mapped; "locks/s") |
		ratio(samples("contended"; $case; $robust; "locks/s")) | if_mapped; "≥"; 1.1; 1.5)),
	(crowds as $case | judged("\($case): fairness";
		samples("contended"; $case; $mapped; "fairness") | scaled(1) | if_mapped; "≥"; 0.8; 0.95)),
	(crowds as $case | judged("\($case): p99.9 wait against the robust mutex";
		samples("contended"; $case; $mapped; "p99.9 ns") |
		ratio(samples("contended"; $case; $robust; "p99.9 ns")) | if_mapped; "≤"; 1.0; 0.5)),
	(cases("handover")[] as $case | judged("handover, \($case), against the robust mutex";
		samples("handover"; $case; $mapped; "ns") |
		ratio(samples("handover"; $case; $robust; "ns")); "≤"; 1.1; 0.9)),
	judged("SIGKILL to the next holder, against the robust mutex";
	       samples("death"; "SIGKILL to next holder"; $mapped; "ns") |
	       ratio(samples("death"; "SIGKILL to next holder"; $robust; "ns")); "≤"; 1.5; 1.0),
	judged("allocate and free, 1,000,000 taken against 1,000";
	       samples("ids"; "1,000,000 taken"; "klock"; "ns") |
	       ratio(samples("ids"; "1,000 taken"; "klock"; "ns")); "≤"; 1.5; 1.1),
	judged("an idle lock, bytes";
	       samples("memory"; "idle, 1,048,576 locks"; "klock"; "bytes") | scaled(1);
	       "≤"; 16; 8),
	"";

def tables: uncontended, contended, handover, death, ids, life, close, memory,
	instructions, reached;

# For a plot with bars: name and value; with lines: a block for each kind, of processes and value.
def bars($axis; $case; $metric; $by): kinds($axis; $case; $metric)[] as $kind |
	"\"\($kind)\"\t\(samples($axis; $case; $kind; $metric) | scaled($by))";

def lines($of; $metric; $by): kinds("contended"; "2 processes, \($of)"; $metric)[] as $kind |
	"\"\($kind)\"",
	(cases("contended")[] | select(endswith(", " + $of)) as $case |
	 "\($case | split(" ")[0])\t\(samples("contended"; $case; $kind; $metric) | scaled($by))"),
	"", "";

def stacked($case): kinds("instructions"; $case; "user")[] as $kind |
	"\"\($kind)\"\t" + ([samples("instructions"; $case; $kind; "user", "kernel") | scaled(1)] | row);
