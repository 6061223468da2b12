"""Files: the `.keras` archive, and the one way in which every file is written."""
