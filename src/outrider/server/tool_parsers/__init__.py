"""One file per way in which models write tool calls; its name is what --tool-call-parser takes."""
