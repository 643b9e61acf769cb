"""What the benchmarks share: processes that are timed, images that are made, records that are kept, the page and the picture."""
