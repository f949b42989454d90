"""Results of a catalogue run: one row per input row, committed shard by shard, exactly once."""
