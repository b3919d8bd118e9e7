"""What a sweep will cost, told before anything is spent: steps to run, memory, time and bytes."""
