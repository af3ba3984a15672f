"""The servers under load: each takes `--loop NAME`, prints its port as JSON, and exits when its stdin ends."""
