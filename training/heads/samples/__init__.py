"""Small files of labelled texts, invented: for a first try, the demo and the tests."""
