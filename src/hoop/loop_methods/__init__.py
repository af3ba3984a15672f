"""The methods of hoop.Loop, a file for each subject; hoop/loop.py puts them together."""
