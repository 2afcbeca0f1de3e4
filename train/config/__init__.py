"""Configuration of a run: options, presets and schedules."""
