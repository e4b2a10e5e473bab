"""What the benchmarks of scheduling share: engines that are running, lower bounds, Task Bench's graphs."""
