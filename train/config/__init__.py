"""What a run is asked to do: options, presets, schedules."""
