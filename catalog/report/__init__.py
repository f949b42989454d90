"""The report on a catalogue run, from its markers: run.json, errors.csv and report.html."""
