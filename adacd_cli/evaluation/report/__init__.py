"""Reports of a run, drawn from results.json: Markdown and one HTML page."""
