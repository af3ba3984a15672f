"""What is behind hoop.fs: files as jobs of the pool, opened files."""
