"""What benchmarks share: limits of time, measurements in turn, the other side's packages."""
